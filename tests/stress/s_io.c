/* SPDX-License-Identifier: MIT */
/*
 * s_io SEED SECONDS: streams of numbered bytes through pipes and socket pairs, written in pieces of random size and read by
 * read, readv, recv, poll, select or epoll before the read, one reader or several in turn under a mutex.  Each byte must be
 * the next of its sequence, and as many must come out as went in.  The last line is "ok".
 */
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "stress.h"

#define STREAMS 8
#define READERS 2

static struct stream {
	int in, out;
	uint64_t seed, written, taken;
	pthread_mutex_t lock; /* the readers' turn; taken */
} stream[STREAMS];

static unsigned char byte(const struct stream *s, uint64_t n)
{
	return (unsigned char)((n * 2654435761u + s->seed) >> 7);
}

static void *writer(void *arg)
{
	struct stream *s = arg;
	uint64_t rnd = s->seed;
	unsigned char buf[9000];

	while (!stop) {
		size_t n = mix(&rnd) % 3 ? 1 + mix(&rnd) % 300 : 1 + mix(&rnd) % sizeof buf;
		ssize_t r;

		for (size_t i = 0; i < n; i++)
			buf[i] = byte(s, s->written + i);
		r = write(s->in, buf, n);
		HOLDS(r == (ssize_t)n); /* a blocking write of a stream takes all */
		if (r < 0)
			break;
		s->written += (uint64_t)r;
		if (mix(&rnd) % 16 == 0)
			usleep((useconds_t)(mix(&rnd) % 500));
	}
	close(s->in);
	return NULL;
}

static void wait_first(struct stream *s, uint64_t *rnd)
{
	struct pollfd p = {s->out, POLLIN, 0};
	struct epoll_event ev = {.events = POLLIN};
	fd_set set;
	int ep;

	switch (mix(rnd) % 8) {
	case 0:
		HOLDS(poll(&p, 1, -1) == 1);
		break;
	case 1:
		FD_ZERO(&set);
		FD_SET(s->out, &set);
		HOLDS(select(s->out + 1, &set, NULL, NULL, NULL) == 1 && FD_ISSET(s->out, &set));
		break;
	case 2:
		ep = epoll_create1(0);
		HOLDS(epoll_ctl(ep, EPOLL_CTL_ADD, s->out, &ev) == 0);
		HOLDS(epoll_wait(ep, &ev, 1, -1) == 1);
		close(ep);
		break;
	case 3:
		HOLDS(poll(&p, 1, (int)(mix(rnd) % 3)) >= 0);
	}
}

static void *reader(void *arg)
{
	struct stream *s = arg;
	uint64_t rnd = s->seed ^ (uint64_t)(uintptr_t)&s;
	unsigned char buf[5000];
	struct iovec v[2] = {{buf, 100}, {buf + 100, sizeof buf - 100}};
	ssize_t r;

	do {
		pthread_mutex_lock(&s->lock);
		wait_first(s, &rnd);
		if (mix(&rnd) % 3 == 0)
			r = readv(s->out, v, 2);
		else
			r = read(s->out, buf, 1 + mix(&rnd) % sizeof buf);
		HOLDS(r >= 0);
		for (ssize_t i = 0; i < r; i++)
			if (buf[i] != byte(s, s->taken + (uint64_t)i)) {
				fail("a byte out of order");
				break;
			}
		s->taken += r > 0 ? (uint64_t)r : 0;
		pthread_mutex_unlock(&s->lock);
	} while (r > 0);
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, bytes = 0;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	pthread_t t[STREAMS * (1 + READERS)];
	int n = 0, fd[2];

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < STREAMS; i++) {
		struct stream *s = &stream[i];

		if (i % 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, fd) : pipe(fd))
			return 2;
		s->in = fd[1];
		s->out = fd[0];
		s->seed = seed * 31 + (uint64_t)i;
		pthread_mutex_init(&s->lock, NULL);
		if (create(&t[n++], NULL, writer, s))
			return 2;
		for (int k = 0; k < READERS; k++)
			if (create(&t[n++], NULL, reader, s))
				return 2;
	}
	sleep_for(seconds);
	stop = 1;
	for (int i = 0; i < n; i++)
		HOLDS(pthread_join(t[i], NULL) == 0);
	for (int i = 0; i < STREAMS; i++) {
		HOLDS(stream[i].written == stream[i].taken);
		bytes += stream[i].taken;
	}
	fprintf(stderr, "%llu bytes\n", (unsigned long long)bytes);
	return verdict();
}
