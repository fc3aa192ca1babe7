/* SPDX-License-Identifier: MIT */
/* What the files about signals share: signal.c (delivery), sigqueue.c (pending signals), signode.c, sigtimer.c, sigcalls.c (what programs call), sigmask.c (masks), kick.c (signal 32). */
#ifndef PG_SIGSTATE_H
#define PG_SIGSTATE_H

#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "core/proc.h"
#include "core/signal.h"

enum { PG_NSIG = 64 };
#define PG_FAULTS (pg_sigbit(SIGSEGV) | pg_sigbit(SIGBUS) | pg_sigbit(SIGFPE) | pg_sigbit(SIGILL) | pg_sigbit(SIGTRAP) | pg_sigbit(SIGSYS))
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif
#define PG_UNBLOCKABLE (pg_sigbit(SIGKILL) | pg_sigbit(SIGSTOP) | pg_sigbit(32) | pg_sigbit(33))

/* The kernel's form. */
struct pg_ksigaction {
	void *handler;
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};
extern struct pg_ksigaction pg_sigacts[PG_NSIG + 1]; /* the program's; written by sigcalls.c under its lock */

struct pg_sigq {
	struct pg_sigq *next;
	_Atomic uint32_t nextfree; /* index + 1 of the next free node */
	uint32_t idx;
	struct pg_g *to;           /* process queue: who has been told; inbox: whom it came to */
	uint64_t timer;            /* key of a record in sigtimer.c, if timed */
	bool timed;
	siginfo_t info;
};
/* A node of the pool, lock-free; NULL: none.  limited: RLIMIT_SIGPENDING counts.  Any context. */
struct pg_sigq *pg_sigq_get(bool limited);
void pg_sigq_put(struct pg_sigq *q);

extern _Atomic uint64_t pg_sig_procpend;              /* signals for the process that no G has taken yet */
extern _Atomic int pg_sig_transit;                    /* handlers of the kernel's that have not yet said for whom their signal is */
extern _Atomic uint64_t pg_sig_accepted;              /* what some live G has unblocked */
extern _Atomic uint32_t pg_sig_accept_gen, pg_sig_accept_applied;
extern int pg_sysmon_tid;
/* A handler of the program is about to interrupt pc.  1: inside libc, it is counted; 0: elsewhere; -1: inside libc, and a
 * fork is going on, which would wait for a lock that the interrupted code may hold while the handler waits for the fork. */
int pg_libc_handler_begin(struct pg_g *g, uintptr_t pc);
void pg_libc_handler_end(struct pg_g *g, int begun);

static inline uint64_t pg_uc_mask(const ucontext_t *uc)
{
	uint64_t m;

	memcpy(&m, &uc->uc_sigmask, sizeof m);
	return m;
}

static inline void pg_set_uc_mask(ucontext_t *uc, uint64_t m)
{
	memcpy(&uc->uc_sigmask, &m, sizeof m);
}

/* rt without the look at attn and pending: for a few lines that must stay on this M. */
static inline void pg_rt_raise(struct pg_g *g)
{
	atomic_store_explicit(&g->rt, atomic_load_explicit(&g->rt, memory_order_relaxed) + 1, memory_order_relaxed);
	pg_barrier();
}

/*
 * After pg_rt_raise from user code: settles whose the P is, for what makes Gs runnable.  If it is gone, m->p says so, and the next
 * pg_rt_enter, which still finds TAKEN, gets another.
 */
static inline void pg_rt_settle(struct pg_g *g)
{
	struct pg_m *m = g->m;
	uint32_t a;

	if (m == &pg_nullm || g == &m->g0 || atomic_load_explicit(&m->attn, memory_order_relaxed) == 0)
		return;
	atomic_thread_fence(memory_order_seq_cst);
	while ((a = atomic_load(&m->attn)) & PG_ATTN_WANT)
		atomic_compare_exchange_strong(&m->attn, &a, a & ~(uint32_t)PG_ATTN_WANT);
	if (a & PG_ATTN_TAKEN)
		m->p = NULL;
}

