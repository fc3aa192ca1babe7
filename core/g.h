/* SPDX-License-Identifier: MIT */
/*
 * G, M and P: the three structures everything else is about, and the one thread-local variable.
 *
 *   G  a thread of the program.  Green (mode PG_GREEN) Gs are multiplexed over Ms; native ones (mode PG_NATIVE) own
 *      their OS thread: the first thread before the runtime starts, foreign threads, wired threads, the child
 *      of a vfork.  A native G runs without a P; its park is a note_sleep.
 *   M  an OS thread that runs green Gs, with its scheduler context g0.
 *   P  the right to run green Gs, with its queues.
 *
 * Who touches what:
 *   - g->rt counts how deep this G is inside the runtime.  0: user code; the G may be preempted, its P retaken,
 *     signal handlers run at once.  >0: the G owns its M and P, handlers and preemption are put off until it is 0.
 *     Only code under rt > 0 may look at g->m.  Written by the G alone; read by sysmon after an expedited membarrier.
 *   - all shim code outside rt touches only its own G and the program's memory.
 * Structures are type-stable: recycled, never unmapped, so a late wake-up hits a valid object.
 */
#ifndef PG_G_H
#define PG_G_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lock.h"
#include "core/note.h"

#define pg_likely(x) __builtin_expect(!!(x), 1)
#define pg_unlikely(x) __builtin_expect(!!(x), 0)
#define pg_barrier() atomic_signal_fence(memory_order_seq_cst)

#define PG_FOREVER INT64_MAX /* a deadline that never comes */

enum pg_mode { PG_NATIVE, PG_GREEN };

/* State of a G, for dumps; owner: the M running it, or the one that makes it runnable. */
#define PG_GSTATES(X) X(idle) X(runnable) X(running) X(waiting) X(dead) X(ghost)
enum pg_gstate {
#define X(n) PG_G_##n,
	PG_GSTATES(X)
#undef X
};

/* Why a G is parked; names are printed by dumps and traces. */
#define PG_REASONS(X)                                                                                                  \
	X(none) X(sema) X(cond) X(join) X(sleep) X(netread) X(netwrite) X(poll) X(sigwait) X(exit) X(stopped) X(other)
enum pg_reason {
#define X(n) PG_WAIT_##n,
	PG_REASONS(X)
#undef X
};

/*
 * g->wait, the word by which a parked G is claimed (see sched.c):
 *   IDLE    not about to wait.                            -> PREP by the G
 *   PREP    the G publishes itself on queues.             -> PARKED by the switch, WOKEN|why by a waker, IDLE by the G
 *   PARKED  off its M.                                    -> WOKEN|why by the one waker that wins, who readies it
 *   WOKEN   claimed; the low byte is WOKEN, the rest why. -> IDLE by the G
 */
enum { PG_W_IDLE, PG_W_PREP, PG_W_PARKED, PG_W_WOKEN };
enum pg_why { PG_WHY_READY = 0x100, PG_WHY_TIMEOUT = 0x200, PG_WHY_SIGNAL = 0x400 };

/* g->pending: what rt_exit must look at. */
enum { PG_PEND_PREEMPT = 1, PG_PEND_SIGNAL = 2, PG_PEND_CANCEL = 4, PG_PEND_WIRE = 8 };

/* Life of a G seen from join and detach: g->life. */
enum { PG_LIFE_JOINABLE, PG_LIFE_DETACHED, PG_LIFE_EXITED };

#define PG_NAME_MAX 16
#define PG_CPUWORDS 16 /* words in a set of CPUs: glibc's cpu_set_t */
#define PG_MAGIC 0x70677265656e4721u

struct pg_m;
struct pg_p;
struct pg_slab;

struct pg_timer {
	int64_t when;    /* CLOCK_MONOTONIC ns; protected by the heap's lock */
	struct pg_p *p;  /* the heap it is on, or NULL; written by the G, under the heap's lock */
	int idx;         /* place in that heap, -1: not queued */
};

struct pg_sigq; /* core/sigqueue.c */

struct pg_g {
	/* the switch */
	void *sp;                   /* saved stack pointer; valid while not running */
	void *tcb;                  /* its thread pointer; constant */
	struct pg_m *m;             /* the M running it, native: &pg_nullm; read under rt > 0 */
	_Atomic uint32_t rt;        /* see above */
	_Atomic uint32_t pending;   /* PG_PEND_*; set by anyone, cleared by the G */
	uint32_t mode;              /* enum pg_mode; written by the G */
	_Atomic uint32_t wait;      /* PG_W_*, see sched.c */
	_Atomic uint32_t insys;     /* odd: announced, may be blocked in a system call; counts. Plain stores by the G */
	_Atomic uint32_t state;     /* enum pg_gstate */
	struct pg_g *schedlink;     /* next on a list of runnable or free Gs; owner of the list */
	struct pg_timer timer;      /* its one deadline */
	struct pg_note note;        /* a native G sleeps here */
	_Atomic uint32_t out;       /* native: asleep in the runtime, or waiting for a stopped world; by the G, read by fork */
	_Atomic uint32_t reason;    /* enum pg_reason */
	int64_t since;              /* CLOCK_MONOTONIC ns at park, when somebody asked for it */

