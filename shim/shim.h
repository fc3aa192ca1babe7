/* SPDX-License-Identifier: MIT */
/*
 * What every file of the shim shares: the real functions, the four steps of a wrapper, cancellation points.
 *
 * A wrapper that only announces is one row of calls.def with kind `ann`, `long` or one of their relatives; its body is generated.  A wrapper
 * of kind `own` is written in the file of its family.
 */
#ifndef PG_SHIM_H
#define PG_SHIM_H

#include <errno.h>
#include <stdint.h>
#include <time.h>

#include "core/g.h"
#include "core/sched.h"
#include "core/syscall.h"

#define PG_EXPORT __attribute__((visibility("default")))

/* PG_REAL(read)(fd, buf, n): the next definition of the symbol behind ours.  Resolved at first use; see preload/real.h. */
#include "preload/real.h"

/* Is the caller a green G?  False: go straight to the real function (not started yet, wired, foreign, vfork's child). */
static inline bool pg_is_green(void)
{
	struct pg_g *g = pg_self_;
	return pg_likely(g != NULL) && g->mode == PG_GREEN;
}

/*
 * Cancellation.  A cancellation point that parks: pg_testcancel() first, and again when a wait says -EINTR.  One that makes an
 * announced call brackets it with pg_cancel_enter / pg_cancel_leave: in between a cancellation unwinds at once.
 */
void pg_testcancel(void); /* acts on a pending cancellation: then it does not return */
bool pg_cancel_acts(struct pg_g *g); /* a cancelled thread: does it end at the next cancellation point? */
static inline bool pg_cancel_wanted(struct pg_g *g)
{
	return pg_unlikely(atomic_load_explicit(&g->cancelled, memory_order_relaxed) != 0) && pg_cancel_acts(g);
}
/* The type of cancellation, in the G and in libc's word; what it was.  Acts on nothing. */
uint32_t pg_cancel_settype(struct pg_g *g, uint32_t type);
static inline uint32_t pg_cancel_type(struct pg_g *g, uint32_t type)
{
	return pg_likely(g->cancel_type == type) ? type : pg_cancel_settype(g, type);
}
static inline void pg_cancel_enter(struct pg_g *g)
{
	atomic_store_explicit(&g->cancel_point, 1, memory_order_relaxed);
	pg_barrier();
	if (pg_cancel_wanted(g)) {
		g->cancel_point = 0;
		pg_testcancel();
	}
}
static inline void pg_cancel_leave(struct pg_g *g)
{
	pg_barrier();
	atomic_store_explicit(&g->cancel_point, 0, memory_order_relaxed);
}

/*
 * Was the EINTR that a call just returned caused by a handler of the program (then it is the program's), or by our own
 * kick (then the call is made again)?  ran: g->sig_ran (calls never restarted) or g->sig_norestart (restartable ones) before.
 */
static inline bool pg_eintr_ours(struct pg_g *g, uint32_t before, bool restartable)
{
	return (restartable ? g->sig_norestart : g->sig_ran) == before;
}

/* An absolute time of a clock as a deadline in monotonic ns; tv_nsec must have been checked. */
int64_t pg_deadline_abs(clockid_t clock, const struct timespec *ts);
int64_t pg_deadline_rel(const struct timespec *ts);

static inline bool pg_timespec_bad(const struct timespec *ts)
{
	return ts->tv_nsec < 0 || ts->tv_nsec >= 1000000000L;
}

/* -errno to the libc convention. */
static inline long pg_ret(long r)
{
	if (pg_unlikely(r < 0 && r > -4096)) {
		errno = (int)-r;
		return -1;
	}
	return r;
}

#endif
