/* SPDX-License-Identifier: MIT */
/* core/cputime.c: clocks of threads that spin, wait, move and get wired; core/wire.c: later means later; core/clock.c. */
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/cputime.h"
#include "tests/unit/support.h"

enum { NS = 4, MS = 1000000, WORK = 6 * MS };

static _Atomic uint32_t n, stop, bad;

static int64_t process_time(void)
{
	struct timespec ts;

	pg_sys(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void monotonic_time(void)
{
	struct timespec a, b;

	for (int i = 0; i < 1000; i++) {
		pg_sys(SYS_clock_gettime, CLOCK_MONOTONIC, &a);
		int64_t now = pg_now();
		pg_sys(SYS_clock_gettime, CLOCK_MONOTONIC, &b);
		assert_true((int64_t)a.tv_sec * 1000000000 + a.tv_nsec <= now);
		assert_true((int64_t)b.tv_sec * 1000000000 + b.tv_nsec >= now);
	}
}

/* Yields and looks at its own clock all the time. */
static void *spin(void *arg)
{
	struct pg_g *g = pg_self();
	int64_t was = 0, is, since = pg_now();
	bool wire = arg != NULL;

	atomic_fetch_add(&n, 1);
	while (!atomic_load(&stop)) {
		is = pg_cputime(g);
		if (is < was || is > pg_now() - since + 20 * MS) /* it began a little before */
			atomic_store(&bad, 1);
		was = is;
		if (wire && is > WORK / 2) {
			pg_rt_enter(g);
			pg_wire(g);
			pg_rt_exit(g);
			wire = false;
		}
		pg_yield();
	}
	return NULL;
}

/* Waits for an end that comes when nobody looks at its clock any more. */
static void *sleep_on(void *arg)
{
	(void)arg;
	atomic_fetch_add(&n, 1);
	while (!atomic_load(&stop))
		unit_sleep(MS);
	return NULL;
}

static void clocks(bool wire)
{
	struct pg_g *g[NS], *idle;
	int64_t was[NS] = {0}, is, sum, least;

	idle = unit_go(sleep_on, NULL);
	for (int i = 0; i < NS; i++)
		g[i] = unit_go(spin, wire && i % 2 ? (void *)1 : NULL);
	unit_await(&n, NS + 1);
	do {
		sum = 0;
		least = INT64_MAX;
		for (int i = 0; i < NS; i++) {
			is = pg_cputime(g[i]);
			assert_true(is >= was[i]);
			was[i] = is;
			sum += is;
			if (is < least)
				least = is;
		}
		assert_true(sum <= process_time() + 20 * MS);
		unit_sleep(MS);
	} while (least < WORK);
	is = pg_cputime(idle);
	for (int i = 0; i < NS; i++)
		assert_true(is < was[i]);
	atomic_store(&stop, 1);
	for (int i = 0; i < NS; i++)
		unit_join(g[i]);
	unit_join(idle);
	assert_int_equal(bad, 0);
}

static void sum_and_order(void) { clocks(false); }
static void wired_on_the_way(void) { clocks(true); }

static void *until_wired(void *arg)
{
	struct pg_g *g = pg_self();
	bool sleeps = arg != NULL;

	atomic_fetch_add(&n, 1);
	while (*(volatile uint32_t *)&g->mode == PG_GREEN)
		if (sleeps)
			unit_sleep(MS);
	if (atomic_load(&g->ostid) != (int)pg_sys(SYS_gettid))
		atomic_store(&bad, 1);
	return NULL;
}

/* One that sleeps, and one that never enters the runtime: it is wired when it is preempted. */
static void wired_from_outside(void)
{
	struct pg_g *self = pg_self(), *a = unit_go(until_wired, NULL), *b = unit_go(until_wired, (void *)1);
	unsigned long cpus[PG_CPUWORDS], got[PG_CPUWORDS];

	unit_await(&n, 2);
	assert_true(pg_sys(SYS_sched_getaffinity, 0, sizeof cpus, memset(cpus, 0, sizeof cpus)) > 0);
	pg_rt_enter(self);
	assert_false(pg_cpus_get(a, got));
	assert_int_equal(pg_cpus_set(a, cpus), 0);
	assert_true(pg_cpus_get(a, got));
	assert_memory_equal(cpus, got, sizeof cpus);
	pg_wire_later(a);
	pg_wire_later(b);
	pg_rt_exit(self);
	unit_join(a);
	unit_join(b);
	assert_int_equal(bad, 0);
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(monotonic_time),
	UNIT_GREEN(sum_and_order, UNIT_ALL),
	UNIT_GREEN(wired_on_the_way, UNIT_ALL),
	UNIT_GREEN(wired_from_outside, UNIT_ALL),
};
UNIT_MAIN(tests)
