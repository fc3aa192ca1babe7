/* SPDX-License-Identifier: MIT */
/* What the files of the scheduler share among themselves: sched.c, runq.c, syscall.c, sysmon.c, timer.c, netpoll_epoll.c, fork.c. */
#ifndef PG_PROC_H
#define PG_PROC_H

#include "core/g.h"
#include "core/sched.h"

/* What finish_prev does with the G just switched away from: m->prevop. */
enum { PG_OP_NONE, PG_OP_PARK, PG_OP_YIELD, PG_OP_GLOBAL, PG_OP_SPENT, PG_OP_EXIT, PG_OP_MOVE };

enum { PG_P_IDLE, PG_P_RUNNING };

struct pg_glist {
	struct pg_g *head, *tail;
	int n;
};

/* The scheduler's shared state. */
struct pg_sched {
	struct pg_lock lock;          /* everything here that is not atomic; rank: below all others, taken last */
	struct pg_m *midle;           /* idle Ms, nmidle of them, the last that worked first */
	struct pg_m *mfree;           /* Ms without an OS thread */
	int nmidle;
	bool capped;                  /* PGREEN_MAXM was in the way, and nobody has been told */
	struct pg_p *pidle;
	struct pg_p *pspawn;          /* Ps that wait for an M which sysmon is to make */
	_Atomic int npidle;
	struct pg_p *pheld;           /* idle Ps that nobody may have, npheld of them: chaos.c */
	_Atomic int npheld;           /* written under the sched lock */
	_Atomic int nmspinning;
	struct pg_glist runq;
	struct pg_glist spent;        /* Gs whose time slice was over: runq.c */
	_Atomic int runqsize;         /* of both */
	_Atomic int spentsize;
	_Atomic(struct pg_m *) allm;  /* push-only list */
	int mcount;
	_Atomic int polling;          /* 1 while an M sleeps in the poller */
	_Atomic int64_t polluntil;    /* until when, at the latest */
	_Atomic int64_t lastpoll;     /* when the poller was last asked */
	_Atomic int pollwaiters;      /* Gs that wait in the poller */
	_Atomic uint32_t sysmonwait;  /* sysmon sleeps on its note */
	struct pg_note sysmonnote;
	_Atomic(struct pg_m *) dying; /* Ms of wired Gs that have ended; pushed by them, emptied by sysmon */
	_Atomic uint32_t stopped;     /* the world is stopped: futex word, see fork.c */
};
extern struct pg_sched pg_sched;

/* runq.c */
void pg_runqput(struct pg_p *p, struct pg_g *g, bool next); /* owner of p only */
struct pg_g *pg_runqget(struct pg_p *p);                    /* owner of p only */
struct pg_g *pg_runqsteal(struct pg_p *p, struct pg_p *victim, bool stealnext);
bool pg_runqempty(struct pg_p *p);
void pg_globput(struct pg_g *g);               /* takes the sched lock */
void pg_globputlist(struct pg_glist *l);       /* takes the sched lock */
void pg_spentput(struct pg_g *g);
struct pg_g *pg_spentget(struct pg_p *p);         /* sched lock held */
struct pg_g *pg_globget(struct pg_p *p, int max); /* sched lock held; the rest goes to p's queue */

