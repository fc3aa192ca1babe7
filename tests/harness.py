# SPDX-License-Identifier: MIT
"""What every test of tests/run stands on: processes in sessions of their own, time limits, dumps, variants.

A Variant says how a program is run: natively, or under pgreen with so many Ps.  A Run is one test under one variant:
it owns a log, a temporary directory and every process it started.  Each of those leads its own session, so a dump and a
kill reach exactly the processes of this test, whoever forked them, and nothing else.
A test is a function of a Run: it returns its answer (any text; compared with the native one), or raises Fail or Skip.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)
PROGS = os.path.join(TESTS, "compat", "prog")
PYTHON = "/usr/bin/python3"


class Fail(Exception):
    """The test failed; the text is the reason, one line."""


class Skip(Exception):
    """The test can't be run here; the text says why."""


class Variant:
    def __init__(self, name, env=None, preload=None, launcher=None):
        self.name = name
        self.env = env or {}
        self.preload = preload
        self.launcher = launcher

    @property
    def native(self):
        return not (self.preload or self.launcher)


def variants(build, procs, extra, wired=False):
    """Native first; then the launcher at each number of Ps; with extra also a fast tick and the other lock variant; wired: each
    thread on an OS thread of its own."""
    launcher = os.path.join(build, "pgreen")
    out = [Variant("native")]
    for p in procs:
        out.append(Variant(f"p{p}", {"PGREEN_MAXPROCS": str(p)}, launcher=launcher))
    if extra and procs:
        out.append(Variant("preempt", {"PGREEN_MAXPROCS": "2", "PGREEN_PREEMPT": "100"}, launcher=launcher))
        out.append(Variant("sema", {"PGREEN_MAXPROCS": "2"}, preload=os.path.join(build, "sema", "libpgreen.so")))
    if wired and procs:
        out.append(Variant("wired", {"PGREEN_MAXPROCS": "2", "PGREEN_WIRE": "*"}, launcher=launcher))
    return out


def say_status(rc):
    if rc is None:
        return "still running"
    if rc >= 0:
        return f"exit status {rc}"
    try:
        return f"killed by {signal.Signals(-rc).name}"
    except ValueError:
        return f"killed by signal {-rc}"


