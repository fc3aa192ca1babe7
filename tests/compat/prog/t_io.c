/* SPDX-License-Identifier: MIT */
/*
 * Blocking I/O as threaded programs use it.  Prints one line per case, the same natively and under pgreen; exits 1 when
 * anything differs from what POSIX and Linux promise.  Durations are only bounded from below.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

/* A failed check says where; the count decides the exit status. */
#define CHECK(c)                                                                                   \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			fprintf(stderr, "t_io: line %d: %s (errno %d)\n", __LINE__, #c, errno);    \
			__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);                        \
		}                                                                                  \
	} while (0)

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void msleep(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&ts, &ts) != 0)
		;
}

static pthread_t go(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, arg) != 0)
		abort();
	return t;
}

static void pass(const char *name)
{
	printf("%s: %s\n", name, failures == 0 ? "ok" : "FAILED");
	fflush(stdout);
}

/* ---- many threads on pipes and socketpairs ---- */

#define PAIRS 40
#define ROUNDS 50

static void *echo(void *arg)
{
	int *fd = arg;
	char c;

	while (read(fd[0], &c, 1) == 1)
		if (write(fd[1], &c, 1) != 1)
			break;
	return NULL;
}

static void pingpong(bool socks)
{
	static int fd[PAIRS][4], srv[PAIRS][2];
	pthread_t t[PAIRS];

	for (int i = 0; i < PAIRS; i++) {
		if (socks) {
			int sp[2];
			CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0);
			fd[i][0] = fd[i][1] = sp[0];
			srv[i][0] = srv[i][1] = sp[1];
		} else {
			int a[2], b[2];
			CHECK(pipe(a) == 0 && pipe(b) == 0);
			fd[i][0] = b[0];
			fd[i][1] = a[1];
			srv[i][0] = a[0];
			srv[i][1] = b[1];
		}
		t[i] = go(echo, srv[i]);
	}
	for (int r = 0; r < ROUNDS; r++) {
		for (int i = 0; i < PAIRS; i++) {
			char c = (char)(r + i);
			CHECK(write(fd[i][1], &c, 1) == 1);
		}
		for (int i = 0; i < PAIRS; i++) {
			char c = 0;
			CHECK(read(fd[i][0], &c, 1) == 1);
			CHECK(c == (char)(r + i));
		}
	}
	for (int i = 0; i < PAIRS; i++) {
		close(fd[i][1]);
		pthread_join(t[i], NULL);
		close(srv[i][1]);
		if (!socks) {
			close(fd[i][0]);
			close(srv[i][0]);
		}
	}
}

/* Many readers of one pipe: every byte goes to exactly one. */
static int shared_pipe[2];
static int shared_sum;

static void *shared_reader(void *arg)
{
	unsigned char c;

	(void)arg;
	while (read(shared_pipe[0], &c, 1) == 1)
		__atomic_fetch_add(&shared_sum, c, __ATOMIC_RELAXED);
	return NULL;
}

static void shared_pipe_test(void)
{
	pthread_t t[20];
	int want = 0;

	CHECK(pipe(shared_pipe) == 0);
	for (int i = 0; i < 20; i++)
		t[i] = go(shared_reader, NULL);
	for (int i = 0; i < 1000; i++) {
		unsigned char c = (unsigned char)i;
		want += c;
		CHECK(write(shared_pipe[1], &c, 1) == 1);
		if (i % 100 == 0)
			msleep(1);
	}
	close(shared_pipe[1]);
	for (int i = 0; i < 20; i++)
		pthread_join(t[i], NULL);
	CHECK(shared_sum == want);
	close(shared_pipe[0]);
}

/* ---- partial reads, WAITALL, PEEK ---- */

static void *slow_writer(void *arg)
{
	int fd = *(int *)arg;

	for (int i = 0; i < 5; i++) {
		msleep(10);
		CHECK(write(fd, "abcdefghij", 10) == 10);
	}
	return NULL;
}

