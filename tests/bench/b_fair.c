/* SPDX-License-Identifier: MIT */
/*
 * How long does an innocent thread wait while others are busy?
 *
 *   b_fair [-d SECONDS] [-n THREADS] LOAD INNOCENT
 *
 * LOAD: none, pingpong (pairs that hand a token to each other), yield, flood (threads that are created and end), net (connections that
 * echo without a pause), mutex (all for one), timers (sleeps of microseconds), spin.
 * INNOCENT: sleep (2 ms at a time: how late does it wake), yield (how long is it away), wake (it waits for a condition variable that a
 * partner, woken by it, signals at once: how long does the round trip take), net (one byte to and fro).
 *
 * Prints one line: rounds, the median, 99th percentile and worst delay of the innocent in ms, and what the load got done.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1 << 20, MAXTHREADS = 1024 };

static _Atomic bool stop;
static _Atomic long work;
static int nthreads = 8;

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, arg)) {
		fprintf(stderr, "b_fair: no more threads\n");
		exit(1);
	}
	return t;
}

/* -- loads ------------------------------------------------------------------------------------------------------------------ */

struct token {
	pthread_mutex_t m;
	pthread_cond_t c;
	int turn;
};

static void *ping(void *arg)
{
	struct token *t = (struct token *)((uintptr_t)arg & ~1ul);
	int me = (uintptr_t)arg & 1;

	pthread_mutex_lock(&t->m);
	while (!stop) {
		while (t->turn != me && !stop)
			pthread_cond_wait(&t->c, &t->m);
		t->turn = !me;
		work++;
		pthread_cond_signal(&t->c);
	}
	pthread_cond_broadcast(&t->c);
	pthread_mutex_unlock(&t->m);
	return NULL;
}

static void *yielder(void *arg)
{
	while (!stop) {
		sched_yield();
		work++;
	}
	return arg;
}

static void *nothing(void *arg)
{
	return arg;
}

static void *flooder(void *arg)
{
	while (!stop) {
		pthread_t t[16];

		for (int i = 0; i < 16; i++)
			t[i] = start(nothing, NULL);
		for (int i = 0; i < 16; i++)
			pthread_join(t[i], NULL);
		work += 16;
	}
	return arg;
}

static void *echoer(void *arg)
{
	int *fd = arg;
	char buf[64] = {0};

	while (!stop) {
		if (send(fd[0], buf, sizeof buf, MSG_NOSIGNAL) != sizeof buf || recv(fd[0], buf, sizeof buf, 0) <= 0)
			break;
		work++;
	}
	shutdown(fd[0], SHUT_RDWR);
	return NULL;
}

static void *echoed(void *arg)
{
	int *fd = arg;
	char buf[64];
	ssize_t n;

	while ((n = recv(fd[1], buf, sizeof buf, 0)) > 0)
		send(fd[1], buf, (size_t)n, MSG_NOSIGNAL);
	return NULL;
}

static pthread_mutex_t hot = PTHREAD_MUTEX_INITIALIZER;
static volatile long hot_value;

static void *locker(void *arg)
{
	while (!stop) {
		pthread_mutex_lock(&hot);
		for (int i = 0; i < 50; i++)
			hot_value++;
		pthread_mutex_unlock(&hot);
		work++;
	}
	return arg;
}

static void *sleeper(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!stop) {
		struct timespec ts = {0, rand_r(&seed) % 20000};

		nanosleep(&ts, NULL);
		work++;
	}
	return arg;
}

static void *spinner(void *arg)
{
	while (!stop)
		for (int i = 0; i < 1000; i++)
			__asm__ volatile("");
	return arg;
}

/* -- the innocent ---------------------------------------------------------------------------------------------------------- */

static int64_t *delays;
static long rounds;
static sem_t there, back;
static _Atomic bool innocent_ended;
static int pairfd[2];

static void *partner(void *arg)
{
	for (;;) {
		sem_wait(&there);
		if (innocent_ended)
			return arg;
		sem_post(&back);
	}
}

static void *net_partner(void *arg)
{
	char c;

	while (recv(pairfd[1], &c, 1, 0) == 1)
		send(pairfd[1], &c, 1, MSG_NOSIGNAL);
	return arg;
}

