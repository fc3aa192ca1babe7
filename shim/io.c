/* SPDX-License-Identifier: MIT */
/*
 * read, write and their kin, and the wait that all I/O of the shim shares.
 *
 * Needs from below: core/netpoll (what a descriptor is, readiness), core/syscall (announced calls).  No
 * state of its own.
 *
 * A descriptor's O_NONBLOCK is never touched, since it belongs to the open file.  Instead each kind is
 * tried in a way that cannot block: sockets with MSG_DONTWAIT; pipes, eventfds and timerfds with
 * RWF_NOWAIT; others (ttys, inotify) are polled and then called announced, in the rare case that somebody
 * else was faster the watcher takes the P away.  Files are announced at once.  What the program made
 * non-blocking goes straight to the real call: event loops pay for nothing.
 *
 * Rejected: setting O_NONBLOCK behind the program's back (other processes see it); io_uring (many places
 * forbid it).
 */
#include "shim/io.h"

#include "core/signal.h"

static bool interrupted(const struct pg_iowait *w)
{
	return (w->timed ? w->g->sig_ran != w->ran : w->g->sig_norestart != w->norestart) || pg_cancel_wanted(w->g);
}

/*
 * The poller does not take this descriptor (it has too many, or memory is out): the OS thread waits.  In
 * slices, so that a signal that came just before is noticed.
 */
static void wait_in_kernel(struct pg_iowait *w)
{
	struct pollfd p = { .fd = w->fd, .events = w->mode == PG_READ ? POLLIN : POLLOUT };
	struct timespec ts;
	int64_t slice = pg_after(1000000000);

	pg_left(w->deadline < slice ? w->deadline : slice, &ts);
	pg_io_enterlong(w->g);
	pg_sys(SYS_ppoll, &p, 1, &ts, NULL, 0);
	pg_exitsyscall(w->g);
}

int pg_io_wait(struct pg_iowait *w)
{
	struct pg_g *g = w->g;
	int r;

	if (w->deadline == 0) {
		int64_t t = pg_fd_timeout(w->fd, w->mode);
		w->timed = t != PG_FOREVER;
		w->deadline = pg_after(t);
	}
	/* Under rt no handler runs between the look and the park. */
	pg_rt_enter(g);
	g->quick = 0;
	r = interrupted(w) ? -EINTR : pg_netpoll_wait(w->fd, w->mode, w->deadline);
	pg_rt_exit(g);
	if (pg_unlikely(r == -EPERM)) {
		wait_in_kernel(w);
		r = w->deadline != PG_FOREVER && pg_now() >= w->deadline ? -ETIMEDOUT : -EINTR;
	}
	/* Cancelled, then closed: a thread that waited in the kernel would have seen the former only. */
	if (r == -EBADF && pg_cancel_wanted(g))
		return -EINTR;
	if (r == -EINTR)
		return interrupted(w) ? -EINTR : 0;
	return r == -ETIMEDOUT ? -EAGAIN : r;
}

int pg_io_waitpoll(struct pg_iowait *w, short events)
{
	for (;;) {
		struct pollfd p = { .fd = w->fd, .events = events };
		int r;

		if (pg_rawpoll(&p, 1) != 0)
			return 0;
		r = pg_io_wait(w);
		if (r != 0)
			return r;
	}
}

void pg_io_sigpipe(void)
{
	const struct timespec zero = { 0, 0 };
	uint64_t set = pg_sigbit(SIGPIPE);
	struct pg_g *g = pg_self_;
	siginfo_t si;

	if (!pg_is_green() || !(g->sigmask & set) || pg_sys(SYS_rt_sigtimedwait, &set, &si, &zero, 8) != SIGPIPE)
		return;
	pg_gkill(g, SIGPIPE, &si);
}

size_t pg_iov_len(const struct iovec *iov, size_t cnt)
{
	size_t n = 0;

	for (size_t i = 0; i < cnt; i++)
		if (__builtin_add_overflow(n, iov[i].iov_len, &n) || n > PG_RW_MAX)
			return PG_RW_MAX;
	return n;
}

static inline bool is_sock(enum pg_fdkind k)
{
	return k == PG_FD_SOCKET || k == PG_FD_STREAM;
}

