/* SPDX-License-Identifier: MIT */
/* core/syscall.c and core/sysmon.c: a G that blocks its OS thread, announced or not, keeps no P, and gets one back. */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/syscall.h"
#include "tests/unit/support.h"

static _Atomic uint32_t n, stop, bad, ready_to_block;
static int fd[2];

static void raw_sleep(int64_t ns)
{
	struct timespec ts = {ns / 1000000000, ns % 1000000000};

	while (pg_sys(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, &ts) == -EINTR)
		;
}

/* An interrupted call is made again: the runtime's own signal may come. */
static long raw_read(void)
{
	char c;
	long r;

	do
		r = pg_sys(SYS_read, fd[0], &c, 1);
	while (r == -EINTR);
	return r;
}

static void pair_counts(void)
{
	struct pg_g *g = pg_self();
	uint32_t before = atomic_load(&g->insys);

	for (uint32_t i = 1; i <= 10; i++) {
		pg_entersyscall(g);
		assert_int_equal(atomic_load(&g->insys) & 1, 1);
		pg_exitsyscall(g);
		assert_int_equal(atomic_load(&g->insys), before + 2 * i);
		assert_int_equal(atomic_load(&g->rt), 0);
	}
	for (uint32_t i = 0; i < 10; i++) {
		pg_entersyscallblock(g);
		pg_exitsyscall(g);
		assert_int_equal(atomic_load(&g->insys) & 1, 0);
		assert_int_equal(atomic_load(&g->rt), 0);
	}
}

/* ---- one G blocks until another one, which needs the P, lets it go ---- */

static void *reader_handing_off(void *arg)
{
	struct pg_g *g = pg_self();
	long r;

	(void)arg;
	atomic_fetch_add(&ready_to_block, 1);
	pg_entersyscallblock(g);
	r = raw_read();
	pg_exitsyscall(g);
	if (r != 1)
		atomic_fetch_add(&bad, 1);
	atomic_fetch_add(&n, 1);
	return NULL;
}

static void *reader_announced(void *arg)
{
	struct pg_g *g = pg_self();
	long r;

	(void)arg;
	atomic_fetch_add(&ready_to_block, 1);
	pg_entersyscall(g);
	r = raw_read();
	pg_exitsyscall(g);
	if (r != 1)
		atomic_fetch_add(&bad, 1);
	atomic_fetch_add(&n, 1);
	return NULL;
}

static void *reader_silent(void *arg)
{
	(void)arg;
	atomic_fetch_add(&ready_to_block, 1);
	if (raw_read() != 1)
		atomic_fetch_add(&bad, 1);
	atomic_fetch_add(&n, 1);
	unit_yield(); /* finds its P gone here */
	return NULL;
}

static void *writer(void *arg)
{
	uint32_t want = (uint32_t)(uintptr_t)arg;

	unit_await(&ready_to_block, want);
	for (uint32_t i = 0; i < want; i++)
		if (pg_sys(SYS_write, fd[1], "x", 1) != 1)
			atomic_fetch_add(&bad, 1);
	return NULL;
}

static void block_many(void *(*reader)(void *), int rounds)
{
	struct pg_g *g[10], *w;

	assert_int_equal(pipe(fd), 0);
	for (int round = 0; round < rounds; round++) {
		n = ready_to_block = 0;
		w = unit_go(writer, (void *)10);
		for (int i = 0; i < 10; i++)
			g[i] = unit_go(reader, NULL);
		for (int i = 0; i < 10; i++)
			unit_join(g[i]);
		unit_join(w);
		assert_int_equal(n, 10);
		assert_int_equal(bad, 0);
	}
}

static void handed_off(void) { block_many(reader_handing_off, 30); }
static void announced(void) { block_many(reader_announced, 10); }
static void unannounced(void) { block_many(reader_silent, 1); }

static _Atomic uint32_t futex;

static void *raw_futex(void *arg)
{
	(void)arg;
	atomic_fetch_add(&ready_to_block, 1);
	while (atomic_load(&futex) == 0)
		pg_sys(SYS_futex, &futex, FUTEX_WAIT_PRIVATE, 0, NULL);
	return NULL;
}

