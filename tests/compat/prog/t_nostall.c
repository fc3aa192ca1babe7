/* SPDX-License-Identifier: MIT */
/* No call on a descriptor keeps the other threads waiting: pipes, sockets, terminals, readiness, locks, system calls by number. */
#include <linux/io_uring.h>
#include <poll.h>
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <stdint.h>

#include "nostall.h"

static char buf[64];
static struct iovec iov[2] = { { buf, 1 }, { buf + 1, 1 } };
static char dir[] = "/tmp/nostall.XXXXXX", path[64];

/* ---- reading ---- */

static int c_read(void) { return read(fd[0], buf, sizeof buf) > 0; }
static int c_readv(void) { return readv(fd[0], iov, 2) == 2; }
static int c_preadv2(void) { return preadv2(fd[0], iov, 2, -1, 0) == 2; }

static void make_eventfd(void) { fd[0] = fd[1] = eventfd(0, 0); }
static int c_eventfd(void) { eventfd_t v; return eventfd_read(fd[0], &v) == 0 && v == 3; }
static void put_eventfd(void) { eventfd_write(fd[0], 3); }

static void make_timerfd(void) { fd[0] = timerfd_create(CLOCK_MONOTONIC, 0); fd[1] = -1; }
static void arm(void)
{
	struct itimerspec it = { { 0, 0 }, { 0, 1 } };
	timerfd_settime(fd[0], 0, &it, NULL);
}

static void make_signalfd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd[0] = signalfd(-1, &set, 0);
	fd[1] = -1;
}
static void raise_it(void) { kill(getpid(), SIGUSR2); }

static void make_inotify(void)
{
	fd[0] = inotify_init();
	fd[1] = -1;
	inotify_add_watch(fd[0], dir, IN_CREATE);
}
static int c_inotify(void) { char b[4096]; return read(fd[0], b, sizeof b) > 0; }
static void touch(void)
{
	snprintf(path, sizeof path, "%s/new", dir);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	unlink(path);
}

/* fd[0]: the side that reads. */
static void make_pty_slave(void)
{
	if (openpty(&fd[1], &fd[0], NULL, NULL, NULL))
		die("openpty");
}
static void make_pty_master(void)
{
	if (openpty(&fd[0], &fd[1], NULL, NULL, NULL))
		die("openpty");
}

/* ---- writing ---- */

static int c_write(void) { return write(fd[1], buf, 1) == 1; }
static int c_write_much(void) { return write(fd[1], junk, sizeof junk) == sizeof junk; }
static int c_writev(void) { return writev(fd[1], iov, 2) == 2; }
static int c_pwritev2(void) { return pwritev2(fd[1], iov, 2, -1, 0) == 2; }
static void full_eventfd(void) { make_eventfd(); eventfd_write(fd[0], 0xfffffffffffffffeull); }
static void take_eventfd(void) { eventfd_t v; eventfd_read(fd[0], &v); }
static int c_eventfd_write(void) { return eventfd_write(fd[0], 1) == 0; }
static int c_vmsplice(void) { return vmsplice(fd[1], iov, 1, 0) == 1; }

static int other[2];
static void two_pipes(void)
{
	make_pipe();
	if (pipe(other))
		die("pipe");
}
static void close_four(void)
{
	close_both();
	close(other[0]);
	close(other[1]);
}
static int c_splice(void) { return splice(fd[0], NULL, other[1], NULL, 2, 0) == 2; }
static int c_tee(void) { return tee(fd[0], other[1], 2, 0) == 2; }
static void full_and_file(void)
{
	full_pipe();
	other[0] = open("/proc/self/exe", O_RDONLY);
	other[1] = -1;
}
static int c_sendfile(void) { return sendfile(fd[1], other[0], NULL, 16) == 16; }

/* ---- sockets ---- */

