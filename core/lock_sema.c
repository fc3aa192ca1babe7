/* SPDX-License-Identifier: MIT */
/*
 * Runtime lock and note on a semaphore per OS thread.
 *
 * Lock: bit 0 says held, the rest points to a last-in first-out list of waiting threads.  Only the holder pops: it
 * releases and takes the head off in one CAS and wakes it; the woken thread tries again.  A waiter pushes itself only while
 * the lock is held.
 * Note: 0 clear, 1 woken, otherwise the sleeping thread.  0 -> sleeper by the sleeper, -> 1 by the waker, who wakes whom it
 * found; a sleeper whose time is up takes itself back with sleeper -> 0 or, failing that, was woken after all.
 * Semaphore: a futex word, 0 or 1, on the waiter's stack; set by the one waker, consumed by its owner.  (One per G would not do: a
 * signal handler may wait for a lock while the code it interrupted sleeps on a note.)  The waker's futex_wake may come when
 * the waiter has gone on: it wakes nobody, or somebody who looks again.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/chaos.h"
#include "core/g.h"
#include "core/lock.h"
#include "core/note.h"

const char pg_lock_variant[] = "sema";

enum { LOCK_SPINS = 40 };
#define HELD ((uintptr_t)1)

static void semawakeup(struct pg_lock_waiter *w)
{
	pg_chaos_late();
	atomic_store_explicit(&w->sema, 1, memory_order_release);
	pg_sys(SYS_futex, &w->sema, FUTEX_WAKE_PRIVATE, 1);
}

/* False: the deadline has passed or a signal handler ran, and nobody has woken us yet. */
static bool semasleep(struct pg_lock_waiter *w, int64_t deadline, bool once)
{
	struct timespec ts, *tp = NULL;

	if (deadline != PG_FOREVER) {
		ts.tv_sec = deadline / 1000000000;
		ts.tv_nsec = deadline % 1000000000;
		tp = &ts;
	}
	for (;;) {
		if (atomic_exchange_explicit(&w->sema, 0, memory_order_acquire) == 1)
			return true;
		long r = pg_sys(SYS_futex, &w->sema, FUTEX_WAIT_BITSET_PRIVATE, 0, tp, 0, FUTEX_BITSET_MATCH_ANY);
		if (once && r < 0)
			return atomic_exchange_explicit(&w->sema, 0, memory_order_acquire) == 1;
	}
}

void pg_lock(struct pg_lock *l)
{
	struct pg_lock_waiter me = {0}, *w = &me;
	int spins = LOCK_SPINS;

	for (;;) {
		uintptr_t v = atomic_load_explicit(&l->key, memory_order_relaxed);
		if (!(v & HELD)) {
			if (atomic_compare_exchange_weak_explicit(&l->key, &v, v | HELD, memory_order_acquire,
								  memory_order_relaxed))
				return;
			continue;
		}
		if (spins-- > 0) {
			pg_cpu_relax();
			continue;
		}
		w->next = (struct pg_lock_waiter *)(v & ~HELD);
		if (atomic_compare_exchange_weak_explicit(&l->key, &v, (uintptr_t)w | HELD, memory_order_release,
							  memory_order_relaxed)) {
			semasleep(w, PG_FOREVER, false);
			spins = LOCK_SPINS;
		}
	}
}

bool pg_trylock(struct pg_lock *l)
{
	uintptr_t v = atomic_load_explicit(&l->key, memory_order_relaxed);

	return !(v & HELD) && atomic_compare_exchange_strong_explicit(&l->key, &v, v | HELD, memory_order_acquire,
								      memory_order_relaxed);
}

void pg_unlock(struct pg_lock *l)
{
	uintptr_t v = atomic_load_explicit(&l->key, memory_order_acquire);

	for (;;) {
		if (v == HELD) {
			if (atomic_compare_exchange_weak_explicit(&l->key, &v, 0, memory_order_release,
								  memory_order_acquire))
				return;
			continue;
		}
		struct pg_lock_waiter *w = (struct pg_lock_waiter *)(v & ~HELD);
		if (atomic_compare_exchange_weak_explicit(&l->key, &v, (uintptr_t)w->next, memory_order_acq_rel,
							  memory_order_acquire)) {
			semawakeup(w);
			return;
		}
	}
}

void pg_noteclear(struct pg_note *n)
{
	atomic_store_explicit(&n->key, 0, memory_order_relaxed);
}

void pg_notewakeup(struct pg_note *n)
{
	uintptr_t v = atomic_exchange_explicit(&n->key, 1, memory_order_acq_rel);

	if (v > 1)
		semawakeup((struct pg_lock_waiter *)v);
}

void pg_notesleep(struct pg_note *n)
{
	struct pg_lock_waiter me = {0}, *w = &me;
	uintptr_t v = 0;

	if (atomic_compare_exchange_strong_explicit(&n->key, &v, (uintptr_t)w, memory_order_acq_rel, memory_order_acquire))
		semasleep(w, PG_FOREVER, false);
}

bool pg_notetsleep(struct pg_note *n, int64_t deadline)
{
	struct pg_lock_waiter me = {0}, *w = &me;
	uintptr_t v = 0;

	if (!atomic_compare_exchange_strong_explicit(&n->key, &v, (uintptr_t)w, memory_order_acq_rel, memory_order_acquire))
		return true;
	if (semasleep(w, deadline, true))
		return true;
	v = (uintptr_t)w;
	if (atomic_compare_exchange_strong_explicit(&n->key, &v, 0, memory_order_acq_rel, memory_order_acquire))
		return false;
	semasleep(w, PG_FOREVER, false); /* the waker has us: its post is on its way */
	return true;
}
