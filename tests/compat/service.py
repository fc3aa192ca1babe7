# SPDX-License-Identifier: MIT
"""What `make compat` does with a program: the steps for servers, and for tools that end by themselves.

A Server or Tool is described in one of the lists (servers_*.py, tools.py, suites.py) and run once for each variant: natively, under
pgreen at several numbers of Ps, and with a time slice of 1 ms.  A run gives an answer, a text that must be the native one, and
figures, which are only shown.

The steps with a server, in this order; `answer` notes what each came to:
    start        until its port answers
    load         b_http, or the server's own load(), at each number of connections; every answer is compared
    kill         clients reset in the middle of a request and before they have read the answer
    churn        a connection for each request
    reload       its reload signal under load, where it has one
    still        answers as in the beginning, descriptors as before
    files        a second copy with few descriptors meets more clients than it can take, then serves on
    stop         its stop signal under load; exit status; what its log says
"""

import os
import re
import signal
import time

import harness
from harness import Fail, say_status

FIGURES = ("rps", "p50", "p99", "cpu", "rss", "threads")


class Figures(dict):
    """Of one load: requests per second, µs at the median and the 99th percentile, µs of CPU per request, KB, OS threads."""

    @staticmethod
    def parse(line):
        return Figures((k, float(v)) for k, v in re.findall(r"(\w+)=([-\d.]+)", line))


class Server:
    """name: in `make compat P=`.  package: gives the version.  kind: a, b, c as in the census: a connection per thread, event
    loops, pools.

    start(r, limit=None) -> Up     starts it under r; limit: what `prlimit` is to set before
    connections                    where it makes sense
    reload                         a signal
    stop                           the signal that ends it, and status, when it isn't the same natively each time
    log(r, up) -> text             what of its log must be as natively
    files                          the descriptor limit of the second copy; None: not tried, why_no_files says why
    """

    def __init__(self, name, title, package, kind, start, connections=(16, 256, 1000), reload=None, stop=signal.SIGTERM, log=None,
                 files=None, why_no_files="", kill=True, churn=True, load=None, same_fds=True, lost_on_reload=True, note=""):
        self.name, self.title, self.package, self.kind = name, title, package, kind
        self.start, self.connections, self.reload, self.stop, self.log = start, connections, reload, stop, log
        self.files, self.why_no_files, self.kill, self.churn = files, why_no_files, kill, churn
        self.own_load, self.same_fds, self.lost_on_reload, self.note = load, same_fds, lost_on_reload, note


class Up:
    """A server that runs: its process, and how b_http asks it: arguments with the port and what to expect."""

    def __init__(self, proc, args, port):
        self.proc, self.args, self.port = proc, [str(a) for a in args], port

    def pids(self):
        return self.proc.members()


def http(r, port, target, body):
    """Arguments for b_http: GET target gives body (bytes, or a path)."""
    if isinstance(body, bytes):
        body = r.write("body." + re.sub(r"\W", "", target), body)
    return ["-p", port, "-u", target, "-b", body]


def exchange(r, port, request, answer, greeting=0, login=b"", login_answer=0):
    """Arguments for b_http: these bytes are answered by those; before, so many bytes of greeting and of the answer to login."""
    args = ["-p", port, "-q", r.write("request", request), "-a", r.write("answer", answer), "-g", greeting]
    return args + (["-l", r.write("login", login), "-L", login_answer] if login else [])


def ask(r, up, connections, seconds, *more, label="load"):
    """Start the client, native."""
    exe = os.path.join(r.build, "tests", "b_http")
    return r.start(exe, *up.args, "-c", connections, "-d", seconds, *more, native=True, label=f"{label}-{connections}")


def load(r, up, connections, seconds, *more, label="load"):
    """One run of the client.  Figures."""
    p = ask(r, up, connections, seconds, "-s", ",".join(map(str, up.pids()[:60])), *more, label=label)
    rc = p.wait(seconds + 60)
    if rc != 0:
        if up.proc.poll() is not None:
            raise Fail(f"{label} at {connections}: the server ended, {say_status(up.proc.poll())}{r.last_words(up.proc)}")
        r.dump(f"{label} at {connections} failed")
        raise Fail(f"{label} at {connections}: {say_status(rc)}{r.last_words(p)}")
    return Figures.parse(p.out())