static void recv_flags(void)
{
	int sp[2];
	char buf[64];
	pthread_t t;
	struct iovec iov[3] = { { buf, 7 }, { buf + 7, 0 }, { buf + 7, 43 } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 3 };

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0);
	t = go(slow_writer, &sp[1]);
	CHECK(read(sp[0], buf, sizeof(buf)) == 10); /* a short read is a read */
	CHECK(recv(sp[0], buf, 40, MSG_WAITALL) == 40);
	CHECK(memcmp(buf + 30, "abcdefghij", 10) == 0);
	pthread_join(t, NULL);

	t = go(slow_writer, &sp[1]);
	CHECK(recv(sp[0], buf, 4, MSG_PEEK) == 4);
	CHECK(recv(sp[0], buf, 4, MSG_PEEK) == 4 && memcmp(buf, "abcd", 4) == 0);
	CHECK(recvmsg(sp[0], &mh, MSG_WAITALL) == 50);
	CHECK(memcmp(buf + 40, "abcdefghij", 10) == 0);
	pthread_join(t, NULL);

	CHECK(recv(sp[0], buf, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	CHECK(write(sp[1], "xyz", 3) == 3);
	shutdown(sp[1], SHUT_WR);
	CHECK(recv(sp[0], buf, 10, MSG_WAITALL) == 3); /* the end comes first */
	CHECK(read(sp[0], buf, 10) == 0);
	CHECK(read(sp[0], buf, 0) == 0);
	close(sp[0]);
	close(sp[1]);
}

static void timeouts(void)
{
	int sp[2], ls;
	char buf[8], *big = calloc(1, 1 << 20);
	struct timeval tv = { 0, 60000 };
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int64_t t0;
	ssize_t n;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0);
	CHECK(setsockopt(sp[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	CHECK(setsockopt(sp[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) == 0);
	t0 = now_ns();
	CHECK(read(sp[0], buf, 8) == -1 && errno == EAGAIN);
	CHECK(now_ns() - t0 >= 55000000);
	CHECK(write(sp[1], "abc", 3) == 3);
	CHECK(recv(sp[0], buf, 8, MSG_WAITALL) == 3); /* what there was */
	n = write(sp[0], big, 1 << 20);
	CHECK(n > 0 && n < 1 << 20); /* as much as fitted */
	CHECK(write(sp[0], big, 1 << 20) == -1 && errno == EAGAIN);
	tv.tv_usec = 0;
	CHECK(setsockopt(sp[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);

	ls = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(bind(ls, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(ls, 5) == 0);
	tv.tv_usec = 60000;
	CHECK(setsockopt(ls, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	CHECK(accept(ls, NULL, NULL) == -1 && errno == EAGAIN);
	close(ls);
	close(sp[0]);
	close(sp[1]);
	free(big);
}

/* ---- large gathered writes through a slow reader ---- */

#define ENTRIES 40
#define ENTRY 30011

struct drain {
	int fd;
	size_t total;
	unsigned sum;
};

static void *slow_reader(void *arg)
{
	struct drain *d = arg;
	static __thread unsigned char buf[20000];
	ssize_t n;

	while ((n = read(d->fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			d->sum = d->sum * 31 + buf[i];
		d->total += n;
		if (d->total % 7 == 0)
			msleep(1);
	}
	return NULL;
}

static void gather(int mode)
{
	static unsigned char data[ENTRIES][ENTRY];
	struct iovec iov[ENTRIES];
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = ENTRIES };
	struct drain d = { 0 };
	unsigned want = 0;
	size_t total = 0;
	int fd[2];
	pthread_t t;
	ssize_t n;

	for (int i = 0; i < ENTRIES; i++) {
		iov[i] = (struct iovec){ data[i], i % 9 == 3 ? 0 : ENTRY - (size_t)i };
		for (size_t k = 0; k < iov[i].iov_len; k++) {
			data[i][k] = (unsigned char)(i * 7 + k);
			want = want * 31 + data[i][k];
		}
		total += iov[i].iov_len;
	}
	CHECK(mode == 1 ? pipe(fd) == 0 : socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
	d.fd = fd[0];
	t = go(slow_reader, &d);
	n = mode == 2 ? sendmsg(fd[1], &mh, MSG_NOSIGNAL) : writev(fd[1], iov, ENTRIES);
	CHECK(n == (ssize_t)total);
	close(fd[1]);
	pthread_join(t, NULL);
	CHECK(d.total == total && d.sum == want);
	close(fd[0]);
}

/* ---- poll and select ---- */

static void *write_later(void *arg)
{
	msleep(30);
	CHECK(write(*(int *)arg, "x", 1) == 1);
	return NULL;
}

static void polls(void)
{
	int p[2], q[2];
	struct pollfd f[4];
	struct timespec ts = { 0, 40000000 };
	pthread_t t;
	int64_t t0;
	char c;

	CHECK(pipe(p) == 0 && pipe(q) == 0);
	f[0] = (struct pollfd){ p[0], POLLIN, 99 };
	f[1] = (struct pollfd){ -1, POLLIN, 99 };
	f[2] = (struct pollfd){ 9999, POLLIN, 99 };
	CHECK(poll(f, 3, -1) == 1);
	CHECK(f[0].revents == 0 && f[1].revents == 0 && f[2].revents == POLLNVAL);
	CHECK(poll(f, 2, 0) == 0);
	t0 = now_ns();
	CHECK(poll(f, 2, 50) == 0 && now_ns() - t0 >= 50000000);
	CHECK(f[0].revents == 0);
	t0 = now_ns();
	CHECK(poll(NULL, 0, 20) == 0 && now_ns() - t0 >= 20000000);
	CHECK(ppoll(f, 2, &ts, NULL) == 0 && ts.tv_nsec == 40000000);
	ts.tv_nsec = 1000000000;
	CHECK(ppoll(f, 2, &ts, NULL) == -1 && errno == EINVAL);
	f[1] = (struct pollfd){ q[0], POLLIN, 0 };
	t = go(write_later, &q[1]);
	CHECK(poll(f, 2, -1) == 1 && f[0].revents == 0 && f[1].revents == POLLIN);
	pthread_join(t, NULL);
	CHECK(read(q[0], &c, 1) == 1);
	f[0] = (struct pollfd){ p[1], POLLOUT, 0 };
	CHECK(poll(f, 1, -1) == 1 && f[0].revents == POLLOUT);
	close(p[0]);
	CHECK(poll(f, 1, -1) == 1 && (f[0].revents & POLLERR));
	close(q[1]);
	f[0] = (struct pollfd){ q[0], POLLIN, 0 };
	CHECK(poll(f, 1, -1) == 1 && f[0].revents == POLLHUP);
	close(p[1]);
	close(q[0]);
}

static void selects(void)
{
	int p[2];
	fd_set r, w;
	struct timeval tv = { 0, 40000 };
	struct timespec ts = { 0, 20000000 };
	pthread_t t;
	int64_t t0;
	char c;

	CHECK(pipe(p) == 0);
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(p[0], &r);
	FD_SET(p[1], &w);
	CHECK(select(p[1] + 1, &r, &w, NULL, NULL) == 1);
	CHECK(!FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w));
	FD_SET(p[0], &r);
	t0 = now_ns();
	CHECK(select(p[0] + 1, &r, NULL, NULL, &tv) == 0 && now_ns() - t0 >= 40000000);
	CHECK(!FD_ISSET(p[0], &r) && tv.tv_sec == 0 && tv.tv_usec == 0);
	FD_SET(p[0], &r);
	tv = (struct timeval){ 100, 0 };
	t = go(write_later, &p[1]);
	CHECK(select(p[0] + 1, &r, NULL, NULL, &tv) == 1 && FD_ISSET(p[0], &r));
	CHECK(tv.tv_sec == 99);
	pthread_join(t, NULL);
	CHECK(read(p[0], &c, 1) == 1);
	CHECK(pselect(0, NULL, NULL, NULL, &ts, NULL) == 0 && ts.tv_nsec == 20000000);
	close(p[1]);
	close(p[0]);
	FD_ZERO(&r);
	FD_SET(p[0], &r);
	CHECK(select(p[0] + 1, &r, NULL, NULL, NULL) == -1 && errno == EBADF && FD_ISSET(p[0], &r));
	CHECK(select(-1, NULL, NULL, NULL, NULL) == -1 && errno == EINVAL);
	tv = (struct timeval){ -1, 0 };
	CHECK(select(0, NULL, NULL, NULL, &tv) == -1 && errno == EINVAL);
}

/* One thread closes what another polls together with a pipe: only the pipe's event is looked at. */
static void *poll_two(void *arg)
{
	int *fd = arg;
	struct pollfd f[2] = { { fd[0], POLLIN, 0 }, { fd[1], POLLIN, 0 } };
	int r;

	do {
		r = poll(f, 2, -1);
		if (f[0].revents & POLLNVAL)
			f[0].fd = -1;
	} while (r > 0 && f[1].revents == 0);
	CHECK(r >= 1 && f[1].revents == POLLIN);
	return NULL;
}

static void close_under_poll(void)
{
	int a[2], b[2], fd[2];
	pthread_t t;

	CHECK(pipe(a) == 0 && pipe(b) == 0);
	fd[0] = a[0];
	fd[1] = b[0];
	t = go(poll_two, fd);
	msleep(20);
	close(a[0]);
	msleep(10);
	CHECK(write(b[1], "x", 1) == 1);
	pthread_join(t, NULL);
	close(a[1]);
	close(b[0]);
	close(b[1]);
}

/* ---- accept ---- */

#define ACCEPTORS 20
#define CLIENTS 200

static int listener;
static int accepted;

static void *acceptor(void *arg)
{
	(void)arg;
	for (;;) {
		char c;
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			return NULL;
		if (read(fd, &c, 1) != 1 || c == 'q') {
			close(fd);
			return NULL;
		}
		__atomic_fetch_add(&accepted, 1, __ATOMIC_RELAXED);
		CHECK(write(fd, &c, 1) == 1);
		close(fd);
	}
}

static int dial(uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = port };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	return fd;
}

static uint16_t listen_any(int *fd)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t len = sizeof(sa);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	*fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(bind(*fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(*fd, 256) == 0);
	CHECK(getsockname(*fd, (struct sockaddr *)&sa, &len) == 0);
	return sa.sin_port;
}

static void accepts(void)
{
	uint16_t port = listen_any(&listener);
	pthread_t t[ACCEPTORS];
	int fd[CLIENTS], p[2], e;
	struct rlimit old, few;

	for (int i = 0; i < ACCEPTORS; i++)
		t[i] = go(acceptor, NULL);
	for (int i = 0; i < CLIENTS; i++) {
		fd[i] = dial(port);
		CHECK(write(fd[i], "a", 1) == 1);
	}
	for (int i = 0; i < CLIENTS; i++) {
		char c = 0;
		CHECK(read(fd[i], &c, 1) == 1 && c == 'a');
		CHECK(read(fd[i], &c, 1) == 0);
		close(fd[i]);
	}
	CHECK(accepted == CLIENTS);
	for (int i = 0; i < ACCEPTORS; i++) {
		fd[i] = dial(port);
		CHECK(write(fd[i], "q", 1) == 1);
	}
	for (int i = 0; i < ACCEPTORS; i++) {
		pthread_join(t[i], NULL);
		close(fd[i]);
	}

	/* No descriptor left: the program hears of it, and the connection waits. */
	fd[0] = dial(port);
	CHECK(pipe(p) == 0);
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = (rlim_t)p[1] + 1;
	CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
	e = accept(listener, NULL, NULL);
	CHECK(e == -1 && errno == EMFILE);
	CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
	e = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(e >= 0 && (fcntl(e, F_GETFD) & FD_CLOEXEC));
	close(e);
	close(fd[0]);
	close(p[0]);
	close(p[1]);
	CHECK(accept(STDIN_FILENO, NULL, NULL) == -1 && (errno == ENOTSOCK || errno == EBADF));
	e = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(accept(e, NULL, NULL) == -1 && errno == EINVAL);
	close(e);
	close(listener);
}

/* ---- ends of connections ---- */

static void *blocked_read(void *arg)
{
	char c;

	return (void *)(intptr_t)read(*(int *)arg, &c, 1);
}

static void ends(void)
{
	int sp[2], p[2], fd;
	void *r;
	char c = 0, *big = calloc(1, 1 << 20);
	pthread_t t;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0);
	t = go(blocked_read, &sp[0]);
	msleep(20);
	shutdown(sp[0], SHUT_RD);
	pthread_join(t, &r);
	CHECK((intptr_t)r == 0);
	close(sp[1]);
	CHECK(write(sp[0], "x", 1) == -1 && errno == EPIPE);
	close(sp[0]);

	CHECK(pipe(p) == 0);
	close(p[0]);
	CHECK(write(p[1], "x", 1) == -1 && errno == EPIPE);
	close(p[1]);

	CHECK(pipe2(p, O_NONBLOCK) == 0);
	CHECK(read(p[0], &c, 1) == -1 && errno == EAGAIN);
	CHECK(write(p[1], big, 1 << 20) == 65536);
	CHECK(write(p[1], big, 1) == -1 && errno == EAGAIN);
	close(p[0]);
	close(p[1]);

	/* Made non-blocking after a first blocking use, and back. */
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0);
	CHECK(write(sp[1], "ab", 2) == 2 && read(sp[0], &c, 1) == 1);
	fd = fcntl(sp[0], F_GETFL);
	CHECK(!(fd & O_NONBLOCK)); /* nobody set it behind our back */
	CHECK(fcntl(sp[0], F_SETFL, fd | O_NONBLOCK) == 0);
	CHECK(read(sp[0], &c, 1) == 1 && c == 'b');
	CHECK(read(sp[0], &c, 1) == -1 && errno == EAGAIN);
	CHECK(fcntl(sp[0], F_SETFL, fd) == 0);
	t = go(write_later, &sp[1]);
	CHECK(read(sp[0], &c, 1) == 1 && c == 'x');
	pthread_join(t, NULL);
	close(sp[0]);
	close(sp[1]);

	CHECK(read(9999, &c, 1) == -1 && errno == EBADF);
	CHECK(write(9999, &c, 1) == -1 && errno == EBADF);
	CHECK(recv(9999, &c, 1, 0) == -1 && errno == EBADF);
	fd = open("/dev/null", O_RDWR);
	CHECK(read(fd, &c, 1) == 0 && write(fd, &c, 1) == 1);
	CHECK(recv(fd, &c, 1, 0) == -1 && errno == ENOTSOCK);
	CHECK(close(fd) == 0 && close(fd) == -1 && errno == EBADF);
	free(big);
}

/* ---- datagrams ---- */

static void *udp_sender(void *arg)
{
	struct sockaddr_in *to = arg;
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	for (int i = 1; i <= 10; i++) {
		char buf[16] = "0123456789abcde";
		msleep(2);
		CHECK(sendto(s, buf, (size_t)i, 0, (struct sockaddr *)to, sizeof(*to)) == i);
	}
	CHECK(sendto(s, "", 0, 0, (struct sockaddr *)to, sizeof(*to)) == 0);
	close(s);
	return NULL;
}

static void datagrams(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET }, from;
	socklen_t len = sizeof(sa);
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	struct mmsghdr mm[4];
	struct iovec iov[4];
	char buf[4][16];
	pthread_t t;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(bind(s, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	CHECK(getsockname(s, (struct sockaddr *)&sa, &len) == 0);
	t = go(udp_sender, &sa);
	CHECK(read(s, buf[0], 16) == 1);
	CHECK(recv(s, buf[0], 16, MSG_WAITALL) == 2); /* a datagram is a datagram */
	len = sizeof(from);
	CHECK(recvfrom(s, buf[0], 2, 0, (struct sockaddr *)&from, &len) == 2 && len == sizeof(from));
	CHECK(recvfrom(s, buf[0], 2, MSG_TRUNC, NULL, NULL) == 4);
	memset(mm, 0, sizeof(mm));
	for (int i = 0; i < 4; i++) {
		iov[i] = (struct iovec){ buf[i], 16 };
		mm[i].msg_hdr.msg_iov = &iov[i];
		mm[i].msg_hdr.msg_iovlen = 1;
	}
	CHECK(recvmmsg(s, mm, 4, 0, NULL) == 4);
	CHECK(mm[0].msg_len == 5 && mm[3].msg_len == 8);
	CHECK(recvmmsg(s, mm, 1, MSG_WAITFORONE, NULL) == 1 && mm[0].msg_len == 9);
	CHECK(read(s, buf[0], 16) == 10);
	CHECK(read(s, buf[0], 16) == 0);
	pthread_join(t, NULL);
	close(s);
}

/* ---- signals and sleeping ---- */

static volatile sig_atomic_t handled;

static void handler(int sig)
{
	(void)sig;
	handled++;
}

static pthread_t main_thread;
static volatile int poking;

/* Signals the main thread until it says that it has heard. */
static void *poke(void *arg)
{
	(void)arg;
	msleep(30);
	while (poking) {
		pthread_kill(main_thread, SIGUSR1);
		msleep(10);
	}
	return NULL;
}

#define POKED(expr)                                                                                \
	do {                                                                                       \
		pthread_t t_;                                                                      \
		poking = 1;                                                                        \
		t_ = go(poke, NULL);                                                               \
		CHECK(expr);                                                                       \
		poking = 0;                                                                        \
		pthread_join(t_, NULL);                                                            \
	} while (0)

static void signals(void)
{
	struct sigaction sa = { .sa_handler = handler };
	struct timespec ts = { 100, 0 }, rem = { 0, 0 };
	struct pollfd f;
	struct epoll_event ev;
	int sp[2], ep = epoll_create1(0);
	sigset_t usr1, none;
	fd_set r;
	char c;
	int64_t t0;

	main_thread = pthread_self();
	sigaction(SIGUSR1, &sa, NULL);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sp) == 0);
	POKED(nanosleep(&ts, &rem) == -1 && errno == EINTR);
	CHECK(rem.tv_sec == 99 && rem.tv_nsec > 0);
	POKED(sleep(100) >= 99);
	POKED(clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL) == EINTR);
	POKED(read(sp[0], &c, 1) == -1 && errno == EINTR);
	f = (struct pollfd){ sp[0], POLLIN, 0 };
	POKED(poll(&f, 1, -1) == -1 && errno == EINTR);
	FD_ZERO(&r);
	FD_SET(sp[0], &r);
	POKED(select(sp[0] + 1, &r, NULL, NULL, NULL) == -1 && errno == EINTR);
	CHECK(FD_ISSET(sp[0], &r));
	POKED(epoll_wait(ep, &ev, 1, -1) == -1 && errno == EINTR);

	/* A blocked and pending signal ends a ppoll that lets it in, and only that. */
	sigemptyset(&usr1);
	sigemptyset(&none);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	handled = 0;
	pthread_kill(main_thread, SIGUSR1);
	CHECK(poll(&f, 1, 10) == 0 && handled == 0);
	CHECK(ppoll(&f, 1, NULL, &none) == -1 && errno == EINTR && handled == 1);
	pthread_kill(main_thread, SIGUSR1);
	FD_SET(sp[0], &r);
	CHECK(pselect(sp[0] + 1, &r, NULL, NULL, NULL, &none) == -1 && errno == EINTR && handled == 2);
	pthread_kill(main_thread, SIGUSR1);
	CHECK(epoll_pwait(ep, &ev, 1, -1, &none) == -1 && errno == EINTR && handled == 3);
	POKED(ppoll(&f, 1, NULL, &none) == -1 && errno == EINTR);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);

	/* With SA_RESTART a read goes on, poll does not. */
	sa.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &sa, NULL);
	poking = 1;
	pthread_t p = go(poke, NULL), w;
	msleep(50);
	w = go(write_later, &sp[1]);
	CHECK(read(sp[0], &c, 1) == 1 && c == 'x');
	CHECK(poll(&f, 1, -1) == -1 && errno == EINTR);
	poking = 0;
	pthread_join(p, NULL);
	pthread_join(w, NULL);

	clock_gettime(CLOCK_REALTIME, &ts);
	t0 = now_ns();
	ts.tv_nsec += 50000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_nsec -= 1000000000;
		ts.tv_sec++;
	}
	CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &ts, NULL) == 0);
	CHECK(now_ns() - t0 >= 49000000);
	ts.tv_sec = 5;
	CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &ts, NULL) == 0);
	ts.tv_nsec = -1;
	CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL) == EINVAL);
	CHECK(nanosleep(&ts, NULL) == -1 && errno == EINVAL);
	CHECK(usleep(1000) == 0 && sleep(0) == 0);
	close(ep);
	close(sp[0]);
	close(sp[1]);
}

