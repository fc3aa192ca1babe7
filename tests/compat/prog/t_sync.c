/* SPDX-License-Identifier: MIT */
/* Synchronisation as a program uses it: every object, every way to wait.  Prints one line per group; 0 if all hold. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static _Atomic int failures;

#define CHECK(x) ((x) ? (void)0 : (void)(printf("%s:%d: %s\n", __FILE__, __LINE__, #x), atomic_fetch_add(&failures, 1)))
#define EQ(x, y)                                                                                                       \
	do {                                                                                                           \
		long x_ = (long)(x), y_ = (long)(y);                                                                   \
		if (x_ != y_) {                                                                                        \
			printf("%s:%d: %s is %ld, not %ld\n", __FILE__, __LINE__, #x, x_, y_);                         \
			atomic_fetch_add(&failures, 1);                                                                \
		}                                                                                                      \
	} while (0)

enum { N = 8, ROUNDS = 5000 };

static void spawn(pthread_t *t, int n, void *(*fn)(void *))
{
	for (int i = 0; i < n; i++)
		if (pthread_create(&t[i], NULL, fn, (void *)(intptr_t)i) != 0)
			abort();
}

static void reap(pthread_t *t, int n)
{
	for (int i = 0; i < n; i++)
		EQ(pthread_join(t[i], NULL), 0);
}

static struct timespec in_ms(clockid_t clock, long ms)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += ms % 1000 * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

static void pause_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
		;
}

static bool has_passed(clockid_t clock, const struct timespec *ts)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec > ts->tv_sec || (now.tv_sec == ts->tv_sec && now.tv_nsec >= ts->tv_nsec);
}

static const struct timespec nonsense = { 1, 1000000000 };

/* ---- mutexes ---- */

static pthread_mutex_t sum_lock;
static long sum;

static void *adder(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct timespec ts = in_ms(CLOCK_REALTIME, 10000);

		if (i % 5 == 1)
			EQ(pthread_mutex_timedlock(&sum_lock, &ts), 0);
		else if (i % 5 != 2 || pthread_mutex_trylock(&sum_lock) != 0)
			EQ(pthread_mutex_lock(&sum_lock), 0);
		sum++;
		if (i % 100 == (intptr_t)arg)
			sched_yield();
		EQ(pthread_mutex_unlock(&sum_lock), 0);
	}
	return NULL;
}

static void contend(int type)
{
	pthread_mutexattr_t a;
	pthread_t t[N];

	pthread_mutexattr_init(&a);
	EQ(pthread_mutexattr_settype(&a, type), 0);
	EQ(pthread_mutex_init(&sum_lock, &a), 0);
	sum = 0;
	spawn(t, N, adder);
	reap(t, N);
	EQ(sum, (long)N * ROUNDS);
	EQ(pthread_mutex_destroy(&sum_lock), 0);
}

static void *held_by_other(void *arg)
{
	pthread_mutex_t *m = arg;
	struct timespec ts = in_ms(CLOCK_REALTIME, 20);

	EQ(pthread_mutex_trylock(m), EBUSY);
	EQ(pthread_mutex_timedlock(m, &ts), ETIMEDOUT);
	CHECK(has_passed(CLOCK_REALTIME, &ts));
	ts = in_ms(CLOCK_MONOTONIC, 20);
	EQ(pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &ts), ETIMEDOUT);
	CHECK(has_passed(CLOCK_MONOTONIC, &ts));
	EQ(pthread_mutex_timedlock(m, &nonsense), EINVAL);
	EQ(pthread_mutex_clocklock(m, CLOCK_PROCESS_CPUTIME_ID, &ts), EINVAL);
	return NULL;
}

static void *unlock_foreign(void *m)
{
	EQ(pthread_mutex_unlock(m), EPERM);
	return NULL;
}

static void mutexes(void)
{
	static pthread_mutex_t rec = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
	static pthread_mutex_t chk = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
	static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
	struct timespec ts = in_ms(CLOCK_REALTIME, 20);
	pthread_t t;

	contend(PTHREAD_MUTEX_NORMAL);
	contend(PTHREAD_MUTEX_RECURSIVE);
	contend(PTHREAD_MUTEX_ERRORCHECK);
	contend(PTHREAD_MUTEX_ADAPTIVE_NP);

	EQ(pthread_mutex_unlock(&rec), EPERM);
	EQ(pthread_mutex_lock(&rec), 0);
	EQ(pthread_mutex_lock(&rec), 0);
	EQ(pthread_mutex_trylock(&rec), 0);
	EQ(pthread_mutex_timedlock(&rec, &nonsense), 0);
	pthread_create(&t, NULL, unlock_foreign, &rec);
	reap(&t, 1);
	for (int i = 0; i < 3; i++)
		EQ(pthread_mutex_unlock(&rec), 0);
	pthread_create(&t, NULL, held_by_other, &rec);
	reap(&t, 1);
	EQ(pthread_mutex_unlock(&rec), 0);
	EQ(pthread_mutex_unlock(&rec), EPERM);

	EQ(pthread_mutex_unlock(&chk), EPERM);
	EQ(pthread_mutex_lock(&chk), 0);
	EQ(pthread_mutex_lock(&chk), EDEADLK);
	EQ(pthread_mutex_timedlock(&chk, &ts), EDEADLK);
	EQ(pthread_mutex_trylock(&chk), EBUSY);
	pthread_create(&t, NULL, unlock_foreign, &chk);
	reap(&t, 1);
	EQ(pthread_mutex_unlock(&chk), 0);

	EQ(pthread_mutex_timedlock(&plain, &nonsense), 0); /* it need not wait */
	pthread_create(&t, NULL, held_by_other, &plain);
	reap(&t, 1);
	EQ(pthread_mutex_unlock(&plain), 0);
	EQ(pthread_mutex_destroy(&plain), 0);
	EQ(pthread_mutex_lock(&plain), EINVAL);
}

