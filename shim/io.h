/* SPDX-License-Identifier: MIT */
/*
 * What the I/O files of the shim share: announced calls, one wait on a descriptor, the receive and send
 * loops.
 *
 * Results inside these files are the kernel's (-errno); the exported function turns them into errno once,
 * at its end, by pg_io_result(), which is also where a cancellation that ended a wait is acted upon.
 */
#ifndef PG_IO_H
#define PG_IO_H

#include <string.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/netpoll.h"
#include "core/sched.h"
#include "shim/protos.h"

#define PG_RW_MAX 0x7ffff000ul /* the kernel moves no more than this in one call */
#define PG_IOV_MAX 1024

/* Something else than a result; below any -errno. */
enum {
	PG_IO_RETRY = -5000, /* the descriptor is not what we took it for: look at it again */
	PG_IO_POLL = -5001,  /* no way to try without blocking: poll, then an announced call */
};

/* Announces a call of libc's: enter is pg_entersyscall or pg_io_enterlong. */
#define PG_ENTER(g, enter)											\
	do {													\
		/* libc may end the call at once by a cancellation, and nothing would end the announcement. */		\
		if (pg_likely(!pg_cancel_wanted(g)))								\
			enter(g);										\
	} while (0)

/*
 * expr (a real call that returns -1 and errno) announced, as a cancellation point, made again after an
 * EINTR that no handler of the program accounts for.  g may be NULL: the runtime has never seen this
 * thread.
 */
#define PG_ANNOUNCED_(g, restartable, cancels, enter, expr)							\
	({													\
		struct pg_g *pg_g_ = (g);									\
		__typeof__(expr) pg_r_;										\
		for (;;) {											\
			uint32_t pg_b_ = pg_g_ == NULL ? 0 : (restartable) ? pg_g_->sig_norestart : pg_g_->sig_ran;\
			if (pg_g_ == NULL) {									\
				pg_r_ = (expr);									\
				break;										\
			}											\
			if (cancels)										\
				pg_cancel_enter(pg_g_);								\
			PG_ENTER(pg_g_, enter);									\
			pg_r_ = (expr);										\
			if (cancels)										\
				pg_cancel_leave(pg_g_);								\
			pg_exitsyscall(pg_g_);									\
			if (pg_likely(pg_r_ != (__typeof__(pg_r_))-1) || errno != EINTR ||			\
			    !pg_eintr_ours(pg_g_, pg_b_, restartable))						\
				break;										\
		}												\
		pg_r_;												\
	})

/* Not a cancellation point / a cancellation point / the same, known to block for long. */
#define PG_ANN(g, restartable, expr) PG_ANNOUNCED_(g, restartable, 0, pg_entersyscall, expr)
#define PG_CANN(g, restartable, expr) PG_ANNOUNCED_(g, restartable, 1, pg_entersyscall, expr)
#define PG_LONG(g, restartable, expr) PG_ANNOUNCED_(g, restartable, 0, pg_io_enterlong, expr)
#define PG_CLONG(g, restartable, expr) PG_ANNOUNCED_(g, restartable, 1, pg_io_enterlong, expr)

/* A G without a P has none to hand off. */
static inline void pg_io_enterlong(struct pg_g *g)
{
	if (g->mode == PG_GREEN)
		pg_entersyscallblock(g);
	else
		pg_entersyscall(g);
}

static inline void pg_io_testcancel(struct pg_g *g)
{
	if (pg_cancel_wanted(g))
		pg_testcancel();
}

/*
 * A write said EPIPE, and the caller has SIGPIPE blocked: it is pending on the OS thread.  Takes it from there for the calling G.
 */
void pg_io_sigpipe(void);

/* A raw result as the program sees it.  Cancel: yes, when a wait was ended by one. */
static inline long pg_io_result(long r)
{
	if (pg_unlikely(r < 0)) {
		/* Nothing was done, and natively the signal of a cancellation would have come before any other reason to end. */
		pg_testcancel();
		if (r == -EPIPE)
			pg_io_sigpipe();
	}
	return pg_ret(r);
}

