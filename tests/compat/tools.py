# SPDX-License-Identifier: MIT
"""Tools that end by themselves: what they write is as natively, and their wall and CPU time is measured beside it."""

import os
import re

import harness
from compress import data, digest
from harness import Fail, Skip, say_status
from service import Tool

HERE = os.path.dirname(os.path.abspath(__file__))
PROG = os.path.join(HERE, "prog")


def kept(r, name):
    """A file in the build directory that variants share."""
    d = os.path.join(r.build, "log", "tools")
    os.makedirs(d, exist_ok=True)
    return os.path.join(d, name)


def made(r, name, make):
    """The same, made once by make(path)."""
    path = kept(r, name)
    if not os.path.exists(path):
        make(path + ".new")
        os.rename(path + ".new", path)
    return path


# -- compressors ----------------------------------------------------------------

def packs(r, pack, unpack):
    """Pack and unpack; the answer is the digest of the packed file, if its bytes depend on nothing but the input."""
    source, packed, plain = data(r), r.path("packed"), r.path("plain")
    for argv in (pack, unpack):
        harness.need(argv[0])
    r.run(*pack, stdin=source, stdout=packed, label="pack")
    r.run(*unpack, stdin=packed, stdout=plain, label="unpack")
    if digest(plain) != digest(source):
        raise Fail("what was packed does not unpack to the input")
    return f"{os.path.getsize(packed)} bytes, {digest(packed)}\n"


def compressor(name, title, package, pack, unpack, **more):
    return Tool(name, title, package, lambda r: packs(r, pack.split(), unpack.split()), **more)


def seven(r):
    seven = harness.need("7z")
    source, packed = data(r), r.path("a.7z")
    if os.path.exists(packed):
        os.unlink(packed)
    r.run(seven, "a", "-bd", "-mmt=4", "-mx=3", "-mtc=off", "-mtm=off", packed, source, label="pack")
    r.run(seven, "x", "-so", packed, stdout=r.path("plain"), label="unpack")
    if digest(r.path("plain")) != digest(source):
        raise Fail("what was packed does not unpack to the input")
    return digest(packed) + "\n"


# -- pictures and films -----------------------------------------------------------

def ffmpeg(r):
    r.run(harness.need("ffmpeg"), "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=4",
          "-f", "lavfi", "-i", "sine=frequency=440:duration=4", "-filter_threads", "4", "-vf", "hue=s=0.7,scale=480:270",
          "-c:v", "mpeg4", "-threads", "4", "-q:v", "4", "-c:a", "aac", "-flags", "+bitexact", "-fflags", "+bitexact", r.path("a.avi"))
    r.run(harness.need("ffmpeg"), "-nostdin", "-v", "error", "-threads", "4", "-i", r.path("a.avi"), "-f", "framemd5",
          "-bitexact", r.path("frames"), "-y", label="decode")
    with open(r.path("frames")) as f:
        return f"{digest(r.path('a.avi'))}\n{f.read()}"


