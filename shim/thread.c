/* SPDX-License-Identifier: MIT */
/*
 * Threads: creation, the first and the last frame, join and detach, names.  The memory is core/thread.h's, the running core/sched.h's.
 *
 * g->life and g->dead, by which a thread's end meets its joiner:
 *   JOINABLE  -> DETACHED by pthread_detach, -> EXITED by the scheduler once the G has left its stack
 *   DETACHED  the scheduler frees the G
 *   EXITED    then dead = 1, then the scheduler wakes g->joiner; who sees dead == 1 and holds g->joiner frees the G
 * g->joiner: NULL -> a joiner (-> NULL by it when it gives up), NULL -> the G itself by pthread_detach, for good.
 */
#include "shim/thread.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/signal.h"
#include "shim/objects.h"

extern void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *, int);

_Atomic bool pg_fellback;
bool pg_identified_early;

/* What only an OS thread of its own can have; mapped by the creator, applied and unmapped by the new thread. */
struct startup {
	bool pinned, rt;
	int policy, prio;
	cpu_set_t cpus;
};

static void (*call_tls_dtors)(void);

bool pg_thread_ready(void)
{
	if (pg_likely(atomic_load_explicit(&pg_started, memory_order_relaxed)))
		return true;
	if (pg_passthrough())
		return false;
	if (call_tls_dtors == NULL) {
		void *p = dlsym(RTLD_NEXT, "__call_tls_dtors");
		memcpy(&call_tls_dtors, &p, sizeof p);
	}
	pg_sched_remember();
	pg_real_all();
	if (pg_self() == &pg_main_g)
		pg_sys(SYS_prctl, PR_GET_NAME, pg_main_g.name);
	if (pg_start() == 0) {
		pg_cancel_start(pg_self());
		if (pg_identified_early || pg_wire_named(pg_self()->name))
			pg_wire_for_object(pg_self());
		return true;
	}
	if (atomic_load(&pg_started))
		return true; /* another thread was faster */
	atomic_store(&pg_fellback, true);
	return false;
}

/* ---- the frame at the bottom of every green thread's stack ---- */

static void apply(struct pg_g *g)
{
	struct startup *s = g->exit_tail;

	g->exit_tail = NULL;
	if (s->rt)
		pg_sched_rt_self(g, s->policy, s->prio);
	if (s->pinned)
		pg_sched_pin_self(g, sizeof s->cpus, &s->cpus);
	pg_sys(SYS_munmap, s, sizeof *s);
}

void pg_thread_main(struct pg_g *g)
{
	struct _pthread_cleanup_buffer none = { .__prev = NULL };
	__pthread_unwind_buf_t bottom;

	pg_tls_thread_start(g);
	/* The TCB may be second-hand: what its former thread left on the chain of old-style handlers goes. */
	_pthread_cleanup_pop(&none, 0);
	if (pg_unlikely(g->exit_tail != NULL))
		apply(g);
	if (__sigsetjmp_cancel(bottom.__cancel_jmp_buf, 0) == 0) {
		__pthread_register_cancel(&bottom);
		bottom.__pad[0] = NULL;
		g->exit_buf = &bottom;
		if (g->fn)
			g->result = g->fn(g->arg);
		else
			g->result = (void *)(intptr_t)g->fn_c11(g->arg);
	} else {
		pg_cancel_landed(pg_self());
	}
	pg_thread_end(pg_self());
}

void pg_thread_end(struct pg_g *g)
{
	pg_signal_last(g);
	g->exiting = 1;
	if (pg_unlikely(g->cancelled))
		pg_cancel_exiting(g);
	if (call_tls_dtors)
		call_tls_dtors();
	if (pg_unlikely(g->tsd_used || g == &pg_main_g))
		pg_keys_end(g);
	/* The last one out ends the process, and still is a thread while it does: exit runs the program's handlers. */
	if (atomic_fetch_sub(&pg_nthreads, 1) <= 1)
		exit(0);
	pg_tls_thread_end(g);
	pg_rt_enter(g);
	pg_gexit(g);
}

/* ---- creation ---- */

