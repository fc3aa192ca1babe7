# SPDX-License-Identifier: MIT
"""C and C++ programs, build/tests/t_*: stdout and exit status as natively; also with a fast tick and sema locks, and wired."""

import glob
import os

from harness import Case, Fail, say_status

# name: what differs from the usual
SPECIAL = {
    # natively it ends at max_map_count, near 32,000 threads
    "t_park100k": {"expected": "exit status 0\n100000 parked\n100000 joined\nok\n", "alone": True, "timeout": 90,
                   "no_native": "more threads than the system gives", "wired": False},
    # measure gaps: nobody beside them
    "t_rawblock": {"alone": True, "wired": False},
    "t_unannounced": {"alone": True, "wired": False, "timeout": 120},
    # the runtime waits for some seconds before it sends OS threads away
    "t_maxm": {"wired": False, "timeout": 120},
    # a signal for a process of wired threads may come a little later than natively: LIMITS
    "t_signal": {"wired": False},
}


def cases(options):
    out = []
    for path in sorted(glob.glob(os.path.join(options.build, "tests", "t_*"))):
        if not os.access(path, os.X_OK) or not os.path.isfile(path):
            continue

        def run(r, path=path):
            rc, text = r.run(path, expect=None)
            if rc < 0 and not r.variant.native:
                raise Fail(say_status(rc) + r.last_words(r.procs[0]))
            return f"{say_status(rc)}\n{text}"
        name = os.path.basename(path)
        out.append(Case(name, run, **{"timeout": 40, "extra": True, "wired": True, **SPECIAL.get(name, {})}))
    return out
