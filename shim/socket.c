/* SPDX-License-Identifier: MIT */
/*
 * Sockets: receiving, sending, accept, connect.
 *
 * Needs from below: core/netpoll.  State: one word per hash of a listening descriptor, see accept_enter.
 *
 * Receiving and sending are tried with MSG_DONTWAIT.  accept and connect have no such form.  accept polls,
 * then makes the announced call; connect is announced.  Straight to the real call go: sockets that the
 * program made non-blocking, MSG_DONTWAIT, MSG_ERRQUEUE and MSG_OOB, which do not block; but see recv_dontwait.
 */
#include "core/sema.h"
#include "shim/io.h"

/* ---- receiving ---- */

static inline long rx_try(const struct pg_rx *x)
{
	if (x->msg != NULL)
		return pg_sys(SYS_recvmsg, x->fd, x->msg, x->flags | MSG_DONTWAIT);
	return pg_sys(SYS_recvfrom, x->fd, x->buf, x->n, x->flags | MSG_DONTWAIT, x->addr, x->alen);
}

/* The descriptor was replaced by something else behind our back. */
static long not_sock(int fd)
{
	pg_fd_forget(fd);
	return PG_IO_RETRY;
}

/* After a try: tells the poller that nothing is left, or the next in the queue that there may be more. */
static void rx_done(const struct pg_rx *x, long r, bool plain)
{
	if (plain && (r == -EAGAIN || (r > 0 && (size_t)r < x->n)))
		pg_netpoll_drained(x->fd);
	else
		pg_netpoll_baton(x->fd, PG_READ);
}

long pg_sock_recv(struct pg_g *g, const struct pg_rx *x, bool stream)
{
	struct pg_iowait w = pg_iowait_init(g, x->fd, PG_READ);
	bool plain = stream && x->flags == 0;
	long r;

	for (;;) {
		if (!(plain && pg_netpoll_empty(x->fd))) {
			r = rx_try(x);
			if (pg_likely(r != -EAGAIN))
				break;
		}
		r = pg_io_wait(&w);
		if (r != 0)
			return r;
	}
	if (pg_unlikely(r == -ENOTSOCK))
		return not_sock(x->fd);
	rx_done(x, r, plain);
	if (w.deadline == 0)
		pg_io_quick(g);
	return r;
}

/*
 * From a stream, without blocking by the program's own wish; PG_IO_POLL: no wait has gone through the poller, this is an event
 * loop's.  Else poll(2) will come next, and needn't ask what is known here.
 */
static long recv_dontwait(struct pg_g *g, const struct pg_rx *x)
{
	long r;

	if (x->n == 0 || !pg_netpoll_registered(x->fd))
		return PG_IO_POLL;
	r = rx_try(x);
	if (r == -ENOTSOCK)
		return not_sock(x->fd);
	rx_done(x, r, true);
	if (r > 0)
		pg_io_quick(g);
	return r;
}

/*
 * MSG_WAITALL on a stream: goes on until the buffer is full, the end, an error or a signal.  The socket's
 * timeout is for the whole call.  A message without ancillary data is filled entry by entry.
 */
static long recv_all(struct pg_g *g, const struct pg_rx *x)
{
	struct pg_iowait w = pg_iowait_init(g, x->fd, PG_READ);
	struct iovec one = { x->buf, x->n };
	const struct iovec *iov = x->msg != NULL ? x->msg->msg_iov : &one;
	size_t total = 0, off = 0;
	long r;

	for (;;) {
		if (total == 0) {
			r = rx_try(x);
		} else {
			while (off >= iov->iov_len) {
				off -= iov->iov_len;
				iov++;
			}
			r = pg_sys(SYS_recvfrom, x->fd, (char *)iov->iov_base + off, iov->iov_len - off,
				   x->flags | MSG_DONTWAIT, NULL, NULL);
		}
		if (r == -EAGAIN) {
			r = pg_io_wait(&w);
			if (r == 0)
				continue;
			return total != 0 ? (long)total : r;
		}
		if (r == -ENOTSOCK && total == 0)
			return not_sock(x->fd);
		if (r <= 0)
			break;
		total += r;
		off += r;
		if (total >= x->n)
			break;
	}
	pg_netpoll_baton(x->fd, PG_READ);
	return total != 0 ? (long)total : r;
}