static void make_pair(void)
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
		die("socketpair");
}
static void full_pair(void)
{
	make_pair();
	fill(fd[1]);
}
static int c_recv(void) { return recv(fd[0], buf, sizeof buf, 0) == 2; }
static int c_recv_all(void) { return recv(fd[0], buf, 2, MSG_WAITALL) == 2; }
static int c_recv_peek(void) { return recv(fd[0], buf, sizeof buf, MSG_PEEK) == 2; }
static int c_recvfrom(void) { return recvfrom(fd[0], buf, sizeof buf, 0, NULL, NULL) == 2; }
static int c_recvmsg(void)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	return recvmsg(fd[0], &m, 0) == 2;
}
static int c_recvmmsg(void)
{
	struct mmsghdr m = { .msg_hdr = { .msg_iov = iov, .msg_iovlen = 2 } };
	return recvmmsg(fd[0], &m, 1, 0, NULL) == 1;
}
static int c_send(void) { return send(fd[1], junk, sizeof junk, 0) == sizeof junk; }
static int c_sendto(void) { return sendto(fd[1], buf, 1, 0, NULL, 0) == 1; }
static int c_sendmsg(void)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	return sendmsg(fd[1], &m, 0) == 2;
}
static int c_sendmmsg(void)
{
	struct mmsghdr m = { .msg_hdr = { .msg_iov = iov, .msg_iovlen = 2 } };
	return sendmmsg(fd[1], &m, 1, 0) == 1;
}

static struct sockaddr_un name;
static int clients[16], nclients;

static void make_listener(void)
{
	name = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "nostall.%d", getpid());
	fd[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	fd[1] = -1;
	if (bind(fd[0], (struct sockaddr *)&name, sizeof name) || listen(fd[0], 1))
		die("listen");
	nclients = 0;
}
static int connect_one(int flags)
{
	int s = socket(AF_UNIX, SOCK_STREAM | flags, 0);
	if (connect(s, (struct sockaddr *)&name, sizeof name)) {
		close(s);
		return 0;
	}
	clients[nclients++] = s;
	return 1;
}
static void connect_release(void) { connect_one(0); }
static void full_listener(void)
{
	make_listener();
	while (nclients < 15 && connect_one(SOCK_NONBLOCK))
		;
}
static int c_accept(void) { int s = accept(fd[0], NULL, NULL); return s >= 0 && close(s) == 0; }
static int c_accept4(void) { int s = accept4(fd[0], NULL, NULL, SOCK_CLOEXEC); return s >= 0 && close(s) == 0; }
static int c_connect(void) { return connect_one(0); }
static void accept_release(void) { close(accept(fd[0], NULL, NULL)); }
static void close_clients(void)
{
	while (nclients > 0)
		close(clients[--nclients]);
	close(fd[0]);
}

/* ---- readiness ---- */

static int c_poll(void) { struct pollfd p = { fd[0], POLLIN, 0 }; return poll(&p, 1, -1) == 1; }
static int c_poll_timed(void) { struct pollfd p = { fd[0], POLLIN, 0 }; return poll(&p, 1, 600000) == 1; }
static int c_ppoll(void) { struct pollfd p = { fd[0], POLLIN, 0 }; return ppoll(&p, 1, NULL, NULL) == 1; }
static int c_select(void)
{
	fd_set s;
	FD_ZERO(&s);
	FD_SET(fd[0], &s);
	return select(fd[0] + 1, &s, NULL, NULL, NULL) == 1;
}
static int c_pselect(void)
{
	fd_set s;
	FD_ZERO(&s);
	FD_SET(fd[0], &s);
	return pselect(fd[0] + 1, &s, NULL, NULL, NULL, NULL) == 1;
}
static int ep;
static void make_epoll(void)
{
	struct epoll_event e = { .events = EPOLLIN };

	make_pipe();
	ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, fd[0], &e);
}
static void close_epoll(void) { close_both(); close(ep); }
static int c_epoll(void) { struct epoll_event e; return epoll_wait(ep, &e, 1, -1) == 1; }
static int c_epoll_p(void) { struct epoll_event e; sigset_t m; sigemptyset(&m); return epoll_pwait(ep, &e, 1, -1, &m) == 1; }
static int c_epoll_p2(void)
{
	struct epoll_event e;
	struct timespec ts = { 600, 0 };
	return epoll_pwait2(ep, &e, 1, &ts, NULL) == 1;
}

