/* SPDX-License-Identifier: MIT */
/*
 * Barriers.  Needs from below: pg_sema_wait and pg_sema_wake.
 *
 * The state is one word: arrivals of this round (low) and the number of the round (high).  Each arrival
 * adds one; the last one of a round sets the arrivals to 0 and the round one further in the same swap,
 * so that nobody is counted twice, and wakes those who sleep on the round.
 *
 * inside counts the threads in pthread_barrier_wait; leaving is a thread's last access.
 * pthread_barrier_destroy adds DESTROY and waits until that is all; the thread that leaves last wakes
 * it, by address.
 */
#include "shim/objects.h"

#include "arch.h"

#define DESTROY (1u << 31)
#define ROUND (1ull << 32)

static void leave(struct pg_barrier *b)
{
	if (atomic_fetch_sub_explicit(&b->inside, 1, memory_order_acq_rel) == (DESTROY | 1))
		pg_sema_wake(&b->inside, 1, PG_SEMA_ANY);
}

static int wait_shared(struct pg_g *g, pthread_barrier_t *barrier)
{
	int r;

	pg_entersyscall(g);
	r = PG_REAL(pthread_barrier_wait)(barrier);
	pg_exitsyscall(g);
	return r;
}

/* Blocks: the G.  Cancel: no. */
PG_EXPORT int pthread_barrier_wait(pthread_barrier_t *barrier)
{
	struct pg_barrier *b = (struct pg_barrier *)barrier;
	uint64_t s, to;
	bool last;

	PG_SYNC_SELF(g, PG_REAL(pthread_barrier_wait)(barrier));
	if (pg_unlikely(b->shared))
		return wait_shared(g, barrier);
	atomic_fetch_add_explicit(&b->inside, 1, memory_order_relaxed);
	s = atomic_load_explicit(&b->state, memory_order_relaxed);
	do {
		last = (uint32_t)s + 1 >= b->count;
		to = last ? (s & ~(ROUND - 1)) + ROUND : s + 1;
	} while (!atomic_compare_exchange_weak_explicit(&b->state, &s, to, memory_order_acq_rel, memory_order_relaxed));
	if (last) {
		pg_sema_wake(pg_high(&b->state), INT_MAX, PG_SEMA_ANY);
		leave(b);
		return PTHREAD_BARRIER_SERIAL_THREAD;
	}
	for (int i = pg_spins(); i > 0; i--) {
		if (atomic_load_explicit(pg_high(&b->state), memory_order_acquire) != (uint32_t)(s >> 32))
			break;
		pg_cpu_relax();
	}
	/* pairs with the release in the last one's swap */
	while (atomic_load_explicit(pg_high(&b->state), memory_order_acquire) == (uint32_t)(s >> 32))
		pg_sema_wait(pg_high(&b->state), (uint32_t)(s >> 32), PG_SEMA_ANY, PG_FOREVER);
	leave(b);
	return 0;
}

/* Blocks: the G, until those who have been let through have left. */
PG_EXPORT int pthread_barrier_destroy(pthread_barrier_t *barrier)
{
	struct pg_barrier *b = (struct pg_barrier *)barrier;
	uint32_t n;

	PG_SYNC_SELF(g, PG_REAL(pthread_barrier_destroy)(barrier));
	if (pg_unlikely(b->shared)) {
		int r;

		pg_entersyscall(g);
		r = PG_REAL(pthread_barrier_destroy)(barrier);
		pg_exitsyscall(g);
		return r;
	}
	n = atomic_fetch_or(&b->inside, DESTROY) | DESTROY;
	while (n != DESTROY) {
		pg_sema_wait(&b->inside, n, PG_SEMA_ANY, PG_FOREVER);
		n = atomic_load(&b->inside);
	}
	return 0;
}