/* ---- eventfd, timerfd, FIFO, epoll ---- */

static void *post_later(void *arg)
{
	msleep(20);
	CHECK(eventfd_write(*(int *)arg, 7) == 0);
	return NULL;
}

static void *fifo_writer(void *arg)
{
	int fd = open(arg, O_WRONLY);

	CHECK(fd >= 0 && write(fd, "hello", 5) == 5);
	close(fd);
	return NULL;
}

static void special(void)
{
	int ev = eventfd(0, 0), tf = timerfd_create(CLOCK_MONOTONIC, 0), ep = epoll_create1(0), p[2], fd;
	struct itimerspec it = { { 0, 0 }, { 0, 30000000 } };
	struct epoll_event e = { .events = EPOLLIN }, out[4];
	char dir[] = "/tmp/t_io.XXXXXX", path[64], buf[8];
	uint64_t v = 0;
	pthread_t t;
	int64_t t0;

	t = go(post_later, &ev);
	CHECK(read(ev, &v, 8) == 8 && v == 7);
	pthread_join(t, NULL);
	CHECK(read(ev, &v, 4) == -1 && errno == EINVAL);
	CHECK(timerfd_settime(tf, 0, &it, NULL) == 0);
	CHECK(read(tf, &v, 8) == 8 && v == 1);

	CHECK(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/fifo", dir);
	CHECK(mkfifo(path, 0600) == 0);
	t = go(fifo_writer, path);
	fd = open(path, O_RDONLY);
	CHECK(fd >= 0 && read(fd, buf, 5) == 5 && memcmp(buf, "hello", 5) == 0);
	CHECK(read(fd, buf, 5) == 0);
	pthread_join(t, NULL);
	close(fd);
	unlink(path);
	rmdir(dir);

	CHECK(pipe(p) == 0);
	e.data.fd = p[0];
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &e) == 0);
	CHECK(epoll_wait(ep, out, 4, 0) == 0);
	t0 = now_ns();
	CHECK(epoll_wait(ep, out, 4, 50) == 0 && now_ns() - t0 >= 50000000);
	t = go(write_later, &p[1]);
	CHECK(epoll_wait(ep, out, 4, -1) == 1 && out[0].data.fd == p[0] && out[0].events == EPOLLIN);
	CHECK(epoll_wait(ep, out, 4, -1) == 1);
	CHECK(epoll_wait(ep, out, 0, 0) == -1 && errno == EINVAL);
	CHECK(epoll_wait(p[0], out, 1, 0) == -1 && errno == EINVAL);
	pthread_join(t, NULL);
	close(p[0]);
	close(p[1]);
	close(ep);
	close(ev);
	close(tf);
}