/* sched.c, park.c, proc.c */
void pg_ready(struct pg_g *g);                 /* g: claimed by pg_wake, or new */
bool pg_claim(struct pg_g *g, enum pg_why why, bool *won);
void pg_wakep(void);                           /* an M more, if there is an idle P and nobody looks for work already */
void pg_injectlist(struct pg_glist *l);        /* makes all of them runnable */
void pg_switchaway(struct pg_g *g, unsigned op);
void pg_handoffp(struct pg_p *p);              /* p belongs to nobody: an M for it, or idle */
void pg_releasep(struct pg_m *m);
void pg_finish_exit(struct pg_g *g);           /* g has left its stack for good */
struct pg_p *pg_pidleget(void);                /* sched lock held */
void pg_pidleput(struct pg_p *p);              /* sched lock held */
void pg_acquirep(struct pg_m *m, struct pg_p *p);
bool pg_movem(struct pg_g *g);                 /* g, off its stack, goes on on a new M, without a P; false: there is none */
void pg_stopm(struct pg_m *m);                 /* on g0: sleeps until somebody gives m a P */
void pg_schedule(struct pg_m *m) __attribute__((noreturn)); /* the loop of a g0 */
void pg_g0_entry(void *m);                     /* the first frame of a g0 */
long pg_membarrier(void);
extern bool pg_have_membarrier;
void pg_m_syncsignals(struct pg_m *m, struct pg_g *g); /* signal.c: mask and alternate stack of g onto m */
size_t pg_own_stack_size(void);        /* of an M's alternate stack */
int pg_own_stack_install(struct pg_m *m);
void pg_fault_init(void);                         /* looks up what it needs; not under rt */
void pg_fault_start(void);             /* from now on stack overflows are reported */
void pg_signal_gstart(struct pg_g *g); /* a thread begins, ends to live with its mask */
void pg_signal_gend(struct pg_g *g);
void pg_signal_route_slow(struct pg_g *g);
extern _Atomic bool pg_signal_inbox;
/* Signals that came to this context while it was in the runtime: to the Gs they are for. */
static inline void pg_signal_route(struct pg_g *g)
{
	if (pg_unlikely(atomic_load_explicit(&pg_signal_inbox, memory_order_relaxed)))
		pg_signal_route_slow(g);
}
void pg_kick(struct pg_m *m);          /* signal 32 to this M */
void pg_kick_mend(struct pg_m *m);     /* its OS thread is about to end: no more kicks, m->tid = 0 */
void pg_spawn(void);
extern struct pg_lock pg_idlock;       /* kick.c; before the sched lock, which is not held */
extern struct pg_g *pg_sysmon_g;               /* set while it runs */

/* mexit.c */
void pg_mexit(struct pg_m *m) __attribute__((noreturn)); /* m's OS thread ends; on its g0 */
bool pg_bury(void);
void pg_mfree(struct pg_m *m);                  /* m has no OS thread */
void pg_retire(int64_t now);
void pg_capped_say(void);                       /* stats.c */

/* timer.c */
void pg_timer_add(struct pg_p *p, struct pg_g *g, int64_t when);
void pg_timer_del(struct pg_g *g);
int pg_timers_run(struct pg_p *p, int64_t now); /* wakes what is due; how many */
int64_t pg_timers_next(void);                   /* earliest over all Ps */

/* netpoll_epoll.c, netpoll.c */
int pg_netpoll_init(void);
void pg_netpoll(int64_t until, struct pg_glist *l); /* Gs that became ready; sleeps until (0: not at all) */
void pg_netpoll_break(void);
void pg_netpoll_audit(int64_t now);

/* sysmon.c */
void pg_sysmon_start(void);
void pg_sysmon_wake(void);
void pg_sysmon_poke(void);                      /* at once, whatever it does */
/* What /proc has in file ("/stat") of OS thread tid: bytes read, or -errno. */
long pg_task_read(int tid, const char *file, char *buf, size_t n);
bool pg_retake(struct pg_m *m, struct pg_p *p);

/* thread memory: tls.c, stack.c, modules.c */
void pg_stacks_exec(void);                         /* an object wants executable stacks: all, from now on; stack.c */
bool pg_thread_db(const char *name, size_t *off);  /* the offset that one of libc's descriptors for libthread_db tells */
void pg_modules_init(char *rtld, const void *in_ldso, size_t size); /* on the first thread, whose static TLS is complete */
void pg_modules_reset(struct pg_g *g);             /* the caller's thread-local variables have their images */
int pg_tls_init(void);
void *pg_tls_new(void *tcb);                       /* raw TLS block of a g0: no dtv */
void pg_tls_owner_died(struct pg_g *g);            /* what the kernel does with the robust list of a thread that ends */
bool pg_tls_owns_pi(struct pg_g *g);               /* some of it only the kernel can do */
void pg_tls_robust(void *tcb);                     /* every thread of libc's has a robust list; programs ask for it */
size_t pg_tls_size(void);
size_t pg_tcb_size(void);
size_t pg_tls_align(void);                         /* of a TCB; a power of two */
void pg_tls_forked(void);
void pg_tls_setself(void *tcb, struct pg_g *g);
void pg_allg_add(struct pg_g *g);
void pg_tls_wired(struct pg_g *g);                 /* tells the kernel what it keeps per thread about g */
void pg_wire_apply(struct pg_g *g);                /* wire.c: name, CPUs and policy of g to its OS thread, the caller's */
uint32_t pg_next_tid(void);                        /* the number that the next thread will get */
void *pg_mmap_alloc(size_t n);                     /* runtime memory, never freed, zeroed; NULL */
void *pg_mmap_must(size_t n);                      /* the same; a test does not let it fail, since the caller has no way back */

#endif
