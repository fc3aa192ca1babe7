/* SPDX-License-Identifier: MIT */
/*
 * A stack that has run over is told of before the process dies of it.
 *
 * Each M has an alternate signal stack of its own, installed whenever the G it runs has none (m->ss_sp is NULL), and while the program's
 * action for SIGSEGV is the default, the kernel's is the handler below: it says which thread ran over, makes the action the default and
 * sends the signal again, so that the process dies where it would have, with the same siginfo.  The program sees none of it: pg_sigaction
 * and pg_sigaltstack answer from the books.
 *
 * A handler of the program with SA_ONSTACK must not run on an M's stack: it may park, and its G has none.  When pg_sigtramp finds
 * itself there it queues the signal on the G and kicks itself; the kick has no SA_ONSTACK.  Until it returns all signals are
 * blocked, the kick among them, or a frame on top would be moved together with the M's stack.  Where the program has
 * such a handler for faults, Ms have no stack of their own at all: it would be on the way each time.
 *
 * The kernel keeps the alternate stack in each signal frame and puts it in force again at its end, perhaps on another M.  Handlers
 * that may be moved write that of the M they end on into the frame (pg_own_stack_fix); between that and the return they may be moved
 * once more, then two Ms have one stack until either changes it: harmless unless both threads die at once.
 */
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/sigstate.h"

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

enum { RESERVE = 8192, NEAR = 256 }; /* for the handler; what code touches below its stack pointer */

_Atomic bool pg_onstack_faults;  /* the program handles a fault with SA_ONSTACK, or did */
static char **stack_end;          /* ld.so's, of the first thread's stack; by dlsym: a reference would make ld.so a needed library */

static size_t frame_size(void)
{
	size_t n = getauxval(AT_MINSIGSTKSZ);

	return n < 2048 ? 2048 : n;
}

size_t pg_own_stack_size(void)
{
	return (frame_size() + RESERVE + 4095) & ~(size_t)4095;
}

static void own_stack(struct pg_m *m, stack_t *ss)
{
	ss->ss_sp = m->own_ss;
	ss->ss_size = pg_own_stack_size();
	ss->ss_flags = 0;
	if (ss->ss_sp == NULL || atomic_load(&pg_onstack_faults)) {
		ss->ss_sp = NULL;
		ss->ss_size = 0;
		ss->ss_flags = SS_DISABLE;
	}
}

int pg_own_stack_install(struct pg_m *m)
{
	stack_t ss;

	own_stack(m, &ss);
	return (int)pg_sys(SYS_sigaltstack, &ss, NULL);
}

void pg_own_stack_hide(struct pg_g *g, ucontext_t *uc)
{
	if (g->altstack.ss_sp == NULL) {
		uc->uc_stack.ss_sp = NULL;
		uc->uc_stack.ss_flags = SS_DISABLE;
		uc->uc_stack.ss_size = 0;
	}
}

void pg_own_stack_fix(struct pg_g *g, ucontext_t *uc)
{
	struct pg_m *m = g->m == &pg_nullm ? g->wiredm : g->m;

	if (g->altstack.ss_sp == NULL && m)
		own_stack(m, &uc->uc_stack);
}

bool pg_on_own_stack(struct pg_g *g, const ucontext_t *uc)
{
	const char *lo = uc->uc_stack.ss_sp, *here = __builtin_frame_address(0);

	return lo && lo != g->altstack.ss_sp && here >= lo && here < lo + uc->uc_stack.ss_size;
}

/* Has g run over?  The bounds in *lo and *hi. */
static bool overflow(struct pg_g *g, const siginfo_t *info, const ucontext_t *uc, char **lo, char **hi)
{
	char *sp = (char *)pg_uc_sp(uc), *addr = info->si_addr;
	/* The kernel could not put a signal frame there: no address. */
	bool frame = info->si_code == SI_KERNEL;
	size_t guard = g->guard;

	*lo = g->stack_lo;
	*hi = g->stack_hi;
	if (g == &pg_main_g && g->slab == NULL && stack_end) {
		/* It grows to the limit, and below that no mapping is near. */
		struct rlimit rl;
		if (pg_sys(SYS_prlimit64, 0, RLIMIT_STACK, NULL, &rl) < 0 || rl.rlim_cur == RLIM_INFINITY)
			return false;
		*hi = (char *)(((uintptr_t)*stack_end + 4095) & ~(uintptr_t)4095);
		*lo = *hi - rl.rlim_cur;
		if (!frame && addr >= sp - NEAR && addr < *lo + (256 << 10) && sp < *hi && addr > *lo - (1 << 20))
			return true;
		guard = 1 << 20;
	}
	if (*lo == NULL || guard == 0 || info->si_code <= 0)
		return false;
	if (frame)
		return sp >= *lo - guard && sp < *lo + frame_size() + NEAR;
	return addr >= *lo - guard && addr < *lo && addr >= sp - NEAR;
}

/* By the default action, as soon as the handler returns: where the fault was. */
static void die(int sig, siginfo_t *info)
{
	struct pg_ksigaction dfl = {0};

	pg_sys(SYS_rt_sigaction, sig, &dfl, NULL, 8);
	if (pg_sys(SYS_rt_tgsigqueueinfo, getpid(), pg_sys(SYS_gettid), sig, info) < 0)
		pg_sys(SYS_tgkill, getpid(), pg_sys(SYS_gettid), sig);
}

static void fault(int sig, siginfo_t *info, void *ctx)
{
	static _Atomic int dying;
	struct pg_g *g = pg_self_;
	char *lo, *hi;

	if (g && info->si_code > 0 && atomic_exchange(&dying, 1))
		for (;;)
			pg_sys(SYS_sched_yield); /* another thread is about to end the process */
	if (g && overflow(g, info, ctx, &lo, &hi))
		pg_say("stack overflow in thread %u \"%s\": its stack of %lu bytes at %p-%p is used up; %s", g->tid,
		       g->name[0] ? g->name : g == &pg_main_g ? "main" : "", (unsigned long)(hi - lo), (void *)lo, (void *)hi,
		       g == &pg_main_g ? "see ulimit -s" : "see pthread_attr_setstacksize, PGREEN_STACK");
	die(sig, info);
}

bool pg_fault_overflow(struct pg_g *g, int sig, siginfo_t *info, const ucontext_t *uc)
{
	char *lo, *hi;

	if (!overflow(g, info, uc, &lo, &hi))
		return false;
	die(sig, info);
	return true;
}

void pg_fault_action(struct pg_ksigaction *k)
{
	*k = (struct pg_ksigaction){(void *)fault, SA_SIGINFO | SA_ONSTACK | PG_SA_RESTORER, pg_arch_restorer, ~0ull};
}

bool pg_fault_is(const struct pg_ksigaction *k)
{
	return k->handler == (void *)fault;
}

void pg_fault_init(void)
{
	stack_end = dlsym(RTLD_DEFAULT, "__libc_stack_end");
}

void pg_fault_start(void)
{
	struct pg_ksigaction k = {0};

	if (pg_sys(SYS_rt_sigaction, SIGSEGV, NULL, &k, 8) == 0 && k.handler == (void *)SIG_DFL) {
		pg_fault_action(&k);
		pg_sys(SYS_rt_sigaction, SIGSEGV, &k, NULL, 8);
	}
}
