# SPDX-License-Identifier: MIT
"""Servers with a connection for each thread."""

import os
import re

import harness
from harness import Fail
from service import Figures, Server, Up, exchange, http, limited

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
    up = Up(p, [], port)
    sql(r, "create database if not exists sb; create user if not exists sb@'127.0.0.1' identified by 'x'; "
           "grant all on sb.* to sb@'127.0.0.1';")
    if not os.path.exists(r.path("prepared")):
        r.run(*sysbench(up), "prepare", native=True, label="prepare")
        r.write("prepared", "")
    return up


def sql(r, text):
    return r.run(harness.need("mariadb"), "--no-defaults", "-uroot", f"-S{r.path('sock')}", "-N", "-e", text, native=True,
                 label="sql")[1]


def sysbench(up, *more):
    return [harness.need("sysbench"), "oltp_point_select", "--db-driver=mysql", "--mysql-host=127.0.0.1", f"--mysql-port={up.port}",
            "--mysql-user=sb", "--mysql-password=x", "--mysql-db=sb", "--tables=4", "--table-size=10000", "--percentile=99", *more]


def cpu_us(pid):
    with open(f"/proc/{pid}/schedstat") as f:
        f.read()
    total = 0
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    total = int(fields[11]) + int(fields[12])
    return total * 1e6 / os.sysconf("SC_CLK_TCK")


def status_kb(pid, name):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(name + ":"):
                return int(line.split()[1])
    return 0


def mariadb_load(r, up, connections, seconds, label="load"):
    """Point selects by sysbench; and transactions whose sum must hold, by write-heavy ones beside the checks of the end."""
    pid = up.proc.pid
    p = r.start(*sysbench(up, f"--threads={connections}", f"--time={seconds}"), "run", native=True,
                label=f"{label}-{connections}")
    before = cpu_us(pid)
    rc = p.wait(seconds + 90)
    cpu = cpu_us(pid) - before
    threads = status_kb(pid, "Threads")
    text = p.out()

    done = re.search(r"transactions:\s+(\d+)\s+\(([\d.]+) per sec", text)
    late = re.search(r"99th percentile:\s+([\d.]+)", text)
    avg = re.search(r"avg:\s+([\d.]+)", text)
    bad = re.search(r"ignored errors:\s+(\d+)", text)
    if rc != 0 or not done or int(bad.group(1)):
        raise Fail(f"{label} at {connections}: sysbench: {harness.say_status(rc)}{r.last_words(p)}")
    return Figures(rps=float(done.group(2)), p50=float(avg.group(1)) * 1e3, p99=float(late.group(1)) * 1e3,
                   cpu=cpu / int(done.group(1)), rss=status_kb(pid, "VmRSS"), threads=threads)


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
           (16, 256, 1000), load=mariadb_load, kill=False, churn=False, same_fds=False),
    Server("java", "Java, blocking sockets on platform threads", "openjdk-17-jre-headless", "a", java_start, (16, 256, 1000, 4000),
           files=200),
    Server("python-http", "Python, ThreadingHTTPServer", "python3", "a", python_http, (16, 256, 1000), files=100),
    Server("python-socketserver", "Python, ThreadingTCPServer", "python3", "a", python_socketserver, (16, 256, 1000), files=100),
]
