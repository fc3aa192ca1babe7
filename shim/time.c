/* SPDX-License-Identifier: MIT */
/*
 * Sleeping, and deadlines for everybody.
 *
 * Needs from below: pg_sleep_until.  The runtime counts in nanoseconds of CLOCK_MONOTONIC; times of other
 * clocks are carried over by reading both clocks.  What does not fit is PG_FOREVER.  A sleep until a time
 * of day looks at that clock again when it wakes, so a clock set back lengthens it as natively (one set
 * forward does not shorten it).
 */
#include "shim/io.h"
#include "shim/thread.h"

static int64_t ts_ns(const struct timespec *ts)
{
	int64_t ns;

	if (__builtin_mul_overflow((int64_t)ts->tv_sec, (int64_t)1000000000, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)ts->tv_nsec, &ns))
		return ts->tv_sec < 0 ? INT64_MIN : PG_FOREVER;
	return ns;
}

int64_t pg_deadline_rel(const struct timespec *ts)
{
	int64_t ns = ts_ns(ts);

	return ns < 0 ? pg_now() : pg_after(ns);
}

int64_t pg_deadline_abs(clockid_t clock, const struct timespec *ts)
{
	int64_t at = ts_ns(ts), d;
	struct timespec now;

	if (at == PG_FOREVER || at <= 0)
		return at <= 0 ? 0 : PG_FOREVER;
	if (clock == CLOCK_MONOTONIC)
		return at;
	if (clock_gettime(clock, &now) != 0 || __builtin_sub_overflow(at, ts_ns(&now), &d))
		return PG_FOREVER;
	return d <= 0 ? 0 : pg_after(d);
}

/* Sleeps; 0 or -EINTR when a handler of the program has run.  Cancel: yes. */
static int sleep_until(struct pg_g *g, int64_t deadline)
{
	uint32_t before = g->sig_ran;

	pg_io_testcancel(g);
	for (;;) {
		int r;

		pg_rt_enter(g);
		r = g->sig_ran != before || pg_cancel_wanted(g) ? -EINTR : pg_sleep_until(deadline, PG_WAIT_sleep);
		pg_rt_exit(g);
		if (r == 0 && pg_now() >= deadline)
			return 0;
		pg_io_testcancel(g);
		if (g->sig_ran != before)
			return -EINTR;
	}
}

/* A relative sleep; what is left goes to *rem, as the kernel gives it: only when interrupted. */
static int sleep_rel(struct pg_g *g, const struct timespec *ts, struct timespec *rem)
{
	int64_t deadline = pg_deadline_rel(ts);
	int r = sleep_until(g, deadline);

	if (r == -EINTR && rem != NULL && pg_left(deadline, rem) == NULL)
		*rem = *ts;
	return r;
}

/* Blocks: the G.  Cancel: yes. */
PG_EXPORT int nanosleep(const struct timespec *ts, struct timespec *rem)
{
	struct pg_g *g = pg_self_;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(nanosleep)(ts, rem));
	if (ts->tv_sec < 0 || pg_timespec_bad(ts)) {
		errno = EINVAL;
		return -1;
	}
	return (int)pg_ret(sleep_rel(g, ts, rem));
}
extern __typeof__(nanosleep) __nanosleep __attribute__((alias("nanosleep")));

/* Blocks: the G.  Cancel: yes.  Returns the seconds left when a handler ran. */
PG_EXPORT unsigned sleep(unsigned seconds)
{
	struct pg_g *g = pg_self_;
	struct timespec ts = { seconds, 0 };

	if (!pg_is_green()) {
		unsigned r;
		if (g != NULL)
			pg_cancel_enter(g);
		r = PG_REAL(sleep)(seconds);
		if (g != NULL)
			pg_cancel_leave(g);
		return r;
	}
	return sleep_rel(g, &ts, &ts) == 0 ? 0 : (unsigned)ts.tv_sec;
}

/* Blocks: the G.  Cancel: yes. */
PG_EXPORT int usleep(useconds_t us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	if (!pg_is_green())
		return PG_CANN(pg_self_, false, PG_REAL(usleep)(us));
	return (int)pg_ret(sleep_rel(pg_self_, &ts, NULL));
}

static bool sleeping_clock(clockid_t c)
{
	return c == CLOCK_REALTIME || c == CLOCK_MONOTONIC || c == CLOCK_BOOTTIME || c == CLOCK_TAI;
}

/* Blocks: the G; sleeps on the clock of a process's CPU time hold an OS thread.  Cancel: yes.  Returns the error number. */
PG_EXPORT int clock_nanosleep(clockid_t clock, int flags, const struct timespec *ts, struct timespec *rem)
{
	struct pg_g *g = pg_self_, *of;
	int r;

	if (clock < 0 && (of = pg_clock_thread(clock)) != NULL)
		return pg_clock_sleep(of, clock, flags & TIMER_ABSTIME, ts, rem);
	if (!pg_is_green() || !sleeping_clock(clock)) {
		if (g != NULL) {
			pg_cancel_enter(g);
			pg_entersyscall(g);
		}
		r = PG_REAL(clock_nanosleep)(clock, flags, ts, rem);
		if (g != NULL) {
			pg_cancel_leave(g);
			pg_exitsyscall(g);
		}
		return r;
	}
	if (ts->tv_sec < 0 || pg_timespec_bad(ts))
		return EINVAL;
	if (!(flags & TIMER_ABSTIME))
		return -sleep_rel(g, ts, rem);
	for (;;) {
		struct timespec now;

		r = sleep_until(g, pg_deadline_abs(clock, ts));
		if (r != 0)
			return -r;
		if (clock_gettime(clock, &now) != 0 || now.tv_sec > ts->tv_sec ||
		    (now.tv_sec == ts->tv_sec && now.tv_nsec >= ts->tv_nsec))
			return 0;
	}
}