def need(*programs):
    """Full paths of programs; Skip if this machine lacks one."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin"
    found = []
    for p in programs:
        full = shutil.which(p, path=path)
        if not full:
            raise Skip(f"no {p} here")
        found.append(full)
    return found[0] if len(found) == 1 else found


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def session_members(sid):
    """The processes of a session.  Zombies are nobody's business: they hold nothing."""
    found = []
    for d in os.listdir("/proc"):
        if not d.isdigit():
            continue
        try:
            with open(f"/proc/{d}/stat", "rb") as f:
                fields = f.read().rsplit(b")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == sid and fields[0] not in (b"Z", b"X"):
            found.append(int(d))
    return sorted(found)


def marked(mark):
    """The processes that inherited a Run's TMPDIR: those that left its sessions as well."""
    found = []
    mark = b"TMPDIR=" + mark.encode()
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                with open(f"/proc/{d}/environ", "rb") as f:
                    if mark in f.read().split(b"\0"):
                        found.append(int(d))
            except OSError:
                pass
    return found


def descriptors(pid):
    """What /proc/PID/fd shows, as {number: target}."""
    out = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            out[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            pass
    return out


class Proc:
    """A process that leads its own session; stdout and stderr go to files in the Run's directory."""

    def __init__(self, run, argv, env, label, stdin, stdout, cwd):
        self.run = run
        self.argv = argv
        self.label = label
        self.out_path = stdout or os.path.join(run.tmp, f"{label}.out")
        self.err_path = os.path.join(run.tmp, f"{label}.err")
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err, \
                open(stdin or "/dev/null", "rb") as inp:
            self.p = subprocess.Popen(argv, env=env, stdin=inp, stdout=out, stderr=err,
                                      cwd=cwd or run.tmp, start_new_session=True)
        self.pid = self.p.pid
        self.logged = stdout is not None

    def poll(self):
        return self.p.poll()

    def out(self):
        with open(self.out_path, "rb") as f:
            return f.read().decode(errors="replace")

    def err(self):
        with open(self.err_path, "rb") as f:
            return f.read().decode(errors="replace")

    def wait(self, timeout=None):
        """The exit status; a time-out dumps every thread of the whole test and fails it."""
        limit = self.run.left() if timeout is None else min(timeout, self.run.left())
        try:
            return self.p.wait(max(limit, 0.01))
        except subprocess.TimeoutExpired:
            self.run.dump(f"{self.label} did not end")
            raise Fail(f"{self.label}: no end after {limit:.0f} s") from None

    def wait_for(self, what, ready, timeout=15):
        """Until ready() is true; fails when the process ends first or time is up."""
        end = time.monotonic() + min(timeout, self.run.left())
        while not ready():
            if self.poll() is not None:
                raise Fail(f"{self.label}: {say_status(self.poll())} before {what}")
            if time.monotonic() > end:
                self.run.dump(f"{self.label}: {what} does not come")
                raise Fail(f"{self.label}: no {what} after {timeout} s")
            time.sleep(0.02)

    def wait_port(self, port, timeout=15):
        def up():
            try:
                socket.create_connection(("127.0.0.1", port), 2).close()
                return True
            except OSError:
                return False
        self.wait_for(f"port {port}", up, timeout)

    def stop(self, sig=signal.SIGTERM, timeout=15):
        if self.poll() is not None:
            raise Fail(f"{self.label}: {say_status(self.poll())} before it was told to stop")
        os.kill(self.pid, sig)
        return self.wait(timeout)

    def members(self):
        """Its session: itself and those it forked."""
        return session_members(self.pid)


class Run:
    """One test under one variant."""

    lock = threading.RLock()
    live = set()
    stopping = False    # told to end: nothing is started any more; under lock

    def __init__(self, name, variant, build, timeout, options):
        self.name = name
        self.variant = variant
        self.build = build
        self.options = options
        self.deadline = time.monotonic() + timeout
        self.tmp = tempfile.mkdtemp(prefix="pgreen-test-")
        os.chmod(self.tmp, 0o755)
        self.procs = []
        logdir = os.path.join(build, "log")
        os.makedirs(logdir, exist_ok=True)
        self.log_path = os.path.join(logdir, name + ".log")
        self.logf = open(self.log_path, "w", errors="replace")
        with Run.lock:
            Run.live.add(self)

    def left(self):
        return max(0.0, self.deadline - time.monotonic())

    def log(self, text):
        self.logf.write(text if text.endswith("\n") else text + "\n")
        self.logf.flush()

    def path(self, name):
        return os.path.join(self.tmp, name)

    def write(self, name, text):
        with open(self.path(name), "w" if isinstance(text, str) else "wb") as f:
            f.write(text)
        return self.path(name)

    # -- starting ---------------------------------------------------------

    def environment(self, native, env):
        e = {k: v for k, v in os.environ.items() if not k.startswith("PGREEN") and k != "LD_PRELOAD"}
        e["LC_ALL"] = "C"
        e["TMPDIR"] = self.tmp
        e["PYTHONDONTWRITEBYTECODE"] = "1"
        e.update(env or {})
        if not native:
            e.update(self.variant.env)
            if self.variant.preload:
                e["LD_PRELOAD"] = ":".join(filter(None, [self.variant.preload, e.get("LD_PRELOAD")]))
        return e

    def start(self, *argv, native=False, env=None, label=None, stdin=None, stdout=None,
              cwd=None):
        """Start a program: under this Run's variant, or natively (the clients)."""
        argv = [str(a) for a in argv]
        label = label or os.path.basename(argv[0])
        while any(p.label == label for p in self.procs):
            label += "+"
        native = native or self.variant.native
        if not native:
            for part in (self.variant.launcher, self.variant.preload):
                if part and not os.path.exists(part):
                    raise Fail(f"{os.path.relpath(part, ROOT)} is missing")
            if self.variant.launcher:
                argv = [self.variant.launcher, "--"] + argv
        full = self.environment(native, env)
        shown = {k: v for k, v in full.items() if k.startswith("PGREEN") or k == "LD_PRELOAD" or k in (env or {})}
        self.log("$ " + " ".join([f"{k}={v}" for k, v in sorted(shown.items())] + argv))
        with Run.lock:
            if Run.stopping:
                raise Fail("interrupted")
            p = Proc(self, argv, full, label, stdin, stdout, cwd)
            self.procs.append(p)
        return p

    @staticmethod
    def stop_all():
        """Take down what runs, and nothing else."""
        with Run.lock:
            Run.stopping = True
            runs = list(Run.live)
        for r in runs:
            r.kill()
            shutil.rmtree(r.tmp, ignore_errors=True)

    def run(self, *argv, timeout=None, expect=0, **kw):
        """Run to the end: (exit status, stdout).  A status other than expect fails, unless expect is None."""
        p = self.start(*argv, **kw)
        rc = p.wait(timeout)
        if expect is not None and rc != expect:
            raise Fail(f"{p.label}: {say_status(rc)}{self.last_words(p)}")
        return rc, "" if p.logged else p.out()

    def client(self, *argv, timeout=None):
        """tests/compat/client.py, always native.  Its stdout."""
        return self.run(PYTHON, os.path.join(TESTS, "compat", "client.py"), *argv, native=True,
                        label=f"client-{argv[0]}", timeout=timeout)[1]

    @staticmethod
    def last_words(p):
        lines = [l.strip() for l in (p.err().strip() or ("" if p.logged else p.out().strip())).splitlines()]
        return f" ({lines[-1][:120]})" if lines else ""

    # -- checks -----------------------------------------------------------

    def same_descriptors(self, before, pids, what):
        """Descriptors of these processes are as they were; closing may lag behind the clients' end."""
        end = time.monotonic() + min(10, self.left())
        while True:
            after = {pid: descriptors(pid) for pid in pids}
            if all(len(after[pid]) == len(before[pid]) for pid in pids):
                return
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        for pid in pids:
            for fd in sorted(set(after[pid]) - set(before[pid])):
                self.log(f"descriptor of {pid} that was not there before: {fd} -> {after[pid][fd]}")
            for fd in sorted(set(before[pid]) - set(after[pid])):
                self.log(f"descriptor of {pid} that is gone: {fd} -> {before[pid][fd]}")
        counts = ", ".join(f"{len(before[pid])} -> {len(after[pid])}" for pid in pids)
        self.dump("descriptors leaked")
        raise Fail(f"{what}: descriptors before and after the load: {counts}")

    # -- the end ----------------------------------------------------------

    def dump(self, why):
        """All threads of all processes of this test, into the log."""
        self.log(f"\n==== {why}: all threads ====")
        gdb = shutil.which("gdb")
        for pid in self.members()[:12]:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    cmd = f.read().replace(b"\0", b" ").decode(errors="replace")
                with open(f"/proc/{pid}/status") as f:
                    status = f.read()
            except OSError:
                continue
            self.log(f"\n---- process {pid}: {cmd}\n{status}")
            if not gdb:
                self.log("(no gdb here)")
                continue
            cmd = [gdb, "-nx", "-p", str(pid), "-batch", "-ex", "set pagination off", "-ex", "thread apply all bt 12"]
            try:
                r = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   timeout=40, start_new_session=True, env={**os.environ, "DEBUGINFOD_URLS": ""})
                text = r.stdout.decode(errors="replace")
                text = "\n".join(l for l in text.splitlines() if not re.match(r"\[New LWP|warning: ", l))
                self.log(text[:400000])
            except subprocess.TimeoutExpired:
                self.log("(gdb did not finish in 40 s)")

    def members(self):
        """Every process of this test that lives."""
        pids = set(marked(self.tmp))
        for p in self.procs:
            pids.update(p.members())
        return sorted(pids)

    def kill(self):
        """All of them, until nobody is left."""
        for _ in range(100):
            pids = self.members()
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            for p in self.procs:
                p.poll()
            if not pids:
                return
            time.sleep(0.02)

    def close(self):
        """Stop what still runs, keep what was printed, take the directory away."""
        self.kill()
        for p in self.procs:
            if not p.logged:
                text = p.out()
                self.log(f"---- {p.label}: stdout\n{text[-60000:]}")
            self.log(f"---- {p.label}: stderr\n{p.err()[-60000:]}")
            self.log(f"---- {p.label}: {say_status(p.poll())}")
        self.logf.close()
        shutil.rmtree(self.tmp, ignore_errors=True)
        with Run.lock:
            Run.live.discard(self)


class Case:
    """A test with its variants.  The native run is made once, by whoever needs its answer first.

    run(r) -> answer                      expected: the answer, where a native run can't give it
    alone: no other test beside it        extra: also with a fast tick and with the sema locks
    no_native: why there is no native run wired: also with every thread wired
    """

    def __init__(self, name, run, timeout=60, alone=False, extra=False, expected=None, no_native=None,
                 wired=False):
        self.name = name
        self.run = run
        self.timeout = timeout
        self.alone = alone
        self.extra = extra
        self.expected = expected
        self.no_native = no_native
        self.wired = wired
        self.lock = threading.Lock()
        self.native = None

    def once(self, variant, build, options):
        limit = min(self.timeout, max(1.0, options.end - time.monotonic()))
        r = Run(f"{self.name}-{variant.name}", variant, build, limit, options)
        answer = None
        try:
            answer = self.run(r)
            r.log(f"==== answer\n{answer}")
        except (Fail, Skip) as e:
            r.log(f"==== {type(e).__name__}: {e}")
            raise
        except subprocess.TimeoutExpired as e:
            r.dump("time-out")
            raise Fail(f"{e}") from None
        finally:
            r.close()
        return answer

    def native_answer(self, variant, build, options):
        with self.lock:
            if self.native is None:
                try:
                    self.native = (self.once(variant, build, options), None)
                except Exception as e:
                    self.native = (None, e)
        if self.native[1] is not None:
            raise self.native[1]
        return self.native[0]

    def test(self, variant, build, options):
        """One variant, compared with native.  Returns nothing; raises Fail or Skip."""
        if variant.native:
            if self.no_native:
                raise Skip(self.no_native)
            answer = self.native_answer(Variant("native"), build, options)
            if self.expected is not None and answer != self.expected:
                raise Fail(differ(self.expected, answer))
            return
        want = self.expected
        if want is None:
            try:
                want = self.native_answer(Variant("native"), build, options)
            except Skip:
                raise
            except Exception:
                raise Skip("its native run failed") from None
        answer = self.once(variant, build, options)
        if answer != want:
            with open(os.path.join(build, "log", f"{self.name}-{variant.name}.log"), "a") as f:
                f.write(f"==== natively\n{want}\n")
            raise Fail(differ(want, answer, "natively" if self.expected is None else "expected"))


def differ(want, got, whose="expected"):
    for n, (a, b) in enumerate(zip(want.splitlines() + ["(end)"], got.splitlines() + ["(end)"]), 1):
        if a != b:
            return f"line {n} of the answer is {b[:80]!r}, {whose} {a[:80]!r}"
    return "the answer differs in its end of line"