/* One that takes the mutex again at once must not keep another out for ever. */
static pthread_mutex_t greedy_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool greedy_stop;

static void *greedy(void *arg)
{
	(void)arg;
	while (!greedy_stop) {
		struct timespec until = in_ms(CLOCK_MONOTONIC, 1);

		pthread_mutex_lock(&greedy_lock);
		while (!has_passed(CLOCK_MONOTONIC, &until))
			;
		pthread_mutex_unlock(&greedy_lock);
	}
	return NULL;
}

static void fairness(void)
{
	pthread_t t[2];

	spawn(t, 2, greedy);
	for (int i = 0; i < 5; i++) {
		EQ(pthread_mutex_lock(&greedy_lock), 0);
		EQ(pthread_mutex_unlock(&greedy_lock), 0);
	}
	greedy_stop = true;
	reap(t, 2);
}

static void *robust_holder(void *m)
{
	EQ(pthread_mutex_lock(m), 0);
	return NULL; /* dies with it */
}

static void robust_and_pi(void)
{
	pthread_mutexattr_t a;
	pthread_mutex_t m;
	pthread_t t[N];

	pthread_mutexattr_init(&a);
	EQ(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST), 0);
	EQ(pthread_mutex_init(&m, &a), 0);
	pthread_create(&t[0], NULL, robust_holder, &m);
	reap(t, 1);
	EQ(pthread_mutex_lock(&m), EOWNERDEAD);
	EQ(pthread_mutex_consistent(&m), 0);
	EQ(pthread_mutex_unlock(&m), 0);
	EQ(pthread_mutex_lock(&m), 0);
	EQ(pthread_mutex_unlock(&m), 0);

	pthread_mutexattr_init(&a);
	EQ(pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT), 0);
	EQ(pthread_mutex_init(&sum_lock, &a), 0);
	sum = 0;
	spawn(t, N, adder);
	reap(t, N);
	EQ(sum, (long)N * ROUNDS);
}

/* ---- condition variables ---- */

static pthread_mutex_t cm = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cv = PTHREAD_COND_INITIALIZER, cv2 = PTHREAD_COND_INITIALIZER;
static int turn, waiting, released;
static bool go;

static void *ping(void *arg)
{
	int me = (int)(intptr_t)arg;

	EQ(pthread_mutex_lock(&cm), 0);
	for (int i = 0; i < ROUNDS; i++) {
		while (turn != me)
			EQ(pthread_cond_wait(me ? &cv2 : &cv, &cm), 0);
		turn = !me;
		EQ(pthread_cond_signal(me ? &cv : &cv2), 0);
	}
	EQ(pthread_mutex_unlock(&cm), 0);
	return NULL;
}

static void *crowd(void *arg)
{
	(void)arg;
	EQ(pthread_mutex_lock(&cm), 0);
	waiting++;
	pthread_cond_signal(&cv2);
	while (!go)
		EQ(pthread_cond_wait(&cv, &cm), 0);
	released++;
	EQ(pthread_mutex_unlock(&cm), 0);
	return NULL;
}

static void await_waiting(int n)
{
	EQ(pthread_mutex_lock(&cm), 0);
	while (waiting < n)
		EQ(pthread_cond_wait(&cv2, &cm), 0);
}

static void broadcast(void)
{
	enum { CROWD = 50 };
	pthread_t t[CROWD];

	for (int round = 0; round < 20; round++) {
		go = false;
		waiting = released = 0;
		spawn(t, CROWD, crowd);
		await_waiting(CROWD);
		go = true;
		if (round % 2)
			EQ(pthread_mutex_unlock(&cm), 0);
		EQ(pthread_cond_broadcast(&cv), 0);
		if (round % 2 == 0)
			EQ(pthread_mutex_unlock(&cm), 0);
		reap(t, CROWD);
		EQ(released, CROWD);
	}
}

