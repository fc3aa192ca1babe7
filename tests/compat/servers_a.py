# SPDX-License-Identifier: MIT
"""Servers with a connection for each thread."""

import os
import socket
import struct

import harness
from harness import Fail
from service import Server, Up, exchange, http, limited

HERE = os.path.dirname(os.path.abspath(__file__))


# -- MariaDB ----------------------------------------------------------------

def mariadb_start(r, limit=None):
    user = ["--user=root"] if os.getuid() == 0 else []
    data = r.path("data")
    if not os.path.isdir(data):
        r.run(harness.need("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
              "--skip-test-db", *user, native=True)
    port = harness.free_port()
    argv = [harness.need("mariadbd"), "--no-defaults", *user, f"--datadir={data}", f"--socket={r.path('sock')}", f"--port={port}",
            "--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=5000", "--innodb-buffer-pool-size=128M",
            "--innodb-flush-log-at-trx-commit=0", f"--pid-file={r.path('pid')}", "--thread-handling=one-thread-per-connection",
            "--max-connect-errors=1000000", "--back-log=1000"]
    p = r.start(*limited(argv, limit), label="mariadbd")
    p.wait_for("its socket", lambda: os.path.exists(r.path("sock")), 40)
    p.wait_port(port, 40)
    sql(r, "create database if not exists t; create user if not exists reader@'127.0.0.1'; grant all on t.* to reader@'127.0.0.1'; "
           "create table if not exists t.t (id int primary key, k int, c char(120)) engine=innodb; "
           "insert ignore into t.t select seq, seq * 7, repeat(char(65 + seq % 26), 100) from t.seq_1_to_10000;")
    return Up(p, exchange(r, port, *mariadb_exchange(port)), port)


def sql(r, text):
    return r.run(harness.need("mariadb"), "--no-defaults", "-uroot", f"-S{r.path('sock')}", "-N", "-e", text, native=True,
                 label="sql")[1]


def packet(s):
    head = s.recv(4, socket.MSG_WAITALL)
    n = int.from_bytes(head[:3], "little")
    return head + (s.recv(n, socket.MSG_WAITALL) if n else b"")


def mariadb_exchange(port):
    """(query, its answer, length of the greeting, login, length of its answer), by one connection that tries them."""
    with socket.create_connection(("127.0.0.1", port), 20) as s:
        greeting = packet(s)
        flags = 0x1 | 0x8 | 0x200 | 0x8000 | 0x80000 # long password, with database, 4.1, secure connection, plugin
        login = struct.pack("<IIB23x", flags, 1 << 24, 33) + b"reader\0" + b"\0" + b"t\0" + b"mysql_native_password\0"
        login = len(login).to_bytes(3, "little") + b"\1" + login
        s.sendall(login)
        ok = packet(s)
        if ok[4] != 0:
            raise Fail(f"MariaDB refuses the login: {ok!r}")
        text = b"\3select c from t where id=4711"
        query = len(text).to_bytes(3, "little") + b"\0" + text
        s.sendall(query)
        answer = b""
        ends = 0
        while ends < 2:
            p = packet(s)
            answer += p
            ends += p[4] == 0xFE
    if b"F" * 100 not in answer: # 65 + 4711 % 26
        raise Fail(f"MariaDB answers {answer!r}")
    return query, answer, len(greeting), login, len(ok)


# -- Java -------------------------------------------------------------------

def java_start(r, limit=None):
    classes = r.path("classes")
    if not os.path.isdir(classes):
        r.run(harness.need("javac"), "-d", classes, os.path.join(HERE, "prog", "BlockingHttp.java"), native=True)
    port = harness.free_port()
    p = r.start(*limited([harness.need("java"), "-Xmx512m", "-cp", classes, "BlockingHttp", str(port)], limit), label="java")
    p.wait_port(port, 30)
    return Up(p, http(r, port, "/", b"hello from a thread\n"), port)


# -- Python -----------------------------------------------------------------

def python_http(r, limit=None):
    port = harness.free_port()
    p = r.start(*limited([harness.PYTHON, os.path.join(HERE, "prog", "py_http.py"), str(port)], limit), label="python3")
    p.wait_port(port)
    return Up(p, http(r, port, "/", b"hello from a thread\n"), port)


def python_socketserver(r, limit=None):
    port = harness.free_port()
    p = r.start(*limited([harness.PYTHON, os.path.join(HERE, "prog", "py_socketserver.py"), str(port)], limit), label="python3")
    p.wait_port(port)
    return Up(p, exchange(r, port, b"x" * 63 + b"\n", b"x" * 63 + b"\n"), port)


SERVERS = [
    Server("mariadb", "MariaDB, one thread per connection, point selects", "mariadb-server", "a", mariadb_start,
           (16, 256, 1000, 4000), same_fds=False),
    Server("java", "Java, blocking sockets on platform threads", "openjdk-17-jre-headless", "a", java_start, (16, 256, 1000, 4000),
           files=200),
    Server("python-http", "Python, ThreadingHTTPServer", "python3", "a", python_http, (16, 256, 1000), files=100),
    Server("python-socketserver", "Python, ThreadingTCPServer", "python3", "a", python_socketserver, (16, 256, 1000), files=100),
]
