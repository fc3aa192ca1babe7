/* SPDX-License-Identifier: MIT */
/*
 * The scheduler: Ms look for Gs to run while they hold a P.
 *
 * Which stack am I on?  A G that parks or yields picks its successor itself and switches to it directly; only when its P has
 * nothing runnable does it switch to g0, whose loop (schedule) steals, polls, and sleeps.  What has to happen to the G that
 * was left (publishing it as parked, queueing it, freeing it) happens in finish_prev, the first thing whoever was
 * switched to does: only then is its stack free of us.
 *
 * An M is running a G (holds a P), spinning (holds a P, looks for work), in the poller or idle (no P).  When a G becomes
 * runnable and there is an idle P, one M is woken, unless one is spinning already.  A spinner that finds work wakes another; the
 * last spinner to stop looks at all queues once more after it has said so: the other half of that hand-shake is
 * in pg_wakep, which looks at nmspinning after the G is queued.  The same holds for npidle and whoever puts a P to rest.  What
 * this misses (a yield takes one G off the queue before it puts another on) sysmon sees.  Modelled in tests/model/sched.pml.
 * Source: Go's proc.c (2013) and its notes on worker thread parking.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arch.h"
#include "core/cputime.h"
#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/sigstate.h"
#include "core/syscall.h"
#include "core/thread.h"

enum { TICK_GLOBAL = 61, YIELDS = 32 };

/* ---- switching ---- */

void pg_finish_exit(struct pg_g *g)
{
	uint32_t life = PG_LIFE_JOINABLE;
	struct pg_g *j;

	if (!atomic_compare_exchange_strong(&g->life, &life, PG_LIFE_EXITED)) {
		pg_gfree(g);
		return;
	}
	atomic_store(&g->dead, 1);
	/* From here on g may be freed by a joiner that saw it dead; it stays a valid object. */
	j = atomic_load(&g->joiner);
	if (j)
		pg_wake(j, PG_WHY_READY);
}

static void finish_prev(struct pg_m *m)
{
	struct pg_g *g = m->prev;
	uint32_t w = PG_W_PREP;

	if (g == NULL)
		return;
	m->prev = NULL;
	switch (m->prevop) {
	case PG_OP_PARK:
		if (m->commit && !m->commit(g, m->commitarg)) {
			/* Refused: claim it, unless a waker already has; either way it is ours to ready. */
			pg_wake(g, PG_WHY_READY);
			pg_ready(g);
			return;
		}
		if (!atomic_compare_exchange_strong(&g->wait, &w, PG_W_PARKED))
			pg_ready(g);
		break;
	case PG_OP_YIELD:
		atomic_store_explicit(&g->state, PG_G_runnable, memory_order_relaxed);
		pg_runqput(m->p, g, false);
		break;
	case PG_OP_GLOBAL:
		atomic_store_explicit(&g->state, PG_G_runnable, memory_order_relaxed);
		pg_globput(g);
		pg_wakep(); /* a P may have gone idle while g was in our hands, on no queue */
		break;
	case PG_OP_SPENT:
		atomic_store_explicit(&g->spent, true, memory_order_relaxed);
		atomic_store_explicit(&g->state, PG_G_runnable, memory_order_relaxed);
		pg_spentput(g);
		pg_wakep();
		break;
	case PG_OP_EXIT:
		pg_finish_exit(g);
		break;
	case PG_OP_MOVE:
		if (!pg_movem(g))
			pg_ready(g);
		break;
	}
}

/* g has just been switched to.  Its mask and alternate stack are set only now: the kernel refuses to change the latter while
 * the stack pointer is still on the former one. */
static inline void arrived(struct pg_g *g)
{
	struct pg_m *m = g->m;

	finish_prev(m);
	if (pg_unlikely(m->sigmask != g->sigmask || m->ss_sp != g->altstack.ss_sp) && g != &m->g0)
		pg_m_syncsignals(m, g);
}

