/* SPDX-License-Identifier: MIT */
/* core/timer.c: the heap by itself on a P made by hand, then deadlines of sleeping Gs. */
#include <string.h>

#include "tests/unit/support.h"

enum { NGS = 1500, SLEEPERS = 300 };

static struct pg_p ps[2];
static struct pg_g gs[NGS];

static void setup(void)
{
	memset(ps, 0, sizeof ps);
	pg_allp = ps;
	pg_nprocs = 2;
	for (int i = 0; i < 2; i++)
		atomic_store(&ps[i].timer0, PG_FOREVER);
	for (int i = 0; i < NGS; i++) {
		memset(&gs[i], 0, sizeof gs[i]);
		gs[i].timer.idx = -1;
		atomic_store(&gs[i].wait, PG_W_PREP); /* a wake-up marks it and does nothing more */
	}
}

static bool sound(struct pg_p *p)
{
	for (int i = 0; i < p->nheap; i++) {
		if (p->heap[i].g->timer.idx != i || p->heap[i].g->timer.p != p || p->heap[i].when != p->heap[i].g->timer.when)
			return false;
		if (i > 0 && p->heap[(i - 1) / 4].when > p->heap[i].when)
			return false;
	}
	return atomic_load(&p->timer0) == (p->nheap ? p->heap[0].when : PG_FOREVER);
}

static bool timed_out(struct pg_g *g)
{
	return atomic_load(&g->wait) == (PG_W_WOKEN | PG_WHY_TIMEOUT);
}

static void empty_heap(void)
{
	setup();
	assert_true(pg_timers_next() == PG_FOREVER);
	assert_int_equal(pg_timers_run(&ps[0], PG_FOREVER - 1), 0);
	pg_timer_add(&ps[0], &gs[0], 10);
	pg_timer_add(&ps[1], &gs[1], 5);
	assert_int_equal(pg_timers_next(), 5);
	assert_int_equal(pg_timers_run(&ps[0], 9), 0);
	assert_int_equal(pg_timers_run(&ps[0], 10), 1);
	assert_true(timed_out(&gs[0]));
	pg_timer_del(&gs[0]); /* its own, after the heap let it go: nothing */
	pg_timer_del(&gs[1]);
	assert_false(timed_out(&gs[1]));
	assert_true(pg_timers_next() == PG_FOREVER);
}

/* Adds, deletes and runs at random, against a plain list. */
static void heap_against_list(void)
{
	uint64_t rng = unit_rng(7);
	int64_t now = 0;
	bool in[NGS] = {false};
	int n = 0;

	setup();
	for (int step = 0; step < 6000; step++) {
		uint32_t i = unit_rand(&rng, NGS);
		switch (unit_rand(&rng, 8)) {
		case 0: {
			int due = 0;
			now += unit_rand(&rng, 20);
			for (int k = 0; k < NGS; k++)
				due += in[k] && gs[k].timer.when <= now;
			assert_int_equal(pg_timers_run(&ps[0], now), due);
			for (int k = 0; k < NGS; k++) {
				bool was_due = in[k] && gs[k].timer.when <= now;
				assert_int_equal(timed_out(&gs[k]), was_due);
				if (was_due) {
					assert_int_equal(gs[k].timer.idx, -1);
					in[k] = false;
					n--;
					atomic_store(&gs[k].wait, PG_W_PREP);
				}
			}
			break;
		}
		case 1:
		case 2:
			if (in[i]) {
				pg_timer_del(&gs[i]);
				assert_int_equal(gs[i].timer.idx, -1);
				in[i] = false;
				n--;
			}
			break;
		default:
			if (!in[i]) {
				pg_timer_add(&ps[0], &gs[i], now + unit_rand(&rng, 1000)); /* many equal ones */
				in[i] = true;
				n++;
			}
		}
		assert_int_equal(ps[0].nheap, n);
		if (step % 16 == 0)
			assert_true(sound(&ps[0]));
	}
	assert_int_equal(pg_timers_run(&ps[0], PG_FOREVER - 1), n);
	assert_true(sound(&ps[0]));
	assert_true(ps[0].capheap >= 512);
}