def film(path):
    """A small film, raw: moving gradients."""
    w, h = 320, 176
    with open(path, "wb") as f:
        f.write(b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420jpeg\n" % (w, h))
        for n in range(75):
            f.write(b"FRAME\n")
            f.write(b"".join(bytes(((x * y >> 5) + n * 3) & 255 for x in range(w)) for y in range(h)))
            f.write(b"".join(bytes((x + y + n * k) & 255 for x in range(w // 2)) for k in (1, 2) for y in range(h // 2)))


def x264(r):
    source = made(r, "film.y4m", film)
    r.run(harness.need("x264"), "--quiet", "--no-progress", "--threads", "4", "--lookahead-threads", "2", "--preset", "medium",
          "-o", r.path("a.264"), source)
    return digest(r.path("a.264")) + "\n"


def magick(r):
    convert = "/usr/bin/convert"
    if not os.path.exists(convert):
        raise Skip("no convert here")
    text = r.run(convert, "-size", "700x500", "gradient:red-blue", "-swirl", "120", "-resize", "150%", "-blur", "0x4", "-rotate", "30",
                 "-modulate", "110,90", "-format", "%w %h %#\n", "info:",
                 env={"MAGICK_THREAD_LIMIT": "4", "OMP_NUM_THREADS": "4"})[1]
    if not re.match(r"\d+ \d+ [0-9a-f]{64}$", text):
        raise Fail(f"no signature: {text[:80]!r}")
    return text


# -- libraries of tasks -----------------------------------------------------------

def tbb(r):
    if not os.path.exists("/usr/include/tbb/parallel_for.h"):
        raise Skip("no libtbb-dev here")
    exe = made(r, "x_tbb", lambda path: r.run(harness.need("g++"), "-O2", "-std=c++17", "-pthread", "-o", path,
                                              os.path.join(PROG, "x_tbb.cc"), "-ltbb", native=True, label="g++"))
    return r.run(exe)[1]


# -- git, sort, make ---------------------------------------------------------------

GIT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
       "GIT_COMMITTER_EMAIL": "a@b", "GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}


def repository(path, r):
    """Of some hundred files, in ten states of which each changes some."""
    os.makedirs(path)
    feed = []
    for n in range(10):
        feed.append(f"commit refs/heads/main\nmark :{n + 1}\ncommitter a <a@b> {1700000000 + n} +0000\ndata 2\nc\n")
        for i in range(n, 400, 1 if n == 0 else 7):
            text = "\n".join(f"line {i} {j} {(i * j + (n if j % 9 == 0 else 0)) % 977}" for j in range(400)) + "\n"
            feed.append(f"M 100644 inline dir{i % 20}/file{i}\ndata {len(text)}\n{text}\n")
    with open(path + ".feed", "w") as f:
        f.write("".join(feed))
    r.run(harness.need("git"), "init", "-q", "--bare", "-b", "main", path, native=True, env=GIT, label="init")
    r.run(harness.need("git"), "-C", path, "fast-import", "--quiet", native=True, env=GIT, stdin=path + ".feed", label="import")
    os.unlink(path + ".feed")


def git(r):
    g = harness.need("git")
    origin = made(r, "repository", lambda path: repository(path, r))
    env = {**GIT, "HOME": r.tmp}
    copy = r.path(f"copy{len(r.procs)}")
    said = []

    def run(*args, **kw):
        return r.run(g, "-C", copy, *args, env=env, **kw)[1]
    r.run(g, "clone", "-q", "--no-local", "--bare", origin, copy, env=env, label="clone")
    run("-c", "pack.threads=4", "repack", "-q", "-a", "-d", "-f", "--window=20", label="repack")
    said.append(run("-c", "grep.threads=4", "grep", "-c", "-e", " 97[0-9]$", "main", label="grep"))
    packs = os.path.join(copy, "objects", "pack")
    pack = [os.path.join(packs, x) for x in os.listdir(packs) if x.endswith(".pack")]
    if len(pack) != 1:
        raise Fail(f"{len(pack)} packs after repack")
    again = r.path(f"again{len(r.procs)}.pack")
    with open(pack[0], "rb") as a, open(again, "wb") as b:
        b.write(a.read())
    # the name of a pack is the digest of what threads laid out; the objects in it are not their business
    run("index-pack", "--threads=4", again, label="index-pack")
    if digest(again[:-5] + ".idx") != digest(pack[0][:-5] + ".idx"):
        raise Fail("index-pack and repack make different indexes")
    run("-c", "pack.threads=4", "gc", "-q", "--prune=now", label="gc")
    said.append(run("fsck", "--full", "--strict", label="fsck"))
    said.append(run("rev-list", "--objects", "--all", label="rev-list"))
    return "".join(said)


def lines(path):
    n = 12345
    with open(path, "w") as f:
        for _ in range(600000):
            n = (n * 1103515245 + 12345) & 0x7FFFFFFF
            f.write(f"{n:x} {n % 1009} some words behind it\n")


def sort(r):
    source = made(r, "lines", lines)
    r.run(harness.need("sort"), "--parallel=4", "-S", "200M", "-k2,2n", "-k1,1", source, stdout=r.path("sorted"))
    return digest(r.path("sorted")) + "\n"


def make(r):
    """A small project by make -j, the compiler with the preload too."""
    make, gcc = harness.need("make", "gcc")
    d = r.path(f"project{len(r.procs)}")
    os.makedirs(d)
    for i in range(16):
        with open(os.path.join(d, f"f{i}.c"), "w") as f:
            f.write("#include <stdio.h>\n#include <stdlib.h>\n" +
                    "".join(f"int f{i}_{j}(int x) {{ for (int k = 0; k < x; k++) x ^= k * {j + 3}; return x; }}\n" for j in range(60)))
    with open(os.path.join(d, "Makefile"), "w") as f:
        f.write("OBJ = $(patsubst %.c,%.o,$(wildcard *.c))\nall: liball.a prog\nliball.a: $(sort $(OBJ))\n\tar rcD $@ $^\n"
                f"%.o: %.c\n\t{gcc} -O2 -c -o $@ $<\n"
                f"prog: liball.a\n\techo 'int f3_5(int); int main(void) {{ return f3_5(9) & 127; }}' | {gcc} -O2 -flto=2 -xc - -xnone $< -o $@\n")
    out = r.run(make, "-j4", "-O", "-C", d, label="make")[1]
    rc = r.run(os.path.join(d, "prog"), label="prog", expect=None)[0]
    return f"{len(out.splitlines())} lines, {digest(os.path.join(d, 'liball.a'))}, {say_status(rc)}\n"


# -- sqlite, fio, stress-ng, gdb -----------------------------------------------------

def sqlite(r):
    db = r.path(f"db{len(r.procs)}")
    return r.run(harness.PYTHON, os.path.join(PROG, "py_sqlite.py"), db)[1]


def fio(r):
    out = r.run(harness.need("fio"), "--thread", "--name=a", f"--directory={r.tmp}", "--size=8m", "--bs=16k", "--rw=randwrite",
                "--numjobs=4", "--ioengine=psync", "--verify=crc32c", "--do_verify=1", "--randseed=7", "--fallocate=none",
                "--output-format=terse", "--terse-version=3")[1]
    said = []
    for line in out.splitlines():
        f = line.split(";")
        if len(f) > 50:
            said.append(f"{f[2]}: error {f[4]}, {f[5]} KB read, {f[46]} KB written")
    if len(said) != 4:
        raise Fail(f"{len(said)} jobs reported")
    return "\n".join(said) + "\n"


def stress(r, stressor):
    _, out = r.run(harness.need("stress-ng"), f"--{stressor}", "2", f"--{stressor}-ops", "400", "--timeout", "20", "--verify",
                   "--temp-path", r.tmp, "--oomable")
    text = out + r.procs[-1].err()
    for line in text.splitlines():
        if "fail:" in line or "error:" in line:
            raise Fail(line.strip()[:150])
    if "successful run completed" not in text:
        raise Fail("it does not say that the run was successful")
    return "successful\n"


GDB = r"""set pagination off
set confirm off
set print thread-events off
set breakpoint pending on
handle SIG32 nostop noprint pass
break meet
run
bt 3
print *who
next
next
step
print sum
delete
break last
continue
bt 2
thread apply all bt 12
print sum
continue
"""


def gdb(r):
    """Break in a thread, backtrace, step, all backtraces, run to the end. Under pgreen twice: with green threads, of which gdb sees
    those that run, and (PGREEN_WIRE=*) with an OS thread for each, when it must see all."""
    exe = made(r, "x_debugged", lambda path: r.run(harness.need("gcc"), "-g", "-O0", "-pthread", "-o", path,
                                                   os.path.join(PROG, "x_debugged.c"), native=True, label="gcc"))
    script = r.write("script", GDB)
    # a thread that is moved while it is stepped is not where gdb waits for it (LIMITS.md): no preemption
    return (debugged(r, exe, script, {"PGREEN_PREEMPT": "0"}, False) +
            debugged(r, exe, script, {"PGREEN_WIRE": "*"}, True))


def debugged(r, exe, script, knobs, all_threads):
    more = []
    if not r.variant.native: # gdb itself is native
        more = ["-ex", f"set environment LD_PRELOAD {os.path.join(r.build, 'libpgreen.so')}"]
        more += [w for k, v in {**r.variant.env, **knobs}.items() for w in ("-ex", f"set environment {k} {v}")]
    rc, out = r.run(harness.need("gdb"), "-nx", "-batch", *more, "-x", script, exe, native=True, env={"DEBUGINFOD_URLS": ""},
                    label="gdb")
    said = []
    for line in out.splitlines():
        line = re.sub(r"0x[0-9a-f]+", "ADDR", line)
        line = re.sub(r"process \d+", "PROCESS", line)
        if "Breakpoint " in line or re.search(r"worker .*:35$", line) and not all_threads:
            continue
        # frames of the program itself and what it prints; below them are libc's frames or ours
        if re.search(r"(?<!\w)(meet|worker|last|main) \(|^\$\d+ = |exited normally|^sum ", line):
            said.append(re.sub(r"^#\d+\s+(ADDR in )?", "", line).strip())
    return "\n".join(sorted(said)) + f"\n{say_status(rc)}\n"


TOOLS = [
    compressor("pigz", "pigz, 4 threads", "pigz", "pigz -n -p 4 -c", "pigz -dc"),
    compressor("pbzip2", "pbzip2, 4 threads", "pbzip2", "pbzip2 -p4 -c", "pbzip2 -dc -p4"),
    compressor("lbzip2", "lbzip2, 4 threads", "lbzip2", "lbzip2 -n4 -c", "lbzip2 -n4 -dc"),
    compressor("xz", "xz, 4 threads", "xz-utils", "xz -T4 -0 --block-size=2MiB -c", "xz -T4 -dc"),
    compressor("zstd", "zstd, 4 threads", "zstd", "zstd -q -T4 -9 -c", "zstd -q -dc"),
    Tool("7z", "7z, 4 threads", "p7zip-full", seven),
    Tool("ffmpeg", "ffmpeg, mpeg4 and aac by 4 threads", "ffmpeg", ffmpeg),
    Tool("x264", "x264, 4 threads", "x264", x264),
    Tool("imagemagick", "ImageMagick, OpenMP with 4 threads", "imagemagick", magick),
    Tool("tbb", "a program on oneTBB", "libtbb-dev", tbb),
    Tool("git", "git repack, gc, grep, index-pack by 4 threads", "git", git),
    Tool("sort", "sort, 4 threads", "coreutils", sort),
    Tool("make", "make -j4 with gcc and -flto", "make", make),
    Tool("gdb", "gdb on a program with threads", "gdb", gdb, rounds=1, note="two runs: green, then PGREEN_WIRE=*"),
    Tool("sqlite", "SQLite under threads of Python", "python3", sqlite),
    Tool("fio", "fio, 4 threads with verification", "fio", fio),
    *(Tool(f"stress-ng-{s}", f"stress-ng --{s}, with its checks", "stress-ng", lambda r, s=s: stress(r, s), rounds=1)
      for s in ("pthread", "mutex", "sem", "futex", "switch", "fork", "sigq", "sigsuspend", "sigpending", "kill")),
]
