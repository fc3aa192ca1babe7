/* SPDX-License-Identifier: MIT */
/*
 * Sending signals, and timers that send them to one thread.
 *
 * A signal for a G is queued by core and delivered on that G; it never goes through the kernel, which knows only Ms.  A
 * native G is its OS thread, so what it sends itself goes through the kernel.  A signal for the process goes through the
 * kernel, and core finds a G for it when it arrives, except where it must have arrived before the call returns.
 */
#include <string.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/signal.h"
#include "core/thread.h"
#include "shim/process.h"
#include "shim/shim.h"
#include "shim/sigset.h"
#include "shim/thread.h"

static bool started(void)
{
	return atomic_load_explicit(&pg_started, memory_order_relaxed);
}

static void fill_info(siginfo_t *si, int sig, int code, const union sigval *value)
{
	memset(si, 0, sizeof *si);
	si->si_signo = sig;
	si->si_code = code;
	si->si_pid = (pid_t)pg_sys0(SYS_getpid);
	si->si_uid = (uid_t)pg_sys0(SYS_getuid);
	if (value != NULL)
		si->si_value = *value;
}

/* To an OS thread, which is all there is of a native G.  0 or -errno. */
static int send_native(long tid, int sig, const siginfo_t *si)
{
	long pid = pg_sys0(SYS_getpid);

	if (si->si_code == SI_QUEUE)
		return (int)pg_sys(SYS_rt_tgsigqueueinfo, pid, tid, sig, si);
	return (int)pg_sys3(SYS_tgkill, pid, tid, sig);
}

static int send_native_self(int sig, const siginfo_t *si)
{
	struct pg_g *g = pg_self_;
	int r = send_native(pg_sys0(SYS_gettid), sig, si);

	/* The handler was put off, as another thread forks: it runs before we return all the same. */
	if (g != NULL && pg_unlikely(atomic_load(&g->pending) != 0)) {
		pg_rt_enter(g);
		pg_rt_exit(g);
	}
	return r;
}

/* The calling G receives it before this returns, unless it is blocked.  0 or -errno. */
static int send_self(struct pg_g *g, int sig, const siginfo_t *si)
{
	return pg_is_green() ? pg_gkill(g, sig, si) : send_native_self(sig, si);
}

/* 0 or -errno; ESRCH is not for a thread that has ended but not been joined: its id is still valid. */
static int send_to(struct pg_g *g, int sig, const siginfo_t *si)
{
	struct pg_g *self = pg_self();
	int r;

	if (sig < 0 || sig >= NSIG || pg_sig_hidden(sig))
		return -EINVAL;
	if (sig == 0 || (g != self && pg_thread_ended(g)))
		return 0;
	if (sig == SIGKILL || sig == SIGSTOP)
		return (int)pg_sys3(SYS_kill, pg_sys0(SYS_getpid), sig, 0);
	if (g == self)
		return send_self(g, sig, si);
	/*
	 * A wired one may wait in the kernel with another mask than its own (ppoll), and take there what it blocks.  Not what is
	 * sent by pthread_sigqueue: it would look as if it were for the process.
	 */
	r = atomic_load(&g->ostid);
	if (r != 0 && si->si_code == SI_TKILL && g->sigmask & pg_sigbit(sig))
		return send_native(r, sig, si);
	return pg_gkill(g, sig, si);
}

/* Differs: a thread that libc and not pgreen made, and that has not called us yet, is not found. */
PG_EXPORT int pthread_kill(pthread_t t, int sig)
{
	struct pg_g *g;
	siginfo_t si;

	if (pg_sig_hidden(sig))
		return EINVAL;
	if (pg_passthrough() || !started())
		return PG_REAL(pthread_kill)(t, sig);
	fill_info(&si, sig, SI_TKILL, NULL);
	if (t == (pthread_t)pg_arch_tp() && !pg_is_green())
		return -send_native_self(sig, &si);
	g = pg_pthread2g(t);
	return g == NULL ? ESRCH : -send_to(g, sig, &si);
}

