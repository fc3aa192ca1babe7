/* SPDX-License-Identifier: MIT */
/* core/fork.c: the world stops at the edge of the runtime; the child begins again with the calling G alone. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/netpoll.h"
#include "core/sema.h"
#include "tests/unit/support.h"

pid_t pg_fork(pid_t (*real)(void), bool handlers);

static _Atomic uint32_t stop, n, word;

static void *mixes(void *arg)
{
	uint64_t rng = unit_rng((uintptr_t)arg);

	while (!stop) {
		unit_chaos(&rng);
		pg_sema_wait(&word, 0, PG_SEMA_ANY, pg_now() + 20000);
		pg_sema_wake(&word, 1, PG_SEMA_ANY);
		free(malloc(1 + unit_rand(&rng, 500)));
	}
	return NULL;
}

static void *adds(void *arg)
{
	atomic_fetch_add(&n, 1);
	unit_sleep(10000);
	return arg;
}

/* In the child: one thread, and the runtime starts anew; everything works.  The exit status says how far it came. */
static void child_life(void)
{
	int fd[2];
	char c;

	if (atomic_load(&pg_started) || pg_self()->mode != PG_NATIVE || pg_self()->tid != (uint32_t)getpid())
		_exit(10);
	if (atomic_load(&pg_nthreads) != 1 || atomic_load(&pg_self()->rt) != 0)
		_exit(11);
	unit_sleep(1000); /* native */
	if (pg_sema_wake(&word, 100, PG_SEMA_ANY) != 0)
		_exit(12);
	free(malloc(1000));
	if (pg_start() != 0)
		_exit(13);
	n = 0;
	for (int i = 0; i < 20; i++)
		if (unit_join(unit_go(adds, &n)) != &n)
			_exit(14);
	if (n != 20)
		_exit(15);
	if (pipe2(fd, 04000 /* O_NONBLOCK */) < 0)
		_exit(16);
	if (pg_netpoll_wait(fd[0], PG_READ, pg_now() + 500000) != -110 /* ETIMEDOUT */)
		_exit(17);
	if (write(fd[1], "x", 1) != 1 || pg_netpoll_wait(fd[0], PG_READ, PG_FOREVER) != 0 || read(fd[0], &c, 1) != 1)
		_exit(18);
	_exit(0);
}

static int fork_once(bool handlers)
{
	int st = -1;
	pid_t pid = pg_fork(fork, handlers);

	if (pid == 0)
		child_life();
	while (waitpid(pid, &st, 0) < 0)
		;
	return st;
}

static void native_process(void)
{
	assert_int_equal(fork_once(true), 0);
	assert_false(atomic_load(&pg_started));
}

static void main_forks_among_others(void)
{
	struct pg_g *g[6];

	for (uintptr_t i = 0; i < 6; i++)
		g[i] = unit_go(mixes, (void *)i);
	for (int i = 0; i < 12; i++) {
		assert_int_equal(fork_once(true), 0);
		unit_yield();
	}
	stop = 1;
	for (int i = 0; i < 6; i++)
		unit_join(g[i]);
	assert_true(atomic_load(&pg_started));
}

static void *forks(void *arg)
{
	uintptr_t failed = 0;

	(void)arg;
	for (int i = 0; i < 4; i++)
		failed |= (uintptr_t)fork_once(true);
	return (void *)failed;
}

/* Several at a time, from Gs that are not the first one. */
static void gs_fork_together(void)
{
	struct pg_g *g[3], *m[3];

	for (uintptr_t i = 0; i < 3; i++) {
		m[i] = unit_go(mixes, (void *)i);
		g[i] = unit_go(forks, NULL);
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal((uintptr_t)unit_join(g[i]), 0);
	stop = 1;
	for (int i = 0; i < 3; i++)
		unit_join(m[i]);
}

static void grandchildren(void)
{
	int st = -1;
	pid_t pid;

	unit_join(unit_go(adds, NULL));
	pid = pg_fork(fork, true);
	if (pid == 0) {
		if (pg_start() != 0 || unit_join(unit_go(adds, &n)) != &n)
			_exit(20);
		_exit(fork_once(true) == 0 ? 0 : 21);
	}
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_int_equal(st, 0);
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(native_process),
	UNIT_GREEN(main_forks_among_others, UNIT_ALL),
	UNIT_GREEN(gs_fork_together, UNIT_ALL),
	UNIT_GREEN(grandchildren, UNIT_P1 | UNIT_P2),
};
UNIT_MAIN(tests)
