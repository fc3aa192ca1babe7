/* SPDX-License-Identifier: MIT */
/* core/runq.c by itself: Ps and Gs made by hand, no scheduler. */
#include <string.h>

#include "tests/unit/support.h"

enum { NGS = 1024, THIEVES = 3 };

static struct pg_p ps[THIEVES + 1];
static struct pg_g gs[NGS];
static _Atomic uint32_t seen[NGS];

static void setup(int n)
{
	memset(ps, 0, sizeof ps);
	memset(&pg_sched.runq, 0, sizeof pg_sched.runq);
	atomic_store(&pg_sched.runqsize, 0);
	pg_allp = ps;
	pg_nprocs = n;
}

static void fifo_after_runnext(void)
{
	for (int n = 1; n <= 2; n++) {
		setup(n);
		assert_true(pg_runqempty(&ps[0]));
		assert_null(pg_runqget(&ps[0]));
		pg_runqput(&ps[0], &gs[0], false);
		pg_runqput(&ps[0], &gs[1], false);
		pg_runqput(&ps[0], &gs[2], true);
		assert_false(pg_runqempty(&ps[0]));
		pg_runqput(&ps[0], &gs[3], true); /* gs[2] goes behind */
		assert_ptr_equal(pg_runqget(&ps[0]), &gs[3]);
		assert_ptr_equal(pg_runqget(&ps[0]), &gs[0]);
		assert_ptr_equal(pg_runqget(&ps[0]), &gs[1]);
		assert_false(pg_runqempty(&ps[0]));
		assert_ptr_equal(pg_runqget(&ps[0]), &gs[2]);
		assert_true(pg_runqempty(&ps[0]));
		pg_runqput(&ps[0], &gs[4], true);
		assert_false(pg_runqempty(&ps[0]));
		assert_ptr_equal(pg_runqget(&ps[0]), &gs[4]);
		assert_null(pg_runqget(&ps[0]));
	}
}

/* A pair that goes through runnext for ever lets the ring have its turn. */
static void runnext_does_not_starve_ring(void)
{
	for (int n = 1; n <= 2; n++) {
		int turns = 0;
		setup(n);
		pg_runqput(&ps[0], &gs[9], false);
		for (; turns < 1000; turns++) {
			pg_runqput(&ps[0], &gs[turns % 2], true);
			if (pg_runqget(&ps[0]) == &gs[9])
				break;
		}
		assert_true(turns < 1000);
	}
}

static void overflow_goes_global(void)
{
	uint32_t n = 0;
	struct pg_g *g;

	setup(2);
	memset(seen, 0, sizeof seen);
	for (int i = 0; i <= PG_RUNQ; i++)
		pg_runqput(&ps[0], &gs[i], false);
	assert_int_equal(atomic_load(&pg_sched.runqsize), PG_RUNQ / 2 + 1);
	assert_int_equal(pg_sched.runq.n, PG_RUNQ / 2 + 1);
	/* The oldest half went, and the one that did not fit is behind them. */
	assert_ptr_equal(pg_sched.runq.head, &gs[0]);
	assert_ptr_equal(pg_sched.runq.tail, &gs[PG_RUNQ]);
	while ((g = pg_runqget(&ps[0])))
		n += ++seen[g - gs];
	assert_int_equal(n, PG_RUNQ / 2);
	for (;;) {
		pg_lock(&pg_sched.lock);
		g = pg_globget(&ps[0], 0);
		pg_unlock(&pg_sched.lock);
		if (g == NULL)
			break;
		for (; g; g = pg_runqget(&ps[0]))
			n += ++seen[g - gs];
	}
	assert_int_equal(n, PG_RUNQ + 1);
	for (int i = 0; i <= PG_RUNQ; i++)
		assert_int_equal(seen[i], 1);
	assert_int_equal(pg_sched.runq.n, 0);
	assert_null(pg_sched.runq.tail);
}

static void global_list_is_shared(void)
{
	struct pg_g *g;

	setup(2);
	for (int i = 0; i < 10; i++)
		pg_globput(&gs[i]);
	pg_lock(&pg_sched.lock);
	g = pg_globget(&ps[0], 1);
	assert_ptr_equal(g, &gs[0]);
	assert_true(pg_runqempty(&ps[0]));
	g = pg_globget(&ps[0], 0); /* its share: 9/2 + 1 */
	pg_unlock(&pg_sched.lock);
	assert_ptr_equal(g, &gs[1]);
	for (int i = 2; i <= 5; i++)
		assert_ptr_equal(pg_runqget(&ps[0]), &gs[i]);
	assert_null(pg_runqget(&ps[0]));
	assert_int_equal(atomic_load(&pg_sched.runqsize), 4);
}

