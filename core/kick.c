/* SPDX-License-Identifier: MIT */
/*
 * Signal 32, the kick: makes an M look at its G (deliver, cancel, yield), at a duty every OS thread has in
 * pg_allthreads_syscall, at its own mask.  glibc keeps the number for itself, so no program blocks or catches it.  It is blocked only
 * while it is handled and by pg_sigwait, which waits for it too.  At most one is under way to an M (m->kicked).
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

static struct { long nr, a, b, c, r; _Atomic uint32_t seq, left; _Atomic bool differs; } cmd;
/* One command at a time; held while an M is made as well, which has its maker's ids, and before one ends.  Rank: first. */
struct pg_lock pg_idlock;
_Atomic int pg_preempted_in_libc; /* Gs that were preempted inside libc and have not gone on; fork waits for them */

extern void pg_find_text(uintptr_t *libc_lo, uintptr_t *libc_hi, uintptr_t *ld_lo, uintptr_t *ld_hi);

enum sent { GONE, SENT, LATER };

/* LATER: its G is about to exec, and looks for itself if that fails. */
static enum sent send(struct pg_m *m)
{
	enum sent r = GONE;

	atomic_fetch_add(&m->kickers, 1); /* pairs with pg_exec_hold: it stores execing, then looks */
	if (atomic_load(&m->execing))
		r = LATER;
	else if (m->tid && pg_sys(SYS_tgkill, getpid(), m->tid, PG_SIG_KICK) == 0)
		r = SENT;
	atomic_fetch_sub(&m->kickers, 1);
	return r;
}

void pg_kick(struct pg_m *m)
{
	if (atomic_exchange(&m->kicked, 1) == 0 && send(m) != SENT)
		atomic_store(&m->kicked, 0);
}

static struct pg_m *own_m(struct pg_g *g)
{
	return g->mode == PG_GREEN ? *(struct pg_m *volatile *)&g->m : g->oswired == 1 ? g->wiredm : NULL;
}

void pg_exec_hold(struct pg_g *g)
{
	struct pg_m *m;

	while ((m = own_m(g)) != NULL) {
		atomic_store(&m->execing, 1);
		while (atomic_load(&m->kickers))
			pg_cpu_relax();
		pg_sys(SYS_getpid); /* what is pending comes now */
		if (own_m(g) == m)
			return;
		atomic_store(&m->execing, 0); /* it moved us */
	}
}

void pg_exec_release(struct pg_g *g)
{
	struct pg_m *m = own_m(g);

	if (m == NULL)
		return;
	atomic_store(&m->execing, 0);
	/* What could not be said meanwhile. */
	pg_kick_do_cmd(g);
	if (atomic_load(&g->pending)) {
		pg_rt_enter(g);
		pg_rt_exit(g);
	}
}

static struct { uintptr_t lo, hi; } libc_text, ld_text;

static bool in_libc(uintptr_t pc)
{
	return (pc >= libc_text.lo && pc < libc_text.hi) || (pc >= ld_text.lo && pc < ld_text.hi);
}

_Atomic int pg_handlers_in_libc; /* fork waits for them as well */
_Atomic bool pg_handlers_put_off; /* since the world was stopped */

extern const char __ehdr_start[] __attribute__((visibility("hidden"))), etext[] __attribute__((visibility("hidden")));

int pg_libc_handler_begin(struct pg_g *g, uintptr_t pc)
{
	/* In our own code: perhaps at the end of a handler, with libc below. */
	bool own = pc >= (uintptr_t)__ehdr_start && pc < (uintptr_t)etext;

	if ((!in_libc(pc) && !own) || !atomic_load(&pg_started))
		return 0;
	atomic_fetch_add(&pg_handlers_in_libc, 1); /* pairs with prepare in fork.c: it stores stopped, then looks */
	if (atomic_load(&pg_sched.stopped) && g->libc_handlers == 0) {
		atomic_store(&pg_handlers_put_off, true);
		/* pairs with nudge_late: if the world goes on already, nobody may look for us any more */
		if (atomic_load(&pg_sched.stopped)) {
			atomic_fetch_sub(&pg_handlers_in_libc, 1);
			return -1;
		}
	}
	if (g->libc_handlers < sizeof g->libc_frame / sizeof g->libc_frame[0])
		g->libc_frame[g->libc_handlers] = (uintptr_t)__builtin_frame_address(0);
	g->libc_handlers++;
	return 1;
}

