/* SPDX-License-Identifier: MIT */
/*
 * s_cancel SEED SECONDS: threads cancelled at random times in everything that is a cancellation point.  Each must
 * end as PTHREAD_CANCELED (or by itself when it was faster), run its cleanup handlers once, innermost first, and hold
 * no lock; a thread with cancellation disabled must come through.  The last line is "ok".
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

#define LANES 6
#define BATCH 12

static _Atomic long cancelled, finished;
static int silent[2]; /* a pipe into which nobody writes */
static int quiet[2];  /* a socket pair, likewise */

struct victim {
	pthread_t thread;
	int what;
	int delay_us;
	int order;         /* cleanup handlers run so far */
	int outer, inner;  /* at which place each ran */
	int got_through;   /* the disabled part was left normally */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	sem_t sem;
};

static void *sleeper(void *arg)
{
	(void)arg;
	nanosleep(&(struct timespec){0, 3000000}, NULL);
	return NULL;
}

static void outer(void *arg)
{
	struct victim *v = arg;

	v->outer = ++v->order;
}

static void inner(void *arg)
{
	struct victim *v = arg;

	v->inner = ++v->order;
}

static void unlock(void *arg)
{
	struct victim *v = arg;

	HOLDS(pthread_mutex_unlock(&v->lock) == 0);
}

static void wait_somehow(struct victim *v)
{
	struct pollfd p = {silent[0], POLLIN, 0};
	fd_set set;
	pthread_t t;
	char c;
	int old;

	switch (v->what) {
	case 0:
		(void)!read(silent[0], &c, 1);
		break;
	case 1:
		recv(quiet[0], &c, 1, 0);
		break;
	case 2:
		pthread_mutex_lock(&v->lock);
		pthread_cleanup_push(unlock, v);
		for (;;)
			pthread_cond_wait(&v->cond, &v->lock);
		pthread_cleanup_pop(1);
		break;
	case 3:
		while (sem_wait(&v->sem))
			;
		break;
	case 4:
		nanosleep(&(struct timespec){100, 0}, NULL);
		break;
	case 5:
		poll(&p, 1, -1);
		break;
	case 6:
		FD_ZERO(&set);
		FD_SET(silent[0], &set);
		select(silent[0] + 1, &set, NULL, NULL, NULL);
		break;
	case 7:
		for (;;)
			pthread_testcancel();
		break;
	case 8:
		/* disabled while it waits, then at the next point */
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
		nanosleep(&(struct timespec){0, 1000000}, NULL);
		v->got_through = 1;
		pthread_setcancelstate(old, NULL);
		for (;;)
			usleep(1000);
		break;
	case 9:
		/* join is one as well; the joined thread can be joined by somebody else then: leave it to end */
		if (create(&t, NULL, sleeper, NULL) == 0) {
			pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
			HOLDS(pthread_join(t, NULL) == 0);
			v->got_through = 1;
			pthread_setcancelstate(old, NULL);
		}
		pause();
		break;
	case 10: {
		struct timespec at;

		clock_gettime(CLOCK_REALTIME, &at);
		at.tv_sec += 100;
		pthread_mutex_lock(&v->lock);
		pthread_cleanup_push(unlock, v);
		while (pthread_cond_timedwait(&v->cond, &v->lock, &at) == 0)
			;
		pthread_cleanup_pop(1);
		break;
	}
	case 11:
		/* ends by itself, perhaps before the cancellation comes */
		nanosleep(&(struct timespec){0, 50000}, NULL);
		v->got_through = 1;
		break;
	}
}

static void *victim(void *arg)
{
	struct victim *v = arg;

	pthread_cleanup_push(outer, v);
	pthread_cleanup_push(inner, v);
	wait_somehow(v);
	pthread_cleanup_pop(1);
	pthread_cleanup_pop(1);
	return v;
}

static void *lane(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;

	while (!stop) {
		struct victim v[BATCH] = {0};

		for (int i = 0; i < BATCH; i++) {
			v[i].what = (int)(mix(&rnd) % 12);
			v[i].delay_us = (int)(mix(&rnd) % 3 ? mix(&rnd) % 400 : 0);
			pthread_mutex_init(&v[i].lock, NULL);
			pthread_cond_init(&v[i].cond, NULL);
			sem_init(&v[i].sem, 0, 0);
			if (create(&v[i].thread, NULL, victim, &v[i])) {
				fail("no thread");
				return NULL;
			}
		}
		for (int i = 0; i < BATCH; i++) {
			if (v[i].delay_us)
				usleep((useconds_t)v[i].delay_us);
			int err = pthread_cancel(v[i].thread);
			HOLDS(err == 0 || err == ESRCH);
		}
		for (int i = 0; i < BATCH; i++) {
			void *ret;

			HOLDS(pthread_join(v[i].thread, &ret) == 0);
			if (ret == PTHREAD_CANCELED)
				cancelled++;
			else {
				HOLDS(ret == &v[i] && v[i].what == 11 && v[i].got_through);
				finished++;
			}
			HOLDS(v[i].order == 2 && v[i].inner == 1 && v[i].outer == 2);
			HOLDS(pthread_mutex_trylock(&v[i].lock) == 0);
			pthread_mutex_unlock(&v[i].lock);
			pthread_mutex_destroy(&v[i].lock);
			HOLDS(pthread_cond_destroy(&v[i].cond) == 0);
			sem_destroy(&v[i].sem);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	pthread_t t[LANES];

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	if (pipe(silent) || socketpair(AF_UNIX, SOCK_STREAM, 0, quiet))
		return 2;
	for (uint64_t i = 0; i < LANES; i++)
		if (create(&t[i], NULL, lane, (void *)(uintptr_t)(seed * 977 + i)))
			return 2;
	nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
	stop = 1;
	for (int i = 0; i < LANES; i++)
		pthread_join(t[i], NULL);
	fprintf(stderr, "%ld cancelled, %ld were faster\n", (long)cancelled, (long)finished);
	puts(failures ? "failed" : "ok");
	return failures != 0;
}
