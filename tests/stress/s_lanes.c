/* SPDX-License-Identifier: MIT */
/*
 * s_lanes SEED SECONDS: streams whose every byte is known, by all ways to read and write, between threads that come and go.
 *
 * A lane is a pair of threads with a pipe, a socket pair, a TCP connection between them; the sender writes
 * in random pieces by write, writev, send, sendmsg, the receiver takes them by read, readv, recv with and without MSG_WAITALL, poll,
 * select or epoll before; sockets non-blocking at times, with time-outs, with signals.  After a random number of bytes the lane is
 * closed and built anew.  Where there are not enough descriptors or threads, a lane waits and tries again.  A failure is one line; the
 * last line is "ok".
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "stress.h"

enum { LANES = 16, MOST = 60000 };

static _Atomic long bytes, lives;

struct end {
	int fd;
	uint64_t rnd;
	uint64_t key; /* of the bytes */
	long total;
};

static void bad(const char *what, long got, long want)
{
	if (failures++ < 20)
		printf("s_lanes: %s: %ld, not %ld (errno %d)\n", what, got, want, errno);
}

static unsigned char byte(uint64_t key, long at)
{
	return (unsigned char)((key + (uint64_t)at * 0x9e3779b97f4a7c15u) >> 29);
}

static void *sender(void *arg)
{
	struct end *e = arg;
	unsigned char buf[9000];
	long at = 0;

	while (at < e->total) {
		long n = 1 + (long)(mix(&e->rnd) % (mix(&e->rnd) % 8 ? 400 : sizeof buf - 1));
		ssize_t r;

		if (n > e->total - at)
			n = e->total - at;
		for (long i = 0; i < n; i++)
			buf[i] = byte(e->key, at + i);
		struct iovec v[2] = {{buf, (size_t)(n / 3)}, {buf + n / 3, (size_t)(n - n / 3)}};
		struct msghdr h = {.msg_iov = v, .msg_iovlen = 2};

		switch (mix(&e->rnd) % 4) {
		case 0: r = write(e->fd, buf, (size_t)n); break;
		case 1: r = writev(e->fd, v, 2); break;
		case 2: r = send(e->fd, buf, (size_t)n, MSG_NOSIGNAL); break;
		default: r = sendmsg(e->fd, &h, MSG_NOSIGNAL | (mix(&e->rnd) % 4 ? 0 : MSG_DONTWAIT)); break;
		}
		if (r < 0 && errno == ENOTSOCK)
			r = write(e->fd, buf, (size_t)n);
		if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
			struct pollfd p = {e->fd, POLLOUT, 0};

			poll(&p, 1, 100);
			continue;
		}
		if (r <= 0) {
			bad("sent", r, n);
			break;
		}
		at += r;
		if (mix(&e->rnd) % 16 == 0)
			usleep((useconds_t)(mix(&e->rnd) % 300));
	}
	close(e->fd);
	return NULL;
}

static void ready(struct end *e)
{
	struct pollfd p = {e->fd, POLLIN, 0};
	struct epoll_event ev = {.events = EPOLLIN}, got;
	fd_set set;
	int ep;

	switch (mix(&e->rnd) % 4) {
	case 0:
		while (poll(&p, 1, mix(&e->rnd) % 3 ? -1 : 2) <= 0)
			;
		break;
	case 1:
		if (e->fd < FD_SETSIZE) {
			FD_ZERO(&set);
			FD_SET(e->fd, &set);
			if (select(e->fd + 1, &set, NULL, NULL, NULL) != 1 && errno != EINTR)
				bad("select", 0, 1);
		}
		break;
	case 2:
		ep = epoll_create1(EPOLL_CLOEXEC);
		if (ep < 0)
			return;
		if (epoll_ctl(ep, EPOLL_CTL_ADD, e->fd, &ev))
			bad("epoll_ctl", -1, 0);
		while (epoll_wait(ep, &got, 1, mix(&e->rnd) % 3 ? -1 : 1) == 0)
			;
		close(ep);
		break;
	}
}

