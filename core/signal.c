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
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/signal.h"
#include "core/syscall.h"
#include "core/thread.h"

enum { NSIG64 = 64, NSIGQ = 4096, NCLASS = 128 };
#define UNBLOCKABLE (pg_sigbit(SIGKILL) | pg_sigbit(SIGSTOP) | pg_sigbit(32) | pg_sigbit(33))

struct ksigaction {
	void *handler;
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};
static struct ksigaction acts[NSIG64 + 1]; /* the program's; written under act_lock */
static struct pg_lock act_lock;

struct pg_sigq {
	struct pg_sigq *next;
	uint32_t idx;
	siginfo_t info;
};
static struct pg_sigq pool[NSIGQ];
static _Atomic uint64_t pool_free; /* low half: index + 1 of the first free node, high half: a tag against ABA */
static _Atomic uint32_t pool_used; /* nodes ever handed out */

/* Signals for the process that no G takes now. */
static _Atomic uint64_t procpend;
static _Atomic(struct pg_sigq *) procq[NSIG64 + 1];

static struct { uint64_t mask; int n; } class[NCLASS]; /* class_lock */
static int nclass;
static struct pg_lock class_lock;
static _Atomic uint64_t accepted;           /* what some live G has unblocked */
static _Atomic uint32_t accept_gen, accept_applied;
extern int pg_sysmon_tid;
static struct pg_g *sysmon;

static struct { long nr, a, b, c; _Atomic uint32_t seq, left; } cmd;

extern bool pg_cancel_from_handler(struct pg_g *g, ucontext_t *uc);
_Atomic int pg_preempted_in_libc; /* Gs that were preempted inside libc and have not gone on; fork waits for them */

static uint64_t uc_mask(const ucontext_t *uc)
{
	uint64_t m;

	memcpy(&m, &uc->uc_sigmask, sizeof m);
	return m;
}

static void set_uc_mask(ucontext_t *uc, uint64_t m)
{
	memcpy(&uc->uc_sigmask, &m, sizeof m);
}

/* ---- nodes ---- */

static struct pg_sigq *sigq_get(void)
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

static void sigq_put(struct pg_sigq *q)
{
	uint64_t f = atomic_load(&pool_free);

	do
		q->next = (uint32_t)f ? &pool[(uint32_t)f - 1] : NULL;
	while (!atomic_compare_exchange_weak(&pool_free, &f, ((f >> 32) + 1) << 32 | ((uint64_t)(q - pool) + 1)));
}

/* ---- masks ---- */

void pg_kick(struct pg_m *m)
{
	if (m->tid && atomic_exchange(&m->kicked, 1) == 0 && pg_sys(SYS_tgkill, getpid(), m->tid, PG_SIG_KICK) < 0)
		atomic_store(&m->kicked, 0);
}

static void recompute_accept(void)
{
	uint64_t a = 0;

	for (int i = 0; i < nclass; i++)
		if (class[i].n > 0)
			a |= ~class[i].mask;
	a &= ~UNBLOCKABLE;
	if (a == atomic_load(&accepted))
		return;
	bool shrunk = atomic_load(&accepted) & ~a;
	atomic_store(&accepted, a);
	if (!pg_sysmon_tid)
		return;
	uint32_t gen = atomic_fetch_add(&accept_gen, 1) + 1;
	int pid = getpid();
	pg_sys(SYS_tgkill, pid, pg_sysmon_tid, PG_SIG_KICK);
	if (!shrunk)
		return;
	/* Nobody may take it any more when the call that blocked it returns. */
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
		if (m->tid && m->cur == &m->g0)
			pg_kick(m);
	while ((int32_t)(atomic_load(&accept_applied) - gen) < 0)
		pg_sys(SYS_sched_yield);
}

static void class_leave(int i)
{
	if (i >= 0 && --class[i].n == 0)
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
		if (nclass == NCLASS)
			return -1; /* not counted: sysmon does not take signals for it alone */
		hole = nclass++;
	}
	class[hole].mask = mask;
	class[hole].n = 1;
	recompute_accept();
	return hole;
}

