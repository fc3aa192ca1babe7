/* SPDX-License-Identifier: MIT */
/*
 * s_fork SEED SECONDS: threads fork and spawn while others lock, allocate, print, sleep and wait on pipes.  A child
 * allocates, takes the lock that the atfork handlers guard, waits on a pipe, makes threads of its own, may fork again,
 * and ends with a status that its parent expects.  The last line is "ok".
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

#define FORKERS 4
#define OTHERS 8

extern char **environ;

static _Atomic long forks;
static pthread_mutex_t guarded = PTHREAD_MUTEX_INITIALIZER; /* held by prepare, let go by parent and child */
static long guarded_pair[2];
static int ring[2];

static void prepare(void)
{
	pthread_mutex_lock(&guarded);
}

static void release(void)
{
	pthread_mutex_unlock(&guarded);
}

static void *grandchild(void *arg)
{
	int *fd = arg;
	char c;

	return (void *)(uintptr_t)(read(fd[0], &c, 1) == 1 ? (unsigned char)c : 1000u);
}

/* In the child.  What it returns is its exit status; 0 to 99 is what was asked for, more says what went wrong. */
static int live(int want, uint64_t rnd, int depth)
{
	int p[2];
	char c = (char)want;
	void *ret;
	pthread_t t[3];

	for (int i = 0; i < 20; i++) {
		size_t n = 1 + mix(&rnd) % 5000;
		char *m = malloc(n);

		if (!m)
			return 101;
		memset(m, i, n);
		free(m);
	}
	pthread_mutex_lock(&guarded);
	int equal = guarded_pair[0] == guarded_pair[1];
	pthread_mutex_unlock(&guarded);
	if (!equal)
		return 102;
	if (pipe(p))
		return 103;
	if (mix(&rnd) % 2) {
		for (int i = 0; i < 3; i++)
			if (create(&t[i], NULL, grandchild, p))
				return 104;
		usleep((useconds_t)(mix(&rnd) % 300));
		if (write(p[1], (char[3]){c, c, c}, 3) != 3)
			return 105;
		for (int i = 0; i < 3; i++)
			if (pthread_join(t[i], &ret) || ret != (void *)(uintptr_t)want)
				return 106;
	}
	if (depth == 0 && mix(&rnd) % 3 == 0) {
		int status;
		pid_t pid = fork();

		if (pid == 0)
			_exit(live(want, mix(&rnd), 1));
		if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != want)
			return 107;
	}
	return want;
}

static void *forker(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;

	while (!stop) {
		int want = (int)(mix(&rnd) % 100), status = -1;
		pid_t pid;

		if (mix(&rnd) % 5 == 0) {
			char word[16];
			char *argv[] = {"sh", "-c", word, NULL};

			snprintf(word, sizeof word, "exit %d", want);
			HOLDS(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) == 0);
		} else {
			pid = fork();
			if (pid == 0)
				_exit(live(want, mix(&rnd), 0));
		}
		HOLDS(pid > 0);
		if (pid <= 0)
			break;
		HOLDS(waitpid(pid, &status, 0) == pid);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != want) {
			fprintf(stderr, "status %#x, wanted %d\n", (unsigned)status, want);
			fail("a child ended otherwise");
		}
		forks++;
	}
	return NULL;
}

static void *other(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;
	uint64_t v;

	while (!stop) {
		switch (mix(&rnd) % 5) {
		case 0:
			pthread_mutex_lock(&guarded);
			guarded_pair[0]++;
			if (mix(&rnd) % 4 == 0)
				sched_yield();
			guarded_pair[1]++;
			pthread_mutex_unlock(&guarded);
			break;
		case 1:
			for (int i = 0; i < 10; i++)
				free(malloc(mix(&rnd) % 20000));
			break;
		case 2:
			nanosleep(&(struct timespec){0, (long)(mix(&rnd) % 500000)}, NULL);
			break;
		case 3:
			HOLDS(read(ring[0], &v, sizeof v) == sizeof v);
			HOLDS(v < 4);
			HOLDS(write(ring[1], &v, sizeof v) == sizeof v);
			break;
		default: {
			char line[64];
			FILE *f = fopen("/dev/null", "w");

			HOLDS(f != NULL);
			if (f) {
				fprintf(f, "%llu\n", (unsigned long long)rnd);
				fclose(f);
			}
			snprintf(line, sizeof line, "%.3f", (double)(rnd & 0xffff));
		}
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	pthread_t t[FORKERS + OTHERS];

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	setvbuf(stdout, NULL, _IOLBF, 0);
	pthread_atfork(prepare, release, release);
	if (pipe(ring))
		return 2;
	for (uint64_t i = 0; i < 4; i++)
		if (write(ring[1], &i, sizeof i) != sizeof i)
			return 2;
	for (uint64_t i = 0; i < FORKERS + OTHERS; i++)
		if (create(&t[i], NULL, i < FORKERS ? forker : other, (void *)(uintptr_t)(seed * 7919 + i)))
			return 2;
	nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
	stop = 1;
	for (int i = 0; i < FORKERS + OTHERS; i++)
		HOLDS(pthread_join(t[i], NULL) == 0);
	HOLDS(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
	fprintf(stderr, "%ld children\n", (long)forks);
	puts(failures ? "failed" : "ok");
	return failures != 0;
}
