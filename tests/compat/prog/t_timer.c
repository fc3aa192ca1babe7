/* SPDX-License-Identifier: MIT */
/*
 * POSIX timers: for one thread (SIGEV_THREAD_ID), for the process, with a function.  Prints one line per case; the same natively and
 * under pgreen.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { N = 8 };

static int failures;

static void check(const char *what, int ok)
{
	printf("%-64s %s\n", what, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

static void nap(long us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static void mask(int how, int sig)
{
	sigset_t s;

	sigemptyset(&s);
	sigaddset(&s, sig);
	pthread_sigmask(how, &s, NULL);
}

static struct slot {
	pthread_t t;
	timer_t id;
	atomic_int tid, hits, wrong, end, overruns;
	int sig, how;
	sem_t sem;
} slots[N];
static __thread struct slot *me;
static atomic_int strays, process_hits;

static void expired(int sig, siginfo_t *si, void *ctx)
{
	(void)ctx;
	if (!me) {
		strays++;
		return;
	}
	if (si->si_signo != sig || sig != me->sig || si->si_code != SI_TIMER || si->si_value.sival_ptr != me ||
	    si->si_timerid != (int)(intptr_t)me->id || si->si_overrun < 0)
		me->wrong++;
	me->overruns += si->si_overrun;
	me->hits++;
}

static void for_process(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	if (si->si_code == SI_TIMER && si->si_value.sival_int == 77)
		process_hits++;
}

static void handle(int sig, void (*fn)(int, siginfo_t *, void *))
{
	struct sigaction sa = { .sa_sigaction = fn, .sa_flags = SA_SIGINFO | SA_RESTART };

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

static void *lives(void *arg)
{
	struct slot *s = arg;
	volatile unsigned n = 0;

	me = s;
	s->tid = (int)syscall(SYS_gettid);
	switch (s->how % 4) {
	case 0: /* computes */
		while (!s->end)
			n++;
		break;
	case 1: /* waits */
		while (sem_wait(&s->sem) < 0)
			;
		break;
	case 2: /* sleeps, in short */
		while (!s->end)
			nap(1000);
		break;
	case 3: /* takes it itself */
		while (!s->end) {
			struct timespec ts = { 0, 2000000 };
			siginfo_t si;
			sigset_t set;
			sigemptyset(&set);
			sigaddset(&set, s->sig);
			if (sigtimedwait(&set, &si, &ts) == s->sig) {
				s->wrong += si.si_code != SI_TIMER || si.si_value.sival_ptr != s;
				s->hits++;
			}
		}
	}
	return NULL;
}

static void begin(struct slot *s, int sig, int how)
{
	memset(s, 0, sizeof *s);
	s->sig = sig;
	s->how = how;
	sem_init(&s->sem, 0, 0);
	if (how % 4 == 3)
		mask(SIG_BLOCK, sig);
	if (pthread_create(&s->t, NULL, lives, s))
		abort();
	mask(SIG_UNBLOCK, sig);
	while (!s->tid)
		nap(100);
}

static int arm(struct slot *s, long every)
{
	struct sigevent ev;
	struct itimerspec it = { { 0, every }, { 0, every ? every : 1000000 } };

	memset(&ev, 0, sizeof ev);
	ev.sigev_notify = SIGEV_THREAD_ID;
	ev.sigev_signo = s->sig;
	ev.sigev_value.sival_ptr = s;
	ev.sigev_notify_thread_id = s->tid;
	return timer_create(CLOCK_MONOTONIC, &ev, &s->id) == 0 && timer_settime(s->id, 0, &it, NULL) == 0;
}

static void finish(struct slot *s)
{
	s->end = 1;
	sem_post(&s->sem);
	pthread_join(s->t, NULL);
}

static void test_each(void)
{
	int ok = 1;

	handle(SIGUSR1, expired);
	handle(SIGRTMIN + 1, expired);
	for (int i = 0; i < N; i++)
		begin(&slots[i], i & 4 ? SIGUSR1 : SIGRTMIN + 1, i);
	for (int i = 0; i < N; i++)
		ok &= arm(&slots[i], 2000000);
	for (int i = 0; i < N; i++)
		while (slots[i].hits < 10)
			nap(1000);
	for (int i = 0; i < N; i++) {
		ok &= timer_delete(slots[i].id) == 0;
		finish(&slots[i]);
		ok &= !slots[i].wrong;
	}
	check("SIGEV_THREAD_ID: eight threads, each its own ten", ok && strays == 0);
}

static void *self(void *arg)
{
	struct slot *s = arg;
	struct itimerspec it;

	me = s;
	s->tid = (int)syscall(SYS_gettid);
	if (!arm(s, 1000000))
		return NULL;
	while (s->hits < 5)
		nap(500);
	if (timer_gettime(s->id, &it) || it.it_interval.tv_nsec != 1000000)
		return NULL;
	/* While it is blocked one is pending, and the others are counted. */
	mask(SIG_BLOCK, s->sig);
	int before = s->hits, over = s->overruns;
	nap(30000);
	if (s->hits != before)
		return NULL;
	mask(SIG_UNBLOCK, s->sig);
	while (s->hits == before)
		nap(100);
	if (s->overruns - over < 5 || timer_getoverrun(s->id) < 0)
		return NULL;
	return timer_delete(s->id) == 0 && timer_delete(s->id) < 0 && errno == EINVAL && !s->wrong ? s : NULL;
}