static void *counts_on(void *arg)
{
	(void)arg;
	unit_await(&ready_to_block, 3);
	for (int i = 0; i < 1000; i++) {
		atomic_fetch_add(&n, 1);
		unit_yield();
	}
	return NULL;
}

/* Futexes inside libc: nobody has told the scheduler, and the others go on. */
static void raw_futex_stalls_nobody(void)
{
	struct pg_g *b[3], *c[3];

	for (int i = 0; i < 3; i++)
		c[i] = unit_go(counts_on, NULL);
	for (int i = 0; i < 3; i++)
		b[i] = unit_go(raw_futex, NULL);
	for (int i = 0; i < 3; i++)
		unit_join(c[i]);
	assert_int_equal(n, 3000);
	atomic_store(&futex, 1);
	pg_sys(SYS_futex, &futex, FUTEX_WAKE_PRIVATE, INT32_MAX);
	for (int i = 0; i < 3; i++)
		unit_join(b[i]);
}

/* ---- a P has one M, whatever goes on ---- */

static _Atomic uint32_t inside[256];

/* Under rt this G owns its P: nobody else may be here with the same. */
static void check_owner(struct pg_g *g)
{
	struct pg_m *m;
	struct pg_p *p;

	pg_rt_enter(g);
	m = g->m;
	p = m->p;
	if (p == NULL || atomic_load(&p->m) != m || m->cur != g) {
		atomic_fetch_add(&bad, 1);
	} else {
		if (atomic_fetch_add(&inside[p->id], 1) != 0)
			atomic_fetch_add(&bad, 1);
		for (int i = 0; i < 20; i++)
			pg_cpu_relax();
		atomic_fetch_sub(&inside[p->id], 1);
	}
	pg_rt_exit(g);
}

static void *busybody(void *arg)
{
	struct pg_g *g = pg_self();
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (int i = 0; i < 250; i++) {
		switch (unit_rand(&rng, 6)) {
		case 0:
			pg_entersyscallblock(g);
			raw_sleep(unit_rand(&rng, 60000));
			pg_exitsyscall(g);
			break;
		case 1:
			pg_entersyscall(g);
			raw_sleep(unit_rand(&rng, 100000));
			pg_exitsyscall(g);
			break;
		case 2:
			pg_entersyscallblock(g);
			pg_exitsyscall(g);
			break;
		default:
			unit_chaos(&rng);
		}
		check_owner(g);
	}
	return NULL;
}

static void a_p_has_one_m(void)
{
	struct pg_g *g[12];

	for (uintptr_t i = 0; i < 12; i++)
		g[i] = unit_go(busybody, (void *)i);
	for (int i = 0; i < 12; i++)
		unit_join(g[i]);
	assert_int_equal(bad, 0);
	for (int i = 0; i < pg_nprocs; i++)
		assert_int_equal(inside[i], 0);
}

/*
 * sysmon asks for the P (WANT) while its M is in the middle of handing it off (TAKEN): the M must see on its way back that
 * the P is gone.  sysmon's part, a bit set between two instructions, is played by the test.
 */
static void *wanted_while_handed_off(void *arg)
{
	struct pg_g *g = pg_self();
	struct pg_m *m;
	struct pg_p *p;

	(void)arg;
	pg_entersyscallblock(g);
	m = g->m;
	if (atomic_fetch_or(&m->attn, PG_ATTN_WANT) & PG_ATTN_TAKEN) {
		/* The other G runs on that P until we are asleep no more. */
		atomic_store(&ready_to_block, 1);
		raw_sleep(1000000);
		pg_exitsyscall(g);
		pg_rt_enter(g);
		m = g->m;
		p = m->p;
		if (p == NULL || atomic_load(&p->m) != m)
			atomic_fetch_add(&bad, 1);
		pg_rt_exit(g);
	} else {
		atomic_fetch_and(&m->attn, ~(uint32_t)PG_ATTN_WANT);
		atomic_store(&ready_to_block, 1);
		pg_exitsyscall(g);
	}
	stop = 1;
	return NULL;
}

static void *hog(void *arg)
{
	struct pg_g *g = pg_self();

	(void)arg;
	while (!stop) {
		check_owner(g);
		unit_yield();
	}
	return NULL;
}