static inline void switchto(struct pg_m *m, struct pg_g *from, struct pg_g *to)
{
	/* pairs with the store that turns it on: cpumark is right then */
	if (pg_unlikely(atomic_load_explicit(&pg_cputime_on, memory_order_acquire)))
		pg_cputime_switch(m, from, to);
	m->cur = to;
	atomic_store_explicit(&m->switches, atomic_load_explicit(&m->switches, memory_order_relaxed) + 1, memory_order_release);
	to->m = m;
	atomic_store_explicit(&to->state, PG_G_running, memory_order_relaxed);
	pg_arch_switch(&from->sp, to->sp, to->tcb);
	/* Another time, perhaps another M. */
	arrived(from);
}

void pg_switchaway(struct pg_g *g, unsigned op)
{
	struct pg_m *m = g->m;
	struct pg_p *p = m->p;
	struct pg_g *next = NULL;

	m->prev = g;
	m->prevop = op;
	if (pg_likely(p != NULL)) {
		uint32_t tick = ++p->schedtick;
		/* Now and then g0 has a look at what is not on our queue. */
		if (tick % TICK_GLOBAL != 0 && !atomic_load_explicit(&p->owe, memory_order_relaxed))
			next = pg_runqget(p);
		if (next == g) /* can't be: g is not queued yet */
			pg_throw("a running G on the run queue");
	}
	switchto(m, g, next ? next : &m->g0);
}

/* Gs on the global queue that are not spent. */
static bool global_fresh(void)
{
	return atomic_load_explicit(&pg_sched.runqsize, memory_order_relaxed) >
	       atomic_load_explicit(&pg_sched.spentsize, memory_order_relaxed);
}

/* spent: to those as well. */
static void yield(struct pg_g *g, bool spent)
{
	struct pg_p *p = g->m->p;

	/* Nobody else: no need to move, except that timers and the poller want a look now and then. */
	if (!pg_runqempty(p) || (spent ? atomic_load_explicit(&pg_sched.runqsize, memory_order_relaxed) > 0 : global_fresh()) ||
	    ++p->schedtick % TICK_GLOBAL == 0)
		pg_switchaway(g, PG_OP_YIELD);
}

void pg_yield(void)
{
	struct pg_g *g = pg_self();

	if (g->mode == PG_NATIVE) {
		pg_sys(SYS_sched_yield);
		return;
	}
	pg_rt_enter(g);
	atomic_store_explicit(&g->spent, false, memory_order_relaxed);
	/*
	 * It may wait for one whose time slice was over: the first of them is next.  Not each time, since such a turn is long, a
	 * millisecond or more, and those who yield have something else in mind.
	 */
	if (pg_unlikely(atomic_load_explicit(&pg_sched.spentsize, memory_order_relaxed) > 0) && ++g->m->p->yields % YIELDS == 0)
		atomic_store_explicit(&g->m->p->owe, true, memory_order_relaxed);
	yield(g, true);
	pg_rt_exit(g);
}

void pg_letothers(void)
{
	struct pg_g *g = pg_self();

	if (g->mode == PG_NATIVE)
		return;
	pg_rt_enter(g);
	yield(g, false);
	pg_rt_exit(g);
}

void pg_newproc(struct pg_g *g)
{
	struct pg_g *self = pg_self();

	pg_rt_enter(self);
	atomic_store_explicit(&g->spent, false, memory_order_relaxed);
	pg_signal_gstart(g);
	pg_ready(g);
	pg_rt_exit(self);
}

extern void pg_thread_main(struct pg_g *g);

/* The first frame of every G; reached with rt == 1. */
void pg_gstart(void *arg);
void pg_gstart(void *arg)
{
	struct pg_g *g = arg;

	arrived(g);
	pg_rt_exit(g);
	pg_thread_main(g);
	pg_throw("a thread returned from its end");
}

