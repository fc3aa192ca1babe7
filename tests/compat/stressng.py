# SPDX-License-Identifier: MIT
"""stress-ng, one stressor at a time for four seconds, with its own checks on."""

import harness
from harness import Case, Fail


def stress(r, stressor):
    out = r.run(harness.need("stress-ng"), f"--{stressor}", "4", "--timeout", "4", "--verify", "--metrics-brief",
                "--temp-path", r.tmp, "--oomable")
    text = out[1] + r.procs[-1].err()
    if "successful run completed" not in text:
        raise Fail("it does not say that the run was successful")
    for word in ("fail:", "error:"):
        for line in text.splitlines():
            if word in line:
                raise Fail(line.strip()[:150])
    return "successful"


def cases(options):
    # as root, mutex runs under real-time policies, which leave others little
    return [Case(f"stress-ng-{s}", lambda r, s=s: stress(r, s), timeout=60, alone=s == "mutex")
            for s in ("pthread", "mutex", "sem", "futex", "switch")]
