// SPDX-License-Identifier: MIT
/** A server of HTTP on blocking sockets, a platform thread for each connection. */
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;

public class BlockingHttp {
	static final byte[] ANSWER = ("HTTP/1.1 200 OK\r\nContent-Length: 20\r\nContent-Type: text/plain\r\n\r\n"
			+ "hello from a thread\n").getBytes(StandardCharsets.US_ASCII);

	public static void main(String[] args) throws Exception {
		ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]), 1000, InetAddress.getByName("127.0.0.1"));
		while (true) {
			Socket s;
			try {
				s = listener.accept();
			} catch (IOException e) {	// no descriptor left
				Thread.sleep(10);
				continue;
			}
			Thread t = new Thread(() -> serve(s));
			t.setDaemon(true);
			t.start();
		}
	}

	static void serve(Socket s) {
		try (s) {
			s.setTcpNoDelay(true);
			InputStream in = s.getInputStream();
			OutputStream out = s.getOutputStream();
			byte[] buf = new byte[4096];
			int have = 0;
			for (int n; (n = in.read(buf, have, buf.length - have)) > 0; ) {
				have += n;
				String head = new String(buf, 0, have, StandardCharsets.US_ASCII);
				if (head.endsWith("\r\n\r\n")) {
					out.write(ANSWER);
					have = 0;
					if (head.contains("Connection: close"))
						return;
				}
			}
		} catch (IOException e) {
			// the client is gone
		}
	}
}