/* Monotonic time in ns from now, PG_FOREVER when that is beyond reckoning. */
static inline int64_t pg_after(int64_t ns)
{
	int64_t t;

	if (ns == PG_FOREVER || __builtin_add_overflow(pg_now(), ns, &t))
		return PG_FOREVER;
	return t;
}

/* Time left until a deadline, for a real call: NULL for ever. */
static inline struct timespec *pg_left(int64_t deadline, struct timespec *ts)
{
	int64_t d;

	if (deadline == PG_FOREVER)
		return NULL;
	d = deadline - pg_now();
	if (d < 0)
		d = 0;
	ts->tv_sec = d / 1000000000;
	ts->tv_nsec = d % 1000000000;
	return ts;
}

/* poll(2) of the kernel with a zero timeout: a count or -errno, never -EINTR, which even this one returns when a kick is due. */
static inline long pg_rawpoll(struct pollfd *fds, nfds_t n)
{
	struct timespec zero;
	long r;

	do {
		zero = (struct timespec){ 0, 0 };
		r = pg_sys(SYS_ppoll, fds, n, &zero, NULL, 0);
	} while (r == -EINTR);
	return r;
}

/*
 * A receive or a poll has not had to wait.  Where clients are fast, a thread finds its next request each time and would go on
 * for a whole time slice, with others who have requests of their own behind it: natively it would have slept in between.  So
 * after each request (it has sent something since the last time), or else after several receives, it lets others go first,
 * and the poller is asked now and then.
 */
enum { PG_QUICK = 8 };
static inline void pg_io_quick(struct pg_g *g)
{
	if (pg_unlikely(++g->quick >= PG_QUICK)) {
		g->quick = 0;
		pg_letothers();
	}
}

/* Something was sent. */
static inline void pg_io_sent(struct pg_g *g)
{
	g->quick = PG_QUICK;
}

/* One call's wait on one descriptor. */
struct pg_iowait {
	struct pg_g *g;
	int fd;
	int mode;                /* PG_READ or PG_WRITE */
	bool timed;              /* a socket timeout is set: then any handler ends the call, SA_RESTART or not */
	uint32_t ran, norestart; /* the G's counts when the call began */
	int64_t deadline;        /* 0: not asked yet */
};

static inline struct pg_iowait pg_iowait_init(struct pg_g *g, int fd, int mode)
{
	return (struct pg_iowait){
		.g = g, .fd = fd, .mode = mode, .ran = g->sig_ran, .norestart = g->sig_norestart,
	};
}

/*
 * Waits until the call may be tried again.  0 try again; -EAGAIN the socket's timeout is over; -EINTR for
 * the program or for a cancellation; -EBADF closed by another thread.  Blocks: the G.
 */
int pg_io_wait(struct pg_iowait *w);

/*
 * Waits until poll(2) says one of the events, or anything is wrong with the descriptor.  0 or what
 * pg_io_wait says.
 */
int pg_io_waitpoll(struct pg_iowait *w, short events);

/* A receive on a socket: msg, or buf and addr.  n: bytes asked for. */
struct pg_rx {
	int fd;
	int flags;
	void *buf;
	size_t n;
	struct sockaddr *addr;
	socklen_t *alen;
	struct msghdr *msg;
};

/* Receives; -errno or PG_IO_RETRY.  Blocks: the G, until there is something. */
long pg_sock_recv(struct pg_g *g, const struct pg_rx *x, bool stream);

/* A write: msg, or iov, or buf (and addr).  n: bytes in all. */
struct pg_tx {
	int fd;
	int flags;
	bool sock;   /* false: a pipe, by pwritev2(RWF_NOWAIT) */
	bool stream; /* goes on until all is written */
	int iovcnt;
	const void *buf;
	size_t n;
	const struct sockaddr *addr;
	socklen_t alen;
	const struct iovec *iov;
	const struct msghdr *msg;
};

/*
 * Writes; bytes written (fewer than asked for when something ended it after some), -errno, PG_IO_RETRY or
 * PG_IO_POLL.
 */
long pg_io_send(struct pg_g *g, const struct pg_tx *x);

/* Sum of the lengths, as the kernel caps it. */
size_t pg_iov_len(const struct iovec *iov, size_t cnt);

#endif
