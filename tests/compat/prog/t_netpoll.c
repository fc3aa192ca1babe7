/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that many threads wait for, or that change under those who wait: closed, replaced, handed over, shared with another
 * process.  Each connection, datagram and record is taken once, every waiter ends.  Prints one line per case, the same natively and
 * under pgreen; exit status 1 when something is lost or comes twice.  A hang is a failure, too: the runner sees to it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic int failures;

#define CHECK(c) do { if (!(c)) bad(__LINE__, #c, 0, 0); } while (0)
#define EQ(a, b) do { long long a_ = (long long)(a), b_ = (long long)(b); if (a_ != b_) bad(__LINE__, #a, a_, b_); } while (0)

static void bad(int line, const char *what, long long got, long long want)
{
	printf("t_netpoll.c:%d: %s: %lld, not %lld (errno %d)\n", line, what, got, want, errno);
	failures++;
}

static void pause_ms(int ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

	nanosleep(&ts, NULL);
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_t t;
	int r;

	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 64 * 1024);
	r = pthread_create(&t, &a, fn, arg);
	if (r) {
		printf("pthread_create: %s\n", strerror(r));
		exit(1);
	}
	pthread_attr_destroy(&a);
	return t;
}

static void join(pthread_t t)
{
	EQ(pthread_join(t, NULL), 0);
}

static struct sockaddr_in here;
static int listener(int type, int backlog)
{
	socklen_t len = sizeof here;
	int fd = socket(AF_INET, type, 0);

	here = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	EQ(bind(fd, (struct sockaddr *)&here, sizeof here), 0);
	EQ(getsockname(fd, (struct sockaddr *)&here, &len), 0);
	if (type == SOCK_STREAM)
		EQ(listen(fd, backlog), 0);
	return fd;
}

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	EQ(connect(fd, (struct sockaddr *)&here, sizeof here), 0);
	return fd;
}

static void pair(int sv[2])
{
	EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
}

/* ---- a thousand in accept ---- */

enum { MANY = 1000 };
static int lfd;
static _Atomic int taken[MANY * 8];
static pthread_t ts[MANY];

static void *accepter(void *arg)
{
	int fd = accept(lfd, NULL, NULL), id;

	(void)arg;
	CHECK(fd >= 0);
	EQ(recv(fd, &id, sizeof id, MSG_WAITALL), sizeof id);
	if (id >= 0 && id < MANY)
		taken[id]++;
	EQ(send(fd, &id, sizeof id, 0), sizeof id);
	EQ(close(fd), 0);
	return NULL;
}

static void many_accept(void)
{
	int id;

	lfd = listener(SOCK_STREAM, MANY);
	for (int i = 0; i < MANY; i++)
		ts[i] = start(accepter, NULL);
	pause_ms(100);
	for (int i = 0; i < MANY; i += 4) { /* four at a time */
		int fd[4];

		for (int k = 0; k < 4; k++)
			fd[k] = dial();
		for (int k = 0; k < 4; k++) {
			id = i + k;
			EQ(send(fd[k], &id, sizeof id, 0), sizeof id);
		}
		for (int k = 0; k < 4; k++) {
			id = -1;
			EQ(recv(fd[k], &id, sizeof id, MSG_WAITALL), sizeof id);
			EQ(id, i + k);
			close(fd[k]);
		}
	}
	for (int i = 0; i < MANY; i++) {
		join(ts[i]);
		EQ(taken[i], 1);
	}
	close(lfd);
}

/* ---- a thousand in recvfrom ---- */

enum { DATAGRAMS = 5000 };

static void *receiver(void *arg)
{
	struct sockaddr_in from;
	socklen_t len = sizeof from;
	int id;

	(void)arg;
	for (;;) {
		EQ(recvfrom(lfd, &id, sizeof id, 0, (struct sockaddr *)&from, &len), sizeof id);
		if (id < 0)
			return NULL;
		taken[id]++;
	}
}