/* -errno of a call without its non-blocking form (old kernels, eventfd's write). */
static inline bool no_nowait(long r)
{
	return r == -EOPNOTSUPP || r == -ENOSYS;
}

static long pipe_read(struct pg_g *g, int fd, const struct iovec *iov, int cnt)
{
	struct pg_iowait w = pg_iowait_init(g, fd, PG_READ);

	for (;;) {
		long r = pg_sys(SYS_preadv2, fd, iov, cnt, -1L, -1L, RWF_NOWAIT);

		if (pg_unlikely(no_nowait(r)))
			return PG_IO_POLL;
		if (r != -EAGAIN) {
			pg_netpoll_baton(fd, PG_READ);
			return r;
		}
		r = pg_io_wait(&w);
		if (r != 0)
			return r;
	}
}

/* Bytes, -errno, PG_IO_RETRY; PG_IO_POLL: the real call may be made now, announced. */
static long green_read(struct pg_g *g, int fd, const struct iovec *iov, int cnt)
{
	enum pg_fdkind k = pg_fd_kind(fd);
	struct pg_iowait w;
	long r;

	if (k < PG_FD_SOCKET || pg_fd_nonblock(fd))
		return PG_IO_POLL;
	if (is_sock(k)) {
		struct pg_rx x = { .fd = fd };
		struct msghdr mh;

		if (cnt == 1) {
			x.buf = iov->iov_base;
			x.n = iov->iov_len;
		} else {
			mh = (struct msghdr){ .msg_iov = (struct iovec *)iov, .msg_iovlen = cnt };
			x.msg = &mh;
			x.n = pg_iov_len(iov, cnt);
		}
		if (x.n == 0)
			return PG_IO_POLL;
		return pg_sock_recv(g, &x, k == PG_FD_STREAM);
	}
	if (k == PG_FD_NOWAIT) {
		r = pipe_read(g, fd, iov, cnt);
		if (r != PG_IO_POLL)
			return r;
	}
	w = pg_iowait_init(g, fd, PG_READ);
	r = pg_io_waitpoll(&w, POLLIN | POLLPRI);
	return r != 0 ? r : PG_IO_POLL;
}

/* The same for writes. */
static long green_write(struct pg_g *g, int fd, const struct iovec *iov, int cnt)
{
	enum pg_fdkind k = pg_fd_kind(fd);
	struct pg_tx x = { .fd = fd };
	struct pg_iowait w;
	long r;

	if (k < PG_FD_SOCKET || pg_fd_nonblock(fd))
		return PG_IO_POLL;
	if (k != PG_FD_POLL) {
		x.sock = is_sock(k);
		x.stream = k != PG_FD_SOCKET;
		x.flags = k == PG_FD_SOCKET ? MSG_EOR : 0; /* write(2) on a record socket ends the record */
		x.n = pg_iov_len(iov, cnt);
		if (cnt == 1 && x.sock) {
			x.buf = iov->iov_base;
		} else {
			x.iov = iov;
			x.iovcnt = cnt;
		}
		r = pg_io_send(g, &x);
		if (r != PG_IO_POLL)
			return r;
		if (x.n == 8)
			return PG_IO_POLL; /* eventfd: full once in 2^64 */
	}
	w = pg_iowait_init(g, fd, PG_WRITE);
	r = pg_io_waitpoll(&w, POLLOUT);
	return r != 0 ? r : PG_IO_POLL;
}

/* A few rounds: a descriptor that changes its kind each time gets the real call. */
#define PG_IO_ROUNDS 3

/*
 * Blocks: until there is something to read.  Cancel: yes, nothing is lost.  Differs: a close by another
 * thread ends it.
 */
PG_EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	struct pg_g *g = pg_self_;
	struct iovec iov = { buf, n };

	if (!pg_is_green() || n == 0)
		return PG_CANN(g, true, PG_REAL(read)(fd, buf, n));
	pg_io_testcancel(g);
	for (int i = 0; i < PG_IO_ROUNDS; i++) {
		long r = green_read(g, fd, &iov, 1);
		if (pg_likely(r > PG_IO_RETRY))
			return pg_io_result(r);
		if (r == PG_IO_POLL)
			break;
	}
	ssize_t r = PG_CANN(g, true, PG_REAL(read)(fd, buf, n));
	pg_netpoll_baton(fd, PG_READ);
	return r;
}
extern __typeof__(read) __read __attribute__((alias("read")));

