/* SPDX-License-Identifier: MIT */
/*
 * Signals as programs call for them: actions, masks, waiting.  The program's actions are in pg_sigacts; the kernel's handler is
 * always pg_sigtramp.
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

struct pg_ksigaction pg_sigacts[PG_NSIG + 1];
static struct pg_lock act_lock;

/* What the kernel is told for an action of the program's. */
static void kernel_action(int sig, const struct pg_ksigaction *mine, struct pg_ksigaction *k)
{
	*k = *mine;
	k->flags |= PG_SA_RESTORER;
	k->restorer = pg_arch_restorer;
	if (mine->handler != (void *)SIG_DFL && mine->handler != (void *)SIG_IGN) {
		k->handler = (void *)pg_sigtramp;
		k->flags |= SA_SIGINFO;
		if (k->flags & SA_ONSTACK)
			k->mask = ~0ull; /* it may be an M's: see fault.c */
	} else if (mine->handler == (void *)SIG_DFL && sig == SIGSEGV && atomic_load(&pg_started)) {
		pg_fault_action(k);
	}
}

int pg_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct pg_g *g = pg_self();
	struct pg_ksigaction k, prev;
	long r = 0;

	if (sig < 1 || sig > PG_NSIG || sig == 32 || sig == 33)
		return -EINVAL;
	if (act && (sig == SIGKILL || sig == SIGSTOP))
		return -EINVAL;
	pg_rt_enter(g);
	pg_lock(&act_lock);
	prev = pg_sigacts[sig];
	if (prev.handler == NULL) {
		/* Not set by us yet: ignored signals are inherited through exec. */
		struct pg_ksigaction cur = {0};
		if (pg_sys(SYS_rt_sigaction, sig, NULL, &cur, 8) == 0 && !pg_fault_is(&cur))
			prev = cur;
	}
	if (act) {
		uint64_t mask;
		memcpy(&mask, &act->sa_mask, sizeof mask);
		struct pg_ksigaction mine = {(void *)act->sa_handler, (unsigned long)(unsigned)act->sa_flags, NULL,
					  mask & ~PG_UNBLOCKABLE};
		kernel_action(sig, &mine, &k);
		if (k.handler == (void *)pg_sigtramp && k.flags & SA_ONSTACK && pg_sigbit(sig) & PG_FAULTS)
			atomic_store(&pg_onstack_faults, true);
		pg_sigacts[sig] = mine; /* before the kernel may call */
		r = pg_sys(SYS_rt_sigaction, sig, &k, NULL, 8);
		if (r < 0)
			pg_sigacts[sig] = prev;
	}
	pg_unlock(&act_lock);
	if (r == 0 && act && (act->sa_handler == SIG_IGN || (act->sa_handler == SIG_DFL && pg_sig_default_ignored(sig))))
		pg_sig_discard(g, sig);
	if (r == 0 && old) {
		memset(old, 0, sizeof *old);
		old->sa_handler = (void (*)(int))prev.handler;
		old->sa_flags = (int)(prev.flags & ~(unsigned long)PG_SA_RESTORER);
		memcpy(&old->sa_mask, &prev.mask, sizeof prev.mask);
	}
	pg_rt_exit(g);
	return (int)r;
}

int pg_sigprocmask(int how, const uint64_t *set, uint64_t *old)
{
	struct pg_g *g = pg_self();
	uint64_t was, m;

	if (set && how != SIG_BLOCK && how != SIG_UNBLOCK && how != SIG_SETMASK)
		return -EINVAL;
	pg_rt_enter(g);
	if (g->mode == PG_NATIVE)
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &g->sigmask, 8);
	was = g->sigmask;
	if (set) {
		m = how == SIG_BLOCK ? was | *set : how == SIG_UNBLOCK ? was & ~*set : *set;
		m &= ~PG_UNBLOCKABLE;
		if (m != was)
			pg_sig_setmask(g, m, true);
	}
	if (old)
		*old = was;
	pg_rt_exit(g);
	return 0;
}

int pg_sigsuspend(uint64_t set)
{
	struct pg_g *g = pg_self();
	uint64_t old = g->sigmask;
	uint32_t before = g->sig_ran;

	pg_rt_enter(g);
	pg_sig_setmask(g, set, true);
	pg_rt_exit(g);
	for (;;) {
		pg_rt_enter(g);
		/* No handler runs from here on: what comes is seen by pg_park. */
		if (g->sig_ran != before || (atomic_load(&g->cancelled) && g->cancel_state == 0)) {
			pg_rt_exit(g);
			break;
		}
		pg_wait_prepare(g);
		pg_park(g, PG_FOREVER, PG_WAIT_sigwait);
		pg_rt_exit(g);
	}
	pg_rt_enter(g);
	pg_sig_setmask(g, old, true);
	pg_rt_exit(g);
	return -EINTR;
}

