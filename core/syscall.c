/* SPDX-License-Identifier: MIT */
/*
 * Taking a P away from an M whose G is in user code, a system call or asleep, and the way back.
 *
 * User code (rt == 0) always runs with its P open to be taken.  Entering the runtime is a plain store of rt and a load of
 * m->attn with no processor barrier in between; the retaker pays for the order with an expedited membarrier:
 *
 *	M: rt = 1; if (attn) slow          retaker: attn |= WANT; membarrier; if (rt == 0) CAS attn WANT -> TAKEN
 *
 * Either the retaker sees rt == 1 and gives up, or the M's load comes after the barrier and sees WANT; then a CAS
 * decides: WANT -> 0 by the M keeps the P, WANT -> TAKEN by the retaker takes it.  That cur and rt belong together is
 * checked by reading m->switches before and after.  Without membarrier every M carries ATTN_FENCE and always goes through the slow
 * path, which has a fence of its own.  Modelled in tests/model/retake.pml.
 *
 * An M without P whose G is in user code runs on; its next entry into the runtime finds TAKEN and queues the G for a P.
 */
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/chaos.h"
#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/signal.h"
#include "core/syscall.h"

bool pg_retake(struct pg_m *m, struct pg_p *p)
{
	uint32_t a = atomic_load(&m->attn), s;
	struct pg_g *g;
	bool open;

	if (a & (PG_ATTN_WANT | PG_ATTN_TAKEN) || !atomic_compare_exchange_strong(&m->attn, &a, a | PG_ATTN_WANT))
		return false;
	if (pg_have_membarrier)
		pg_membarrier();
	else
		atomic_thread_fence(memory_order_seq_cst);
	s = atomic_load(&m->switches);
	g = *(struct pg_g *volatile *)&m->cur;
	open = g != &m->g0 && atomic_load(&g->rt) == 0;
	if (atomic_load(&m->switches) != s || m->p != p)
		open = false;
	for (;;) {
		a = atomic_load(&m->attn);
		if (!(a & PG_ATTN_WANT))
			return false; /* the M came by and kept it */
		if (a & PG_ATTN_TAKEN)
			open = false; /* or gave it away itself: pg_entersyscallblock */
		if (atomic_compare_exchange_strong(&m->attn, &a, (a & ~(uint32_t)PG_ATTN_WANT) | (open ? PG_ATTN_TAKEN : 0))) {
			if (open) {
				atomic_store(&p->m, NULL);
				p->handoffs++;
			}
			return open;
		}
	}
}

/* The P of the calling G's M is gone: wait for another.  rt == 1. */
void pg_lostp(struct pg_g *g)
{
	struct pg_m *m = g->m;
	struct pg_p *p;

	pg_lock(&pg_sched.lock);
	p = pg_pidleget();
	pg_unlock(&pg_sched.lock);
	if (p) {
		pg_acquirep(m, p);
		return;
	}
	pg_switchaway(g, PG_OP_GLOBAL);
}

void pg_rt_enter_slow(struct pg_g *g)
{
	struct pg_m *m = g->m;
	uint32_t a;

	atomic_thread_fence(memory_order_seq_cst);
	for (;;) {
		a = atomic_load(&m->attn);
		if (a & PG_ATTN_STOP) {
			/* The world stands still: wait outside. */
			atomic_store(&g->rt, 0);
			while (atomic_load(&pg_sched.stopped))
				pg_sys(SYS_futex, &pg_sched.stopped, FUTEX_WAIT_PRIVATE, 1, NULL);
			atomic_store(&g->rt, 1);
			m = g->m;
			if (!atomic_load(&pg_sched.stopped))
				atomic_fetch_and(&m->attn, ~(uint32_t)PG_ATTN_STOP);
			continue;
		}
		if (a & PG_ATTN_WANT) {
			atomic_compare_exchange_strong(&m->attn, &a, a & ~(uint32_t)PG_ATTN_WANT);
			continue; /* TAKEN may be there as well */
		}
		if (a & PG_ATTN_TAKEN) {
			atomic_fetch_and(&m->attn, ~(uint32_t)PG_ATTN_TAKEN);
			m->p = NULL;
			pg_lostp(g);
		}
		break;
	}
	if (pg_unlikely(pg_knobs.chaos))
		pg_chaos_enter(g);
}

void pg_rt_exit_slow(struct pg_g *g)
{
	uint32_t pend = atomic_load(&g->pending);

	if (pend & (PG_PEND_SIGNAL | PG_PEND_CANCEL))
		pg_deliver(g);
	if (pend & PG_PEND_PREEMPT) {
		atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_PREEMPT);
		if (g->mode == PG_GREEN) {
			pg_rt_enter(g);
			if (!pg_runqempty(g->m->p) || atomic_load(&pg_sched.runqsize) > 0)
				pg_switchaway(g, PG_OP_SPENT);
			pg_rt_exit(g);
		}
	}
	if (pend & PG_PEND_WIRE && !(atomic_load_explicit(&g->insys, memory_order_relaxed) & 1)) {
		atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_WIRE);
		if (g->mode == PG_GREEN) {
			pg_rt_enter(g);
			pg_wire(g);
			pg_rt_exit(g);
		}
	}
}

void pg_entersyscallblock(struct pg_g *g)
{
	struct pg_m *m;
	struct pg_p *p;

	if (g->mode != PG_GREEN)
		return;
	pg_rt_enter(g);
	m = g->m;
	p = m->p;
	/* As if somebody had taken it. */
	atomic_fetch_or(&m->attn, PG_ATTN_TAKEN);
	atomic_store(&p->m, NULL);
	pg_handoffp(p);
	pg_entersyscall(g);
	pg_rt_exit(g);
}