/* ---- FIFOs and locks ---- */

static void make_fifo(void)
{
	snprintf(path, sizeof path, "%s/fifo", dir);
	if (mkfifo(path, 0600))
		die("mkfifo");
}
static int c_open_r(void) { return (fd[0] = open(path, O_RDONLY)) >= 0; }
static int c_open_w(void) { return (fd[1] = open(path, O_WRONLY)) >= 0; }
static int c_openat(void) { return (fd[0] = openat(AT_FDCWD, path, O_RDONLY)) >= 0; }
static void open_w(void) { fd[1] = open(path, O_WRONLY); }
static void open_r(void) { fd[0] = open(path, O_RDONLY); }
static void close_fifo(void) { close_both(); unlink(path); }

static void two_opens(void)
{
	snprintf(path, sizeof path, "%s/lock", dir);
	fd[0] = open(path, O_CREAT | O_RDWR, 0600);
	fd[1] = open(path, O_RDWR);
}
static void lock_held(void) { two_opens(); flock(fd[0], LOCK_EX); }
static void lock_free(void) { flock(fd[0], LOCK_UN); }
static int c_flock(void) { return flock(fd[1], LOCK_EX) == 0; }
static struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
static void ofd_held(void) { two_opens(); fcntl(fd[0], F_OFD_SETLK, &whole); }
static void ofd_free(void) { struct flock l = { .l_type = F_UNLCK, .l_whence = SEEK_SET }; fcntl(fd[0], F_OFD_SETLK, &l); }
static int c_ofd(void) { struct flock l = whole; return fcntl(fd[1], F_OFD_SETLKW, &l) == 0; }

/* Locks of a process: another must hold them. */
static int holder_in[2], holder_out[2];
static pid_t holder;
static void posix_held(void)
{
	two_opens();
	if (pipe(holder_in) || pipe(holder_out) || (holder = fork()) < 0)
		die("holder");
	if (holder == 0) {
		close(holder_in[1]);
		_exit(fcntl(fd[0], F_SETLK, &whole) != 0 || write(holder_out[1], "x", 1) != 1 || read(holder_in[0], buf, 1) != 0);
	}
	if (read(holder_out[0], buf, 1) != 1)
		die("holder");
}
static void posix_free(void) { close(holder_in[1]); }
static int c_setlkw(void) { struct flock l = whole; return fcntl(fd[1], F_SETLKW, &l) == 0; }
static int c_lockf(void) { return lockf(fd[1], F_LOCK, 0) == 0; }
static void posix_after(void)
{
	waitpid(holder, NULL, 0);
	close(holder_in[0]);
	close(holder_out[0]);
	close(holder_out[1]);
	close_both();
}

/* ---- by number ---- */

static int n_read(void) { return syscall(SYS_read, fd[0], buf, sizeof buf) == 2; }
static int n_write(void) { return syscall(SYS_write, fd[1], buf, 1) == 1; }
static int n_readv(void) { return syscall(SYS_readv, fd[0], iov, 2) == 2; }
static int n_recvfrom(void) { return syscall(SYS_recvfrom, fd[0], buf, sizeof buf, 0, NULL, NULL) == 2; }
static int n_sendto(void) { return syscall(SYS_sendto, fd[1], buf, 1, 0, NULL, 0) == 1; }
static int n_accept4(void) { long s = syscall(SYS_accept4, fd[0], NULL, NULL, 0); return s >= 0 && close((int)s) == 0; }
static int n_ppoll(void)
{
	struct pollfd p = { fd[0], POLLIN, 0 };
	struct timespec ts = { 600, 0 };
	return syscall(SYS_ppoll, &p, 1, &ts, NULL, 0) == 1 && ts.tv_sec < 600;
}
static int n_pselect(void)
{
	struct { const void *p; size_t n; } mask = { NULL, 0 };
	fd_set s;
	FD_ZERO(&s);
	FD_SET(fd[0], &s);
	return syscall(SYS_pselect6, fd[0] + 1, &s, NULL, NULL, NULL, &mask) == 1;
}
static int n_epoll(void) { struct epoll_event e; return syscall(SYS_epoll_pwait, ep, &e, 1, -1, NULL, 0) == 1; }
static int n_flock(void) { return syscall(SYS_flock, fd[1], LOCK_EX) == 0; }
static int n_ofd(void) { struct flock l = whole; return syscall(SYS_fcntl, fd[1], F_OFD_SETLKW, &l) == 0; }
static int n_openat(void) { return (fd[0] = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY)) >= 0; }
static int n_splice(void) { return syscall(SYS_splice, fd[0], NULL, other[1], NULL, 2, 0) == 2; }

