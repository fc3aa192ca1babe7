# SPDX-License-Identifier: MIT
"""jemalloc preloaded together with pgreen: it calls pthread functions from inside malloc."""

import glob
import os

import harness
from harness import Case, Skip, say_status


def with_jemalloc(r, *argv):
    lib = sorted(glob.glob("/usr/lib/*/libjemalloc.so.2"))
    if not lib:
        raise Skip("no libjemalloc.so.2 here")
    rc, out = r.run(*argv, env={"LD_PRELOAD": lib[0]}, expect=None)
    return f"{say_status(rc)}\n{out}"


def cases(options):
    out = [Case("jemalloc-python", lambda r: with_jemalloc(r, harness.PYTHON, harness.PROGS + "/py_pipeline.py"))]
    cxx = os.path.join(options.build, "tests", "t_cxx")
    if os.path.exists(cxx):
        out.append(Case("jemalloc-t_cxx", lambda r: with_jemalloc(r, cxx)))
    return out
