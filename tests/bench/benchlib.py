# SPDX-License-Identifier: MIT
"""What `demo` and `run` share: columns, experiments, and the table they fill.

A column says how the measured program is run: native, under pgreen, and for comparison its Go equivalent (go) or the
hand-written event loop (epoll).  An experiment measures one thing in each column that it has, the columns by turns (A B A B,
so that a change of the machine's mood meets all of them), and gives rows of the table; the medians of all turns are shown.
It may give an answer too, any text: it must be the same in every column and every turn.
A ratio says how many times better pgreen is than native: above 1 is a gain, below 1 a loss, whatever the unit.
No duration is judged here.  Wrong are a different answer, a program that fails, and one that hangs beyond LIMIT.

Every program started leads a session of its own, which is killed at its end, on every way out.
"""

import csv
import hashlib
import os
import platform
import re
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BENCH = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(BENCH))
LIMIT = 60  # seconds after which a program counts as hung
COLUMNS = ["native", "pgreen", "go", "epoll"]


class Fail(Exception):
    """A measured program failed; the text says how, in one line."""


class Absent(Exception):
    """The machine lacks what the experiment needs."""


def find(program):
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin:/sbin")
    if not path:
        raise Absent(f"no {program} here")
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Proc:
    """A program in a session of its own.  With out=PIPE, line() reads what it says; otherwise stdout goes to a file."""

    live = set()
    said = {}  # messages of pgreen, in their order

    def __init__(self, argv, env, cpus, out, err, stdin):
        self.name = os.path.basename(next(a for a in argv if os.path.basename(a) not in ("pgreen", "--")))
        self.err_file = err
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        self.started = time.monotonic()
        self.p = subprocess.Popen(argv, env=env, stdin=stdin, stdout=out, stderr=err, start_new_session=True,
                                  preexec_fn=pin)
        self.pid = self.p.pid
        Proc.live.add(self)

    def ended(self):
        """Is it dead?  It is not reaped here: until kill() its number stays its own, and its session's."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def last_words(self):
        self.err_file.seek(0)
        lines = self.err_file.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:160] if lines else ""

    def failed(self, how):
        words = self.last_words()
        return Fail(f"{self.name} {how}" + (f" ({words})" if words else ""))

    def line(self):
        if not select.select([self.p.stdout], [], [], LIMIT)[0]:
            raise self.failed(f"said nothing in {LIMIT} s")
        text = self.p.stdout.readline().decode()
        if not text:
            raise self.failed("ended early")
        return text

    def wait_port(self, port):
        end = time.monotonic() + LIMIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 2).close()
                return
            except OSError:
                if self.ended():
                    raise self.failed("ended early") from None
                if time.monotonic() > end:
                    raise self.failed("does not listen") from None
                time.sleep(0.02)

    def wait(self):
        """To its good end: (seconds, CPU seconds)."""
        fd = os.pidfd_open(self.pid)
        try:
            if not select.select([fd], [], [], max(0, self.started + LIMIT - time.monotonic()))[0]:
                raise self.failed(f"hangs: no end after {LIMIT} s")
        finally:
            os.close(fd)
        took = time.monotonic() - self.started
        self.kill_session()
        _, status, usage = os.wait4(self.pid, 0)
        self.p.returncode = os.waitstatus_to_exitcode(status)
        if self.p.returncode < 0:
            raise self.failed(f"was killed by {signal.Signals(-self.p.returncode).name}")
        if self.p.returncode:
            raise self.failed(f"ended with exit status {self.p.returncode}")
        return took, usage.ru_utime + usage.ru_stime

    def alive(self):
        if self.ended():
            raise self.failed("ended during the load")

    def kill_session(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def kill(self):
        """Ends it and all its children, if they run still.  What pgreen itself had to say is kept."""
        if self.p.returncode is None:
            self.kill_session()
            self.p.wait()
        if self.p.stdout:
            self.p.stdout.close()
        if not self.err_file.closed:
            self.err_file.seek(0)
            for text in self.err_file.read(100000).decode(errors="replace").splitlines():
                if text.startswith("pgreen: ") and len(Proc.said) < 10:
                    Proc.said.setdefault(f"{self.name}: {text[8:]}", None)
            self.err_file.close()
        Proc.live.discard(self)


def kill_all():
    for p in list(Proc.live):
        p.kill()


class Place:
    """Where things are: build directory, compiled programs, processors, temporary files."""

    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.out = os.path.join(self.build, "bench")
        os.makedirs(self.out, exist_ok=True)
        self.launcher = os.path.join(self.build, "pgreen")
        self.library = os.path.join(self.build, "libpgreen.so")
        self.has_pgreen = os.path.exists(self.library) and os.path.exists(self.launcher)
        self.has_go = bool(shutil.which("go"))
        self.cpus = sorted(os.sched_getaffinity(0))
        self.tmp = tempfile.mkdtemp(prefix="pgreen-bench-")
        self.made = {}
        # Thousands of connections, for the servers and the clients.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.files = hard
        env = {k: v for k, v in os.environ.items() if not k.startswith("PGREEN") and k != "LD_PRELOAD"}
        self.env = dict(env, LC_ALL="C", TMPDIR=self.tmp)

    def close(self):
        kill_all()
        shutil.rmtree(self.tmp, ignore_errors=True)

    # The server's processor, and the client's.
    @property
    def server_cpu(self):
        return {self.cpus[0]}

    @property
    def client_cpu(self):
        return {self.cpus[-1]}

    def program(self, source):
        """The path of a compiled program of this directory, made when it is older than its source."""
        if source in self.made:
            return self.made[source]
        path = os.path.join(BENCH, source)
        target = os.path.join(self.out, source.replace(".go", "_go").replace(".c", ""))
        if not os.path.exists(target) or os.path.getmtime(target) < os.path.getmtime(path):
            env = dict(self.env)
            if source.endswith(".go"):
                env.update(GO111MODULE="off", GOFLAGS="", GOPROXY="off", GOTOOLCHAIN="local")
                argv = [find("go"), "build", "-o", target, path]
            else:
                argv = os.environ.get("CC", "cc").split() + ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall",
                                                             "-Wextra", "-pthread", "-o", target, path]
            r = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            if r.returncode:
                sys.exit(f"{source} does not compile:\n{r.stdout.decode(errors='replace')}")
        self.made[source] = target
        return target

    def wrap(self, column, argv):
        return [self.launcher, "--"] + argv if column == "pgreen" else argv

    def start(self, column, argv, cpus=None, procs=None, out=None, stdin=None):
        env = dict(self.env)
        knob = {"go": "GOMAXPROCS", "pgreen": "PGREEN_MAXPROCS"}.get(column)
        if procs and knob:
            env[knob] = str(procs)
        err = tempfile.TemporaryFile(dir=self.tmp)
        return Proc(self.wrap(column, [str(a) for a in argv]), env, cpus, out or subprocess.PIPE, err,
                    stdin or subprocess.DEVNULL)

    def ask(self, column, argv, **kw):
        """What a program prints."""
        p = self.start(column, argv, **kw)
        try:
            text = p.line()
            p.wait()
            return text
        finally:
            p.kill()


class Row:
    def __init__(self, label, unit, better="less"):
        self.label, self.unit, self.better = label, unit, better


class Experiment:
    """name: for --only.  measure(place, column) gives {label: value}, and the answer under the label `answer`."""

    columns = ("native", "pgreen")
    reps = None  # as many as asked for
    native_may_fail = False

    def __init__(self, name):
        self.name = name
        self.rows = []

    def measure(self, place, column):
        raise NotImplementedError


class Micro(Experiment):
    """One figure of b_micro.  procs=1: one processor for all columns, and one P."""

    def __init__(self, name, label, args, unit="ns", procs=None, go=True, native_may_fail=False):
        super().__init__(name)
        self.args, self.procs = args.split(), procs
        self.native_may_fail = native_may_fail
        self.columns = ("native", "pgreen") + (("go",) if go else ())
        self.rows = [Row(label, unit)]

    def ask(self, place, column):
        program = place.program("b_micro.go" if column == "go" else "b_micro.c")
        cpus = set(place.cpus[:self.procs]) if self.procs else None
        return place.ask(column, [program] + self.args, cpus=cpus, procs=self.procs)

    def measure(self, place, column):
        return {self.rows[0].label: float(self.ask(place, column))}


class Parked(Micro):
    native_may_fail = True

    def __init__(self, n, thorough=False):
        super().__init__("parked", "", f"parked {n}")
        self.native_may_fail = n > 20000  # max_map_count and pid_max stop it at some 32,000
        label = f"memory of each of {n:,} parked threads"
        self.rows = [Row(label, "KB"), Row(f"{label}, with kernel stack", "KB")]
        if thorough:
            self.rows.append(Row(f"{label}, by MemAvailable", "KB"))

    def measure(self, place, column):
        kb = (float(x) / 1024 for x in self.ask(place, column).split())
        return {r.label: v for r, v in zip(self.rows, kb)}


def fields(text):
    return dict(part.split("=", 1) for part in text.split())


class Served(Experiment):
    """A server and b_load.  Subclasses start the server; it and all else they start is stopped here."""

    mode = "echo"

    def __init__(self, name, title, connections, seconds):
        super().__init__(name)
        self.connections, self.seconds = connections, seconds
        self.more = title.startswith("echo")
        self.rows = [Row("requests/s", "1/s", "more"), Row("latency p99", "µs"), Row("server CPU per request", "µs")]
        if self.more:
            self.rows += [Row("server memory (RSS + page tables)", "MB"), Row("server OS threads", "")]
        for r in self.rows:
            r.label = f"{title}: {r.label}"
        self.answers = 0

    def serve(self, place, column, procs):
        """Starts all it needs, each appended to procs; returns (the server, the port for the client)."""
        raise NotImplementedError

    def measure(self, place, column):
        if self.connections + 100 > place.files:
            raise Absent(f"{self.connections:,} descriptors for a process are not allowed here")
        procs = []
        try:
            server, port = self.serve(place, column, procs)
            try:
                got = fields(place.ask("client", [place.program("b_load.c"), "-p", port, "-c", self.connections, "-d",
                                                  self.seconds, "-m", self.mode, "-s", server.pid],
                                       cpus=place.client_cpu))
            except Fail as e:
                server.alive()
                raise Fail(f"{e}{'; server: ' + server.last_words() if server.last_words() else ''}") from None
            server.alive()
        finally:
            for p in reversed(procs):
                p.kill()
        self.answers += int(got["requests"])
        values = [float(got["rps"]), float(got["p99"]), float(got["cpu"])]
        if self.more:
            values += [float(got["rss"]) / 1024, float(got["threads"])]
        result = {r.label: v for r, v in zip(self.rows, values)}
        result["answer"] = got["digest"]
        return result


class Echo(Served):
    columns = ("native", "pgreen", "go", "epoll")

    def __init__(self, connections, seconds):
        s = "" if connections == 1 else "s"
        super().__init__("echo", f"echo, {connections:,} connection{s}", connections, seconds)

    def serve(self, place, column, procs):
        source = {"go": "b_echo.go", "epoll": "b_epoll_server.c"}.get(column, "b_echo_server.c")
        p = place.start(column, [place.program(source)], cpus=place.server_cpu)
        procs.append(p)
        return p, int(p.line().split()[1])


class Memcached(Served):
    mode = "memcached"

    def __init__(self, connections, seconds):
        super().__init__("memcached", f"memcached -t 4, {connections} connections", connections, seconds)

    def serve(self, place, column, procs):
        port = free_port()
        user = ["-u", "root"] if os.getuid() == 0 else []
        p = place.start(column, [find("memcached"), "-t", "4", "-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "256",
                                 *user], cpus=place.server_cpu, out=subprocess.DEVNULL)
        procs.append(p)
        p.wait_port(port)
        return p, port


class Stunnel(Served):
    """TLS, a thread for each connection.  The client is stunnel too, native, with the load before it and the echo behind."""

    def __init__(self, connections, seconds):
        super().__init__("stunnel", f"stunnel (TLS), {connections} connections", connections, seconds)

    def config(self, place, name, text):
        path = os.path.join(place.tmp, name)
        with open(path, "w", encoding="ascii") as f:
            f.write("foreground = yes\npid =\ndebug = err\n" + text)
        return path

    def serve(self, place, column, procs):
        stunnel = find("stunnel4")
        cert, key = os.path.join(place.tmp, "cert.pem"), os.path.join(place.tmp, "key.pem")
        if not os.path.exists(cert):
            subprocess.run([find("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                            "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
                           stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        echo = place.start("client", [place.program("b_epoll_server.c")], cpus=place.client_cpu)
        procs.append(echo)
        back, front, clear = int(echo.line().split()[1]), free_port(), free_port()
        server = place.start(column, [stunnel, self.config(place, "server.conf", f"[echo]\naccept = 127.0.0.1:{front}\n"
                                      f"connect = 127.0.0.1:{back}\ncert = {cert}\nkey = {key}\n")],
                             cpus=place.server_cpu, out=subprocess.DEVNULL)
        procs.append(server)
        client = place.start("client", [stunnel, self.config(place, "client.conf", f"[echo]\nclient = yes\n"
                                        f"accept = 127.0.0.1:{clear}\nconnect = 127.0.0.1:{front}\n"
                                        f"CAfile = {cert}\nverifyChain = yes\n")],
                             cpus=place.client_cpu, out=subprocess.DEVNULL)
        procs.append(client)
        server.wait_port(front)
        client.wait_port(clear)
        return server, clear


class Program(Experiment):
    """A program that gains nothing from cheap threads: its time, its CPU time, and its output."""

    def __init__(self, label, argv, megabytes=0, keep=None):
        super().__init__("programs")
        self.argv, self.megabytes, self.keep = argv, megabytes, keep
        self.rows = [Row(f"{label}: time", "s"), Row(f"{label}: CPU time", "s")]

    def measure(self, place, column):
        argv = [find(self.argv[0])] + self.argv[1:]
        with open(real_input(place, self.megabytes) if self.megabytes else "/dev/null", "rb") as stdin, \
                tempfile.TemporaryFile(dir=place.tmp) as out:
            p = place.start(column, argv, out=out, stdin=stdin)
            try:
                took, cpu = p.wait()
            finally:
                p.kill()
            out.seek(0)
            data = out.read()
        if self.keep:
            answer = " ".join(re.findall(self.keep, data.decode(errors="replace")))
        else:
            answer = hashlib.sha256(data).hexdigest()
        return {self.rows[0].label: took, self.rows[1].label: cpu, "answer": answer}


class Spawn(Experiment):
    def __init__(self, n):
        super().__init__("programs")
        self.n = n
        self.rows = [Row("start and end of a program (true)", "µs")]

    def measure(self, place, column):
        argv = [place.program("b_micro.c"), "spawn", self.n] + place.wrap(column, [find("true")])
        return {self.rows[0].label: float(place.ask("client", argv))}


def real_input(place, megabytes):
    """Text that people wrote: the C headers of this machine, from the beginning again when they are too few."""
    path = os.path.join(place.tmp, f"input-{megabytes}")
    if os.path.exists(path):
        return path
    left = megabytes << 20
    with open(path, "wb") as out:
        while left > 0:
            before = left
            for d, dirs, names in os.walk("/usr/include"):
                dirs.sort()
                for name in sorted(names):
                    try:
                        with open(os.path.join(d, name), "rb") as f:
                            data = f.read(left)
                    except OSError:
                        continue
                    out.write(data)
                    left -= len(data)
                    if left <= 0:
                        break
                if left <= 0:
                    break
            if left == before:
                raise Absent("no /usr/include here")
    return path


def programs(mb):
    return [
        Spawn(100),
        Program("xz -T1", ["xz", "-T1", "-2", "-c"], mb),
        Program("sort", ["sort", "--parallel=1", "-S", "300M"], 3 * mb),
        Program("pigz -p 2", ["pigz", "-n", "-T", "-p", "2", "-c"], 3 * mb),
        Program("xz -T2", ["xz", "-T2", "--block-size=1MiB", "-2", "-c"], mb),
        Program("sysbench cpu, 2 threads",
                ["sysbench", "cpu", "--threads=2", "--time=0", f"--events={mb * 150}", "run"], keep=r"total number of events: +\d+"),
    ]


class Bench:
    """Runs experiments and keeps every sample."""

    def __init__(self, place, columns, reps, budget=None, show=None):
        self.place, self.columns, self.reps, self.show = place, columns, reps, show
        self.start = time.monotonic()
        self.budget = budget
        self.shortened = False
        self.samples = []  # (experiment, row, column, rep, value)
        self.results = []  # (experiment, row, {column: median})
        self.notes = []
        self.broken = []
        self.compared = 0
        self.answers = 0

    def run(self, e):
        columns = [c for c in self.columns if c in e.columns]
        values = {r.label: {} for r in e.rows}
        answers = {}
        dead = set()
        for rep in range(e.reps or self.reps):
            if rep and self.budget and time.monotonic() - self.start > self.budget:
                self.shortened = True
                break
            for column in columns:
                if column in dead:
                    continue
                try:
                    got = e.measure(self.place, column)
                except Absent as why:
                    self.notes.append(f"{e.rows[0].label.split(':')[0]}: left out, {why}")
                    return
                except Fail as why:
                    dead.add(column)
                    what = f"{e.rows[0].label.split(': ')[0]}, {column}: {why}"
                    (self.notes if column == "native" and e.native_may_fail else self.broken).append(what)
                    continue
                answer = got.pop("answer", None)
                if answer is not None:
                    answers.setdefault(answer, set()).add(column)
                    self.compared += 1
                for label, value in got.items():
                    values[label].setdefault(column, []).append(value)
                    self.samples.append((e, label, column, rep, value))
        if len(answers) > 1:
            said = "; ".join(f"{'/'.join(sorted(who))} {a[:60]}" for a, who in answers.items())
            self.broken.append(f"{e.rows[0].label.split(': ')[0]}: the answers differ: {said}")
        self.answers += getattr(e, "answers", 0)
        for row in e.rows:
            medians = {c: statistics.median(v) for c, v in values[row.label].items()}
            for c in dead:
                medians[c] = None
            self.results.append((e, row, medians))
            if self.show:
                self.show(row, medians)

    def run_all(self, experiments):
        for e in experiments:
            self.run(e)

    def csv(self, path):
        units = {row.label: row.unit for e, row, _ in self.results}
        with open(path, "w", newline="", encoding="utf-8") as f:
            w = csv.writer(f)
            w.writerow(["experiment", "figure", "unit", "column", "turn", "value"])
            for e, label, column, rep, value in self.samples:
                w.writerow([e.name, label.strip(), units.get(label, ""), column, rep, f"{value:.6g}"])

    def verified(self):
        """One line: what was checked, and the verdict."""
        what = []
        if self.answers:
            what.append(f"{self.answers:,} answers of servers compared byte by byte with the right one")
        if self.compared:
            what.append(f"{self.compared} outputs compared with the other columns' and turns'")
        if self.broken:
            n = len(self.broken)
            return f"NOT VERIFIED: {n} thing{'s' if n > 1 else ''} went wrong, listed above" + \
                (f" ({'; '.join(what)})." if what else ".")
        ended = "every program ended well" + (" but for what the notes say." if self.notes else ".")
        if not what:
            return f"Verified: {ended}"
        return f"Verified: {', '.join(what)}; none differed, {ended}"


def number(row, value):
    if value is None:
        return "failed"
    if not row.unit:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def ratio(row, medians):
    a, b = medians.get("native"), medians.get("pgreen")
    if not a or not b:
        return ""
    r = b / a if row.better == "more" else a / b
    return f"{r:,.0f}×" if r >= 100 else f"{r:.1f}×" if r >= 10 else f"{r:.2f}×"


def machine(place):
    try:
        libc = " ".join(platform.libc_ver())
        model = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo", encoding="utf-8").read())
    except OSError:
        libc, model = "", None
    n = len(place.cpus)
    kind = f" ({model[1]})" if model else ""
    return f"{n} processor{'s' if n > 1 else ''}{kind}, Linux {platform.release()}, {libc}"


def busy():
    """A warning when others are at work on this machine, or nothing."""
    def ticks():
        with open("/proc/stat", encoding="ascii") as f:
            t = [int(x) for x in f.readline().split()[1:9]]
        return sum(t), t[3] + t[4]
    total, idle = ticks()
    time.sleep(0.5)
    total, idle = (a - b for a, b in zip(ticks(), (total, idle)))
    share = 1 - idle / total if total else 0
    if share > 0.1:
        return f"Before the start {100 * share:.0f}% of the processors were busy with other work: the figures waver."
    return ""


def guarded(main):
    """Runs main(); whatever happens, nothing that was started stays behind."""
    def stop(sig, _):
        sys.exit(128 + sig)
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, stop)
    try:
        sys.exit(main())
    finally:
        kill_all()
