/* SPDX-License-Identifier: MIT */
/* core/sched.c: the two phases of a park, claims, yields, joins, preemption, wiring. */
#include <sys/syscall.h>

#include "tests/unit/support.h"

static _Atomic uint32_t n, stop, bad;

/* ---- beginning and end ---- */

static void *twice(void *arg)
{
	return (void *)((uintptr_t)arg * 2);
}

static void join_gives_result(void)
{
	for (uintptr_t i = 0; i < 300; i++)
		assert_int_equal((uintptr_t)unit_join(unit_go(twice, (void *)i)), 2 * i);
	assert_int_equal(pg_start(), 0); /* idempotent */
}

static void *count(void *arg)
{
	(void)arg;
	atomic_fetch_add(&n, 1);
	return NULL;
}

static void burst(void)
{
	static struct pg_g *g[2000];

	for (int i = 0; i < 2000; i++)
		g[i] = unit_go(count, NULL);
	for (int i = 0; i < 2000; i++)
		unit_join(g[i]);
	assert_int_equal(n, 2000);
	for (int i = 0; i < 2000; i++)
		unit_detached(count, NULL);
	unit_await(&n, 4000);
	while (atomic_load(&pg_nthreads) != 1)
		unit_yield();
}

static void *tree(void *arg)
{
	uintptr_t depth = (uintptr_t)arg;

	atomic_fetch_add(&n, 1);
	if (depth > 0) {
		struct pg_g *a = unit_go(tree, (void *)(depth - 1)), *b = unit_go(tree, (void *)(depth - 1));
		unit_join(a);
		unit_join(b);
	}
	return NULL;
}

static void tree_of_threads(void)
{
	unit_join(unit_go(tree, (void *)9));
	assert_int_equal(n, 1023);
}

static struct pg_g *first_seen[64];

static void *identity(void *arg)
{
	struct pg_g *self = pg_self();

	first_seen[(uintptr_t)arg] = self;
	for (int i = 0; i < 50; i++) {
		unit_yield();
		if (pg_self() != self || pg_arch_tp() != self->tcb || self->magic != PG_MAGIC)
			atomic_fetch_add(&bad, 1);
	}
	return (void *)(uintptr_t)self->tid;
}

static void each_is_itself(void)
{
	struct pg_g *g[64];
	uint32_t tid[64];

	for (uintptr_t i = 0; i < 64; i++)
		g[i] = unit_go(identity, (void *)i);
	for (int i = 0; i < 64; i++) {
		struct pg_g *me = g[i];
		tid[i] = (uint32_t)(uintptr_t)unit_join(g[i]);
		assert_ptr_equal(first_seen[i], me);
		for (int k = 0; k < i; k++)
			assert_int_not_equal(tid[i], tid[k]);
	}
	assert_int_equal(bad, 0);
	assert_int_equal(pg_main_g.tid, (uint32_t)pg_sys(SYS_getpid));
}

/* ---- parking ---- */

static void wake_in_each_phase(void)
{
	struct pg_g *g = pg_self();

	pg_rt_enter(g);
	assert_false(pg_wake(g, PG_WHY_READY)); /* not waiting */
	pg_wait_prepare(g);
	pg_wait_abort(g);
	assert_false(pg_wake(g, PG_WHY_READY));
	pg_wait_prepare(g);
	assert_true(pg_wake(g, PG_WHY_READY)); /* before it has left */
	assert_false(pg_wake(g, PG_WHY_TIMEOUT));
	assert_int_equal(pg_park(g, PG_FOREVER, PG_WAIT_other), PG_WHY_READY);
	assert_false(pg_wake(g, PG_WHY_READY));
	pg_wait_prepare(g);
	assert_int_equal(pg_park(g, pg_now() + 1000000, PG_WAIT_other), PG_WHY_TIMEOUT);
	pg_wait_prepare(g);
	assert_int_equal(pg_park(g, 0, PG_WAIT_other), PG_WHY_TIMEOUT);
	assert_int_equal(g->timer.idx, -1);
	pg_rt_exit(g);
}

