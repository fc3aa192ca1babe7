# SPDX-License-Identifier: MIT
"""python3: threads, queues, conditions, timers, subprocesses, a threading server, and KeyboardInterrupt."""

import os
import signal
import time

import harness
from harness import Case, say_status


def script(r, name, *args):
    rc, out = r.run(harness.PYTHON, os.path.join(harness.PROGS, name), *args, expect=None)
    return f"{say_status(rc)}\n{out}"


def server(r):
    """500 clients at once, a thread each."""
    port = harness.free_port()
    p = r.start(harness.PYTHON, os.path.join(harness.PROGS, "py_server.py"), port, label="server")
    p.wait_for("the word ready", lambda: "ready" in p.out())
    r.client("echo", "--port", port, "--connections", "20")
    before = {p.pid: harness.descriptors(p.pid)}
    answer = r.client("echo", "--port", port, "--connections", "500", "--messages", "6")
    r.same_descriptors(before, [p.pid], "the server")
    rc = p.stop(signal.SIGTERM)
    return f"{answer}SIGTERM: {say_status(rc)}\n{p.out()}"


def interrupt(r, how):
    """SIGINT while threads run; the exit status says how Python took it."""
    p = r.start(harness.PYTHON, os.path.join(harness.PROGS, "py_interrupt.py"), how, label="interrupt")
    p.wait_for("the word ready", lambda: "ready" in p.out())
    time.sleep(0.2)
    rc = p.stop(signal.SIGINT, timeout=20)
    words = [l for l in p.err().splitlines() if l.startswith("KeyboardInterrupt")]
    return f"SIGINT: {say_status(rc)}\n{p.out()}{words}"


def cases(options):
    def case(name, *args, **kw):
        return Case(f"python-{name.replace('_', '-')}", lambda r: script(r, f"py_{name}.py", *args), **kw)
    return [case("pipeline"), case("subprocess"), case("futures"), case("sync"),
            Case("python-interrupt-caught", lambda r: interrupt(r, "caught"), timeout=40),
            Case("python-interrupt-lock", lambda r: interrupt(r, "lock"), timeout=40),
            Case("python-interrupt-uncaught", lambda r: interrupt(r, "uncaught"), timeout=40),
            Case("python-server", server, timeout=90, alone=True)]
