# SPDX-License-Identifier: MIT
"""pigz, pbzip2 and xz: what they write is as natively, native tools read it back, and so do they themselves."""

import hashlib
import os
import random
import threading

import harness
from harness import Case, Fail

SIZE = 30 << 20
made = threading.Lock()


def data(r):
    """Some 30 MB of text, noise, zeros and repeats, the same at each run; kept in the build directory."""
    path = os.path.join(r.build, "log", "mixed.data")
    with made:
        if not os.path.exists(path) or os.path.getsize(path) != SIZE:
            rnd = random.Random(20)
            words = [bytes(rnd.choices(b"abcdefghijklmnopqrstuvwxyz", k=rnd.randrange(2, 10))) for _ in range(4000)]
            out = bytearray()
            while len(out) < SIZE:
                kind = rnd.randrange(5)
                if kind == 0:
                    out += rnd.randbytes(rnd.randrange(100000, 600000))
                elif kind == 1:
                    out += bytes(rnd.randrange(100000, 900000))
                elif kind == 2 and len(out) > 1 << 20:
                    at = rnd.randrange(len(out) - (1 << 19))
                    out += out[at:at + (1 << 19)]
                else:
                    out += b" ".join(rnd.choices(words, k=60000))
            with open(path + ".new", "wb") as f:
                f.write(out[:SIZE])
            os.rename(path + ".new", path)
    return path


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def round_trip(r, pack, unpack):
    """Pack under the variant, unpack natively; then unpack under the variant as well."""
    source = data(r)
    want = digest(source)
    packed, plain, again = r.path("packed"), r.path("plain"), r.path("again")
    for cmd in (pack, unpack):
        harness.need(cmd[0])
    r.run(*pack, stdin=source, stdout=packed, label="pack")
    r.run(*unpack, stdin=packed, stdout=plain, native=True, label="unpack")
    if digest(plain) != want:
        raise Fail("what was packed does not unpack to the input")
    r.run(*unpack, stdin=packed, stdout=again, label="unpack-too")
    if digest(again) != want:
        raise Fail("unpacking gives something else")
    return f"{os.path.getsize(packed)} bytes, {digest(packed)}"


def cases(options):
    def case(name, pack, unpack):
        return Case(name, lambda r: round_trip(r, pack.split(), unpack.split()), timeout=120)
    return [case("pigz", "pigz -n -p 4 -c", "pigz -dc"),
            case("pbzip2", "pbzip2 -p4 -c", "pbzip2 -dc -p4"),
            case("xz", "xz -T0 -0 --block-size=2MiB -c", "xz -T0 -dc")]
