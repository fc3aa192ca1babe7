/* SPDX-License-Identifier: MIT */
/*
 * s_signal SEED SECONDS: signals at random into threads that wait in everything.  SIGUSR1 (not queued) interrupts; queued
 * real-time signals carry a number for one thread, and each must arrive there once and in order.  The last line is "ok".
 */
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>

#include "stress.h"

#define THREADS 8
#define QUEUED (SIGRTMIN + 2)

static struct target {
	pthread_t thread;
	uint64_t rnd, sent; /* the sender's */
	_Atomic uint64_t got;
	_Atomic int done;
} target[THREADS];

static __thread struct target *me;
static int silent[2], own[2];
static _Atomic int ready;
static sem_t never;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static _Atomic long others;
static uint64_t wrong[2];
static int wrong_how;

/* What thread me got: not the next one means lost, twice, out of order or another thread's. */
static void arrives(uint64_t n, int how)
{
	if (n != me->got && !failures++) {
		wrong[0] = n;
		wrong[1] = me->got;
		wrong_how = how;
	}
	me->got++;
}

static void queued(int sig, siginfo_t *info, void *uc)
{
	(void)sig;
	(void)uc;
	arrives((uint64_t)(uintptr_t)info->si_value.sival_ptr, 'h');
}

static void plain(int sig)
{
	(void)sig;
	others++;
}

static void *waiter(void *arg)
{
	struct pollfd p = {silent[0], POLLIN, 0};
	struct timespec ts;
	sigset_t set, old;
	siginfo_t info;
	char c;

	me = arg;
	ready++;
	sigemptyset(&set);
	sigaddset(&set, QUEUED);
	while (!me->done) {
		long us = (long)(mix(&me->rnd) % 600);

		ts = in_us(CLOCK_REALTIME, us);
		switch (mix(&me->rnd) % 9) {
		case 0: HOLDS(poll(&p, 1, (int)(us / 300)) == 0 || errno == EINTR); break;
		case 1: HOLDS(sem_timedwait(&never, &ts) == -1 && (errno == ETIMEDOUT || errno == EINTR)); break;
		case 2: usleep((useconds_t)us); break;
		case 3: HOLDS(ppoll(&p, 1, &(struct timespec){0, us * 1000}, NULL) == 0 || errno == EINTR); break;
		case 4:
			pthread_mutex_lock(&lock);
			int err = pthread_cond_timedwait(&cond, &lock, &ts);
			pthread_mutex_unlock(&lock);
			HOLDS(err == 0 || err == ETIMEDOUT);
			break;
		case 5: /* blocked for a while: they queue, and come when it ends */
			pthread_sigmask(SIG_BLOCK, &set, &old);
			usleep((useconds_t)us);
			pthread_sigmask(SIG_SETMASK, &old, NULL);
			break;
		case 6: /* or are taken by hand */
			pthread_sigmask(SIG_BLOCK, &set, &old);
			if (sigtimedwait(&set, &info, &(struct timespec){0, us * 1000}) == QUEUED) {
				arrives((uint64_t)(uintptr_t)info.si_value.sival_ptr, 'w');
			}
			pthread_sigmask(SIG_SETMASK, &old, NULL);
			break;
		case 7: /* a byte in and one out: whose, does not matter */
			if (write(own[1], "x", 1) == 1)
				HOLDS(read(own[0], &c, 1) == 1);
			break;
		default:
			for (volatile long i = us * 20; i > 0; i--)
				;
		}
	}
	return NULL;
}

static void *sender(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;

	while (!stop) {
		struct target *t = &target[mix(&rnd) % THREADS];

		if (mix(&rnd) % 3 == 0) {
			HOLDS(pthread_kill(t->thread, SIGUSR1) == 0);
		} else if (mix(&rnd) % 16 == 0) {
			HOLDS(kill(getpid(), SIGUSR1) == 0);
		} else if (t->sent - t->got < 100) {
			union sigval v = {.sival_ptr = (void *)(uintptr_t)t->sent};
			if (pthread_sigqueue(t->thread, QUEUED, v) == 0)
				t->sent++;
		}
		if (mix(&rnd) % 4 == 0)
			usleep((useconds_t)(mix(&rnd) % 200));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, got = 0;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	struct sigaction q = {.sa_sigaction = queued, .sa_flags = SA_SIGINFO | SA_RESTART}, u = {.sa_handler = plain, .sa_flags = SA_RESTART};
	pthread_t s;

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	if (pipe(silent) || pipe(own))
		return 2;
	sem_init(&never, 0, 0);
	sigaction(QUEUED, &q, NULL);
	sigaction(SIGUSR1, &u, NULL);
	for (uint64_t i = 0; i < THREADS; i++) {
		target[i].rnd = seed * 389 + i;
		if (create(&target[i].thread, NULL, waiter, &target[i]))
			return 2;
	}
	while (ready < THREADS)
		usleep(100);
	if (create(&s, NULL, sender, (void *)(uintptr_t)seed))
		return 2;
	sleep_for(seconds);
	stop = 1;
	pthread_join(s, NULL);
	for (int i = 0; i < THREADS; i++) {
		while (target[i].got != target[i].sent && !failures) /* what was sent comes */
			usleep(100);
		target[i].done = 1;
		HOLDS(pthread_join(target[i].thread, NULL) == 0);
		got += target[i].got;
	}
	fprintf(stderr, "%llu queued, %ld others\n", (unsigned long long)got, (long)others);
	if (wrong_how)
		printf("number %llu came where %llu was to come, by %s\n", (unsigned long long)wrong[0], (unsigned long long)wrong[1],
		       wrong_how == 'w' ? "sigtimedwait" : "a handler");
	return verdict();
}