/* As many signals as waiters, some of which give up: every token is taken by somebody. */
static int tokens, taken, gaveup;

static void *taker(void *arg)
{
	for (int i = 0; i < 200; i++) {
		struct timespec ts = in_ms(CLOCK_REALTIME, ((intptr_t)arg + i) % 3);
		int r = 0;

		pthread_mutex_lock(&cm);
		while (tokens == 0 && r == 0)
			r = pthread_cond_timedwait(&cv, &cm, &ts);
		CHECK(r == 0 || r == ETIMEDOUT);
		if (tokens > 0) {
			tokens--;
			taken++;
		} else {
			gaveup++;
		}
		pthread_mutex_unlock(&cm);
	}
	return NULL;
}

static void *last_taker(void *arg)
{
	pthread_mutex_lock(&cm);
	while (taken < *(int *)arg) {
		while (tokens == 0)
			pthread_cond_wait(&cv, &cm);
		tokens--;
		taken++;
	}
	pthread_mutex_unlock(&cm);
	return NULL;
}

static void signals_not_lost(void)
{
	pthread_t t[N], last;
	int all = 2000;

	tokens = taken = gaveup = 0;
	spawn(t, N, taker);
	for (int i = 0; i < all; i++) {
		pthread_mutex_lock(&cm);
		tokens++;
		pthread_cond_signal(&cv);
		pthread_mutex_unlock(&cm);
		if (i % 64 == 0)
			pause_ms(1);
	}
	reap(t, N);
	pthread_create(&last, NULL, last_taker, &all);
	reap(&last, 1);
	EQ(taken, all);
	EQ(tokens, 0);
}

static void timed_cond(void)
{
	pthread_condattr_t a;
	pthread_cond_t mono;
	struct timespec ts = in_ms(CLOCK_REALTIME, 20);

	pthread_condattr_init(&a);
	EQ(pthread_condattr_setclock(&a, CLOCK_MONOTONIC), 0);
	EQ(pthread_cond_init(&mono, &a), 0);
	pthread_mutex_lock(&cm);
	EQ(pthread_cond_timedwait(&cv, &cm, &ts), ETIMEDOUT);
	CHECK(has_passed(CLOCK_REALTIME, &ts));
	EQ(pthread_cond_timedwait(&cv, &cm, &ts), ETIMEDOUT);
	ts = in_ms(CLOCK_MONOTONIC, 20);
	EQ(pthread_cond_timedwait(&mono, &cm, &ts), ETIMEDOUT);
	CHECK(has_passed(CLOCK_MONOTONIC, &ts));
	ts = in_ms(CLOCK_MONOTONIC, 20);
	EQ(pthread_cond_clockwait(&cv, &cm, CLOCK_MONOTONIC, &ts), ETIMEDOUT);
	CHECK(has_passed(CLOCK_MONOTONIC, &ts));
	EQ(pthread_cond_timedwait(&cv, &cm, &nonsense), EINVAL);
	EQ(pthread_cond_clockwait(&cv, &cm, CLOCK_THREAD_CPUTIME_ID, &ts), EINVAL);
	EQ(pthread_mutex_trylock(&cm), EBUSY); /* still held */
	pthread_mutex_unlock(&cm);
	EQ(pthread_cond_destroy(&mono), 0);
}

static bool cleaned_with_mutex;

static void cleanup(void *m)
{
	cleaned_with_mutex = pthread_mutex_unlock(m) == 0;
}

static void *cancelled(void *m)
{
	EQ(pthread_mutex_lock(m), 0);
	pthread_cleanup_push(cleanup, m);
	waiting++;
	pthread_cond_signal(&cv2);
	for (;;)
		pthread_cond_wait(&cv, m);
	pthread_cleanup_pop(1);
}

static void cancel_cond(void)
{
	pthread_mutex_t chk = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;
	pthread_t t;
	void *r;

	for (int i = 0; i < 50; i++) {
		waiting = 0;
		cleaned_with_mutex = false;
		EQ(pthread_create(&t, NULL, cancelled, &chk), 0);
		if (i % 2) {
			pthread_mutex_lock(&chk);
			while (waiting == 0)
				pthread_cond_wait(&cv2, &chk);
			pthread_mutex_unlock(&chk);
		}
		EQ(pthread_cancel(t), 0);
		EQ(pthread_join(t, &r), 0);
		CHECK(r == PTHREAD_CANCELED);
		CHECK(cleaned_with_mutex || waiting == 0);
		EQ(pthread_mutex_lock(&chk), 0);
		EQ(pthread_mutex_unlock(&chk), 0);
	}
}

/* ---- read-write locks ---- */

static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static _Atomic int readers, writers;
static long rwsum;

