/* SPDX-License-Identifier: MIT */
/*
 * s_rtsig SEED SECONDS: signals that queue, sent to threads while they do everything that waits.
 *
 * Each target has a sender of its own, which counts: the values must arrive one after the other, none missing, none twice,
 * whether a handler gets them or sigtimedwait; on the target's own thread, with the errno of the interrupted code kept. Meanwhile
 * ordinary signals hit the process, and are only allowed to arrive at somebody.  A failure is one line; the last line is "ok".
 */
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/socket.h>

#include "stress.h"

enum { TARGETS = 12, AHEAD = 40 };

static _Atomic int usr1;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t sem;

static struct target {
	pthread_t thread, sender;
	_Atomic long sent, received;
	_Atomic int ready, over;
	int fd[2];
	uint64_t rnd;
} targets[TARGETS];

static __thread struct target *me;

static void bad(const char *what, long got, long want)
{
	if (failures++ < 20)
		printf("s_rtsig: %s: %ld, not %ld\n", what, got, want);
}

static void took(const siginfo_t *si)
{
	if (me == NULL) {
		bad("arrived at a stranger", si->si_value.sival_int, -1);
		return;
	}
	if (si->si_value.sival_int != me->received)
		bad("the next value", si->si_value.sival_int, me->received);
	me->received++;
}

static void on_rt(int sig, siginfo_t *si, void *uc)
{
	int e = errno;

	(void)sig, (void)uc;
	took(si);
	if (si->si_value.sival_int % 17 == 0)
		sched_yield();
	errno = e;
}

static void on_usr1(int sig)
{
	(void)sig;
	usr1++;
}

static void step(struct target *t)
{
	struct timespec ts;
	sigset_t set, old;
	siginfo_t si;
	char buf[8];

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 1);
	errno = 1234;
	switch (mix(&t->rnd) % 10) {
	case 0:
		ts = (struct timespec){0, (long)(mix(&t->rnd) % 300000)};
		nanosleep(&ts, NULL);
		break;
	case 1:
		ts = in_us(CLOCK_REALTIME, (long)(mix(&t->rnd) % 500));
		sem_timedwait(&sem, &ts);
		break;
	case 2:
		ts = in_us(CLOCK_REALTIME, (long)(mix(&t->rnd) % 500));
		pthread_mutex_lock(&m);
		pthread_cond_timedwait(&cond, &m, &ts);
		pthread_mutex_unlock(&m);
		break;
	case 3: {
		struct pollfd p = {t->fd[0], POLLIN, 0};
		poll(&p, 1, 1);
		break;
	}
	case 4:
		if (write(t->fd[1], "12345678", 8) != 8)
			bad("write", errno, 0);
		for (int n = 0; n < 8;) {
			ssize_t r = read(t->fd[0], buf, sizeof buf - (size_t)n);
			if (r > 0)
				n += (int)r;
			else if (r < 0 && errno != EINTR)
				bad("read", errno, 0);
		}
		break;
	case 5: /* blocked for a while, with errors kept */
		pthread_sigmask(SIG_BLOCK, &set, &old);
		for (int i = (int)(mix(&t->rnd) % 4); i > 0; i--)
			sched_yield();
		errno = 77;
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		if (errno != 77)
			bad("errno after a handler", errno, 77);
		break;
	case 6: /* taken by hand */
		pthread_sigmask(SIG_BLOCK, &set, &old);
		ts = (struct timespec){0, (long)(mix(&t->rnd) % 200000)};
		while (sigtimedwait(&set, &si, &ts) == SIGRTMIN + 1) {
			took(&si);
			if (mix(&t->rnd) % 3 == 0)
				break;
		}
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		break;
	case 7:
		pthread_mutex_lock(&m);
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&m);
		sem_post(&sem);
		sem_trywait(&sem);
		break;
	case 8:
		for (volatile int i = 0; i < 20000; i++)
			;
		if (errno != 1234)
			bad("errno in the middle of computing", errno, 1234);
		break;
	case 9:
		free(malloc(mix(&t->rnd) % 3000));
		break;
	}
}

static void *target(void *arg)
{
	struct target *t = me = arg;

	t->ready = 1;
	while (!t->over)
		step(t);
	while (t->received < t->sent)
		sched_yield();
	return NULL;
}

static void *sender(void *arg)
{
	struct target *t = arg;

	while (!t->ready)
		sched_yield();
	while (!stop) {
		union sigval v = {.sival_int = (int)t->sent};
		int r;

		if (t->sent - t->received > AHEAD) {
			sched_yield();
			continue;
		}
		t->sent++;
		r = pthread_sigqueue(t->thread, SIGRTMIN + 1, v);
		if (r) {
			t->sent--;
			if (r != EAGAIN)
				bad("pthread_sigqueue", r, 0);
			sched_yield();
		}
		if (t->sent % 64 == 0)
			kill(getpid(), SIGUSR1);
	}
	t->over = 1;
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_sigaction = on_rt, .sa_flags = SA_SIGINFO};
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	double seconds = argc > 2 ? atof(argv[2]) : 3;
	sigset_t block;
	long total = 0;

	sigaction(SIGRTMIN + 1, &sa, NULL);
	sa = (struct sigaction){.sa_handler = on_usr1, .sa_flags = (int)(seed & 1) * SA_RESTART};
	sigaction(SIGUSR1, &sa, NULL);
	sem_init(&sem, 0, 0);
	/* The first thread and the senders are strangers. */
	sigemptyset(&block);
	sigaddset(&block, SIGRTMIN + 1);
	for (int i = 0; i < TARGETS; i++) {
		struct target *t = &targets[i];

		t->rnd = seed * 2654435761u + (uint64_t)i;
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, t->fd) || create(&t->thread, NULL, target, t)) {
			perror("s_rtsig");
			return 1;
		}
	}
	pthread_sigmask(SIG_BLOCK, &block, NULL);
	for (int i = 0; i < TARGETS; i++)
		if (create(&targets[i].sender, NULL, sender, &targets[i])) {
			perror("s_rtsig");
			return 1;
		}
	sleep_for(seconds);
	stop = 1;
	for (int i = 0; i < TARGETS; i++) {
		struct target *t = &targets[i];

		pthread_join(t->sender, NULL);
		pthread_join(t->thread, NULL);
		if (t->sent != t->received)
			bad("received in all", t->received, t->sent);
		total += t->received;
	}
	if (total == 0 || usr1 == 0)
		bad("anything", total, 1);
	fprintf(stderr, "%ld signals\n", total);
	return verdict();
}
