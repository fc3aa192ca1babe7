/* SPDX-License-Identifier: MIT */
/* core/tls.c: what glibc and the program find in a G's TCB and thread-local variables. */
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support.h"

static _Atomic uint32_t n, bad, stop;
static __thread int own_var;
static int *(*set_addr)(void);
static char *(*zero_addr)(void);

/* The module lies beside the directory of this program. */
static void open_module(const char *model)
{
	char path[PATH_MAX], *slash;
	ssize_t r = readlink("/proc/self/exe", path, sizeof path - 1);
	void *h, *p;

	assert_true(r > 0);
	path[r] = 0;
	for (int i = 0; i < 2; i++) {
		slash = strrchr(path, '/');
		assert_non_null(slash);
		*slash = 0;
	}
	snprintf(path + strlen(path), sizeof path - strlen(path), "/unit-module-%s.so", model);
	h = dlopen(path, RTLD_NOW);
	if (h == NULL)
		fail_msg("%s", dlerror());
	p = dlsym(h, "unit_mod_set_addr");
	memcpy(&set_addr, &p, sizeof p);
	p = dlsym(h, "unit_mod_zero_addr");
	memcpy(&zero_addr, &p, sizeof p);
	assert_non_null(set_addr);
	assert_non_null(zero_addr);
}

static bool initial(void)
{
	char *z = zero_addr();

	for (int i = 0; i < 64; i++)
		if (z[i])
			return false;
	return *set_addr() == 4711;
}

static void *soils(void *arg)
{
	uintptr_t mine = (uintptr_t)arg + 1;

	if (!initial())
		atomic_fetch_add(&bad, 1);
	*set_addr() = (int)mine;
	memset(zero_addr(), (int)mine, 64);
	for (int i = 0; i < 20; i++) {
		unit_yield();
		/* Its own after each switch, on whichever thread. */
		if (*set_addr() != (int)mine || zero_addr()[63] != (char)mine)
			atomic_fetch_add(&bad, 1);
	}
	return NULL;
}

static void soil(void)
{
	struct pg_g *g[20];

	for (int round = 0; round < 5; round++) {
		for (uintptr_t i = 0; i < 20; i++)
			g[i] = unit_go(soils, (void *)i);
		for (int i = 0; i < 20; i++)
			unit_join(g[i]);
	}
	assert_int_equal(bad, 0);
	assert_true(initial());
}

static void *sees_new_module(void *arg)
{
	atomic_fetch_add(&n, 1);
	unit_await(&stop, 1);
	if (!initial())
		atomic_fetch_add(&bad, 1);
	return arg;
}

/* Threads that live when a module is opened find its image, and so do those that come after. */
static void with_module(const char *model)
{
	struct pg_g *g[10];

	/* Used TCBs in the cache as well. */
	for (uintptr_t i = 0; i < 10; i++)
		g[i] = unit_go(sees_new_module, (void *)i);
	unit_await(&n, 10);
	open_module(model);
	pg_tls_look();
	stop = 1;
	for (int i = 0; i < 10; i++)
		unit_join(g[i]);
	assert_int_equal(bad, 0);
	soil();
}

static void initial_exec_module(void) { with_module("initial-exec"); }
static void dynamic_module(void) { with_module("global-dynamic"); }

static void module_opened_before(const char *model)
{
	open_module(model);
	assert_int_equal(pg_start(), 0);
	soil();
}

static void initial_exec_before_start(void) { module_opened_before("initial-exec"); }
static void dynamic_before_start(void) { module_opened_before("global-dynamic"); }

static uintptr_t guard_at(int off)
{
	return *(uintptr_t *)((char *)pg_arch_tp() + off);
}

static uintptr_t main_guards[2];

static void *looks_like_a_thread(void *arg)
{
	struct pg_g *g = pg_self();
	char *tp = pg_arch_tp();

	(void)arg;
	if (*(void **)(tp + PG_TCB_TCB) != tp || *(void **)(tp + PG_TCB_SELF) != tp || tp != g->tcb)
		atomic_fetch_add(&bad, 1);
	if (guard_at(PG_TCB_STACK_GUARD) != main_guards[0] || guard_at(PG_TCB_POINTER_GUARD) != main_guards[1])
		atomic_fetch_add(&bad, 1);
	if (*(int *)(tp + PG_TCB_MULTIPLE_THREADS) != 1)
		atomic_fetch_add(&bad, 1);
	if ((uintptr_t)tp % 64 || own_var != 0 || errno != 0)
		atomic_fetch_add(&bad, 1);
	/* The locale's tables, which are thread-local in glibc. */
	if (!isalpha('x') || isalpha('1') || toupper('q') != 'Q')
		atomic_fetch_add(&bad, 1);
	errno = 77;
	void *p = malloc(100);
	if (p == NULL)
		atomic_fetch_add(&bad, 1);
	free(p);
	return NULL;
}

static void tcb_is_a_thread(void)
{
	main_guards[0] = guard_at(PG_TCB_STACK_GUARD);
	main_guards[1] = guard_at(PG_TCB_POINTER_GUARD);
	assert_ptr_equal(pg_main_g.tcb, pg_arch_tp());
	for (int i = 0; i < 50; i++)
		unit_join(unit_go(looks_like_a_thread, NULL));
	assert_int_equal(bad, 0);
}

static __attribute__((noinline)) int *errno_now(void)
{
	__asm__ volatile("" ::: "memory");
	return &errno;
}

static void *keeps_errno(void *arg)
{
	int mine = (int)(uintptr_t)arg + 1;
	int *where = errno_now();

	for (int i = 0; i < 200; i++) {
		*errno_now() = mine;
		unit_yield();
		if (*errno_now() != mine || errno_now() != where)
			atomic_fetch_add(&bad, 1);
		free(malloc(64));
	}
	return NULL;
}

static void errno_is_per_g(void)
{
	struct pg_g *g[20];

	for (uintptr_t i = 0; i < 20; i++)
		g[i] = unit_go(keeps_errno, (void *)i);
	for (int i = 0; i < 20; i++)
		unit_join(g[i]);
	assert_int_equal(bad, 0);
}

static void *counted(void *arg)
{
	(void)arg;
	return NULL;
}

static void count_g(struct pg_g *g, void *arg)
{
	if (g->magic == PG_MAGIC)
		++*(int *)arg;
}

static void all_gs_are_listed(void)
{
	struct pg_g *g[30];
	int found = 0;

	for (int i = 0; i < 30; i++)
		g[i] = unit_go(counted, NULL);
	pg_foreach_g(count_g, &found);
	assert_int_equal(found, 30); /* the main one is not on the list */
	for (int i = 0; i < 30; i++)
		unit_join(g[i]);
}

static const struct unit_test tests[] = {
	UNIT_GREEN(tcb_is_a_thread, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(errno_is_per_g, UNIT_ALL),
	UNIT_GREEN(initial_exec_module, UNIT_ALL),
	UNIT_GREEN(dynamic_module, UNIT_ALL),
	UNIT_NATIVE(initial_exec_before_start),
	UNIT_NATIVE(dynamic_before_start),
	UNIT_GREEN(all_gs_are_listed, UNIT_P1),
};
UNIT_MAIN(tests)