static void *reader_writer(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg + 1;

	for (int i = 0; i < ROUNDS / 2; i++) {
		struct timespec ts = in_ms(CLOCK_REALTIME, 10000);

		seed = seed * 1103515245 + 12345;
		if (seed >> 16 & 3) {
			EQ(i % 3 ? pthread_rwlock_rdlock(&rw) : pthread_rwlock_timedrdlock(&rw, &ts), 0);
			readers++;
			EQ(writers, 0);
			if (i % 32 == 0)
				sched_yield();
			readers--;
		} else {
			EQ(i % 3 ? pthread_rwlock_wrlock(&rw) : pthread_rwlock_timedwrlock(&rw, &ts), 0);
			EQ(atomic_fetch_add(&writers, 1), 0);
			EQ(readers, 0);
			rwsum++;
			if (i % 32 == 0)
				sched_yield();
			EQ(atomic_fetch_sub(&writers, 1), 1);
		}
		EQ(pthread_rwlock_unlock(&rw), 0);
		if (i % 16 == 0) {
			ts = in_ms(CLOCK_MONOTONIC, 0);
			int r = pthread_rwlock_clockwrlock(&rw, CLOCK_MONOTONIC, &ts);
			CHECK(r == 0 || r == ETIMEDOUT);
			if (r == 0)
				EQ(pthread_rwlock_unlock(&rw), 0);
			r = pthread_rwlock_clockrdlock(&rw, CLOCK_MONOTONIC, &ts);
			CHECK(r == 0 || r == ETIMEDOUT);
			if (r == 0)
				EQ(pthread_rwlock_unlock(&rw), 0);
		}
	}
	return NULL;
}

static void *rw_other(void *arg)
{
	struct timespec ts = in_ms(CLOCK_REALTIME, 20);
	bool written = arg != NULL;

	EQ(pthread_rwlock_trywrlock(&rw), EBUSY);
	EQ(pthread_rwlock_timedwrlock(&rw, &ts), ETIMEDOUT);
	CHECK(has_passed(CLOCK_REALTIME, &ts));
	EQ(pthread_rwlock_tryrdlock(&rw), written ? EBUSY : 0);
	if (!written)
		EQ(pthread_rwlock_unlock(&rw), 0);
	ts = in_ms(CLOCK_MONOTONIC, 20);
	EQ(pthread_rwlock_clockrdlock(&rw, CLOCK_MONOTONIC, &ts), written ? ETIMEDOUT : 0);
	if (!written)
		EQ(pthread_rwlock_unlock(&rw), 0);
	EQ(pthread_rwlock_timedwrlock(&rw, &nonsense), EINVAL);
	return NULL;
}

static void *rw_writer(void *arg)
{
	(void)arg;
	EQ(pthread_rwlock_wrlock(&rw), 0);
	rwsum++;
	EQ(pthread_rwlock_unlock(&rw), 0);
	return NULL;
}

static void rwlocks(void)
{
	pthread_rwlockattr_t a;
	pthread_t t[N];

	for (int kind = 0; kind < 2; kind++) {
		pthread_rwlockattr_init(&a);
		if (kind)
			EQ(pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP), 0);
		EQ(pthread_rwlock_init(&rw, &a), 0);
		spawn(t, N, reader_writer);
		reap(t, N);
		EQ(pthread_rwlock_trywrlock(&rw), 0);
		EQ(pthread_rwlock_rdlock(&rw), EDEADLK);
		EQ(pthread_rwlock_wrlock(&rw), EDEADLK);
		EQ(pthread_rwlock_tryrdlock(&rw), EBUSY);
		pthread_create(&t[0], NULL, rw_other, &rw);
		reap(t, 1);
		EQ(pthread_rwlock_unlock(&rw), 0);
		EQ(pthread_rwlock_rdlock(&rw), 0);
		EQ(pthread_rwlock_tryrdlock(&rw), 0);
		pthread_create(&t[0], NULL, rw_other, NULL);
		reap(t, 1);
		rwsum = 0;
		pthread_create(&t[0], NULL, rw_writer, NULL);
		pause_ms(5);
		if (!kind) { /* readers go past a waiting writer */
			EQ(pthread_rwlock_rdlock(&rw), 0);
			EQ(pthread_rwlock_unlock(&rw), 0);
		}
		EQ(rwsum, 0);
		EQ(pthread_rwlock_unlock(&rw), 0);
		EQ(pthread_rwlock_unlock(&rw), 0);
		reap(t, 1);
		EQ(rwsum, 1);
		EQ(pthread_rwlock_destroy(&rw), 0);
	}
}

/* ---- barriers ---- */

static pthread_barrier_t bar;
static _Atomic int serial, arrived[100];

static void *barrier_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++) {
		int r;

		arrived[i]++;
		r = pthread_barrier_wait(&bar);
		CHECK(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
		serial += r == PTHREAD_BARRIER_SERIAL_THREAD;
		EQ(arrived[i], N);
	}
	return NULL;
}