static bool refuse(struct pg_g *g, void *arg)
{
	(void)g;
	atomic_fetch_add((_Atomic uint32_t *)arg, 1);
	return false;
}

static bool accept_and_wake(struct pg_g *g, void *arg)
{
	atomic_fetch_add((_Atomic uint32_t *)arg, 1);
	pg_wake(g, PG_WHY_READY);
	return true;
}

static bool refuse_and_wake(struct pg_g *g, void *arg)
{
	accept_and_wake(g, arg);
	return false;
}

static void commit_may_refuse(void)
{
	struct pg_g *g = pg_self();

	pg_rt_enter(g);
	for (uint32_t i = 0; i < 50; i++) {
		pg_wait_prepare(g);
		pg_park_commit(g, refuse, &n, PG_FOREVER, PG_WAIT_other);
		assert_int_equal(n, 3 * i + 1);
		pg_wait_prepare(g);
		assert_int_equal(pg_park_commit(g, accept_and_wake, &n, PG_FOREVER, PG_WAIT_other), PG_WHY_READY);
		assert_int_equal(n, 3 * i + 2);
		pg_wait_prepare(g);
		pg_park_commit(g, refuse_and_wake, &n, pg_now() + 1000000000, PG_WAIT_other);
		assert_int_equal(n, 3 * i + 3);
		assert_int_equal(atomic_load(&g->wait), PG_W_IDLE);
	}
	pg_rt_exit(g);
}

static struct pg_g *_Atomic target;
static _Atomic uint32_t won;

static void *claimer(void *arg)
{
	struct pg_g *self = pg_self();
	uint64_t rng = unit_rng((uintptr_t)arg);

	while (!stop) {
		if (unit_rand(&rng, 4) == 0)
			unit_chaos(&rng);
		pg_rt_enter(self);
		if (pg_wake(target, PG_WHY_READY))
			atomic_fetch_add(&won, 1);
		pg_rt_exit(self);
		unit_yield();
	}
	return NULL;
}

/* Greens and OS threads claim one G: one wins each wait. */
static void one_waker_wins(void)
{
	struct pg_g *self = pg_self(), *g[4];
	unsigned long t[2];

	target = self;
	for (uintptr_t i = 0; i < 4; i++)
		g[i] = unit_go(claimer, (void *)i);
	for (uintptr_t i = 0; i < 2; i++)
		t[i] = unit_os(claimer, (void *)(i + 4));
	for (uint32_t i = 1; i <= 3000; i++) {
		unsigned why;
		pg_rt_enter(self);
		pg_wait_prepare(self);
		why = pg_park(self, PG_FOREVER, PG_WAIT_other);
		pg_rt_exit(self);
		assert_int_equal(why, PG_WHY_READY);
		/* The winner counts after it has won. */
		unit_await(&won, i);
		assert_int_equal(won, i);
	}
	stop = 1;
	for (int i = 0; i < 4; i++)
		unit_join(g[i]);
	for (int i = 0; i < 2; i++)
		unit_os_join(t[i]);
}

/* ---- a mailbox each: every message is a wake-up that must not be lost ---- */

enum { BOXES = 16, MSGS = 400 };
static struct box {
	_Atomic uint32_t mail;
	struct pg_g *_Atomic owner;
} boxes[BOXES + 1];

static void box_wait(struct box *b)
{
	struct pg_g *g = pg_self();

	for (;;) {
		uint32_t m = atomic_load(&b->mail);
		if (m > 0) {
			atomic_fetch_sub(&b->mail, 1);
			return;
		}
		pg_rt_enter(g);
		pg_wait_prepare(g);
		if (atomic_load(&b->mail) > 0)
			pg_wait_abort(g);
		else
			pg_park(g, PG_FOREVER, PG_WAIT_other);
		pg_rt_exit(g);
	}
}

