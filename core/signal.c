/* SPDX-License-Identifier: MIT */
/*
 * Signals of Gs.
 *
 * The kernel knows OS threads; the program knows Gs.  Every handler of the program is entered through pg_sigtramp, which finds out
 * whom the signal is for:
 *   - a fault of the running code: the current G, at once;
 *   - otherwise the main G, if it has the signal unblocked, as the kernel prefers the first thread;
 *   - else the current G, if it is in user code (rt == 0) and nothing of that number is queued: at once;
 *   - else it is queued for the process, and some G that takes it is told: sigqueue.c.
 * Thread-directed signals are queued on their G and never pass the kernel.
 *
 * An M has the kernel mask of the G it runs.  sysmon has all signals blocked that no G would take, so that a signal is
 * accepted by somebody even when every G is parked, and stays pending in the kernel (for sigwait, signalfd) when
 * nobody wants it.  For that, live Gs are counted by mask (classes): only a few different masks exist in a program.
 *
 * Signal 32 (the kick) makes an M look at its G: deliver, cancel, yield; at an OS thread's duty in pg_allthreads_syscall; at its own mask.
 * It is blocked only while it is handled and by pg_sigwait, which waits for it too.
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

_Atomic int pg_sig_transit;

extern bool pg_cancel_from_handler(struct pg_g *g, ucontext_t *uc);

/* ---- delivery ---- */

struct call { int sig; siginfo_t *info; ucontext_t *uc; void *handler; };

static void call_handler(void *arg)
{
	struct call *c = arg;

	((void (*)(int, siginfo_t *, void *))c->handler)(c->sig, c->info, c->uc);
}

/*
 * Runs the handler for sig, which has been taken, on g.  uc: the frame that was interrupted, or NULL.  Called with rt raised and
 * lowers it, once sig is blocked: a kick before would deliver the next one queued, whose handler would come first.
 */
static bool run(struct pg_g *g, int sig, siginfo_t *info, ucontext_t *uc)
{
	struct pg_ksigaction a = pg_sigacts[sig];
	uint64_t old = g->sigmask;
	ucontext_t own;

	if (a.handler == (void *)SIG_IGN || (a.handler == (void *)SIG_DFL && pg_sig_default_ignored(sig))) {
		pg_rt_lower(g);
		return false;
	}
	if (a.handler == (void *)SIG_DFL) {
		pg_rt_lower(g);
		/* The kernel does what the default is, to the whole process. */
		uint64_t bit = pg_sigbit(sig);
		pg_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &bit, NULL, 8);
		pg_sys(SYS_tgkill, getpid(), pg_sys(SYS_gettid), sig);
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &g->sigmask, NULL, 8);
		return false;
	}
	if (a.flags & SA_RESETHAND) {
		struct sigaction dfl = {.sa_handler = SIG_DFL};
		pg_sigaction(sig, &dfl, NULL);
	}
	if (uc == NULL) {
		uc = &own;
		memset(uc, 0, sizeof *uc);
		uc->uc_mcontext.gregs[REG_RIP] = (long long)(uintptr_t)__builtin_return_address(0);
		uc->uc_mcontext.gregs[REG_RSP] = (long long)(uintptr_t)__builtin_frame_address(0);
		uc->uc_mcontext.gregs[REG_RBP] = (long long)(uintptr_t)__builtin_frame_address(0);
		pg_set_uc_mask(uc, old);
	}
	pg_sig_setmask(g, old | a.mask | (a.flags & SA_NODEFER ? 0 : pg_sigbit(sig)), true);
	pg_rt_lower(g);
	g->sig_ran++;
	if (!(a.flags & SA_RESTART))
		g->sig_norestart++;

	struct call c = {sig, info, uc, a.handler};
	char *lo = g->altstack.ss_sp, *sp = __builtin_frame_address(0);
	if (a.flags & SA_ONSTACK && lo && !(g->altstack.ss_flags & SS_DISABLE) && !(sp >= lo && sp < lo + g->altstack.ss_size))
		pg_arch_call_on(lo + g->altstack.ss_size, call_handler, &c);
	else
		call_handler(&c);

	pg_rt_raise(g);
	pg_sig_setmask(g, uc == &own ? old : pg_uc_mask(uc), true);
	pg_rt_lower(g);
	return true;
}

void pg_sig_deliver(struct pg_g *g, ucontext_t *uc)
{
	siginfo_t info;
	int sig;

	for (;;) {
		atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_SIGNAL);
		pg_signal_route(g);
		pg_rt_raise(g);
		sig = pg_sig_take(g, ~g->sigmask, &info);
		if (sig == 0) {
			pg_rt_lower(g);
			/* One that came while rt was raised found us inside the runtime, and left it to us. */
			if (atomic_load(&g->pending) & PG_PEND_SIGNAL)
				continue;
			break;
		}
		uint32_t norestart = g->sig_norestart;
		run(g, sig, &info, uc);
		/* Natively the signal would have interrupted the call itself. */
		if (uc && g->sig_norestart != norestart && g->insys & 1 && pg_uc_at_syscall(uc))
			pg_uc_fail_syscall(uc, EINTR);
	}
	if (atomic_load(&g->pending) & PG_PEND_CANCEL) {
		atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_CANCEL);
		pg_cancel_from_handler(g, uc);
	}
}