void pg_gexit(struct pg_g *g)
{
	struct pg_m *m;

	pg_signal_gend(g);
	while (g->libc_handlers) /* it left them by a jump */
		pg_libc_handler_end(g, 1);
	atomic_store(&g->state, PG_G_dead);
	if (g->oswired) {
		/* Back to the scheduler's stack of the M we kept; it ends there. */
		m = g->wiredm;
		atomic_store(&m->g0.rt, 1);
		if (m->g0.sp == NULL)
			m->g0.sp = pg_arch_frame(m->g0.stack_top, pg_g0_entry, m);
		m->lockedg = g;
		g->m = m;
		switchto(m, g, &m->g0);
	}
	m = g->m;
	/* A joiner that waits already is the best successor: its pages are warm, and nobody else knows that it can go on. */
	struct pg_g *j = atomic_load(&g->joiner);
	if (j && j->mode == PG_GREEN && atomic_load(&g->life) == PG_LIFE_JOINABLE && pg_runqempty(m->p)) {
		uint32_t w = PG_W_PARKED;
		if (atomic_compare_exchange_strong(&j->wait, &w, PG_W_WOKEN | PG_WHY_READY)) {
			m->prev = g;
			m->prevop = PG_OP_EXIT;
			m->p->schedtick++;
			switchto(m, g, j);
		}
	}
	pg_switchaway(g, PG_OP_EXIT);
	pg_throw("a dead thread runs");
}

void pg_wire(struct pg_g *g)
{
	struct pg_m *m;
	struct pg_p *p;

	if (g->mode == PG_NATIVE)
		return;
	/* The first thread of the process can't end before the process: it is for the first G, unless there is no other. */
	if (g->m->tid == (int)pg_sys(SYS_getpid) && g != &pg_main_g)
		pg_switchaway(g, PG_OP_MOVE);
	m = g->m;
	p = m->p;
	pg_cputime_wired(g, m);
	if (p)
		pg_releasep(m);
	g->wiredm = m;
	g->oswired = 1;
	g->m = &pg_nullm;
	g->mode = PG_NATIVE;
	m->cur = &m->g0;
	atomic_store(&m->g0.rt, 0);
	pg_tls_wired(g);
	pg_wire_apply(g);
	if (p)
		pg_handoffp(p);
}

/* ---- g0 ---- */

static struct pg_g *stealwork(struct pg_m *m, int64_t *now)
{
	struct pg_p *p = m->p;

	for (int round = 0; round < 4; round++) {
		bool last = round == 3;
		m->rnd ^= m->rnd << 13;
		m->rnd ^= m->rnd >> 17;
		m->rnd ^= m->rnd << 5;
		for (int i = 0, k = (int)(m->rnd % (uint32_t)pg_nprocs); i < pg_nprocs; i++, k = k + 1 == pg_nprocs ? 0 : k + 1) {
			struct pg_p *v = &pg_allp[k];
			struct pg_g *g;
			if (v == p)
				continue;
			if (last && atomic_load(&v->timer0) != PG_FOREVER) {
				*now = pg_now();
				if (atomic_load(&v->timer0) <= *now && pg_timers_run(v, *now) && (g = pg_runqget(p)))
					return g;
			}
			g = pg_runqsteal(p, v, last);
			if (g)
				return g;
		}
		if (atomic_load_explicit(&pg_sched.runqsize, memory_order_relaxed) > 0)
			return NULL;
		if (last)
			break;
		/*
		 * Before the last round, which also takes runnext, wait a little: a G that has just been made ready is about to run
		 * where it is when its waker parks, and a pair that wakes each other should stay together.
		 */
		for (int i = 0; i < (round == 2 ? 300 : 60); i++)
			pg_cpu_relax();
	}
	return NULL;
}

/* Off the global queue, else a spent one.  Scheduler's lock held. */
static struct pg_g *anyget(struct pg_p *p)
{
	return pg_sched.runq.n > 0 ? pg_globget(p, 0) : pg_spentget(p);
}

