/* SPDX-License-Identifier: MIT */
/*
 * Wiring from outside: by name (PGREEN_WIRE), and for what another thread asks of one.
 *
 * PG_PEND_WIRE in g->pending says that g shall be wired; it does that itself, where it next leaves the runtime (a parked one
 * when it goes on, a running one is preempted for it), never inside an announced call.  What is known of it by
 * then goes to its OS thread: the name, a narrow CPU set, a real-time policy.
 *
 * The sets lie in records that stay with their G for good.  lock protects all of them, and the store of free room.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/knobs.h"
#include "core/lock.h"
#include "core/proc.h"

/* ---- names ---- */

/* Does the pattern from p to end (* any text, ? any character) match all of s? */
static bool match(const char *p, const char *end, const char *s)
{
	const char *star = NULL, *again = NULL;

	for (;;) {
		if (p < end && *p == '*') {
			star = ++p;
			again = s;
		} else if (*s == '\0') {
			return p == end;
		} else if (p < end && (*p == '?' || *p == *s)) {
			p++;
			s++;
		} else if (star) {
			/* The last star takes one more. */
			p = star;
			s = ++again;
		} else {
			return false;
		}
	}
}

bool pg_wire_named(const char *name)
{
	const char *p = pg_knobs.wire, *end;

	if (pg_likely(*p == '\0'))
		return false;
	for (;; p = end + 1) {
		end = strchrnul(p, ',');
		if (match(p, end, name))
			return true;
		if (*end == '\0')
			return false;
	}
}

/* ---- CPU sets ---- */

static struct pg_lock lock;
static struct { char *next, *end; } room; /* lock */

enum { CPUBYTES = PG_CPUWORDS * sizeof(unsigned long) };
_Static_assert(CPUBYTES == sizeof(cpu_set_t), "the size of a CPU set");

static unsigned long *new_record(void)
{
	if (room.next == room.end) {
		room.next = pg_mmap_alloc(32 * CPUBYTES);
		if (room.next == NULL) {
			room.end = NULL;
			return NULL;
		}
		room.end = room.next + 32 * CPUBYTES;
	}
	room.next += CPUBYTES;
	return (unsigned long *)(room.next - CPUBYTES);
}

int pg_cpus_set(struct pg_g *g, const unsigned long *cpus)
{
	int err = 0;

	pg_lock(&lock);
	if (cpus && g->cpus == NULL && (g->cpus = new_record()) == NULL)
		err = -ENOMEM;
	else if (cpus)
		memcpy(g->cpus, cpus, CPUBYTES);
	atomic_store(&g->narrow, cpus && err == 0);
	pg_unlock(&lock);
	return err;
}

bool pg_cpus_get(struct pg_g *g, unsigned long *cpus)
{
	bool narrow;

	if (!atomic_load(&g->narrow))
		return false;
	pg_lock(&lock);
	narrow = atomic_load(&g->narrow);
	if (narrow)
		memcpy(cpus, g->cpus, CPUBYTES);
	pg_unlock(&lock);
	return narrow;
}

/* ---- wiring ---- */

void pg_wire_later(struct pg_g *g)
{
	struct pg_m *m;

	if (g->mode != PG_GREEN)
		return;
	/* If it is running: preempted, it comes by.  In libc the preemption is dropped, and it is its next call. */
	atomic_fetch_or(&g->pending, PG_PEND_WIRE | PG_PEND_PREEMPT);
	m = *(struct pg_m *volatile *)&g->m;
	if (g != pg_self_ && m && m != &pg_nullm && *(struct pg_g *volatile *)&m->cur == g)
		pg_kick(m);
}

/* Whoever records something for g later looks whether it is wired (g->ostid, set before) and tells the OS thread itself. */
void pg_wire_apply(struct pg_g *g)
{
	unsigned long cpus[PG_CPUWORDS];

	/* The name of the process's first OS thread is the process's, and main's. */
	if (g->name[0] != '\0' && (g == &pg_main_g || pg_sys(SYS_gettid) != pg_sys(SYS_getpid)))
		pg_sys(SYS_prctl, PR_SET_NAME, g->name);
	if (pg_cpus_get(g, cpus))
		pg_sys(SYS_sched_setaffinity, 0, sizeof cpus, cpus);
	if (g->policy != SCHED_OTHER) {
		struct sched_param param = {.sched_priority = g->prio};
		pg_sys(SYS_sched_setscheduler, 0, g->policy, &param);
	}
}
