# SPDX-License-Identifier: MIT
"""Test suites of languages, other preloads beside pgreen, and programs that stay native.

A suite's answer is each test's name with its outcome, sorted; what is flaky natively is left out by name.  Other preloads run
beside the library under Python, a C++ program and a server.  Programs that can't be green must be refused, or run natively, as
the contract says: never hang, never crash.
"""

import glob
import os
import re
import signal

import harness
from harness import Fail, Skip, say_status
from service import Tool

HERE = os.path.dirname(os.path.abspath(__file__))
PROG = os.path.join(HERE, "prog")


# -- CPython's own tests ------------------------------------------------------

# Tests that natively come out one way or the other, and why.
FLAKY = {}
# Left out: a machine with /dev/vsock and nobody at its other end waits in them for ever, natively too.
IGNORED = {"test_socket": "*VSOCK*"}


def python_suite(r, name, flaky=()):
    """Each test's id and outcome, as unittest's verbose runner prints them."""
    if not glob.glob("/usr/lib/python3.*/test/" + name + "*"):
        raise Skip("no libpython3-testsuite here")
    p = r.start(harness.PYTHON, "-m", "test", "-v", "--timeout", "300",
                *(["-i", IGNORED[name]] if name in IGNORED else []), name, label=name, cwd=r.tmp)
    rc = p.wait()
    said = {}
    pending = None
    for line in (p.out() + "\n" + p.err()).splitlines():
        m = re.match(r"(\w+) \((test\.[\w.]+|__main__[\w.]*)\)", line)
        if m:
            pending = m.group(2) if m.group(2).endswith("." + m.group(1)) else f"{m.group(2)}.{m.group(1)}"
        for word in re.findall(r"\.\.\. (?:.*?)(ok|FAIL|ERROR|skipped|expected failure)\b", line) or \
                re.findall(r"^(?:.*\s)?(ok|FAIL|ERROR|skipped|expected failure)(?: .*)?$", line):
            if pending and pending not in said and not line.startswith(("FAIL:", "ERROR:")):
                said[pending] = word
                pending = None
                break
    if not said:
        raise Fail(f"{name}: no test ran: {say_status(rc)}{r.last_words(p)}")
    left = [f"{k}: {v}" for k, v in sorted(said.items()) if not any(k.endswith(f) for f in flaky)]
    bad = [x for x in left if x.endswith((": FAIL", ": ERROR"))]
    return "\n".join([f"{len(left)} tests, {say_status(0 if not bad else rc)}", *left]) + "\n"


def python_tests(name, timeout=300, note=""):
    flaky = FLAKY.get(name, ())
    if flaky and not note:
        note = "left out, flaky natively: " + ", ".join(flaky)
    return Tool("cpython-" + name.removeprefix("test_").replace("_", "-"), f"CPython's {name}", "python3.11",
                lambda r: python_suite(r, name, flaky), kind="suite", rounds=1, timeout=timeout, note=note)


# -- Perl ---------------------------------------------------------------------

def perl(r, script):
    rc, out = r.run(harness.need("perl"), os.path.join(PROG, script), expect=None)
    return f"{say_status(rc)}\n{out}"


# -- other preloads -----------------------------------------------------------

def library(pattern):
    found = sorted(glob.glob("/usr/lib/*/" + pattern))
    if not found:
        raise Skip(f"no {pattern} here")
    return found[0]


