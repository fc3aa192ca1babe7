/* SPDX-License-Identifier: MIT */
/*
 * Semaphores, in glibc's own layout: value in the low half of a word, number of waiters in the high
 * half.
 *
 * A waiter counts itself in before it sleeps on the value, and out in the same swap that takes a unit,
 * or when it gives up.  A post adds one and, if anybody is counted, wakes one sleeper: a unit taken by a
 * passer-by meanwhile sends the woken one back to sleep, and that unit's next post wakes again.  Waiters
 * of before a fork stay counted: they cost a look into an empty queue.
 *
 * So sem_init, sem_destroy, sem_trywait and sem_getvalue are libc's.  Shared and named semaphores are
 * libc's altogether.
 */
#include "shim/objects.h"

#include <fcntl.h>
#include <stdarg.h>

#define WAITER (1ull << 32)

/* Takes a unit; with WAITER as `out` a waiter also counts itself out. */
static inline bool take(struct pg_sem *s, uint64_t out)
{
	uint64_t d = atomic_load_explicit(&s->data, memory_order_relaxed);

	while ((uint32_t)d != 0)
		if (atomic_compare_exchange_weak_explicit(&s->data, &d, d - 1 - out, memory_order_acquire,
							  memory_order_relaxed))
			return true;
	return false;
}

/*
 * 0 or an error number.  A wait without time-out is restarted after a handler with SA_RESTART, one with a
 * time-out is not: so does the kernel with futexes.
 */
static int __attribute__((noinline)) wait_slow(struct pg_g *g, struct pg_sem *s, clockid_t clock, const struct timespec *ts)
{
	uint32_t before = ts ? g->sig_ran : g->sig_norestart;
	int64_t deadline = pg_until(clock, ts);

	for (;;) {
		int r;

		atomic_fetch_add_explicit(&s->data, WAITER, memory_order_seq_cst);
		for (;;) {
			if (take(s, WAITER))
				return 0;
			pg_rt_enter(g); /* a cancellation comes before the look, or finds us waiting */
			r = pg_cancel_wanted(g) ? -EINTR : pg_sema_wait(pg_low(&s->data), 0, PG_SEMA_ANY, deadline);
			pg_rt_exit(g);
			if (r == -EINTR || (r == -ETIMEDOUT && pg_until_passed(clock, ts)))
				break;
			if (r == -ETIMEDOUT)
				deadline = pg_until(clock, ts);
		}
		atomic_fetch_sub_explicit(&s->data, WAITER, memory_order_relaxed);
		if (r == -ETIMEDOUT)
			return ETIMEDOUT;
		pg_testcancel();
		if (!pg_eintr_ours(g, before, ts == NULL))
			return EINTR;
	}
}

static int real_wait(sem_t *sem, clockid_t clock, const struct timespec *ts)
{
	return ts ? PG_REAL(sem_clockwait)(sem, clock, ts) : PG_REAL(sem_wait)(sem);
}

static int __attribute__((noinline)) wait_shared(struct pg_g *g, sem_t *sem, clockid_t clock, const struct timespec *ts)
{
	for (;;) {
		uint32_t before = ts ? g->sig_ran : g->sig_norestart;
		int r;

		pg_cancel_enter(g);
		pg_entersyscall(g);
		r = real_wait(sem, clock, ts);
		pg_cancel_leave(g);
		pg_exitsyscall(g);
		if (r == 0 || errno != EINTR || !pg_eintr_ours(g, before, ts == NULL))
			return r;
	}
}

static int wait_any(sem_t *sem, clockid_t clock, const struct timespec *ts)
{
	struct pg_sem *s = (struct pg_sem *)sem;
	int r;

	PG_SYNC_SELF(g, real_wait(sem, clock, ts));
	if (pg_cancel_wanted(g))
		pg_testcancel();
	if (pg_likely(take(s, 0)))
		return 0;
	if (pg_unlikely(s->shared))
		return wait_shared(g, sem, clock, ts);
	r = wait_slow(g, s, clock, ts);
	if (r == 0)
		return 0;
	errno = r;
	return -1;
}

/* Blocks: the G.  Cancel: yes. */
PG_EXPORT int sem_wait(sem_t *sem)
{
	return wait_any(sem, CLOCK_REALTIME, NULL);
}

PG_EXPORT int sem_timedwait(sem_t *sem, const struct timespec *ts)
{
	return sem_clockwait(sem, CLOCK_REALTIME, ts);
}

PG_EXPORT int sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *ts)
{
	if (pg_clock_bad(clock) || pg_timespec_bad(ts)) {
		errno = EINVAL;
		return -1;
	}
	return wait_any(sem, clock, ts);
}

/* Async-signal-safe: handlers run only outside of the runtime. */
PG_EXPORT int sem_post(sem_t *sem)
{
	struct pg_sem *s = (struct pg_sem *)sem;
	uint64_t d = atomic_load_explicit(&s->data, memory_order_relaxed);

	if (pg_unlikely(s->shared) || pg_passthrough())
		return PG_REAL(sem_post)(sem);
	do {
		if ((uint32_t)d == SEM_VALUE_MAX) {
			errno = EOVERFLOW;
			return -1;
		}
		/* pairs with the acquire in take */
	} while (!atomic_compare_exchange_weak_explicit(&s->data, &d, d + 1, memory_order_release, memory_order_relaxed));
	if (d >= WAITER)
		pg_sema_wake(pg_low(&s->data), 1, PG_SEMA_ANY);
	return 0;
}

/* Blocks: in the kernel, on files. */
PG_EXPORT sem_t *sem_open(const char *name, int flags, ...)
{
	struct pg_g *g = pg_passthrough() ? NULL : pg_self();
	unsigned value = 0;
	mode_t mode = 0;
	sem_t *r;

	if (flags & O_CREAT) {
		va_list ap;

		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		value = va_arg(ap, unsigned);
		va_end(ap);
	}
	if (g == NULL)
		return PG_REAL(sem_open)(name, flags, mode, value);
	pg_entersyscall(g);
	r = PG_REAL(sem_open)(name, flags, mode, value);
	pg_exitsyscall(g);
	return r;
}
