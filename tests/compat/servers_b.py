# SPDX-License-Identifier: MIT
"""Servers with event loops in few threads."""

import os

import harness
from service import Server, Up, exchange, limited


def memcached_start(r, limit=None):
    port = harness.free_port()
    user = ["-u", "root"] if os.getuid() == 0 else []
    p = r.start(*limited([harness.need("memcached"), "-t", "4", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-c", "8000", *user],
                         limit), label="memcached")
    p.wait_port(port)
    value = b"v" * 100
    return Up(p, exchange(r, port, b"set k 0 0 100\r\n%s\r\nget k\r\n" % value, b"STORED\r\nVALUE k 0 100\r\n%s\r\nEND\r\n" % value),
              port)


SERVERS = [
    Server("memcached", "memcached -t 4, set and get", "memcached", "b", memcached_start, (16, 256, 1000, 4000)),
]
