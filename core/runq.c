/* SPDX-License-Identifier: MIT */
/*
 * Queues of runnable Gs: a ring and a runnext slot per P, one global list.
 *
 * Ring: head is advanced by CAS, by the owner and by thieves; tail is stored by the owner alone, with release, so that a
 * thief that sees the tail sees the slots.  runnext: set by the owner, taken by CAS by anyone.  A G taken from runnext
 * goes on in its predecessor's turn: after NEXT_MAX of these in a row the ring gets its turn, so that two Gs that wake
 * each other can't keep the others out.
 *
 * Spent: a second global list, for Gs that were preempted because their time slice was over.  They wait until nothing else is
 * runnable: natively, too, a thread that has just been woken goes before those that compute.  Not for ever: when a P has run none of
 * them for OWE (sysmon.c), one of them is next (p->owe), and so at every 32nd yield: it may be one of them that it waits for.  A G
 * leaves this class when it waits for something, or yields.
 * Source: the scheme of Go's proc.go (2013 and after).
 */
#include "core/proc.h"

enum { NEXT_MAX = 64 };

struct pg_sched pg_sched;

void pg_runqput(struct pg_p *p, struct pg_g *g, bool next)
{
	if (next) {
		struct pg_g *old = atomic_load_explicit(&p->runnext, memory_order_relaxed);
		if (old == NULL) { /* only the owner fills an empty slot */
			atomic_store_explicit(&p->runnext, g, memory_order_release);
			return;
		}
		old = atomic_exchange_explicit(&p->runnext, g, memory_order_acq_rel);
		if (old == NULL)
			return;
		g = old;
	}
	for (;;) {
		uint32_t h = atomic_load_explicit(&p->runqhead, memory_order_acquire);
		uint32_t t = atomic_load_explicit(&p->runqtail, memory_order_relaxed);
		if (t - h < PG_RUNQ) {
			atomic_store_explicit(&p->runq[t % PG_RUNQ], g, memory_order_relaxed);
			atomic_store_explicit(&p->runqtail, t + 1, memory_order_release);
			return;
		}
		/* Full: half of it and g go to the global queue, unless a thief makes room first. */
		uint32_t n = PG_RUNQ / 2;
		if (!atomic_compare_exchange_strong_explicit(&p->runqhead, &h, h + n, memory_order_acq_rel,
							     memory_order_relaxed))
			continue;
		/* They are ours now: link them for good. */
		for (uint32_t i = 0; i < n; i++) {
			struct pg_g *x = atomic_load_explicit(&p->runq[(h + i) % PG_RUNQ], memory_order_relaxed);
			x->schedlink = i + 1 < n ? atomic_load_explicit(&p->runq[(h + i + 1) % PG_RUNQ], memory_order_relaxed) : g;
		}
		g->schedlink = NULL;
		struct pg_glist l = {atomic_load_explicit(&p->runq[h % PG_RUNQ], memory_order_relaxed), g, (int)n + 1};
		pg_globputlist(&l);
		return;
	}
}

struct pg_g *pg_runqget(struct pg_p *p)
{
	struct pg_g *g = atomic_load_explicit(&p->runnext, memory_order_acquire);
	uint32_t h, t;

	if (g != NULL && p->nextruns < NEXT_MAX) {
		if (pg_nprocs == 1) { /* no thieves */
			atomic_store_explicit(&p->runnext, NULL, memory_order_relaxed);
			p->nextruns++;
			return g;
		}
		if (atomic_compare_exchange_strong_explicit(&p->runnext, &g, NULL, memory_order_acq_rel, memory_order_relaxed)) {
			p->nextruns++;
			return g;
		}
	}
	p->nextruns = 0;
	for (;;) {
		h = atomic_load_explicit(&p->runqhead, memory_order_acquire);
		t = atomic_load_explicit(&p->runqtail, memory_order_relaxed);
		if (t == h)
			break;
		g = atomic_load_explicit(&p->runq[h % PG_RUNQ], memory_order_relaxed);
		if (atomic_compare_exchange_weak_explicit(&p->runqhead, &h, h + 1, memory_order_acq_rel, memory_order_relaxed))
			return g;
	}
	return atomic_exchange_explicit(&p->runnext, NULL, memory_order_acq_rel);
}

bool pg_runqempty(struct pg_p *p)
{
	/* The owner may move runnext to the ring between two of these reads, so read the tail twice. */
	for (;;) {
		uint32_t h = atomic_load(&p->runqhead);
		uint32_t t = atomic_load(&p->runqtail);
		struct pg_g *n = atomic_load(&p->runnext);
		if (t == atomic_load(&p->runqtail))
			return h == t && n == NULL;
	}
}

