/* SPDX-License-Identifier: MIT */
/* core/sema.c: order, bits, requeue, deadlines, signals; and that no wake-up is lost while all of these meet. */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>

#include "core/sema.h"
#include "core/signal.h"
#include "tests/unit/support.h"

enum { WAITERS = 20 };

static _Atomic uint32_t word, word2;

struct waiter {
	struct pg_g *g;
	_Atomic uint32_t *addr;
	uint32_t bits;
	int64_t deadline;
	int result;
	uint32_t order; /* when it returned */
};
static struct waiter ws[WAITERS];
static _Atomic uint32_t returned;

static void *wait_once(void *arg)
{
	struct waiter *w = arg;

	w->result = pg_sema_wait(w->addr, 0, w->bits, w->deadline);
	w->order = atomic_fetch_add(&returned, 1);
	return NULL;
}

static void start_waiter(int i, uint32_t bits, int64_t deadline)
{
	ws[i] = (struct waiter){.addr = &word, .bits = bits, .deadline = deadline, .result = 1};
	ws[i].g = unit_go(wait_once, &ws[i]);
	if (deadline == PG_FOREVER)
		unit_await_parked(ws[i].g, PG_WAIT_sema);
}

static void value_and_deadline(void)
{
	int64_t until;

	assert_int_equal(pg_sema_wait(&word, 1, PG_SEMA_ANY, PG_FOREVER), -EAGAIN);
	assert_int_equal(pg_sema_wait(&word, 0, PG_SEMA_ANY, pg_now()), -ETIMEDOUT);
	until = pg_now() + 3000000;
	assert_int_equal(pg_sema_wait(&word, 0, PG_SEMA_ANY, until), -ETIMEDOUT);
	assert_true(pg_now() >= until);
	assert_int_equal(pg_sema_wake(&word, 1, PG_SEMA_ANY), 0); /* it has left the queue */
}

static void first_in_first_out(void)
{
	for (int i = 0; i < WAITERS; i++)
		start_waiter(i, PG_SEMA_ANY, PG_FOREVER);
	assert_int_equal(pg_sema_wake(&word, 0, PG_SEMA_ANY), 0);
	for (uint32_t i = 0; i < WAITERS; i++) {
		assert_int_equal(returned, i);
		assert_int_equal(pg_sema_wake(&word, 1, PG_SEMA_ANY), 1);
		unit_await(&returned, i + 1);
	}
	assert_int_equal(pg_sema_wake(&word, 1, PG_SEMA_ANY), 0);
	for (uint32_t i = 0; i < WAITERS; i++) {
		unit_join(ws[i].g);
		assert_int_equal(ws[i].result, 0);
		assert_int_equal(ws[i].order, i);
	}
}

/* More than one batch at once. */
static void wakes_as_many_as_asked(void)
{
	static struct pg_g *g[100];
	static struct waiter w[100];

	for (int i = 0; i < 100; i++) {
		w[i] = (struct waiter){.addr = &word, .bits = PG_SEMA_ANY, .deadline = PG_FOREVER};
		g[i] = unit_go(wait_once, &w[i]);
		unit_await_parked(g[i], PG_WAIT_sema);
	}
	assert_int_equal(pg_sema_wake(&word2, INT32_MAX, PG_SEMA_ANY), 0);
	assert_int_equal(pg_sema_wake(&word, 33, PG_SEMA_ANY), 33);
	unit_await(&returned, 33);
	assert_int_equal(pg_sema_wake(&word, INT32_MAX, PG_SEMA_ANY), 67);
	for (int i = 0; i < 100; i++)
		unit_join(g[i]);
	assert_int_equal(returned, 100);
}

static void bits_choose(void)
{
	start_waiter(0, 1, PG_FOREVER);
	start_waiter(1, 2, PG_FOREVER);
	start_waiter(2, 6, PG_FOREVER);
	assert_int_equal(pg_sema_wake(&word, 10, 8), 0);
	assert_int_equal(pg_sema_wake(&word, 1, 4), 1);
	unit_join(ws[2].g);
	assert_int_equal(pg_sema_wake(&word, 10, 2), 1);
	unit_join(ws[1].g);
	assert_int_equal(pg_sema_wake(&word, 10, PG_SEMA_ANY), 1);
	unit_join(ws[0].g);
}

