/* SPDX-License-Identifier: MIT */
/*
 * For the programs t_nostall*: one thread is inside a call for as long as the first thread wants, and another counts meanwhile.  With
 * one processor the counter gets on only if the call gave it away.  The first thread waits for the counter, then lets the call go
 * on, and looks whether it had really lasted until then.  A call that keeps the others waiting makes the program hang.
 */
#ifndef NOSTALL_H
#define NOSTALL_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct nostall {
	const char *name;
	void (*setup)(void);
	int (*call)(void);     /* in the thread; true: it answered as it should */
	void (*release)(void); /* by the first thread; what it does ends the call */
	void (*after)(void);   /* when the thread has ended */
};

static atomic_int inside, left, counted;
static pthread_t blocker; /* the thread in the call */
static int failed;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static void nap(long us)
{
	struct timespec ts = { 0, us * 1000 };

	nanosleep(&ts, NULL);
}

static void *blocked(void *arg)
{
	const struct nostall *c = arg;
	int ok;

	atomic_store(&inside, 1);
	ok = c->call();
	atomic_store(&left, 1);
	return (void *)(long)ok;
}

static void *counter(void *arg)
{
	(void)arg;
	for (int i = 0; i < 50; i++) {
		atomic_fetch_add(&counted, 1);
		sched_yield();
	}
	nap(1000);
	return NULL;
}

static void one(const struct nostall *c)
{
	pthread_t t;
	void *ok;
	int early;

	inside = left = counted = 0;
	if (c->setup)
		c->setup();
	if (pthread_create(&blocker, NULL, blocked, (void *)c))
		die("pthread_create");
	while (!atomic_load(&inside))
		sched_yield();
	nap(2000); /* so that it is inside most of the time; if not yet, this run asks less */
	if (pthread_create(&t, NULL, counter, NULL) || pthread_join(t, NULL))
		die("counter");
	early = atomic_load(&left);
	c->release();
	pthread_join(blocker, &ok);
	if (c->after)
		c->after();
	printf("%s %s\n", c->name, early ? "returned too early" : !ok ? "failed" : counted != 50 ? "miscounted" : "ok");
	fflush(stdout);
	failed |= early || !ok || counted != 50;
}

static int all(const struct nostall *c, size_t n, int argc, char **argv)
{
	for (size_t i = 0; i < n; i++)
		if (argc < 2 || strstr(c[i].name, argv[1]))
			one(&c[i]);
	puts(failed ? "failed" : "ok");
	return failed;
}
#define ALL(table) all(table, sizeof(table) / sizeof((table)[0]), argc, argv)

/* ---- fixtures ---- */

static int fd[2];
static char junk[1 << 16];

static void make_pipe(void)
{
	if (pipe(fd))
		die("pipe");
}

static inline void close_both(void)
{
	close(fd[0]);
	close(fd[1]);
}

static inline void put(void)
{
	if (write(fd[1], "x\n", 2) != 2)
		die("put");
}

static void nonblock(int d, int on)
{
	int fl = fcntl(d, F_GETFL);

	fcntl(d, F_SETFL, on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK);
}

/* No further byte fits. */
static void fill(int d)
{
	nonblock(d, 1);
	while (write(d, junk, sizeof junk) > 0)
		;
	while (write(d, junk, 1) > 0)
		;
	nonblock(d, 0);
}

static inline void full_pipe(void)
{
	make_pipe();
	fill(fd[1]);
}

/* Takes what there is until the writer is through. */
static inline void drain(void)
{
	nonblock(fd[0], 1);
	while (!atomic_load(&left))
		if (read(fd[0], junk, sizeof junk) <= 0)
			sched_yield();
}

/* Signals the thread until its call has ended: it may have been on the way into it at the first. */
static inline void interrupt(void)
{
	while (!atomic_load(&left)) {
		pthread_kill(blocker, SIGUSR1);
		nap(1000);
	}
}

static void on_signal(int sig)
{
	(void)sig;
}

static inline void with_handler(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &sa, NULL);
}

#endif
