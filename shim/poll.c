/* SPDX-License-Identifier: MIT */
/*
 * poll, select and their kin.
 *
 * Needs from below: core/netpoll (pg_netpoll_poll), core/signal for the masks of ppoll and pselect.
 *
 * The kernel is asked with a zero timeout first and last, so every result and every error is its own; only
 * the time in between is ours.  select asks with a real select, since only that knows the descriptor sets'
 * fine print.
 */
#include "core/signal.h"
#include "shim/io.h"

struct look {
	struct pollfd *fds;
	nfds_t n;
	long r;
};

static bool look_again(void *arg)
{
	struct look *l = arg;

	l->r = pg_rawpoll(l->fds, l->n);
	return l->r != 0;
}

/* The poller does not take one of them: the OS thread waits, a second at a time. */
static void poll_in_kernel(struct pg_g *g, struct look *l, int64_t deadline)
{
	struct timespec ts;
	int64_t slice = pg_after(1000000000);

	pg_left(deadline < slice ? deadline : slice, &ts);
	pg_io_enterlong(g);
	l->r = pg_sys(SYS_ppoll, l->fds, l->n, &ts, NULL, 0);
	pg_exitsyscall(g);
	if (l->r == -EINTR)
		l->r = 0;
}

/*
 * None is ready: waits.  A count, 0 when time is over, -EINTR when a handler has run since `before` or a
 * cancellation came, or the kernel's -errno.  Blocks: the G.
 */
static long poll_wait(struct pg_g *g, struct pollfd *fds, nfds_t n, int64_t deadline, uint32_t before)
{
	struct look l = { fds, n, 0 };

	for (;;) {
		int r;

		l.r = 0;
		pg_rt_enter(g); /* no handler between the look and the park */
		if (g->sig_ran != before || pg_cancel_wanted(g))
			r = -EINTR;
		else if (n == 0)
			r = pg_sleep_until(deadline, PG_WAIT_poll);
		else
			r = pg_netpoll_poll(fds, (unsigned)n, deadline, look_again, &l);
		pg_rt_exit(g);
		if (r == -EPERM)
			poll_in_kernel(g, &l, deadline);
		else if (l.r == 0 && n != 0)
			look_again(&l);
		if (l.r != 0)
			return l.r;
		if (g->sig_ran != before || pg_cancel_wanted(g))
			return -EINTR;
		if (deadline != PG_FOREVER && pg_now() >= deadline)
			return 0;
	}
}

/*
 * Is this the commonest form, one direction of one descriptor?  Then its direction.  Only on the caller's stack, where it can be
 * looked at before the kernel has found that it is readable memory.
 */
static bool simple(struct pg_g *g, const struct pollfd *fds, nfds_t n, int *mode)
{
	__asm__("" : "+r"(fds)); /* libc's header says that poll only writes */
	if (n != 1 || (uintptr_t)fds < (uintptr_t)__builtin_frame_address(0) || (uintptr_t)(fds + 1) > (uintptr_t)g->stack_hi || fds->fd < 0)
		return false;
	*mode = fds->events == POLLOUT ? PG_WRITE : PG_READ;
	return fds->events == POLLIN || fds->events == (POLLIN | POLLPRI) || fds->events == POLLOUT;
}

/*
 * One direction of one descriptor: waits as a read or a write would, but leaves what it finds to others, who are told.
 * The kernel is not asked before the wait when the last read from a stream left nothing; after it, always.  As poll_wait
 * otherwise.
 */