/* Finds a G; may sleep, give up and get back the P. */
static struct pg_g *findrunnable(struct pg_m *m)
{
	struct pg_glist l;
	struct pg_g *g;
	struct pg_p *p;
	int64_t now, until;

top:
	p = m->p;
	now = 0;
	if (atomic_load_explicit(&p->timer0, memory_order_relaxed) != PG_FOREVER) {
		now = pg_now();
		if (atomic_load(&p->timer0) <= now)
			pg_timers_run(p, now);
	}
	if (p->schedtick % TICK_GLOBAL == 0) {
		p->schedtick++;
		if (atomic_load_explicit(&pg_sched.runqsize, memory_order_relaxed) > 0) {
			pg_lock(&pg_sched.lock);
			g = pg_globget(p, 1);
			pg_unlock(&pg_sched.lock);
			if (g)
				return g;
		}
		if (atomic_load_explicit(&pg_sched.pollwaiters, memory_order_relaxed) > 0 && !atomic_load(&pg_sched.polling)) {
			l = (struct pg_glist){0};
			pg_netpoll(0, &l);
			pg_injectlist(&l);
		}
	}
	if (atomic_load_explicit(&p->owe, memory_order_relaxed)) {
		pg_lock(&pg_sched.lock);
		g = pg_spentget(p);
		pg_unlock(&pg_sched.lock);
		if (g)
			return g;
	}
	g = pg_runqget(p);
	if (g)
		return g;
	if (global_fresh()) {
		pg_lock(&pg_sched.lock);
		g = pg_globget(p, 0);
		pg_unlock(&pg_sched.lock);
		if (g)
			return g;
	}
	/* The poller, without sleeping, before others are robbed. */
	if (atomic_load_explicit(&pg_sched.pollwaiters, memory_order_relaxed) > 0 && !atomic_load(&pg_sched.polling)) {
		l = (struct pg_glist){0};
		pg_netpoll(0, &l);
		pg_injectlist(&l);
		g = pg_runqget(p);
		if (g)
			return g;
	}
	if (atomic_load_explicit(&pg_sched.runqsize, memory_order_relaxed) > 0) {
		/* Only Gs that have had their time slice are left, as far as we know: what waits behind one on another P goes first. */
		for (int i = 0; i < pg_nprocs; i++)
			if (&pg_allp[i] != p && (g = pg_runqsteal(p, &pg_allp[i], false)) != NULL)
				return g;
		pg_lock(&pg_sched.lock);
		g = anyget(p);
		pg_unlock(&pg_sched.lock);
		if (g)
			return g;
	}
	if (pg_nprocs > 1 &&
	    (m->spinning || 2 * atomic_load(&pg_sched.nmspinning) < pg_nprocs - atomic_load(&pg_sched.npidle))) {
		if (!m->spinning) {
			m->spinning = true;
			atomic_fetch_add(&pg_sched.nmspinning, 1);
		}
		g = stealwork(m, &now);
		if (g)
			return g;
	}

	/* Nothing: give up the P. */
	pg_lock(&pg_sched.lock);
	if (atomic_load(&pg_sched.runqsize) > 0) {
		g = anyget(p);
		pg_unlock(&pg_sched.lock);
		if (g)
			return g;
		goto top;
	}
	pg_releasep(m);
	pg_pidleput(p);
	pg_unlock(&pg_sched.lock);

	bool spun = m->spinning;
	if (spun) {
		m->spinning = false;
		atomic_fetch_sub(&pg_sched.nmspinning, 1);
	}
	/* Before the Ps' queues: from here Gs are moved to those. */
	if (atomic_load(&pg_sched.runqsize) > 0) {
		pg_lock(&pg_sched.lock);
		p = pg_pidleget();
		pg_unlock(&pg_sched.lock);
		if (p) {
			pg_acquirep(m, p);
			goto top;
		}
	}
	/*
	 * pairs with the fence in pg_wakep: whoever queued a G before and saw us spin left it to us.  We who did not spin leave it to
	 * a spinner; when there is none any more, it may have found no idle P, not yet ours.
	 */
	for (int i = 0; pg_nprocs > 1 && i < pg_nprocs && (spun || atomic_load(&pg_sched.nmspinning) == 0); i++) {
		if (pg_runqempty(&pg_allp[i]))
			continue;
		pg_lock(&pg_sched.lock);
		p = pg_pidleget();
		pg_unlock(&pg_sched.lock);
		if (p) {
			pg_acquirep(m, p);
			m->spinning = true;
			atomic_fetch_add(&pg_sched.nmspinning, 1);
			goto top;
		}
		break;
	}

