/* SPDX-License-Identifier: MIT */
/* core/stack.c: sizes, guards, reuse, stacks of the program's own, and the way from a pthread_t to its G. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/unit/support.h"

static _Atomic uint32_t bad;

static struct pg_g *make(size_t stack, size_t guard, void *ustack, void *(*fn)(void *), void *arg)
{
	int err = 0;
	struct pg_g *g = pg_newg(stack, guard, ustack, &err);

	if (g) {
		g->fn = fn;
		g->arg = arg;
		g->sigmask = pg_self()->sigmask;
		atomic_fetch_add(&pg_nthreads, 1);
	}
	return g;
}

static __attribute__((noinline)) void use(size_t bytes)
{
	char *p = __builtin_alloca(bytes);

	for (size_t i = 0; i < bytes; i += 1024)
		((volatile char *)p)[i] = 1;
}

static void *uses_it_all(void *arg)
{
	struct pg_g *g = pg_self();
	char here;

	if (&here < (char *)g->stack_lo || &here >= (char *)g->stack_hi)
		atomic_fetch_add(&bad, 1);
	use((size_t)arg - 1024); /* what was asked for is there, for the program */
	return NULL;
}

static void sizes_are_usable(void)
{
	static const size_t sizes[] = {16384, 20000, 65536, 1 << 20, 8 << 20};

	for (int round = 0; round < 2; round++) {
		for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
			struct pg_g *g = make(sizes[i], 4096, NULL, uses_it_all, (void *)sizes[i]);
			assert_non_null(g);
			assert_true((char *)g->stack_top - (char *)g->stack_lo >= (ptrdiff_t)sizes[i]);
			assert_int_equal((uintptr_t)g->tcb % 64, 0);
			pg_newproc(g);
			unit_join(g);
		}
	}
	assert_int_equal(bad, 0);
	assert_true(pg_default_stack() >= 16384);
	assert_true(pg_stack_overhead() > sizeof(struct pg_g));
}

static void too_much_is_refused(void)
{
	int err = 0;

	assert_null(pg_newg((size_t)1 << 50, 4096, NULL, &err));
	assert_int_equal(err, EAGAIN);
	assert_null(pg_newg(SIZE_MAX - 4096, 4096, NULL, &err));
}

static void touch(void *arg)
{
	*(volatile char *)arg = 1;
}

static bool faults(void *addr)
{
	char out[256];
	int st = unit_in_child(touch, addr, out, sizeof out);

	return WIFSIGNALED(st) && WTERMSIG(st) == SIGSEGV;
}

static void guards_are_there(void)
{
	static const size_t guards[] = {0, 1, 4096, 65536};

	for (unsigned i = 0; i < 4; i++) {
		/* The second of its class lies above the first: without a guard it would grow into it. */
		struct pg_g *a = make(65536, guards[i], NULL, NULL, NULL), *b = make(65536, guards[i], NULL, NULL, NULL);
		size_t want = (guards[i] + 4095) & ~(size_t)4095;
		assert_non_null(a);
		assert_non_null(b);
		assert_int_equal(b->guard, want);
		assert_false(faults(b->stack_lo));
		assert_false(faults(a->stack_lo));
		if (want) {
			assert_true(faults((char *)b->stack_lo - 1));
			assert_true(faults((char *)b->stack_lo - want));
			assert_true(faults((char *)a->stack_lo - 1));
		}
	}
}

static void *fills(void *arg)
{
	use(20000);
	return arg;
}

/* The newest free one comes first, and is a new thread in all that can be seen. */
static void slots_are_reused(void)
{
	struct pg_g *first = unit_go(fills, NULL), *again;
	uint32_t tid = first->tid;

	unit_join(first);
	again = unit_go(fills, NULL);
	assert_ptr_equal(again, first);
	assert_int_not_equal(again->tid, tid);
	unit_join(again);
}

static void many_come_and_go(void)
{
	static struct pg_g *g[1500];

	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 1500; i++) {
			g[i] = make(65536, 4096, NULL, fills, &g[i]);
			assert_non_null(g[i]);
		}
		for (int i = 0; i < 1500; i++)
			pg_newproc(g[i]);
		for (int i = 0; i < 1500; i++)
			assert_ptr_equal(unit_join(g[i]), &g[i]);
	}
}

static char own[256 << 10] __attribute__((aligned(4096)));

static void *on_own(void *arg)
{
	char here;

	use(sizeof own / 2);
	unit_yield();
	return (void *)(uintptr_t)(&here >= own && &here < own + sizeof own && arg == NULL);
}

static void stack_of_the_program(void)
{
	for (int i = 0; i < 3; i++) {
		struct pg_g *g = make(sizeof own, 4096, own, on_own, NULL);
		assert_non_null(g);
		assert_ptr_equal(g->stack_lo, own);
		assert_ptr_equal(g->stack_hi, own + sizeof own);
		assert_int_equal(g->guard, 0);
		pg_newproc(g);
		assert_true(unit_join(g) != NULL);
	}
}

static void *self_pthread(void *arg)
{
	(void)arg;
	return (void *)(uintptr_t)(pg_pthread2g((unsigned long)pg_arch_tp()) == pg_self());
}

static void handles_lead_to_gs(void)
{
	struct pg_g *g = unit_go(self_pthread, NULL);

	assert_ptr_equal(pg_pthread2g(pg_g2pthread(g)), g);
	assert_ptr_equal(pg_pthread2g(pg_g2pthread(&pg_main_g)), &pg_main_g);
	assert_null(pg_pthread2g(0));
	assert_true(unit_join(g) != NULL);
}

static const struct unit_test tests[] = {
	UNIT_GREEN(sizes_are_usable, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(too_much_is_refused, UNIT_P1),
	UNIT_GREEN(guards_are_there, UNIT_P1),
	UNIT_GREEN(slots_are_reused, UNIT_P1),
	UNIT_GREEN(many_come_and_go, UNIT_ALL),
	UNIT_GREEN(stack_of_the_program, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(handles_lead_to_gs, UNIT_P1 | UNIT_P2),
};
UNIT_MAIN(tests)