/* Thirty threads wait on sets of their own, more than may wait in the kernel. */
struct epw {
	int ep, ev;
};

static void *epoll_waiter(void *arg)
{
	struct epw *w = arg;
	struct epoll_event out;

	CHECK(epoll_wait(w->ep, &out, 1, -1) == 1 && out.data.fd == w->ev);
	return NULL;
}

static void many_epolls(void)
{
	struct epw w[30];
	pthread_t t[30];

	for (int i = 0; i < 30; i++) {
		struct epoll_event e = { .events = EPOLLIN };
		w[i] = (struct epw){ epoll_create1(0), eventfd(0, 0) };
		e.data.fd = w[i].ev;
		CHECK(epoll_ctl(w[i].ep, EPOLL_CTL_ADD, w[i].ev, &e) == 0);
		t[i] = go(epoll_waiter, &w[i]);
	}
	msleep(30);
	for (int i = 29; i >= 0; i--)
		CHECK(eventfd_write(w[i].ev, 1) == 0);
	for (int i = 0; i < 30; i++) {
		pthread_join(t[i], NULL);
		close(w[i].ep);
		close(w[i].ev);
	}
}

/* ---- descriptors reused while nobody waits ---- */

static void reuse(void)
{
	char c;

	for (int i = 0; i < 50; i++) {
		int fd[2];
		pthread_t t;

		CHECK(i % 2 ? pipe(fd) == 0 : socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
		t = go(i % 3 ? echo : blocked_read, (int[2]){ fd[0], fd[0] });
		/* The thread's argument lives in this round. */
		if (i % 3 == 0) {
			CHECK(write(fd[1], "x", 1) == 1);
		} else {
			close(fd[1]);
			fd[1] = -1;
		}
		pthread_join(t, NULL);
		if (fd[1] >= 0)
			close(fd[1]);
		CHECK(read(fd[0], &c, 1) == 0);
		close(fd[0]);
	}
}

/* ---- children ---- */

static void *wait_child(void *arg)
{
	int st = 0;

	CHECK(waitpid(*(pid_t *)arg, &st, 0) == *(pid_t *)arg);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 3);
	return NULL;
}