static void requeue_moves(void)
{
	int moved = -1;

	for (int i = 0; i < 10; i++)
		start_waiter(i, PG_SEMA_ANY, PG_FOREVER);
	assert_int_equal(pg_sema_requeue(&word, 1, &word2, 3, true, 5, &moved), -EAGAIN);
	assert_int_equal(moved, 0);
	assert_int_equal(pg_sema_requeue(&word, 2, &word2, 3, true, 0, &moved), 2);
	assert_int_equal(moved, 3);
	unit_await(&returned, 2);
	assert_int_equal(pg_sema_wake(&word2, 10, PG_SEMA_ANY), 3);
	unit_await(&returned, 5);
	for (int i = 0; i < 5; i++)
		unit_join(ws[i].g); /* the oldest five: two woken, three moved */
	/* Onto itself: they stay, each counted once. */
	assert_int_equal(pg_sema_requeue(&word, 0, &word, INT32_MAX, false, 0, &moved), 0);
	assert_int_equal(moved, 5);
	assert_int_equal(pg_sema_requeue(&word, 1, &word2, INT32_MAX, false, 0, &moved), 1);
	assert_int_equal(moved, 4);
	assert_int_equal(pg_sema_wake(&word, 10, PG_SEMA_ANY), 0);
	assert_int_equal(pg_sema_wake(&word2, 10, PG_SEMA_ANY), 4);
	for (int i = 5; i < 10; i++)
		unit_join(ws[i].g);
}

/* A deadline that passes after the move takes the waiter off the second queue. */
static void moved_waiter_times_out(void)
{
	int moved, n = 0;

	start_waiter(0, PG_SEMA_ANY, pg_now() + 20000000);
	while (n == 0 && atomic_load(&returned) == 0) {
		pg_sema_requeue(&word, 0, &word2, 1, false, 0, &moved);
		n += moved;
		unit_yield();
	}
	unit_join(ws[0].g);
	assert_int_equal(ws[0].result, -ETIMEDOUT);
	assert_int_equal(pg_sema_wake(&word2, 1, PG_SEMA_ANY), 0);
}

static uint32_t model_op(uint32_t old, int what, uint32_t arg)
{
	switch (what) {
	case FUTEX_OP_SET: return arg;
	case FUTEX_OP_ADD: return old + arg;
	case FUTEX_OP_OR: return old | arg;
	case FUTEX_OP_ANDN: return old & ~arg;
	default: return old ^ arg;
	}
}

static bool model_cmp(int32_t old, int cmp, int32_t arg)
{
	switch (cmp) {
	case FUTEX_OP_CMP_EQ: return old == arg;
	case FUTEX_OP_CMP_NE: return old != arg;
	case FUTEX_OP_CMP_LT: return old < arg;
	case FUTEX_OP_CMP_LE: return old <= arg;
	case FUTEX_OP_CMP_GT: return old > arg;
	default: return old >= arg;
	}
}