static int need_os_thread(struct pg_g *g, const struct pg_attr *a)
{
	bool narrow = false, rt = a->sched && pg_sched_rt(a->policy);
	struct startup *s;
	long p;
	int err;

	if (rt || (a->sched && a->prio != 0)) {
		err = pg_sched_may(a->policy, a->prio);
		if (err)
			return err;
	}
	if (a->pinned) {
		err = pg_sched_maypin(&a->cpus, &narrow);
		if (err)
			return err;
	}
	if (!rt && !narrow)
		return 0;
	p = pg_sys(SYS_mmap, 0, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p < 0 && p > -4096)
		return EAGAIN;
	s = (struct startup *)p;
	s->rt = rt;
	s->policy = a->policy;
	s->prio = a->prio;
	s->pinned = narrow;
	s->cpus = a->cpus;
	g->exit_tail = s;
	return 0;
}

static void fresh(struct pg_g *g, struct pg_g *creator, const struct pg_attr *a)
{
	g->result = NULL;
	g->dead = 0;
	g->joiner = NULL;
	g->life = a->detached ? PG_LIFE_DETACHED : PG_LIFE_JOINABLE;
	g->cancel_state = PTHREAD_CANCEL_ENABLE;
	g->cancel_type = PTHREAD_CANCEL_DEFERRED;
	g->cancelled = 0;
	g->cancel_point = 0;
	pg_cancel_fresh(g);
	g->exiting = 0;
	g->exit_buf = NULL;
	g->exit_tail = NULL;
	g->once = NULL;
	g->tsd_used = false;
	g->policy = a->sched ? a->policy : creator->policy;
	g->prio = a->sched ? a->prio : creator->prio;
	g->sigmask = a->masked ? a->sigmask : creator->sigmask;
	if (!a->sched && creator->policy & SCHED_RESET_ON_FORK)
		g->policy = g->prio = 0;
	memcpy(g->name, creator->name, sizeof g->name);
	if (pg_unlikely(pg_wire_named(g->name)))
		atomic_fetch_or(&g->pending, PG_PEND_WIRE);
}

int pg_thread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), int (*fn_c11)(void *), void *arg)
{
	struct pg_g *self = pg_self(), *g;
	struct pg_attr a;
	int err = pg_attr_read(attr, &a);

	if (err)
		return err;
	g = pg_newg(a.stack, a.guard, a.ustack, &err);
	if (pg_unlikely(g == NULL)) {
		/* Threads that have ended may only need a P to give their stacks back: the caller may try without end. */
		pg_yield();
		g = pg_newg(a.stack, a.guard, a.ustack, &err);
	}
	if (g == NULL)
		return err == ENOMEM || err == 0 ? EAGAIN : err < 0 ? -err : err;
	fresh(g, self, &a);
	g->fn = fn;
	g->fn_c11 = fn_c11;
	g->arg = arg;
	if (pg_unlikely(a.sched || a.pinned)) {
		err = need_os_thread(g, &a);
		if (err) {
			pg_rt_enter(self);
			pg_gfree(g);
			pg_rt_exit(self);
			return err;
		}
	}
	*t = pg_g2pthread(g);
	atomic_fetch_add(&pg_nthreads, 1);
	pg_newproc(g);
	return 0;
}

/* Differs: RLIMIT_NPROC is not consulted; a CPU set narrower than the process's or a real-time policy gives an OS thread. */
PG_EXPORT int pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	if (!pg_thread_ready())
		return PG_REAL(pthread_create)(t, attr, fn, arg);
	return pg_thread_create(t, attr, fn, NULL, arg);
}

/* ---- join and detach ---- */

/* The G of a pthread_t that ends through us, or NULL. */
static struct pg_g *ours(pthread_t t)
{
	struct pg_g *g = pg_passthrough() ? NULL : pg_pthread2g(t);

	return g && pg_is_ours(g) ? g : NULL;
}

static void leave(struct pg_g *g, struct pg_g *self)
{
	struct pg_g *me = self;

	atomic_compare_exchange_strong(&g->joiner, &me, NULL);
}

