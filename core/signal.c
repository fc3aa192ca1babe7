/* SPDX-License-Identifier: MIT */
/*
 * Signals of Gs.
 *
 * The kernel knows OS threads; the program knows Gs.  Every handler of the program is entered through pg_sigtramp, which finds out
 * whom the signal is for:
 *   - a fault of the running code: the current G, at once;
 *   - otherwise the main G, if it has the signal unblocked, as the kernel prefers the first thread;
 *   - else the current G, if it has the signal unblocked: at once if it is in user code (rt == 0), else it is queued on the G
 *     and delivered when it leaves the runtime;
 *   - on a g0, on sysmon, or if the current G blocks it: some G that has it unblocked, woken if parked; if there is none it
 *     waits in procq until a G unblocks it or waits for it.
 * Thread-directed signals are queued on the target (sigq: a lock-free stack that only the G empties) and never pass the kernel.
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

enum { NSIGQ = 4096 };

static struct pg_sigq pool[NSIGQ];
static _Atomic uint64_t pool_free; /* low half: index + 1 of the first free node, high half: a tag against ABA */
static _Atomic uint32_t pool_used; /* nodes ever handed out */

_Atomic uint64_t pg_sig_procpend;
static _Atomic(struct pg_sigq *) procq[PG_NSIG + 1]; /* their siginfo */

extern bool pg_cancel_from_handler(struct pg_g *g, ucontext_t *uc);

/* ---- nodes ---- */

struct pg_sigq *pg_sigq_get(void)
{
	uint64_t f = atomic_load(&pool_free);
	uint32_t n;

	while ((uint32_t)f) {
		struct pg_sigq *q = &pool[(uint32_t)f - 1];
		struct pg_sigq *next = q->next;
		uint64_t to = ((f >> 32) + 1) << 32 | (next ? (uint64_t)(next - pool) + 1 : 0);
		if (atomic_compare_exchange_weak(&pool_free, &f, to))
			return q;
	}
	n = atomic_fetch_add(&pool_used, 1);
	if (n < NSIGQ)
		return &pool[n];
	atomic_fetch_sub(&pool_used, 1);
	return NULL;
}

void pg_sigq_put(struct pg_sigq *q)
{
	uint64_t f = atomic_load(&pool_free);

	do
		q->next = (uint32_t)f ? &pool[(uint32_t)f - 1] : NULL;
	while (!atomic_compare_exchange_weak(&pool_free, &f, ((f >> 32) + 1) << 32 | ((uint64_t)(q - pool) + 1)));
}

/* ---- delivery ---- */

struct call { int sig; siginfo_t *info; ucontext_t *uc; void *handler; };

static void call_handler(void *arg)
{
	struct call *c = arg;

	((void (*)(int, siginfo_t *, void *))c->handler)(c->sig, c->info, c->uc);
}

static bool default_ignored(int sig)
{
	return sig == SIGCHLD || sig == SIGCONT || sig == SIGURG || sig == SIGWINCH;
}

/* Takes one pending signal of set off g or off the process; 0: none. */
int pg_sig_take(struct pg_g *g, uint64_t set, siginfo_t *info)
{
	/* Newly pushed ones come youngest first. */
	struct pg_sigq *q = atomic_exchange(&g->sigq, NULL), *rev = NULL, **pp;
	uint64_t pend;
	int sig;

	while (q) {
		struct pg_sigq *n = q->next;
		q->next = rev;
		rev = q;
		q = n;
	}
	for (pp = &g->sigpriv; *pp; pp = &(*pp)->next)
		;
	*pp = rev;
	/* A bit may have been cleared for an older one of the same number after this one had set it. */
	for (q = rev; q; q = q->next)
		atomic_fetch_or(&g->sigpend, pg_sigbit(q->info.si_signo));

	pend = atomic_load(&g->sigpend) & set;
	if (pend) {
		bool more = false, found = false;
		sig = __builtin_ctzll(pend) + 1;
		memset(info, 0, sizeof *info);
		info->si_signo = sig;
		info->si_code = SI_TKILL;
		info->si_pid = getpid();
		for (pp = &g->sigpriv; (q = *pp) != NULL;) {
			if (q->info.si_signo != sig) {
				pp = &q->next;
			} else if (!found) {
				*info = q->info;
				*pp = q->next;
				pg_sigq_put(q);
				found = true;
			} else {
				more = true;
				break;
			}
		}
		if (!more)
			atomic_fetch_and(&g->sigpend, ~pg_sigbit(sig));
		return sig;
	}
	while ((pend = atomic_load(&pg_sig_procpend) & set) != 0) {
		sig = __builtin_ctzll(pend) + 1;
		if (!(atomic_fetch_and(&pg_sig_procpend, ~pg_sigbit(sig)) & pg_sigbit(sig)))
			continue;
		q = atomic_exchange(&procq[sig], NULL);
		memset(info, 0, sizeof *info);
		info->si_signo = sig;
		if (q) {
			*info = q->info;
			pg_sigq_put(q);
		}
		return sig;
	}
	return 0;
}