/* Streams that are neither TCP nor Unix (vsock, MPTCP) are PG_FD_SOCKET; asked only where it matters. */
static bool is_stream(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);

	return pg_sys(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

/* A receive by a green G; PG_IO_POLL: the real call, announced. */
static long green_recv(struct pg_g *g, const struct pg_rx *x)
{
	enum pg_fdkind k;
	long r;

	if (x->flags & (MSG_ERRQUEUE | MSG_OOB))
		return PG_IO_POLL;
	pg_io_testcancel(g);
	for (int i = 0; i < 3; i++) {
		k = pg_fd_kind(x->fd);
		if (k != PG_FD_SOCKET && k != PG_FD_STREAM)
			return PG_IO_POLL;
		if ((x->flags & MSG_DONTWAIT) || pg_fd_nonblock(x->fd)) {
			r = k == PG_FD_STREAM && !(x->flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL)) ? recv_dontwait(g, x) : PG_IO_POLL;
			if (r != PG_IO_RETRY)
				return r;
			continue;
		}
		if ((x->flags & MSG_WAITALL) && (k == PG_FD_STREAM || is_stream(x->fd))) {
			if ((x->flags & MSG_PEEK) || (x->msg != NULL && x->msg->msg_controllen != 0))
				return PG_IO_POLL;
			r = recv_all(g, x);
		} else {
			r = pg_sock_recv(g, x, k == PG_FD_STREAM);
		}
		if (pg_likely(r > PG_IO_RETRY))
			return r;
	}
	return PG_IO_POLL;
}

/*
 * Blocks: until something arrives, SO_RCVTIMEO.  Cancel: yes, nothing is lost.  Differs: SO_RCVLOWAT is not
 * waited for.
 */
PG_EXPORT ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	struct pg_g *g = pg_self_;
	struct pg_rx x = { .fd = fd, .flags = flags, .buf = buf, .n = n };
	long r;

	if (pg_is_green() && (r = green_recv(g, &x)) != PG_IO_POLL)
		return pg_io_result(r);
	return PG_CANN(g, true, PG_REAL(recv)(fd, buf, n, flags));
}

PG_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t n, size_t size, int flags)
{
	return n > size ? PG_REAL(__recv_chk)(fd, buf, n, size, flags) : recv(fd, buf, n, flags);
}

PG_EXPORT ssize_t recvfrom(int fd, void *restrict buf, size_t n, int flags, struct sockaddr *restrict addr,
			   socklen_t *restrict alen)
{
	struct pg_g *g = pg_self_;
	struct pg_rx x = { .fd = fd, .flags = flags, .buf = buf, .n = n, .addr = addr, .alen = alen };
	long r;

	if (pg_is_green() && (r = green_recv(g, &x)) != PG_IO_POLL)
		return pg_io_result(r);
	return PG_CANN(g, true, PG_REAL(recvfrom)(fd, buf, n, flags, addr, alen));
}

PG_EXPORT ssize_t __recvfrom_chk(int fd, void *restrict buf, size_t n, size_t size, int flags,
				 struct sockaddr *restrict addr, socklen_t *restrict alen)
{
	return n > size ? PG_REAL(__recvfrom_chk)(fd, buf, n, size, flags, addr, alen)
			: recvfrom(fd, buf, n, flags, addr, alen);
}

