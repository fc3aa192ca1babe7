/* SPDX-License-Identifier: MIT */
/*
 * Thread attributes.  The objects and their accessors stay glibc's; here they are read when a thread is created, and
 * filled for a green thread whose TCB glibc must not look into (pthread_getattr_np).
 */
#include "shim/thread.h"

#include <string.h>

/* Somebody has called pthread_setattr_default_np: until then the defaults need no look. */
static _Atomic bool defaults_changed;

PG_EXPORT int pthread_setattr_default_np(const pthread_attr_t *attr)
{
	int err = PG_REAL(pthread_setattr_default_np)(attr);

	if (err == 0)
		atomic_store(&defaults_changed, true);
	return err;
}

static int read_cpus(const pthread_attr_t *attr, struct pg_attr *out)
{
	int err = pthread_attr_getaffinity_np(attr, sizeof out->cpus, &out->cpus);
	const unsigned char *p = (const unsigned char *)&out->cpus;

	if (err)
		return err;
	/* Without a set in the attributes glibc answers with all ones. */
	for (size_t i = 0; i < sizeof out->cpus; i++) {
		if (p[i] != 0xff) {
			out->pinned = true;
			break;
		}
	}
	return 0;
}

static int read_attr(const pthread_attr_t *attr, struct pg_attr *out)
{
	int detach, inherit;
	struct sched_param param;
	void *addr;
	size_t size;
	sigset_t mask;

	pthread_attr_getdetachstate(attr, &detach);
	out->detached = detach == PTHREAD_CREATE_DETACHED;
	pthread_attr_getguardsize(attr, &out->guard);
	pthread_attr_getstacksize(attr, &out->stack);

	/* glibc keeps the upper end of the program's stack and subtracts the size as it was given, which may be 0. */
	pthread_attr_getstack(attr, &addr, &size);
	if ((uintptr_t)addr + size != 0) {
		out->ustack = (char *)addr + size - out->stack;
		out->guard = 0;
	}

	pthread_attr_getinheritsched(attr, &inherit);
	if (inherit == PTHREAD_EXPLICIT_SCHED) {
		out->sched = true;
		pthread_attr_getschedpolicy(attr, &out->policy);
		pthread_attr_getschedparam(attr, &param);
		out->prio = param.sched_priority;
	}
	if (pthread_attr_getsigmask_np(attr, &mask) == 0) {
		out->masked = true;
		memcpy(&out->sigmask, &mask, sizeof out->sigmask);
	}
	return read_cpus(attr, out);
}

int pg_attr_read(const pthread_attr_t *attr, struct pg_attr *out)
{
	pthread_attr_t def;
	int err;

	out->stack = 0;
	out->guard = (size_t)sysconf(_SC_PAGESIZE);
	out->ustack = NULL;
	out->detached = out->sched = out->masked = out->pinned = false;
	if (attr)
		return read_attr(attr, out);
	if (pg_likely(!atomic_load_explicit(&defaults_changed, memory_order_relaxed)))
		return 0;
	err = pthread_getattr_default_np(&def);
	if (err)
		return err;
	err = read_attr(&def, out);
	pthread_attr_destroy(&def);
	return err;
}

/*
 * Core adds to the size that was asked for.  pthread_attr_getstacksize of a running thread's attributes says what was asked for, and
 * pthread_attr_getstack the true bounds: language runtimes reckon from them where the guard is.  The attributes hold the
 * former; their last word, which glibc leaves alone, says that they are such, as long as nobody has set another stack.
 */
_Static_assert(sizeof(pthread_attr_t) == 7 * sizeof(uintptr_t), "the word at the end is free");

static size_t extra(void) { return (pg_stack_overhead() + 12288 + 4095) & ~(size_t)4095; }

static uintptr_t mark(void *lo, size_t size)
{
	return ((uintptr_t)lo ^ size << 20 ^ (uintptr_t)0x7067724174747221ull) | 1;
}

static uintptr_t *last_word(const pthread_attr_t *attr) { return (uintptr_t *)(uintptr_t)attr + 6; }

PG_EXPORT int pthread_attr_getstack(const pthread_attr_t *attr, void **lo, size_t *size)
{
	int err = PG_REAL(pthread_attr_getstack)(attr, lo, size);

	if (err == 0 && pg_unlikely(*last_word(attr) == mark(*lo, *size))) {
		*lo = (char *)*lo - extra();
		*size += extra();
	}
	return err;
}

static int fill(struct pg_g *g, pthread_attr_t *attr)
{
	struct sched_param param = { .sched_priority = g->prio };
	size_t size = (size_t)((char *)g->stack_hi - (char *)g->stack_lo);
	char *lo = g->stack_lo;
	cpu_set_t cpus;
	int err;

	if (!g->userstack && extra() < size) {
		lo += extra();
		size -= extra();
		*last_word(attr) = mark(lo, size);
	}
	pthread_attr_setstack(attr, lo, size);
	pthread_attr_setguardsize(attr, g->guard);
	pthread_attr_setdetachstate(attr, atomic_load(&g->life) == PG_LIFE_DETACHED ? PTHREAD_CREATE_DETACHED
										     : PTHREAD_CREATE_JOINABLE);
	pthread_attr_setschedpolicy(attr, g->policy);
	pthread_attr_setschedparam(attr, &param);
	err = pthread_getaffinity_np(pg_g2pthread(g), sizeof cpus, &cpus);
	return err ? err : pthread_attr_setaffinity_np(attr, sizeof cpus, &cpus);
}

/* Differs: nothing.  The first thread and foreign ones are glibc's to describe. */
PG_EXPORT int pthread_getattr_np(pthread_t t, pthread_attr_t *attr)
{
	struct pg_g *g = pg_passthrough() ? NULL : pg_pthread2g(t);
	int err;

	if (g == NULL || g == &pg_main_g || !pg_is_ours(g))
		return PG_REAL(pthread_getattr_np)(t, attr);
	err = pthread_attr_init(attr);
	if (err)
		return err;
	err = fill(g, attr);
	if (err)
		pthread_attr_destroy(attr);
	return err;
}
