/* SPDX-License-Identifier: MIT */
/*
 * Signals as a program receives them: actions, masks, alternate stacks, waiting.  Sending is kill.c, jumps are jump.c.
 *
 * The state is core/signal.c's, in native mode too, so that nothing has to be learnt from the kernel when the first
 * thread is created.  The child of a vfork is the exception: its state is the kernel's, the memory its parent's.
 */
#include <sys/syscall.h>

#include "core/signal.h"
#include "shim/process.h"
#include "shim/shim.h"
#include "shim/sigset.h"
#include "shim/thread.h"

/* Names that libc exports and no header declares. */
int __sigaction(int sig, const struct sigaction *act, struct sigaction *old);
int __sigsuspend(const sigset_t *set);
int sigvec(int sig, const struct sigvec *vec, struct sigvec *old);
sighandler_t bsd_signal(int sig, sighandler_t handler);
int __xpg_sigpause(int sig);
int __sigpause(int sig_or_mask, int is_sig);
int sigpause_bsd(int mask) __asm__("sigpause"); /* headers rename sigpause to __xpg_sigpause */

/* ---- actions ---- */

/*
 * A handler is about to go.  Natively the signals that were sent before have been handled by then, if the caller takes them; here
 * one may still be on its way through another OS thread.  Every OS thread has handled what it had when it answers.
 */
static void settle(int sig, const struct sigaction *act)
{
	struct sigaction was;

	if (act == NULL || (act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN) || !atomic_load(&pg_started) ||
	    pg_sigaction(sig, NULL, &was) != 0 || was.sa_handler == SIG_DFL || was.sa_handler == SIG_IGN)
		return;
	pg_allthreads_syscall(SYS_getpid, 0, 0, 0);
	pg_signal_last(pg_self());
}

static int action(int sig, const struct sigaction *act, struct sigaction *old)
{
	int r;

	if (!pg_sig_valid(sig) || (act != NULL && (sig == SIGKILL || sig == SIGSTOP)))
		r = -EINVAL;
	else if (!pg_sig_direct()) {
		settle(sig, act);
		r = pg_sigaction(sig, act, old);
	} else {
		struct sigaction was;
		r = pg_sigaction(sig, NULL, &was);
		if (r == 0 && act != NULL && PG_REAL(sigaction)(sig, act, NULL) != 0)
			return -1;
		if (r == 0 && old != NULL)
			*old = was;
	}
	return (int)pg_ret(r);
}

static sighandler_t set_handler(int sig, sighandler_t handler, uint64_t mask, int flags)
{
	struct sigaction act = { .sa_handler = handler, .sa_flags = flags }, old;

	if (handler == SIG_ERR || !pg_sig_valid(sig)) {
		errno = EINVAL;
		return SIG_ERR;
	}
	pg_set_put(&act.sa_mask, mask);
	return action(sig, &act, &old) < 0 ? SIG_ERR : old.sa_handler;
}

PG_EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	return action(sig, act, old);
}
int __sigaction(int sig, const struct sigaction *act, struct sigaction *old) PG_ALIAS(sigaction);

static _Atomic uint64_t interrupting; /* signals for which siginterrupt(sig, 1) was asked */

PG_EXPORT sighandler_t signal(int sig, sighandler_t handler)
{
	if (!pg_sig_valid(sig)) {
		errno = EINVAL;
		return SIG_ERR;
	}
	return set_handler(sig, handler, pg_sigbit(sig), interrupting & pg_sigbit(sig) ? 0 : SA_RESTART);
}
sighandler_t bsd_signal(int sig, sighandler_t handler) PG_ALIAS(signal);
sighandler_t ssignal(int sig, sighandler_t handler) PG_ALIAS(signal);

PG_EXPORT sighandler_t __sysv_signal(int sig, sighandler_t handler)
{
	return set_handler(sig, handler, 0, (int)(SA_RESETHAND | SA_NODEFER | SA_INTERRUPT));
}
sighandler_t sysv_signal(int sig, sighandler_t handler) PG_ALIAS(__sysv_signal);

PG_EXPORT int siginterrupt(int sig, int interrupt)
{
	struct sigaction act;

	if (action(sig, NULL, &act) < 0)
		return -1;
	if (interrupt) {
		atomic_fetch_or(&interrupting, pg_sigbit(sig));
		act.sa_flags &= ~SA_RESTART;
	} else {
		atomic_fetch_and(&interrupting, ~pg_sigbit(sig));
		act.sa_flags |= SA_RESTART;
	}
	return action(sig, &act, NULL);
}