/* Blocks: as recv.  Cancel: yes. */
PG_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct pg_g *g = pg_self_;
	struct pg_rx x = { .fd = fd, .flags = flags, .msg = msg };
	long r;

	if (pg_is_green() && msg != NULL && msg->msg_iovlen <= PG_IOV_MAX) {
		x.n = pg_iov_len(msg->msg_iov, msg->msg_iovlen);
		if ((r = green_recv(g, &x)) != PG_IO_POLL)
			return pg_io_result(r);
	}
	return PG_CANN(g, true, PG_REAL(recvmsg)(fd, msg, flags));
}

/*
 * Blocks: until all of vec is filled, or one message with MSG_WAITFORONE; the timeout is looked at after
 * each message, as the kernel does.  Cancel: yes.
 */
PG_EXPORT int recvmmsg(int fd, struct mmsghdr *vec, unsigned vlen, int flags, struct timespec *timeout)
{
	struct pg_g *g = pg_self_;
	enum pg_fdkind k;
	struct pg_iowait w;
	int64_t deadline = PG_FOREVER;
	unsigned done = 0;
	long r;

	if (!pg_is_green() || vlen == 0 || (flags & (MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB | MSG_WAITALL)))
		goto real;
	k = pg_fd_kind(fd);
	if ((k != PG_FD_SOCKET && k != PG_FD_STREAM) || pg_fd_nonblock(fd) ||
	    (timeout != NULL && (timeout->tv_sec < 0 || pg_timespec_bad(timeout))))
		goto real;
	pg_io_testcancel(g);
	if (vlen > PG_IOV_MAX)
		vlen = PG_IOV_MAX;
	if (timeout != NULL)
		deadline = pg_deadline_rel(timeout);
	w = pg_iowait_init(g, fd, PG_READ);
	for (;;) {
		r = pg_sys(SYS_recvmmsg, fd, vec + done, vlen - done, (flags & ~MSG_WAITFORONE) | MSG_DONTWAIT, NULL);
		if (r == -EAGAIN) {
			r = pg_io_wait(&w);
			if (r != 0)
				break;
			continue;
		}
		if (r < 0)
			break;
		done += r;
		w.deadline = 0; /* SO_RCVTIMEO is for one message */
		if (done >= vlen || (flags & MSG_WAITFORONE) || pg_now() >= deadline)
			break;
	}
	pg_netpoll_baton(fd, PG_READ);
	if (done == 0)
		return (int)pg_io_result(r);
	if (timeout != NULL)
		pg_left(deadline, timeout);
	return (int)done;
real:
	return PG_CANN(g, true, PG_REAL(recvmmsg)(fd, vec, vlen, flags, timeout));
}

/* ---- sending ---- */

#define PG_TX_WINDOW 16

static inline long tx_first(const struct pg_tx *x)
{
	if (!x->sock)
		return pg_sys(SYS_pwritev2, x->fd, x->iov, x->iovcnt, -1L, -1L, RWF_NOWAIT);
	if (x->msg != NULL)
		return pg_sys(SYS_sendmsg, x->fd, x->msg, x->flags | MSG_DONTWAIT);
	if (x->iov != NULL) {
		struct msghdr mh = { .msg_iov = (struct iovec *)x->iov, .msg_iovlen = x->iovcnt };
		return pg_sys(SYS_sendmsg, x->fd, &mh, x->flags | MSG_DONTWAIT);
	}
	return pg_sys(SYS_sendto, x->fd, x->buf, x->n, x->flags | MSG_DONTWAIT, x->addr, x->alen);
}

/*
 * What is left after `done` bytes, a window of a few entries at a time.  Ancillary data went with the first
 * byte; a peer that has gone raises SIGPIPE only when nothing was sent.
 */
