# SPDX-License-Identifier: MIT
"""sysbench: cpu, threads and mutex, each briefly; it must end well and count something."""

import re

import harness
from harness import Case, Fail


def bench(r, test, *args):
    out = r.run(harness.need("sysbench"), test, *args, "run")[1]
    events = re.search(r"total number of events: +(\d+)", out)
    if not events or int(events.group(1)) == 0:
        raise Fail("no events were counted")
    threads = re.search(r"^Number of threads: (\d+)$", out, re.M)
    lines = [l.strip() for l in out.splitlines() if re.match(r"(Number of threads|Threads started|.*fairness)", l)]
    return f"{threads and threads.group(1)} threads\n" + "\n".join(lines)


def cases(options):
    def case(test, *args):
        return Case(f"sysbench-{test}", lambda r: bench(r, test, *args), timeout=60)
    return [case("cpu", "--threads=4", "--time=2", "--cpu-max-prime=5000"),
            case("threads", "--threads=16", "--time=2"),
            case("mutex", "--threads=16", "--mutex-num=64", "--mutex-locks=200000", "--mutex-loops=200")]
