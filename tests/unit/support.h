/* SPDX-License-Identifier: MIT */
/*
 * What the unit tests share.  Each test runs in a process of its own for each number of Ps it asks for: the test program
 * executes itself again and shows what the child said when it failed or hung.  A child that hangs is sent SIGQUIT, at
 * which it prints every G, M and P.
 *
 *	build/unit-futex/test_sema [PATTERN]    tests whose name holds PATTERN
 *	UNIT_SEED=N                      the seed of random schedules; it is printed first
 *
 * Only the thread that runs the test may assert; workers record what they see.
 */
#ifndef PG_UNIT_SUPPORT_H
#define PG_UNIT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#include <cmocka.h>

#include "arch.h"
#include "core/g.h"
#include "core/proc.h"
#include "core/sched.h"
#include "core/thread.h"

struct unit_test {
	const char *name;
	void (*fn)(void);
	unsigned ps; /* with which numbers of Ps: UNIT_P1 | ...; 0: the runtime is not started */
};

enum { UNIT_P1 = 1, UNIT_P2 = 2, UNIT_P8 = 4, UNIT_ALL = 7 };

#define UNIT_NATIVE(f) {#f, f, 0}
#define UNIT_GREEN(f, p) {#f, f, p}

int unit_main(int argc, char **argv, const struct unit_test *tests, unsigned n);
#define UNIT_MAIN(tests)                                                                                               \
	int main(int argc, char **argv)                                                                                \
	{                                                                                                              \
		return unit_main(argc, argv, tests, sizeof tests / sizeof tests[0]);                                   \
	}

extern uint64_t unit_seed;
/* A pseudo-random number below n; each thread has a state of its own, made by unit_rng. */
uint64_t unit_rng(uint64_t salt);
uint32_t unit_rand(uint64_t *rng, uint32_t n);

/* A green thread with a small stack. */
struct pg_g *unit_go(void *(*fn)(void *), void *arg);
/* Waits for its end and gives its memory back. */
void *unit_join(struct pg_g *g);
/* One that nobody joins. */
void unit_detached(void *(*fn)(void *), void *arg);

/* An OS thread of libc's, and its end. */
unsigned long unit_os(void *(*fn)(void *), void *arg);
void unit_os_join(unsigned long t);

void unit_yield(void);
void unit_sleep(int64_t ns);
/* What a random schedule does at a point of interest: nothing, spin, yield, a short sleep. */
void unit_chaos(uint64_t *rng);
/* Yields until *word has at least this value. */
void unit_await(const _Atomic uint32_t *word, uint32_t atleast);
/* Yields until g is parked for this reason. */
void unit_await_parked(struct pg_g *g, enum pg_reason reason);

/* Runs fn in a forked child; its wait status.  *out: what it wrote on stderr. */
int unit_in_child(void (*fn)(void *), void *arg, char *out, size_t size);

#endif
