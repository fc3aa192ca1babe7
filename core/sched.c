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
 * in pg_wakep, which looks at nmspinning after the G is queued.
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
#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/signal.h"
#include "core/syscall.h"
#include "core/thread.h"

enum { TICK_GLOBAL = 61, G0_STACK = 64 << 10 };

_Atomic bool pg_started;
int pg_nprocs = 1;
struct pg_p *pg_allp;
struct pg_g pg_main_g;
struct pg_m pg_nullm;
_Atomic int pg_nthreads = 1;

int64_t pg_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline struct pg_m *curm(void)
{
	return pg_self_->m;
}

/* ---- Ps ---- */

static void pidleput(struct pg_p *p)
{
	atomic_store(&p->status, PG_P_IDLE);
	p->link = pg_sched.pidle;
	pg_sched.pidle = p;
	atomic_fetch_add(&pg_sched.npidle, 1);
}

struct pg_p *pg_pidleget(void)
{
	struct pg_p *p = pg_sched.pidle;

	if (p) {
		pg_sched.pidle = p->link;
		atomic_fetch_sub(&pg_sched.npidle, 1);
	}
	return p;
}

void pg_acquirep(struct pg_m *m, struct pg_p *p)
{
	m->p = p;
	atomic_store(&p->m, m);
	atomic_store(&p->status, PG_P_RUNNING);
	if (pg_unlikely(atomic_load_explicit(&pg_sched.sysmonwait, memory_order_relaxed)))
		pg_sysmon_wake();
}

void pg_releasep(struct pg_m *m)
{
	struct pg_p *p = m->p;

	m->p = NULL;
	atomic_store(&p->m, NULL);
}

/* ---- Ms ---- */

static void schedule(struct pg_m *m) __attribute__((noreturn));
static void g0_entry(void *arg);

static void mstart(void *arg)
{
	struct pg_m *m = arg;

	m->tid = (int)pg_sys(SYS_gettid);
	pg_tls_robust(m->g0.tcb);
	schedule(m);
}

static struct pg_m *allocm(void)
{
	size_t tls = pg_tls_size();
	size_t n = (sizeof(struct pg_m) + 63) / 64 * 64;
	char *mem = pg_mmap_alloc(n + tls + 4096 + G0_STACK);
	struct pg_m *m = (struct pg_m *)mem;

	if (mem == NULL)
		return NULL;
	/* Lowest the structure, then the stack, then TLS and TCB. */
	m->g0.stack_lo = mem + n;
	m->g0.stack_top = mem + n + G0_STACK;
	m->g0.magic = PG_MAGIC;
	m->g0.tcb = pg_tls_new(mem + n + G0_STACK + tls - pg_tcb_size());
	pg_tls_setself(m->g0.tcb, &m->g0);
	m->g0.m = m;
	m->g0.mode = PG_NATIVE; /* the shim never runs here, save under a foreign signal handler */
	m->g0.timer.idx = -1;
	if (!pg_have_membarrier || pg_knobs.chaos)
		atomic_store(&m->attn, PG_ATTN_FENCE);
	atomic_store(&m->g0.rt, 1);
	m->cur = &m->g0;
	m->rnd = (uint32_t)(uintptr_t)m ^ 0x9e3779b9u;
	if (m->rnd == 0)
		m->rnd = 1;
	return m;
}

static void publishm(struct pg_m *m)
{
	m->alllink = atomic_load(&pg_sched.allm);
	while (!atomic_compare_exchange_weak(&pg_sched.allm, &m->alllink, m))
		;
}

/* A new M that starts with P p, spinning or not.  False: the kernel refuses. */
static bool newm(struct pg_p *p, bool spinning)
{
	struct pg_m *m = allocm();
	uint64_t all = ~pg_sigbit(PG_SIG_KICK), old;
	long r;

	if (m == NULL)
		return false;
	m->nextp = NULL;
	m->spinning = spinning;
	pg_acquirep(m, p);
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
	m->sigmask = all;
	publishm(m);
	r = pg_arch_clone(mstart, m->g0.stack_top,
			  CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
			  CLONE_PARENT_SETTID, m, &m->tid, m->g0.tcb);
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, 8);
	if (r < 0) {
		pg_releasep(m);
		return false;
	}
	return true;
}

