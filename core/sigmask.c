/* SPDX-License-Identifier: MIT */
/*
 * Signal masks of Gs, and which signals anybody takes.
 *
 * Live Gs are counted by mask (classes): only a few different masks exist in a program; should there be more, by signal.  The union of what they have unblocked
 * (accepted) is what sysmon has unblocked.  When it shrinks, the call that shrank it waits until sysmon and the idle Ms have
 * followed: afterwards the kernel keeps such a signal pending.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/sigstate.h"
#include "core/syscall.h"

enum { NCLASS = 128, SINGLE = NCLASS }; /* SINGLE: the class of a G for whose mask there was no room */

static struct { uint64_t mask; int n; } class[NCLASS]; /* class_lock */
static int nclass;
static int single[PG_NSIG]; /* of the Gs in SINGLE: how many have the signal unblocked; class_lock */
static struct pg_lock class_lock;
_Atomic uint64_t pg_sig_accepted;
_Atomic uint32_t pg_sig_accept_gen, pg_sig_accept_applied;

/* The M that g's OS thread is; NULL: none. */
static struct pg_m *my_m(struct pg_g *g)
{
	return g == NULL ? NULL : g->m == &pg_nullm ? g->wiredm : g->m;
}

/* Does m's thread take what no G takes? */
static bool open_beyond(struct pg_m *m, uint64_t accepted)
{
	return (~*(volatile uint64_t *)&m->sigmask & ~accepted & ~PG_UNBLOCKABLE) != 0;
}

static void recompute_accept(void)
{
	uint64_t a = 0;

	for (int i = 0; i < nclass; i++)
		if (class[i].n > 0)
			a |= ~class[i].mask;
	for (int i = 0; i < PG_NSIG; i++)
		if (single[i] > 0)
			a |= 1ull << i;
	a &= ~PG_UNBLOCKABLE;
	if (a == atomic_load(&pg_sig_accepted))
		return;
	bool shrunk = atomic_load(&pg_sig_accepted) & ~a;
	atomic_store(&pg_sig_accepted, a);
	if (!pg_sysmon_tid)
		return;
	uint32_t gen = atomic_fetch_add(&pg_sig_accept_gen, 1) + 1;
	int pid = getpid();
	pg_sys(SYS_tgkill, pid, pg_sysmon_tid, PG_SIG_KICK);
	if (!shrunk)
		return;
	/* Nobody may take it any more when the call that blocked it returns.  An M that runs a G has that one's mask, or will in a
	 * moment; one that is idle has kept that of its last. */
	struct pg_m *mine = my_m(pg_self_);
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
		if (m != mine && m->tid && open_beyond(m, a) && *(struct pg_g *volatile *)&m->cur == &m->g0)
			pg_kick(m);
	while ((int32_t)(atomic_load(&pg_sig_accept_applied) - gen) < 0)
		pg_sys(SYS_sched_yield);
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
		while (m != mine && *(volatile int *)&m->tid && open_beyond(m, a)) {
			pg_sys(SYS_sched_yield);
			if (*(struct pg_g *volatile *)&m->cur == &m->g0)
				pg_kick(m);
		}
}

static void count_single(uint64_t mask, int by)
{
	for (int i = 0; i < PG_NSIG; i++)
		if (!(mask >> i & 1))
			single[i] += by;
	recompute_accept();
}

/* mask: with which it was entered. */
static void class_leave(int i, uint64_t mask)
{
	if (i == SINGLE)
		count_single(mask, -1);
	else if (i >= 0 && --class[i].n == 0)
		recompute_accept();
}

static int class_enter(uint64_t mask)
{
	int hole = -1;

	for (int i = 0; i < nclass; i++) {
		if (class[i].mask == mask && class[i].n > 0) {
			class[i].n++;
			return i;
		}
		if (class[i].n == 0)
			hole = i;
	}
	if (hole < 0) {
		if (nclass == NCLASS) {
			count_single(mask, 1);
			return SINGLE;
		}
		hole = nclass++;
	}
	class[hole].mask = mask;
	class[hole].n = 1;
	recompute_accept();
	return hole;
}

/* g's mask in the books, the kernel's if it runs here.  rt > 0. */
void pg_sig_setmask(struct pg_g *g, uint64_t mask, bool kernel)
{
	uint64_t blocked;

	mask &= ~PG_UNBLOCKABLE;
	blocked = mask & ~g->sigmask;
	if (g->sigmask != mask && atomic_load_explicit(&pg_started, memory_order_relaxed)) {
		pg_lock(&class_lock);
		int old = g->sigclass;
		g->sigclass = class_enter(mask);
		class_leave(old, g->sigmask);
		pg_unlock(&class_lock);
	}
	g->sigmask = mask;
	if (kernel)
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	if (my_m(g))
		my_m(g)->sigmask = mask;
	atomic_thread_fence(memory_order_seq_cst); /* pairs with add in sigqueue.c: it sets procpend, then looks at masks */
	if (pg_unlikely(atomic_load(&pg_sig_procpend) & blocked))
		pg_sig_retarget(blocked);
	/* What waited for this? */
	if (atomic_load(&g->sigpend) & ~mask || atomic_load(&pg_sig_procpend) & ~mask)
		atomic_fetch_or(&g->pending, PG_PEND_SIGNAL);
}

void pg_m_syncsignals(struct pg_m *m, struct pg_g *g)
{
	if (m->sigmask != g->sigmask) {
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &g->sigmask, NULL, 8);
		m->sigmask = g->sigmask; /* in force before others may believe it */
	}
	if (m->ss_sp != g->altstack.ss_sp) {
		if (g->altstack.ss_sp)
			pg_sys(SYS_sigaltstack, &g->altstack, NULL);
		else
			pg_own_stack_install(m);
		m->ss_sp = g->altstack.ss_sp;
	}
}

/* A thread begins or ends to live with its mask.  rt > 0. */
void pg_signal_gstart(struct pg_g *g)
{
	pg_lock(&class_lock);
	g->sigclass = class_enter(g->sigmask);
	pg_unlock(&class_lock);
	if (atomic_load(&pg_sig_procpend) & ~g->sigmask)
		atomic_fetch_or(&g->pending, PG_PEND_SIGNAL);
}

void pg_signal_gend(struct pg_g *g)
{
	pg_lock(&class_lock);
	class_leave(g->sigclass, g->sigmask);
	g->sigclass = -1;
	pg_unlock(&class_lock);
	/* Its M would keep the mask of a thread that is no more. */
	struct pg_m *m = my_m(g);
	if (m && open_beyond(m, atomic_load(&pg_sig_accepted))) {
		uint64_t all = ~PG_UNBLOCKABLE;
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
		m->sigmask = all;
	}
	pg_sig_drop(g);
	pg_sig_retarget(~g->sigmask);
}

void pg_sigmask_forked(void)
{
	memset(class, 0, sizeof class);
	memset(single, 0, sizeof single);
	nclass = 0;
	class_lock = (struct pg_lock){0};
	atomic_store(&pg_sig_accepted, 0);
}