/* Runs the handler for sig on g, which is in user code.  uc: the frame that was interrupted, or NULL. */
static bool run(struct pg_g *g, int sig, siginfo_t *info, ucontext_t *uc)
{
	struct pg_ksigaction a = pg_sigacts[sig];
	uint64_t old = g->sigmask;
	ucontext_t own;

	if (a.handler == (void *)SIG_IGN || (a.handler == (void *)SIG_DFL && default_ignored(sig)))
		return false;
	if (a.handler == (void *)SIG_DFL) {
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
	pg_rt_raise(g);
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
		pg_rt_lower(g);
		if (sig == 0) {
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

int pg_gkill(struct pg_g *g, int sig, const siginfo_t *info)
{
	struct pg_g *self = pg_self();
	struct pg_sigq *q;
	uint64_t bit = pg_sigbit(sig);

	if (sig < 32 && atomic_load(&g->sigpend) & bit)
		return 0;
	pg_rt_enter(self);
	q = pg_sigq_get();
	if (q == NULL && sig >= 32) {
		pg_rt_exit(self);
		return -EAGAIN;
	}
	if (q) {
		if (info) {
			q->info = *info;
		} else {
			memset(&q->info, 0, sizeof q->info);
			q->info.si_code = SI_TKILL;
			q->info.si_pid = getpid();
			q->info.si_uid = getuid();
		}
		q->info.si_signo = sig;
		q->next = atomic_load(&g->sigq);
		while (!atomic_compare_exchange_weak(&g->sigq, &q->next, q))
			;
	}
	atomic_fetch_or(&g->sigpend, bit);
	if (!(g->sigmask & bit)) {
		atomic_fetch_or(&g->pending, PG_PEND_SIGNAL);
		pg_interrupt(g);
	} else if (atomic_load(&g->sigwaiting) & bit) {
		pg_interrupt(g);
	}
	pg_rt_exit(self); /* delivers at once when g is the caller */
	return 0;
}

struct pick { uint64_t bit; struct pg_g *g, *waiter; };

static void pick_one(struct pg_g *g, void *arg)
{
	struct pick *k = arg;
	uint32_t st = atomic_load(&g->state);

	if (st == PG_G_dead || st == PG_G_idle || st == PG_G_ghost || g->sigclass < 0)
		return;
	if (atomic_load(&g->sigwaiting) & k->bit)
		k->waiter = g;
	if (k->g == NULL && !(g->sigmask & k->bit))
		k->g = g;
}

/* A signal for the process: to some G that takes it.  Any context. */
static void route(int sig, siginfo_t *info)
{
	struct pick k = {pg_sigbit(sig), NULL, NULL};
	struct pg_sigq *q, *none = NULL;

	pick_one(&pg_main_g, &k);
	if (k.g == NULL)
		pg_foreach_g(pick_one, &k);
	if (k.waiter)
		k.g = k.waiter;
	if (k.g) {
		pg_gkill(k.g, sig, info);
		return;
	}
	q = pg_sigq_get();
	if (q) {
		q->info = *info;
		if (!atomic_compare_exchange_strong(&procq[sig], &none, q))
			pg_sigq_put(q);
	}
	atomic_fetch_or(&pg_sig_procpend, pg_sigbit(sig));
}

/*
 * Signals that interrupted the runtime itself (a g0, sysmon, a G with rt > 0 that blocks them): the handler only puts them here;
 * they are routed by the next context that is at a point where it may queue Gs.  inbox: a lock-free stack, emptied whole.
 */
static _Atomic(struct pg_sigq *) inbox;
static _Atomic uint64_t inbox_bits; /* those for which there was no node */
_Atomic bool pg_signal_inbox;       /* there may be something */

static void put_inbox(struct pg_g *g, int sig, siginfo_t *info)
{
	struct pg_sigq *q = pg_sigq_get();

	if (q) {
		q->info = *info;
		q->next = atomic_load(&inbox);
		while (!atomic_compare_exchange_weak(&inbox, &q->next, q))
			;
	} else {
		atomic_fetch_or(&inbox_bits, pg_sigbit(sig));
	}
	atomic_store(&pg_signal_inbox, true);
	atomic_fetch_or(&g->pending, PG_PEND_SIGNAL); /* so that rt_exit looks */
	/* g may be asleep in the runtime, in a futex that SA_RESTART takes up again, or on its way there. */
	if (g != pg_sysmon_g)
		pg_sysmon_poke();
}

void pg_signal_route_slow(struct pg_g *g)
{
	struct pg_sigq *q, *n;
	uint64_t bits;

	pg_rt_raise(g);
	pg_rt_settle(g);
	while (atomic_exchange(&pg_signal_inbox, false)) {
		for (q = atomic_exchange(&inbox, NULL); q; q = n) {
			siginfo_t info = q->info;
			n = q->next;
			pg_sigq_put(q);
			route(info.si_signo, &info);
		}
		for (bits = atomic_exchange(&inbox_bits, 0); bits; bits &= bits - 1) {
			siginfo_t info = {.si_signo = __builtin_ctzll(bits) + 1, .si_code = SI_KERNEL};
			route(info.si_signo, &info);
		}
	}
	pg_rt_lower(g);
}

static bool main_takes(int sig)
{
	return pg_main_g.sigclass >= 0 && !(pg_main_g.sigmask & pg_sigbit(sig)) && atomic_load(&pg_main_g.state) != PG_G_dead &&
	       atomic_load(&pg_main_g.state) != PG_G_ghost && !pg_main_g.exiting;
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
	begun = pg_libc_handler_begin(g, pg_uc_pc(uc));
	if (begun >= 0)
		pg_sig_deliver(g, uc);
	pg_libc_handler_end(g, begun);
}

void pg_sigtramp(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	struct pg_g *g = pg_self();
	bool fault = info->si_code > 0 && (sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGTRAP ||
					   sig == SIGSYS);

	if (!fault) {
		bool sched = g == pg_sysmon_g || (g->m != &pg_nullm && g == &g->m->g0);
		uint32_t rt = atomic_load_explicit(&g->rt, memory_order_relaxed);
		bool takes = !(g->sigmask & pg_sigbit(sig)) && !(pg_uc_mask(uc) & pg_sigbit(sig));
		/* The kernel prefers the first thread for a signal to the process; programs count on its calls being interrupted. */
		bool tomain = g != &pg_main_g && info->si_code != SI_TKILL && sig != SIGPROF && sig != SIGVTALRM && main_takes(sig);
		if (sched || tomain || (rt > 0 && !takes)) {
			if (rt > 0) {
				put_inbox(g, sig, info);
			} else {
				pg_rt_raise(g);
				pg_rt_settle(g);
				route(sig, info);
				pg_rt_lower(g);
				if (!sched)
					look_again(g, uc);
			}
			return;
		}
		if (rt > 0) {
			pg_gkill(g, sig, info); /* to itself: touches only its own queue */
			return;
		}
	}

	/* In user code: here and now.  The kernel has put the handler's mask in force on this thread. */
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
	pg_sig_setmask(g, old | a.mask | (a.flags & SA_NODEFER ? 0 : pg_sigbit(sig)), false);
	pg_rt_lower(g);
	if (a.flags & SA_RESETHAND)
		pg_sigacts[sig].handler = (void *)SIG_DFL;
	g->sig_ran++;
	if (!(a.flags & SA_RESTART))
		g->sig_norestart++;
	((void (*)(int, siginfo_t *, void *))a.handler)(sig, info, ctx);
	/* The kernel's mask now, not by the return: we may be moved to another thread in between. */
	pg_rt_raise(g);
	pg_sig_setmask(g, pg_uc_mask(uc), true);
	pg_rt_lower(g);
	if (atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL) &&
	    atomic_load_explicit(&g->rt, memory_order_relaxed) == 0)
		pg_sig_deliver(g, uc);
	pg_libc_handler_end(g, begun);
}

/* In a fork's child: no pending signals, one thread. */
void pg_signal_forked(void);
void pg_signal_forked(void)
{
	struct pg_g *g = pg_self_;

	atomic_store(&pg_sig_procpend, 0);
	atomic_store(&inbox, NULL);
	atomic_store(&inbox_bits, 0);
	for (int i = 0; i <= PG_NSIG; i++)
		atomic_store(&procq[i], NULL);
	g->sigclass = -1;
	atomic_store(&g->sigpend, 0);
	/* What came for the parent while it was forking is the parent's. */
	atomic_store(&g->sigq, NULL);
	g->sigpriv = NULL;
	atomic_store(&pg_signal_inbox, false);
	atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_SIGNAL);
	g->wiredm = NULL;
	pg_sigmask_forked();
	pg_sigcalls_forked();
	pg_kick_forked();
}