static void *receiver(void *arg)
{
	struct end *e = arg;
	unsigned char buf[5000];
	long at = 0;

	for (;;) {
		size_t n = 1 + mix(&e->rnd) % (mix(&e->rnd) % 8 ? 300 : sizeof buf - 1);
		struct iovec v[2] = {{buf, n / 2}, {buf + n / 2, n - n / 2}};
		ssize_t r;

		if (mix(&e->rnd) % 4 == 0)
			ready(e);
		switch (mix(&e->rnd) % 5) {
		case 0: r = read(e->fd, buf, n); break;
		case 1: r = readv(e->fd, v, 2); break;
		case 2: r = recv(e->fd, buf, n, 0); break;
		case 3: r = recv(e->fd, buf, n, MSG_DONTWAIT); break;
		default: r = recv(e->fd, buf, n, MSG_WAITALL); break;
		}
		if (r < 0 && errno == ENOTSOCK)
			r = read(e->fd, buf, n);
		if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
			struct pollfd p = {e->fd, POLLIN, 0};

			poll(&p, 1, -1);
			continue;
		}
		if (r < 0)
			bad("received", r, (long)n);
		if (r <= 0)
			break;
		for (ssize_t i = 0; i < r; i++)
			if (buf[i] != byte(e->key, at + i)) {
				bad("a byte", buf[i], byte(e->key, at + i));
				close(e->fd);
				return NULL;
			}
		at += r;
	}
	if (at != e->total)
		bad("bytes in all", at, e->total);
	bytes += at;
	close(e->fd);
	return NULL;
}

/* fd[0] to write, fd[1] to read. False: no descriptors now. */
static int build(int kind, int fd[2])
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int l, p[2];

	switch (kind) {
	case 0:
		if (pipe(p))
			return 0;
		fd[0] = p[1], fd[1] = p[0];
		return 1;
	case 1:
		return socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0;
	}
	l = socket(AF_INET, SOCK_STREAM, 0);
	if (l < 0)
		return 0;
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (fd[0] < 0 || bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 1) || getsockname(l, (struct sockaddr *)&a, &len) ||
	    connect(fd[0], (struct sockaddr *)&a, sizeof a) || (fd[1] = accept(l, NULL, NULL)) < 0) {
		if (fd[0] >= 0)
			close(fd[0]);
		close(l);
		return 0;
	}
	close(l);
	return 1;
}

static void *lane(void *arg)
{
	uint64_t s = (uintptr_t)arg;

	while (!stop) {
		struct timeval tv = {0, 3000};
		struct end in, out;
		pthread_t t;
		int fd[2];

		if (!build((int)(mix(&s) % 3), fd)) {
			usleep(1000);
			continue;
		}
		out = (struct end){.fd = fd[0], .rnd = s * 7 + 1, .key = s, .total = 1 + (long)(mix(&s) % MOST)};
		in = (struct end){.fd = fd[1], .rnd = s * 11 + 5, .key = out.key, .total = out.total};
		if (mix(&s) % 4 == 0)
			fcntl(fd[0], F_SETFL, O_NONBLOCK);
		if (mix(&s) % 4 == 0)
			fcntl(fd[1], F_SETFL, O_NONBLOCK);
		if (mix(&s) % 4 == 0)
			setsockopt(fd[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		if (create(&t, NULL, sender, &out)) {
			close(fd[0]);
			close(fd[1]);
			usleep(1000);
			continue;
		}
		receiver(&in);
		pthread_join(t, NULL);
		lives++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	double seconds = argc > 2 ? atof(argv[2]) : 3;
	pthread_t t[LANES];
	int n = 0;

	for (; n < LANES; n++)
		if (create(&t[n], NULL, lane, (void *)(uintptr_t)(seed * 1000003 + (uint64_t)n)))
			return 2;
	sleep_for(seconds);
	stop = 1;
	while (n > 0)
		pthread_join(t[--n], NULL);
	if (bytes == 0)
		bad("bytes", 0, 1);
	fprintf(stderr, "%ld bytes in %ld lives\n", (long)bytes, (long)lives);
	return verdict();
}
