/* SPDX-License-Identifier: MIT */
/* What the files of the thread family share: thread.c, attr.c, key.c, cancel.c, sched.c; and what c11.c asks of them. */
#ifndef PG_SHIM_THREAD_H
#define PG_SHIM_THREAD_H

#include "shim/shim.h"

#include "core/knobs.h"
#include "core/thread.h"

/* What pthread_create takes out of its attributes. */
struct pg_attr {
	size_t stack;        /* usable bytes, 0: the default */
	size_t guard;
	void *ustack;        /* the program's own stack, its lowest address, or NULL */
	bool detached;
	bool sched;          /* policy and prio are explicit */
	int policy, prio;
	bool masked;         /* sigmask is explicit */
	uint64_t sigmask;
	bool pinned;         /* cpus is explicit */
	cpu_set_t cpus;
};

/* attr.c: attr may be NULL (the process's defaults).  0 or an error number. */
int pg_attr_read(const pthread_attr_t *attr, struct pg_attr *out);

/* thread.c */
extern _Atomic bool pg_fellback; /* the runtime did not start: threads are native, everything passes through */

static inline bool pg_passthrough(void)
{
	return pg_unlikely(pg_knobs.off || atomic_load_explicit(&pg_fellback, memory_order_relaxed));
}

/* Did pgreen make this thread (or is it the first)?  The others end through glibc. */
static inline bool pg_is_ours(const struct pg_g *g)
{
	return g == &pg_main_g || g->fn != NULL || g->fn_c11 != NULL;
}

bool pg_thread_ready(void); /* starts the runtime; false: create native threads */
/* After pg_thread_ready.  One of fn and fn_c11.  An error number as pthread_create's. */
int pg_thread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), int (*fn_c11)(void *), void *arg);
/* The end of a thread whose stack is unwound: destructors, then the scheduler. */
void pg_thread_end(struct pg_g *g) __attribute__((noreturn));
/* What core calls first in a new G. */
void pg_thread_main(struct pg_g *g);

/* Has it ended, though its id may still be valid? */
static inline bool pg_thread_ended(struct pg_g *g)
{
	return atomic_load(&g->dead) != 0 || atomic_load(&g->life) == PG_LIFE_EXITED;
}

/* clock.c: of which of our threads is this the CPU clock?  NULL: none. */
struct pg_g *pg_clock_thread(clockid_t clock);
clockid_t pg_thread_clock(pid_t tid);
int pg_clock_sleep(struct pg_g *g, clockid_t clock, bool absolute, const struct timespec *ts, struct timespec *rem);

/* key.c: destructors of thread-specific data, and no value left behind. */
void pg_keys_end(struct pg_g *g);

/* once.c: a thread's stack below limit is gone, and with it the routines that ran there. */
void pg_once_unwound(struct pg_g *g, uintptr_t limit, uintptr_t top);

/* cancel.c */
void pg_cancel_start(struct pg_g *g);  /* the runtime has started on g */
void pg_cancel_fresh(struct pg_g *g);  /* g's TCB begins to serve a new thread */
void pg_cancel_exiting(struct pg_g *g); /* nothing cancels it any more, libc neither */
void pg_cancel_landed(struct pg_g *g); /* g's stack has been unwound, perhaps by libc */
void pg_unwind_link(void); /* finds the program's unwinder; aborts with glibc's words when there is none */
/* Ends the calling thread with this result, after its clean-up handlers and C++ destructors. */
void pg_thread_exit(struct pg_g *g, void *result) __attribute__((noreturn));
/* From the handler of PG_SIG_KICK, or from rt_exit (uc NULL), rt == 0: does not return if the thread is cancelled here. */
bool pg_cancel_from_handler(struct pg_g *g, ucontext_t *uc);

/* sched.c */
void pg_sched_remember(void);                        /* the process's CPUs and policy, before the first thread */
int pg_sched_may(int policy, int prio);              /* 0, EINVAL or EPERM, as sched_setscheduler would say */
static inline bool pg_sched_rt(int policy) { return policy == SCHED_FIFO || policy == SCHED_RR; }
int pg_sched_maypin(const cpu_set_t *cpus, bool *narrow); /* 0 or an error number; narrower than the process's? */
int pg_sched_pin_self(struct pg_g *g, size_t n, const cpu_set_t *cpus); /* wires; 0 or an error number */
long pg_raw_getaffinity(pid_t pid, size_t n, cpu_set_t *cpus);          /* these three as the system calls do */
long pg_raw_setattr(pid_t pid, const void *attr, unsigned flags);
long pg_raw_getattr(pid_t pid, void *attr, unsigned size, unsigned flags);
pid_t pg_os_thread(pid_t tid); /* what the kernel calls that thread; 0, the one at hand, for another green one */
int pg_sched_rt_self(struct pg_g *g, int policy, int prio);             /* wires; 0 or an error number */

#endif