void pg_deliver(struct pg_g *g)
{
	int e = errno;

	pg_sig_deliver(g, NULL);
	errno = e;
}

void pg_interrupt(struct pg_g *g)
{
	struct pg_m *m;

	atomic_thread_fence(memory_order_seq_cst);
	if (pg_wake(g, PG_WHY_SIGNAL) || g == pg_self_)
		return;
	/* pairs with pg_rt_exit: a G that is just leaving the runtime sees pending, or we see which M it is on */
	pg_membarrier();
	if (g->mode == PG_NATIVE && g->wiredm == NULL) {
		pg_sys(SYS_tgkill, getpid(), g->tid, PG_SIG_KICK);
		return;
	}
	m = g->mode == PG_NATIVE ? g->wiredm : *(struct pg_m *volatile *)&g->m;
	if (m && m != &pg_nullm && (g->mode == PG_NATIVE || *(struct pg_g *volatile *)&m->cur == g))
		pg_kick(m);
}

static bool main_takes(int sig)
{
	return pg_main_g.sigclass >= 0 && !(pg_main_g.sigmask & pg_sigbit(sig)) && atomic_load(&pg_main_g.state) != PG_G_dead &&
	       atomic_load(&pg_main_g.state) != PG_G_ghost && !pg_main_g.exiting;
}

bool pg_kill_main(struct pg_g *g, int sig, const siginfo_t *info)
{
	bool takes;

	pg_rt_enter(g);
	takes = main_takes(sig);
	if (takes)
		pg_sig_route(sig, info, NULL);
	pg_rt_exit(g);
	return takes;
}

static void own_stack_again(struct pg_g *g, ucontext_t *uc)
{
	pg_rt_raise(g);
	pg_own_stack_fix(g, uc);
	pg_rt_lower(g);
}

/* On an M's stack: the kick that is sent here delivers, as soon as this handler returns. */
static void own_stack_leave(struct pg_g *g, int sig, siginfo_t *info)
{
	struct pg_m *m;

	pg_rt_raise(g);
	if (sig)
		pg_gkill(g, sig, info);
	m = g->m == &pg_nullm ? g->wiredm : g->m;
	if (m)
		pg_kick(m);
	pg_rt_lower(g);
}

/* A signal for the process that is not for here and now.  rt: g's. */
static void pass_on(struct pg_g *g, int sig, siginfo_t *info, struct pg_g *here, uint32_t rt)
{
	pg_rt_raise(g);
	atomic_fetch_add(&pg_sig_transit, 1);
	if (rt > 0) {
		pg_sig_inbox(g, sig, info, here);
	} else {
		pg_rt_settle(g);
		pg_signal_route(g);
		pg_sig_route(sig, info, here);
	}
	atomic_fetch_sub(&pg_sig_transit, 1);
	pg_rt_lower(g);
}

/* A thread is about to end: what has been sent and would have reached it natively does so. */
void pg_signal_last(struct pg_g *g)
{
	while (pg_unlikely(atomic_load(&pg_sig_transit) > 0))
		pg_sys(SYS_sched_yield);
	if (pg_likely(!atomic_load(&pg_signal_inbox) && !(atomic_load(&pg_sig_procpend) & ~g->sigmask)))
		return;
	atomic_fetch_or(&g->pending, PG_PEND_SIGNAL);
	pg_rt_enter(g);
	pg_rt_exit(g);
}

/*
 * At the end of a handler that had raised rt: what came meanwhile found us inside the runtime, and left it to us.  The same after
 * one was put off: the fork may have ended before it was queued.
 */
static void look_again(struct pg_g *g, ucontext_t *uc)
{
	int begun;

	if (!(atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL)) ||
	    atomic_load_explicit(&g->rt, memory_order_relaxed) > 0)
		return;
	if (pg_on_own_stack(g, uc)) {
		own_stack_leave(g, 0, NULL);
		return;
	}
	begun = pg_libc_handler_begin(g, pg_uc_pc(uc));
	pg_own_stack_hide(g, uc);
	if (begun >= 0)
		pg_sig_deliver(g, uc);
	pg_libc_handler_end(g, begun);
	own_stack_again(g, uc);
}