/* g's mask in the books, the kernel's if it runs here.  rt > 0. */
static void set_mask(struct pg_g *g, uint64_t mask, bool kernel)
{
	mask &= ~UNBLOCKABLE;
	if (g->sigmask != mask && atomic_load_explicit(&pg_started, memory_order_relaxed)) {
		pg_lock(&class_lock);
		int old = g->sigclass;
		g->sigclass = class_enter(mask);
		class_leave(old);
		pg_unlock(&class_lock);
	}
	g->sigmask = mask;
	if (g->mode == PG_GREEN)
		g->m->sigmask = mask;
	if (kernel)
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	/* What waited for this? */
	if (atomic_load(&g->sigpend) & ~mask || atomic_load(&procpend) & ~mask)
		atomic_fetch_or(&g->pending, PG_PEND_SIGNAL);
}

static inline void rt_raise(struct pg_g *g)
{
	atomic_store_explicit(&g->rt, atomic_load_explicit(&g->rt, memory_order_relaxed) + 1, memory_order_relaxed);
	pg_barrier();
}

static inline void rt_lower(struct pg_g *g)
{
	pg_barrier();
	atomic_store_explicit(&g->rt, atomic_load_explicit(&g->rt, memory_order_relaxed) - 1, memory_order_relaxed);
}

void pg_m_syncsignals(struct pg_m *m, struct pg_g *g)
{
	if (m->sigmask != g->sigmask) {
		m->sigmask = g->sigmask;
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &m->sigmask, NULL, 8);
	}
	if (m->ss_sp != g->altstack.ss_sp) {
		stack_t ss = g->altstack;
		if (ss.ss_sp == NULL)
			ss.ss_flags = SS_DISABLE;
		pg_sys(SYS_sigaltstack, &ss, NULL);
		m->ss_sp = g->altstack.ss_sp;
	}
}

/* A thread begins or ends to live with its mask.  rt > 0. */
void pg_signal_gstart(struct pg_g *g)
{
	pg_lock(&class_lock);
	g->sigclass = class_enter(g->sigmask);
	pg_unlock(&class_lock);
}

void pg_signal_gend(struct pg_g *g)
{
	pg_lock(&class_lock);
	class_leave(g->sigclass);
	g->sigclass = -1;
	pg_unlock(&class_lock);
	for (struct pg_sigq *q = atomic_exchange(&g->sigq, NULL), *n; q; q = n) {
		n = q->next;
		sigq_put(q);
	}
	for (struct pg_sigq *q = g->sigpriv, *n; q; q = n) {
		n = q->next;
		sigq_put(q);
	}
	g->sigpriv = NULL;
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
static int take(struct pg_g *g, uint64_t set, siginfo_t *info)
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
				sigq_put(q);
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
	while ((pend = atomic_load(&procpend) & set) != 0) {
		sig = __builtin_ctzll(pend) + 1;
		if (!(atomic_fetch_and(&procpend, ~pg_sigbit(sig)) & pg_sigbit(sig)))
			continue;
		q = atomic_exchange(&procq[sig], NULL);
		memset(info, 0, sizeof *info);
		info->si_signo = sig;
		if (q) {
			*info = q->info;
			sigq_put(q);
		}
		return sig;
	}
	return 0;
}

/* Runs the handler for sig on g, which is in user code.  uc: the frame that was interrupted, or NULL. */
static bool run(struct pg_g *g, int sig, siginfo_t *info, ucontext_t *uc)
{
	struct ksigaction a = acts[sig];
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
		set_uc_mask(uc, old);
	}
	rt_raise(g);
	set_mask(g, old | a.mask | (a.flags & SA_NODEFER ? 0 : pg_sigbit(sig)), true);
	rt_lower(g);
	g->sig_ran++;
	if (!(a.flags & SA_RESTART))
		g->sig_norestart++;

	struct call c = {sig, info, uc, a.handler};
	char *lo = g->altstack.ss_sp, *sp = __builtin_frame_address(0);
	if (a.flags & SA_ONSTACK && lo && !(g->altstack.ss_flags & SS_DISABLE) && !(sp >= lo && sp < lo + g->altstack.ss_size))
		pg_arch_call_on(lo + g->altstack.ss_size, call_handler, &c);
	else
		call_handler(&c);

	rt_raise(g);
	set_mask(g, uc == &own ? old : uc_mask(uc), true);
	rt_lower(g);
	return true;
}

