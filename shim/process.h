/* SPDX-License-Identifier: MIT */
/*
 * What the files of the shim share about processes and about threads named by number, and the calls of core's fork.c and
 * signal.c that only they make.
 *
 * Between vfork and the child's exec two processes run in one memory: the parent's G is suspended and the child runs
 * on its stack with its thread pointer.  The child's kernel state (mask, actions, tid) is its own, so whatever would be
 * recorded in memory must go straight to the kernel: pg_in_vfork() says so.  The bits live in g->oswired.
 */
#ifndef PG_SHIM_PROCESS_H
#define PG_SHIM_PROCESS_H

#include <sys/types.h>

#include "core/sched.h"

enum {
	PG_VFORK_GREEN = 0x100, /* the G was green before vfork */
	PG_VFORK = 0x200,       /* vfork's child has not yet gone its own way */
	PG_VFORK_PID = 10,      /* from this bit on: the pid of the parent, which has at most 22 bits */
};

/* Is the caller the child of a vfork that still borrows its parent's memory? */
static inline bool pg_in_vfork(void)
{
	struct pg_g *g = pg_self_;
	return g != NULL && pg_unlikely((g->oswired & PG_VFORK) != 0);
}

/* For calls whose effect the kernel keeps per OS thread: the caller keeps its own from now on. */
static inline void pg_shim_wire(struct pg_g *g)
{
	if (g == NULL || g->mode != PG_GREEN)
		return;
	pg_rt_enter(g);
	pg_wire(g);
	pg_rt_exit(g);
}

/* A second name of a function of the same file. */
#define PG_ALIAS(target) __attribute__((alias(#target), copy(target), visibility("default")))

/* Around the system call in switch.S. */
void pg_vfork_before(void);
pid_t pg_vfork_after(long raw);

/* core/fork.c: stops the world around real(), which is fork (libc runs the atfork handlers, ours among them) or _Fork
 * (handlers false: it runs none); in the child the caller goes on alone. */
pid_t pg_fork(pid_t (*real)(void), bool handlers);
/* core/fork.c: registers core's own atfork handlers, before any of the program's. Idempotent. */
void pg_fork_register(void);

/* The G whose gettid() is tid, among those alive; NULL: none.  O(number of Gs) unless it is the caller. */
struct pg_g *pg_tid2g(pid_t tid);

/* tgkill(2) and rt_tgsigqueueinfo(2) with the thread numbers the program knows; 0 or -errno. For syscall() too. */
int pg_tgkill(pid_t tgid, pid_t tid, int sig, const siginfo_t *info);

#endif