static inline void pg_rt_lower(struct pg_g *g)
{
	pg_barrier();
	atomic_store_explicit(&g->rt, atomic_load_explicit(&g->rt, memory_order_relaxed) - 1, memory_order_relaxed);
}

static inline bool pg_sig_default_ignored(int sig)
{
	return sig == SIGCHLD || sig == SIGCONT || sig == SIGURG || sig == SIGWINCH;
}

/* A handler that runs on a g0 or on sysmon.  A kick that interrupts it and changes the mask of the thread must change what it
 * will go back to as well. */
struct pg_tramp {
	struct pg_tramp *prev;
	ucontext_t *uc;
};

/* g's mask in the books; in the kernel too if asked to. rt > 0, g is the caller. */
void pg_sig_setmask(struct pg_g *g, uint64_t mask, bool kernel);
/* Takes one pending signal of set off g or off the process; 0: none.  By g, rt > 0. */
int pg_sig_take(struct pg_g *g, uint64_t set, siginfo_t *info);
/* A signal for the process becomes pending; a G that takes it is told.  here: the G it came to, if that has it unblocked.  rt > 0, with
 * the P settled. */
void pg_sig_route(int sig, const siginfo_t *info, struct pg_g *here);
/* The same, left for the next context that may do it: g, which was interrupted, is in the runtime.  Any context. */
void pg_sig_inbox(struct pg_g *g, int sig, const siginfo_t *info, struct pg_g *here);
/* g does not take these any more: whatever of them is pending for the process is told to others.  rt > 0. */
void pg_sig_retarget(uint64_t bits);
uint64_t pg_sig_thread(struct pg_g *g);  /* pending for g alone; by g, rt > 0 */
void pg_sig_drop(struct pg_g *g);        /* nothing is, any more; by g, rt > 0 */
void pg_sig_discard(struct pg_g *g, int sig); /* the signal is ignored from now on; by g, rt > 0 */
/* Runs the handlers of what is pending and unblocked; uc: the frame that was interrupted, or NULL. rt == 0. */
void pg_sig_deliver(struct pg_g *g, ucontext_t *uc);
/* The kernel's handler for all signals that the program handles. */
void pg_sigtramp(int sig, siginfo_t *info, void *ctx);
/* pg_gkill for a timer's record; 1: one of that number was pending already. */
int pg_gkill_timer(struct pg_g *g, int sig, const siginfo_t *info, uint64_t timer);
/* Its node is taken: fills in the overrun count. */
void pg_sigtimer_taken(uint64_t timer, siginfo_t *info);
/* On sysmon, from the kick: the kernel's timer has expired. */
void pg_sigtimer_fired(const siginfo_t *info);
/* From the inbox: to its thread.  rt > 0. */
void pg_sigtimer_deliver(uint64_t timer);
bool pg_sig_inbox_timer(struct pg_g *g, uint64_t timer); /* like pg_sig_inbox; false: no node */
/* fault.c: the alternate stacks of Ms, and the default action of SIGSEGV. */
extern _Atomic bool pg_onstack_faults;
int pg_own_stack_install(struct pg_m *m);                  /* on m; 0 or -errno */
void pg_own_stack_hide(struct pg_g *g, ucontext_t *uc);    /* as if there were none: for the program's handlers */
void pg_own_stack_fix(struct pg_g *g, ucontext_t *uc);     /* at the end of a handler that may have been moved: rt > 0 */
bool pg_on_own_stack(struct pg_g *g, const ucontext_t *uc); /* the calling handler is on an M's */
/* On an M's stack, for a handler of the program: its thread has run over.  Natively no frame of the handler fits: the process dies. */
bool pg_fault_overflow(struct pg_g *g, int sig, siginfo_t *info, const ucontext_t *uc);
void pg_fault_action(struct pg_ksigaction *k);
bool pg_fault_is(const struct pg_ksigaction *k);
void pg_kick_do_cmd(struct pg_g *g);
void pg_sigqueue_forked(void), pg_sigtimers_forked(void), pg_sigmask_forked(void), pg_sigcalls_forked(void), pg_kick_forked(void);

#endif
