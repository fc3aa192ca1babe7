# SPDX-License-Identifier: MIT
"""An echo server with a thread for each connection; SIGTERM ends it."""

import signal
import socketserver
import sys
import threading

lock = threading.Lock()
served = 0


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        global served
        while data := self.request.recv(65536):
            self.request.sendall(data)
        with lock:
            served += 1


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 1024
    daemon_threads = False


def stop(*_):
    threading.Thread(target=server.shutdown).start()


with Server(("127.0.0.1", int(sys.argv[1])), Echo) as server:
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    server.serve_forever(poll_interval=0.05)
print(f"{served} served")
