/* SPDX-License-Identifier: MIT */
/*
 * The CPU time of a green thread: what the OS threads spent on it while it ran there.
 *
 * m->cpumark is the CPU time of the M up to which it has been charged to somebody; g->cputime is what was charged to a G.  A
 * wired G keeps its OS thread and the kernel counts for it: g->cputime is the difference between its clock and that thread's
 * then, so that the clock goes on from where it was.
 *
 *   off  Until somebody asks, the switch does nothing.  sysmon looks at times and charges what an M has used since its last look
 *        to the G that it finds running there: on the whole right, as a clock of ticks is.  A G younger than the
 *        last look gets nothing, so that no clock is ahead of its thread's age.
 *   on   From the first question on, for good, each switch reads the clock of its OS thread and charges the G that is left.
 *        What g0 uses is charged to g0: nobody's time.
 *
 * lock protects off -> on and, while off, cpumark.  While on, the M alone writes its cpumark and the cputime of the G it
 * runs, with m->cpuseq odd meanwhile for those who read the clock of another thread.
 *
 * Rejected: reading the time stamp counter in each switch.  It counts while the kernel runs somebody else on the processor.
 */
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/cputime.h"
#include "core/lock.h"
#include "core/proc.h"

enum { LOOK = 4000000 }; /* ns between two looks of sysmon's, at least */

_Atomic bool pg_cputime_on;

static struct pg_lock lock;
static uint32_t young; /* the tid that the next thread was going to get at the last look; lock */
static int64_t lastlook; /* sysmon's */

int64_t pg_os_clock(int tid)
{
	struct timespec ts;
	long r = pg_sys(SYS_clock_gettime, tid ? (long)(int)((~(unsigned)tid << 3) | 6) : CLOCK_THREAD_CPUTIME_ID, &ts);

	return r < 0 ? -1 : (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Charges every M's time since the last look.  lock held, rt > 0. */
static void look(void)
{
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink) {
		struct pg_g *g = *(struct pg_g *volatile *)&m->cur;
		int64_t now, mark = atomic_load_explicit(&m->cpumark, memory_order_relaxed);

		/* A wired G's M: g0 has its name on the door, and the kernel counts. */
		if (m->tid == 0 || (g == &m->g0 && m->p == NULL))
			continue;
		now = pg_os_clock(m->tid);
		if (now <= mark)
			continue;
		atomic_store(&m->cpumark, now);
		if (g != &m->g0 && (int32_t)(g->tid - young) < 0)
			atomic_fetch_add(&g->cputime, now - mark);
	}
	young = pg_next_tid();
}

void pg_cputime_tick(int64_t now)
{
	if (atomic_load_explicit(&pg_cputime_on, memory_order_relaxed) || now - lastlook < LOOK)
		return;
	lastlook = now;
	pg_lock(&lock);
	if (!atomic_load(&pg_cputime_on))
		look();
	pg_unlock(&lock);
}

static void turn_on(void)
{
	pg_lock(&lock);
	if (!atomic_load(&pg_cputime_on)) {
		look();
		/* A switch that does not see it yet leaves some microseconds to the next G. */
		atomic_store(&pg_cputime_on, true);
	}
	pg_unlock(&lock);
}

/* cur changes in the same breath: what the M uses from now on is not from's. */
void pg_cputime_switch(struct pg_m *m, struct pg_g *from, struct pg_g *to)
{
	int64_t now, mark = atomic_load_explicit(&m->cpumark, memory_order_relaxed);
	uint32_t seq = atomic_load_explicit(&m->cpuseq, memory_order_relaxed);

	/* First: whoever reads the clock of this M after us must not get away with it. */
	atomic_store(&m->cpuseq, seq + 1);
	now = pg_os_clock(0);
	atomic_store_explicit(&m->cpumark, now, memory_order_relaxed);
	atomic_store_explicit(&from->cputime,
			      atomic_load_explicit(&from->cputime, memory_order_relaxed) + now - mark, memory_order_relaxed);
	*(struct pg_g *volatile *)&m->cur = to;
	atomic_store_explicit(&m->cpuseq, seq + 2, memory_order_release);
}

/* On the way from green to wired, on the OS thread in question. */
void pg_cputime_wired(struct pg_g *g, struct pg_m *m)
{
	int64_t now;

	pg_lock(&lock);
	now = pg_os_clock(0);
	if (atomic_load(&pg_cputime_on) || (int32_t)(g->tid - young) < 0)
		atomic_fetch_add(&g->cputime, now - atomic_load(&m->cpumark));
	atomic_store(&m->cpumark, now);
	atomic_fetch_sub(&g->cputime, now);
	atomic_store(&g->ostid, m->tid);
	pg_unlock(&lock);
}

void pg_cputime_start(struct pg_g *g)
{
	/* All that its OS thread has used so far was its own: m->cpumark is 0. */
	atomic_store(&g->cputime, 0);
	atomic_store(&g->ostid, 0);
	young = pg_next_tid();
}

/* Runs or not, on any M.  lock held: it does not become wired meanwhile. */
static int64_t green(struct pg_g *g)
{
	for (;;) {
		struct pg_m *m = *(struct pg_m *volatile *)&g->m;
		int64_t used, now = 0, mark = 0;
		uint32_t seq;

		if (m == &pg_nullm && (m = g->wiredm) == NULL) /* the child of a vfork runs in its place */
			continue;
		if (m == NULL)
			return atomic_load(&g->cputime); /* has not run yet */
		seq = atomic_load(&m->cpuseq);
		if (seq & 1) {
			pg_sys(SYS_sched_yield); /* it may have lost its processor just now */
			continue;
		}
		used = atomic_load(&g->cputime);
		if (*(struct pg_g *volatile *)&m->cur == g) {
			mark = atomic_load(&m->cpumark);
			now = pg_os_clock(m->tid);
			if (now < mark)
				now = mark;
		}
		if (atomic_load(&m->cpuseq) == seq)
			return used + now - mark;
	}
}

int64_t pg_cputime(struct pg_g *g)
{
	struct pg_g *self = pg_self();
	int64_t t;
	int os;

	pg_rt_enter(self);
	if (pg_unlikely(!atomic_load_explicit(&pg_cputime_on, memory_order_relaxed)))
		turn_on();
	if (g == self && g->mode == PG_GREEN) {
		t = atomic_load_explicit(&g->cputime, memory_order_relaxed) + pg_os_clock(0) -
		    atomic_load_explicit(&g->m->cpumark, memory_order_relaxed);
	} else if (g == self) {
		t = pg_os_clock(0) + atomic_load(&g->cputime);
	} else {
		pg_lock(&lock);
		os = atomic_load(&g->ostid);
		t = os ? pg_os_clock(os) : green(g);
		if (os && t >= 0)
			t += atomic_load(&g->cputime);
		pg_unlock(&lock);
	}
	pg_rt_exit(self);
	return t;
}

void pg_cputime_split(struct pg_g *g, int64_t total, int64_t user, int64_t system, int64_t out[2])
{
	int64_t sys = user + system > 0 ? (int64_t)((double)total * (double)system / (double)(user + system)) : 0;

	/* Neither part may go back. */
	if (sys < g->cpusplit[1])
		sys = g->cpusplit[1];
	if (total - sys < g->cpusplit[0])
		sys = total - g->cpusplit[0];
	out[0] = g->cpusplit[0] = total - sys;
	out[1] = g->cpusplit[1] = sys;
}