void pg_sigtramp(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	struct pg_g *g = pg_self();
	bool fault = info->si_code > 0 && pg_sigbit(sig) & PG_FAULTS;

	if (!fault) {
		bool sched = g == pg_sysmon_g || (g->m != &pg_nullm && g == &g->m->g0);
		uint32_t rt = atomic_load_explicit(&g->rt, memory_order_relaxed);
		/* What the kernel sends to the caller of write looks like kill. */
		bool thread = !sched && (info->si_code == SI_TKILL || ((sig == SIGPIPE || sig == SIGXFSZ) &&
								       info->si_code == SI_USER && info->si_pid == getpid()));
		/*
		 * Nobody else could take it, and without sysmon nobody would tell us, asleep in the runtime, of what is in the inbox.
		 * Sysmon, which starts a little before, passes on what hits it at any time.
		 */
		thread |= !sched && !atomic_load_explicit(&pg_started, memory_order_relaxed);
		bool mine = !sched && !(g->sigmask & pg_sigbit(sig)) && !(pg_uc_mask(uc) & pg_sigbit(sig));
		/* The kernel prefers the first thread for a signal to the process; programs count on its calls being interrupted. */
		bool tomain = g != &pg_main_g && sig != SIGPROF && sig != SIGVTALRM && main_takes(sig);
		/* Those come first. */
		bool older = atomic_load(&pg_sig_procpend) & pg_sigbit(sig) || atomic_load(&pg_signal_inbox);
		if (thread && rt > 0) {
			pg_gkill(g, sig, info); /* to itself: touches only its own queue */
			return;
		}
		/* g blocks it: the kernel's mask is behind for a moment. */
		bool blocked = (g->sigmask & pg_sigbit(sig)) && atomic_load_explicit(&pg_started, memory_order_relaxed);
		if (!thread && (sched || tomain || older || blocked || rt > 0)) {
			struct pg_tramp t = {g->tramps, uc};
			if (sched)
				g->tramps = &t;
			pg_barrier();
			pass_on(g, sig, info, mine ? g : NULL, rt);
			pg_barrier();
			if (sched)
				g->tramps = t.prev;
			else
				look_again(g, uc);
			return;
		}
	}

	/* In user code: here and now.  The kernel has put the handler's mask in force on this thread; with SA_ONSTACK a full one. */
	struct pg_ksigaction a = pg_sigacts[sig];
	uint64_t old = pg_uc_mask(uc);
	if (a.handler == (void *)SIG_DFL || a.handler == (void *)SIG_IGN) {
		if (fault) {
			uint64_t bit = pg_sigbit(sig);
			struct pg_ksigaction d = {0};
			pg_sys(SYS_rt_sigaction, sig, &d, NULL, 8);
			pg_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &bit, NULL, 8);
		}
		return; /* changed while it was on its way */
	}
	if (pg_unlikely(pg_on_own_stack(g, uc)) && atomic_load_explicit(&g->rt, memory_order_relaxed) == 0) {
		if (!fault || !pg_fault_overflow(g, sig, info, uc))
			own_stack_leave(g, sig, info);
		return;
	}
	int begun = pg_libc_handler_begin(g, pg_uc_pc(uc));
	if (begun < 0 && !fault) {
		/* At the next rt_exit, or by the kick when the fork is over. */
		pg_rt_raise(g);
		pg_gkill(g, sig, info);
		pg_rt_lower(g);
		look_again(g, uc);
		return;
	}
	pg_rt_raise(g);
	pg_sig_setmask(g, old | a.mask | (a.flags & SA_NODEFER ? 0 : pg_sigbit(sig)), (a.flags & SA_ONSTACK) != 0);
	pg_rt_lower(g);
	if (a.flags & SA_RESETHAND)
		pg_sigacts[sig].handler = (void *)SIG_DFL;
	g->sig_ran++;
	if (!(a.flags & SA_RESTART))
		g->sig_norestart++;
	pg_own_stack_hide(g, uc);
	((void (*)(int, siginfo_t *, void *))a.handler)(sig, info, ctx);
	/* The kernel's mask now, not by the return: we may be moved to another thread in between. */
	pg_rt_raise(g);
	pg_sig_setmask(g, pg_uc_mask(uc), true);
	pg_rt_lower(g);
	if (atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL) &&
	    atomic_load_explicit(&g->rt, memory_order_relaxed) == 0)
		pg_sig_deliver(g, uc);
	pg_libc_handler_end(g, begun);
	own_stack_again(g, uc);
}

/* In a fork's child: no pending signals, one thread. */
void pg_signal_forked(void);
void pg_signal_forked(void)
{
	struct pg_g *g = pg_self_;

	g->sigclass = -1;
	g->wiredm = NULL;
	atomic_store(&pg_sig_transit, 0);
	pg_sigqueue_forked();
	pg_sigtimers_forked();
	pg_sigmask_forked();
	pg_sigcalls_forked();
	pg_kick_forked();
}