static __attribute__((noinline)) long tx_rest(const struct pg_tx *x, size_t done)
{
	const struct iovec *iov = x->msg != NULL ? x->msg->msg_iov : x->iov;
	size_t cnt = x->msg != NULL ? x->msg->msg_iovlen : (size_t)x->iovcnt;
	struct iovec win[PG_TX_WINDOW];
	struct msghdr mh = { .msg_iov = win };
	size_t off = done, k = 0;

	if (iov == NULL) {
		win[k++] = (struct iovec){ (char *)x->buf + done, x->n - done };
	} else {
		for (size_t i = 0; i < cnt && k < PG_TX_WINDOW; i++) {
			if (off >= iov[i].iov_len) {
				off -= iov[i].iov_len;
				continue;
			}
			win[k++] = (struct iovec){ (char *)iov[i].iov_base + off, iov[i].iov_len - off };
			off = 0;
		}
	}
	if (!x->sock)
		return pg_sys(SYS_pwritev2, x->fd, win, k, -1L, -1L, RWF_NOWAIT);
	mh.msg_iovlen = k;
	return pg_sys(SYS_sendmsg, x->fd, &mh, x->flags | MSG_DONTWAIT | MSG_NOSIGNAL);
}

long pg_io_send(struct pg_g *g, const struct pg_tx *x)
{
	struct pg_iowait w = pg_iowait_init(g, x->fd, PG_WRITE);
	size_t done = 0;
	long r;

	for (;;) {
		r = pg_likely(done == 0) ? tx_first(x) : tx_rest(x, done);
		if (r == -EAGAIN) {
			r = pg_io_wait(&w);
			if (r == 0)
				continue;
			return done != 0 ? (long)done : r;
		}
		if (r < 0)
			break;
		done += r;
		if (pg_likely(done >= x->n || r == 0) || (!x->stream && !is_stream(x->fd)))
			break;
	}
	if (pg_unlikely(r < 0 && done == 0)) {
		if (x->sock && r == -ENOTSOCK)
			return not_sock(x->fd);
		if (!x->sock && (r == -EOPNOTSUPP || r == -ENOSYS))
			return PG_IO_POLL;
	}
	pg_netpoll_baton(x->fd, PG_WRITE);
	pg_io_sent(g);
	return r < 0 && done == 0 ? r : (long)done;
}

static long green_send(struct pg_g *g, struct pg_tx *x)
{
	if (x->flags & (MSG_DONTWAIT | MSG_OOB | MSG_ZEROCOPY)) {
		pg_io_sent(g);
		return PG_IO_POLL;
	}
	pg_io_testcancel(g);
	for (int i = 0; i < 3; i++) {
		enum pg_fdkind k = pg_fd_kind(x->fd);
		long r;

		if ((k != PG_FD_SOCKET && k != PG_FD_STREAM) || pg_fd_nonblock(x->fd)) {
			pg_io_sent(g);
			return PG_IO_POLL;
		}
		x->sock = true;
		x->stream = k == PG_FD_STREAM;
		r = pg_io_send(g, x);
		if (pg_likely(r > PG_IO_RETRY))
			return r;
	}
	return PG_IO_POLL;
}

/*
 * Blocks: until all is taken, SO_SNDTIMEO.  Cancel: yes.  Differs: an error after a part was sent may be
 * told only once.
 */
PG_EXPORT ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	struct pg_g *g = pg_self_;
	struct pg_tx x = { .fd = fd, .flags = flags, .buf = buf, .n = n < PG_RW_MAX ? n : PG_RW_MAX };
	long r;

	if (pg_is_green() && (r = green_send(g, &x)) != PG_IO_POLL)
		return pg_io_result(r);
	return PG_CANN(g, true, PG_REAL(send)(fd, buf, n, flags));
}
extern __typeof__(send) __send __attribute__((alias("send")));

PG_EXPORT ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t alen)
{
	struct pg_g *g = pg_self_;
	struct pg_tx x = { .fd = fd, .flags = flags, .buf = buf, .n = n < PG_RW_MAX ? n : PG_RW_MAX, .addr = addr,
			   .alen = alen };
	long r;

	if (pg_is_green() && (r = green_send(g, &x)) != PG_IO_POLL)
		return pg_io_result(r);
	return PG_CANN(g, true, PG_REAL(sendto)(fd, buf, n, flags, addr, alen));
}

