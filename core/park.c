/* SPDX-License-Identifier: MIT */
/*
 * Parking and making runnable: the word g->wait (its states stand in g.h).
 *
 * The waiter: PREP, then it publishes itself, looks once more at what it waits for, and leaves its stack; whoever runs next
 * on that M commits, PREP -> PARKED (finish_prev in sched.c).  A waker claims the word: PREP -> WOKEN makes that commit fail, and
 * the committer readies the G; PARKED -> WOKEN obliges the waker to ready it.  So exactly one readies it, and never
 * before its stack is free.  Modelled in tests/model/park.pml.
 * A waker may be late and hit the next wait of the same G: all waits are loops around a condition.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/signal.h"
#include "core/thread.h"

void pg_ready(struct pg_g *g)
{
	struct pg_m *m;

	atomic_store_explicit(&g->state, PG_G_runnable, memory_order_relaxed);
	if (g->mode == PG_NATIVE) {
		pg_notewakeup(&g->note);
		return;
	}
	m = pg_self_->m;
	if (m->p)
		pg_runqput(m->p, g, true);
	else
		pg_globput(g);
	if (pg_nprocs > 1 || m->p == NULL)
		pg_wakep();
}

void pg_injectlist(struct pg_glist *l)
{
	struct pg_m *m = pg_self_->m;
	struct pg_g *g, *next;
	int n = l->n;

	if (n == 0)
		return;
	if (m->p == NULL) {
		pg_globputlist(l);
	} else {
		for (g = l->head; g; g = next) {
			next = g->schedlink;
			pg_runqput(m->p, g, false);
		}
		if (n < 2)
			n = 0;
	}
	if (n)
		pg_wakep();
}

/* True: the caller has claimed a parked G and must make it runnable.  *won: claimed at all. */
bool pg_claim(struct pg_g *g, enum pg_why why, bool *won)
{
	uint32_t w = atomic_load(&g->wait);

	for (;;) {
		if (w != PG_W_PREP && w != PG_W_PARKED) {
			*won = false;
			return false;
		}
		if (atomic_compare_exchange_weak(&g->wait, &w, PG_W_WOKEN | (uint32_t)why)) {
			*won = true;
			return w == PG_W_PARKED; /* in PREP it has not left yet: its commit will fail */
		}
	}
}

bool pg_wake(struct pg_g *g, enum pg_why why)
{
	bool won;

	if (pg_claim(g, why, &won))
		pg_ready(g);
	return won;
}

unsigned pg_park_commit(struct pg_g *g, bool (*commit)(struct pg_g *, void *), void *arg, int64_t deadline,
			enum pg_reason reason)
{
	uint32_t w;

	/* pairs with pg_interrupt: pending is set, then the wait is claimed */
	if (pg_unlikely(atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL))) {
		w = atomic_exchange(&g->wait, PG_W_IDLE);
		return (w & ~0xffu) | PG_WHY_SIGNAL;
	}
	atomic_store_explicit(&g->reason, (uint32_t)reason, memory_order_relaxed);
	atomic_store_explicit(&g->state, PG_G_waiting, memory_order_relaxed);
	if (pg_unlikely(g->mode == PG_NATIVE)) {
		pg_noteclear(&g->note);
		w = PG_W_PREP;
		if ((commit == NULL || commit(g, arg)) && atomic_compare_exchange_strong(&g->wait, &w, PG_W_PARKED)) {
			/* pairs with quiet in fork.c: it stores stopped and looks at out; we store out and look at stopped. */
			atomic_store(&g->out, 1);
			while (!pg_notetsleep(&g->note, deadline)) {
				if (atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL)) {
					if (pg_wake(g, PG_WHY_SIGNAL))
						break;
				} else if (deadline != PG_FOREVER && pg_now() >= deadline) {
					if (pg_wake(g, PG_WHY_TIMEOUT))
						break;
				}
			}
			while (atomic_store(&g->out, 0), pg_unlikely(atomic_load(&pg_sched.stopped))) {
				atomic_store(&g->out, 1);
				pg_sys(SYS_futex, &pg_sched.stopped, FUTEX_WAIT_PRIVATE, 1, NULL);
			}
		}
	} else {
		struct pg_m *m = g->m;
		atomic_store_explicit(&g->spent, false, memory_order_relaxed);
		if (deadline != PG_FOREVER)
			pg_timer_add(m->p, g, deadline);
		m->commit = commit;
		m->commitarg = arg;
		pg_switchaway(g, PG_OP_PARK);
		if (deadline != PG_FOREVER)
			pg_timer_del(g);
	}
	atomic_store_explicit(&g->state, PG_G_running, memory_order_relaxed);
	atomic_store_explicit(&g->reason, PG_WAIT_none, memory_order_relaxed);
	w = atomic_exchange_explicit(&g->wait, PG_W_IDLE, memory_order_acq_rel) & ~0xffu;
	/* Whoever ran the heap may have taken us off for an older wait: a late wake-up, not this deadline. */
	if (pg_unlikely(w & PG_WHY_TIMEOUT) && (deadline == PG_FOREVER || pg_now() < deadline))
		w = PG_WHY_READY;
	return w;
}

unsigned pg_park(struct pg_g *g, int64_t deadline, enum pg_reason reason)
{
	return pg_park_commit(g, NULL, NULL, deadline, reason);
}

void pg_wait_prepare(struct pg_g *g)
{
	atomic_store(&g->wait, PG_W_PREP);
}

void pg_wait_abort(struct pg_g *g)
{
	atomic_store(&g->wait, PG_W_IDLE);
}

int pg_sleep_until(int64_t deadline, enum pg_reason reason)
{
	struct pg_g *g = pg_self();
	int r = 0;

	pg_rt_enter(g);
	while (pg_now() < deadline) {
		pg_wait_prepare(g);
		if (pg_park(g, deadline, reason) & PG_WHY_SIGNAL) {
			r = -EINTR;
			break;
		}
	}
	pg_rt_exit(g);
	return r;
}