static long poll_one(struct pg_g *g, struct pollfd *fds, int mode, int64_t timeout)
{
	struct look l = { fds, 1, 0 };
	int64_t deadline = 0;
	uint32_t before = g->sig_ran;
	int r;

	pg_io_testcancel(g);
	for (;;) {
		if ((mode == PG_WRITE || !pg_netpoll_empty(fds->fd) || deadline != 0) && look_again(&l)) {
			if (deadline == 0)
				pg_io_quick(g);
			else
				pg_netpoll_baton(fds->fd, mode);
			return l.r;
		}
		if (deadline == 0)
			deadline = pg_after(timeout);
		else if (deadline != PG_FOREVER && pg_now() >= deadline)
			return 0;
		pg_rt_enter(g); /* no handler between the look and the park */
		g->quick = 0;
		r = g->sig_ran != before || pg_cancel_wanted(g) ? -EINTR : pg_netpoll_wait(fds->fd, mode, deadline);
		pg_rt_exit(g);
		if (r == -EPERM) {
			poll_in_kernel(g, &l, deadline);
			if (l.r != 0)
				return l.r;
		}
		if (g->sig_ran != before || pg_cancel_wanted(g))
			return look_again(&l) ? l.r : -EINTR;
	}
}

/* The three forms of a timeout. */
static long green_poll(struct pg_g *g, struct pollfd *fds, nfds_t n, bool zero, int64_t timeout, const uint64_t *mask)
{
	uint32_t before = g->sig_ran;
	uint64_t old;
	long r;

	pg_io_testcancel(g);
	r = pg_rawpoll(fds, n);
	if (r != 0 || (zero && mask == NULL))
		return pg_io_result(r);
	if (mask != NULL) {
		r = pg_sigprocmask(SIG_SETMASK, mask, &old);
		if (r != 0)
			return pg_io_result(r);
	}
	if (!zero)
		r = poll_wait(g, fds, n, pg_after(timeout), before);
	else if (g->sig_ran != before)
		r = -EINTR;
	if (mask != NULL)
		pg_sigprocmask(SIG_SETMASK, &old, NULL);
	return pg_io_result(r);
}

/*
 * Blocks: until a descriptor has an event.  Cancel: yes.  Differs: sees it when another thread closes one
 * (POLLNVAL).
 */
PG_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct pg_g *g = pg_self_;
	int mode;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(poll)(fds, n, timeout));
	if (timeout != 0 && simple(g, fds, n, &mode))
		return (int)pg_io_result(poll_one(g, fds, mode, timeout < 0 ? PG_FOREVER : timeout * 1000000LL));
	return (int)green_poll(g, fds, n, timeout == 0, timeout < 0 ? PG_FOREVER : timeout * 1000000LL, NULL);
}
extern __typeof__(poll) __poll __attribute__((alias("poll")));

PG_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
	return size / sizeof(*fds) < n ? PG_REAL(__poll_chk)(fds, n, timeout, size) : poll(fds, n, timeout);
}

static int64_t ts_ns(const struct timespec *ts)
{
	int64_t ns;

	if (ts == NULL || __builtin_mul_overflow((int64_t)ts->tv_sec, (int64_t)1000000000, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)ts->tv_nsec, &ns))
		return PG_FOREVER;
	return ns;
}

/* Blocks: as poll, with the signal mask exchanged.  Cancel: yes, with the mask put back. */
PG_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	struct pg_g *g = pg_self_;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(ppoll)(fds, n, timeout, mask));
	if (timeout != NULL && (timeout->tv_sec < 0 || pg_timespec_bad(timeout))) {
		errno = EINVAL;
		return -1;
	}
	return (int)green_poll(g, fds, n, timeout != NULL && timeout->tv_sec == 0 && timeout->tv_nsec == 0,
			       ts_ns(timeout), (const uint64_t *)mask);
}

PG_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t size)
{
	return size / sizeof(*fds) < n ? PG_REAL(__ppoll_chk)(fds, n, timeout, mask, size)
				       : ppoll(fds, n, timeout, mask);
}

/* ---- select ---- */

#define WORD_BITS (8 * sizeof(unsigned long))
#define SET_WORDS (FD_SETSIZE / WORD_BITS)
#define SMALL_POLL 64

/* The program's three sets, and what they were at the start. */
struct sets {
	int nfds;
	size_t words;
	unsigned long *user[3];
	unsigned long in[3][SET_WORDS];
};

static const short set_events[3] = { POLLIN, POLLOUT, POLLPRI };

static void sets_save(struct sets *s)
{
	for (int k = 0; k < 3; k++)
		if (s->user[k] != NULL)
			memcpy(s->in[k], s->user[k], s->words * sizeof(long));
}

