/* SPDX-License-Identifier: MIT */
/*
 * fork: the world is stopped at the edge of the runtime, and the child begins again with the calling G alone.
 *
 * Stopping: every M and every native thread is kept from entering the runtime (ATTN_STOP), and we wait until none is inside.
 * Nobody is kept from running user code: libc's fork takes the locks of malloc and stdio itself, and whoever holds one must be able to
 * let it go.  A G that was preempted inside libc might hold one and could not: fork waits for those first
 * (pg_preempted_in_libc), and for handlers that interrupted libc, dlopen and dlclose (pg_handlers_in_libc): ld.so has a lock that
 * libc's fork does not know.
 *
 * Our handlers are the first that libc knows of, so prepare runs last, right before libc takes its locks, and child runs
 * first.  In the child the runtime is as before the first pthread_create: the caller is the first thread, native; the
 * other Gs are ghosts, whose nodes may still hang on condition variables; their memory stays.
 */
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arch.h"
#include "core/netpoll.h"
#include "core/pd.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/signal.h"
#include "core/thread.h"

extern _Atomic int pg_preempted_in_libc, pg_handlers_in_libc;
extern _Atomic bool pg_handlers_put_off;
extern int pg_sysmon_tid;
extern void pg_sema_forked(void), pg_signal_forked(void), pg_netpoll_drop(void), pg_stack_forked(void);
extern void pg_foreach_foreign(void (*fn)(struct pg_g *, void *), void *arg);
unsigned pg_fork_gen; /* counts forks, for pthread_once */

enum { LIBC_PATIENCE = 100000000 };
static const struct timespec brief = {0, 20000};
static _Atomic int forking;
_Atomic int pg_fork_wanted; /* threads that wait to fork: no dlopen begins */

static bool inside(struct pg_g *g)
{
	return atomic_load(&g->rt) > 0 && atomic_load(&g->out) == 0;
}

static void one_inside(struct pg_g *g, void *arg)
{
	uint32_t st = atomic_load(&g->state);

	/* A ghost stays in whatever its thread was in when the parent forked. */
	if (g->mode == PG_NATIVE && g != pg_self_ && st != PG_G_dead && st != PG_G_ghost && inside(g))
		*(bool *)arg = true;
}

static bool quiet(struct pg_m *mine)
{
	bool in = false;

	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink) {
		uint32_t s = atomic_load(&m->switches);
		struct pg_g *g = *(struct pg_g *volatile *)&m->cur;
		if (m == mine || m->tid == 0)
			continue;
		/* The rt of cur is this M's only while it does not switch, see pg_retake. */
		if (atomic_load(&g->rt) > 0 || atomic_load(&m->switches) != s)
			return false;
		/* One that woke up for the last fork may have cleared ours; before its rt was 0, so look after that. */
		if (!(atomic_load(&m->attn) & PG_ATTN_STOP))
			return false;
	}
	if (pg_sysmon_g && pg_sysmon_g != pg_self_ && inside(pg_sysmon_g))
		return false;
	pg_foreach_g(one_inside, &in);
	pg_foreach_foreign(one_inside, &in);
	one_inside(&pg_main_g, &in);
	return !in && atomic_load(&pg_nullm.attn) & PG_ATTN_STOP;
}

static void start_world(void)
{
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
		atomic_fetch_and(&m->attn, ~(uint32_t)PG_ATTN_STOP);
	atomic_fetch_and(&pg_nullm.attn, ~(uint32_t)PG_ATTN_STOP);
	atomic_store(&pg_sched.stopped, 0);
	pg_sys(SYS_futex, &pg_sched.stopped, FUTEX_WAKE_PRIVATE, INT32_MAX);
}

static void nudge(struct pg_g *g, void *arg)
{
	uint32_t st = atomic_load(&g->state);

	(void)arg;
	if (g != pg_self_ && st != PG_G_dead && st != PG_G_idle && st != PG_G_ghost && atomic_load(&g->pending) & PG_PEND_SIGNAL)
		pg_interrupt(g);
}

/* Handlers that were put off run now. */
static void nudge_late(void)
{
	if (!atomic_exchange(&pg_handlers_put_off, false))
		return;
	nudge(&pg_main_g, NULL);
	pg_foreach_g(nudge, NULL);
}