static void deliver(struct pg_g *g, ucontext_t *uc)
{
	siginfo_t info;
	int sig;

	for (;;) {
		atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_SIGNAL);
		pg_signal_route(g);
		rt_raise(g);
		sig = take(g, ~g->sigmask, &info);
		rt_lower(g);
		if (sig == 0)
			break;
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

	deliver(g, NULL);
	errno = e;
}

static struct pg_m *own_m(struct pg_g *g)
{
	return g->mode == PG_GREEN ? *(struct pg_m *volatile *)&g->m : g->oswired == 1 ? g->wiredm : NULL;
}

void pg_exec_hold(struct pg_g *g)
{
	struct pg_m *m;

	while ((m = own_m(g)) != NULL) {
		if (atomic_exchange(&m->kicked, 1)) {
			pg_cpu_relax(); /* one is on its way: our handler clears it */
			continue;
		}
		if (own_m(g) == m)
			return;
		atomic_store(&m->kicked, 0); /* it moved us */
	}
}

void pg_exec_release(struct pg_g *g)
{
	struct pg_m *m = own_m(g);

	if (m)
		atomic_store(&m->kicked, 0);
	/* What could not be said meanwhile. */
	if (atomic_load(&g->pending)) {
		pg_rt_enter(g);
		pg_rt_exit(g);
	}
}

void pg_interrupt(struct pg_g *g)
{
	struct pg_m *m;

	atomic_thread_fence(memory_order_seq_cst);
	if (pg_wake(g, PG_WHY_SIGNAL) || g == pg_self_)
		return;
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
	q = sigq_get();
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
	q = sigq_get();
	if (q) {
		q->info = *info;
		if (!atomic_compare_exchange_strong(&procq[sig], &none, q))
			sigq_put(q);
	}
	atomic_fetch_or(&procpend, pg_sigbit(sig));
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
	struct pg_sigq *q = sigq_get();

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
}

void pg_signal_route_slow(struct pg_g *g)
{
	struct pg_sigq *q, *n;
	uint64_t bits;

	rt_raise(g);
	while (atomic_exchange(&pg_signal_inbox, false)) {
		for (q = atomic_exchange(&inbox, NULL); q; q = n) {
			siginfo_t info = q->info;
			n = q->next;
			sigq_put(q);
			route(info.si_signo, &info);
		}
		for (bits = atomic_exchange(&inbox_bits, 0); bits; bits &= bits - 1) {
			siginfo_t info = {.si_signo = __builtin_ctzll(bits) + 1, .si_code = SI_KERNEL};
			route(info.si_signo, &info);
		}
	}
	rt_lower(g);
}

static bool main_takes(int sig)
{
	return pg_main_g.sigclass >= 0 && !(pg_main_g.sigmask & pg_sigbit(sig)) && atomic_load(&pg_main_g.state) != PG_G_dead &&
	       atomic_load(&pg_main_g.state) != PG_G_ghost && !pg_main_g.exiting;
}