static void many_recvfrom(void)
{
	int fd, id, big = 4 << 20, got = 0;

	memset(taken, 0, sizeof taken);
	lfd = listener(SOCK_DGRAM, 0);
	setsockopt(lfd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
	for (int i = 0; i < MANY; i++)
		ts[i] = start(receiver, NULL);
	pause_ms(50);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	EQ(connect(fd, (struct sockaddr *)&here, sizeof here), 0);
	for (id = 0; id < DATAGRAMS; id++) {
		EQ(send(fd, &id, sizeof id, 0), sizeof id);
		while (id - got > 100) { /* what doesn't fit would be dropped */
			got = 0;
			for (int i = 0; i <= id; i++)
				got += taken[i];
			sched_yield();
		}
	}
	while (got < DATAGRAMS) {
		got = 0;
		for (int i = 0; i < DATAGRAMS; i++)
			got += taken[i];
		pause_ms(1);
	}
	id = -1;
	for (int i = 0; i < MANY; i++) {
		EQ(send(fd, &id, sizeof id, 0), sizeof id);
		if (i % 50 == 49)
			pause_ms(2);
	}
	for (int i = 0; i < MANY; i++)
		join(ts[i]);
	for (int i = 0; i < DATAGRAMS; i++)
		EQ(taken[i], 1);
	close(fd);
	close(lfd);
}

/* ---- readers and writers on one socket ---- */

enum { WRITERS = 8, READERS = 8, RECORDS = 500 };
static int shared[2];
static _Atomic long sum;

static void *record_writer(void *arg)
{
	for (int i = 0; i < RECORDS; i++) {
		int id = (int)(intptr_t)arg * RECORDS + i;

		EQ(write(shared[0], &id, sizeof id), sizeof id);
		if (i % 16 == 0)
			sched_yield();
	}
	return NULL;
}

static void *record_reader(void *arg)
{
	int id;
	ssize_t n;

	(void)arg;
	while ((n = read(shared[1], &id, sizeof id)) > 0) {
		EQ(n, sizeof id);
		if (id < 0)
			return NULL;
		taken[id]++;
	}
	EQ(n, 0);
	return NULL;
}

static void *byte_writer(void *arg)
{
	char buf[700];

	memset(buf, (int)(intptr_t)arg + 1, sizeof buf);
	for (int i = 0; i < 300; i++)
		EQ(write(shared[0], buf, sizeof buf), sizeof buf);
	return NULL;
}

static void *byte_reader(void *arg)
{
	unsigned char buf[300];
	ssize_t n;

	while ((n = (intptr_t)arg % 2 ? read(shared[1], buf, sizeof buf) : recv(shared[1], buf, sizeof buf, 0)) > 0)
		for (ssize_t i = 0; i < n; i++)
			sum += buf[i];
	EQ(n, 0);
	return NULL;
}

/* poll, then read without blocking: another may have been faster. */
static void *poll_reader(void *arg)
{
	unsigned char buf[300];

	(void)arg;
	for (;;) {
		struct pollfd p = {shared[1], POLLIN, 0};
		ssize_t n;

		EQ(poll(&p, 1, -1), 1);
		n = recv(shared[1], buf, sizeof buf, MSG_DONTWAIT);
		if (n == 0)
			return NULL;
		if (n < 0)
			EQ(errno, EAGAIN);
		for (ssize_t i = 0; i < n; i++)
			sum += buf[i];
	}
}

static void one_socket(void)
{
	pthread_t w[WRITERS], r[READERS];
	long want = 0;
	int id = -1;

	memset(taken, 0, sizeof taken);
	EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, shared), 0);
	for (int i = 0; i < READERS; i++)
		r[i] = start(record_reader, NULL);
	for (int i = 0; i < WRITERS; i++)
		w[i] = start(record_writer, (void *)(intptr_t)i);
	for (int i = 0; i < WRITERS; i++)
		join(w[i]);
	for (int i = 0; i < READERS; i++)
		EQ(write(shared[0], &id, sizeof id), sizeof id);
	for (int i = 0; i < READERS; i++)
		join(r[i]);
	for (int i = 0; i < WRITERS * RECORDS; i++)
		EQ(taken[i], 1);
	close(shared[0]);
	close(shared[1]);

	for (int round = 0; round < 2; round++) { /* bytes: readers of one kind; then with some that poll */
		sum = want = 0;
		pair(shared);
		for (int i = 0; i < READERS; i++)
			r[i] = start(round && i % 2 ? poll_reader : byte_reader, (void *)(intptr_t)i);
		for (int i = 0; i < WRITERS; i++) {
			w[i] = start(byte_writer, (void *)(intptr_t)i);
			want += 300L * 700 * (i + 1);
		}
		for (int i = 0; i < WRITERS; i++)
			join(w[i]);
		shutdown(shared[0], SHUT_WR);
		for (int i = 0; i < READERS; i++)
			join(r[i]);
		EQ(sum, want);
		close(shared[0]);
		close(shared[1]);
	}
}

