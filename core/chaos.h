/* SPDX-License-Identifier: MIT */
/*
 * Trouble on purpose, for tests: PGREEN_CHAOS=SEED makes the runtime yield, migrate, lose its P and wake up late at random
 * points and changes the number of Ps in use; PGREEN_FAIL=N lets one in N of its own requests to the kernel fail.  Off, each
 * point is one predictable branch on a path that makes a system call anyway.
 */
#ifndef PG_CHAOS_H
#define PG_CHAOS_H

#include "core/g.h"
#include "core/knobs.h"

/* What can be made to fail, and the answer. */
enum pg_chaos_call {
	PG_CHAOS_MMAP,  /* ENOMEM */
	PG_CHAOS_CLONE, /* of an M: EAGAIN */
	PG_CHAOS_EPOLL, /* a registration: ENOSPC or ENOMEM */
	PG_CHAOS_FD,    /* of the poller's own: EMFILE */
};

long pg_chaos_fail_slow(enum pg_chaos_call call);
void pg_chaos_late_slow(void);
void pg_chaos_enter(struct pg_g *g); /* g has just entered the runtime, rt == 1, and may be switched away from */
void pg_chaos_procs(void);           /* sysmon, now and then */

/* 0, or the negative error number that the call shall have; the call is not to be made then.  Blocks: nothing. */
static inline long pg_chaos_fail(enum pg_chaos_call call)
{
	return pg_unlikely(pg_knobs.fail) ? pg_chaos_fail_slow(call) : 0;
}

/* Before a wake-up by the kernel.  Blocks: the OS thread, for some microseconds, under a seed only. */
static inline void pg_chaos_late(void)
{
	if (pg_unlikely(pg_knobs.chaos))
		pg_chaos_late_slow();
}

#endif
