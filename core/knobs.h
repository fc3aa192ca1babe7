/* SPDX-License-Identifier: MIT */
/* The knobs: environment variables PGREEN_*, parsed once.  A wrong value gets one line on stderr and the default. */
#ifndef PG_KNOBS_H
#define PG_KNOBS_H

#include <stdbool.h>
#include <stdint.h>

/* name, field, default, least, most, what it does */
#define PG_KNOBS(X)                                                                                                    \
	X("MAXPROCS", maxprocs, 0, 0, 256, "processors used; 0: those this process may run on")                        \
	X("STACK", stack, 0, 0, INT64_MAX, "default stack size in bytes; 0: RLIMIT_STACK as natively")                 \
	X("PREEMPT", preempt, 10000, 0, 10000000, "time slice in microseconds; 0: never preempt")                      \
	X("STATS", stats, 0, 0, 1, "counters on stderr at exit")                                                       \
	X("SCHEDTRACE", schedtrace, 0, 0, 3600000, "a line of scheduler state on stderr every so many milliseconds")   \
	X("DEADLOCK", deadlock, 0, 0, 1, "report on stderr when all threads are asleep for good")                      \
	X("CHAOS", chaos, 0, 0, UINT32_MAX, "seed of trouble on purpose in the scheduler; 0: none")                    \
	X("FAIL", fail, 0, 0, UINT32_MAX, "one in so many of our own requests to the kernel fails; 0: none")           \
	X("MAXM", maxm, 10000, 4, 1000000, "most OS threads")

/* Those that are text: name, field, what it does; empty by default, and kept as they are. */
#define PG_TEXT_KNOBS(X)                                                                                               \
	X("WIRE", wire, "patterns (* and ?) of the names of threads that get an OS thread each, with commas between")

#define PG_KNOB_TEXT 512

struct pg_knobs {
	bool off; /* PGREEN=off */
#define X(name, field, def, lo, hi, doc) int64_t field;
	PG_KNOBS(X)
#undef X
#define X(name, field, doc) char field[PG_KNOB_TEXT];
	PG_TEXT_KNOBS(X)
#undef X
};

extern struct pg_knobs pg_knobs;
void pg_knobs_init(char **environ_);

#endif