/* A ring that reads from the pipe; where the kernel gives none, a plain read by number. */
static int ring;
static struct io_uring_params rp;
static char *rings;
static struct io_uring_sqe *sqes;
static void make_ring(void)
{
	make_pipe();
	rp = (struct io_uring_params){ 0 };
	ring = (int)syscall(SYS_io_uring_setup, 4, &rp);
	if (ring < 0)
		return;
	rings = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	sqes = mmap(NULL, 4 * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (rings == MAP_FAILED || sqes == MAP_FAILED)
		die("mmap");
}
static int n_uring(void)
{
	struct io_uring_cqe *cqe;

	if (ring < 0)
		return n_read();
	sqes[0] = (struct io_uring_sqe){ .opcode = IORING_OP_READ, .fd = fd[0], .addr = (uintptr_t)buf, .len = sizeof buf, .off = -1ull };
	((unsigned *)(rings + rp.sq_off.array))[0] = 0;
	atomic_store((atomic_uint *)(rings + rp.sq_off.tail), 1);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		return 0;
	cqe = (struct io_uring_cqe *)(rings + rp.cq_off.cqes);
	return atomic_load((atomic_uint *)(rings + rp.cq_off.tail)) == 1 && cqe->res == 2;
}
static void close_ring(void)
{
	close_both();
	if (ring < 0)
		return;
	munmap(rings, 1 << 16);
	munmap(sqes, 4 * sizeof *sqes);
	close(ring);
}

/* Nobody is told of this one. */
static int raw_read(void)
{
#if defined(__x86_64__)
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(SYS_read), "D"(fd[0]), "S"(buf), "d"(sizeof buf) : "rcx", "r11", "memory");
	return r == 2;
#else
	return n_read();
#endif
}