def serve(server, r, seconds, figures):
    """All steps under one variant.  The answer; figures[connections] is filled."""
    one_load = server.own_load or load
    up = server.start(r)
    said = ["start: it answers"]
    one_load(r, up, server.connections[0], 1, label="warm")
    before = {pid: harness.descriptors(pid) for pid in up.pids()} if server.same_fds else {}
    for n in server.connections:
        f = figures[n] = one_load(r, up, n, seconds)
        said.append(f"load: {n} connections, all answers right")
        r.log(f"{n} connections: {f}")
    if server.kill:
        load(r, up, 64, min(seconds, 5), "-k", "400", "-x", label="kill")
        said.append("kill: survived")
    if server.churn:
        figures["churn"] = load(r, up, 32, min(seconds, 5), "-n", "-x", label="churn")
        said.append("churn: survived")
    if server.reload:
        p = ask(r, up, 32, 3, "-x", label="reload")
        for _ in range(3):
            time.sleep(0.7)
            os.kill(up.proc.pid, server.reload)
        if p.wait(60) != 0:
            raise Fail(f"reload: {say_status(p.poll())}{r.last_words(p)}")
        said.append("reload: survived")
    one_load(r, up, server.connections[0], 1, label="still")
    if before and not server.reload:
        r.same_descriptors({k: v for k, v in before.items() if k in up.pids()}, [k for k in before if k in up.pids()], server.name)
        said.append("still: answers, descriptors as before")
    else:
        said.append("still: answers")
    if server.own_load is None:
        ask(r, up, 16, 30, "-x", label="under-stop")
        time.sleep(0.5)
    rc = up.proc.stop(server.stop, timeout=30)
    said.append(f"stop: {say_status(rc)}")
    left = up.proc.members()
    end = time.monotonic() + 10
    while left and time.monotonic() < end:
        time.sleep(0.1)
        left = up.proc.members()
    if left:
        raise Fail(f"after its stop {len(left)} processes are left")
    if server.log:
        said.append("log: " + server.log(r, up))
    for p in r.procs:
        if p.label.startswith("under-stop") and p.poll() is None:
            os.kill(p.pid, signal.SIGKILL)
            p.wait()
    if server.files:
        up = server.start(r, limit=server.files)
        few = ask(r, up, server.files * 2, 3, "-x", label="files")
        time.sleep(6)
        if few.poll() is None:
            os.kill(few.pid, signal.SIGKILL)
        few.p.wait()
        if up.proc.poll() is not None:
            raise Fail(f"out of descriptors: {say_status(up.proc.poll())}{r.last_words(up.proc)}")
        end = time.monotonic() + 20
        while True: # it may sleep for a while after EMFILE
            p = ask(r, up, 8, 1, "-x", label="files-after")
            if p.wait(60) == 0:
                break
            if time.monotonic() > end:
                r.dump("no answers after EMFILE")
                raise Fail(f"after it was out of descriptors: {r.last_words(p)}")
        said.append("files: survived")
        up.proc.stop(server.stop, timeout=30)
    return "\n".join(said) + "\n"


class Tool:
    """A program that ends by itself.  run(r) -> text that must be as natively; what it started is timed as a whole.
    paired: its time matters; the figure is the median of several rounds."""

    def __init__(self, name, title, package, run, kind="compute", rounds=3, timeout=120, note=""):
        self.name, self.title, self.package, self.run, self.kind = name, title, package, run, kind
        self.rounds, self.timeout, self.note = rounds, timeout, note


def limited(argv, limit):
    """argv with a soft and hard limit of descriptors."""
    return [harness.need("prlimit"), f"--nofile={limit}:{limit}", *argv] if limit else list(argv)
