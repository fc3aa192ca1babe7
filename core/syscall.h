/* SPDX-License-Identifier: MIT */
/*
 * Blocking calls announced to the scheduler.  User code always runs with its P open to being retaken (see syscall.c), so
 * entersyscall is a hint: one plain store that tells sysmon not to ask the kernel.  A G that comes back without its P
 * queues for one in exitsyscall.  Nothing to do with errno: both keep it.
 */
#ifndef PG_SYSCALL_H
#define PG_SYSCALL_H

#include "core/g.h"

void pg_lostp(struct pg_g *g);             /* slow path of exitsyscall: blocks the G until it has a P */
void pg_entersyscallblock(struct pg_g *g); /* known to block for long: hands the P to another M at once */

/* Blocks: nothing.  Pair with pg_exitsyscall; does not nest. Source: Go's entersyscall (2011). */
static inline void pg_entersyscall(struct pg_g *g)
{
	atomic_store_explicit(&g->insys, atomic_load_explicit(&g->insys, memory_order_relaxed) | 1, memory_order_relaxed);
	pg_barrier();
}

static inline void pg_exitsyscall(struct pg_g *g)
{
	pg_barrier();
	atomic_store_explicit(&g->insys, (atomic_load_explicit(&g->insys, memory_order_relaxed) | 1) + 1, memory_order_relaxed);
	/* rt_enter looks whether the P is still ours; without it the G would run on without one until its next call. */
	if (g->mode == PG_GREEN) {
		pg_rt_enter(g);
		pg_rt_exit(g);
	}
}

#endif