static void box_post(struct box *b)
{
	struct pg_g *g = pg_self();

	atomic_fetch_add(&b->mail, 1);
	pg_rt_enter(g);
	pg_wake(atomic_load(&b->owner), PG_WHY_READY);
	pg_rt_exit(g);
}

static void *box_owner(void *arg)
{
	struct box *b = arg;
	uint64_t rng = unit_rng((uint64_t)(b - boxes));

	atomic_store(&b->owner, pg_self());
	atomic_fetch_add(&n, 1);
	unit_await(&n, BOXES);
	/* A token goes round; between two of its visits everybody does something else. */
	for (int i = 0; i < MSGS; i++) {
		box_wait(b);
		unit_chaos(&rng);
		box_post(&boxes[(b - boxes + 1) % BOXES]);
	}
	return NULL;
}

static void no_wakeup_lost(void)
{
	struct pg_g *g[BOXES];

	for (int i = 0; i < BOXES; i++)
		g[i] = unit_go(box_owner, &boxes[i]);
	unit_await(&n, BOXES);
	for (int i = 0; i < 3; i++)
		box_post(&boxes[i * 5]); /* three tokens */
	for (int i = 0; i < BOXES; i++)
		unit_join(g[i]);
	uint32_t left = 0;
	for (int i = 0; i < BOXES; i++)
		left += boxes[i].mail;
	assert_int_equal(left, 3);
}

static void *os_pong(void *arg)
{
	struct box *b = arg;

	atomic_store(&b->owner, pg_self());
	atomic_fetch_add(&n, 1);
	for (int i = 0; i < 1000; i++) {
		box_wait(b);
		box_post(&boxes[0]);
	}
	return NULL;
}

/* Between a green thread and one of the system's: the last P goes idle each time. */
static void foreign_thread_wakes_green(void)
{
	unsigned long t;

	atomic_store(&boxes[0].owner, pg_self());
	t = unit_os(os_pong, &boxes[1]);
	unit_await(&n, 1);
	for (int i = 0; i < 1000; i++) {
		box_post(&boxes[1]);
		box_wait(&boxes[0]);
	}
	unit_os_join(t);
}

/* ---- fairness ---- */

static void *yielder(void *arg)
{
	_Atomic uint32_t *mine = arg;

	while (!stop) {
		atomic_fetch_add(mine, 1);
		unit_yield();
	}
	return NULL;
}

static void *ping(void *arg)
{
	struct box *b = arg;

	atomic_store(&b->owner, pg_self());
	while (!stop) {
		if (boxes[b == boxes].owner)
			box_post(&boxes[b == boxes]);
		box_wait(b);
	}
	box_post(&boxes[b == boxes]);
	return NULL;
}

/* Yielders and a ping-pong pair share: nobody is kept out. */
static void nobody_starves(void)
{
	static _Atomic uint32_t turns[6];
	struct pg_g *g[8];

	for (int i = 0; i < 6; i++)
		g[i] = unit_go(yielder, &turns[i]);
	g[6] = unit_go(ping, &boxes[0]);
	g[7] = unit_go(ping, &boxes[1]);
	for (int i = 0; i < 6; i++)
		unit_await(&turns[i], 200);
	stop = 1;
	for (int k = 0; k < 2; k++) {
		while (!boxes[k].owner)
			unit_yield();
		box_post(&boxes[k]);
	}
	for (int i = 0; i < 8; i++)
		unit_join(g[i]);
}

static void *hog(void *arg)
{
	(void)arg;
	atomic_fetch_add(&n, 1);
	while (!stop)
		pg_cpu_relax();
	return NULL;
}

static void *release(void *arg)
{
	(void)arg;
	unit_await(&n, 12);
	stop = 1;
	return NULL;
}

/* More spinners than Ps, which never call anything. */
static void spinners_are_preempted(void)
{
	struct pg_g *g[13];

	for (int i = 0; i < 12; i++)
		g[i] = unit_go(hog, NULL);
	g[12] = unit_go(release, NULL);
	for (int i = 0; i < 13; i++)
		unit_join(g[i]);
	assert_int_equal(n, 12);
}