PG_EXPORT int pthread_sigqueue(pthread_t t, int sig, const union sigval value)
{
	struct pg_g *g;
	siginfo_t si;

	if (pg_sig_hidden(sig))
		return EINVAL;
	if (pg_passthrough() || !started())
		return PG_REAL(pthread_sigqueue)(t, sig, value);
	fill_info(&si, sig, SI_QUEUE, &value);
	if (t == (pthread_t)pg_arch_tp() && !pg_is_green())
		return -send_native_self(sig, &si);
	g = pg_pthread2g(t);
	return g == NULL || pg_thread_ended(g) ? ESRCH : -send_to(g, sig, &si);
}

PG_EXPORT int raise(int sig)
{
	siginfo_t si;

	fill_info(&si, sig, SI_TKILL, NULL);
	if (!pg_is_green())
		return (int)pg_ret(pg_sig_hidden(sig) ? -EINVAL : send_native_self(sig, &si));
	return (int)pg_ret(send_to(pg_self_, sig, &si));
}
int gsignal(int sig) PG_ALIAS(raise);

static bool alive(struct pg_g *g)
{
	uint32_t s = atomic_load_explicit(&g->state, memory_order_relaxed);

	return s == PG_G_runnable || s == PG_G_running || s == PG_G_waiting;
}

struct by_tid {
	uint32_t tid;
	struct pg_g *g;
};

static void match_tid(struct pg_g *g, void *arg)
{
	struct by_tid *b = arg;

	if (g->tid == b->tid && alive(g))
		b->g = g;
}

struct pg_g *pg_tid2g(pid_t tid)
{
	struct pg_g *self = pg_self();
	struct by_tid b = { .tid = (uint32_t)tid };

	if (self->tid == b.tid)
		return self;
	if (pg_main_g.tid == b.tid)
		return &pg_main_g;
	pg_rt_enter(self);
	pg_foreach_g(match_tid, &b);
	pg_rt_exit(self);
	return b.g;
}

int pg_tgkill(pid_t tgid, pid_t tid, int sig, const siginfo_t *info)
{
	struct pg_g *g = NULL;

	if (started() && !pg_sig_direct() && tid > 0 &&
	    (tgid == -1 || tgid == (pid_t)pg_sys0(SYS_getpid)))
		g = pg_tid2g(tid);
	if (g != NULL) {
		if (g == pg_self() && !pg_is_green())
			return sig == 0 ? 0 : send_native_self(sig, info);
		return send_to(g, sig, info);
	}
	if (info->si_code != SI_TKILL)
		return (int)pg_sys(SYS_rt_tgsigqueueinfo, tgid, tid, sig, info);
	if (tgid == -1)
		return (int)pg_sys3(SYS_tkill, tid, sig, 0);
	return (int)pg_sys3(SYS_tgkill, tgid, tid, sig);
}

PG_EXPORT int tgkill(pid_t tgid, pid_t tid, int sig)
{
	siginfo_t si;

	if (tgid <= 0)
		return (int)pg_ret(-EINVAL);
	fill_info(&si, sig, SI_TKILL, NULL);
	return (int)pg_ret(pg_tgkill(tgid, tid, sig, &si));
}

struct acceptors {
	struct pg_g *self;
	uint64_t bit;
	bool found;
};

static void look_acceptor(struct pg_g *g, void *arg)
{
	struct acceptors *a = arg;

	if (g != a->self && alive(g) &&
	    ((g->sigmask & a->bit) == 0 || atomic_load_explicit(&g->sigwaiting, memory_order_relaxed) & a->bit))
		a->found = true;
}

/*
 * A signal for the whole process that only the caller accepts must have been delivered when kill returns, and Linux
 * prefers the first thread.  In these two cases it need not go through the kernel, which may give it to another M.
 */
static bool for_caller(struct pg_g *g, pid_t pid, int sig)
{
	struct acceptors a = { .self = g };
	struct sigaction act;

	if (!pg_sig_valid(sig) || pid != (pid_t)pg_sys0(SYS_getpid))
		return false;
	a.bit = pg_sigbit(sig);
	if ((g->sigmask & a.bit) != 0 || pg_sigaction(sig, NULL, &act) != 0 ||
	    act.sa_handler == SIG_DFL || act.sa_handler == SIG_IGN)
		return false;
	if (g == &pg_main_g)
		return true;
	look_acceptor(&pg_main_g, &a);
	pg_rt_enter(g);
	pg_foreach_g(look_acceptor, &a);
	pg_rt_exit(g);
	return !a.found;
}

