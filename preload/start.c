/* SPDX-License-Identifier: MIT */
/*
 * The way in.  Stages, in order:
 *   1. nothing yet: wrappers may be called by other objects' constructors; pg_self_slow makes the first thread's G.
 *   2. the constructor: knobs, signal mask, fork handlers.  Still no thread, no descriptor, no allocation.
 *   3. pg_start, at the first pthread_create: Ps, the first M, the poller, sysmon.
 * Also the bridges from core to functions of libc that the shim covers.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/knobs.h"
#include "core/proc.h"
#include "core/sched.h"
#include "core/signal.h"
#include "core/thread.h"
#include "core/say.h"
#include "core/stats.h"
#include "preload/real.h"

extern char **environ;
extern void pg_fork_register(void);
extern void pg_foreign_add(struct pg_g *g);
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *);

int pg_real_pthread_create(unsigned long *t, const void *attr, void *(*fn)(void *), void *arg);
int pg_real_pthread_create(unsigned long *t, const void *attr, void *(*fn)(void *), void *arg)
{
	return PG_REAL(pthread_create)(t, attr, fn, arg);
}

int pg_real_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int pg_real_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return PG_REAL(__register_atfork)(prepare, parent, child, NULL);
}

static void init_native(struct pg_g *g, uint32_t tid)
{
	g->magic = PG_MAGIC;
	g->tcb = pg_arch_tp();
	g->m = &pg_nullm;
	g->mode = PG_NATIVE;
	g->tid = tid;
	g->timer.idx = -1;
	g->sigclass = -1;
	atomic_store(&g->state, PG_G_running);
	g->altstack.ss_flags = SS_DISABLE;
	pg_self_ = g;
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &g->sigmask, 8);
}

struct pg_g *pg_self_slow(void)
{
	uint32_t tid = (uint32_t)pg_sys(SYS_gettid);
	struct pg_g *g;

	if (pg_main_g.magic == 0 && tid == (uint32_t)pg_sys(SYS_getpid)) {
		pg_arch_init();
		init_native(&pg_main_g, tid);
		return &pg_main_g;
	}
	/* A thread we have not made. */
	g = pg_mmap_must(sizeof *g);
	if (g == NULL)
		pg_throw("out of memory for a thread that pgreen has not made");
	init_native(g, tid);
	atomic_store(&g->rt, 1);
	pg_foreign_add(g);
	atomic_store(&g->rt, 0);
	return g;
}

__attribute__((constructor(101))) static void start(void)
{
	pg_self();
	pg_knobs_init(environ);
	pg_signal_init();
	pg_tls_startup();
	pg_fork_register();
}

__attribute__((destructor)) static void end(void)
{
	pg_stats_exit();
}
