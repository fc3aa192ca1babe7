/* SPDX-License-Identifier: MIT */
/*
 * s_exec SEED SECONDS: fork and exec, vfork and exec, posix_spawn, system and popen, all at once, while other threads are
 * parked in everything.  Each child sends its number through a pipe and ends with a status; both must be right.
 * The last line is "ok".
 */
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "stress.h"

#define MAKERS 3
#define PARKED 6

extern char **environ;
static int silent[2];
static sem_t never;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static _Atomic long children;

static void *parked(void *arg)
{
	struct pollfd p = {silent[0], POLLIN, 0};
	char c;

	switch ((uintptr_t)arg % 5) {
	case 0: HOLDS(read(silent[0], &c, 1) == 1); break;
	case 1: HOLDS(sem_wait(&never) == 0); break;
	case 2:
		pthread_mutex_lock(&lock);
		while (!stop)
			pthread_cond_wait(&cond, &lock);
		pthread_mutex_unlock(&lock);
		break;
	case 3: HOLDS(poll(&p, 1, -1) == 1); break;
	default:
		while (!stop)
			usleep(300);
	}
	return NULL;
}

static void one(uint64_t *rnd)
{
	int n = (int)(mix(rnd) % 100), fd[2], status = -1, how = (int)(mix(rnd) % 5);
	char text[64], buf[16] = "";
	char *argv[] = {"/bin/sh", "-c", text, NULL};
	posix_spawn_file_actions_t fa;
	ssize_t got = 0, r;
	FILE *f;
	pid_t pid = -1;

	if (how == 4) {
		snprintf(text, sizeof text, "exit %d", n);
		status = system(text);
		HOLDS(WIFEXITED(status) && WEXITSTATUS(status) == n);
		children++;
		return;
	}
	snprintf(text, sizeof text, "echo %d; exit %d", n, n);
	if (how == 3) {
		f = popen(text, "re");
		HOLDS(f != NULL);
		if (f) {
			HOLDS(fgets(buf, sizeof buf, f) && atoi(buf) == n);
			status = pclose(f);
			HOLDS(WIFEXITED(status) && WEXITSTATUS(status) == n);
		}
		children++;
		return;
	}
	if (pipe2(fd, O_CLOEXEC)) {
		fail("no pipe");
		return;
	}
	switch (how) {
	case 0:
	case 1:
		pid = how ? vfork() : fork();
		if (pid == 0) {
			dup2(fd[1], 1);
			execv(argv[0], argv);
			_exit(111);
		}
		break;
	default:
		posix_spawn_file_actions_init(&fa);
		posix_spawn_file_actions_adddup2(&fa, fd[1], 1);
		HOLDS(posix_spawn(&pid, argv[0], &fa, NULL, argv, environ) == 0);
		posix_spawn_file_actions_destroy(&fa);
	}
	close(fd[1]);
	HOLDS(pid > 0);
	while (got < (ssize_t)sizeof buf - 1 && (r = read(fd[0], buf + got, sizeof buf - 1 - (size_t)got)) > 0)
		got += r;
	HOLDS(got > 0 && atoi(buf) == n);
	close(fd[0]);
	HOLDS(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == n);
	children++;
}

static void *maker(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;

	while (!stop)
		one(&rnd);
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	pthread_t t[MAKERS + PARKED];

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	if (pipe2(silent, O_CLOEXEC))
		return 2;
	sem_init(&never, 0, 0);
	for (uint64_t i = 0; i < MAKERS + PARKED; i++)
		if (create(&t[i], NULL, i < MAKERS ? maker : parked, (void *)(uintptr_t)(i < MAKERS ? seed * 523 + i : i)))
			return 2;
	sleep_for(seconds);
	stop = 1;
	for (int i = 0; i < MAKERS; i++)
		HOLDS(pthread_join(t[i], NULL) == 0);
	pthread_mutex_lock(&lock);
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < PARKED; i++)
		sem_post(&never);
	HOLDS(write(silent[1], "xxxxxxxxxxxxxxxx", 16) == 16);
	for (int i = MAKERS; i < MAKERS + PARKED; i++)
		HOLDS(pthread_join(t[i], NULL) == 0);
	fprintf(stderr, "%ld children\n", (long)children);
	return verdict();
}