	/* One M sleeps in the poller, until the first timer of all. */
	int z = 0;
	if (atomic_compare_exchange_strong(&pg_sched.polling, &z, 1)) {
		/* PG_FOREVER while we look: whoever adds a timer now wakes us at once */
		atomic_store(&pg_sched.polluntil, PG_FOREVER);
		until = pg_timers_next();
		if (until != PG_FOREVER || atomic_load(&pg_sched.pollwaiters) > 0) {
			atomic_store(&pg_sched.polluntil, until);
			l = (struct pg_glist){0};
			atomic_store(&m->g0.rt, 0);
			pg_signal_route(&m->g0);
			/* A timer that came between the look and the store above: seen here, or its adder saw our store. */
			if (pg_timers_next() < until)
				until = 1;
			pg_netpoll(until, &l);
			pg_rt_enter(&m->g0);
			atomic_store(&pg_sched.polling, 0);
			pg_lock(&pg_sched.lock);
			p = pg_pidleget();
			pg_unlock(&pg_sched.lock);
			if (p) {
				pg_acquirep(m, p);
				pg_injectlist(&l);
				now = pg_now();
				for (int i = 0; i < pg_nprocs; i++)
					if (atomic_load(&pg_allp[i].timer0) <= now)
						pg_timers_run(&pg_allp[i], now);
				goto top;
			}
			/* All Ps are busy: they find these on the global queue, and run their own timers; unless one goes idle now. */
			pg_globputlist(&l);
			pg_wakep();
		} else {
			atomic_store(&pg_sched.polling, 0);
			/* pairs with the add of pollwaiters: a G that began to wait in between saw a poller and did not wake one */
			if (atomic_load(&pg_sched.pollwaiters) > 0 || pg_timers_next() != PG_FOREVER) {
				pg_lock(&pg_sched.lock);
				p = pg_pidleget();
				pg_unlock(&pg_sched.lock);
				if (p) {
					pg_acquirep(m, p);
					goto top;
				}
			}
		}
	}
	pg_stopm(m);
	goto top;
}

/*
 * The M of a wired G that has ended.  What the kernel remembers of the thread must not be reused, and its locks (robust, PI)
 * are released when the thread is gone: only then has the G ended for others, which sysmon tells them.  The first thread
 * of the process stays and sleeps for ever, so that the process does not look dead; but not if the G holds PI
 * mutexes, which only the kernel can pass on.
 */
static void end_wired(struct pg_m *m)
{
	struct pg_g *g = m->lockedg;

	if (m->tid == (int)pg_sys(SYS_getpid) && !pg_tls_owns_pi(g)) {
		pg_tls_owner_died(g);
		pg_finish_exit(g);
		atomic_store(&m->g0.rt, 0);
		pg_noteclear(&m->note);
		for (;;)
			pg_notesleep(&m->note);
	}
	pg_mexit(m);
}

void pg_schedule(struct pg_m *m)
{
	struct pg_g *g;

	for (;;) {
		finish_prev(m);
		if (pg_unlikely(m->lockedg != NULL))
			end_wired(m);
		if (pg_unlikely((g = m->firstg) != NULL)) {
			m->firstg = NULL;
			switchto(m, &m->g0, g);
			continue;
		}
		if (m->p == NULL)
			pg_stopm(m);
		pg_signal_route(&m->g0);
		g = findrunnable(m);
		if (m->spinning) {
			m->spinning = false;
			atomic_fetch_sub(&pg_sched.nmspinning, 1);
			/* There may be more where this came from. */
			pg_wakep();
		}
		switchto(m, &m->g0, g);
		m = m->g0.m;
	}
}
