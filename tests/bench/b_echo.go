// SPDX-License-Identifier: MIT

// The echo server of b_echo_server.c in Go: a goroutine for each connection.  Prints `PORT n` when it listens on 127.0.0.1.
package main

import (
	"fmt"
	"net"
	"os"
)

func serve(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err = c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "b_echo.go:", err)
		os.Exit(1)
	}
	fmt.Println("PORT", l.Addr().(*net.TCPAddr).Port)
	for {
		c, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "b_echo.go:", err)
			os.Exit(1)
		}
		go serve(c)
	}
}