struct pg_g *pg_runqsteal(struct pg_p *p, struct pg_p *victim, bool stealnext)
{
	uint32_t t = atomic_load_explicit(&p->runqtail, memory_order_relaxed);

	for (;;) {
		uint32_t h = atomic_load_explicit(&victim->runqhead, memory_order_acquire);
		uint32_t vt = atomic_load_explicit(&victim->runqtail, memory_order_acquire);
		uint32_t n = vt - h;
		n -= n / 2;
		if (n == 0) {
			struct pg_g *g;
			if (!stealnext || (g = atomic_load_explicit(&victim->runnext, memory_order_acquire)) == NULL)
				return NULL;
			if (atomic_compare_exchange_strong_explicit(&victim->runnext, &g, NULL, memory_order_acq_rel,
								    memory_order_relaxed))
				return g;
			continue;
		}
		if (n > PG_RUNQ / 2) /* h and vt were read at different times */
			continue;
		for (uint32_t i = 0; i < n; i++)
			atomic_store_explicit(&p->runq[(t + i) % PG_RUNQ],
					      atomic_load_explicit(&victim->runq[(h + i) % PG_RUNQ], memory_order_relaxed),
					      memory_order_relaxed);
		if (!atomic_compare_exchange_strong_explicit(&victim->runqhead, &h, h + n, memory_order_acq_rel,
							     memory_order_relaxed))
			continue;
		n--;
		struct pg_g *g = atomic_load_explicit(&p->runq[(t + n) % PG_RUNQ], memory_order_relaxed);
		if (n > 0)
			atomic_store_explicit(&p->runqtail, t + n, memory_order_release);
		return g;
	}
}

static void sizes(void)
{
	atomic_store_explicit(&pg_sched.spentsize, pg_sched.spent.n, memory_order_relaxed);
	atomic_store_explicit(&pg_sched.runqsize, pg_sched.runq.n + pg_sched.spent.n, memory_order_seq_cst);
}

static void append_locked(struct pg_glist *q, struct pg_glist *l)
{
	if (q->tail)
		q->tail->schedlink = l->head;
	else
		q->head = l->head;
	q->tail = l->tail;
	q->n += l->n;
	sizes();
}

void pg_globputlist(struct pg_glist *l)
{
	if (l->head == NULL)
		return;
	pg_lock(&pg_sched.lock);
	append_locked(&pg_sched.runq, l);
	pg_unlock(&pg_sched.lock);
}

void pg_globput(struct pg_g *g)
{
	struct pg_glist l = {g, g, 1};

	g->schedlink = NULL;
	pg_globputlist(&l);
}

void pg_spentput(struct pg_g *g)
{
	struct pg_glist l = {g, g, 1};

	g->schedlink = NULL;
	pg_lock(&pg_sched.lock);
	append_locked(&pg_sched.spent, &l);
	pg_unlock(&pg_sched.lock);
}

struct pg_g *pg_spentget(struct pg_p *p)
{
	struct pg_glist *q = &pg_sched.spent;
	struct pg_g *g = q->head;

	atomic_store_explicit(&p->owe, false, memory_order_relaxed);
	if (g == NULL)
		return NULL;
	q->head = g->schedlink;
	if (q->head == NULL)
		q->tail = NULL;
	q->n--;
	g->schedlink = NULL;
	atomic_fetch_add_explicit(&p->spentruns, 1, memory_order_relaxed);
	sizes();
	return g;
}

struct pg_g *pg_globget(struct pg_p *p, int max)
{
	struct pg_glist *q = &pg_sched.runq;
	struct pg_g *first = NULL;
	int n = q->n / pg_nprocs + 1;

	if (q->n == 0)
		return NULL;
	if (max > 0 && n > max)
		n = max;
	if (n > q->n)
		n = q->n;
	if (n > PG_RUNQ / 2)
		n = PG_RUNQ / 2;
	for (int i = 0; i < n; i++) {
		struct pg_g *g = q->head;
		q->head = g->schedlink;
		if (q->head == NULL)
			q->tail = NULL;
		q->n--;
		g->schedlink = NULL;
		if (first == NULL)
			first = g;
		else {
			uint32_t h = atomic_load_explicit(&p->runqhead, memory_order_acquire);
			uint32_t t = atomic_load_explicit(&p->runqtail, memory_order_relaxed);
			if (t - h >= PG_RUNQ) { /* no room: back it goes */
				g->schedlink = q->head;
				q->head = g;
				if (q->tail == NULL)
					q->tail = g;
				q->n++;
				break;
			}
			atomic_store_explicit(&p->runq[t % PG_RUNQ], g, memory_order_relaxed);
			atomic_store_explicit(&p->runqtail, t + 1, memory_order_release);
		}
	}
	sizes();
	return first;
}