static void wake_op_computes(void)
{
	static const int32_t args[] = {0, 1, -1, 5, 2047, -2048};
	uint32_t n = 0;

	/* One waiter for ever on word2: whether the second wake happens is seen by whether it returns. */
	for (int what = 0; what <= 4; what++) {
		for (int cmp = 0; cmp <= 5; cmp++) {
			for (unsigned a = 0; a < 6; a++) {
				for (int shift = 0; shift < 2; shift++) {
					int32_t oparg = args[a], cmparg = args[(a + (unsigned)cmp) % 6];
					uint32_t op = (uint32_t)(what | (shift ? FUTEX_OP_OPARG_SHIFT : 0)) << 28 |
						      (uint32_t)cmp << 24 | ((uint32_t)oparg & 0xfff) << 12 | ((uint32_t)cmparg & 0xfff);
					uint32_t old = (uint32_t)args[(a + 1) % 6], arg = (uint32_t)oparg;
					if (shift)
						arg = 1u << (oparg & 31);
					atomic_store(&word2, old);
					assert_int_equal(pg_sema_wake_op(&word, 1, &word2, 1, op), 0);
					assert_int_equal(atomic_load(&word2), model_op(old, what, arg));
					n++;
				}
			}
		}
	}
	assert_int_equal(n, 360);
	assert_int_equal(pg_sema_wake_op(&word, 1, &word2, 1, 7u << 28), -ENOSYS);
	assert_int_equal(pg_sema_wake_op(&word, 1, &word2, 1, 6u << 24), -ENOSYS);
}

static void wake_op_wakes(void)
{
	for (int cmp = 0; cmp <= 5; cmp++) {
		for (int32_t old = -1; old <= 1; old++) {
			bool second = model_cmp(old, cmp, 0);
			struct waiter w[2] = {{.addr = &word, .bits = 1, .deadline = PG_FOREVER},
					      {.addr = &word2, .bits = 1, .deadline = PG_FOREVER}};
			atomic_store(&word2, 0);
			for (int i = 0; i < 2; i++) {
				w[i].g = unit_go(wait_once, &w[i]);
				unit_await_parked(w[i].g, PG_WAIT_sema);
			}
			atomic_store(&word2, (uint32_t)old);
			assert_int_equal(pg_sema_wake_op(&word, 1, &word2, 1, (uint32_t)FUTEX_OP_ADD << 28 | (uint32_t)cmp << 24),
					 1 + second);
			assert_int_equal(pg_sema_wake(&word2, 1, 1), !second);
			unit_join(w[0].g);
			unit_join(w[1].g);
		}
	}
}

static _Atomic uint32_t handled;

static void handler(int sig)
{
	(void)sig;
	atomic_fetch_add(&handled, 1);
}

static void signal_interrupts(void)
{
	struct sigaction sa = {.sa_handler = handler};

	assert_int_equal(pg_sigaction(SIGUSR1, &sa, NULL), 0);
	for (int i = 0; i < WAITERS; i++) {
		start_waiter(i, PG_SEMA_ANY, PG_FOREVER);
		assert_int_equal(pg_gkill(ws[i].g, SIGUSR1, NULL), 0);
		unit_join(ws[i].g);
		assert_int_equal(ws[i].result, -EINTR);
		assert_int_equal(handled, i + 1);
	}
	assert_int_equal(pg_sema_wake(&word, 1, PG_SEMA_ANY), 0);
}

/* ---- a mutex out of futexes ---- */

static _Atomic uint32_t mutex;
static unsigned long counter;

static void mutex_lock(void)
{
	uint32_t c = 0;

	if (atomic_compare_exchange_strong(&mutex, &c, 1))
		return;
	while (atomic_exchange(&mutex, 2) != 0)
		pg_sema_wait(&mutex, 2, PG_SEMA_ANY, PG_FOREVER);
}

static void mutex_unlock(void)
{
	if (atomic_exchange(&mutex, 0) == 2)
		pg_sema_wake(&mutex, 1, PG_SEMA_ANY);
}

static void *locker(void *arg)
{
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (int i = 0; i < 1500; i++) {
		mutex_lock();
		unsigned long c = counter;
		if (unit_rand(&rng, 32) == 0)
			unit_chaos(&rng);
		counter = c + 1;
		mutex_unlock();
		if (unit_rand(&rng, 8) == 0)
			unit_yield();
	}
	return NULL;
}

static void mutex_of_greens_and_threads(void)
{
	struct pg_g *g[12];
	unsigned long t[2];

	for (uintptr_t i = 0; i < 12; i++)
		g[i] = unit_go(locker, (void *)i);
	for (uintptr_t i = 0; i < 2; i++)
		t[i] = unit_os(locker, (void *)(i + 12));
	for (int i = 0; i < 12; i++)
		unit_join(g[i]);
	for (int i = 0; i < 2; i++)
		unit_os_join(t[i]);
	assert_int_equal(counter, 14 * 1500);
	assert_int_equal(mutex, 0);
}