/* ---- closed and replaced under those who wait ---- */

static void *wait_recv(void *arg)
{
	char c;
	ssize_t n = recv((int)(intptr_t)arg, &c, 1, 0);

	/* natively the open file is waited for on; here the close ends it */
	CHECK(n == 0 || (n < 0 && errno == EBADF));
	return NULL;
}

static void *wait_poll(void *arg)
{
	struct pollfd p = {(int)(intptr_t)arg, POLLIN, 0};

	EQ(poll(&p, 1, 30000), 1);
	return NULL;
}

static void *wait_accept(void *arg)
{
	EQ(accept((int)(intptr_t)arg, NULL, NULL), -1);
	CHECK(errno == EINVAL || errno == EBADF);
	return NULL;
}

static void closed_and_replaced(void)
{
	pthread_t t[6];
	int a[2], b[2], keep, n = 0;
	char c;

	/* close: the peer's end comes after it */
	pair(a);
	for (; n < 3; n++)
		t[n] = start(wait_recv, (void *)(intptr_t)a[0]);
	for (; n < 5; n++)
		t[n] = start(wait_poll, (void *)(intptr_t)a[0]);
	pause_ms(50);
	close(a[0]);
	close(a[1]);
	while (n > 0)
		join(t[--n]);

	/* dup2 over it: the old file goes on where it is still open, the number is the new one */
	pair(a);
	pair(b);
	keep = dup(a[0]);
	for (; n < 3; n++)
		t[n] = start(wait_recv, (void *)(intptr_t)a[0]);
	pause_ms(50);
	EQ(dup2(b[0], a[0]), a[0]);
	shutdown(keep, SHUT_RDWR);
	while (n > 0)
		join(t[--n]);
	EQ(send(b[1], "x", 1, 0), 1);
	EQ(recv(a[0], &c, 1, 0), 1);
	EQ(c, 'x');
	close(a[0]), close(a[1]), close(b[0]), close(b[1]), close(keep);

	/* a listening socket */
	lfd = listener(SOCK_STREAM, 5);
	keep = dup(lfd);
	for (; n < 4; n++)
		t[n] = start(wait_accept, (void *)(intptr_t)lfd);
	pause_ms(50);
	close(lfd);
	shutdown(keep, SHUT_RDWR);
	while (n > 0)
		join(t[--n]);
	close(keep);
}

static void *send_later(void *arg)
{
	pause_ms(60);
	EQ(send((int)(intptr_t)arg, "y", 1, 0), 1);
	return NULL;
}

static void await_byte(int fd, int peer)
{
	pthread_t t = start(send_later, (void *)(intptr_t)peer);
	char c = 0;

	EQ(recv(fd, &c, 1, 0), 1);
	EQ(c, 'y');
	join(t);
}

