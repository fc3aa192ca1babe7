/* SPDX-License-Identifier: MIT */
/*
 * Runtime lock and note on a futex word.
 *
 * Lock: 0 free, 1 held, 2 held and somebody may sleep.  The holder goes 1|2 -> 0 with an exchange and wakes one sleeper if it
 * found 2.  A thread that has slept takes the lock with 2, since it cannot know whether others sleep.
 * Note: 0 clear, 1 woken.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/chaos.h"
#include "core/lock.h"
#include "core/note.h"
#include "core/g.h"

const char pg_lock_variant[] = "futex";

enum { LOCK_SPINS = 40 };

static long futex_wait(_Atomic uintptr_t *addr, uint32_t val, int64_t deadline)
{
	struct timespec ts, *tp = NULL;

	if (deadline != PG_FOREVER) {
		ts.tv_sec = deadline / 1000000000;
		ts.tv_nsec = deadline % 1000000000;
		tp = &ts;
	}
	/* WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. */
	return pg_sys(SYS_futex, addr, FUTEX_WAIT_BITSET_PRIVATE, val, tp, 0, FUTEX_BITSET_MATCH_ANY);
}

static void futex_wake(_Atomic uintptr_t *addr)
{
	pg_chaos_late();
	pg_sys(SYS_futex, addr, FUTEX_WAKE_PRIVATE, 1);
}

static void lock_slow(struct pg_lock *l)
{
	for (int i = 0; i < LOCK_SPINS; i++) {
		uintptr_t c = 0;
		if (atomic_load_explicit(&l->key, memory_order_relaxed) == 0 &&
		    atomic_compare_exchange_weak_explicit(&l->key, &c, 1, memory_order_acquire, memory_order_relaxed))
			return;
		pg_cpu_relax();
	}
	while (atomic_exchange_explicit(&l->key, 2, memory_order_acquire) != 0)
		futex_wait(&l->key, 2, PG_FOREVER);
}

void pg_lock(struct pg_lock *l)
{
	uintptr_t c = 0;

	if (pg_unlikely(!atomic_compare_exchange_strong_explicit(&l->key, &c, 1, memory_order_acquire, memory_order_relaxed)))
		lock_slow(l);
}

bool pg_trylock(struct pg_lock *l)
{
	uintptr_t c = 0;

	return atomic_compare_exchange_strong_explicit(&l->key, &c, 1, memory_order_acquire, memory_order_relaxed);
}

void pg_unlock(struct pg_lock *l)
{
	if (pg_unlikely(atomic_exchange_explicit(&l->key, 0, memory_order_release) == 2))
		futex_wake(&l->key);
}

void pg_noteclear(struct pg_note *n)
{
	atomic_store_explicit(&n->key, 0, memory_order_relaxed);
}

void pg_notewakeup(struct pg_note *n)
{
	if (atomic_exchange_explicit(&n->key, 1, memory_order_release) == 0)
		futex_wake(&n->key);
}

void pg_notesleep(struct pg_note *n)
{
	while (atomic_load_explicit(&n->key, memory_order_acquire) == 0)
		futex_wait(&n->key, 0, PG_FOREVER);
}

bool pg_notetsleep(struct pg_note *n, int64_t deadline)
{
	if (atomic_load_explicit(&n->key, memory_order_acquire) == 0)
		futex_wait(&n->key, 0, deadline);
	return atomic_load_explicit(&n->key, memory_order_acquire) != 0;
}
