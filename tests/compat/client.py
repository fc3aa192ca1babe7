#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The clients of the servers under test, and the echo server behind stunnel.  Always run natively; asyncio, one thread.

Every answer of a server is compared here with what it must be; the exit status is 0 only if all were right.
"""

import argparse
import asyncio
import hashlib
import random
import ssl
import sys


def pattern(seed, length):
    """Bytes that depend on the seed, cheaply, and are nobody else's."""
    block = hashlib.sha256(str(seed).encode()).digest() * 8
    return (block * (length // len(block) + 1))[:length]


class Wrong(Exception):
    pass


async def gather_all(coros):
    """All of them; the first error ends the program."""
    return await asyncio.gather(*coros)


class Barrier:
    """Everybody is connected before anybody goes on."""

    def __init__(self, n):
        self.n = n
        self.open = asyncio.Event()

    async def wait(self):
        self.n -= 1
        if self.n == 0:
            self.open.set()
        await self.open.wait()


async def echo(a):
    """--connections at once; each sends --messages of its own, and must get each back."""
    context = None
    if a.tls:
        context = ssl.create_default_context(cafile=a.tls)
        context.check_hostname = False
    barrier = Barrier(a.connections)
    gate = asyncio.Semaphore(64)

    async def one(i):
        async with gate:
            r, w = await asyncio.open_connection("127.0.0.1", a.port, ssl=context)
            hello = pattern(("hello", i), 32)
            w.write(hello)
            if await r.readexactly(32) != hello:
                raise Wrong(f"connection {i}: wrong greeting")
        await barrier.wait()
        total = 0
        for m in range(a.messages):
            data = pattern((i, m), 1 + (i * 7919 + m * 104729) % a.size)
            w.write(data)
            back = await r.readexactly(len(data))
            if back != data:
                raise Wrong(f"connection {i}: message {m} came back changed")
            total += len(data)
        w.close()
        try:
            await w.wait_closed()
        except (ssl.SSLError, ConnectionError):
            pass
        return total

    total = sum(await gather_all(one(i) for i in range(a.connections)))
    print(f"{a.connections} connections, {a.connections * a.messages} messages, {total} bytes, all right")


async def echo_server(a):
    """The native server behind stunnel."""
    async def serve(r, w):
        try:
            while True:
                data = await r.read(65536)
                if not data:
                    break
                w.write(data)
                await w.drain()
        except ConnectionError:
            pass
        w.close()
    server = await asyncio.start_server(serve, "127.0.0.1", a.port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


async def memcached(a):
    """--connections, --ops each: set, get, several gets at once, append, delete, cas, and counters shared by all."""
    counters = 4

    async def command(r, w, line, data=None):
        w.write(line + b"\r\n" + (data + b"\r\n" if data is not None else b""))
        return (await r.readuntil(b"\r\n"))[:-2]

    async def get(r, w, keys, verb=b"get"):
        w.write(verb + b" " + b" ".join(keys) + b"\r\n")
        found = {}
        while True:
            line = (await r.readuntil(b"\r\n"))[:-2]
            if line == b"END":
                return found
            part = line.split()
            if part[0] != b"VALUE":
                raise Wrong(f"unexpected line {line[:60]!r}")
            data = await r.readexactly(int(part[3]) + 2)
            if data[-2:] != b"\r\n":
                raise Wrong("a value without its end")
            found[part[1]] = (data[:-2], part[4] if len(part) > 4 else None)

    r, w = await asyncio.open_connection("127.0.0.1", a.port)
    for c in range(counters):
        if await command(r, w, b"set shared%d 0 0 1" % c, b"0") != b"STORED":
            raise Wrong("set of a counter")

    async def one(i):
        rnd = random.Random(a.seed * 1000 + i)
        r, w = await asyncio.open_connection("127.0.0.1", a.port)
        mine = {}
        added = [0] * counters
        tally = {}
        for n in range(a.ops):
            op = rnd.choice(["set", "set", "set", "get", "get", "get", "multi", "delete", "incr", "append", "cas"])
            key = b"k%d.%d.%d" % (a.seed, i, rnd.randrange(40))
            tally[op] = tally.get(op, 0) + 1
            if op == "set":
                size = rnd.choice([1, 30, 200, 1500, 9000, 70000 if n % 10 == 0 else 400])
                value = pattern((i, n), size)
                if await command(r, w, b"set %s 0 0 %d" % (key, size), value) != b"STORED":
                    raise Wrong("set was refused")
                mine[key] = value
            elif op == "get":
                found = await get(r, w, [key])
                if found.get(key, (None,))[0] != mine.get(key):
                    raise Wrong(f"get {key!r}: wrong value")
            elif op == "multi":
                keys = [b"k%d.%d.%d" % (a.seed, i, k) for k in range(0, 40, 3)]
                found = await get(r, w, keys)
                if {k: v[0] for k, v in found.items()} != {k: mine[k] for k in keys if k in mine}:
                    raise Wrong("get of several keys: wrong values")
            elif op == "delete":
                want = b"DELETED" if key in mine else b"NOT_FOUND"
                if await command(r, w, b"delete " + key) != want:
                    raise Wrong("delete: wrong answer")
                mine.pop(key, None)
            elif op == "append":
                want = b"STORED" if key in mine else b"NOT_STORED"
                if await command(r, w, b"append %s 0 0 5" % key, b"-more") != want:
                    raise Wrong("append: wrong answer")
                if key in mine:
                    mine[key] += b"-more"
            elif op == "cas":
                found = await get(r, w, [key], b"gets")
                if (key in found) != (key in mine):
                    raise Wrong("gets: wrong answer")
                if key in found:
                    value = pattern((i, n, "cas"), 64)
                    line = b"cas %s 0 0 64 %s" % (key, found[key][1])
                    if await command(r, w, line, value) != b"STORED":
                        raise Wrong("cas was refused")
                    mine[key] = value
            else:
                c = rnd.randrange(counters)
                by = rnd.randrange(1, 100)
                if not (await command(r, w, b"incr shared%d %d" % (c, by))).isdigit():
                    raise Wrong("incr: no number")
                added[c] += by
        for key, value in mine.items():
            if (await get(r, w, [key]))[key][0] != value:
                raise Wrong(f"{key!r} at the end: wrong value")
        w.write(b"quit\r\n")
        if await r.read() != b"":
            raise Wrong("words after quit")
        w.close()
        return added, tally

    results = await gather_all(one(i) for i in range(a.connections))
    for c in range(counters):
        want = sum(added[c] for added, _ in results)
        found = (await get(r, w, [b"shared%d" % c]))[b"shared%d" % c][0]
        if int(found) != want:
            raise Wrong(f"counter {c} is {int(found)}, must be {want}")
    w.close()
    tally = {}
    for _, t in results:
        for op, n in t.items():
            tally[op] = tally.get(op, 0) + n
    print(f"{a.connections} connections, {a.connections * a.ops} operations, counters right,",
          ", ".join(f"{op} {n}" for op, n in sorted(tally.items())))


async def http(a):
    """Keep-alive connections that fetch the files of --docs in turn; every body's checksum is known."""
    import os
    want = {}
    for name in sorted(os.listdir(a.docs)):
        with open(os.path.join(a.docs, name), "rb") as f:
            want[name] = f.read()
    names = sorted(want)

    async def one(i):
        r, w = await asyncio.open_connection("127.0.0.1", a.port)
        total = 0
        for n in range(a.messages):
            name = names[(i + n) % len(names)]
            missing = n % 11 == 10
            last = n == a.messages - 1
            target = "/missing" if missing else "/" + name
            close = "Connection: close\r\n" if last else ""
            w.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n".encode())
            head = (await r.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            status = int(head[0].split()[1])
            fields = {l.split(":", 1)[0].lower(): l.split(":", 1)[1].strip() for l in head[1:] if ":" in l}
            body = await r.readexactly(int(fields["content-length"]))
            if status != (404 if missing else 200):
                raise Wrong(f"{target}: status {status}")
            if not missing and body != want[name]:
                raise Wrong(f"{target}: wrong body")
            total += 0 if missing else len(body)
        if await r.read() != b"":
            raise Wrong("more than was asked for")
        w.close()
        return total

    total = sum(await gather_all(one(i) for i in range(a.connections)))
    print(f"{a.connections} connections, {a.connections * a.messages} requests, {total} bytes, all right")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["echo", "echo-server", "memcached", "http"])
    p.add_argument("--port", type=int, required=True)
    p.add_argument("--connections", type=int, default=1)
    p.add_argument("--messages", type=int, default=3)
    p.add_argument("--ops", type=int, default=400)
    p.add_argument("--size", type=int, default=8000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--tls", help="the certificate to trust")
    p.add_argument("--docs")
    a = p.parse_args()
    what = {"echo": echo, "echo-server": echo_server, "memcached": memcached, "http": http}[a.what]
    try:
        asyncio.run(what(a))
    except (Wrong, OSError, asyncio.IncompleteReadError, ssl.SSLError) as e:
        sys.exit(f"{type(e).__name__}: {e}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