/* Handed over by SCM_RIGHTS, the number it had is closed while somebody waits on the new one. */
static void handed_over(void)
{
	union { struct cmsghdr h; char buf[CMSG_SPACE(sizeof(int))]; } u;
	int a[2], way[2], fd;
	char c = 'f';
	struct iovec iov = {&c, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};

	pair(a);
	pair(way);
	await_byte(a[0], a[1]); /* known to the poller */
	memset(&u, 0, sizeof u);
	u.h.cmsg_level = SOL_SOCKET;
	u.h.cmsg_type = SCM_RIGHTS;
	u.h.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&u.h), &a[0], sizeof(int));
	EQ(sendmsg(way[0], &m, 0), 1);
	close(a[0]);
	m.msg_controllen = sizeof u.buf;
	EQ(recvmsg(way[1], &m, 0), 1);
	memcpy(&fd, CMSG_DATA(&u.h), sizeof fd);
	await_byte(fd, a[1]);
	await_byte(a[1], fd);
	close(fd), close(a[1]), close(way[0]), close(way[1]);
}

/* Closed in ways the poller does not hear of; the next socket has the same number. */
static long raw_close(int fd)
{
#ifdef __x86_64__
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "0"((long)SYS_close), "D"((long)fd) : "rcx", "r11", "memory");
	return r;
#else
	return close(fd);
#endif
}

static void gone_stale(void)
{
	for (int how = 0; how < 6; how++) {
		int a[2], b[2], low, other = -1;

		pair(a);
		if (a[1] < a[0])
			low = a[1], a[1] = a[0], a[0] = low;
		await_byte(a[0], a[1]);
		low = a[0];
		if (how == 4 || how == 5)
			other = dup(a[0]); /* the old registration lives on */
		switch (how) {
		case 0: fclose(fdopen(low, "r")); break;
		case 1: close_range((unsigned)low, (unsigned)low, 0); break;
		case 2:
		case 4: EQ(raw_close(low), 0); break;
		case 3: EQ(syscall(SYS_close, low), 0); break;
		case 5: EQ(close(low), 0); break;
		}
		pair(b);
		EQ(b[0], low);
		if (other >= 0)
			EQ(send(a[1], "old", 3, 0), 3); /* an edge of the old one, for this number */
		await_byte(b[0], b[1]);
		await_byte(b[0], b[1]);
		close(b[0]), close(b[1]), close(a[1]);
		if (other >= 0)
			close(other);
	}
}

/* ---- shared with another process ---- */

static void with_a_child(void)
{
	enum { N = 4000 };
	struct { _Atomic int mine, childs; } *c;
	int sv[2], st, id;
	pthread_t r[4];
	pid_t pid;

	memset(taken, 0, sizeof taken);
	EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, shared), 0);
	pair(sv);
	(void)c;
	for (int i = 0; i < 4; i++)
		r[i] = start(record_reader, NULL);
	pause_ms(20);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(sv[0]);
		while (read(shared[1], &id, sizeof id) == sizeof id && id >= 0)
			if (write(sv[1], &id, sizeof id) != sizeof id)
				_exit(2);
		_exit(0);
	}
	close(sv[1]);
	for (id = 0; id < N; id++) {
		EQ(write(shared[0], &id, sizeof id), sizeof id);
		if (id % 50 == 0)
			sched_yield();
	}
	id = -1;
	for (int i = 0; i < 5; i++)
		EQ(write(shared[0], &id, sizeof id), sizeof id);
	while (recv(sv[0], &id, sizeof id, MSG_WAITALL) == sizeof id)
		taken[id]++;
	for (int i = 0; i < 4; i++)
		join(r[i]);
	EQ(waitpid(pid, &st, 0), pid);
	EQ(st, 0);
	for (int i = 0; i < N; i++)
		EQ(taken[i], 1);
	close(shared[0]), close(shared[1]), close(sv[0]);
}