static void children(void)
{
	pid_t pid = fork();
	pthread_t t;
	FILE *f;
	char line[32];

	if (pid == 0) {
		usleep(30000);
		_exit(3);
	}
	t = go(wait_child, &pid);
	pthread_join(t, NULL);
	CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
	CHECK(WEXITSTATUS(system("exit 5")) == 5);
	f = popen("echo from a child", "r");
	CHECK(f != NULL && fgets(line, sizeof(line), f) != NULL && strcmp(line, "from a child\n") == 0);
	CHECK(pclose(f) == 0);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	pingpong(false);
	pass("pipes");
	pingpong(true);
	pass("socketpairs");
	shared_pipe_test();
	pass("one pipe, many readers");
	recv_flags();
	pass("WAITALL and PEEK");
	timeouts();
	pass("socket timeouts");
	gather(0);
	pass("writev to a socket");
	gather(1);
	pass("writev to a pipe");
	gather(2);
	pass("sendmsg");
	polls();
	pass("poll");
	selects();
	pass("select");
	close_under_poll();
	pass("close under poll");
	accepts();
	pass("accept");
	ends();
	pass("ends of connections");
	datagrams();
	pass("datagrams");
	signals();
	pass("signals and sleeping");
	special();
	pass("eventfd, timerfd, FIFO, epoll");
	many_epolls();
	pass("many epoll sets");
	reuse();
	pass("reused descriptors");
	children();
	pass("children");
	return failures != 0;
}