static void *innocent(void *arg)
{
	const char *how = arg;
	pthread_t p = 0;
	char c = 'x';

	if (!strcmp(how, "wake")) {
		sem_init(&there, 0, 0);
		sem_init(&back, 0, 0);
		p = start(partner, NULL);
	} else if (!strcmp(how, "net")) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pairfd))
			exit(1);
		p = start(net_partner, NULL);
	}
	while (!stop && rounds < MOST) {
		int64_t t = now(), least = 0;

		if (!strcmp(how, "sleep")) {
			struct timespec ts = {0, 2000000};

			least = 2000000;
			nanosleep(&ts, NULL);
		} else if (!strcmp(how, "yield")) {
			sched_yield();
		} else if (!strcmp(how, "wake")) {
			sem_post(&there);
			sem_wait(&back);
		} else if (send(pairfd[0], &c, 1, MSG_NOSIGNAL) != 1 || recv(pairfd[0], &c, 1, 0) != 1) {
			break;
		}
		delays[rounds++] = now() - t - least;
	}
	innocent_ended = true;
	if (!strcmp(how, "wake"))
		sem_post(&there);
	else if (p)
		shutdown(pairfd[0], SHUT_RDWR);
	if (p)
		pthread_join(p, NULL);
	return NULL;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	static struct token tokens[MAXTHREADS];
	static int fds[MAXTHREADS][2];
	pthread_t t[MAXTHREADS * 2], i;
	double seconds = 2;
	const char *load;
	int opt, n = 0;

	while ((opt = getopt(argc, argv, "d:n:")) != -1)
		switch (opt) {
		case 'd': seconds = atof(optarg); break;
		case 'n': nthreads = atoi(optarg); break;
		default: return 2;
		}
	if (argc - optind != 2 || nthreads < 1 || nthreads > MAXTHREADS)
		return fprintf(stderr, "b_fair [-d SECONDS] [-n THREADS] LOAD INNOCENT\n"), 2;
	load = argv[optind];
	delays = calloc(MOST, sizeof *delays);
	for (int k = 0; k < nthreads && strcmp(load, "none"); k++) {
		if (!strcmp(load, "pingpong")) {
			pthread_mutex_init(&tokens[k].m, NULL);
			pthread_cond_init(&tokens[k].c, NULL);
			t[n++] = start(ping, &tokens[k]);
			t[n++] = start(ping, (void *)((uintptr_t)&tokens[k] | 1));
		} else if (!strcmp(load, "yield")) {
			t[n++] = start(yielder, NULL);
		} else if (!strcmp(load, "flood")) {
			t[n++] = start(flooder, NULL);
		} else if (!strcmp(load, "net")) {
			if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds[k]))
				return 1;
			t[n++] = start(echoed, fds[k]);
			t[n++] = start(echoer, fds[k]);
		} else if (!strcmp(load, "mutex")) {
			t[n++] = start(locker, NULL);
		} else if (!strcmp(load, "timers")) {
			t[n++] = start(sleeper, (void *)(uintptr_t)k);
		} else if (!strcmp(load, "spin")) {
			t[n++] = start(spinner, NULL);
		} else {
			return fprintf(stderr, "b_fair: no load %s\n", load), 2;
		}
	}
	usleep(50000);
	i = start(innocent, argv[optind + 1]);
	for (int64_t end = now() + (int64_t)(seconds * 1e9); now() < end;)
		usleep(50000);
	stop = true;
	pthread_join(i, NULL);
	for (int k = 0; k < n; k++)
		pthread_join(t[k], NULL);
	qsort(delays, (size_t)rounds, sizeof *delays, compare);
	if (!rounds)
		return fprintf(stderr, "b_fair: the innocent got nowhere\n"), 1;
	printf("load=%s innocent=%s threads=%d rounds=%ld median=%.4f p99=%.4f worst=%.4f work=%ld\n", load, argv[optind + 1], nthreads,
	       rounds, (double)delays[rounds / 2] / 1e6, (double)delays[rounds * 99 / 100] / 1e6, (double)delays[rounds - 1] / 1e6,
	       (long)work);
	return 0;
}
