/* SPDX-License-Identifier: MIT */
/*
 * s_mix SEED SECONDS: threads that each do a random mix of everything that waits, and sums that must hold at the end.
 *
 *   accounts   money moved between accounts under two mutexes (lock, trylock or timedlock, in order): the total stays
 *   buffer     a bounded buffer out of a mutex and two conditions: what went in came out, by count and by sum
 *   tokens     taken out of a pipe and put back: all are there at the end, each once
 *   permits    a semaphore: never more inside than permits
 *   pair       two numbers under a rwlock: readers see them equal
 *   children   threads created, joined or detached: their sum is what they were given
 *   futex      a counter by which threads wait for each other with FUTEX_WAIT and FUTEX_WAKE
 * and yields, sleeps and spins in between.  A failure is one line that says what did not hold; the last line is "ok".
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

#define THREADS 24
#define ACCOUNTS 8
#define PIPES 4
#define TOKENS 16
#define PERMITS 3
#define BUFFER 6

static pthread_mutex_t account_lock[ACCOUNTS];
static long account[ACCOUNTS];

static pthread_mutex_t buf_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_full = PTHREAD_COND_INITIALIZER, not_empty = PTHREAD_COND_INITIALIZER;
static uint64_t buf[BUFFER];
static int buf_n;

static int pipes[PIPES][2];
static sem_t permits;
static _Atomic int inside;

static pthread_rwlock_t pair_lock = PTHREAD_RWLOCK_INITIALIZER;
static long pair[2];

static _Atomic uint64_t detached_sum;
static _Atomic int detached_left;
static _Atomic uint32_t tide;

struct worker {
	pthread_t thread;
	uint64_t rnd;
	uint64_t put, got, put_sum, got_sum; /* buffer */
	uint64_t children_want, children_got, detached_want;
	long writes;
	unsigned long steps;
};

static int pick(struct worker *w, int n)
{
	return (int)(mix(&w->rnd) % (uint64_t)n);
}

/* Give others a chance to come between. */
static void pause_somehow(struct worker *w)
{
	struct timespec t = {0, pick(w, 300) * 1000L};

	switch (pick(w, 6)) {
	case 0:
		sched_yield();
		break;
	case 1:
		nanosleep(&t, NULL);
		break;
	case 2:
		for (volatile int i = 0; i < 2000; i++)
			;
		break;
	case 3:
		HOLDS(poll(NULL, 0, pick(w, 2)) == 0);
		break;
	}
}

static int take(struct worker *w, pthread_mutex_t *m)
{
	struct timespec t;
	int err;

	switch (pick(w, 4)) {
	case 0:
		err = pthread_mutex_trylock(m);
		HOLDS(err == 0 || err == EBUSY);
		return err == 0;
	case 1:
		t = in_us(CLOCK_REALTIME, pick(w, 500));
		err = pthread_mutex_timedlock(m, &t);
		HOLDS(err == 0 || err == ETIMEDOUT);
		return err == 0;
	default:
		HOLDS(pthread_mutex_lock(m) == 0);
		return 1;
	}
}

static void do_accounts(struct worker *w)
{
	int a = pick(w, ACCOUNTS), b = pick(w, ACCOUNTS);
	int lo = a < b ? a : b, hi = a < b ? b : a;
	long sum = pick(w, 100);

	if (a == b || !take(w, &account_lock[lo]))
		return;
	if (take(w, &account_lock[hi])) {
		long left = account[a] - sum;

		if (pick(w, 4) == 0)
			pause_somehow(w);
		account[b] += sum;
		account[a] = left;
		HOLDS(pthread_mutex_unlock(&account_lock[hi]) == 0);
	}
	HOLDS(pthread_mutex_unlock(&account_lock[lo]) == 0);
}

