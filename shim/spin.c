/* SPDX-License-Identifier: MIT */
/*
 * Spin locks, and giving way.  The word is glibc's: 1 free, 0 or less held; so trying, unlocking and
 * shared spin locks are libc's. A holder may be a thread that is not running: after some turns a spinner
 * lets others run.
 */
#include "shim/objects.h"

#include <sched.h>

#include "arch.h"

enum { TURNS = 100 };

static void give_way(struct pg_g *g)
{
	pg_rt_enter(g);
	pg_yield();
	pg_rt_exit(g);
}

/* Blocks: nothing, but others run. */
PG_EXPORT int pthread_spin_lock(pthread_spinlock_t *lock)
{
	_Atomic int *word = (_Atomic int *)lock;
	int one = 1;

	if (pg_likely(atomic_compare_exchange_strong_explicit(word, &one, 0, memory_order_acquire, memory_order_relaxed)))
		return 0;
	PG_SYNC_SELF(g, PG_REAL(pthread_spin_lock)(lock));
	for (;;) {
		for (int i = pg_nprocs > 1 || g->mode != PG_GREEN ? TURNS : 1; i > 0; i--) {
			one = 1;
			if (atomic_load_explicit(word, memory_order_relaxed) == 1 &&
			    atomic_compare_exchange_strong_explicit(word, &one, 0, memory_order_acquire,
								    memory_order_relaxed))
				return 0;
			pg_cpu_relax();
		}
		give_way(g);
	}
}

PG_EXPORT int sched_yield(void)
{
	if (!pg_is_green())
		return PG_REAL(sched_yield)();
	give_way(pg_self_);
	return 0;
}

PG_EXPORT int __sched_yield(void) __attribute__((alias("sched_yield"), copy(sched_yield)));
/* The header makes the name itself another one for sched_yield. */
PG_EXPORT int pg_pthread_yield(void) __asm__("pthread_yield")
	__attribute__((alias("sched_yield"), copy(sched_yield)));

PG_EXPORT void thrd_yield(void)
{
	sched_yield();
}