int pg_sigwait(uint64_t set, siginfo_t *info, int64_t deadline)
{
	struct pg_g *g = pg_self();
	uint64_t kset, kickbit = pg_sigbit(PG_SIG_KICK);
	uint32_t before = g->sig_ran;
	siginfo_t own;
	long r;

	set &= ~PG_UNBLOCKABLE;
	kset = set | kickbit;
	if (info == NULL)
		info = &own;
	atomic_store(&g->sigwaiting, set);
	for (;;) {
		struct timespec ts, *tp = NULL;
		/* The P goes first: handing it off may take us through the runtime. */
		pg_entersyscallblock(g);
		pg_sys(SYS_rt_sigprocmask, SIG_BLOCK, &kickbit, NULL, 8);
		pg_rt_raise(g);
		r = pg_sig_take(g, set, info);
		pg_rt_lower(g);
		if (r == 0 && !(atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL)) &&
		    !(atomic_load(&g->cancelled) && g->cancel_state == 0)) {
			if (deadline != PG_FOREVER) {
				int64_t left = deadline - pg_now();
				if (left < 0)
					left = 0;
				ts = (struct timespec){left / 1000000000, left % 1000000000};
				tp = &ts;
			}
			r = pg_sys(SYS_rt_sigtimedwait, &kset, info, tp, 8);
		} else if (r == 0) {
			r = -EINTR;
		}
		if (r == PG_SIG_KICK) { /* taken here, not by the handler */
			struct pg_m *m = g->mode == PG_GREEN ? g->m : g->wiredm;
			if (m)
				atomic_store(&m->kicked, 0);
			pg_kick_do_cmd(g);
		}
		pg_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &kickbit, NULL, 8);
		pg_exitsyscall(g);
		if (atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL)) {
			pg_rt_enter(g);
			pg_rt_exit(g);
		}
		if (r == PG_SIG_KICK || r == -EINTR) {
			if (g->sig_ran == before && !(atomic_load(&g->cancelled) && g->cancel_state == 0))
				continue;
			r = -EINTR;
		}
		break;
	}
	atomic_store(&g->sigwaiting, 0);
	if (pg_unlikely(atomic_load(&pg_sig_procpend) & set)) {
		pg_rt_enter(g);
		pg_sig_retarget(set);
		pg_rt_exit(g);
	}
	return (int)r;
}

uint64_t pg_sigpending(void)
{
	struct pg_g *g = pg_self();
	uint64_t k = 0;

	pg_rt_enter(g);
	pg_sys(SYS_rt_sigpending, &k, 8);
	pg_signal_route(g);
	k |= pg_sig_thread(g) | atomic_load(&pg_sig_procpend);
	pg_rt_exit(g);
	return k & ~PG_UNBLOCKABLE;
}

static bool on_altstack(const struct pg_g *g)
{
	char *lo = g->altstack.ss_sp, *here = __builtin_frame_address(0);

	return lo && !(g->altstack.ss_flags & (int)SS_AUTODISARM) && here >= lo && here < lo + g->altstack.ss_size;
}

int pg_sigaltstack(const stack_t *ss, stack_t *old)
{
	struct pg_g *g = pg_self();
	stack_t was = g->altstack;
	long r = 0;

	pg_rt_enter(g);
	if (was.ss_sp == NULL)
		was = (stack_t){.ss_flags = SS_DISABLE};
	else if (on_altstack(g))
		was.ss_flags |= SS_ONSTACK;
	if (ss && was.ss_flags & SS_ONSTACK) {
		r = -EPERM;
	} else if (ss) {
		r = pg_sys(SYS_sigaltstack, ss, NULL);
		if (r == 0) {
			struct pg_m *m = g->mode == PG_GREEN ? g->m : g->wiredm;
			g->altstack = *ss;
			g->altstack.ss_flags &= (int)SS_AUTODISARM;
			if (ss->ss_flags & SS_DISABLE)
				g->altstack = (stack_t){.ss_flags = SS_DISABLE};
			if (m) {
				m->ss_sp = g->altstack.ss_sp;
				if (m->ss_sp == NULL)
					pg_own_stack_install(m);
			}
		}
	}
	if (r == 0 && old)
		*old = was;
	pg_rt_exit(g);
	return (int)r;
}

/* On the main thread, once: its mask as it was inherited. */
void pg_signal_init(void)
{
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &pg_main_g.sigmask, 8);
	pg_main_g.sigmask &= ~PG_UNBLOCKABLE;
	pg_main_g.sigclass = -1;
	pg_main_g.altstack.ss_flags = SS_DISABLE;
}

void pg_sigcalls_forked(void)
{
	act_lock = (struct pg_lock){0};
}