static void sets_restore(struct sets *s)
{
	for (int k = 0; k < 3; k++)
		if (s->user[k] != NULL)
			memcpy(s->user[k], s->in[k], s->words * sizeof(long));
}

static long raw_select(struct sets *s)
{
	struct timespec zero;
	long r;

	do { /* EINTR as in pg_rawpoll; the sets are untouched then */
		zero = (struct timespec){ 0, 0 };
		r = pg_sys(SYS_pselect6, s->nfds, s->user[0], s->user[1], s->user[2], &zero, NULL);
	} while (r == -EINTR);
	return r;
}

/* The descriptors asked for, as poll wants them; how many there are, which may be more than fit. */
static unsigned sets_to_poll(const struct sets *s, struct pollfd *p, unsigned cap)
{
	unsigned n = 0;

	for (size_t w = 0; w < s->words; w++) {
		unsigned long any = 0;

		for (int k = 0; k < 3; k++)
			if (s->user[k] != NULL)
				any |= s->in[k][w];
		for (; any != 0; any &= any - 1) {
			int bit = __builtin_ctzl(any);
			int fd = (int)(w * WORD_BITS) + bit;

			if (fd >= s->nfds)
				break;
			if (n < cap) {
				p[n] = (struct pollfd){ .fd = fd };
				for (int k = 0; k < 3; k++)
					if (s->user[k] != NULL && (s->in[k][w] >> bit & 1))
						p[n].events |= set_events[k];
			}
			n++;
		}
	}
	return n;
}

/*
 * Waits by poll, then asks select.  Where poll sees an event that these sets do not ask for (a hang-up on a
 * descriptor only in the third set), the descriptor is left out from then on.
 */
static long select_loop(struct pg_g *g, struct sets *s, struct pollfd *p, unsigned n, int64_t deadline, uint32_t before)
{
	for (;;) {
		long r = poll_wait(g, p, n, deadline, before);

		sets_restore(s);
		if (r < 0)
			return r;
		r = raw_select(s);
		if (r != 0 || (deadline != PG_FOREVER && pg_now() >= deadline))
			return r;
		for (unsigned i = 0; i < n; i++)
			if (p[i].revents & (POLLHUP | POLLERR | POLLNVAL))
				p[i].fd = -1;
	}
}

static __attribute__((noinline)) long select_small(struct pg_g *g, struct sets *s, int64_t deadline, uint32_t before)
{
	struct pollfd p[SMALL_POLL];

	return select_loop(g, s, p, sets_to_poll(s, p, SMALL_POLL), deadline, before);
}

static __attribute__((noinline)) long select_large(struct pg_g *g, struct sets *s, int64_t deadline, uint32_t before)
{
	struct pollfd p[FD_SETSIZE];

	return select_loop(g, s, p, sets_to_poll(s, p, FD_SETSIZE), deadline, before);
}

/* Many descriptors and a small stack: the OS thread waits, a second at a time. */
static __attribute__((noinline)) long select_in_kernel(struct pg_g *g, struct sets *s, int64_t deadline, uint32_t before)
{
	for (;;) {
		int64_t slice = pg_after(1000000000);
		struct timespec ts;
		long r;

		sets_restore(s);
		if (g->sig_ran != before || pg_cancel_wanted(g))
			return -EINTR;
		pg_left(deadline < slice ? deadline : slice, &ts);
		pg_io_enterlong(g);
		r = pg_sys(SYS_pselect6, s->nfds, s->user[0], s->user[1], s->user[2], &ts, NULL);
		pg_exitsyscall(g);
		if (r != 0 && r != -EINTR)
			return r;
		if (r == 0 && deadline != PG_FOREVER && pg_now() >= deadline)
			return 0;
	}
}

static bool stack_room(struct pg_g *g, size_t n)
{
	return (char *)__builtin_frame_address(0) - (char *)g->stack_lo > (ptrdiff_t)n;
}