/*
 * One that the first thread takes is pending there when kill returns: Linux prefers that thread, and what the caller does next may
 * wake it. By way of the kernel some other OS thread may be the one that interrupts itself for it, at its leisure. Real-time signals
 * go that way all the same: they must not overtake each other.
 */
static bool to_main(struct pg_g *g, pid_t pid, int sig, const siginfo_t *si)
{
	struct sigaction act;

	if (!pg_sig_valid(sig) || sig >= 32 || sig == SIGPROF || sig == SIGVTALRM || pid != (pid_t)pg_sys0(SYS_getpid) ||
	    pg_sigaction(sig, NULL, &act) != 0 || act.sa_handler == SIG_DFL || act.sa_handler == SIG_IGN)
		return false;
	return pg_kill_main(g, sig, si);
}

/* Is the caller a thread of ours, green or wired? */
static bool lives_here(struct pg_g *g)
{
	return pg_is_green() || (g != NULL && atomic_load(&g->ostid) != 0 && started() && !pg_in_vfork());
}

PG_EXPORT int kill(pid_t pid, int sig)
{
	struct pg_g *g = pg_self_;
	siginfo_t si;
	int r;

	if (!lives_here(g))
		return PG_REAL(kill)(pid, sig);
	fill_info(&si, sig, SI_USER, NULL);
	if (for_caller(g, pid, sig))
		return (int)pg_ret(pg_gkill(g, sig, &si)); /* as if the kernel had chosen the caller */
	if (to_main(g, pid, sig, &si))
		return 0;
	r = PG_REAL(kill)(pid, sig);
	pg_rt_enter(g);
	pg_rt_exit(g);
	return r;
}

PG_EXPORT int sigqueue(pid_t pid, int sig, const union sigval value)
{
	struct pg_g *g = pg_self_;
	siginfo_t si;
	int r;

	if (!lives_here(g))
		return PG_REAL(sigqueue)(pid, sig, value);
	fill_info(&si, sig, SI_QUEUE, &value);
	if (for_caller(g, pid, sig))
		return (int)pg_ret(pg_gkill(g, sig, &si)); /* as if the kernel had chosen the caller */
	if (to_main(g, pid, sig, &si))
		return 0;
	r = PG_REAL(sigqueue)(pid, sig, value);
	pg_rt_enter(g);
	pg_rt_exit(g);
	return r;
}

/* ---- timers that signal one thread ---- */

/* glibc marks the timers of its helper thread by the sign; the others are the kernel's numbers. */
static bool plain(timer_t id) { return (intptr_t)id >= 0; }

/* The kernel signals OS threads, so core's timer queues the signal.  A clock of a thread's CPU time is its OS thread's: wires. */
PG_EXPORT int timer_create(clockid_t clock, struct sigevent *ev, timer_t *id)
{
	struct pg_g *self = pg_self_, *g;
	int r, number;

	if (ev == NULL || ev->sigev_notify != SIGEV_THREAD_ID || self == NULL || pg_sig_direct() || !started())
		return PG_REAL(timer_create)(clock, ev, id);
	g = pg_tid2g(ev->_sigev_un._tid);
	if (g == NULL)
		return PG_REAL(timer_create)(clock, ev, id);
	if (ev->sigev_signo < 1 || ev->sigev_signo >= NSIG)
		return (int)pg_ret(-EINVAL);
	if (clock == CLOCK_THREAD_CPUTIME_ID)
		pg_shim_wire(self);
	r = pg_sigtimer_create(clock, g, ev->sigev_signo, ev->sigev_value, &number);
	if (r == -ENOTSUP)
		return PG_REAL(timer_create)(clock, ev, id);
	if (r == 0)
		*id = (timer_t)(intptr_t)number;
	return (int)pg_ret(r);
}

PG_EXPORT int timer_delete(timer_t id)
{
	/* The record first: the number may be another timer's as soon as the kernel has given it up. */
	if (plain(id) && started() && !pg_in_vfork())
		pg_sigtimer_delete((int)(intptr_t)id);
	return PG_REAL(timer_delete)(id);
}

PG_EXPORT int timer_getoverrun(timer_t id)
{
	int r = -ENOENT;

	if (plain(id) && started() && !pg_in_vfork())
		r = pg_sigtimer_overrun((int)(intptr_t)id);
	return r >= 0 ? r : PG_REAL(timer_getoverrun)(id);
}