static void *barrier_once(void *b)
{
	if (pthread_barrier_wait(b) == PTHREAD_BARRIER_SERIAL_THREAD) {
		EQ(pthread_barrier_destroy(b), 0);
		memset(b, 0xa5, sizeof(pthread_barrier_t));
		free(b);
	}
	return NULL;
}

static void barriers(void)
{
	pthread_t t[N];

	EQ(pthread_barrier_init(&bar, NULL, 0), EINVAL);
	EQ(pthread_barrier_init(&bar, NULL, N), 0);
	spawn(t, N, barrier_thread);
	reap(t, N);
	EQ(serial, 100);
	EQ(pthread_barrier_destroy(&bar), 0);
	for (int round = 0; round < 100; round++) {
		pthread_barrier_t *b = malloc(sizeof *b);

		EQ(pthread_barrier_init(b, NULL, 4), 0);
		for (int i = 0; i < 4; i++)
			pthread_create(&t[i], NULL, barrier_once, b);
		reap(t, 4);
	}
}

/* ---- semaphores ---- */

static sem_t full, empty;
static long produced, consumed;
static int slot[4];
static int in, out;
static pthread_mutex_t slots = PTHREAD_MUTEX_INITIALIZER;

static void *producer(void *arg)
{
	(void)arg;
	for (int i = 1; i <= ROUNDS; i++) {
		EQ(sem_wait(&empty), 0);
		pthread_mutex_lock(&slots);
		slot[in++ & 3] = i;
		produced += i;
		pthread_mutex_unlock(&slots);
		EQ(sem_post(&full), 0);
	}
	return NULL;
}

static void *consumer(void *arg)
{
	(void)arg;
	for (int i = 1; i <= ROUNDS; i++) {
		struct timespec ts = in_ms(CLOCK_REALTIME, 10000);

		if (i % 7 == 0 ? sem_trywait(&full) != 0 : 1)
			EQ(i % 3 ? sem_wait(&full) : sem_timedwait(&full, &ts), 0);
		pthread_mutex_lock(&slots);
		consumed += slot[out++ & 3];
		pthread_mutex_unlock(&slots);
		EQ(sem_post(&empty), 0);
	}
	return NULL;
}

static _Atomic int handled;

static void handler(int sig)
{
	(void)sig;
	handled++;
}

static sem_t interrupted;
static _Atomic int sem_errno, sem_back;

static void *sem_sleeper(void *arg)
{
	struct timespec ts = in_ms(CLOCK_REALTIME, 60000);

	if ((arg ? sem_timedwait(&interrupted, &ts) : sem_wait(&interrupted)) != 0)
		sem_errno = errno;
	sem_back = 1;
	return NULL;
}

static void *sem_cancelled(void *arg)
{
	(void)arg;
	sem_wait(&interrupted);
	return NULL;
}

static void poster(int sig)
{
	(void)sig;
	sem_post(&interrupted);
}

static void sem_interrupt(int flags, bool timed, int want)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };
	pthread_t t;

	sigaction(SIGUSR1, &sa, NULL);
	handled = sem_errno = sem_back = 0;
	pthread_create(&t, NULL, sem_sleeper, timed ? &t : NULL);
	/* The first few may come before it sleeps. */
	while (want ? !sem_back : handled < 5) {
		EQ(pthread_kill(t, SIGUSR1), 0);
		pause_ms(10);
	}
	EQ(sem_back, want != 0);
	if (want == 0)
		sem_post(&interrupted);
	reap(&t, 1);
	EQ(sem_errno, want);
}

static void semaphores(void)
{
	struct sigaction sa = { .sa_handler = poster };
	pthread_t t[6];
	struct timespec ts;
	sem_t s;
	void *r;
	int v;

	EQ(sem_init(&full, 0, 0), 0);
	EQ(sem_init(&empty, 0, 4), 0);
	spawn(t, 3, producer);
	spawn(t + 3, 3, consumer);
	reap(t, 6);
	EQ(produced, consumed);
	EQ(sem_getvalue(&empty, &v), 0);
	EQ(v, 4);

	EQ(sem_init(&s, 0, (unsigned)SEM_VALUE_MAX + 1), -1);
	EQ(errno, EINVAL);
	EQ(sem_init(&s, 0, SEM_VALUE_MAX), 0);
	EQ(sem_post(&s), -1);
	EQ(errno, EOVERFLOW);
	EQ(sem_init(&s, 0, 0), 0);
	EQ(sem_trywait(&s), -1);
	EQ(errno, EAGAIN);
	ts = in_ms(CLOCK_REALTIME, 20);
	EQ(sem_timedwait(&s, &ts), -1);
	EQ(errno, ETIMEDOUT);
	CHECK(has_passed(CLOCK_REALTIME, &ts));
	ts = in_ms(CLOCK_MONOTONIC, 20);
	EQ(sem_clockwait(&s, CLOCK_MONOTONIC, &ts), -1);
	EQ(errno, ETIMEDOUT);
	CHECK(has_passed(CLOCK_MONOTONIC, &ts));
	EQ(sem_timedwait(&s, &nonsense), -1);
	EQ(errno, EINVAL);
	EQ(sem_clockwait(&s, CLOCK_THREAD_CPUTIME_ID, &ts), -1);
	EQ(errno, EINVAL);
	EQ(sem_destroy(&s), 0);

	sem_init(&interrupted, 0, 0);
	sem_interrupt(0, false, EINTR);
	sem_interrupt(SA_RESTART, false, 0);
	sem_interrupt(0, true, EINTR);
	sem_interrupt(SA_RESTART, true, EINTR);
	sigaction(SIGUSR1, &sa, NULL);
	sem_errno = 0;
	pthread_create(&t[0], NULL, sem_sleeper, NULL);
	pause_ms(20);
	EQ(raise(SIGUSR1), 0); /* a post from a handler */
	reap(t, 1);
	EQ(sem_errno, 0);
	pthread_create(&t[0], NULL, sem_cancelled, NULL);
	pause_ms(5);
	EQ(pthread_cancel(t[0]), 0);
	EQ(pthread_join(t[0], &r), 0);
	CHECK(r == PTHREAD_CANCELED);
	EQ(sem_getvalue(&interrupted, &v), 0);
	EQ(v, 0);
}