static void sigtramp(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	struct pg_g *g = pg_self();
	bool fault = info->si_code > 0 && (sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGTRAP ||
					   sig == SIGSYS);

	if (!fault) {
		bool sched = g == sysmon || (g->m != &pg_nullm && g == &g->m->g0);
		uint32_t rt = atomic_load_explicit(&g->rt, memory_order_relaxed);
		bool takes = !(g->sigmask & pg_sigbit(sig)) && !(uc_mask(uc) & pg_sigbit(sig));
		/* The kernel prefers the first thread for a signal to the process; programs count on its calls being interrupted. */
		bool tomain = g != &pg_main_g && info->si_code != SI_TKILL && sig != SIGPROF && sig != SIGVTALRM && main_takes(sig);
		if (sched || tomain || (rt > 0 && !takes)) {
			if (rt > 0) {
				put_inbox(g, sig, info);
			} else {
				rt_raise(g);
				route(sig, info);
				rt_lower(g);
			}
			return;
		}
		if (rt > 0) {
			pg_gkill(g, sig, info); /* to itself: touches only its own queue */
			return;
		}
	}

	/* In user code: here and now.  The kernel has put the handler's mask in force on this thread. */
	struct ksigaction a = acts[sig];
	uint64_t old = uc_mask(uc);
	if (a.handler == (void *)SIG_DFL || a.handler == (void *)SIG_IGN) {
		if (fault) {
			uint64_t bit = pg_sigbit(sig);
			struct ksigaction d = {0};
			pg_sys(SYS_rt_sigaction, sig, &d, NULL, 8);
			pg_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &bit, NULL, 8);
		}
		return; /* changed while it was on its way */
	}
	rt_raise(g);
	set_mask(g, old | a.mask | (a.flags & SA_NODEFER ? 0 : pg_sigbit(sig)), false);
	rt_lower(g);
	if (a.flags & SA_RESETHAND)
		acts[sig].handler = (void *)SIG_DFL;
	g->sig_ran++;
	if (!(a.flags & SA_RESTART))
		g->sig_norestart++;
	((void (*)(int, siginfo_t *, void *))a.handler)(sig, info, ctx);
	/* The kernel's mask now, not by the return: we may be moved to another thread in between. */
	rt_raise(g);
	set_mask(g, uc_mask(uc), true);
	rt_lower(g);
	if (atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL) &&
	    atomic_load_explicit(&g->rt, memory_order_relaxed) == 0)
		deliver(g, uc);
}

/* ---- the kick ---- */

static struct { uintptr_t lo, hi; } libc_text, ld_text;

static bool in_libc(uintptr_t pc)
{
	return (pc >= libc_text.lo && pc < libc_text.hi) || (pc >= ld_text.lo && pc < ld_text.hi);
}

static void do_cmd(struct pg_g *g)
{
	struct pg_g *os = g->m == &pg_nullm ? g : &g->m->g0;
	uint32_t seq = atomic_load(&cmd.seq);

	if (os->cmdseq == seq || atomic_load(&cmd.left) == 0)
		return;
	os->cmdseq = seq;
	pg_sys(cmd.nr, cmd.a, cmd.b, cmd.c);
	atomic_fetch_sub(&cmd.left, 1);
}

static void kick(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	struct pg_g *g = pg_self_;
	uint32_t gen;

	(void)sig;
	(void)info;
	if (g == NULL)
		return;
	if (g->m != &pg_nullm)
		atomic_store(&g->m->kicked, 0);
	else if (g->wiredm)
		atomic_store(&g->wiredm->kicked, 0);
	do_cmd(g);
	if (g == sysmon) {
		do {
			gen = atomic_load(&accept_gen);
			set_uc_mask(uc, ~atomic_load(&accepted) & ~pg_sigbit(PG_SIG_KICK));
		} while (gen != atomic_load(&accept_gen));
		/* In force before it is said to be; the kick itself stays blocked until we return, so gen only grows. */
		uint64_t m = uc_mask(uc) | pg_sigbit(PG_SIG_KICK);
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &m, NULL, 8);
		atomic_store(&accept_applied, gen);
		return;
	}
	if (g->m != &pg_nullm && g == &g->m->g0) {
		if (~uc_mask(uc) & ~atomic_load(&accepted) & ~UNBLOCKABLE) {
			set_uc_mask(uc, ~UNBLOCKABLE);
			g->m->sigmask = ~UNBLOCKABLE;
		}
		return;
	}
	if (atomic_load_explicit(&g->rt, memory_order_relaxed) > 0)
		return; /* at rt_exit */
	int e = errno;
	uint32_t pend = atomic_load(&g->pending);
	if (pend & (PG_PEND_SIGNAL | PG_PEND_CANCEL))
		deliver(g, uc);
	if (pend & PG_PEND_PREEMPT && g->mode == PG_GREEN) {
		atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_PREEMPT);
		bool libc = in_libc(pg_uc_pc(uc));
		if (g->insys & 1) {
			errno = e;
			return;
		}
		rt_raise(g);
		if (libc && atomic_fetch_add(&g->m->skips, 1) < 1000) {
			rt_lower(g); /* somewhere inside libc, perhaps with a lock: sysmon asks again soon */
			errno = e;
			return;
		}
		atomic_store(&g->m->skips, 0);
		/* This M goes on with others: it must be open to kicks again. */
		uint64_t mask = g->sigmask;
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
		rt_lower(g);
		pg_rt_enter(g);
		if (libc)
			atomic_fetch_add(&pg_preempted_in_libc, 1);
		pg_switchaway(g, PG_OP_GLOBAL);
		if (libc)
			atomic_fetch_sub(&pg_preempted_in_libc, 1);
		pg_rt_exit(g);
	}
	errno = e;
}

