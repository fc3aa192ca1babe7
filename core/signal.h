/* SPDX-License-Identifier: MIT */
/*
 * Signals of Gs.  Kernel handlers are ours (pg_sigtramp), the program's actions are kept in a table.  Masks are per G; an M has
 * the mask of the G it runs.  A thread-directed signal is queued on its G and never goes through the kernel.
 */
#ifndef PG_SIGNAL_H
#define PG_SIGNAL_H

#include "core/g.h"

#define PG_SIG_KICK 32 /* glibc keeps it for its own cancellation, which we replace: nobody can block or catch it */

static inline uint64_t pg_sigbit(int sig) { return 1ull << (sig - 1); }

/* sigaction(2) as the program sees it; 0 or -errno. */
struct sigaction;
int pg_sigaction(int sig, const struct sigaction *act, struct sigaction *old);
/* rt_sigprocmask of the calling G; 0 or -errno.  Delivers what it unblocked before it returns. */
int pg_sigprocmask(int how, const uint64_t *set, uint64_t *old);
/* Thread-directed signal to a G: queued, delivered when it runs in user code with the signal unblocked; a parked G wakes with -EINTR.
 * 0 or -errno (EAGAIN: queue full). */
int pg_gkill(struct pg_g *g, int sig, const siginfo_t *info);
/* A signal for the process by one of its threads, g: if the first thread has it unblocked, it is pending at the return, and that thread
 * is told.  False: nothing was done. */
bool pg_kill_main(struct pg_g *g, int sig, const siginfo_t *info);
/*
 * A timer of the kernel whose expirations are the signal sig for g; its number in *id.  0 or -errno; -ENOTSUP: g is an OS thread
 * with a number of its own.  delete: after the kernel's.  overrun: -ENOENT when it is not one of these.
 */
int pg_sigtimer_create(int clock, struct pg_g *g, int sig, union sigval value, int *id);
void pg_sigtimer_delete(int id);
int pg_sigtimer_overrun(int id);
/* Makes a G notice g->pending soon: wakes it if parked, signals its M if it runs.  Used by cancellation. */
void pg_interrupt(struct pg_g *g);
/* Waits until a signal handler has run with the mask `set`; always returns -EINTR.  Blocks: the G. sigsuspend, pause. */
int pg_sigsuspend(uint64_t set);
/* Takes a pending signal of set; its number or -EAGAIN on timeout, -EINTR.  Blocks: the G and its M. */
int pg_sigwait(uint64_t set, siginfo_t *info, int64_t deadline);
/* Pending for the calling thread. */
uint64_t pg_sigpending(void);
int pg_sigaltstack(const stack_t *ss, stack_t *old);
/* Runs the handlers of what is pending for the calling G and unblocked; acts on an asynchronous cancellation.  rt == 0. */
void pg_deliver(struct pg_g *g);
/* The calling G jumps to a frame at sp: handlers that interrupted libc and have their frames below are over. */
void pg_libc_handlers_left(struct pg_g *g, uintptr_t sp);
/* A thread is about to end, or a handler to go: runs the handlers of what has been sent before.  Blocks: the M, for a moment.  rt == 0. */
void pg_signal_last(struct pg_g *g);
/* For the constructor and a fork in the child. */
void pg_signal_init(void);
void pg_signal_started(void);

/*
 * The system call on every OS thread of the process, first on the caller's, where a failure ends it with -errno.  Arguments
 * beyond c are 0.  PG_ALLTHREADS_DIFFER: others did not get the same result; the process is then in no state to go on.
 * Blocks: the M, until every OS thread has done it.
 */
enum { PG_ALLTHREADS_DIFFER = -5000 };
long pg_allthreads_syscall(long nr, long a, long b, long c);

/* Around exec: a kick that is pending then would meet the new program, which does not know it.  Blocks: nothing. */
void pg_exec_hold(struct pg_g *g);
void pg_exec_release(struct pg_g *g);

#endif