/* -errno or a count.  The sets are the kernel's answer; on an error they are as they were. */
static long green_select(struct pg_g *g, int nfds, fd_set *rd, fd_set *wr, fd_set *ex, bool zero, int64_t deadline,
			 const uint64_t *mask)
{
	uint32_t before = g->sig_ran;
	struct sets s = { .nfds = nfds };
	uint64_t old;
	long r;

	s.words = ((size_t)nfds + WORD_BITS - 1) / WORD_BITS;
	s.user[0] = (unsigned long *)rd;
	s.user[1] = (unsigned long *)wr;
	s.user[2] = (unsigned long *)ex;
	sets_save(&s);
	r = raw_select(&s);
	if (r != 0 || (zero && mask == NULL))
		return r;
	if (mask != NULL) {
		r = pg_sigprocmask(SIG_SETMASK, mask, &old);
		if (r != 0) {
			sets_restore(&s);
			return r;
		}
	}
	if (zero) {
		if (g->sig_ran != before)
			r = -EINTR;
	} else if (sets_to_poll(&s, NULL, 0) <= SMALL_POLL) {
		r = select_small(g, &s, deadline, before);
	} else if (stack_room(g, 48 * 1024)) {
		r = select_large(g, &s, deadline, before);
	} else {
		r = select_in_kernel(g, &s, deadline, before);
	}
	if (r < 0)
		sets_restore(&s);
	if (mask != NULL)
		pg_sigprocmask(SIG_SETMASK, &old, NULL);
	return r;
}

/*
 * Blocks: until a descriptor is ready.  Cancel: yes.
 * Differs: sees a close by another thread (EBADF); sets above FD_SETSIZE hold an OS thread.
 */
PG_EXPORT int select(int nfds, fd_set *rd, fd_set *wr, fd_set *ex, struct timeval *timeout)
{
	struct pg_g *g = pg_self_;
	int64_t deadline = PG_FOREVER;
	struct timespec ts;
	long r;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(select)(nfds, rd, wr, ex, timeout));
	if (nfds < 0 || nfds > FD_SETSIZE)
		return PG_CLONG(g, false, PG_REAL(select)(nfds, rd, wr, ex, timeout));
	pg_io_testcancel(g);
	if (timeout != NULL) {
		if (timeout->tv_sec < 0 || timeout->tv_usec < 0) {
			errno = EINVAL;
			return -1;
		}
		ts.tv_nsec = timeout->tv_usec % 1000000 * 1000;
		if (__builtin_add_overflow(timeout->tv_sec, timeout->tv_usec / 1000000, &ts.tv_sec))
			ts.tv_sec = INT64_MAX;
		deadline = pg_deadline_rel(&ts);
	}
	r = green_select(g, nfds, rd, wr, ex, timeout != NULL && ts.tv_sec == 0 && ts.tv_nsec == 0, deadline, NULL);
	if (timeout != NULL && pg_left(deadline, &ts) != NULL) {
		timeout->tv_sec = ts.tv_sec;
		timeout->tv_usec = ts.tv_nsec / 1000;
	}
	return (int)pg_io_result(r);
}
extern __typeof__(select) __select __attribute__((alias("select")));

/* Blocks: as select, with the signal mask exchanged.  Cancel: yes, with the mask put back. */
PG_EXPORT int pselect(int nfds, fd_set *rd, fd_set *wr, fd_set *ex, const struct timespec *timeout, const sigset_t *mask)
{
	struct pg_g *g = pg_self_;
	int64_t deadline = PG_FOREVER;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(pselect)(nfds, rd, wr, ex, timeout, mask));
	if (nfds < 0 || nfds > FD_SETSIZE)
		return PG_CLONG(g, false, PG_REAL(pselect)(nfds, rd, wr, ex, timeout, mask));
	pg_io_testcancel(g);
	if (timeout != NULL) {
		if (timeout->tv_sec < 0 || pg_timespec_bad(timeout)) {
			errno = EINVAL;
			return -1;
		}
		deadline = pg_deadline_rel(timeout);
	}
	return (int)pg_io_result(green_select(g, nfds, rd, wr, ex,
					      timeout != NULL && timeout->tv_sec == 0 && timeout->tv_nsec == 0, deadline,
					      (const uint64_t *)mask));
}