/* Blocks: as send.  Cancel: yes. */
PG_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct pg_g *g = pg_self_;
	struct pg_tx x = { .fd = fd, .flags = flags, .msg = msg };
	long r;

	if (pg_is_green() && msg != NULL && msg->msg_iovlen <= PG_IOV_MAX) {
		x.n = pg_iov_len(msg->msg_iov, msg->msg_iovlen);
		if ((r = green_send(g, &x)) != PG_IO_POLL)
			return pg_io_result(r);
	}
	return PG_CANN(g, true, PG_REAL(sendmsg)(fd, msg, flags));
}

/*
 * Blocks: until all messages are taken; the number taken when something ends it after the first.  Cancel:
 * yes.
 */
PG_EXPORT int sendmmsg(int fd, struct mmsghdr *vec, unsigned vlen, int flags)
{
	struct pg_g *g = pg_self_;
	unsigned n = vlen < PG_IOV_MAX ? vlen : PG_IOV_MAX, done;

	if (!pg_is_green() || n == 0)
		goto real;
	for (done = 0; done < n; done++) {
		const struct msghdr *m = &vec[done].msg_hdr;
		struct pg_tx x = { .fd = fd, .flags = flags, .msg = m };
		long r = PG_IO_POLL;

		if (m->msg_iovlen <= PG_IOV_MAX) {
			x.n = pg_iov_len(m->msg_iov, m->msg_iovlen);
			r = green_send(g, &x);
		}
		if (r == PG_IO_POLL) {
			if (done == 0)
				goto real;
			break;
		}
		if (r < 0)
			return done != 0 ? (int)done : (int)pg_io_result(r);
		vec[done].msg_len = (unsigned)r;
	}
	return (int)done;
real:
	return PG_CANN(g, true, PG_REAL(sendmmsg)(fd, vec, vlen, flags));
}

/* ---- accept ---- */

/*
 * Between the poll that says "a connection" and the real accept another G of ours must not take it, or the
 * real call blocks an OS thread.  One word per hash of the descriptor: 0 free, 1 taken, 2 taken and
 * somebody waits.  It is a courtesy, no lock: whoever waited 20 ms for it goes on without (its owner was
 * cancelled, or another process was faster and the owner now waits in the kernel).
 */
#define PG_ACCEPT_HASH 256
static _Atomic uint32_t accepting[PG_ACCEPT_HASH];

static void accept_enter(int fd)
{
	_Atomic uint32_t *w = &accepting[(unsigned)fd % PG_ACCEPT_HASH];
	uint32_t v = 0;
	int64_t deadline;

	if (pg_likely(atomic_compare_exchange_strong(w, &v, 1)))
		return;
	deadline = pg_after(20000000);
	while (atomic_exchange(w, 2) != 0) {
		int r = pg_sema_wait(w, 2, PG_SEMA_ANY, deadline);
		if (r == -ETIMEDOUT || r == -EINTR)
			return;
	}
}

static void accept_leave(int fd)
{
	_Atomic uint32_t *w = &accepting[(unsigned)fd % PG_ACCEPT_HASH];

	if (atomic_exchange(w, 0) == 2) {
		struct pg_g *g = pg_self();
		pg_rt_enter(g);
		pg_sema_wake((void *)w, 1, PG_SEMA_ANY);
		pg_rt_exit(g);
	}
}

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return pg_rawpoll(&p, 1) != 0;
}

