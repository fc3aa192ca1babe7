/* SPDX-License-Identifier: MIT */
/*
 * Deadlines: a 4-ary heap per P.  A G has one deadline at a time (g->timer); it is put on the heap of the P it parks on and
 * taken off by the G itself when it runs again, or by whoever runs the heap.  g->timer.idx is its place, -1 when on none; idx
 * and the heap are protected by the heap's lock, g->timer.p tells which heap and is written by the G alone.
 *
 * A heap is run by the M that holds the P, by a thief that found nothing better, by the poller and by sysmon.
 */
#include <string.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/proc.h"
#include "core/say.h"

static void place(struct pg_p *p, int i, struct pg_heapent e)
{
	p->heap[i] = e;
	e.g->timer.idx = i;
}

static void siftup(struct pg_p *p, int i, struct pg_heapent e)
{
	while (i > 0) {
		int up = (i - 1) / 4;
		if (p->heap[up].when <= e.when)
			break;
		place(p, i, p->heap[up]);
		i = up;
	}
	place(p, i, e);
}

static void siftdown(struct pg_p *p, int i, struct pg_heapent e)
{
	for (;;) {
		int c = 4 * i + 1, best = c;
		if (c >= p->nheap)
			break;
		for (int k = c + 1; k < c + 4 && k < p->nheap; k++)
			if (p->heap[k].when < p->heap[best].when)
				best = k;
		if (e.when <= p->heap[best].when)
			break;
		place(p, i, p->heap[best]);
		i = best;
	}
	place(p, i, e);
}

static void set0(struct pg_p *p)
{
	atomic_store_explicit(&p->timer0, p->nheap ? p->heap[0].when : PG_FOREVER, memory_order_seq_cst);
}

static void del_locked(struct pg_p *p, int i)
{
	struct pg_heapent last = p->heap[--p->nheap];

	p->heap[i].g->timer.idx = -1;
	if (i < p->nheap) {
		if (i > 0 && p->heap[(i - 1) / 4].when > last.when)
			siftup(p, i, last);
		else
			siftdown(p, i, last);
	}
}

static void grow(struct pg_p *p)
{
	int cap = p->capheap ? p->capheap * 2 : 512;
	struct pg_heapent *h = pg_mmap_must((size_t)cap * sizeof *h);

	if (h == NULL)
		pg_throw("out of memory for %d timers", cap);
	if (p->heap) {
		memcpy(h, p->heap, (size_t)p->nheap * sizeof *h);
		pg_sys(SYS_munmap, p->heap, (size_t)p->capheap * sizeof *h);
	}
	p->heap = h;
	p->capheap = cap;
}

void pg_timer_add(struct pg_p *p, struct pg_g *g, int64_t when)
{
	bool first;

	pg_lock(&p->timerlock);
	if (p->nheap == p->capheap)
		grow(p);
	g->timer.p = p;
	g->timer.when = when;
	p->nheap++;
	siftup(p, p->nheap - 1, (struct pg_heapent){when, g});
	first = g->timer.idx == 0;
	if (first)
		set0(p);
	pg_unlock(&p->timerlock);
	if (first && when < atomic_load(&pg_sched.polluntil) && atomic_load(&pg_sched.polling))
		pg_netpoll_break();
}

void pg_timer_del(struct pg_g *g)
{
	struct pg_p *p = g->timer.p;

	pg_lock(&p->timerlock);
	if (g->timer.idx >= 0) {
		bool first = g->timer.idx == 0;
		del_locked(p, g->timer.idx);
		if (first)
			set0(p);
	}
	pg_unlock(&p->timerlock);
}

int pg_timers_run(struct pg_p *p, int64_t now)
{
	struct pg_g *batch[64];
	int total = 0, n;

	do {
		n = 0;
		pg_lock(&p->timerlock);
		while (n < 64 && p->nheap && p->heap[0].when <= now) {
			batch[n++] = p->heap[0].g;
			del_locked(p, 0);
		}
		set0(p);
		pg_unlock(&p->timerlock);
		/* Such a G may have been woken otherwise meanwhile, even wait for something else: a spurious wake-up. */
		for (int i = 0; i < n; i++)
			pg_wake(batch[i], PG_WHY_TIMEOUT);
		total += n;
	} while (n == 64);
	return total;
}

int64_t pg_timers_next(void)
{
	int64_t t = PG_FOREVER;

	for (int i = 0; i < pg_nprocs; i++) {
		int64_t w = atomic_load(&pg_allp[i].timer0);
		if (w < t)
			t = w;
	}
	return t;
}