static void test_self(void)
{
	void *r;
	int ok = 1;

	for (int i = 0; i < N; i++) {
		memset(&slots[i], 0, sizeof slots[i]);
		slots[i].sig = i & 1 ? SIGUSR1 : SIGRTMIN + 1;
		if (pthread_create(&slots[i].t, NULL, self, &slots[i]))
			abort();
	}
	for (int i = 0; i < N; i++) {
		pthread_join(slots[i].t, &r);
		ok &= r == &slots[i];
	}
	check("SIGEV_THREAD_ID: for oneself; overruns while it is blocked", ok && strays == 0);
}

static void test_ended(void)
{
	int ok = 1;

	begin(&slots[0], SIGUSR1, 1);
	ok &= arm(&slots[0], 500000);
	while (slots[0].hits < 3)
		nap(500);
	finish(&slots[0]);
	/* Its timer goes on, for nobody; others take its place. */
	for (int i = 1; i < N; i++)
		begin(&slots[i], SIGUSR1, 2);
	nap(20000);
	for (int i = 1; i < N; i++) {
		ok &= slots[i].hits == 0;
		finish(&slots[i]);
	}
	ok &= timer_delete(slots[0].id) == 0;
	check("SIGEV_THREAD_ID: a thread that has ended", ok && strays == 0);
}

static void test_wrong(void)
{
	struct sigevent ev;
	timer_t id;
	int ok;

	memset(&ev, 0, sizeof ev);
	ev.sigev_notify = SIGEV_THREAD_ID;
	ev.sigev_signo = SIGUSR1;
	ev.sigev_notify_thread_id = 1;
	ok = timer_create(CLOCK_MONOTONIC, &ev, &id) < 0 && errno == EINVAL;
	ev.sigev_notify_thread_id = (int)syscall(SYS_gettid);
	ev.sigev_signo = 100;
	ok &= timer_create(CLOCK_MONOTONIC, &ev, &id) < 0 && errno == EINVAL;
	ev.sigev_signo = SIGUSR1;
	ok &= timer_create(12345, &ev, &id) < 0 && errno == EINVAL;
	check("SIGEV_THREAD_ID: wrong arguments", ok);
}

static void test_fork(void)
{
	struct slot *s = &slots[0];
	int st;

	memset(s, 0, sizeof *s);
	me = s;
	s->sig = SIGUSR1;
	s->tid = (int)syscall(SYS_gettid);
	int ok = arm(s, 1000000);
	while (s->hits < 3)
		nap(500);
	fflush(stdout);
	pid_t p = fork();
	if (p == 0) {
		int n = s->hits;
		nap(10000);
		/* Not inherited; a new one works. */
		int right = s->hits == n && timer_delete(s->id) < 0;
		s->tid = (int)syscall(SYS_gettid);
		right &= arm(s, 1000000);
		while (s->hits < n + 3)
			nap(500);
		_exit(right ? 0 : 1);
	}
	while (waitpid(p, &st, 0) < 0 && errno == EINTR)
		;
	ok &= timer_delete(s->id) == 0;
	me = NULL;
	check("SIGEV_THREAD_ID: for the first thread; a fork's child has none", ok && WIFEXITED(st) && WEXITSTATUS(st) == 0);
}

/* For the process, while every thread is parked. */
static void test_process(void)
{
	struct itimerspec it = { { 0, 2000000 }, { 0, 2000000 } };
	struct sigevent ev;
	timer_t id;
	int ok;

	handle(SIGRTMIN + 2, for_process);
	for (int i = 0; i < N; i++)
		begin(&slots[i], SIGUSR1, 1);
	memset(&ev, 0, sizeof ev);
	ev.sigev_notify = SIGEV_SIGNAL;
	ev.sigev_signo = SIGRTMIN + 2;
	ev.sigev_value.sival_int = 77;
	ok = timer_create(CLOCK_REALTIME, &ev, &id) == 0 && timer_settime(id, 0, &it, NULL) == 0;
	mask(SIG_BLOCK, SIGRTMIN + 2);
	while (process_hits < 10)
		nap(5000);
	mask(SIG_UNBLOCK, SIGRTMIN + 2);
	ok &= timer_delete(id) == 0;
	for (int i = 0; i < N; i++)
		finish(&slots[i]);
	check("SIGEV_SIGNAL: ten for the process, all threads parked", ok);
}

/* libc's helper thread and ours share objects. */
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static int calls;

static void called(union sigval v)
{
	pthread_mutex_lock(&m);
	calls += v.sival_int;
	pthread_cond_broadcast(&c);
	pthread_mutex_unlock(&m);
	sem_post(&sem);
}

static void *sees(void *arg)
{
	pthread_mutex_lock(&m);
	while (calls < 10)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	sem_wait(&sem);
	return arg;
}

static void test_function(void)
{
	struct itimerspec it = { { 0, 2000000 }, { 0, 2000000 } };
	struct sigevent ev;
	pthread_t t[4];
	timer_t id;
	int ok;

	sem_init(&sem, 0, 0);
	for (int i = 0; i < 4; i++)
		if (pthread_create(&t[i], NULL, sees, NULL))
			abort();
	memset(&ev, 0, sizeof ev);
	ev.sigev_notify = SIGEV_THREAD;
	ev.sigev_notify_function = called;
	ev.sigev_value.sival_int = 1;
	ok = timer_create(CLOCK_MONOTONIC, &ev, &id) == 0 && timer_settime(id, 0, &it, NULL) == 0;
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	ok &= timer_delete(id) == 0;
	check("SIGEV_THREAD: the function's thread and others share objects", ok);
}

int main(void)
{
	test_each();
	test_self();
	test_ended();
	test_wrong();
	test_fork();
	test_process();
	test_function();
	return failures != 0;
}