static void prepare(void)
{
	struct pg_g *g = pg_self();
	int none = 0, own = (int)g->libc_handlers;
	int64_t until = 0;

	if (!atomic_load(&pg_started))
		return;
	atomic_fetch_add(&pg_fork_wanted, 1);
	atomic_fetch_sub(&pg_handlers_in_libc, own); /* two that fork in handlers do not wait for each other */
	/* One at a time, and nobody preempted in the middle of libc, or in a handler that interrupted it. */
	for (;;) {
		pg_rt_enter(g);
		if (atomic_load(&pg_preempted_in_libc) == 0 && atomic_compare_exchange_strong(&forking, &none, 1)) {
			atomic_store(&pg_sched.stopped, 1);
			/* pairs with pg_libc_handler_begin.  One that was left by setcontext, or waits for us, stays: not without end. */
			if (atomic_load(&pg_handlers_in_libc) <= 0 || (until && pg_now() > until))
				break;
			if (until == 0)
				until = pg_now() + LIBC_PATIENCE;
			start_world();
			atomic_store(&forking, 0);
			nudge_late();
		}
		none = 0;
		pg_yield();
		pg_rt_exit(g);
	}
	atomic_fetch_sub(&pg_fork_wanted, 1);
	atomic_fetch_add(&pg_handlers_in_libc, own);
	/* From here to parent or child we stay inside. */
	struct pg_m *mine = g->mode == PG_GREEN ? g->m : NULL;
	for (int tries = 0;; tries++) {
		struct pg_m *first = atomic_load(&pg_sched.allm);
		for (struct pg_m *m = first; m; m = m->alllink)
			if (m != mine)
				atomic_fetch_or(&m->attn, PG_ATTN_STOP);
		atomic_fetch_or(&pg_nullm.attn, PG_ATTN_STOP);
		pg_membarrier();
		/* An M that was made meanwhile does not know. */
		if (quiet(mine) && atomic_load(&pg_sched.allm) == first)
			break;
		/* Whoever is inside may have to wait for a CPU, which yielding among spinners does not give it. */
		if (tries < 8)
			pg_sys(SYS_sched_yield);
		else
			pg_sys(SYS_nanosleep, &brief, NULL);
	}
}

static void parent(void)
{
	if (!atomic_load(&forking))
		return;
	start_world();
	atomic_store(&forking, 0);
	nudge_late();
	pg_stay(pg_self());
	pg_rt_exit(pg_self());
}

static void make_ghost(struct pg_g *g, void *arg)
{
	if (g == arg)
		return;
	atomic_store(&g->state, PG_G_ghost);
	atomic_store(&g->wait, PG_W_IDLE);
	g->timer.idx = -1;
}

static void child(void)
{
	struct pg_g *g = pg_self();

	pg_fork_gen++;
	g->tid = (uint32_t)pg_sys(SYS_getpid);
	if (!atomic_load(&forking))
		return;
	atomic_store(&pg_started, false);
	g->mode = PG_NATIVE;
	g->m = &pg_nullm;
	g->oswired = 0;
	g->timer.idx = -1;
	atomic_store(&pg_nthreads, 1);
	pg_foreach_g(make_ghost, g);
	make_ghost(&pg_main_g, g);
	memset(&pg_sched, 0, sizeof pg_sched);
	atomic_store(&pg_nullm.attn, 0);
	pg_nprocs = 1;
	pg_sysmon_tid = 0;
	pg_sysmon_g = NULL;
	pg_sema_forked();
	pg_signal_forked();
	pg_netpoll_drop();
	pg_netpoll_forked();
	pg_stack_forked();
	atomic_store(&forking, 0);
	atomic_store(&pg_preempted_in_libc, 0);
	atomic_store(&pg_fork_wanted, 0);
	atomic_store(&pg_handlers_in_libc, (int)g->libc_handlers);
	pg_rt_exit(g);
}

static void child_of_libc(void)
{
	pg_tls_forked();
	child();
}

extern int pg_real_atfork(void (*)(void), void (*)(void), void (*)(void));

void pg_fork_register(void);
void pg_fork_register(void)
{
	static _Atomic int done;

	if (atomic_exchange(&done, 1) == 0)
		pg_real_atfork(prepare, parent, child_of_libc);
}

pid_t pg_fork(pid_t (*real)(void), bool handlers);
pid_t pg_fork(pid_t (*real)(void), bool handlers)
{
	pid_t r;

	pg_fork_register();
	if (handlers)
		return real();
	prepare();
	r = real();
	if (r == 0)
		child();
	else
		parent();
	return r;
}