/* Waits for the end of g.  0, ETIMEDOUT.  A cancelled joiner leaves g joinable. */
static int await_end(struct pg_g *g, struct pg_g *self, int64_t deadline)
{
	while (!atomic_load(&g->dead)) {
		unsigned why;

		if (pg_cancel_wanted(self)) {
			leave(g, self);
			pg_testcancel();
		}
		pg_rt_enter(self);
		pg_wait_prepare(self);
		if (atomic_load(&g->dead) || pg_cancel_wanted(self)) {
			pg_wait_abort(self);
			pg_rt_exit(self);
			continue;
		}
		why = pg_park(self, deadline, PG_WAIT_join);
		pg_rt_exit(self);
		if ((why & PG_WHY_TIMEOUT) && !atomic_load(&g->dead))
			return ETIMEDOUT;
	}
	return 0;
}

static int join(struct pg_g *g, void **result, int64_t deadline)
{
	struct pg_g *self = pg_self(), *none = NULL;
	void *r;
	int err;

	if (atomic_load(&g->life) == PG_LIFE_DETACHED)
		return EINVAL;
	if ((g == self || (atomic_load(&self->joiner) == g && !g->cancelled && !g->exiting)) && !pg_cancel_wanted(self))
		return EDEADLK;
	if (!atomic_compare_exchange_strong(&g->joiner, &none, self))
		return EINVAL;
	err = await_end(g, self, deadline);
	if (err) {
		leave(g, self);
		return err;
	}
	r = g->result;
	pg_rt_enter(self);
	pg_gfree(g);
	pg_rt_exit(self);
	if (result)
		*result = r;
	return 0;
}

/* Blocks: until t has ended.  Cancel: yes; t stays joinable.
 * Differs: a second joiner and a mutual join are refused as documented; glibc 2.36 misses both. */
PG_EXPORT int pthread_join(pthread_t t, void **result)
{
	struct pg_g *g = ours(t);

	return g ? join(g, result, PG_FOREVER) : PG_REAL(pthread_join)(t, result);
}

PG_EXPORT int pthread_tryjoin_np(pthread_t t, void **result)
{
	struct pg_g *g = ours(t);

	if (g == NULL)
		return PG_REAL(pthread_tryjoin_np)(t, result);
	return atomic_load(&g->dead) ? join(g, result, PG_FOREVER) : EBUSY;
}

static int timedjoin(struct pg_g *g, void **result, clockid_t clock, const struct timespec *ts)
{
	if (ts == NULL)
		return join(g, result, PG_FOREVER);
	/* A thread that has ended is joined whatever the time says. */
	if (pg_timespec_bad(ts) && !atomic_load(&g->dead))
		return EINVAL;
	return join(g, result, pg_timespec_bad(ts) ? PG_FOREVER : pg_deadline_abs(clock, ts));
}

/* Blocks: until t has ended, or the time.  Cancel: yes; t stays joinable. */
PG_EXPORT int pthread_timedjoin_np(pthread_t t, void **result, const struct timespec *ts)
{
	struct pg_g *g = ours(t);

	return g ? timedjoin(g, result, CLOCK_REALTIME, ts) : PG_REAL(pthread_timedjoin_np)(t, result, ts);
}

/* Blocks: until t has ended, or the time.  Cancel: yes; t stays joinable. */
PG_EXPORT int pthread_clockjoin_np(pthread_t t, void **result, clockid_t clock, const struct timespec *ts)
{
	struct pg_g *g = ours(t);

	if (g == NULL)
		return PG_REAL(pthread_clockjoin_np)(t, result, clock, ts);
	if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
		return EINVAL;
	return timedjoin(g, result, clock, ts);
}