	/* identity */
	uint64_t magic;
	uint32_t tid;               /* what gettid says */
	uint32_t oswired;           /* keeps its OS thread for good */
	_Atomic int ostid;          /* the kernel's number of that thread, 0: none. cputime.c */
	char name[PG_NAME_MAX];
	struct pg_g *alllink;       /* list of all Gs; under the allg lock */

	/* the thread */
	void *(*fn)(void *);
	int (*fn_c11)(void *);
	void *arg;
	void *result;
	_Atomic uint32_t life;      /* PG_LIFE_* */
	_Atomic uint32_t dead;      /* its stack is free of it; joiners look here */
	_Atomic(struct pg_g *) joiner;
	void *stack_lo, *stack_hi;  /* what pthread_getattr_np says */
	void *stack_top;            /* where frames begin */
	size_t guard;
	struct pg_slab *slab;       /* where its memory came from; NULL: not ours */
	int policy, prio;           /* recorded scheduling parameters */
	_Atomic bool narrow;        /* cpus is its set, narrower than the process's */
	unsigned long *cpus;        /* PG_CPUWORDS, kept when it ends; wire.c */
	int pdeathsig;              /* what PR_SET_PDEATHSIG said */
	_Atomic int64_t cputime;    /* ns charged to it, or base of a wired one's clock: cputime.c */
	int64_t cpusplit[2];        /* user and system time as last told to it */
	struct pg_m *wiredm;        /* the M a wired G keeps */
	uint32_t threads_gen;       /* tls.c: since when its TCB is on libc's list of threads */
	bool fresh;                 /* its TLS has its initial image */
	_Atomic bool spent;         /* has used up a time slice and not waited since; by who runs it */
	bool userstack;
	bool tsd_used;
	void *exit_tail;            /* shim: what runs last */

	/* cancellation and unwinding: shim/cancel.c */
	_Atomic uint32_t cancel_state, cancel_type, cancelled, cancel_point;
	void *exit_buf;             /* jmp_buf at the bottom of the stack */
	uint32_t exiting;
	void *unwind_exc[8];        /* struct _Unwind_Exception */
	void *once;                 /* chain of pthread_once in progress */
	void *condwait;             /* chain of waits for condition variables that signal handlers have interrupted */

	/* signals: core/signal.c */
	uint64_t sigmask;           /* what the program believes is blocked; written by the G */
	_Atomic uint64_t sigpend, sigclaim, sigbare; /* thread-directed, not yet delivered: sigqueue.c */
	_Atomic(struct pg_sigq *) sigq; /* their siginfo, pushed by anyone, taken by the G */
	struct pg_sigq *sigpriv, *sigprivtail; /* taken, in order of arrival; the G's */
	uint64_t sigprivset;        /* what is there */
	_Atomic uint64_t sigwaiting;/* set it waits for in pg_sigwait */
	int sigclass;               /* mask class it is counted in, -1: none */
	stack_t altstack;
	uint32_t quick;             /* since it had to wait: receives and polls, and 8 for an answer sent in between; the G's own. pg_io_quick */
	uint32_t sig_ran;           /* handlers run on this G */
	uint32_t sig_norestart;     /* of those, without SA_RESTART */
	uint32_t libc_handlers;     /* handlers running on it that interrupted libc */
	uintptr_t libc_frame[4];    /* where the first of them have their frames */
	struct pg_tramp *tramps;    /* of a g0 and sysmon: handlers running there, innermost first; its own */
	uint32_t cmdseq;            /* last pg_allthreads_syscall done by this OS thread (native G, g0) */
};

/* An M.  Owned by its OS thread unless said otherwise. */
struct pg_m {
	struct pg_g *cur;           /* the G whose rt counts: a green G or g0. written by the M under rt; read by sysmon */
	struct pg_p *p;             /* the P it holds, NULL: none. written by the M, or by the retaker after it won */
	_Atomic uint32_t attn;      /* PG_ATTN_*: rt_enter must take its slow path: core/syscall.c */
	_Atomic uint32_t switches;  /* counts switches; read by sysmon */
	struct pg_g *prev;          /* the G just switched away from */
	unsigned prevop;            /* what finish does with it */
	bool (*commit)(struct pg_g *, void *);
	void *commitarg;
	struct pg_p *nextp;         /* P handed over by startm; before its note is woken */
	bool spinning;
	bool retire;                /* shall end; sysmon, before its note is woken */
	bool published;             /* on the list of all Ms */
	bool stays;                 /* never ends: mexit.c; the M */
	struct pg_g *firstg;        /* a G about to be wired, for which this M was made */
	struct pg_g *lockedg;       /* a wired G that has ended here */
	_Atomic int cleartid;       /* the kernel clears it when the thread is gone: sysmon.c, the dying */
	struct pg_m *dyinglink;     /* on sched.dying */
	struct pg_note note;        /* stopm sleeps here */
	struct pg_m *link;          /* on sched.midle; sched lock */
	struct pg_m *alllink;       /* all Ms; append-only */
	uint64_t sigmask;           /* the kernel's mask of this OS thread, as last set */
	void *ss_sp;                /* alternate stack of a G installed here, NULL: own_ss or none */
	char *own_ss;               /* an alternate stack of its own, for faults; constant */
	int tid;                    /* kernel's */
	uint32_t rnd;               /* xorshift state of the thief */
	_Atomic uint32_t cpuseq;    /* odd: these two are being changed. cputime.c */
	_Atomic int64_t cpumark;    /* its CPU time that has been charged */
	struct pg_g g0;
	/* what sysmon saw last: */
	uint32_t sm_switches, sm_insys;
	int64_t sm_since, sm_cpu, sm_ask, sm_call, sm_callask;
	_Atomic uint32_t skips;     /* preemptions put off in a row */
	_Atomic uint32_t kicked;    /* a kick is on its way: signal 32 queues, one at a time is enough */
	_Atomic uint32_t execing;   /* its G calls exec: no kick may be pending; set by the G */
	_Atomic uint32_t kickers;   /* how many are between the look at execing and the kick */
};