long pg_allthreads_syscall(long nr, long a, long b, long c);
long pg_allthreads_syscall(long nr, long a, long b, long c)
{
	static struct pg_lock lock;
	struct pg_g *g = pg_self();
	int self, pid = getpid();
	long r;

	pg_rt_enter(g);
	pg_lock(&lock);
	self = (int)pg_sys(SYS_gettid);
	r = pg_sys(nr, a, b, c);
	if (r >= 0) {
		cmd.nr = nr;
		cmd.a = a;
		cmd.b = b;
		cmd.c = c;
		(g->m == &pg_nullm ? g : &g->m->g0)->cmdseq = atomic_load(&cmd.seq) + 1;
		uint32_t n = 1;
		atomic_store(&cmd.left, 1u << 20);
		atomic_fetch_add(&cmd.seq, 1);
		if (pg_sysmon_tid && pg_sys(SYS_tgkill, pid, pg_sysmon_tid, PG_SIG_KICK) == 0)
			n++;
		for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
			if (m->tid && m->tid != self && pg_sys(SYS_tgkill, pid, m->tid, PG_SIG_KICK) == 0)
				n++;
		atomic_fetch_sub(&cmd.left, (1u << 20) - (n - 1));
		while (atomic_load(&cmd.left) != 0)
			pg_sys(SYS_sched_yield);
	}
	pg_unlock(&lock);
	pg_rt_exit(g);
	return r;
}

/* ---- what the shim calls ---- */

int pg_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct pg_g *g = pg_self();
	struct ksigaction k, prev;
	long r = 0;

	if (sig < 1 || sig > NSIG64 || sig == 32 || sig == 33)
		return -EINVAL;
	if (act && (sig == SIGKILL || sig == SIGSTOP))
		return -EINVAL;
	pg_rt_enter(g);
	pg_lock(&act_lock);
	prev = acts[sig];
	if (prev.handler == NULL) {
		/* Not set by us yet: ignored signals are inherited through exec. */
		struct ksigaction cur = {0};
		if (pg_sys(SYS_rt_sigaction, sig, NULL, &cur, 8) == 0)
			prev = cur;
	}
	if (act) {
		uint64_t mask;
		memcpy(&mask, &act->sa_mask, sizeof mask);
		struct ksigaction mine = {(void *)act->sa_handler, (unsigned long)(unsigned)act->sa_flags, NULL,
					  mask & ~UNBLOCKABLE};
		k = mine;
		k.flags |= PG_SA_RESTORER;
		k.restorer = pg_arch_restorer;
		if (act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN) {
			k.handler = (void *)sigtramp;
			k.flags |= SA_SIGINFO;
		}
		acts[sig] = mine; /* before the kernel may call */
		r = pg_sys(SYS_rt_sigaction, sig, &k, NULL, 8);
		if (r < 0)
			acts[sig] = prev;
	}
	pg_unlock(&act_lock);
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
		m &= ~UNBLOCKABLE;
		if (m != was)
			set_mask(g, m, true);
	}
	if (old)
		*old = was;
	pg_rt_exit(g);
	return 0;
}

void pg_sigmask_restored(uint64_t mask)
{
	struct pg_g *g = pg_self();

	pg_rt_enter(g);
	if (g->sigmask != (mask & ~UNBLOCKABLE))
		set_mask(g, mask, true);
	pg_rt_exit(g);
}