/* More than one heap block, all due at once. */
static void heap_grows(void)
{
	setup();
	for (int i = 0; i < NGS; i++)
		pg_timer_add(&ps[0], &gs[i], NGS - i);
	assert_true(sound(&ps[0]));
	assert_int_equal(pg_timers_next(), 1);
	assert_int_equal(pg_timers_run(&ps[0], NGS / 2), NGS / 2);
	assert_true(sound(&ps[0]));
	for (int i = 0; i < NGS; i++)
		assert_int_equal(timed_out(&gs[i]), NGS - i <= NGS / 2);
}

static _Atomic uint32_t early, slept;

static void *sleeper(void *arg)
{
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (int i = 0; i < 5; i++) {
		int64_t until = pg_now() + unit_rand(&rng, 3000000);
		if (pg_sleep_until(until, PG_WAIT_sleep) != 0 || pg_now() < until)
			atomic_fetch_add(&early, 1);
		atomic_fetch_add(&slept, 1);
	}
	return NULL;
}

static void sleepers_are_never_early(void)
{
	struct pg_g *g[SLEEPERS];

	for (uintptr_t i = 0; i < SLEEPERS; i++)
		g[i] = unit_go(sleeper, (void *)i);
	for (int i = 0; i < SLEEPERS; i++)
		unit_join(g[i]);
	assert_int_equal(early, 0);
	assert_int_equal(slept, 5 * SLEEPERS);
	assert_true(pg_timers_next() == PG_FOREVER);
	assert_int_equal(pg_sleep_until(0, PG_WAIT_sleep), 0); /* past: at once */
}

static _Atomic uint32_t stop;

static void *spinner(void *arg)
{
	(void)arg;
	while (!stop)
		pg_cpu_relax();
	return NULL;
}

/* A P whose G computes: its timers are run by others, or by preemption. */
static void sleepers_beside_spinners(void)
{
	struct pg_g *s[9];

	for (int i = 0; i < pg_nprocs + 1; i++)
		s[i] = unit_go(spinner, NULL);
	for (int i = 0; i < 3; i++)
		unit_sleep(1000000);
	stop = 1;
	for (int i = 0; i < pg_nprocs + 1; i++)
		unit_join(s[i]);
}

static struct pg_g *_Atomic parked;
static _Atomic uint32_t wakes, woken_ready, woken_late, timeouts, round_no, waker_done;

static void *waker(void *arg)
{
	uint64_t rng = unit_rng(11);
	struct pg_g *self = pg_self();
	uint32_t seen = 0;

	(void)arg;
	while (!stop) {
		uint32_t r = atomic_load(&round_no);
		if (r == seen) {
			unit_yield();
			continue;
		}
		seen = r;
		unit_chaos(&rng);
		pg_rt_enter(self);
		if (pg_wake(parked, PG_WHY_READY))
			atomic_fetch_add(&wakes, 1);
		pg_rt_exit(self);
	}
	atomic_store(&waker_done, 1);
	return NULL;
}

/* One of the two ends each wait, and the one that did is the one that is told. */
static void deadline_meets_wakeup(void)
{
	struct pg_g *self = pg_self(), *w;
	uint64_t rng = unit_rng(12);

	atomic_store(&parked, self);
	w = unit_go(waker, NULL);
	for (int i = 0; i < 3000; i++) {
		unsigned why;
		int64_t until;
		pg_rt_enter(self);
		pg_wait_prepare(self);
		atomic_fetch_add(&round_no, 1);
		until = pg_now() + unit_rand(&rng, 40000);
		why = pg_park(self, until, PG_WAIT_other);
		pg_rt_exit(self);
		if (why == PG_WHY_READY)
			woken_ready++;
		else if (why == PG_WHY_TIMEOUT && pg_now() >= until)
			timeouts++;
		else if (why == PG_WHY_TIMEOUT)
			woken_late++;
		assert_int_equal(self->timer.idx, -1);
	}
	stop = 1;
	unit_await(&waker_done, 1); /* the wait of a join could be ended by it, too */
	assert_true(woken_ready >= wakes); /* a late timer of an earlier wait may have ended one as well */
	assert_int_equal(woken_late, 0);
	unit_join(w);
	assert_int_equal(woken_ready + timeouts, 3000);
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(empty_heap),
	UNIT_NATIVE(heap_against_list),
	UNIT_NATIVE(heap_grows),
	UNIT_GREEN(sleepers_are_never_early, UNIT_ALL),
	UNIT_GREEN(sleepers_beside_spinners, UNIT_ALL),
	UNIT_GREEN(deadline_meets_wakeup, UNIT_ALL),
};
UNIT_MAIN(tests)
