/* SPDX-License-Identifier: MIT */
/*
 * An idle process stays idle: threads wait in everything, and a child, forked before there were any, counts from outside how often
 * all OS threads of this process were switched to over some seconds.  More than one a second for the process is too much, and so is
 * CPU time; some are allowed on top for what happens to come from elsewhere.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS = 4, EXTRA = 4, EACH = 8 };

static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static sem_t s;
static int lfd, sv[2], pipefd[2], ep;

static void *w_cond(void *arg)
{
	pthread_mutex_lock(&m);
	pthread_cond_wait(&c, &m);
	return arg;
}

static void *w_timed(void *arg)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 3600;
	pthread_mutex_lock(&m);
	pthread_cond_timedwait(&c, &m, &ts);
	return arg;
}

static void *w_sem(void *arg)
{
	sem_wait(&s);
	return arg;
}

static void *w_accept(void *arg)
{
	accept(lfd, NULL, NULL);
	return arg;
}

static void *w_recv(void *arg)
{
	char b;

	recv(sv[0], &b, 1, 0);
	return arg;
}

static void *w_read(void *arg)
{
	char b;

	if (read(pipefd[0], &b, 1) < 0)
		return NULL;
	return arg;
}

static void *w_poll(void *arg)
{
	struct pollfd p[2] = {{sv[1], POLLIN, 0}, {lfd, POLLIN, 0}};

	poll(p, 2, 3600 * 1000);
	return arg;
}

static void *w_epoll(void *arg)
{
	struct epoll_event ev;

	epoll_wait(ep, &ev, 1, -1);
	return arg;
}

static void *w_sleep(void *arg)
{
	sleep(3600);
	return arg;
}

static long switches(const char *dir, int *threads)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	long sum = 0;

	*threads = 0;
	while (d && (e = readdir(d))) {
		char path[300], line[200];
		FILE *f;

		snprintf(path, sizeof path, "%s/%s/status", dir, e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!f)
			continue;
		++*threads;
		while (fgets(line, sizeof line, f))
			if (strstr(line, "voluntary_ctxt_switches:")) /* nonvoluntary ones as well */
				sum += atol(strchr(line, ':') + 1);
		fclose(f);
	}
	if (d)
		closedir(d);
	return sum;
}

/* The child: waits for the word, counts, tells by its exit status. */
static int watch(int word)
{
	char dir[64], b;
	long before, n = 0;
	int t1, t2;

	snprintf(dir, sizeof dir, "/proc/%d/task", (int)getppid());
	if (read(word, &b, 1) != 1)
		return 2;
	/* What has only just gone idle may have something to put away: up to some ten seconds. */
	for (int i = 0; i < 5; i++) {
		before = switches(dir, &t1);
		sleep(SECONDS);
		n = switches(dir, &t2) - before;
		if (t1 == t2 && n <= SECONDS + EXTRA)
			return 0;
		fprintf(stderr, "%ld switches in %d seconds, OS threads %d, then %d\n", n, SECONDS, t1, t2);
	}
	return 1;
}

int main(void)
{
	static void *(*const fns[])(void *) = {w_cond, w_timed, w_sem, w_accept, w_recv, w_read, w_poll, w_epoll, w_sleep};
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct epoll_event ev = {.events = EPOLLIN};
	int word[2], st;
	pthread_t t;
	pid_t pid;

	if (pipe(word) || pipe(pipefd) || socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
		return 3;
	pid = fork();
	if (pid == 0) {
		close(word[1]);
		_exit(watch(word[0]));
	}
	sem_init(&s, 0, 0);
	lfd = socket(AF_INET, SOCK_STREAM, 0);
	ep = epoll_create1(0);
	if (bind(lfd, (struct sockaddr *)&here, sizeof here) || listen(lfd, 5) || epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &ev))
		return 3;
	for (size_t i = 0; i < sizeof fns / sizeof *fns; i++)
		for (int k = 0; k < EACH; k++)
			if (pthread_create(&t, NULL, fns[i], NULL))
				return 3;
	usleep(300000);
	if (write(word[1], "x", 1) != 1 || waitpid(pid, &st, 0) != pid)
		return 3;
	printf("%s\n", st == 0 ? "ok idle" : "FAILED idle");
	return st != 0;
}
