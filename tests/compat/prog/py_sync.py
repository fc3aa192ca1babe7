# SPDX-License-Identifier: MIT
"""Lock, RLock, Condition, Semaphore, Event, Barrier, Timer, thread-locals, time-outs, daemon threads at the end."""

import threading
import time

N = 16


def run(target, n=N):
    threads = [threading.Thread(target=target, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


total = 0
lock = threading.Lock()
rlock = threading.RLock()


def add(i):
    global total
    for _ in range(2000):
        with rlock, rlock, lock:
            total += 1


run(add)
print("locks", total)

# a bounded buffer out of one condition
cond = threading.Condition()
buf, seen = [], []


def both(i):
    for k in range(200):
        if i % 2:
            with cond:
                cond.wait_for(lambda: len(buf) < 5)
                buf.append((i, k))
                cond.notify_all()
        else:
            with cond:
                cond.wait_for(lambda: buf)
                seen.append(buf.pop(0))
                cond.notify_all()


run(both)
print("condition", len(seen), len(set(seen)), len(buf))

sem = threading.BoundedSemaphore(3)
inside = worst = 0


def few(i):
    global inside, worst
    for _ in range(20):
        with sem:
            with lock:
                inside += 1
                worst = max(worst, inside)
            time.sleep(0.0005)
            with lock:
                inside -= 1


run(few)
print("semaphore", worst <= 3, inside)

barrier = threading.Barrier(N)
order = [[] for _ in range(10)]


def rounds(i):
    for k in range(10):
        order[k].append(i)
        barrier.wait()


run(rounds)
print("barrier", [sorted(o) == list(range(N)) for o in order])

event = threading.Event()
fired = []
timers = [threading.Timer(0.02 * k, fired.append, args=(k,)) for k in range(5)]
for t in timers:
    t.start()
never = threading.Timer(60, fired.append, args=("never",))
never.start()
never.cancel()
threading.Timer(0.15, event.set).start()
print("event", event.wait(0.01), event.wait(20))
for t in timers + [never]:
    t.join()
print("timers", sorted(fired))

start = time.monotonic()
lock.acquire()
print("time-out", lock.acquire(timeout=0.05), time.monotonic() - start >= 0.05)
lock.release()

local = threading.local()
mixed = []


def own(i):
    local.v = i
    for _ in range(50):
        time.sleep(0)
        if local.v != i:
            mixed.append(i)


run(own)
print("locals", mixed, hasattr(local, "v"))
ids = set()
gate = threading.Barrier(N)


def identity(i):
    ids.add((threading.get_ident(), threading.get_native_id()))
    gate.wait()


run(identity)
print("identities", len(ids), len({a for a, _ in ids}), len({b for _, b in ids}))


def spin():
    while True:
        pass


for _ in range(2):
    threading.Thread(target=spin, daemon=True).start()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
time.sleep(0.1)
print("end", threading.current_thread() is threading.main_thread())
