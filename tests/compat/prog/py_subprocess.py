# SPDX-License-Identifier: MIT
"""Twenty threads that each run programs: pipes both ways, exit statuses, time-outs, a shell, os.fork."""

import os
import subprocess
import sys
import threading

results = {}


def work(i):
    out = []
    for n in range(4):
        text = f"thread {i} round {n}\n" * (1 + 700 * (n % 2))
        r = subprocess.run(["cat"], input=text, capture_output=True, text=True, timeout=30)
        out.append(r.returncode == 0 and r.stdout == text)
    r = subprocess.run(["sh", "-c", f"echo out; echo err >&2; exit {i}"], capture_output=True, text=True)
    out.append((r.returncode, r.stdout, r.stderr) == (i, "out\n", "err\n"))
    try:
        subprocess.run(["sleep", "20"], timeout=0.2)
        out.append(False)
    except subprocess.TimeoutExpired:
        out.append(True)
    out.append(os.system(f"exit {i + 1}") >> 8 == i + 1)
    p = subprocess.Popen(["sh", "-c", "kill -9 $$"])
    out.append(p.wait() == -9)
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(w, b"from the child")
        os._exit(7)
    os.close(w)
    said = b""
    while part := os.read(r, 100):
        said += part
    os.close(r)
    out.append(said == b"from the child" and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7)
    results[i] = out


threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
for t in threads:
    t.start()
for t in threads:
    t.join()
for i in range(20):
    print(i, results.get(i))
# a threaded child of a threaded parent
print(subprocess.run([sys.executable, "-c", "import threading as t\nx = [t.Thread(target=print, args=('hello',))]\n"
                      "x[0].start(); x[0].join()"], capture_output=True, text=True).stdout.strip())