static bool runtime_has_work(struct pg_p *p)
{
	return !pg_runqempty(p) || atomic_load(&pg_sched.runqsize) > 0;
}

/* Gives p to an M.  spinning: nmspinning has been counted up for it. */
static void startm(struct pg_p *p, bool spinning)
{
	struct pg_m *m;

	pg_lock(&pg_sched.lock);
	if (p == NULL && (p = pg_pidleget()) == NULL) {
		pg_unlock(&pg_sched.lock);
		if (spinning)
			atomic_fetch_sub(&pg_sched.nmspinning, 1);
		return;
	}
	m = pg_sched.midle;
	if (m) {
		pg_sched.midle = m->link;
		pg_unlock(&pg_sched.lock);
		m->spinning = spinning;
		m->nextp = p;
		atomic_store(&p->m, m);
		pg_notewakeup(&m->note);
		return;
	}
	if (pg_sched.mcount < pg_knobs.maxm) {
		pg_sched.mcount++;
		if (pg_self_->mode == PG_NATIVE && pg_self_->m == &pg_nullm && pg_self_ != pg_sysmon_g) {
			/* A thread inherits what the kernel keeps per thread: not from a wired or foreign one. */
			p->link = pg_sched.pspawn;
			p->spinning = spinning;
			pg_sched.pspawn = p;
			pg_unlock(&pg_sched.lock);
			pg_sysmon_poke();
			return;
		}
		pg_unlock(&pg_sched.lock);
		if (newm(p, spinning))
			return;
		pg_lock(&pg_sched.lock);
		pg_sched.mcount--;
	}
	/* No M to be had: the P stays idle with what it has queued; whoever releases a P or comes back finds it. */
	pidleput(p);
	pg_unlock(&pg_sched.lock);
	if (spinning)
		atomic_fetch_sub(&pg_sched.nmspinning, 1);
}

/* On sysmon: the Ms that native threads asked for. */
void pg_spawn(void)
{
	struct pg_p *p;

	for (;;) {
		pg_lock(&pg_sched.lock);
		p = pg_sched.pspawn;
		if (p)
			pg_sched.pspawn = p->link;
		pg_unlock(&pg_sched.lock);
		if (p == NULL)
			return;
		if (!newm(p, p->spinning)) {
			pg_lock(&pg_sched.lock);
			pg_sched.mcount--;
			pidleput(p);
			pg_unlock(&pg_sched.lock);
			if (p->spinning)
				atomic_fetch_sub(&pg_sched.nmspinning, 1);
		}
	}
}

void pg_wakep(void)
{
	int z = 0;

	/* pairs with the fetch_sub of the last spinner in findrunnable: the G is queued before this load */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&pg_sched.npidle, memory_order_relaxed) == 0 ||
	    atomic_load_explicit(&pg_sched.nmspinning, memory_order_relaxed) != 0)
		return;
	if (atomic_compare_exchange_strong(&pg_sched.nmspinning, &z, 1))
		startm(NULL, true);
}

void pg_handoffp(struct pg_p *p)
{
	if (runtime_has_work(p)) {
		startm(p, false);
		return;
	}
	/* Nobody spins and every other P is idle or busy: somebody must look for work, poll and run timers. */
	int z = 0;
	if (atomic_load(&pg_sched.nmspinning) + atomic_load(&pg_sched.npidle) == 0 &&
	    atomic_compare_exchange_strong(&pg_sched.nmspinning, &z, 1)) {
		startm(p, true);
		return;
	}
	pg_lock(&pg_sched.lock);
	if (pg_sched.runq.n > 0) {
		pg_unlock(&pg_sched.lock);
		startm(p, false);
		return;
	}
	if ((atomic_load(&pg_sched.npidle) == pg_nprocs - 1 || atomic_load(&p->timer0) != PG_FOREVER) &&
	    !atomic_load(&pg_sched.polling) &&
	    (atomic_load(&pg_sched.pollwaiters) > 0 || pg_timers_next() != PG_FOREVER)) {
		pg_unlock(&pg_sched.lock);
		startm(p, false);
		return;
	}
	pidleput(p);
	pg_unlock(&pg_sched.lock);
	if (atomic_load(&p->timer0) < atomic_load(&pg_sched.polluntil) && atomic_load(&pg_sched.polling))
		pg_netpoll_break();
}

