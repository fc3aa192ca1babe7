# SPDX-License-Identifier: MIT
"""memcached -t 4 under a load of which every value is checked."""

import os

import harness
from harness import Case, Fail, say_status


def serve(r):
    port = harness.free_port()
    user = ["-u", "root"] if os.getuid() == 0 else []
    p = r.start(harness.need("memcached"), "-t", "4", "-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "256", *user)
    p.wait_port(port)
    r.client("memcached", "--port", port, "--connections", "20", "--ops", "20")
    before = {p.pid: harness.descriptors(p.pid)}
    answer = r.client("memcached", "--port", port, "--connections", "50", "--ops", "400", "--seed", "7")
    r.same_descriptors(before, [p.pid], "memcached")
    rc = p.stop()
    if rc < 0:
        raise Fail(say_status(rc))
    return f"{answer}SIGTERM: {say_status(rc)}"


def cases(options):
    return [Case("memcached", serve, timeout=90, alone=True)]
