/* SPDX-License-Identifier: MIT */
/*
 * Clocks.  All but those of a thread's CPU time are libc's.
 *
 * The id of such a clock is CLOCK_THREAD_CPUTIME_ID, or the kernel's encoding of a thread's number, as glibc makes it
 * too: ~tid << 3 | 4 (a thread's, not a process's) | 2 (what the scheduler counted; 0 and 1: ticks); number 0: the
 * caller.  Our threads have numbers of ours there, and core counts for them.
 */
#include "shim/io.h"
#include "shim/process.h"
#include "shim/thread.h"

#include <sys/syscall.h>

#include "arch.h"
#include "core/cputime.h"

enum { ID_OWN = -2 }; /* the calling OS thread's, encoded */
enum { PATIENCE = 1000000 }; /* ns between two looks at a clock slept on, at least */

clockid_t pg_thread_clock(pid_t tid)
{
	return (clockid_t)(~(unsigned)tid << 3 | 6);
}

struct pg_g *pg_clock_thread(clockid_t clock)
{
	struct pg_g *g;
	pid_t tid;

	if (pg_likely(clock >= 0) && clock != CLOCK_THREAD_CPUTIME_ID)
		return NULL;
	if (clock < 0 && ((clock & 4) == 0 || (clock & 3) == 3))
		return NULL;
	if (!atomic_load_explicit(&pg_started, memory_order_relaxed) || pg_passthrough() || pg_in_vfork())
		return NULL;
	tid = clock < 0 ? (pid_t)~(clock >> 3) : 0;
	g = tid == 0 ? pg_self() : pg_tid2g(tid);
	return g && pg_is_ours(g) ? g : NULL;
}

static void to_ts(int64_t ns, struct timespec *ts)
{
	ts->tv_sec = ns / 1000000000;
	ts->tv_nsec = ns % 1000000000;
}

static int gettime_thread(struct pg_g *g, struct timespec *ts)
{
	int64_t ns = pg_cputime(g);

	if (ns < 0) {
		errno = EINVAL; /* it has just ended */
		return -1;
	}
	to_ts(ns, ts);
	return 0;
}

PG_EXPORT int clock_gettime(clockid_t clock, struct timespec *ts)
{
	struct pg_g *g = pg_clock_thread(clock);

	return pg_likely(g == NULL) ? PG_REAL(clock_gettime)(clock, ts) : gettime_thread(g, ts);
}

PG_EXPORT int clock_getres(clockid_t clock, struct timespec *ts)
{
	return PG_REAL(clock_getres)(pg_clock_thread(clock) ? CLOCK_THREAD_CPUTIME_ID : clock, ts);
}

/* A refusal either way, of which the kernel chooses the words. */
PG_EXPORT int clock_settime(clockid_t clock, const struct timespec *ts)
{
	return PG_REAL(clock_settime)(clock < 0 && pg_clock_thread(clock) ? ID_OWN : clock, ts);
}

PG_EXPORT int pthread_getcpuclockid(pthread_t t, clockid_t *clock)
{
	struct pg_g *g = pg_passthrough() || !atomic_load(&pg_started) ? NULL : pg_pthread2g(t);

	if (g == NULL || !pg_is_ours(g))
		return PG_REAL(pthread_getcpuclockid)(t, clock);
	if (pg_thread_ended(g))
		return ESRCH;
	*clock = pg_thread_clock((pid_t)g->tid);
	return 0;
}

/*
 * Blocks: the G.  It can't have used what is missing before as much time has passed, so that is how long the next look can
 * wait.  Returns the error number.
 */
int pg_clock_sleep(struct pg_g *g, clockid_t clock, bool absolute, const struct timespec *ts, struct timespec *rem)
{
	struct pg_g *self = pg_self();
	int64_t now = pg_cputime(g), until, left;
	struct timespec nap;
	int r;

	if (ts->tv_sec < 0 || pg_timespec_bad(ts) || g == self || now < 0)
		return EINVAL;
	if (__builtin_mul_overflow((int64_t)ts->tv_sec, (int64_t)1000000000, &until) ||
	    __builtin_add_overflow(until, (int64_t)ts->tv_nsec + (absolute ? 0 : now), &until))
		until = PG_FOREVER;
	while ((left = until - now) > 0) {
		to_ts(left < PATIENCE ? PATIENCE : left, &nap);
		r = clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
		if (pg_clock_thread(clock) != g)
			return EINVAL; /* it has ended */
		now = pg_cputime(g);
		if (now < 0)
			return EINVAL;
		if (r == EINTR && until > now) {
			if (!absolute && rem)
				to_ts(until - now, rem);
			return EINTR;
		}
	}
	return 0;
}

/* The fields that a thread has to itself besides its times are those of the OS thread at hand. */
PG_EXPORT int getrusage(__rusage_who_t who, struct rusage *ru)
{
	struct pg_g *g = who == RUSAGE_THREAD ? pg_clock_thread(CLOCK_THREAD_CPUTIME_ID) : NULL;
	int64_t part[2];
	int r;

	if (g == NULL || (g->mode == PG_NATIVE && atomic_load(&g->cputime) == 0))
		return PG_REAL(getrusage)(who, ru);
	r = PG_REAL(getrusage)(RUSAGE_THREAD, ru);
	if (r != 0)
		return r;
	pg_cputime_split(g, pg_cputime(g), ru->ru_utime.tv_sec * 1000000 + ru->ru_utime.tv_usec,
			 ru->ru_stime.tv_sec * 1000000 + ru->ru_stime.tv_usec, part);
	ru->ru_utime.tv_sec = part[0] / 1000000000;
	ru->ru_utime.tv_usec = part[0] % 1000000000 / 1000;
	ru->ru_stime.tv_sec = part[1] / 1000000000;
	ru->ru_stime.tv_usec = part[1] % 1000000000 / 1000;
	return 0;
}