static void handed_off_while_wanted(void)
{
	struct pg_g *g, *h[8];
	int hogs = pg_nprocs;

	for (int i = 0; i < hogs; i++)
		h[i] = unit_go(hog, NULL);
	g = unit_go(wanted_while_handed_off, NULL);
	unit_join(g);
	for (int i = 0; i < hogs; i++)
		unit_join(h[i]);
	assert_int_equal(bad, 0);
}

/*
 * The same from the other side: sysmon has set WANT and looks whether the M is in user code just after the M handed its P
 * off.  It must not take for free what is already somebody else's.
 */
static struct pg_m *_Atomic blocked_m;
static struct pg_p *_Atomic blocked_p;

static void *handoff_under_eyes(void *arg)
{
	struct pg_g *g = pg_self();

	(void)arg;
	pg_rt_enter(g);
	blocked_p = g->m->p;
	pg_rt_exit(g);
	pg_entersyscallblock(g);
	atomic_store(&blocked_m, g->m);
	raw_sleep(2000000);
	pg_exitsyscall(g);
	stop = 1;
	return NULL;
}

static void no_retake_of_a_p_handed_off(void)
{
	struct pg_g *g = unit_go(handoff_under_eyes, NULL), *self = pg_self();
	struct pg_m *m;
	bool got;

	while ((m = atomic_load(&blocked_m)) == NULL)
		unit_yield();
	pg_rt_enter(self);
	got = pg_retake(m, blocked_p);
	pg_rt_exit(self);
	assert_false(got && !stop);
	unit_join(g);
}

/* ---- the last P goes idle while a G comes back from a call ---- */

static _Atomic uint32_t posted, served;
static struct pg_g *_Atomic server_g;

static void *server(void *arg)
{
	struct pg_g *g = pg_self();
	uint64_t rng = unit_rng(77);
	uint32_t rounds = (uint32_t)(uintptr_t)arg;

	atomic_store(&server_g, g);
	for (uint32_t i = 0; i < rounds; i++) {
		for (;;) {
			pg_rt_enter(g);
			pg_wait_prepare(g);
			if (atomic_load(&posted) > i) {
				pg_wait_abort(g);
				pg_rt_exit(g);
				break;
			}
			pg_park(g, PG_FOREVER, PG_WAIT_other);
			pg_rt_exit(g);
		}
		atomic_store(&served, i + 1);
		/* Busy for about as long as the other one sleeps, then idle. */
		for (uint32_t k = unit_rand(&rng, 3000); k > 0; k--)
			pg_cpu_relax();
	}
	return NULL;
}

static void *caller(void *arg)
{
	struct pg_g *g = pg_self();
	uint64_t rng = unit_rng(78);
	uint32_t rounds = (uint32_t)(uintptr_t)arg;

	while (server_g == NULL)
		unit_yield();
	for (uint32_t i = 0; i < rounds; i++) {
		atomic_store(&posted, i + 1);
		pg_rt_enter(g);
		pg_wake(server_g, PG_WHY_READY);
		pg_rt_exit(g);
		pg_entersyscallblock(g);
		if (unit_rand(&rng, 2))
			raw_sleep(unit_rand(&rng, 30000));
		else
			for (uint32_t k = unit_rand(&rng, 6000); k > 0; k--)
				pg_cpu_relax();
		pg_exitsyscall(g);
	}
	return NULL;
}

/* Nothing else happens in the process: a G that is queued when nobody looks stays there for ever. */
static void comes_back_as_last_p_goes_idle(void)
{
	enum { ROUNDS = 8000 };
	struct pg_g *s = unit_go(server, (void *)ROUNDS), *c = unit_go(caller, (void *)ROUNDS);

	unit_join(c);
	unit_join(s);
	assert_int_equal(served, ROUNDS);
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(pair_counts),
	UNIT_GREEN(pair_counts, UNIT_ALL),
	UNIT_GREEN(handed_off, UNIT_ALL),
	UNIT_GREEN(announced, UNIT_ALL),
	UNIT_GREEN(unannounced, UNIT_ALL),
	UNIT_GREEN(raw_futex_stalls_nobody, UNIT_ALL),
	UNIT_GREEN(a_p_has_one_m, UNIT_ALL),
	UNIT_GREEN(handed_off_while_wanted, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(no_retake_of_a_p_handed_off, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(comes_back_as_last_p_goes_idle, UNIT_ALL),
};
UNIT_MAIN(tests)
