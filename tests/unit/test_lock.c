/* SPDX-License-Identifier: MIT */
/* core/lock.h, in both variants: exclusion, no lost wake-up, and a lock that is freed as soon as it was taken. */
#include <string.h>
#include <sys/mman.h>

#include "tests/unit/support.h"

enum { THREADS = 4, ROUNDS = 20000, FREES = 300 };

static struct pg_lock lock;
static unsigned long counter, shadow[8]; /* protected by lock */
static _Atomic uint32_t torn, entered, barged;

static void zero_is_unlocked(void)
{
	struct pg_lock l = {0};

	assert_true(strcmp(pg_lock_variant, "futex") == 0 || strcmp(pg_lock_variant, "sema") == 0);
	assert_true(pg_trylock(&l));
	assert_false(pg_trylock(&l));
	pg_unlock(&l);
	pg_lock(&l);
	assert_false(pg_trylock(&l));
	pg_unlock(&l);
	assert_int_equal(atomic_load(&l.key), 0);
}

static void *contend(void *arg)
{
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (int i = 0; i < ROUNDS; i++) {
		if (unit_rand(&rng, 4) == 0) {
			if (!pg_trylock(&lock)) {
				atomic_fetch_add(&barged, 1);
				pg_lock(&lock);
			}
		} else {
			pg_lock(&lock);
		}
		if (atomic_fetch_add(&entered, 1) != 0)
			atomic_fetch_add(&torn, 1);
		counter++;
		for (int k = 0; k < 8; k++)
			if (shadow[k]++ != counter - 1)
				atomic_fetch_add(&torn, 1);
		if (unit_rand(&rng, 1000) == 0)
			unit_yield(); /* an OS thread: the holder is off its processor while others sleep */
		atomic_fetch_sub(&entered, 1);
		pg_unlock(&lock);
		for (uint32_t k = unit_rand(&rng, 50); k > 0; k--)
			pg_cpu_relax();
	}
	return NULL;
}

static void excludes(void)
{
	unsigned long t[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		t[i] = unit_os(contend, (void *)i);
	for (int i = 0; i < THREADS; i++)
		unit_os_join(t[i]);
	assert_int_equal(torn, 0);
	assert_int_equal(counter, THREADS * ROUNDS);
	assert_int_equal(atomic_load(&lock.key), 0);
}

static _Atomic uint32_t waiting, passed;

static void *pass(void *arg)
{
	(void)arg;
	atomic_fetch_add(&waiting, 1);
	pg_lock(&lock);
	atomic_fetch_add(&passed, 1);
	pg_unlock(&lock);
	return NULL;
}

/* All of them sleep on the lock when it is let go once. */
static void wakes_every_sleeper(void)
{
	unsigned long t[THREADS];

	for (int round = 0; round < 40; round++) {
		waiting = passed = 0;
		pg_lock(&lock);
		for (int i = 0; i < THREADS; i++)
			t[i] = unit_os(pass, NULL);
		unit_await(&waiting, THREADS);
		if (round % 2)
			unit_sleep(1000000);
		assert_int_equal(passed, 0);
		pg_unlock(&lock);
		for (int i = 0; i < THREADS; i++)
			unit_os_join(t[i]);
		assert_int_equal(passed, THREADS);
		assert_int_equal(atomic_load(&lock.key), 0);
	}
}

static _Atomic(struct pg_lock *) victim;
static _Atomic uint32_t freed;

static void *taker(void *arg)
{
	struct pg_lock *l;

	(void)arg;
	for (int i = 0; i < FREES; i++) {
		while ((l = atomic_exchange(&victim, NULL)) == NULL)
			unit_yield();
		pg_lock(l);
		munmap(l, 4096);
		atomic_store(&freed, (uint32_t)i + 1);
	}
	return NULL;
}

/* The unlocking store is the last access: who has the lock may unmap it. */
static void unlock_touches_last(void)
{
	unsigned long t = unit_os(taker, NULL);
	uint64_t rng = unit_rng(1);

	for (int i = 0; i < FREES; i++) {
		struct pg_lock *l = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_ptr_not_equal(l, MAP_FAILED);
		pg_lock(l);
		atomic_store(&victim, l);
		for (uint32_t k = unit_rand(&rng, 5000); k > 0; k--)
			pg_cpu_relax();
		pg_unlock(l);
		unit_await(&freed, (uint32_t)i + 1);
	}
	unit_os_join(t);
}

static void *green_contend(void *arg)
{
	struct pg_g *g = pg_self();
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (int i = 0; i < ROUNDS / 8; i++) {
		pg_rt_enter(g);
		pg_lock(&lock);
		counter++;
		pg_unlock(&lock);
		pg_rt_exit(g);
		if (unit_rand(&rng, 64) == 0)
			unit_yield();
	}
	return NULL;
}

/* Gs and OS threads on one lock. */
static void shared_by_greens_and_threads(void)
{
	struct pg_g *g[8];
	unsigned long t[2];

	for (uintptr_t i = 0; i < 8; i++)
		g[i] = unit_go(green_contend, (void *)i);
	for (uintptr_t i = 0; i < 2; i++)
		t[i] = unit_os(green_contend, (void *)(i + 8));
	for (int i = 0; i < 8; i++)
		unit_join(g[i]);
	for (int i = 0; i < 2; i++)
		unit_os_join(t[i]);
	assert_int_equal(counter, 10 * (ROUNDS / 8));
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(zero_is_unlocked),
	UNIT_NATIVE(excludes),
	UNIT_NATIVE(wakes_every_sleeper),
	UNIT_NATIVE(unlock_touches_last),
	UNIT_GREEN(shared_by_greens_and_threads, UNIT_ALL),
};
UNIT_MAIN(tests)
