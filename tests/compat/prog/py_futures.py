# SPDX-License-Identifier: MIT
"""concurrent.futures: a thread pool, as_completed, time-outs, errors; a process pool forked under it."""

import concurrent.futures as cf
import hashlib
import socket
import time


def digest(n):
    return hashlib.sha256(bytes(n % 251 for n in range(n))).hexdigest()[:16]


def slow(n):
    time.sleep(n)
    return n


def fail(n):
    raise ValueError(n)


def main():
    with cf.ThreadPoolExecutor(16) as pool:
        a = list(pool.map(digest, range(0, 8000, 40)))
        print(len(a), hashlib.sha256("".join(a).encode()).hexdigest()[:16])
        futures = [pool.submit(slow, k / 100) for k in range(20)]
        print(sum(f.result() for f in cf.as_completed(futures, timeout=20)))
        print(sorted(str(f.exception()) for f in [pool.submit(fail, k) for k in range(5)]))
        f = pool.submit(slow, 1)
        try:
            f.result(timeout=0.05)
            print("too early")
        except cf.TimeoutError:
            print("time-out, then", f.result())
        names = list(pool.map(lambda _: socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)[0][4], range(50)))
        print(set(names))
    with cf.ProcessPoolExecutor(3) as pool:
        print(hashlib.sha256("".join(pool.map(digest, range(200, 400))).encode()).hexdigest()[:16])


if __name__ == "__main__":
    main()
