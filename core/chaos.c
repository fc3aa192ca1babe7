/* SPDX-License-Identifier: MIT */
/*
 * Trouble on purpose: see chaos.h for where it acts.
 *
 * All decisions come from the seed and the number of decisions made before, so a run with the same seed meets the same
 * sequence of them; which thread meets which is up to the kernel.
 *
 * The number of Ps in use: sysmon takes idle Ps off sched.pidle and keeps them on sched.pheld, npheld of them, until it gives them
 * back; both under the scheduler's lock.  At least one P is never held.  A held P is as an idle one to thieves, who look at the
 * queues and timers of all Ps; whoever asks "are all others idle?" counts it as idle (npidle + npheld), and startm, which looks at
 * sched.pidle alone, can't have it.
 *
 * What does not fail, since there is no way back (pg_mmap_must): the growth of a heap of timers, the G of a foreign thread (LIMITS.md).
 * Needs from below: pg_sys, the scheduler.
 */
#include "core/chaos.h"

#include <errno.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/proc.h"
#include "core/syscall.h"

static _Atomic uint64_t decisions;

static uint32_t roll(uint64_t salt)
{
	uint64_t z = ((uint64_t)pg_knobs.chaos << 32 | salt) + 0x9e3779b97f4a7c15u * atomic_fetch_add(&decisions, 1);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)(z >> 32);
}

long pg_chaos_fail_slow(enum pg_chaos_call call)
{
	uint32_t r = roll(call);

	if (r % (uint32_t)pg_knobs.fail != 0)
		return 0;
	switch (call) {
	case PG_CHAOS_CLONE:
		return -EAGAIN;
	case PG_CHAOS_EPOLL:
		return r & 1u << 31 ? -ENOSPC : -ENOMEM;
	case PG_CHAOS_FD:
		return -EMFILE;
	case PG_CHAOS_MMAP:
		break;
	}
	return -ENOMEM;
}

void pg_chaos_late_slow(void)
{
	uint32_t r = roll(16);
	struct timespec ts = {0, (r >> 8) % 200000};

	if (r % 16 == 0)
		pg_sys(SYS_nanosleep, &ts, NULL);
	else if (r % 4 == 0)
		for (r = (r >> 8) % 2048; r > 0; r--)
			pg_cpu_relax();
}

void pg_chaos_enter(struct pg_g *g)
{
	struct pg_m *m = g->m;
	struct pg_p *p = m->p;
	uint32_t r;

	if (g->mode != PG_GREEN || p == NULL)
		return;
	r = roll(17) & 1023;
	if (r < 64) { /* goes on wherever it is taken */
		pg_switchaway(g, PG_OP_GLOBAL);
	} else if (r < 80) { /* switches at the end of this call, if others wait */
		atomic_fetch_or(&g->pending, PG_PEND_PREEMPT);
	} else if (r < 84) { /* as if the P had been retaken: another M has it */
		pg_releasep(m);
		pg_handoffp(p);
		pg_lostp(g);
	}
}

void pg_chaos_procs(void)
{
	struct pg_p *p, *back = NULL;
	uint32_t r = roll(18);

	if (r % 4 != 0)
		return;
	pg_lock(&pg_sched.lock);
	if (r & 1u << 16) {
		if (pg_nprocs - atomic_load(&pg_sched.npheld) > 1 && (p = pg_pidleget()) != NULL) {
			p->link = pg_sched.pheld;
			pg_sched.pheld = p;
			atomic_fetch_add(&pg_sched.npheld, 1);
		}
	} else if ((back = pg_sched.pheld) != NULL) {
		pg_sched.pheld = back->link;
		atomic_fetch_sub(&pg_sched.npheld, 1);
		pg_pidleput(back);
	}
	pg_unlock(&pg_sched.lock);
	/* Who queued a G while it was held found no idle P.  With nothing queued a process at rest stays so. */
	for (int i = 0; back && i < pg_nprocs; i++) {
		if (!pg_runqempty(&pg_allp[i]) || atomic_load(&pg_sched.runqsize) > 0) {
			pg_wakep();
			break;
		}
	}
}