/* ---- everything at once ---- */

enum { ADDRS = 4, GS = 24, ROUNDS = 150 };
static _Atomic uint32_t addrs[ADDRS], live, zeros, expired, woken_total, bad;

static void *storm_waiter(void *arg)
{
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (int i = 0; i < ROUNDS; i++) {
		int64_t deadline = unit_rand(&rng, 3) ? PG_FOREVER : pg_now() + unit_rand(&rng, 200000);
		int r = pg_sema_wait(&addrs[unit_rand(&rng, ADDRS)], 0, 1 + unit_rand(&rng, 3), deadline);
		if (r == 0)
			atomic_fetch_add(&zeros, 1);
		else if (r == -ETIMEDOUT && deadline != PG_FOREVER)
			atomic_fetch_add(&expired, 1);
		else
			atomic_fetch_add(&bad, 1);
		unit_chaos(&rng);
	}
	atomic_fetch_sub(&live, 1);
	return NULL;
}

static void *storm_waker(void *arg)
{
	uint64_t rng = unit_rng((uintptr_t)arg + 1000);

	while (live) {
		int n, moved;
		uint32_t a = unit_rand(&rng, ADDRS), b = unit_rand(&rng, ADDRS);
		if (unit_rand(&rng, 2))
			n = pg_sema_wake(&addrs[a], 1 + (int)unit_rand(&rng, 3), 1 + unit_rand(&rng, 3));
		else
			n = pg_sema_requeue(&addrs[a], (int)unit_rand(&rng, 2), &addrs[b], (int)unit_rand(&rng, 4),
					    unit_rand(&rng, 2), 0, &moved);
		if (n < 0)
			atomic_fetch_add(&bad, 1);
		else
			atomic_fetch_add(&woken_total, (uint32_t)n);
		unit_chaos(&rng);
	}
	return NULL;
}

/* Whoever is taken off a queue returns 0: there are never more wake-ups than waits that ended with one. */
static void storm(void)
{
	struct pg_g *g[GS], *w[3];
	unsigned long t;

	live = GS;
	for (uintptr_t i = 0; i < GS; i++)
		g[i] = unit_go(storm_waiter, (void *)i);
	for (uintptr_t i = 0; i < 3; i++)
		w[i] = unit_go(storm_waker, (void *)i);
	t = unit_os(storm_waker, (void *)3);
	for (int i = 0; i < GS; i++)
		unit_join(g[i]);
	for (int i = 0; i < 3; i++)
		unit_join(w[i]);
	unit_os_join(t);
	assert_int_equal(bad, 0);
	assert_int_equal(zeros + expired, GS * ROUNDS);
	assert_true(zeros >= woken_total);
	for (int i = 0; i < ADDRS; i++)
		assert_int_equal(pg_sema_wake(&addrs[i], INT32_MAX, PG_SEMA_ANY), 0);
}

static const struct unit_test tests[] = {
	UNIT_GREEN(value_and_deadline, UNIT_P1 | UNIT_P2),
	UNIT_NATIVE(value_and_deadline),
	UNIT_GREEN(first_in_first_out, UNIT_ALL),
	UNIT_GREEN(wakes_as_many_as_asked, UNIT_ALL),
	UNIT_GREEN(bits_choose, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(requeue_moves, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(moved_waiter_times_out, UNIT_P1 | UNIT_P2),
	UNIT_NATIVE(wake_op_computes),
	UNIT_GREEN(wake_op_wakes, UNIT_P2),
	UNIT_GREEN(signal_interrupts, UNIT_ALL),
	UNIT_GREEN(mutex_of_greens_and_threads, UNIT_ALL),
	UNIT_GREEN(storm, UNIT_ALL),
};
UNIT_MAIN(tests)