/* Taking from the global list with a ring that has no room loses nothing. */
static void global_list_meets_full_ring(void)
{
	struct pg_g *g;

	setup(1);
	for (int i = 0; i < PG_RUNQ; i++)
		pg_runqput(&ps[0], &gs[i], false);
	for (int i = 0; i < 5; i++)
		pg_globput(&gs[500 + i]);
	pg_lock(&pg_sched.lock);
	g = pg_globget(&ps[0], 0);
	pg_unlock(&pg_sched.lock);
	assert_ptr_equal(g, &gs[500]);
	assert_int_equal(pg_sched.runq.n, 4);
	assert_ptr_equal(pg_sched.runq.head, &gs[501]);
	assert_ptr_equal(pg_sched.runq.tail, &gs[504]);
	assert_int_equal(atomic_load(&pg_sched.runqsize), 4);
}

static void thief_takes_half(void)
{
	struct pg_g *g;

	setup(2);
	assert_null(pg_runqsteal(&ps[1], &ps[0], true));
	for (int i = 0; i < 7; i++)
		pg_runqput(&ps[0], &gs[i], false);
	pg_runqput(&ps[0], &gs[7], true);
	g = pg_runqsteal(&ps[1], &ps[0], false); /* four of seven: the last of them is returned */
	assert_ptr_equal(g, &gs[3]);
	for (int i = 0; i < 3; i++)
		assert_ptr_equal(pg_runqget(&ps[1]), &gs[i]);
	assert_ptr_equal(pg_runqget(&ps[0]), &gs[7]);
	for (int i = 4; i < 7; i++)
		assert_ptr_equal(pg_runqget(&ps[0]), &gs[i]);
	/* runnext alone is taken only when asked for. */
	pg_runqput(&ps[0], &gs[8], true);
	assert_null(pg_runqsteal(&ps[1], &ps[0], false));
	assert_ptr_equal(pg_runqsteal(&ps[1], &ps[0], true), &gs[8]);
	assert_true(pg_runqempty(&ps[0]));
}

static _Atomic uint32_t taken, over;

static void count(struct pg_g *g)
{
	atomic_fetch_add(&seen[g - gs], 1);
	atomic_fetch_add(&taken, 1);
}

static void *thief(void *arg)
{
	struct pg_p *p = arg;
	uint64_t rng = unit_rng((uint64_t)(p - ps));
	struct pg_g *g;

	while (!over) {
		g = pg_runqsteal(p, &ps[0], unit_rand(&rng, 2));
		if (g == NULL) {
			unit_yield();
			continue;
		}
		for (; g; g = pg_runqget(p))
			count(g);
	}
	return NULL;
}

/* Every G that the owner queues comes out once, wherever. */
static void nothing_lost_to_thieves(void)
{
	unsigned long t[THIEVES];
	uint64_t rng = unit_rng(100);
	struct pg_g *g;

	setup(THIEVES + 1);
	for (int i = 0; i < THIEVES; i++)
		t[i] = unit_os(thief, &ps[i + 1]);
	for (uint32_t round = 1; round <= 200; round++) {
		for (int i = 0; i < NGS;) {
			for (uint32_t n = unit_rand(&rng, 40); n > 0 && i < NGS; n--)
				pg_runqput(&ps[0], &gs[i++], unit_rand(&rng, 3) == 0);
			for (uint32_t n = unit_rand(&rng, 30); n > 0 && (g = pg_runqget(&ps[0])); n--)
				count(g);
		}
		while (taken < round * NGS) {
			while ((g = pg_runqget(&ps[0])))
				count(g);
			pg_lock(&pg_sched.lock);
			g = pg_globget(&ps[0], 0);
			pg_unlock(&pg_sched.lock);
			if (g)
				count(g);
			else
				unit_yield();
		}
	}
	over = 1;
	for (int i = 0; i < THIEVES; i++)
		unit_os_join(t[i]);
	for (int i = 0; i < NGS; i++)
		assert_int_equal(seen[i], 200);
	for (int i = 0; i <= THIEVES; i++)
		assert_true(pg_runqempty(&ps[i]));
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(fifo_after_runnext),
	UNIT_NATIVE(runnext_does_not_starve_ring),
	UNIT_NATIVE(overflow_goes_global),
	UNIT_NATIVE(global_list_is_shared),
	UNIT_NATIVE(global_list_meets_full_ring),
	UNIT_NATIVE(thief_takes_half),
	UNIT_NATIVE(nothing_lost_to_thieves),
};
UNIT_MAIN(tests)