/* Waits for at most a few milliseconds: the last threads must not wait for those that have ended. */
static void do_buffer(struct worker *w)
{
	int put = pick(w, 2);
	pthread_cond_t *c = put ? &not_full : &not_empty;
	struct timespec t = in_us(CLOCK_REALTIME, 200 + pick(w, 3000));
	int err = 0;

	pthread_mutex_lock(&buf_lock);
	while (buf_n == (put ? BUFFER : 0) && err == 0)
		err = pthread_cond_timedwait(c, &buf_lock, &t);
	HOLDS(err == 0 || err == ETIMEDOUT);
	HOLDS(buf_n >= 0 && buf_n <= BUFFER);
	if (put && buf_n < BUFFER) {
		uint64_t v = mix(&w->rnd);

		buf[buf_n++] = v;
		w->put++;
		w->put_sum += v;
		pick(w, 8) ? pthread_cond_signal(&not_empty) : pthread_cond_broadcast(&not_empty);
	} else if (!put && buf_n > 0) {
		w->got++;
		w->got_sum += buf[--buf_n];
		pthread_cond_signal(&not_full);
	}
	pthread_mutex_unlock(&buf_lock);
}

static void do_token(struct worker *w)
{
	uint64_t token;
	int from = pick(w, PIPES);

	/* a token goes back to its own pipe, so a reader may have to wait, but not for ever */
	if (pick(w, 3) == 0) {
		struct pollfd p = {pipes[from][0], POLLIN, 0};

		HOLDS(poll(&p, 1, pick(w, 3)) >= 0);
	}
	ssize_t n = read(pipes[from][0], &token, sizeof token);
	HOLDS(n == sizeof token);
	if (pick(w, 4) == 0)
		pause_somehow(w);
	n = write(pipes[from][1], &token, sizeof token);
	HOLDS(n == sizeof token);
}

static void do_permit(struct worker *w)
{
	struct timespec t;
	int err = 0;

	switch (pick(w, 3)) {
	case 0:
		err = sem_trywait(&permits) ? errno : 0;
		break;
	case 1:
		t = in_us(CLOCK_REALTIME, pick(w, 800));
		err = sem_timedwait(&permits, &t) ? errno : 0;
		break;
	default:
		err = sem_wait(&permits) ? errno : 0;
	}
	HOLDS(err == 0 || err == EAGAIN || err == ETIMEDOUT);
	if (err)
		return;
	HOLDS(++inside <= PERMITS);
	if (pick(w, 3) == 0)
		pause_somehow(w);
	inside--;
	HOLDS(sem_post(&permits) == 0);
}

static void do_pair(struct worker *w)
{
	if (pick(w, 5)) {
		pthread_rwlock_rdlock(&pair_lock);
		long a = pair[0];
		if (pick(w, 8) == 0)
			pause_somehow(w);
		HOLDS(a == pair[1]);
	} else {
		pthread_rwlock_wrlock(&pair_lock);
		pair[0]++;
		if (pick(w, 4) == 0)
			pause_somehow(w);
		pair[1]++;
		w->writes++;
	}
	HOLDS(pthread_rwlock_unlock(&pair_lock) == 0);
}

static void *child(void *arg)
{
	static __thread uint64_t mine;

	mine += (uint64_t)(uintptr_t)arg;
	sched_yield();
	return (void *)(uintptr_t)mine;
}

static void *loner(void *arg)
{
	detached_sum += (uint64_t)(uintptr_t)arg;
	detached_left--;
	return NULL;
}

static void do_children(struct worker *w)
{
	pthread_t t[4];
	int n = 1 + pick(w, 4);

	if (pick(w, 6) == 0) {
		uint64_t v = mix(&w->rnd) >> 40;

		detached_left++;
		if (create(&t[0], NULL, loner, (void *)(uintptr_t)v)) {
			fail("no thread");
			return;
		}
		HOLDS(pthread_detach(t[0]) == 0);
		w->detached_want += v;
		return;
	}
	for (int i = 0; i < n; i++) {
		uint64_t v = mix(&w->rnd) >> 40;

		if (create(&t[i], NULL, child, (void *)(uintptr_t)v)) {
			fail("no thread");
			n = i;
			break;
		}
		w->children_want += v;
	}
	for (int i = 0; i < n; i++) {
		void *ret;

		HOLDS(pthread_join(t[i], &ret) == 0);
		w->children_got += (uint64_t)(uintptr_t)ret;
	}
}