static bool listening(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return pg_sys(SYS_getsockopt, fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

/*
 * Waits until the real call returns at once, and reserves it: then 0.  1: make the real call without more
 * ado.
 */
static long accept_ready(struct pg_g *g, int fd, bool *timed)
{
	struct pg_iowait w = pg_iowait_init(g, fd, PG_READ);
	enum pg_fdkind k = pg_fd_kind(fd);

	if ((k != PG_FD_SOCKET && k != PG_FD_STREAM) || pg_fd_nonblock(fd))
		return 1;
	for (;;) {
		long r;

		accept_enter(fd);
		if (readable(fd))
			return 0;
		accept_leave(fd);
		if (w.deadline == 0 && !listening(fd))
			return 1; /* EINVAL, EOPNOTSUPP */
		r = pg_io_wait(&w);
		*timed = w.timed;
		if (r != 0)
			return r;
	}
}

#define ACCEPT(call)												\
	do {													\
		struct pg_g *g = pg_self_;									\
		bool timed = false;										\
		long w;												\
		int r;												\
		if (!pg_is_green())										\
			return PG_CANN(g, true, call);								\
		pg_io_testcancel(g);										\
		w = accept_ready(g, fd, &timed);								\
		if (w < 0)											\
			return (int)pg_io_result(w);								\
		r = PG_CANN(g, !timed, call);									\
		if (w == 0) {											\
			accept_leave(fd);									\
			pg_netpoll_baton(fd, PG_READ);								\
		}												\
		return r;											\
	} while (0)

/*
 * Blocks: until a connection comes, SO_RCVTIMEO.  Cancel: yes.  Differs: EMFILE is told when there is a
 * connection.
 */
PG_EXPORT int accept(int fd, struct sockaddr *restrict addr, socklen_t *restrict alen)
{
	ACCEPT(PG_REAL(accept)(fd, addr, alen));
}

PG_EXPORT int accept4(int fd, struct sockaddr *restrict addr, socklen_t *restrict alen, int flags)
{
	ACCEPT(PG_REAL(accept4)(fd, addr, alen, flags));
}

/* ---- connect ---- */

/* Our own kick ended a connect that goes on in the kernel: waits for its end. */
static int connect_finish(struct pg_g *g, int fd)
{
	struct pg_iowait w = pg_iowait_init(g, fd, PG_WRITE);
	int err = 0;
	socklen_t len = sizeof(err);
	long r = pg_io_waitpoll(&w, POLLOUT);

	if (r == 0) {
		r = pg_sys(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &err, &len);
		if (r == 0)
			r = -err;
	} else if (r == -EAGAIN) {
		r = -EINPROGRESS;
	}
	return (int)pg_io_result(r);
}

/* Blocks: until the connection stands, SO_SNDTIMEO.  Cancel: yes.  Differs: holds an OS thread meanwhile. */
PG_EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t alen)
{
	struct pg_g *g = pg_self_;
	uint32_t before;
	bool timed;
	int r;

	if (!pg_is_green())
		return PG_CANN(g, false, PG_REAL(connect)(fd, addr, alen));
	before = g->sig_norestart;
	pg_cancel_enter(g);
	pg_entersyscall(g);
	r = PG_REAL(connect)(fd, addr, alen);
	pg_cancel_leave(g);
	pg_exitsyscall(g);
	if (pg_likely(r == 0 || errno != EINTR))
		return r;
	pg_io_testcancel(g);
	timed = pg_fd_timeout(fd, PG_WRITE) != PG_FOREVER;
	if (timed || !pg_eintr_ours(g, before, true)) {
		errno = EINTR;
		return -1;
	}
	return connect_finish(g, fd);
}
extern __typeof__(connect) __connect __attribute__((alias("connect")));

/* Blocks: nothing.  Notes that timeouts change. */
PG_EXPORT int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	int r = PG_REAL(setsockopt)(fd, level, name, val, len);

	/* The second pair are SO_RCVTIMEO_NEW and SO_SNDTIMEO_NEW, which carry 64-bit times. */
	if (pg_unlikely(r == 0 && level == SOL_SOCKET &&
			(name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == 66 || name == 67)) &&
	    atomic_load_explicit(&pg_started, memory_order_relaxed))
		pg_fd_flags_changed();
	return r;
}
