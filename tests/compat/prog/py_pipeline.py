# SPDX-License-Identifier: MIT
"""Three stages of threads joined by bounded queues; the checksum does not depend on who did what."""

import hashlib
import queue
import threading
import zlib

ITEMS = 6000
WORKERS = 12

first, second = queue.Queue(50), queue.Queue(20)
done = []
local = threading.local()


def produce(k):
    for i in range(k, ITEMS, 4):
        first.put((i, hashlib.md5(str(i).encode()).hexdigest().encode() * (1 + i % 300)))


def work():
    local.n = 0
    while True:
        item = first.get()
        if item is None:
            break
        i, data = item
        second.put((i, zlib.crc32(data), len(zlib.compress(data, 1)) > 0))
        local.n += 1
        first.task_done()
    second.put(None)
    done.append(local.n)


results = {}


def collect():
    left = WORKERS
    while left:
        item = second.get()
        if item is None:
            left -= 1
        else:
            results[item[0]] = item[1]


producers = [threading.Thread(target=produce, args=(k,)) for k in range(4)]
workers = [threading.Thread(target=work) for _ in range(WORKERS)]
collector = threading.Thread(target=collect)
for t in producers + workers + [collector]:
    t.start()
for t in producers:
    t.join()
for _ in workers:
    first.put(None)
for t in workers + [collector]:
    t.join()

total = zlib.crc32(b"".join(results[i].to_bytes(4, "big") for i in range(ITEMS)))
print(f"{len(results)} items, {sum(done)} done, {len(done)} workers, checksum {total:08x}")

# many short threads
count = 0
lock = threading.Lock()


def bump():
    global count
    with lock:
        count += 1


for _ in range(20):
    batch = [threading.Thread(target=bump) for _ in range(100)]
    for t in batch:
        t.start()
    for t in batch:
        t.join()
print(f"{count} threads came and went, {threading.active_count()} alive")