PG_EXPORT int sigignore(int sig)
{
	struct sigaction act = { .sa_handler = SIG_IGN };

	return action(sig, &act, NULL);
}

/* 4.3BSD's: a mask of 32 signals, and calls that are made again unless SV_INTERRUPT says otherwise. */
struct sigvec {
	sighandler_t sv_handler;
	int sv_mask;
	int sv_flags;
};
enum { SV_ONSTACK = 1, SV_INTERRUPT = 2, SV_RESETHAND = 4 };

PG_EXPORT int sigvec(int sig, const struct sigvec *vec, struct sigvec *old)
{
	struct sigaction act = { 0 }, was;

	if (vec != NULL) {
		act.sa_handler = vec->sv_handler;
		pg_set_put(&act.sa_mask, (unsigned)vec->sv_mask);
		act.sa_flags = (vec->sv_flags & SV_ONSTACK ? SA_ONSTACK : 0) | (vec->sv_flags & SV_INTERRUPT ? 0 : SA_RESTART) |
			       (vec->sv_flags & SV_RESETHAND ? (int)SA_RESETHAND : 0);
	}
	if (action(sig, vec != NULL ? &act : NULL, &was) < 0)
		return -1;
	if (old != NULL) {
		old->sv_handler = was.sa_handler;
		old->sv_mask = (int)pg_set_get(&was.sa_mask);
		old->sv_flags = (was.sa_flags & SA_ONSTACK ? SV_ONSTACK : 0) | (was.sa_flags & SA_RESTART ? 0 : SV_INTERRUPT) |
				(was.sa_flags & (int)SA_RESETHAND ? SV_RESETHAND : 0);
	}
	return 0;
}

/* ---- masks ---- */

/* 0 or an error number. */
static int change_mask(int how, const sigset_t *set, sigset_t *old)
{
	uint64_t s = set != NULL ? pg_set_get(set) & ~PG_SIGS_UNBLOCKABLE : 0, o = 0;
	int r;

	if (set != NULL && how != SIG_BLOCK && how != SIG_UNBLOCK && how != SIG_SETMASK)
		return EINVAL;
	if (pg_sig_direct())
		return PG_REAL(pthread_sigmask)(how, set, old);
	r = pg_sigprocmask(how, set != NULL ? &s : NULL, &o);
	if (r == 0 && old != NULL)
		pg_set_put(old, o);
	return -r;
}

static int change_mask_errno(int how, const sigset_t *set, sigset_t *old)
{
	return (int)pg_ret(-change_mask(how, set, old));
}

PG_EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return change_mask(how, set, old);
}

PG_EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return change_mask_errno(how, set, old);
}

static int one_signal(int how, int sig, sigset_t *old)
{
	sigset_t set;

	if (!pg_sig_valid(sig))
		return (int)pg_ret(-EINVAL);
	pg_set_put(&set, pg_sigbit(sig));
	return change_mask_errno(how, &set, old);
}

PG_EXPORT int sighold(int sig) { return one_signal(SIG_BLOCK, sig, NULL); }
PG_EXPORT int sigrelse(int sig) { return one_signal(SIG_UNBLOCK, sig, NULL); }

PG_EXPORT sighandler_t sigset(int sig, sighandler_t disp)
{
	struct sigaction act = { .sa_handler = disp }, old;
	sigset_t was;

	if (disp == SIG_HOLD) {
		if (one_signal(SIG_BLOCK, sig, &was) < 0 || action(sig, NULL, &old) < 0)
			return SIG_ERR;
	} else {
		if (action(sig, &act, &old) < 0 || one_signal(SIG_UNBLOCK, sig, &was) < 0)
			return SIG_ERR;
	}
	return pg_set_get(&was) & pg_sigbit(sig) ? SIG_HOLD : old.sa_handler;
}

static int word_mask(int how, const sigset_t *set)
{
	sigset_t old;

	return change_mask_errno(how, set, &old) < 0 ? -1 : (int)pg_set_get(&old);
}

PG_EXPORT int sigblock(int mask)
{
	sigset_t set;

	pg_set_put(&set, (unsigned)mask);
	return word_mask(SIG_BLOCK, &set);
}

PG_EXPORT int sigsetmask(int mask)
{
	sigset_t set;

	pg_set_put(&set, (unsigned)mask);
	return word_mask(SIG_SETMASK, &set);
}

PG_EXPORT int siggetmask(void) { return word_mask(SIG_BLOCK, NULL); }

PG_EXPORT int sigpending(sigset_t *set)
{
	if (pg_sig_direct())
		return PG_REAL(sigpending)(set);
	pg_set_put(set, pg_sigpending());
	return 0;
}