/* ---- shared between processes ---- */

static struct shared {
	pthread_mutex_t m;
	pthread_cond_t c;
	pthread_barrier_t b;
	pthread_rwlock_t rw;
	sem_t s;
	int turn, n;
} *sh;

static void shared_rounds(int me)
{
	pthread_barrier_wait(&sh->b);
	pthread_mutex_lock(&sh->m);
	for (int i = 0; i < 200; i++) {
		while (sh->turn != me)
			pthread_cond_wait(&sh->c, &sh->m);
		sh->n++;
		sh->turn = !me;
		pthread_cond_broadcast(&sh->c);
	}
	pthread_mutex_unlock(&sh->m);
	pthread_barrier_wait(&sh->b); /* sh->n changes its lock */
	for (int i = 0; i < 200; i++) {
		pthread_rwlock_wrlock(&sh->rw);
		sh->n++;
		pthread_rwlock_unlock(&sh->rw);
	}
	pthread_barrier_wait(&sh->b);
}

static void *shared_thread(void *arg)
{
	shared_rounds((int)(intptr_t)arg);
	return NULL;
}

static void shared_objects(void)
{
	pthread_mutexattr_t ma;
	pthread_condattr_t ca;
	pthread_barrierattr_t ba;
	pthread_rwlockattr_t ra;
	pthread_t t;
	pid_t pid;
	int st;

	sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_init(&ma);
	pthread_condattr_init(&ca);
	pthread_barrierattr_init(&ba);
	pthread_rwlockattr_init(&ra);
	pthread_mutexattr_setpshared(&ma, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_settype(&ma, PTHREAD_MUTEX_RECURSIVE);
	pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED);
	pthread_barrierattr_setpshared(&ba, PTHREAD_PROCESS_SHARED);
	pthread_rwlockattr_setpshared(&ra, PTHREAD_PROCESS_SHARED);
	EQ(pthread_mutex_init(&sh->m, &ma), 0);
	EQ(pthread_cond_init(&sh->c, &ca), 0);
	EQ(pthread_barrier_init(&sh->b, &ba, 2), 0);
	EQ(pthread_rwlock_init(&sh->rw, &ra), 0);
	EQ(sem_init(&sh->s, 1, 0), 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		shared_rounds(1);
		sem_post(&sh->s);
		_exit(failures != 0);
	}
	pthread_create(&t, NULL, shared_thread, NULL);
	reap(&t, 1);
	EQ(sem_wait(&sh->s), 0);
	EQ(waitpid(pid, &st, 0), pid);
	EQ(st, 0);
	EQ(sh->n, 800);
	munmap(sh, sizeof *sh);
}

/* ---- spin locks ---- */

static pthread_spinlock_t spinlock;

static void *spinner(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		pthread_spin_lock(&spinlock);
		sum++;
		if (i % 512 == 0)
			sched_yield();
		pthread_spin_unlock(&spinlock);
	}
	return NULL;
}

static void spins(void)
{
	pthread_t t[N];

	EQ(pthread_spin_init(&spinlock, PTHREAD_PROCESS_PRIVATE), 0);
	EQ(pthread_spin_trylock(&spinlock), 0);
	EQ(pthread_spin_trylock(&spinlock), EBUSY);
	EQ(pthread_spin_unlock(&spinlock), 0);
	sum = 0;
	spawn(t, N, spinner);
	reap(t, N);
	EQ(sum, (long)N * ROUNDS);
	EQ(pthread_spin_destroy(&spinlock), 0);
}

/* ---- once ---- */

enum { FLAGS = 200 };
static pthread_once_t flags[FLAGS], cancel_flag;
static _Atomic int ran[FLAGS], current, cancel_ran;