/* ---- time-outs, shutdown ---- */

static void *shut(void *arg)
{
	pause_ms(50);
	EQ(shutdown((int)(intptr_t)arg, SHUT_RDWR), 0);
	return NULL;
}

static void timeouts(void)
{
	struct timeval tv = {0, 60000};
	int a[2], fd, fds[64], n = 0, r = 0;
	pthread_t t;
	char buf[4096] = {0};

	pair(a);
	EQ(setsockopt(a[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
	EQ(setsockopt(a[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv), 0);
	EQ(recv(a[0], buf, 1, 0), -1);
	EQ(errno, EAGAIN);
	EQ(read(a[0], buf, 1), -1);
	EQ(errno, EAGAIN);
	while (send(a[0], buf, sizeof buf, 0) == sizeof buf)
		;
	EQ(errno, EAGAIN);
	close(a[0]), close(a[1]);

	lfd = listener(SOCK_STREAM, 0);
	EQ(setsockopt(lfd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
	EQ(accept(lfd, NULL, NULL), -1);
	EQ(errno, EAGAIN);
	/* connects that nobody takes: the queue gets full, then they hang until the time is over */
	for (; n < 16 && r == 0; n++) {
		fds[n] = socket(AF_INET, SOCK_STREAM, 0);
		EQ(setsockopt(fds[n], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv), 0);
		r = connect(fds[n], (struct sockaddr *)&here, sizeof here);
	}
	EQ(r, -1);
	EQ(errno, EINPROGRESS);
	while (n > 0)
		close(fds[--n]);
	close(lfd);

	pair(a);
	t = start(shut, (void *)(intptr_t)a[0]);
	EQ(recv(a[0], buf, 1, 0), 0);
	join(t);
	EQ(send(a[0], "x", 1, MSG_NOSIGNAL), -1);
	EQ(errno, EPIPE);
	close(a[0]), close(a[1]);
	lfd = listener(SOCK_STREAM, 5);
	t = start(shut, (void *)(intptr_t)lfd);
	fd = accept(lfd, NULL, NULL);
	EQ(fd, -1);
	EQ(errno, EINVAL);
	join(t);
	close(lfd);
}

/* ---- epoll of the program's own ---- */

static int stopfd;

static void *exclusive(void *arg)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = lfd}, got[4];
	int ep = epoll_create1(0);

	(void)arg;
	EQ(epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &ev), 0);
	ev = (struct epoll_event){.events = EPOLLIN, .data.fd = stopfd};
	EQ(epoll_ctl(ep, EPOLL_CTL_ADD, stopfd, &ev), 0);
	for (;;) {
		int n = epoll_wait(ep, got, 4, -1), fd, id;

		CHECK(n > 0);
		for (int i = 0; i < n; i++) {
			if (got[i].data.fd == stopfd) {
				close(ep);
				return NULL;
			}
			fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
			if (fd < 0) {
				EQ(errno, EAGAIN);
				continue;
			}
			EQ(recv(fd, &id, sizeof id, MSG_WAITALL), sizeof id);
			taken[id]++;
			close(fd);
		}
	}
}

static void *nested_wait(void *arg)
{
	struct pollfd p = {(int)(intptr_t)arg, POLLIN, 0};
	struct epoll_event ev = {.events = EPOLLIN}, got;
	int outer = epoll_create1(0);

	EQ(poll(&p, 1, -1), 1);
	EQ(epoll_ctl(outer, EPOLL_CTL_ADD, p.fd, &ev), 0);
	EQ(epoll_wait(outer, &got, 1, -1), 1);
	EQ(epoll_wait(p.fd, &got, 1, -1), 1);
	close(outer);
	return NULL;
}

static void own_epoll(void)
{
	enum { N = 200, SETS = 20 };
	struct epoll_event ev = {.events = EPOLLIN};
	pthread_t t[SETS];
	int a[2], inner, c;

	memset(taken, 0, sizeof taken);
	lfd = listener(SOCK_STREAM, N);
	fcntl(lfd, F_SETFL, O_NONBLOCK);
	stopfd = eventfd(0, 0);
	for (int i = 0; i < SETS; i++)
		t[i] = start(exclusive, NULL);
	for (int id = 0; id < N; id++) {
		int fd = dial();

		EQ(send(fd, &id, sizeof id, 0), sizeof id);
		EQ(recv(fd, &c, 1, 0), 0);
		close(fd);
	}
	EQ(eventfd_write(stopfd, 1), 0);
	for (int i = 0; i < SETS; i++)
		join(t[i]);
	for (int id = 0; id < N; id++)
		EQ(taken[id], 1);
	close(lfd), close(stopfd);

	pair(a);
	inner = epoll_create1(0);
	EQ(epoll_ctl(inner, EPOLL_CTL_ADD, a[0], &ev), 0);
	for (int i = 0; i < 3; i++)
		t[i] = start(nested_wait, (void *)(intptr_t)inner);
	pause_ms(40);
	EQ(send(a[1], "z", 1, 0), 1);
	for (int i = 0; i < 3; i++)
		join(t[i]);
	close(inner), close(a[0]), close(a[1]);
}

/* ---- ten thousand, coming and going ---- */

enum { CHURNERS = 100, EACH = 45, ROUNDS = 4 };

static void *far_end(void *arg)
{
	int *fd = arg;

	for (int n = 0; n < 3; n++)
		for (int i = 0; i < EACH; i++)
			EQ(write(fd[(i * 7 + n) % EACH], "abc" + n, 1), 1);
	return NULL;
}

static void *churner(void *arg)
{
	(void)arg;
	for (int r = 0; r < ROUNDS; r++) {
		struct pollfd p[EACH];
		int far[EACH], got = 0;
		pthread_t t;

		for (int i = 0; i < EACH; i++) {
			int sv[2];

			pair(sv);
			p[i] = (struct pollfd){sv[0], POLLIN, 0};
			far[i] = sv[1];
		}
		t = start(far_end, far);
		while (got < EACH * 3) {
			CHECK(poll(p, EACH, -1) > 0);
			for (int i = 0; i < EACH; i++)
				if (p[i].revents) {
					char c[4];
					ssize_t n = read(p[i].fd, c, sizeof c);

					CHECK(n > 0);
					got += (int)n;
					for (ssize_t k = 0; k < n; k++)
						sum += c[k];
				}
		}
		join(t);
		for (int i = 0; i < EACH; i++)
			close(p[i].fd), close(far[i]);
	}
	return NULL;
}

static void churn(void)
{
	struct rlimit lim;
	pthread_t t[CHURNERS];

	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	sum = 0;
	if (lim.rlim_max >= CHURNERS * EACH * 2 + 200)
		for (int i = 0; i < CHURNERS; i++)
			t[i] = start(churner, NULL);
	for (int i = 0; i < CHURNERS; i++)
		join(t[i]);
	EQ(sum, (long)CHURNERS * EACH * ROUNDS * ('a' + 'b' + 'c'));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} cases[] = {
		{"a thousand in accept", many_accept}, {"a thousand in recvfrom", many_recvfrom},
		{"readers and writers of one socket", one_socket}, {"closed, replaced", closed_and_replaced},
		{"handed over", handed_over}, {"gone stale", gone_stale}, {"shared with a child", with_a_child},
		{"time-outs and shutdown", timeouts}, {"epoll sets of the program's own", own_epoll}, {"churn", churn},
	};

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int before = failures;

		if (argc > 1 && !strstr(cases[i].name, argv[1]))
			continue;
		cases[i].fn();
		printf("%s %s\n", failures == before ? "ok" : "FAILED", cases[i].name);
		fflush(stdout);
	}
	return failures != 0;
}