#define PG_RUNQ 256

struct pg_p {
	_Atomic uint32_t runqhead;  /* thieves and owner, by CAS */
	_Atomic uint32_t runqtail;  /* owner */
	_Atomic(struct pg_g *) runnext;
	_Atomic(struct pg_g *) runq[PG_RUNQ];
	uint32_t schedtick;         /* owner */
	uint32_t nextruns;          /* consecutive takes from runnext */
	_Atomic bool owe;           /* sysmon: it is the turn of a spent G; cleared by the owner */
	uint32_t yields;            /* to spent Gs; owner */
	_Atomic uint32_t spentruns; /* spent Gs taken; owner */
	uint32_t sm_spentruns;      /* what sysmon saw last, and since when */
	int64_t sm_owes;
	_Atomic uint32_t status;    /* PG_P_* */
	int id;
	_Atomic(struct pg_m *) m;   /* the M that holds it */
	struct pg_p *link;          /* on sched.pidle or sched.pspawn; sched lock */
	bool spinning;              /* how the M asked for in pspawn shall start; sched lock */
	_Atomic(struct pg_g *) gfree; /* dead Gs of one size: stack.c */
	int ngfree;                 /* how many, or more; owner */
	uint32_t handoffs;

	struct pg_lock timerlock;   /* protects the heap */
	struct pg_heapent { int64_t when; struct pg_g *g; } *heap;
	int nheap, capheap;
	_Atomic int64_t timer0;     /* when of heap[0], PG_FOREVER when empty */
} __attribute__((aligned(128)));

/*
 * m->attn, by which another thread takes the P of an M, or keeps it out of the runtime:
 *   WANT    sysmon would like the P: -> TAKEN by sysmon (it has it), -> 0 by the M at its next rt_enter (it keeps it)
 *   TAKEN   the P is gone: -> 0 by the M, which then looks for another
 *   STOP    (a bit of its own) the world is stopped: rt_enter waits
 *   FENCE   (for ever) no membarrier here: rt_enter needs a fence
 */
enum { PG_ATTN_WANT = 1, PG_ATTN_TAKEN = 2, PG_ATTN_STOP = 4, PG_ATTN_FENCE = 8 };
extern struct pg_m pg_nullm;   /* the M of native Gs; never written */

/* The current G: per G by construction, since the thread pointer moves with it. */
extern __thread struct pg_g *pg_self_;

/* True from the first pthread_create on (false again in a fork's child). */
extern _Atomic bool pg_started;

/* The calling thread's G when pg_self_ is not set: the first thread, or a foreign one, which is adopted. */
struct pg_g *pg_self_slow(void);

/* The calling G; never NULL.  Blocks: nothing. */
static inline struct pg_g *pg_self(void)
{
	struct pg_g *g = pg_self_;
	return pg_likely(g != NULL) ? g : pg_self_slow();
}

/*
 * Enters and leaves the runtime; nests.  rt_exit delivers what came meanwhile: signal handlers, a preemption, both of
 * which may switch.  Between the two no user code runs.
 */
void pg_rt_enter_slow(struct pg_g *g);
void pg_rt_exit_slow(struct pg_g *g);

static inline void pg_rt_enter(struct pg_g *g)
{
	uint32_t rt = atomic_load_explicit(&g->rt, memory_order_relaxed);
	atomic_store_explicit(&g->rt, rt + 1, memory_order_relaxed);
	pg_barrier(); /* pairs with the membarrier in pg_retake */
	if (rt == 0 && pg_unlikely(atomic_load_explicit(&g->m->attn, memory_order_relaxed) != 0))
		pg_rt_enter_slow(g);
}

static inline void pg_rt_exit(struct pg_g *g)
{
	uint32_t rt = atomic_load_explicit(&g->rt, memory_order_relaxed);
	atomic_store_explicit(&g->rt, rt - 1, memory_order_release);
	pg_barrier();
	if (rt == 1 && pg_unlikely(atomic_load_explicit(&g->pending, memory_order_relaxed) != 0))
		pg_rt_exit_slow(g);
}

#endif
