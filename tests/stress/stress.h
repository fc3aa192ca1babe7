/* SPDX-License-Identifier: MIT */
/* What the stress programs share: a seeded generator, checks that say what did not hold, threads that may be refused. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

__attribute__((unused)) static _Atomic int stop;
static _Atomic int failures;

__attribute__((unused)) static void fail(const char *what)
{
	if (!failures++)
		printf("%s\n", what);
}

#define STR2(x) #x
#define STR(x) STR2(x)
#define HOLDS(cond)                                                                                                    \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			fail(__FILE__ ":" STR(__LINE__) ": does not hold: " #cond);                                    \
	} while (0)

__attribute__((unused)) static uint64_t mix(uint64_t *s)
{
	uint64_t z = (*s += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* EAGAIN is an answer that a program has to expect; this one asks again. */
static int create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
	int err, tries = 0;

	while ((err = pthread_create(t, a, fn, arg)) == EAGAIN && tries++ < 10000)
		sched_yield();
	return err;
}

__attribute__((unused)) static void sleep_for(double seconds)
{
	struct timespec ts = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

__attribute__((unused)) static struct timespec in_us(clockid_t clock, long us)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_nsec += us * 1000;
	ts.tv_sec += ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return ts;
}

__attribute__((unused)) static int verdict(void)
{
	puts(failures ? "failed" : "ok");
	return failures != 0;
}