/* ---- alternate stacks ---- */

PG_EXPORT int sigaltstack(const stack_t *ss, stack_t *old)
{
	if (pg_sig_direct())
		return PG_REAL(sigaltstack)(ss, old);
	return (int)pg_ret(pg_sigaltstack(ss, old));
}

/* Has no size: everything below is taken to be the stack, as in glibc. */
PG_EXPORT int sigstack(struct sigstack *ss, struct sigstack *old)
{
	stack_t in, out;

	if (ss != NULL) {
		in.ss_sp = ss->ss_sp;
		in.ss_flags = ss->ss_onstack ? SS_ONSTACK : 0;
		in.ss_size = (uintptr_t)ss->ss_sp;
	}
	if (sigaltstack(ss != NULL ? &in : NULL, &out) < 0)
		return -1;
	if (old != NULL) {
		old->ss_sp = out.ss_sp;
		old->ss_onstack = (out.ss_flags & SS_ONSTACK) != 0;
	}
	return 0;
}

/* ---- waiting ---- */

/* A thread of libc's is cancelled by libc, which can end only its own waiting. */
static bool waits_natively(void)
{
	return pg_sig_direct() || pg_passthrough();
}

/* Blocks: until a handler has run.  Cancel: yes. */
PG_EXPORT int sigsuspend(const sigset_t *set)
{
	if (waits_natively())
		return PG_REAL(sigsuspend)(set);
	pg_testcancel();
	int r = pg_sigsuspend(pg_set_get(set) & ~PG_SIGS_UNBLOCKABLE);
	pg_testcancel();
	return (int)pg_ret(r);
}
int __sigsuspend(const sigset_t *set) PG_ALIAS(sigsuspend);

/* Blocks: until a handler has run.  Cancel: yes. */
PG_EXPORT int pause(void)
{
	sigset_t cur;

	if (waits_natively())
		return PG_REAL(pause)();
	change_mask(SIG_BLOCK, NULL, &cur);
	return sigsuspend(&cur);
}

/* Cancel: yes. */
PG_EXPORT int __sigpause(int sig_or_mask, int is_sig)
{
	sigset_t set;

	if (is_sig) {
		if (!pg_sig_valid(sig_or_mask))
			return (int)pg_ret(-EINVAL);
		change_mask(SIG_BLOCK, NULL, &set);
		pg_set_put(&set, pg_set_get(&set) & ~pg_sigbit(sig_or_mask));
	} else {
		pg_set_put(&set, (unsigned)sig_or_mask);
	}
	return sigsuspend(&set);
}

PG_EXPORT int __xpg_sigpause(int sig) { return __sigpause(sig, 1); }
PG_EXPORT int sigpause_bsd(int mask) { return __sigpause(mask, 0); }

/*
 * The signal's number, -EAGAIN, or -EINTR when a handler of the program ran.
 * Blocks: until a signal of the set is pending.  Cancel: yes; no signal is taken.
 */
static int wait_signal(const sigset_t *set, siginfo_t *info, int64_t deadline)
{
	uint64_t s = pg_set_get(set) & ~PG_SIGS_UNBLOCKABLE;
	siginfo_t si;
	int r;

	for (;;) {
		struct pg_g *g = pg_self();
		uint32_t ran = g->sig_ran;

		pg_testcancel();
		r = pg_sigwait(s, &si, deadline);
		if (r != -EINTR)
			break;
		pg_testcancel();
		if (!pg_is_green() || !pg_eintr_ours(g, ran, false))
			break;
	}
	if (r > 0 && info != NULL) {
		*info = si;
		if (info->si_code == SI_TKILL)
			info->si_code = SI_USER;
	}
	return r;
}

PG_EXPORT int sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout)
{
	if (waits_natively())
		return PG_REAL(sigtimedwait)(set, info, timeout);
	if (timeout != NULL && (timeout->tv_sec < 0 || pg_timespec_bad(timeout)))
		return (int)pg_ret(-EINVAL);
	return (int)pg_ret(wait_signal(set, info, timeout != NULL ? pg_deadline_rel(timeout) : PG_FOREVER));
}

PG_EXPORT int sigwaitinfo(const sigset_t *set, siginfo_t *info)
{
	return sigtimedwait(set, info, NULL);
}

/* Never EINTR. */
PG_EXPORT int sigwait(const sigset_t *set, int *sig)
{
	int r;

	if (waits_natively())
		return PG_REAL(sigwait)(set, sig);
	do
		r = wait_signal(set, NULL, PG_FOREVER);
	while (r == -EINTR);
	if (r < 0)
		return -r;
	*sig = r;
	return 0;
}