/* Wait until somebody moves the counter, at most a millisecond; or move it. */
static void do_futex(struct worker *w)
{
	uint32_t seen = tide;
	struct timespec t = {0, pick(w, 1000) * 1000L};

	if (pick(w, 2)) {
		tide++;
		HOLDS(syscall(SYS_futex, &tide, FUTEX_WAKE_PRIVATE, pick(w, 2) ? 1 : INT_MAX, NULL, NULL, 0) >= 0);
		return;
	}
	long r = syscall(SYS_futex, &tide, FUTEX_WAIT_PRIVATE, seen, &t, NULL, 0);
	HOLDS(r == 0 || errno == EAGAIN || errno == ETIMEDOUT || errno == EINTR);
}

static void *work(void *arg)
{
	static void (*const act[])(struct worker *) = {do_accounts, do_buffer, do_token, do_permit, do_pair,
						       do_children, do_futex, pause_somehow, do_accounts, do_buffer};
	struct worker *w = arg;
	unsigned long steps = 0;

	while (!stop) {
		act[pick(w, (int)(sizeof act / sizeof act[0]))](w);
		steps++;
	}
	w->steps = steps;
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	static struct worker w[THREADS];
	struct worker all = {0};
	long total = 0;
	int permits_left, tokens = 0;
	uint64_t seen = 0;

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	sem_init(&permits, 0, PERMITS);
	for (int i = 0; i < ACCOUNTS; i++) {
		pthread_mutex_init(&account_lock[i], NULL);
		account[i] = 1000;
	}
	for (int i = 0; i < PIPES; i++)
		if (pipe(pipes[i]))
			return 2;
	for (uint64_t i = 0; i < TOKENS; i++)
		if (write(pipes[i % PIPES][1], &i, sizeof i) != sizeof i)
			return 2;
	for (int i = 0; i < THREADS; i++) {
		w[i].rnd = seed * 1000003u + (uint64_t)i;
		if (create(&w[i].thread, NULL, work, &w[i]))
			return 2;
	}
	nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
	stop = 1;
	for (int i = 0; i < THREADS; i++) {
		HOLDS(pthread_join(w[i].thread, NULL) == 0);
		all.put += w[i].put;
		all.got += w[i].got;
		all.put_sum += w[i].put_sum;
		all.got_sum += w[i].got_sum;
		all.children_want += w[i].children_want;
		all.children_got += w[i].children_got;
		all.detached_want += w[i].detached_want;
		all.writes += w[i].writes;
		all.steps += w[i].steps;
	}
	while (detached_left > 0)
		sched_yield();
	for (int i = 0; i < ACCOUNTS; i++)
		total += account[i];
	HOLDS(total == ACCOUNTS * 1000);
	all.got += (uint64_t)buf_n;
	while (buf_n > 0)
		all.got_sum += buf[--buf_n];
	HOLDS(all.put == all.got);
	HOLDS(all.put_sum == all.got_sum);
	for (int i = 0; i < PIPES; i++) {
		struct pollfd p = {pipes[i][0], POLLIN, 0};
		uint64_t token;

		while (poll(&p, 1, 0) == 1 && read(p.fd, &token, sizeof token) == sizeof token) {
			HOLDS(token < TOKENS && !(seen & (1ull << token)));
			seen |= 1ull << (token & 63);
			tokens++;
		}
	}
	HOLDS(tokens == TOKENS);
	HOLDS(sem_getvalue(&permits, &permits_left) == 0 && permits_left == PERMITS);
	HOLDS(pair[0] == pair[1] && pair[0] == all.writes);
	HOLDS(all.children_want == all.children_got);
	HOLDS(all.detached_want == detached_sum);
	fprintf(stderr, "%lu steps\n", all.steps);
	puts(failures ? "failed" : "ok");
	return failures != 0;
}
