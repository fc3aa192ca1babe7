/* SPDX-License-Identifier: MIT */
/*
 * The sequence behind PGREEN_CHAOS and PGREEN_FAIL: a counter that every caller advances, mixed with the seed, so a run with one
 * thread repeats exactly, and one with several has the same numbers in the order of arrival.
 */
#include "core/chaos.h"

#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"

static _Atomic uint32_t count;

uint32_t pg_chaos_rnd(void)
{
	uint32_t x = atomic_fetch_add_explicit(&count, 0x9e3779b9u, memory_order_relaxed) + (uint32_t)pg_knobs.chaos * 0x85ebca6bu;

	x = (x ^ (x >> 16)) * 0x7feb352du;
	x = (x ^ (x >> 15)) * 0x846ca68bu;
	return x ^ (x >> 16);
}

void pg_chaos_late_slow(void)
{
	uint32_t r = pg_chaos_rnd();
	struct timespec ts = {0, (long)(r >> 8) % 200000};

	if (r % 64 == 0)
		pg_sys(SYS_nanosleep, &ts, NULL);
}
