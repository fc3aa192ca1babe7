# SPDX-License-Identifier: MIT
"""Runs threads and waits for SIGINT: caught in a sleep, caught in a lock, or not caught at all."""

import sys
import threading
import time

how = sys.argv[1]
stop = threading.Event()
count = [0] * 6


def busy(i):
    while not stop.is_set():
        count[i] += 1
        time.sleep(0.001) if i % 2 else None


threads = [threading.Thread(target=busy, args=(i,), daemon=True) for i in range(6)]
for t in threads:
    t.start()
lock = threading.Lock()
lock.acquire()
try:
    print("ready", flush=True)
    if how == "lock":
        lock.acquire()
    else:
        time.sleep(60)
    print("nothing came")
except KeyboardInterrupt:
    stop.set()
    for t in threads:
        t.join()
    print("interrupted", all(count), flush=True)
    if how == "uncaught":
        raise
    sys.exit(3)