/* Sleeps until somebody gives this M a P.  On g0. */
static void stopm(struct pg_m *m)
{
	pg_noteclear(&m->note);
	pg_lock(&pg_sched.lock);
	m->link = pg_sched.midle;
	pg_sched.midle = m;
	pg_unlock(&pg_sched.lock);
	/* Out of the runtime while asleep, so that stopping the world need not wait for us. */
	atomic_store(&m->g0.rt, 0);
	pg_signal_route(&m->g0);
	pg_notesleep(&m->note);
	pg_rt_enter(&m->g0);
	pg_acquirep(m, m->nextp);
	m->nextp = NULL;
}

/* ---- making Gs runnable ---- */

void pg_ready(struct pg_g *g)
{
	struct pg_m *m;

	atomic_store_explicit(&g->state, PG_G_runnable, memory_order_relaxed);
	if (g->mode == PG_NATIVE) {
		pg_notewakeup(&g->note);
		return;
	}
	m = curm();
	if (m->p)
		pg_runqput(m->p, g, true);
	else
		pg_globput(g);
	if (pg_nprocs > 1 || m->p == NULL)
		pg_wakep();
}

void pg_injectlist(struct pg_glist *l)
{
	struct pg_m *m = curm();
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
		if (m->p == NULL)
			pg_wakep(); /* the last P may have gone idle since we looked for one */
		break;
	case PG_OP_EXIT:
		pg_finish_exit(g);
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
		if (tick % TICK_GLOBAL != 0)
			next = pg_runqget(p);
		if (next == g) /* can't be: g is not queued yet */
			pg_throw("a running G on the run queue");
	}
	switchto(m, g, next ? next : &m->g0);
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
			while (!pg_notetsleep(&g->note, deadline)) {
				if (atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL)) {
					if (pg_wake(g, PG_WHY_SIGNAL))
						break;
				} else if (deadline != PG_FOREVER && pg_now() >= deadline) {
					if (pg_wake(g, PG_WHY_TIMEOUT))
						break;
				}
			}
		}
	} else {
		struct pg_m *m = g->m;
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

void pg_yield(void)
{
	struct pg_g *g = pg_self_;
	struct pg_m *m = g->m;
	struct pg_p *p = m->p;

	if (g->mode == PG_NATIVE) {
		pg_sys(SYS_sched_yield);
		return;
	}
	/* Nobody else: no need to move, except that timers and the poller want a look now and then. */
	if (pg_runqempty(p) && atomic_load_explicit(&pg_sched.runqsize, memory_order_relaxed) == 0 &&
	    ++p->schedtick % TICK_GLOBAL != 0)
		return;
	pg_switchaway(g, PG_OP_YIELD);
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

void pg_newproc(struct pg_g *g)
{
	struct pg_g *self = pg_self();

	pg_rt_enter(self);
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
	atomic_store(&g->state, PG_G_dead);
	if (g->oswired) {
		/* Back to the scheduler's stack of the M we kept; it ends there. */
		m = g->wiredm;
		atomic_store(&m->g0.rt, 1);
		if (m->g0.sp == NULL)
			m->g0.sp = pg_arch_frame(m->g0.stack_top, g0_entry, m);
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
	m = g->m;
	p = m->p;
	pg_releasep(m);
	g->wiredm = m;
	g->oswired = 1;
	g->m = &pg_nullm;
	g->mode = PG_NATIVE;
	m->cur = &m->g0;
	atomic_store(&m->g0.rt, 0);
	pg_tls_wired(g);
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
	g = pg_runqget(p);
	if (g)
		return g;
	if (atomic_load_explicit(&pg_sched.runqsize, memory_order_relaxed) > 0) {
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
	if (pg_sched.runq.n > 0) {
		g = pg_globget(p, 0);
		pg_unlock(&pg_sched.lock);
		if (g)
			return g;
		goto top;
	}
	pg_releasep(m);
	pidleput(p);
	pg_unlock(&pg_sched.lock);

	if (m->spinning) {
		m->spinning = false;
		atomic_fetch_sub(&pg_sched.nmspinning, 1);
		/* pairs with the fence in pg_wakep: whoever queued a G before and saw us spin left it to us */
		for (int i = 0; i < pg_nprocs; i++) {
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
	}
	if (atomic_load(&pg_sched.runqsize) > 0) {
		pg_lock(&pg_sched.lock);
		p = pg_pidleget();
		pg_unlock(&pg_sched.lock);
		if (p) {
			pg_acquirep(m, p);
			goto top;
		}
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
	stopm(m);
	goto top;
}

/*
 * The M of a wired G that has ended.  What the kernel remembers of the thread must not be reused, and its locks (robust, PI)
 * are released when the thread is gone: only then has the G ended for others, which sysmon tells them.  The first thread
 * of the process has to stay, or the process would look dead; it sleeps for ever.
 */
static void end_wired(struct pg_m *m)
{
	struct pg_g *g = m->lockedg;

	if (m->tid == (int)pg_sys(SYS_getpid)) {
		pg_tls_owner_died(g);
		pg_finish_exit(g);
		atomic_store(&m->g0.rt, 0);
		pg_noteclear(&m->note);
		for (;;)
			pg_notesleep(&m->note);
	}
	pg_lock(&pg_sched.lock);
	pg_sched.mcount--;
	pg_unlock(&pg_sched.lock);
	atomic_store(&m->cleartid, 1);
	pg_sys(SYS_set_tid_address, &m->cleartid);
	m->dyinglink = atomic_load(&pg_sched.dying);
	while (!atomic_compare_exchange_weak(&pg_sched.dying, &m->dyinglink, m))
		;
	pg_sysmon_poke();
	m->tid = 0;
	atomic_store(&m->g0.rt, 0);
	for (;;)
		pg_sys(SYS_exit, 0);
}

static void schedule(struct pg_m *m)
{
	struct pg_g *g;

	for (;;) {
		finish_prev(m);
		if (pg_unlikely(m->lockedg != NULL))
			end_wired(m);
		if (m->p == NULL)
			stopm(m);
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

/* ---- start ---- */

bool pg_have_membarrier;

long pg_membarrier(void)
{
	if (pg_have_membarrier)
		return pg_sys(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	return -ENOSYS;
}

static int count_cpus(void)
{
	unsigned long mask[128] = {0};
	long n = pg_sys(SYS_sched_getaffinity, 0, sizeof mask, mask);
	int cpus = 0;

	for (long i = 0; i < n / (long)sizeof(long); i++)
		cpus += __builtin_popcountl(mask[i]);
	return cpus > 0 ? cpus : 1;
}

static void g0_entry(void *arg)
{
	schedule(arg);
}

int pg_start(void)
{
	struct pg_g *g = pg_self();
	struct pg_m *m;
	int r, n;

	if (atomic_load(&pg_started))
		return 0;
	if (g != &pg_main_g && g->slab == NULL)
		return -EAGAIN; /* a foreign thread came before main: it stays native */
	r = pg_tls_init();
	if (r < 0)
		return r;
	n = pg_knobs.maxprocs ? (int)pg_knobs.maxprocs : count_cpus();
	pg_nprocs = n > 256 ? 256 : n;
	pg_have_membarrier = pg_sys(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
	pg_allp = pg_mmap_alloc((size_t)pg_nprocs * sizeof *pg_allp);
	m = allocm();
	if (pg_allp == NULL || m == NULL)
		return -EAGAIN;
	r = pg_netpoll_init();
	if (r < 0)
		return r;
	for (int i = 0; i < pg_nprocs; i++) {
		pg_allp[i].id = i;
		atomic_store(&pg_allp[i].timer0, PG_FOREVER);
	}
	for (int i = pg_nprocs - 1; i > 0; i--)
		pidleput(&pg_allp[i]);

	/* The calling thread goes on as a green G on the first M. */
	atomic_fetch_add(&g->rt, 1);
	m->tid = (int)pg_sys(SYS_gettid);
	m->sigmask = g->sigmask;
	m->ss_sp = g->altstack.ss_sp;
	m->g0.sp = pg_arch_frame(m->g0.stack_top, g0_entry, m);
	m->cur = g;
	pg_sched.mcount = 1;
	publishm(m);
	pg_acquirep(m, &pg_allp[0]);
	g->m = m;
	g->mode = PG_GREEN;
	pg_signal_gstart(g);
	pg_sysmon_start();
	atomic_store(&pg_started, true);
	pg_rt_exit(g);
	return 0;
}
