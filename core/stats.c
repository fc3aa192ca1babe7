/* SPDX-License-Identifier: MIT */
/* What PGREEN_STATS and PGREEN_DEADLOCK print, from counters that are kept anyway.  On stderr, one line each. */
#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/stats.h"
#include "core/thread.h"

static const char *const reasons[] = {
#define X(n) #n,
	PG_REASONS(X)
#undef X
};
enum { NREASONS = sizeof reasons / sizeof *reasons };

void pg_stats_exit(void)
{
	unsigned long switches = 0, handoffs = 0;
	int ms = 0;

	if (!pg_knobs.stats)
		return;
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink) {
		switches += atomic_load(&m->switches);
		ms++;
	}
	for (int i = 0; pg_allp && i < pg_nprocs; i++)
		handoffs += pg_allp[i].handoffs;
	pg_say("stats: threads=%lu switches=%lu osthreads=%d procs=%d retaken=%lu", pg_threads_made(), switches, ms, pg_nprocs,
	       handoffs);
}

struct census { int n[NREASONS], parked, others; };

static void count(struct pg_g *g, void *arg)
{
	struct census *c = arg;
	uint32_t st = atomic_load(&g->state), why = atomic_load(&g->reason);

	if (st == PG_G_dead || st == PG_G_idle || st == PG_G_ghost)
		return;
	if (g->mode != PG_GREEN || st != PG_G_waiting || why >= NREASONS) {
		c->others++;
		return;
	}
	c->parked++;
	c->n[why]++;
}

void pg_deadlock_check(void)
{
	static bool said;
	struct census c = {0};
	char text[256];
	size_t len = 0;

	if (!pg_knobs.deadlock || said || atomic_load(&pg_sched.npidle) != pg_nprocs || atomic_load(&pg_sched.runqsize) > 0 ||
	    pg_timers_next() != PG_FOREVER || atomic_load(&pg_sched.pollwaiters) > 0)
		return;
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
		if (m->tid && m->cur != &m->g0)
			return; /* in a system call, or wired */
	count(&pg_main_g, &c);
	pg_foreach_g(count, &c);
	if (c.others || c.parked == 0)
		return;
	said = true;
	for (int i = 0; i < NREASONS; i++) {
		if (c.n[i] == 0)
			continue;
		for (const char *s = reasons[i]; *s && len < sizeof text - 2; s++)
			text[len++] = *s;
		text[len++] = ' ';
	}
	text[len] = 0;
	pg_say("deadlock: all %d threads are asleep for good, waiting for: %s", c.parked, text);
}