void pg_libc_handlers_left(struct pg_g *g, uintptr_t sp)
{
	uint32_t n = g->libc_handlers;
	uintptr_t lo = (uintptr_t)g->altstack.ss_sp, size = g->altstack.ss_size;

	for (; n > 0; n--) {
		if (n > sizeof g->libc_frame / sizeof g->libc_frame[0])
			continue; /* deeper than the last one we know of: left when that is */
		uintptr_t frame = g->libc_frame[n - 1];
		bool alt = frame - lo < size;
		if (alt == (sp - lo < size) ? sp <= frame : !alt)
			break;
		while (g->libc_handlers >= n)
			pg_libc_handler_end(g, 1);
	}
}

void pg_libc_handler_end(struct pg_g *g, int begun)
{
	if (begun != 1 || g->libc_handlers == 0)
		return;
	g->libc_handlers--;
	atomic_fetch_sub(&pg_handlers_in_libc, 1);
}

void pg_kick_do_cmd(struct pg_g *g)
{
	struct pg_g *os = g->m == &pg_nullm ? g : &g->m->g0;
	uint32_t seq = atomic_load(&cmd.seq);

	if (os->cmdseq == seq || atomic_load(&cmd.left) == 0)
		return;
	os->cmdseq = seq;
	if (pg_sys(cmd.nr, cmd.a, cmd.b, cmd.c) != cmd.r)
		atomic_store(&cmd.differs, true);
	atomic_fetch_sub(&cmd.left, 1);
}

void pg_kick_mend(struct pg_m *m)
{
	pg_lock(&pg_idlock);
	m->tid = 0;
	pg_unlock(&pg_idlock);
}

/* The mask of a g0 or of sysmon, when this handler and those that it has interrupted have returned. */
static void set_mask_below(struct pg_g *g, ucontext_t *uc, uint64_t mask)
{
	pg_set_uc_mask(uc, mask);
	for (struct pg_tramp *t = g->tramps; t; t = t->prev)
		pg_set_uc_mask(t->uc, mask);
}

static void kick(int sig, siginfo_t *info, void *ctx)
{
	ucontext_t *uc = ctx;
	struct pg_g *g = pg_self_;
	uint32_t gen;

	(void)sig;
	if (g == NULL)
		return;
	if (info->si_code == SI_TIMER && g == pg_sysmon_g) {
		pg_sigtimer_fired(info);
		return;
	}
	if (g->m != &pg_nullm)
		atomic_store(&g->m->kicked, 0);
	else if (g->wiredm)
		atomic_store(&g->wiredm->kicked, 0);
	pg_kick_do_cmd(g);
	if (g == pg_sysmon_g) {
		do {
			gen = atomic_load(&pg_sig_accept_gen);
			set_mask_below(g, uc, ~atomic_load(&pg_sig_accepted) & ~pg_sigbit(PG_SIG_KICK));
		} while (gen != atomic_load(&pg_sig_accept_gen));
		/* In force before it is said to be; the kick itself stays blocked until we return, so gen only grows. */
		uint64_t m = pg_uc_mask(uc) | pg_sigbit(PG_SIG_KICK);
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &m, NULL, 8);
		atomic_store(&pg_sig_accept_applied, gen);
		return;
	}
	if (g->m != &pg_nullm && g == &g->m->g0) {
		if (~(pg_uc_mask(uc) & g->m->sigmask) & ~atomic_load(&pg_sig_accepted) & ~PG_UNBLOCKABLE) {
			/* In force before it is said to be. */
			uint64_t all = ~PG_UNBLOCKABLE | pg_sigbit(PG_SIG_KICK);
			pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
			set_mask_below(g, uc, ~PG_UNBLOCKABLE);
			g->m->sigmask = ~PG_UNBLOCKABLE;
		}
		return;
	}
	if (atomic_load_explicit(&g->rt, memory_order_relaxed) > 0)
		return; /* at rt_exit */
	int e = errno;
	uint32_t pend = atomic_load(&g->pending);
	if (pend & (PG_PEND_SIGNAL | PG_PEND_CANCEL)) {
		int begun = pg_libc_handler_begin(g, pg_uc_pc(uc));
		pg_own_stack_hide(g, uc);
		if (begun >= 0)
			pg_sig_deliver(g, uc);
		pg_libc_handler_end(g, begun);
	}
	if (pend & PG_PEND_PREEMPT && g->mode == PG_GREEN) {
		atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_PREEMPT);
		bool libc = in_libc(pg_uc_pc(uc));
		if (g->insys & 1) {
			pg_own_stack_fix(g, uc);
			errno = e;
			return;
		}
		pg_rt_raise(g);
		if (libc && atomic_fetch_add(&g->m->skips, 1) < 1000) {
			pg_own_stack_fix(g, uc);
			pg_rt_lower(g); /* somewhere inside libc, perhaps with a lock: sysmon asks again soon */
			errno = e;
			return;
		}
		atomic_store(&g->m->skips, 0);
		/* This M goes on with others: it must be open to kicks again. */
		uint64_t mask = g->sigmask;
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
		pg_rt_lower(g);
		pg_rt_enter(g);
		if (libc)
			atomic_fetch_add(&pg_preempted_in_libc, 1);
		pg_switchaway(g, PG_OP_SPENT);
		if (libc)
			atomic_fetch_sub(&pg_preempted_in_libc, 1);
		pg_rt_exit(g);
	}
	pg_rt_raise(g);
	pg_own_stack_fix(g, uc);
	pg_rt_lower(g);
	errno = e;
}

