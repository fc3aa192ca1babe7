/* SPDX-License-Identifier: MIT */
/*
 * s_sync SEED SECONDS: every object that threads wait on, mostly with time-outs that race with the wake-up.  A time-out must
 * leave nothing behind: no permit, lock or place is lost or given twice.  The last line is "ok".
 */
#include <semaphore.h>

#include "stress.h"

#define THREADS 16
#define PERMITS 3

static pthread_mutex_t kinds[4]; /* normal, recursive, error checking, adaptive */
static long under[4];
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static long pair[2];
static sem_t permits;
static _Atomic int inside;
static pthread_mutex_t box_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t box_full, box_empty = PTHREAD_COND_INITIALIZER;
static int box; /* 0 empty */
static _Atomic long put, taken;
static pthread_spinlock_t spin;
static long spun;
static pthread_barrier_t meet;
static _Atomic int arrived;
static _Atomic long counts[4], writes, spins;

static void do_mutex(uint64_t *rnd)
{
	int k = (int)(mix(rnd) % 4), err;
	struct timespec ts = in_us(CLOCK_REALTIME, (long)(mix(rnd) % 300)), tm = in_us(CLOCK_MONOTONIC, (long)(mix(rnd) % 300));

	switch (mix(rnd) % 4) {
	case 0: err = pthread_mutex_trylock(&kinds[k]); break;
	case 1: err = pthread_mutex_timedlock(&kinds[k], &ts); break;
	case 2: err = pthread_mutex_clocklock(&kinds[k], CLOCK_MONOTONIC, &tm); break;
	default: err = pthread_mutex_lock(&kinds[k]);
	}
	HOLDS(err == 0 || err == EBUSY || err == ETIMEDOUT);
	if (err)
		return;
	under[k]++;
	counts[k]++;
	if (mix(rnd) % 8 == 0)
		usleep((useconds_t)(mix(rnd) % 100));
	HOLDS(pthread_mutex_unlock(&kinds[k]) == 0);
}

static void do_rwlock(uint64_t *rnd)
{
	struct timespec ts = in_us(CLOCK_REALTIME, (long)(mix(rnd) % 300));
	int err;

	if (mix(rnd) % 3) {
		err = mix(rnd) % 2 ? pthread_rwlock_timedrdlock(&rw, &ts) : pthread_rwlock_rdlock(&rw);
		if (err == 0)
			HOLDS(pair[0] == pair[1]);
	} else {
		err = mix(rnd) % 2 ? pthread_rwlock_timedwrlock(&rw, &ts) : pthread_rwlock_wrlock(&rw);
		if (err == 0) {
			pair[0]++;
			if (mix(rnd) % 4 == 0)
				sched_yield();
			pair[1]++;
			writes++;
		}
	}
	HOLDS(err == 0 || err == ETIMEDOUT);
	if (err == 0)
		HOLDS(pthread_rwlock_unlock(&rw) == 0);
}

static void do_sem(uint64_t *rnd)
{
	struct timespec ts = in_us(CLOCK_REALTIME, (long)(mix(rnd) % 300));
	int r = mix(rnd) % 2 ? sem_timedwait(&permits, &ts) : sem_wait(&permits);

	HOLDS(r == 0 || errno == ETIMEDOUT);
	if (r)
		return;
	HOLDS(++inside <= PERMITS);
	if (mix(rnd) % 4 == 0)
		usleep((useconds_t)(mix(rnd) % 100));
	inside--;
	HOLDS(sem_post(&permits) == 0);
}

static void do_box(uint64_t *rnd)
{
	int give = (int)(mix(rnd) % 2), err = 0;
	long us = (long)(mix(rnd) % 400);
	struct timespec tm = in_us(CLOCK_MONOTONIC, us), ts = in_us(CLOCK_REALTIME, us);

	pthread_mutex_lock(&box_lock);
	while (err == 0 && (give ? box : !box))
		err = give ? pthread_cond_timedwait(&box_empty, &box_lock, &ts) : pthread_cond_timedwait(&box_full, &box_lock, &tm);
	HOLDS(err == 0 || err == ETIMEDOUT);
	if (give ? !box : box) {
		box = give;
		(*(give ? &put : &taken))++;
		if (mix(rnd) % 4 == 0)
			pthread_cond_broadcast(give ? &box_full : &box_empty);
		else
			pthread_cond_signal(give ? &box_full : &box_empty);
	}
	pthread_mutex_unlock(&box_lock);
}

static void *work(void *arg)
{
	uint64_t rnd = (uint64_t)(uintptr_t)arg;

	while (!stop) {
		switch (mix(&rnd) % 6) {
		case 0: do_mutex(&rnd); break;
		case 1: do_rwlock(&rnd); break;
		case 2: do_sem(&rnd); break;
		case 3: do_box(&rnd); break;
		case 4:
			pthread_spin_lock(&spin);
			spun++;
			pthread_spin_unlock(&spin);
			spins++;
			break;
		default: usleep((useconds_t)(mix(&rnd) % 200));
		}
	}
	/* All meet once more: nobody is stuck. */
	arrived++;
	pthread_barrier_wait(&meet);
	HOLDS(arrived == THREADS);
	return NULL;
}

int main(int argc, char **argv)
{
	static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_ADAPTIVE_NP};
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	double seconds = argc > 2 ? atof(argv[2]) : 2;
	pthread_t t[THREADS];
	pthread_mutexattr_t ma;
	pthread_condattr_t ca;
	int left;

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	pthread_mutexattr_init(&ma);
	for (int i = 0; i < 4; i++) {
		pthread_mutexattr_settype(&ma, types[i]);
		pthread_mutex_init(&kinds[i], &ma);
	}
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&box_full, &ca);
	pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
	pthread_barrier_init(&meet, NULL, THREADS);
	sem_init(&permits, 0, PERMITS);
	for (uint64_t i = 0; i < THREADS; i++)
		if (create(&t[i], NULL, work, (void *)(uintptr_t)(seed * 6151 + i)))
			return 2;
	sleep_for(seconds);
	stop = 1;
	for (int i = 0; i < THREADS; i++)
		HOLDS(pthread_join(t[i], NULL) == 0);
	for (int i = 0; i < 4; i++)
		HOLDS(under[i] == counts[i]);
	HOLDS(pair[0] == pair[1] && pair[0] == writes);
	HOLDS(put == taken + box);
	HOLDS(spun == spins);
	HOLDS(sem_getvalue(&permits, &left) == 0 && left == PERMITS);
	return verdict();
}