int pg_sigsuspend(uint64_t set)
{
	struct pg_g *g = pg_self();
	uint64_t old = g->sigmask;
	uint32_t before = g->sig_ran;

	pg_rt_enter(g);
	set_mask(g, set, true);
	pg_rt_exit(g);
	while (!(atomic_load(&g->cancelled) && g->cancel_state == 0)) {
		pg_rt_enter(g);
		/* No handler runs from here on: what comes is seen by pg_park. */
		if (g->sig_ran != before) {
			pg_rt_exit(g);
			break;
		}
		pg_wait_prepare(g);
		pg_park(g, PG_FOREVER, PG_WAIT_sigwait);
		pg_rt_exit(g);
	}
	pg_rt_enter(g);
	set_mask(g, old, true);
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

	set &= ~UNBLOCKABLE;
	kset = set | kickbit;
	if (info == NULL)
		info = &own;
	atomic_store(&g->sigwaiting, set);
	for (;;) {
		struct timespec ts, *tp = NULL;
		/* The P goes first: handing it off may take us through the runtime. */
		pg_entersyscallblock(g);
		pg_sys(SYS_rt_sigprocmask, SIG_BLOCK, &kickbit, NULL, 8);
		rt_raise(g);
		r = take(g, set, info);
		rt_lower(g);
		if (r == 0 && !(atomic_load(&g->pending) & (PG_PEND_SIGNAL | PG_PEND_CANCEL))) {
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
			do_cmd(g);
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
	return (int)r;
}

uint64_t pg_sigpending(void)
{
	struct pg_g *g = pg_self();
	uint64_t k = 0;

	pg_sys(SYS_rt_sigpending, &k, 8);
	return (k | atomic_load(&g->sigpend) | atomic_load(&procpend)) & ~UNBLOCKABLE;
}

int pg_sigaltstack(const stack_t *ss, stack_t *old)
{
	struct pg_g *g = pg_self();
	long r;

	pg_rt_enter(g);
	r = pg_sys(SYS_sigaltstack, ss, old);
	if (r == 0 && ss) {
		g->altstack = *ss;
		if (ss->ss_flags & SS_DISABLE)
			g->altstack.ss_sp = NULL;
		if (g->mode == PG_GREEN)
			g->m->ss_sp = g->altstack.ss_sp;
	}
	pg_rt_exit(g);
	return (int)r;
}

/* ---- start ---- */

extern void pg_find_text(uintptr_t *libc_lo, uintptr_t *libc_hi, uintptr_t *ld_lo, uintptr_t *ld_hi);

/* On the main thread, once: its mask as it was inherited. */
void pg_signal_init(void)
{
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &pg_main_g.sigmask, 8);
	pg_main_g.sigmask &= ~UNBLOCKABLE;
	pg_main_g.sigclass = -1;
	pg_main_g.altstack.ss_flags = SS_DISABLE;
}

static struct ksigaction kick_before; /* posix_spawn leaves signal 32 ignored: so shall the child of a fork find it */

/* On sysmon. */
void pg_signal_started(void)
{
	struct ksigaction k = {(void *)kick, SA_SIGINFO | SA_RESTART | PG_SA_RESTORER, pg_arch_restorer, 0};
	uint64_t m;

	sysmon = pg_self_;
	pg_find_text(&libc_text.lo, &libc_text.hi, &ld_text.lo, &ld_text.hi);
	pg_sys(SYS_rt_sigaction, PG_SIG_KICK, &k, &kick_before, 8);
	m = ~atomic_load(&accepted) & ~pg_sigbit(PG_SIG_KICK);
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &m, NULL, 8);
}

/* In a fork's child: no pending signals, one thread. */
void pg_signal_forked(void);
void pg_signal_forked(void)
{
	struct pg_g *g = pg_self_;

	memset(class, 0, sizeof class);
	nclass = 0;
	class_lock = act_lock = (struct pg_lock){0};
	atomic_store(&accepted, 0);
	atomic_store(&procpend, 0);
	atomic_store(&inbox, NULL);
	atomic_store(&inbox_bits, 0);
	for (int i = 0; i <= NSIG64; i++)
		atomic_store(&procq[i], NULL);
	g->sigclass = -1;
	atomic_store(&g->sigpend, 0);
	sysmon = NULL;
	pg_sys(SYS_rt_sigaction, PG_SIG_KICK, &kick_before, NULL, 8);
}