long pg_allthreads_syscall(long nr, long a, long b, long c)
{
	struct pg_g *g = pg_self();
	int self, pid = getpid();
	long r;

	pg_rt_enter(g);
	pg_lock(&pg_idlock);
	self = (int)pg_sys(SYS_gettid);
	r = pg_sys(nr, a, b, c);
	if (r >= 0) {
		cmd.nr = nr;
		cmd.a = a;
		cmd.b = b;
		cmd.c = c;
		cmd.r = r;
		atomic_store(&cmd.differs, false);
		(g->m == &pg_nullm ? g : &g->m->g0)->cmdseq = atomic_load(&cmd.seq) + 1;
		uint32_t n = 1;
		atomic_store(&cmd.left, 1u << 20);
		atomic_fetch_add(&cmd.seq, 1);
		if (pg_sysmon_tid && pg_sys(SYS_tgkill, pid, pg_sysmon_tid, PG_SIG_KICK) == 0)
			n++;
		for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
			if (m->tid && m->tid != self && send(m) != GONE)
				n++;
		atomic_fetch_sub(&cmd.left, (1u << 20) - (n - 1));
		while (atomic_load(&cmd.left) != 0)
			pg_sys(SYS_sched_yield);
		if (atomic_load(&cmd.differs))
			r = PG_ALLTHREADS_DIFFER;
	}
	pg_unlock(&pg_idlock);
	/* Who does nothing else is hardly ever met outside of the runtime, where it could be preempted. */
	pg_yield();
	pg_rt_exit(g);
	return r;
}

static struct pg_ksigaction kick_before; /* posix_spawn leaves signal 32 ignored: so shall the child of a fork find it */

/* On sysmon. */
void pg_signal_started(void)
{
	struct pg_ksigaction k = {(void *)kick, SA_SIGINFO | SA_RESTART | PG_SA_RESTORER, pg_arch_restorer, 0};
	uint64_t m;

	pg_find_text(&libc_text.lo, &libc_text.hi, &ld_text.lo, &ld_text.hi);
	pg_sys(SYS_rt_sigaction, PG_SIG_KICK, &k, &kick_before, 8);
	m = ~atomic_load(&pg_sig_accepted) & ~pg_sigbit(PG_SIG_KICK);
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &m, NULL, 8);
}

void pg_kick_forked(void)
{
	pg_sys(SYS_rt_sigaction, PG_SIG_KICK, &kick_before, NULL, 8);
	pg_idlock = (struct pg_lock){0};
}
