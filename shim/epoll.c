/* SPDX-License-Identifier: MIT */
/*
 * epoll_wait and its kin on a set of the program's.
 *
 * Needs from below: core/netpoll, core/signal.  State: in_kernel, how many OS threads wait in the kernel
 * here.
 *
 * An event loop lives in this call, so its common case is the kernel's own: ask with a zero timeout, then
 * wait in the kernel with the P handed off.  Programs with very many waiting threads, and those that
 * exchange the signal mask (which must be atomic with the wait), have the G wait until the set itself is
 * readable.
 */
#include "core/signal.h"
#include "shim/io.h"

#define PG_EPOLL_INKERNEL 16

/*
 * A thread cancelled while it waits leaves its one behind; enough of them only turn all waits into waits of
 * a G.
 */
static _Atomic int in_kernel;

static inline long raw_epoll(int epfd, struct epoll_event *ev, int max, int ms)
{
	return pg_sys(SYS_epoll_pwait, epfd, ev, max, ms, NULL, 8);
}

/* Milliseconds left, rounded up as the kernel's granularity demands; -1: for ever. */
static int left_ms(int64_t deadline)
{
	int64_t d;

	if (deadline == PG_FOREVER)
		return -1;
	d = deadline - pg_now();
	if (d <= 0)
		return 0;
	d = (d - 1) / 1000000 + 1;
	return d > INT32_MAX ? INT32_MAX : (int)d;
}

static long wait_in_kernel(struct pg_g *g, int epfd, struct epoll_event *ev, int max, int64_t deadline, bool fine)
{
	struct timespec ts;
	long r = -ENOSYS;

	pg_cancel_enter(g);
	pg_io_enterlong(g);
	if (fine)
		r = pg_sys(SYS_epoll_pwait2, epfd, ev, max, pg_left(deadline, &ts), NULL, 8);
	if (r == -ENOSYS)
		r = raw_epoll(epfd, ev, max, left_ms(deadline));
	pg_cancel_leave(g);
	pg_exitsyscall(g);
	return r;
}

/* fine: in nanoseconds. */
static long epoll_green(struct pg_g *g, int epfd, struct epoll_event *ev, int max, int64_t deadline, bool fine,
			bool masked, uint32_t before)
{
	for (;;) {
		long r;

		if (g->sig_ran != before || pg_cancel_wanted(g))
			return -EINTR;
		if (!masked && atomic_load_explicit(&in_kernel, memory_order_relaxed) < PG_EPOLL_INKERNEL) {
			atomic_fetch_add_explicit(&in_kernel, 1, memory_order_relaxed);
			r = wait_in_kernel(g, epfd, ev, max, deadline, fine);
			atomic_fetch_sub_explicit(&in_kernel, 1, memory_order_relaxed);
		} else {
			struct pg_iowait w = { .g = g, .fd = epfd, .mode = PG_READ, .timed = true, .ran = before,
					       .deadline = deadline };
			r = pg_io_wait(&w);
			if (r == 0 || r == -EAGAIN || r == -EBADF) {
				r = raw_epoll(epfd, ev, max, 0);
				pg_netpoll_baton(epfd, PG_READ);
			}
		}
		if (r != 0 && r != -EINTR)
			return r;
		if (r == 0 && deadline != PG_FOREVER && pg_now() >= deadline)
			return 0;
	}
}

static long do_epoll(struct pg_g *g, int epfd, struct epoll_event *ev, int max, bool zero, int64_t timeout, bool fine,
		     const sigset_t *mask)
{
	uint32_t before = g->sig_ran;
	uint64_t old;
	long r;

	pg_io_testcancel(g);
	r = raw_epoll(epfd, ev, max, 0);
	if (r != 0 || (zero && mask == NULL))
		return pg_io_result(r);
	if (mask != NULL) {
		r = pg_sigprocmask(SIG_SETMASK, (const uint64_t *)mask, &old);
		if (r != 0)
			return pg_io_result(r);
	}
	if (!zero)
		r = epoll_green(g, epfd, ev, max, pg_after(timeout), fine, mask != NULL, before);
	else if (g->sig_ran != before)
		r = -EINTR;
	if (mask != NULL)
		pg_sigprocmask(SIG_SETMASK, &old, NULL);
	return pg_io_result(r);
}

/* Blocks: until the set has an event; the first few callers in the kernel.  Cancel: yes. */
PG_EXPORT int epoll_wait(int epfd, struct epoll_event *ev, int max, int timeout)
{
	struct pg_g *g = pg_self_;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(epoll_wait)(epfd, ev, max, timeout));
	return (int)do_epoll(g, epfd, ev, max, timeout == 0, timeout < 0 ? PG_FOREVER : timeout * 1000000LL, false, NULL);
}

/* Blocks: as epoll_wait; with a mask, the G.  Cancel: yes, with the mask put back. */
PG_EXPORT int epoll_pwait(int epfd, struct epoll_event *ev, int max, int timeout, const sigset_t *mask)
{
	struct pg_g *g = pg_self_;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(epoll_pwait)(epfd, ev, max, timeout, mask));
	return (int)do_epoll(g, epfd, ev, max, timeout == 0, timeout < 0 ? PG_FOREVER : timeout * 1000000LL, false, mask);
}

PG_EXPORT int epoll_pwait2(int epfd, struct epoll_event *ev, int max, const struct timespec *timeout, const sigset_t *mask)
{
	struct pg_g *g = pg_self_;
	int64_t ns = PG_FOREVER;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(epoll_pwait2)(epfd, ev, max, timeout, mask));
	if (timeout != NULL) {
		if (timeout->tv_sec < 0 || pg_timespec_bad(timeout)) {
			errno = EINVAL;
			return -1;
		}
		if (timeout->tv_sec < INT64_MAX / 1000000000 - 1)
			ns = timeout->tv_sec * 1000000000L + timeout->tv_nsec;
	}
	return (int)do_epoll(g, epfd, ev, max, ns == 0, ns, true, mask);
}