def beside(r, pattern, env=None):
    """Python, a C++ program and a server of threads, all with the other library loaded too."""
    env = {"LD_PRELOAD": library(pattern), **(env or {})}
    said = []
    for argv in ([harness.PYTHON, os.path.join(PROG, "py_pipeline.py")], [os.path.join(r.build, "tests", "t_cxx")]):
        rc, out = r.run(*argv, env=env, expect=None)
        said.append(f"{os.path.basename(argv[-1])}: {say_status(rc)}\n{out}")
    port = harness.free_port()
    p = r.start(harness.PYTHON, os.path.join(PROG, "py_socketserver.py"), port, label="server", env=env)
    p.wait_port(port, 30)
    with open(f"/proc/{p.pid}/maps") as f:
        if os.path.basename(os.path.realpath(env["LD_PRELOAD"])) not in f.read():
            raise Fail(f"{pattern} is not loaded into the server")
    line = r.write("line", b"x" * 63 + b"\n")
    c = r.start(os.path.join(r.build, "tests", "b_http"), "-p", port, "-q", line, "-a", line, "-c", 100, "-d", 2, native=True,
                label="client")
    if c.wait(60) != 0:
        raise Fail(f"the server under load: {r.last_words(c)}")
    said.append(f"server: all answers right, then {say_status(p.stop(signal.SIGTERM, timeout=20))}")
    return "\n".join(said) + "\n"


def preload(name, title, package, pattern, env=None, note=""):
    return Tool("preload-" + name, title, package, lambda r: beside(r, pattern, env), kind="preload", rounds=1, timeout=150,
                note=note)


# -- not green ----------------------------------------------------------------

GO = """package main

import (
	"fmt"
	"os"
	"os/user"
	"sync"
)

func main() {
	var wg sync.WaitGroup
	var mu sync.Mutex
	sum := 0
	for i := 1; i <= 1000; i++ {
		wg.Add(1)
		go func(i int) { mu.Lock(); sum += i; mu.Unlock(); wg.Done() }(i)
	}
	wg.Wait()
	u, err := user.LookupId("0")
	fmt.Println(sum, u.Username, err, len(os.Args))
}
"""

C = """#include <pthread.h>
#include <stdio.h>
static void *f(void *p) { return p; }
int main(void)
{
	pthread_t t;
	void *got;
	if (pthread_create(&t, 0, f, &t) || pthread_join(t, &got))
		return 1;
	printf("%d\\n", got == &t);
	return 0;
}
"""


def apart(r, exe, refused, *args, preloaded=True):
    """What `pgreen --check` says, what the launcher does, and what LD_PRELOAD alone does, beside the native run's answer."""
    rc, native = r.run(exe, *args, native=True, label="native")
    pgreen = os.path.join(r.build, "pgreen")
    check, words = r.run(pgreen, "--check", exe, native=True, label="check", expect=None)
    words = (words + r.procs[-1].err()).strip()
    through, out = r.run(pgreen, "--", exe, *args, native=True, label="launcher", expect=None)
    said = r.procs[-1].err().strip()
    r.log(f"check: {check}: {words}\nlauncher: {through}: {said}")
    if refused and (through != 126 or out or len(said.splitlines()) != 1):
        raise Fail(f"the launcher: {say_status(through)}, {len(said.splitlines())} lines on stderr, {out[:60]!r} on stdout")
    if refused and check == 0:
        raise Fail(f"--check says that it works: {words}")
    if not refused and (through, out) != (rc, native):
        raise Fail(f"the launcher: {say_status(through)}, {out[:60]!r} instead of {native[:60]!r}")
    if not words or through < 0 or check < 0:
        raise Fail(f"--check: {say_status(check)}, {words!r}")
    with_preload = {"LD_PRELOAD": os.path.join(r.build, "libpgreen.so")} if preloaded else {}
    for procs in ("1", "2", "8"):
        got = r.run(exe, *args, native=True, label="preload", expect=None, env={**with_preload, "PGREEN_MAXPROCS": procs})
        if got != (rc, native):
            raise Fail(f"with LD_PRELOAD alone: {say_status(got[0])}, {got[1][:60]!r} instead of {native[:60]!r}")
    return f"{say_status(rc)}\n{native}"


def go_binary(r, static):
    os.makedirs(r.path("go"), exist_ok=True)
    source = r.write("go/main.go", GO)
    r.run(harness.need("go"), "build", "-o", r.path("prog"), source, native=True, label="go",
          env={"GOCACHE": os.path.join(r.build, "log", "go-cache"), "HOME": r.tmp, "CGO_ENABLED": "0" if static else "1",
               "GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"})
    return apart(r, r.path("prog"), static)


