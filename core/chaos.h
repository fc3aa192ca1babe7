/* SPDX-License-Identifier: MIT */
/*
 * Trouble on purpose, for tests: PGREEN_CHAOS (a seed) yields, migrates, wakes late and takes Ps away for a while; PGREEN_FAIL (N)
 * makes one in N of the runtime's requests to the kernel fail.  Neither changes what a program may see: only when, and where
 * resources are short.  Off, each costs a test of a constant on paths that make a system call anyway.
 */
#ifndef PG_CHAOS_H
#define PG_CHAOS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/knobs.h"

/* The next number of the sequence that the seed began.  From any thread; the order among threads is the kernel's. */
uint32_t pg_chaos_rnd(void);

/* Shall this request (memory, an OS thread, a registration) fail?  Blocks: nothing. */
static inline bool pg_fault(void)
{
	return __builtin_expect(pg_knobs.fail != 0, 0) && pg_chaos_rnd() % (uint32_t)pg_knobs.fail == 0;
}

/* Between saying that somebody may go on and waking it: now and then a while passes.  Blocks: the M. */
void pg_chaos_late_slow(void);
static inline void pg_chaos_late(void)
{
	if (__builtin_expect(pg_knobs.chaos != 0, 0))
		pg_chaos_late_slow();
}

#endif