static void routine(void)
{
	sched_yield();
	ran[current]++;
}

static void *once_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < FLAGS; i++) {
		pthread_barrier_wait(&bar);
		current = i;
		EQ(pthread_once(&flags[i], routine), 0);
		EQ(ran[i], 1);
		pthread_barrier_wait(&bar);
	}
	return NULL;
}

static void slow_routine(void)
{
	if (cancel_ran++ == 0)
		for (;;)
			pause_ms(1000);
}

static void *once_cancelled(void *arg)
{
	(void)arg;
	pthread_once(&cancel_flag, slow_routine);
	return NULL;
}

static void once(void)
{
	pthread_t t[N];
	void *r;

	EQ(pthread_barrier_init(&bar, NULL, N), 0);
	spawn(t, N, once_thread);
	reap(t, N);
	EQ(pthread_barrier_destroy(&bar), 0);

	pthread_create(&t[0], NULL, once_cancelled, NULL);
	while (cancel_ran == 0)
		pause_ms(1);
	pthread_create(&t[1], NULL, once_cancelled, NULL); /* waits, then runs the routine again */
	pause_ms(5);
	EQ(pthread_cancel(t[0]), 0);
	EQ(pthread_join(t[0], &r), 0);
	CHECK(r == PTHREAD_CANCELED);
	reap(t + 1, 1);
	EQ(cancel_ran, 2);
}

/* ---- C11 ---- */

static mtx_t mt;
static cnd_t cn;
static tss_t key;
static once_flag once_c11 = ONCE_FLAG_INIT;
static _Atomic int destroyed, once_ran;

static void destroy(void *v)
{
	destroyed += (int)(intptr_t)v;
}

static void run_once(void)
{
	once_ran++;
}

static int c11_thread(void *arg)
{
	call_once(&once_c11, run_once);
	EQ(tss_set(key, (void *)1), thrd_success);
	CHECK(tss_get(key) == (void *)1);
	for (int i = 0; i < 500; i++) {
		EQ(mtx_lock(&mt), thrd_success);
		EQ(mtx_trylock(&mt), thrd_success);
		sum++;
		EQ(mtx_unlock(&mt), thrd_success);
		EQ(mtx_unlock(&mt), thrd_success);
	}
	EQ(mtx_lock(&mt), thrd_success);
	while (!go)
		EQ(cnd_wait(&cn, &mt), thrd_success);
	EQ(mtx_unlock(&mt), thrd_success);
	thrd_yield();
	if (arg == NULL)
		thrd_exit(-7);
	return (int)(intptr_t)arg;
}

static int c11_busy(void *arg)
{
	struct timespec ts = in_ms(CLOCK_REALTIME, 10);

	(void)arg;
	EQ(mtx_trylock(&mt), thrd_busy);
	EQ(mtx_timedlock(&mt, &ts), thrd_timedout);
	return -1;
}

static _Atomic bool c11_gone;

static int c11_detached(void *arg)
{
	(void)arg;
	c11_gone = true;
	return 0;
}

static void c11(void)
{
	struct timespec ts = { 0, 1000000 };
	thrd_t t[N];
	int r;

	go = false;
	sum = 0;
	EQ(mtx_init(&mt, mtx_timed | mtx_recursive), thrd_success);
	EQ(cnd_init(&cn), thrd_success);
	EQ(tss_create(&key, destroy), thrd_success);
	for (int i = 0; i < N; i++)
		EQ(thrd_create(&t[i], c11_thread, (void *)(intptr_t)i), thrd_success);
	EQ(thrd_sleep(&ts, NULL), 0);
	EQ(mtx_lock(&mt), thrd_success);
	go = true;
	EQ(cnd_broadcast(&cn), thrd_success);
	EQ(mtx_unlock(&mt), thrd_success);
	for (int i = 0; i < N; i++) {
		EQ(thrd_join(t[i], &r), thrd_success);
		EQ(r, i ? i : -7);
	}
	EQ(sum, N * 500);
	EQ(once_ran, 1);
	EQ(destroyed, N);
	EQ(mtx_lock(&mt), thrd_success);
	EQ(thrd_create(&t[0], c11_busy, NULL), thrd_success);
	EQ(thrd_join(t[0], &r), thrd_success);
	EQ(r, -1);
	ts = in_ms(CLOCK_REALTIME, 10);
	EQ(cnd_timedwait(&cn, &mt, &ts), thrd_timedout);
	EQ(cnd_signal(&cn), thrd_success);
	EQ(mtx_unlock(&mt), thrd_success);
	CHECK(thrd_equal(thrd_current(), thrd_current()));
	EQ(thrd_create(&t[0], c11_detached, NULL), thrd_success);
	EQ(thrd_detach(t[0]), thrd_success);
	while (!c11_gone)
		thrd_yield();
	tss_delete(key);
	cnd_destroy(&cn);
}