/* What the processor holds is the G's own across a preemption. */
static void *cruncher(void *arg)
{
	uint64_t x = (uintptr_t)arg + 1;
	double d = (double)x;

	for (uint32_t i = 0; i < 20000000; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		d = d * 0.999999 + (double)(i & 15);
	}
	return (void *)(uintptr_t)(x ^ (uint64_t)d);
}

static void preempted_code_computes_right(void)
{
	struct pg_g *g[4];

	for (uintptr_t i = 0; i < 4; i++)
		g[i] = unit_go(cruncher, (void *)(i % 2));
	uintptr_t want[2] = {(uintptr_t)cruncher((void *)0), (uintptr_t)cruncher((void *)1)};
	for (int i = 0; i < 4; i++)
		assert_int_equal((uintptr_t)unit_join(g[i]), want[i % 2]);
}

/* ---- wired threads ---- */

static void *wired(void *arg)
{
	struct pg_g *g = pg_self();
	uint64_t rng = unit_rng((uintptr_t)arg);
	long tid;

	unit_yield();
	pg_rt_enter(g);
	pg_wire(g);
	pg_wire(g); /* again: nothing */
	pg_rt_exit(g);
	tid = pg_sys(SYS_gettid);
	if (g->mode != PG_NATIVE || !g->oswired || pg_self() != g)
		atomic_fetch_add(&bad, 1);
	for (int i = 0; i < 30; i++) {
		unit_chaos(&rng);
		unit_sleep(10000);
		if (pg_sys(SYS_gettid) != tid)
			atomic_fetch_add(&bad, 1);
	}
	atomic_fetch_add(&n, 1);
	return arg;
}

static void wired_keeps_its_thread(void)
{
	struct pg_g *g[6];

	for (int round = 0; round < 5; round++) {
		for (uintptr_t i = 0; i < 6; i++)
			g[i] = unit_go(i % 2 ? wired : tree, (void *)(i % 2 ? i : 3));
		for (uintptr_t i = 0; i < 6; i++) {
			void *r = unit_join(g[i]);
			if (i % 2)
				assert_ptr_equal(r, (void *)i);
		}
		unit_detached(wired, NULL);
	}
	while (atomic_load(&pg_nthreads) != 1)
		unit_yield();
	assert_int_equal(bad, 0);
}

static void wired_main(void)
{
	struct pg_g *g = pg_self();

	pg_rt_enter(g);
	pg_wire(g);
	pg_rt_exit(g);
	for (uintptr_t i = 0; i < 100; i++)
		assert_int_equal((uintptr_t)unit_join(unit_go(twice, (void *)i)), 2 * i);
	unit_sleep(1000000);
}

static const struct unit_test tests[] = {
	UNIT_GREEN(join_gives_result, UNIT_ALL),
	UNIT_GREEN(burst, UNIT_ALL),
	UNIT_GREEN(tree_of_threads, UNIT_ALL),
	UNIT_GREEN(each_is_itself, UNIT_ALL),
	UNIT_NATIVE(wake_in_each_phase),
	UNIT_GREEN(wake_in_each_phase, UNIT_P1 | UNIT_P2),
	UNIT_NATIVE(commit_may_refuse),
	UNIT_GREEN(commit_may_refuse, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(one_waker_wins, UNIT_ALL),
	UNIT_GREEN(no_wakeup_lost, UNIT_ALL),
	UNIT_GREEN(foreign_thread_wakes_green, UNIT_ALL),
	UNIT_GREEN(nobody_starves, UNIT_ALL),
	UNIT_GREEN(spinners_are_preempted, UNIT_ALL),
	UNIT_GREEN(preempted_code_computes_right, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(wired_keeps_its_thread, UNIT_ALL),
	UNIT_GREEN(wired_main, UNIT_P1 | UNIT_P2),
};
UNIT_MAIN(tests)
