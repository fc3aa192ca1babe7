/* SPDX-License-Identifier: MIT */
/*
 * s_start SEED SECONDS: processes that are interrupted by a signal in the moment in which they make their first thread, and end soon
 * after.  They must end by themselves.  A failure is one line; the last line is "ok".
 */
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "stress.h"

static volatile sig_atomic_t over;

static void on_alarm(int sig)
{
	(void)sig;
	over++;
}

static void *nothing(void *arg)
{
	return arg;
}

static void child(unsigned r)
{
	struct itimerval it = {{0, 0}, {0, (long)(1 + r % 700)}};
	struct sigaction sa = {.sa_handler = on_alarm};
	pthread_t t;

	if (r & 1024)
		it.it_interval.tv_usec = 50;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &it, NULL);
	while (!over)
		if (create(&t, NULL, nothing, NULL) || pthread_join(t, NULL))
			_exit(3);
	exit(0);
}

int main(int argc, char **argv)
{
	uint64_t s = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	time_t end = time(NULL) + (argc > 2 ? atoi(argv[2]) : 3);
	int n = 0;

	while (time(NULL) < end) {
		pid_t pid;
		int st;

		s = s * 6364136223846793005u + 1442695040888963407u;
		fflush(stdout);
		pid = fork();
		if (pid == 0)
			child((unsigned)(s >> 33));
		if (pid < 0 || waitpid(pid, &st, 0) != pid || st != 0) {
			printf("s_start: process %d, number %u: status %#x\n", n, (unsigned)(s >> 33), pid < 0 ? -1 : st);
			if (++failures > 10)
				break;
		}
		n++;
	}
	fprintf(stderr, "%d processes\n", n);
	return verdict();
}