static const struct nostall cases[] = {
	{ "read: pipe", make_pipe, c_read, put, close_both },
	{ "readv: pipe", make_pipe, c_readv, put, close_both },
	{ "preadv2: pipe", make_pipe, c_preadv2, put, close_both },
	{ "read: socket", make_pair, c_read, put, close_both },
	{ "eventfd_read", make_eventfd, c_eventfd, put_eventfd, close_both },
	{ "read: timerfd", make_timerfd, c_read, arm, close_both },
	{ "read: signalfd", make_signalfd, c_inotify, raise_it, close_both },
	{ "read: inotify", make_inotify, c_inotify, touch, close_both },
	{ "read: terminal", make_pty_slave, c_read, put, close_both },
	{ "read: terminal's master", make_pty_master, c_read, put, close_both },
	{ "write: full pipe", full_pipe, c_write, drain, close_both },
	{ "write: much to a full pipe", full_pipe, c_write_much, drain, close_both },
	{ "writev: full pipe", full_pipe, c_writev, drain, close_both },
	{ "write: full socket", full_pair, c_write_much, drain, close_both },
	{ "pwritev2: full pipe", full_pipe, c_pwritev2, drain, close_both },
	{ "eventfd_write: full", full_eventfd, c_eventfd_write, take_eventfd, close_both },
	{ "vmsplice: full pipe", full_pipe, c_vmsplice, drain, close_both },
	{ "splice: empty pipe", two_pipes, c_splice, put, close_four },
	{ "tee: empty pipe", two_pipes, c_tee, put, close_four },
	{ "sendfile: full pipe", full_and_file, c_sendfile, drain, close_four },
	{ "recv", make_pair, c_recv, put, close_both },
	{ "recv: all", make_pair, c_recv_all, put, close_both },
	{ "recv: peek", make_pair, c_recv_peek, put, close_both },
	{ "recvfrom", make_pair, c_recvfrom, put, close_both },
	{ "recvmsg", make_pair, c_recvmsg, put, close_both },
	{ "recvmmsg", make_pair, c_recvmmsg, put, close_both },
	{ "send: full socket", full_pair, c_send, drain, close_both },
	{ "sendto: full socket", full_pair, c_sendto, drain, close_both },
	{ "sendmsg: full socket", full_pair, c_sendmsg, drain, close_both },
	{ "sendmmsg: full socket", full_pair, c_sendmmsg, drain, close_both },
	{ "accept", make_listener, c_accept, connect_release, close_clients },
	{ "accept4", make_listener, c_accept4, connect_release, close_clients },
	{ "connect: full backlog", full_listener, c_connect, accept_release, close_clients },
	{ "poll", make_pipe, c_poll, put, close_both },
	{ "poll: timed", make_pipe, c_poll_timed, put, close_both },
	{ "ppoll", make_pipe, c_ppoll, put, close_both },
	{ "select", make_pipe, c_select, put, close_both },
	{ "pselect", make_pipe, c_pselect, put, close_both },
	{ "epoll_wait", make_epoll, c_epoll, put, close_epoll },
	{ "epoll_pwait", make_epoll, c_epoll_p, put, close_epoll },
	{ "epoll_pwait2", make_epoll, c_epoll_p2, put, close_epoll },
	{ "open: FIFO, to read", make_fifo, c_open_r, open_w, close_fifo },
	{ "open: FIFO, to write", make_fifo, c_open_w, open_r, close_fifo },
	{ "openat: FIFO", make_fifo, c_openat, open_w, close_fifo },
	{ "flock", lock_held, c_flock, lock_free, close_both },
	{ "fcntl: F_OFD_SETLKW", ofd_held, c_ofd, ofd_free, close_both },
	{ "fcntl: F_SETLKW", posix_held, c_setlkw, posix_free, posix_after },
	{ "lockf", posix_held, c_lockf, posix_free, posix_after },
	{ "by number: read", make_pipe, n_read, put, close_both },
	{ "by number: readv", make_pipe, n_readv, put, close_both },
	{ "by number: write", full_pipe, n_write, drain, close_both },
	{ "by number: recvfrom", make_pair, n_recvfrom, put, close_both },
	{ "by number: sendto", full_pair, n_sendto, drain, close_both },
	{ "by number: accept4", make_listener, n_accept4, connect_release, close_clients },
	{ "by number: ppoll", make_pipe, n_ppoll, put, close_both },
	{ "by number: pselect6", make_pipe, n_pselect, put, close_both },
	{ "by number: epoll_pwait", make_epoll, n_epoll, put, close_epoll },
	{ "by number: flock", lock_held, n_flock, lock_free, close_both },
	{ "by number: fcntl", ofd_held, n_ofd, ofd_free, close_both },
	{ "by number: openat", make_fifo, n_openat, open_w, close_fifo },
	{ "by number: splice", two_pipes, n_splice, put, close_four },
	{ "by number: io_uring_enter", make_ring, n_uring, put, close_ring },
	{ "by an instruction: read", make_pipe, raw_read, put, close_both },
};

int main(int argc, char **argv)
{
	int r;

	if (mkdtemp(dir) == NULL)
		die("mkdtemp");
	r = ALL(cases);
	snprintf(path, sizeof path, "%s/lock", dir);
	unlink(path);
	rmdir(dir);
	return r;
}
