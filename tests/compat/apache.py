# SPDX-License-Identifier: MIT
"""apache2 with mpm_worker: load by wrk, bodies checked by our own client, a graceful stop and a plain one."""

import os
import re
import signal

import harness
from harness import Case, Fail, Skip, say_status

MODULES = "/usr/lib/apache2/modules"

# One child process whose number of threads never changes, so that descriptors can be compared.
CONFIG = """ServerRoot {dir}
ServerName localhost
{listen}
PidFile {dir}/httpd.pid
ErrorLog {dir}/error.log
LogLevel warn
DefaultRuntimeDir {dir}
{user}
LoadModule mpm_worker_module {modules}/mod_mpm_worker.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule mime_module {modules}/mod_mime.so
TypesConfig /dev/null
StartServers 1
ServerLimit 1
ThreadLimit 64
ThreadsPerChild 64
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
MaxConnectionsPerChild 0
MaxKeepAliveRequests 0
KeepAliveTimeout 3
GracefulShutdownTimeout 10
{mutex}
DocumentRoot {docs}
<Directory {docs}>
Require all granted
</Directory>
"""


def server(r, listeners, stop):
    apache, wrk = harness.need("apache2", "wrk")
    if not os.path.exists(MODULES + "/mod_mpm_worker.so"):
        raise Skip("no mod_mpm_worker here")
    docs = r.path("docs")
    os.mkdir(docs)
    for name, size in (("a.txt", 37), ("b.txt", 4096), ("c.bin", 100000), ("d.bin", 1500000)):
        with open(os.path.join(docs, name), "wb") as f:
            f.write((name.encode() * (size // 5 + 1))[:size])
    ports = [harness.free_port() for _ in range(listeners)]
    config = CONFIG.format(dir=r.tmp, docs=docs, modules=MODULES, mutex="Mutex pthread" if listeners > 1 else "",
                           listen="\n".join(f"Listen 127.0.0.1:{p}" for p in ports),
                           user="User www-data\nGroup www-data" if os.getuid() == 0 else "")
    p = r.start(apache, "-f", r.write("httpd.conf", config), "-DFOREGROUND")
    for port in ports:
        p.wait_port(port)
        r.client("http", "--port", port, "--docs", docs, "--connections", "10", "--messages", "4")
    pids = p.members()
    before = {pid: harness.descriptors(pid) for pid in pids}
    answers = []
    for port in ports:
        answers.append(r.client("http", "--port", port, "--docs", docs, "--connections", "40", "--messages", "30"))
    for port in ports:
        out = r.run(wrk, "-t2", "-c60", "-d2s", f"http://127.0.0.1:{port}/b.txt", native=True)[1]
        r.log(out)
        if "Socket errors" in out or "Non-2xx" in out:
            raise Fail("wrk: " + re.search(r"(Socket errors|Non-2xx).*", out).group(0))
        if not re.search(r"[1-9]\d* requests in", out):
            raise Fail("wrk: no request was served")
    if p.members() != pids:
        raise Fail(f"processes before {pids}, after the load {p.members()}")
    r.same_descriptors(before, pids, "apache2")
    rc = p.stop(stop, timeout=25)
    left = p.members()
    with open(r.path("error.log"), errors="replace") as f:
        errors = f.read()
    r.log("---- error.log\n" + errors)
    bad = re.search(r"^.*:(warn|error|crit|alert|emerg)\].*$", errors, re.M)
    if bad:
        raise Fail("error log: " + bad.group(0)[:160])
    if left:
        raise Fail(f"processes {left} are left after the stop")
    return "".join(answers) + f"{stop.name}: {say_status(rc)}"


def cases(options):
    return [Case("apache", lambda r: server(r, 1, signal.SIGWINCH), timeout=90, alone=True),
            # two sockets to listen on: accept is then guarded by a mutex that processes share
            Case("apache-two", lambda r: server(r, 2, signal.SIGTERM), timeout=90, alone=True)]
