/* SPDX-License-Identifier: MIT */
/* core/note.h, in both variants: wake and sleep in either order, deadlines, signals, reuse. */
#include <pthread.h>
#include <signal.h>

#include "tests/unit/support.h"

enum { ROUNDS = 5000 };

static void wake_comes_first(void)
{
	struct pg_note n;

	pg_noteclear(&n);
	pg_notewakeup(&n);
	pg_notesleep(&n);
	assert_true(pg_notetsleep(&n, 0));
	pg_notewakeup(&n); /* ignored */
	pg_notesleep(&n);
	pg_noteclear(&n);
	assert_false(pg_notetsleep(&n, 0));
	assert_false(pg_notetsleep(&n, pg_now() + 2000000));
	pg_notewakeup(&n);
	assert_true(pg_notetsleep(&n, pg_now() - 1));
	assert_true(pg_notetsleep(&n, PG_FOREVER));
}

static void deadline_is_not_early(void)
{
	struct pg_note n;
	int64_t until;

	pg_noteclear(&n);
	until = pg_now() + 5000000;
	while (!pg_notetsleep(&n, until) && pg_now() < until)
		;
	assert_true(pg_now() >= until);
}

static struct pg_note ping, pong;

static void *ponger(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		pg_notesleep(&ping);
		pg_noteclear(&ping);
		pg_notewakeup(&pong);
	}
	return NULL;
}

static void reused(void)
{
	unsigned long t;

	pg_noteclear(&ping);
	pg_noteclear(&pong);
	t = unit_os(ponger, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		pg_notewakeup(&ping);
		pg_notesleep(&pong);
		pg_noteclear(&pong);
	}
	unit_os_join(t);
}

static _Atomic uint32_t go, gone;

static void *late_waker(void *arg)
{
	uint64_t rng = unit_rng(2);

	(void)arg;
	for (uint32_t i = 0; i < ROUNDS / 4; i++) {
		unit_await(&go, i + 1);
		for (uint32_t k = unit_rand(&rng, 3000); k > 0; k--)
			pg_cpu_relax();
		pg_notewakeup(&ping);
		atomic_store(&gone, i + 1);
	}
	return NULL;
}

/* The deadline and the wake-up meet: after either, the wake-up is neither lost nor left over. */
static void deadline_meets_wakeup(void)
{
	unsigned long t = unit_os(late_waker, NULL);
	uint64_t rng = unit_rng(3);

	for (uint32_t i = 0; i < ROUNDS / 4; i++) {
		pg_noteclear(&ping);
		atomic_store(&go, i + 1);
		while (!pg_notetsleep(&ping, pg_now() + unit_rand(&rng, 60000)))
			;
		unit_await(&gone, i + 1);
		/* Nothing of the last round is left in this thread's semaphore. */
		pg_noteclear(&pong);
		assert_false(pg_notetsleep(&pong, pg_now()));
	}
	unit_os_join(t);
}

static _Atomic uint32_t handled, asleep, woken;

static void handler(int sig)
{
	(void)sig;
	atomic_fetch_add(&handled, 1);
}

static void *sleeper(void *arg)
{
	(void)arg;
	pg_noteclear(&ping);
	atomic_store(&asleep, 1);
	while (!pg_notetsleep(&ping, PG_FOREVER))
		atomic_fetch_add(&woken, 1);
	return NULL;
}

/* A handler ends a timed sleep early, and the note is still good afterwards. */
static void signal_ends_timed_sleep(void)
{
	struct sigaction sa = {.sa_handler = handler};
	unsigned long t;

	sigaction(SIGUSR1, &sa, NULL);
	t = unit_os(sleeper, NULL);
	unit_await(&asleep, 1);
	while (woken < 5) {
		pthread_kill(t, SIGUSR1);
		unit_sleep(200000);
	}
	pg_notewakeup(&ping);
	unit_os_join(t);
	assert_true(handled >= 5);
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(wake_comes_first),
	UNIT_NATIVE(deadline_is_not_early),
	UNIT_NATIVE(reused),
	UNIT_NATIVE(deadline_meets_wakeup),
	UNIT_NATIVE(signal_ends_timed_sleep),
};
UNIT_MAIN(tests)