PG_EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t size)
{
	return n > size ? PG_REAL(__read_chk)(fd, buf, n, size) : read(fd, buf, n);
}

/* Blocks: as read.  Cancel: yes. */
PG_EXPORT ssize_t readv(int fd, const struct iovec *iov, int cnt)
{
	struct pg_g *g = pg_self_;

	if (!pg_is_green() || cnt <= 0 || cnt > PG_IOV_MAX)
		return PG_CANN(g, true, PG_REAL(readv)(fd, iov, cnt));
	pg_io_testcancel(g);
	for (int i = 0; i < PG_IO_ROUNDS; i++) {
		long r = green_read(g, fd, iov, cnt);
		if (pg_likely(r > PG_IO_RETRY))
			return pg_io_result(r);
		if (r == PG_IO_POLL)
			break;
	}
	ssize_t r = PG_CANN(g, true, PG_REAL(readv)(fd, iov, cnt));
	pg_netpoll_baton(fd, PG_READ);
	return r;
}

/*
 * Blocks: until all is written.  Cancel: yes; what was written is lost from sight, as natively.
 * Differs: a close by another thread ends it.
 */
PG_EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	struct pg_g *g = pg_self_;
	struct iovec iov = { (void *)buf, n };

	if (!pg_is_green())
		return PG_CANN(g, true, PG_REAL(write)(fd, buf, n));
	pg_io_testcancel(g);
	for (int i = 0; i < PG_IO_ROUNDS; i++) {
		long r = green_write(g, fd, &iov, 1);
		if (pg_likely(r > PG_IO_RETRY))
			return pg_io_result(r);
		if (r == PG_IO_POLL)
			break;
	}
	ssize_t r = PG_CANN(g, true, PG_REAL(write)(fd, buf, n));
	pg_netpoll_baton(fd, PG_WRITE);
	return r;
}
extern __typeof__(write) __write __attribute__((alias("write")));

/* Blocks: as write.  Cancel: yes. */
PG_EXPORT ssize_t writev(int fd, const struct iovec *iov, int cnt)
{
	struct pg_g *g = pg_self_;

	if (!pg_is_green() || cnt <= 0 || cnt > PG_IOV_MAX)
		return PG_CANN(g, true, PG_REAL(writev)(fd, iov, cnt));
	pg_io_testcancel(g);
	for (int i = 0; i < PG_IO_ROUNDS; i++) {
		long r = green_write(g, fd, iov, cnt);
		if (pg_likely(r > PG_IO_RETRY))
			return pg_io_result(r);
		if (r == PG_IO_POLL)
			break;
	}
	ssize_t r = PG_CANN(g, true, PG_REAL(writev)(fd, iov, cnt));
	pg_netpoll_baton(fd, PG_WRITE);
	return r;
}

/* Blocks: the disk; as readv at the current position (off -1, no flags).  Cancel: yes. */
PG_EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int cnt, off_t off, int flags)
{
	if (off == -1 && flags == 0)
		return readv(fd, iov, cnt);
	return PG_CANN(pg_self_, true, PG_REAL(preadv2)(fd, iov, cnt, off, flags));
}
extern __typeof__(preadv2) preadv64v2 __attribute__((alias("preadv2")));

PG_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int cnt, off_t off, int flags)
{
	if (off == -1 && flags == 0)
		return writev(fd, iov, cnt);
	return PG_CANN(pg_self_, true, PG_REAL(pwritev2)(fd, iov, cnt, off, flags));
}
extern __typeof__(pwritev2) pwritev64v2 __attribute__((alias("pwritev2")));

/* Blocks: as read and write of eight bytes.  Cancel: yes. */
PG_EXPORT int eventfd_read(int fd, eventfd_t *value)
{
	return read(fd, value, sizeof(*value)) == sizeof(*value) ? 0 : -1;
}

PG_EXPORT int eventfd_write(int fd, eventfd_t value)
{
	return write(fd, &value, sizeof(value)) == sizeof(value) ? 0 : -1;
}
