/* SPDX-License-Identifier: MIT */
/*
 * pthread_once, with glibc's values: 0 not yet, pg_fork_gen << 2 | 1 in progress, 2 done.
 *
 * One that was in progress in another thread when the process forked will never be finished: its
 * generation is not that of the child, where the next caller begins again.  The routine runs in a frame
 * (pg_arch_guarded) which tells us when an exception or a cancellation passes through; then the word
 * goes back to 0 and a waiter tries.  g->once is the chain of those in progress in this thread,
 * innermost first.
 */
#include "shim/objects.h"
#include "shim/thread.h"

#include "arch.h"

enum { PROGRESS = 1, DONE = 2 };

struct running {
	_Atomic uint32_t *word;
	struct running *outer;
	void (*fn)(void);
};

static void run(void *arg)
{
	struct running *r = arg;

	r->fn();
}

static void finish(struct pg_g *g, struct running *r, uint32_t value)
{
	g->once = r->outer;
	/* pairs with the acquire of those who see it done */
	atomic_store_explicit(r->word, value, memory_order_release);
	pg_sema_wake(r->word, INT_MAX, PG_SEMA_ANY);
}

/* Called while an exception or a forced unwind passes the frame of run. */
void pg_unwind_hook(void)
{
	struct pg_g *g = pg_self();
	struct running *r = g->once;

	if (r)
		finish(g, r, 0);
}

/* The same for frames that the unwinder could not pass: it jumped over what lies below `limit`, seen from the top of the stack. */
void pg_once_unwound(struct pg_g *g, uintptr_t limit, uintptr_t top)
{
	struct running *r;

	while ((r = g->once) != NULL && (uintptr_t)r - top < limit - top)
		finish(g, r, 0);
}

static int __attribute__((noinline)) once_slow(pthread_once_t *once, void (*fn)(void))
{
	_Atomic uint32_t *word = (_Atomic uint32_t *)once;
	struct running r = { .word = word, .fn = fn };

	PG_SYNC_SELF(g, PG_REAL(pthread_once)(once, fn));
	for (;;) {
		uint32_t v = atomic_load_explicit(word, memory_order_acquire), mark = pg_fork_gen << 2 | PROGRESS;

		if (v & DONE)
			return 0;
		if (v == mark) {
			pg_sema_wait(word, v, PG_SEMA_ANY, PG_FOREVER);
			continue;
		}
		if (atomic_compare_exchange_strong_explicit(word, &v, mark, memory_order_acquire, memory_order_relaxed))
			break;
	}
	r.outer = g->once;
	g->once = &r;
	pg_arch_guarded(run, &r);
	finish(g, &r, DONE);
	return 0;
}

/* Blocks: the G, while another thread runs the routine.  Cancel: no, but the routine may be cancelled. */
PG_EXPORT int pthread_once(pthread_once_t *once, void (*fn)(void))
{
	if (pg_likely(atomic_load_explicit((_Atomic uint32_t *)once, memory_order_acquire) & DONE))
		return 0;
	return once_slow(once, fn);
}

PG_EXPORT int __pthread_once(pthread_once_t *once, void (*fn)(void))
	__attribute__((alias("pthread_once"), copy(pthread_once)));
