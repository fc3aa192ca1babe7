/* SPDX-License-Identifier: MIT */
/* The scheduler: what the rest of core and the shim ask of it. */
#ifndef PG_SCHED_H
#define PG_SCHED_H

#include "core/g.h"

/* Nanoseconds of CLOCK_MONOTONIC (the vDSO's; never interposed). */
int64_t pg_now(void);

/*
 * Parking, in two phases.  A G that wants to wait calls pg_wait_prepare, publishes itself where wakers will find it,
 * looks once more at its condition, and then parks (or aborts).  Any number of wakers may call pg_wake: one wins.
 *
 *   pg_wait_prepare(g);  enqueue;  if (condition already true) pg_wait_abort(g); else why = pg_park(g, deadline, reason);
 *
 * All with rt > 0.  Every return from pg_park may be spurious: look at the condition again.
 */
void pg_wait_prepare(struct pg_g *g);
void pg_wait_abort(struct pg_g *g);
/* Blocks: the G (green) or its OS thread (native), until pg_wake or the deadline (monotonic ns).  Returns PG_WHY_*. */
unsigned pg_park(struct pg_g *g, int64_t deadline, enum pg_reason reason);
/* The same with a commit callback which runs after the G has left its stack; if it returns false the G goes on. Native
 * Gs run it before they sleep. */
unsigned pg_park_commit(struct pg_g *g, bool (*commit)(struct pg_g *, void *), void *arg, int64_t deadline,
			enum pg_reason reason);
/* Claims a waiting G and makes it runnable.  False: somebody else did, or it was not waiting.  Blocks: nothing.  From any
 * OS thread; caller has rt > 0 or is on a g0. */
bool pg_wake(struct pg_g *g, enum pg_why why);

/* Gives the P to others.  Inside the runtime or outside.  Blocks: the G, for one round. */
void pg_yield(void);
/* The same, but not to Gs that have used up a time slice and not waited since. */
void pg_letothers(void);

/* Waits until deadline (monotonic ns). 0, or -EINTR when a signal handler ran. */
int pg_sleep_until(int64_t deadline, enum pg_reason reason);

/* Makes sure that the runtime runs: the first thread becomes the main G.  0 or -errno. Idempotent. */
int pg_start(void);

/* Makes a prepared G (tls, stack, fn) runnable for the first time. */
void pg_newproc(struct pg_g *g);

/* Ends the calling G, which has run all its user code: does not return.  Its memory is free once a joiner has taken it. */
void pg_gexit(struct pg_g *g) __attribute__((noreturn));

/* The calling green G keeps its M from now on and runs without a P; returns with mode PG_NATIVE.  For calls whose effect the
 * kernel keeps per OS thread. */
void pg_wire(struct pg_g *g);

/* Another G, or the caller, shall be wired when it next leaves the runtime or is preempted.  rt > 0. */
void pg_wire_later(struct pg_g *g);
/* Is this a name of which PGREEN_WIRE says that its thread is wired? */
bool pg_wire_named(const char *name);
/* The CPU set of g, PG_CPUWORDS words; NULL: that of the process.  It binds g from when it is wired.  0 or -ENOMEM.
 * rt > 0. */
int pg_cpus_set(struct pg_g *g, const unsigned long *cpus);
bool pg_cpus_get(struct pg_g *g, unsigned long *cpus); /* false: that of the process */

/* Iterates over all live Gs under the allg lock: dumps and fork only. */
void pg_foreach_g(void (*fn)(struct pg_g *, void *), void *arg);

extern int pg_nprocs;          /* number of Ps */
extern struct pg_p *pg_allp;   /* the Ps */
extern struct pg_g pg_main_g;  /* the first thread's G */
extern _Atomic int pg_nthreads;/* live threads, as pthread_exit of the last one counts them */

#endif