/* ---- futexes ---- */

static _Atomic uint32_t word, word2;
static _Atomic int woken;

static long futex(_Atomic uint32_t *addr, int op, uint32_t val, void *ts, void *addr2, uint32_t val3)
{
	return syscall(SYS_futex, addr, op, val, ts, addr2, val3);
}

static void *futex_pong(void *arg)
{
	uint32_t me = (uint32_t)(intptr_t)arg;

	for (int i = 0; i < ROUNDS; i++) {
		while (word % 2 != me) {
			long r = futex(&word, FUTEX_WAIT_PRIVATE, word % 2 == me ? UINT32_MAX : !me + word / 2 * 2, NULL, NULL, 0);
			CHECK(r == 0 || errno == EAGAIN || errno == EINTR);
		}
		word++;
		futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	return NULL;
}

static void *futex_sleeper(void *arg)
{
	uint32_t bits = (uint32_t)(intptr_t)arg;

	while (word2 == 0)
		futex(&word2, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, 1u << bits);
	atomic_fetch_add(&woken, 1);
	return NULL;
}

/* How many sleep on word2: all move elsewhere and back. */
static long asleep(void)
{
	static _Atomic uint32_t elsewhere;
	long n = futex(&word2, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)INT_MAX, &elsewhere, 0);

	EQ(futex(&elsewhere, FUTEX_REQUEUE_PRIVATE, 0, (void *)INT_MAX, &word2, 0), n);
	return n;
}

static void futexes(void)
{
	struct timespec ts = { 0, 20000000 }, late = { 0, -1 };
	pthread_t t[N];
	long r;

	spawn(t, 2, futex_pong);
	reap(t, 2);
	EQ(word, 2 * ROUNDS);

	EQ(futex(&word, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0), -1);
	EQ(errno, EAGAIN);
	EQ(futex(&word, FUTEX_WAIT_PRIVATE, word, &ts, NULL, 0), -1);
	EQ(errno, ETIMEDOUT);
	EQ(futex(&word, FUTEX_WAIT_PRIVATE, word, &late, NULL, 0), -1);
	EQ(errno, EINVAL);
	ts = in_ms(CLOCK_REALTIME, 20);
	EQ(futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, word, &ts, NULL, FUTEX_BITSET_MATCH_ANY), -1);
	EQ(errno, ETIMEDOUT);
	CHECK(has_passed(CLOCK_REALTIME, &ts));
	ts = in_ms(CLOCK_MONOTONIC, 20);
	EQ(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, word, &ts, NULL, FUTEX_BITSET_MATCH_ANY), -1);
	EQ(errno, ETIMEDOUT);
	CHECK(has_passed(CLOCK_MONOTONIC, &ts));
	EQ(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, word, NULL, NULL, 0), -1);
	EQ(errno, EINVAL);
	EQ(futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 0);

	word2 = 0;
	for (int i = 0; i < 4; i++) {
		pthread_create(&t[i], NULL, futex_sleeper, (void *)(intptr_t)i);
		while (asleep() <= i)
			pause_ms(1);
	}
	EQ(futex(&word2, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)1, &word, 7), -1);
	EQ(errno, EAGAIN);
	r = futex(&word2, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)1, &word, 0); /* moves the first */
	EQ(r, 1);
	word2 = 1;
	EQ(futex(&word2, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, 1u << 2), 1);
	reap(t + 2, 1);
	word = 100;
	EQ(futex(&word2, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &word, FUTEX_OP(FUTEX_OP_SET, 5, FUTEX_OP_CMP_EQ, 100)), 2);
	EQ(word, 5);
	EQ(futex(&word2, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), 1);
	reap(t, 2);
	reap(t + 3, 1);
	EQ(woken, 4);

	EQ(syscall(SYS_getpid), getpid());
	EQ(syscall(SYS_gettid), gettid());
	EQ(syscall(SYS_close, -1), -1);
	EQ(errno, EBADF);
	EQ(syscall(SYS_sched_yield), 0);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} groups[] = {
		{ "mutex", mutexes }, { "fairness", fairness }, { "robust and pi", robust_and_pi },
		{ "broadcast", broadcast }, { "signals not lost", signals_not_lost }, { "timed cond", timed_cond },
		{ "cancel in cond", cancel_cond }, { "rwlock", rwlocks }, { "barrier", barriers },
		{ "semaphore", semaphores }, { "shared", shared_objects }, { "spin", spins }, { "once", once },
		{ "c11", c11 }, { "futex", futexes },
	};
	pthread_t t[2];

	setvbuf(stdout, NULL, _IOLBF, 0);
	spawn(t, 2, ping);
	reap(t, 2);
	for (unsigned i = 0; i < sizeof groups / sizeof *groups; i++) {
		int before = failures;

		groups[i].fn();
		printf("%s %s\n", failures == before ? "ok" : "FAILED", groups[i].name);
	}
	return failures != 0;
}
