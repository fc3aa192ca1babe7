/* SPDX-License-Identifier: MIT */
/*
 * How an M ends, and what becomes of its memory.
 *
 * An M ends when the wired G that kept it has ended, or when it has been idle for long and others are: sysmon, who counts idle
 * Ms, takes the surplus off sched.midle, sets m->retire and wakes them.  Before it enters the kernel for the last time the
 * M puts itself on sched.dying; sysmon waits until the kernel has cleared m->cleartid, when nothing of the thread is left (its
 * locks, robust and PI, are released as well), tells the joiner of the wired G, and puts the M on sched.mfree, from where it starts
 * again with a new OS thread.  A stale pointer to it finds a valid object all the while.
 *
 * The first OS thread of the process never ends by itself, or the process would look dead; nor does one that is the parent of a
 * child (m->parent), since the kernel tells children of the end of the thread, not the process (PR_SET_PDEATHSIG).
 */
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/proc.h"
#include "core/thread.h"

enum { KEEP = 4 };                      /* idle Ms that nobody sends away, at least */
#define PATIENCE 5000000000             /* ns for which there must have been a surplus */

/* On m's g0, whose OS thread ends here.  m->lockedg: the wired G that has ended, or NULL. */
void pg_mexit(struct pg_m *m)
{
	pg_lock(&pg_sched.lock);
	pg_sched.mcount--;
	pg_unlock(&pg_sched.lock);
	atomic_store(&m->cleartid, 1);
	pg_sys(SYS_set_tid_address, &m->cleartid);
	m->dyinglink = atomic_load(&pg_sched.dying);
	while (!atomic_compare_exchange_weak(&pg_sched.dying, &m->dyinglink, m))
		;
	pg_sysmon_poke();
	pg_kick_mend(m);
	atomic_store(&m->g0.rt, 0);
	for (;;)
		pg_sys(SYS_exit, 0);
}

/* On sysmon: Ms on their last way to the kernel.  True: there were some. */
bool pg_bury(void)
{
	struct pg_m *m = atomic_exchange(&pg_sched.dying, NULL), *next;
	bool any = m != NULL;

	for (; m; m = next) {
		next = m->dyinglink;
		while (atomic_load(&m->cleartid) != 0)
			pg_sys(SYS_sched_yield);
		if (m->lockedg)
			pg_finish_exit(m->lockedg);
		pg_mfree(m);
	}
	return any;
}

void pg_mfree(struct pg_m *m)
{
	m->lockedg = NULL;
	m->firstg = NULL;
	pg_lock(&pg_sched.lock);
	m->link = pg_sched.mfree;
	pg_sched.mfree = m;
	pg_unlock(&pg_sched.lock);
}

/* On sysmon, now and then: sends away what has been idle too long. */
void pg_retire(int64_t now)
{
	static int low;       /* fewest idle Ms since */
	static int64_t since;
	struct pg_m *list = NULL, **pp, *m;
	int keep = pg_nprocs < KEEP ? KEEP : pg_nprocs, surplus, pid = getpid();

	pg_lock(&pg_sched.lock);
	if (since == 0 || pg_sched.nmidle < low)
		low = pg_sched.nmidle;
	if (since == 0)
		since = now;
	if (now - since > PATIENCE) {
		/* The first on the list was the last to work. */
		surplus = low - keep;
		for (pp = &pg_sched.midle; surplus > 0 && *pp && keep > 0; keep--)
			pp = &(*pp)->link;
		while (surplus > 0 && (m = *pp) != NULL) {
			if (m->stays || m->tid == pid) {
				pp = &m->link;
				continue;
			}
			*pp = m->link;
			pg_sched.nmidle--;
			surplus--;
			m->link = list;
			list = m;
		}
		low = pg_sched.nmidle;
		since = now;
	}
	pg_unlock(&pg_sched.lock);
	while ((m = list) != NULL) {
		list = m->link;
		m->retire = true;
		pg_notewakeup(&m->note);
	}
}

void pg_stay(struct pg_g *g)
{
	if (g->mode == PG_GREEN)
		g->m->stays = true;
}