def c_binary(r, compiler, *flags):
    r.run(harness.need(compiler), *flags, "-pthread", "-o", r.path("prog"), r.write("prog.c", C), native=True, label="cc")
    return apart(r, r.path("prog"), True)


def set_uid(r):
    """As a user whom the set-uid bit makes another one: the launcher refuses; LD_PRELOAD alone is ignored by ld.so."""
    if os.getuid():
        raise Skip("not root")
    r.run(harness.need("gcc"), "-pthread", "-o", r.path("inner"), r.write("prog.c", C), native=True, label="cc")
    os.chmod(r.path("inner"), 0o4755)
    run_as = [harness.need("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
    pgreen = os.path.join(r.build, "pgreen")
    rc, native = r.run(*run_as, r.path("inner"), native=True, label="native")
    if not os.access(pgreen, os.X_OK):
        raise Fail("no launcher")
    for argv, label in (([pgreen, "--check", r.path("inner")], "check"), ([pgreen, "--", r.path("inner")], "launcher")):
        got, out = r.run(*run_as, *argv, native=True, label=label, expect=None)
        if got != (1 if label == "check" else 126) and got != 126 or out and label == "launcher":
            raise Fail(f"{label}: {say_status(got)}, {out[:60]!r}{r.last_words(r.procs[-1])}")
    got = r.run(*run_as, r.path("inner"), native=True, label="preload", expect=None,
                env={"LD_PRELOAD": os.path.join(r.build, "libpgreen.so")})
    if got != (rc, native):
        raise Fail(f"with LD_PRELOAD alone: {say_status(got[0])}, {got[1]!r} instead of {native!r}")
    return f"{say_status(rc)}\n{native}"


def aside(name, title, package, run, note=""):
    return Tool("apart-" + name, title, package, run, kind="apart", rounds=1, timeout=120, note=note)


TOOLS = [
    *(python_tests(n) for n in ("test_threading", "test_thread", "test_threadsignals", "test_threading_local", "test_queue",
                                "test_socket", "test_subprocess", "test_signal", "test_asyncio", "test_concurrent_futures",
                                "test_selectors", "test_epoll", "test_fork1", "test_os", "test_ssl", "test_multiprocessing_fork",
                                "test_multiprocessing_spawn", "test_multiprocessing_forkserver")),
    Tool("perl-threads", "Perl threads, threads::shared, Thread::Queue, Thread::Semaphore", "perl",
         lambda r: perl(r, "threads.pl"), kind="suite", rounds=1),
    preload("jemalloc", "jemalloc preloaded", "libjemalloc2", "libjemalloc.so.2"),
    preload("tcmalloc", "tcmalloc_minimal preloaded", "libtcmalloc-minimal4", "libtcmalloc_minimal.so.4"),
    preload("mimalloc", "mimalloc preloaded", "libmimalloc2.0", "libmimalloc.so.2"),
    preload("faketime", "libfaketime preloaded", "libfaketime", "faketime/libfaketimeMT.so.1",
            {"FAKETIME": "+3d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
            "with the monotonic clock left alone: faked, C++'s timed waits never end, natively too"),
    preload("eatmydata", "libeatmydata preloaded", "libeatmydata1", "libeatmydata.so"),
    aside("go", "a Go program, dynamically linked", "golang-go", lambda r: go_binary(r, False),
          "by the launcher natively; with LD_PRELOAD alone its threads become green, and Go dies: 'non-Go code disabled sigaltstack'"),
    aside("go-static", "a Go program, statically linked", "golang-go", lambda r: go_binary(r, True), "refused: 126"),
    aside("static", "a static program", "gcc", lambda r: c_binary(r, "gcc", "-static"), "refused: 126"),
    aside("musl", "a program linked with musl, statically", "musl-tools", lambda r: c_binary(r, "musl-gcc", "-static"),
          "refused: 126"),
    aside("setuid", "a set-uid program, run by another user", "gcc", set_uid, "refused: 126; natively with LD_PRELOAD alone"),
]