PG_EXPORT int pthread_detach(pthread_t t)
{
	struct pg_g *g = ours(t), *self, *none = NULL;
	uint32_t joinable = PG_LIFE_JOINABLE;

	if (g == NULL)
		return PG_REAL(pthread_detach)(t);
	if (atomic_load(&g->life) == PG_LIFE_DETACHED)
		return EINVAL;
	if (!atomic_compare_exchange_strong(&g->joiner, &none, g))
		return none == g ? EINVAL : 0; /* somebody joins it: as glibc, no error and no effect */
	if (atomic_compare_exchange_strong(&g->life, &joinable, PG_LIFE_DETACHED))
		return 0;
	/* It has ended, or is leaving its stack this moment. */
	while (!atomic_load(&g->dead))
		pg_yield();
	self = pg_self();
	pg_rt_enter(self);
	pg_gfree(g);
	pg_rt_exit(self);
	return 0;
}

/* ---- identity ---- */

/* The name that the kernel has for OS thread tid, through /proc: the caller may be another. */
static int proc_comm(pid_t tid, int flags, char *buf, size_t n)
{
	char path[48];
	long fd, r;

	snprintf(path, sizeof path, "/proc/self/task/%d/comm", (int)tid);
	fd = pg_sys(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC);
	if (fd < 0)
		return (int)-fd;
	r = flags == O_RDONLY ? pg_sys(SYS_read, fd, buf, n) : pg_sys(SYS_write, fd, buf, n);
	pg_sys(SYS_close, fd);
	if (r < 0)
		return (int)-r;
	if (flags == O_RDONLY)
		buf[r > 0 && buf[r - 1] == '\n' ? r - 1 : r] = '\0';
	return 0;
}

/* The OS thread whose name in the kernel is that of g, 0: none.  The process's first one has main's, whoever is wired to it. */
static int named_thread(struct pg_g *g)
{
	int os = atomic_load(&g->ostid);

	return os == (int)pg_sys(SYS_getpid) ? 0 : os;
}

/* A name by which PGREEN_WIRE knows g: itself at once, another at its next look. */
static void wire_named(struct pg_g *g)
{
	struct pg_g *self = pg_self();

	if (pg_likely(!pg_wire_named(g->name)) || g->mode != PG_GREEN)
		return;
	pg_rt_enter(self);
	if (g == self)
		pg_wire(g);
	else
		pg_wire_later(g);
	pg_rt_exit(self);
}

/* Differs: the kernel, and so ps and /proc, learn the names of the first thread and of wired ones. */
PG_EXPORT int pthread_setname_np(pthread_t t, const char *name)
{
	struct pg_g *g = ours(t);
	char buf[PG_NAME_MAX];
	int err = 0, os;
	size_t n;

	if (g == NULL || !atomic_load(&pg_started))
		return PG_REAL(pthread_setname_np)(t, name);
	n = strnlen(name, PG_NAME_MAX);
	if (n >= PG_NAME_MAX)
		return ERANGE;
	if (pg_thread_ended(g))
		return ENOENT; /* what glibc finds in /proc */
	memset(buf, 0, sizeof buf);
	memcpy(buf, name, n);
	memcpy(g->name, buf, sizeof buf);
	wire_named(g);
	os = named_thread(g);
	if (os)
		err = proc_comm(os, O_WRONLY, buf, n);
	if (g == &pg_main_g)
		err = proc_comm((pid_t)g->tid, O_WRONLY, buf, n);
	return err;
}

PG_EXPORT int pthread_getname_np(pthread_t t, char *buf, size_t n)
{
	struct pg_g *g = ours(t);
	int os;

	if (g == NULL || !atomic_load(&pg_started))
		return PG_REAL(pthread_getname_np)(t, buf, n);
	if (n < PG_NAME_MAX)
		return ERANGE;
	if (pg_thread_ended(g))
		return ENOENT;
	/* These may have been changed through /proc. */
	os = g == &pg_main_g ? (int)g->tid : named_thread(g);
	if (os)
		return proc_comm(os, O_RDONLY, buf, PG_NAME_MAX);
	memcpy(buf, g->name, PG_NAME_MAX);
	return 0;
}

PG_EXPORT pid_t gettid(void)
{
	struct pg_g *g = pg_self_;

	if (g == NULL || !atomic_load_explicit(&pg_started, memory_order_relaxed) || g->tid == 0 || !pg_is_ours(g))
		return PG_REAL(gettid)();
	return (pid_t)g->tid;
}
