/* SPDX-License-Identifier: MIT */
/*
 * Readiness of descriptors: what does not depend on how the kernel reports it (that is netpoll_epoll.c); the table is in fd.c.
 *
 * Each descriptor has a poll descriptor (pd), found by number, type-stable.  Each direction of it has a word:
 *   NIL    nobody waits, nothing is known                      -> WAIT by a G, READY by an edge
 *   READY  an edge nobody has used                             -> NIL by the G that uses it
 *   WAIT   a G is about to park; its address with bit 0 set      -> its address by its commit, READY by an edge, NIL by itself
 *   G      it is parked                                        -> NIL by an edge, which wakes it, or by itself when something
 *                                                                 else woke it
 * A G that resumes and does not find its own address in the word has been taken off by an edge: it counts as ready, whatever
 * else woke it at the same moment.
 *
 * More Gs for the same direction queue up (under the lock).  While the queue is not empty somebody holds the word (WAIT, G) or
 * a wake-up is under way: whoever leaves the word, or has used readiness and may have left some (the baton), wakes the
 * next in the queue, which starts from the top.
 *
 * With several Gs, one may have tried in vain before an edge that another then used up without taking all there was; so once a
 * direction has had a second G (shared, set before that G can use an edge), every G asks poll(2) between WAIT and parking.
 *
 * Gs in poll(2) hang on a list of their own per pd; every edge wakes them all, and they look for themselves.
 *
 * A pd of a closed descriptor gets a new generation: waiters of the old one return -EBADF, edges of the old one are ignored.
 * Descriptors that are closed and opened behind our back are found by the audit: what has been waited for longer than a
 * second is asked with poll(2).
 * Lock order: the pd's lock before the scheduler's.  Source: Go's netpoll with two-phase parking (2014).
 */
#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/netpoll.h"
#include "core/pd.h"
#include "core/proc.h"
#include "core/say.h"

#define NIL ((uintptr_t)0)
#define READY ((uintptr_t)1)
#define WAIT(g) ((uintptr_t)(g) | 1)
#define IS_WAIT(v) (((v) & 1) && (v) != READY)
#define IS_G(v) ((v) != NIL && !((v) & 1))

enum { AUDIT_BATCH = 128 };

static _Atomic uint32_t epoch = 1; /* counts audits */

struct pg_waiter { /* second and later Gs of one direction */
	struct pg_waiter *next, *prev;
	struct pg_g *g;
	bool queued; /* under the pd's lock */
};

struct pg_pollnode {
	struct pg_pollnode *next, *prev;
	struct pg_pd *pd;
	struct pg_g *g;
};

/* ---- waking ---- */

static void wake_to(struct pg_g *g, enum pg_why why, struct pg_glist *l)
{
	bool won;

	if (!pg_claim(g, why, &won))
		return;
	atomic_store_explicit(&g->state, PG_G_runnable, memory_order_relaxed);
	if (l == NULL || g->mode == PG_NATIVE) {
		pg_ready(g);
		return;
	}
	g->schedlink = NULL;
	if (l->tail)
		l->tail->schedlink = g;
	else
		l->head = g;
	l->tail = g;
	l->n++;
}

static void wake_queued(struct pg_pd *pd, struct pg_side *s, bool all, struct pg_glist *l)
{
	pg_lock(&pd->lock);
	while (s->queue) {
		struct pg_waiter *w = s->queue;
		struct pg_g *g = w->g;
		s->queue = w->next;
		if (w->next)
			w->next->prev = NULL;
		else
			s->queuetail = NULL;
		atomic_fetch_sub(&s->nqueued, 1);
		w->queued = false; /* it takes the lock to see this, so it stays until we unlock */
		wake_to(g, PG_WHY_READY, l); /* a native G is woken here, under the lock: it waits for it */
		if (!all)
			break;
	}
	pg_unlock(&pd->lock);
}

/* Readiness, or a close: wakes the holder of the word, else the first in the queue; all who poll. */
void pg_pd_edge(struct pg_pd *pd, int mode, struct pg_glist *l)
{
	struct pg_side *s = &pd->side[mode];
	uintptr_t v = atomic_load(&s->word);

	for (;;) {
		if (v == READY)
			break;
		if (v == NIL || IS_WAIT(v)) {
			if (atomic_compare_exchange_weak(&s->word, &v, READY))
				break;
		} else if (atomic_compare_exchange_weak(&s->word, &v, NIL)) {
			wake_to((struct pg_g *)v, PG_WHY_READY, l);
			return;
		}
	}
	if (atomic_load(&s->nqueued) > 0)
		wake_queued(pd, s, false, l);
}

void pg_pd_pollers(struct pg_pd *pd, struct pg_glist *l)
{
	if (atomic_load(&pd->npoll) == 0)
		return;
	pg_lock(&pd->lock);
	for (struct pg_pollnode *n = pd->polls; n; n = n->next)
		wake_to(n->g, PG_WHY_READY, l);
	pg_unlock(&pd->lock);
}

/* ---- waiting for one direction ---- */

static bool commit(struct pg_g *g, void *arg)
{
	struct pg_side *s = arg;
	uintptr_t v = WAIT(g); /* nobody else's: an edge may have used ours up, and another G have come */

	return atomic_compare_exchange_strong(&s->word, &v, (uintptr_t)g);
}

static int reg(struct pg_pd *pd)
{
	int r = 0;

	if (atomic_load_explicit(&pd->registered, memory_order_acquire))
		return 0;
	pg_lock(&pd->lock);
	if (!atomic_load(&pd->registered)) {
		r = pg_netpoll_add(pd);
		if (r == 0)
			atomic_store_explicit(&pd->registered, 1, memory_order_release);
	}
	pg_unlock(&pd->lock);
	return r;
}

/* Waits in the queue behind the holder of the word. */
static unsigned wait_queued(struct pg_g *g, struct pg_pd *pd, struct pg_side *s, int64_t deadline, int mode)
{
	struct pg_waiter w = {.g = g};
	unsigned why;
	bool taken;

	pg_wait_prepare(g);
	pg_lock(&pd->lock);
	w.prev = s->queuetail;
	if (w.prev)
		w.prev->next = &w;
	else
		s->queue = &w;
	s->queuetail = &w;
	w.queued = true;
	atomic_fetch_add(&s->nqueued, 1);
	pg_unlock(&pd->lock);
	/* pairs with the look at nqueued of whoever leaves the word */
	uintptr_t v = atomic_load(&s->word);
	if (v == NIL || v == READY) {
		pg_wait_abort(g);
		why = PG_WHY_READY;
	} else {
		why = pg_park(g, deadline, mode == PG_READ ? PG_WAIT_netread : PG_WAIT_netwrite);
	}
	pg_lock(&pd->lock);
	taken = !w.queued;
	if (w.queued) {
		if (w.prev)
			w.prev->next = w.next;
		else
			s->queue = w.next;
		if (w.next)
			w.next->prev = w.prev;
		else
			s->queuetail = w.prev;
		atomic_fetch_sub(&s->nqueued, 1);
	}
	pg_unlock(&pd->lock);
	return taken ? PG_WHY_READY : why;
}

static bool ready_now(int fd, int mode)
{
	struct pollfd pf = {fd, mode == PG_READ ? POLLIN : POLLOUT, 0};

	return pg_sys(SYS_poll, &pf, 1, 0) != 0;
}

int pg_netpoll_wait(int fd, int mode, int64_t deadline)
{
	struct pg_g *g = pg_self();
	struct pg_pd *pd = pg_pd_get(fd);
	struct pg_side *s;
	uint32_t gen;
	uintptr_t v;
	unsigned why;
	bool ready = false;
	int r;

	if (pd == NULL)
		return -EPERM;
	pg_rt_enter(g);
	gen = atomic_load(&pd->gen);
	r = reg(pd);
	if (r < 0) {
		pg_rt_exit(g);
		return r;
	}
	s = &pd->side[mode];
	struct pg_g *none = NULL;
	if (!atomic_load_explicit(&s->shared, memory_order_relaxed) &&
	    !atomic_compare_exchange_strong(&s->user, &none, g) && none != g)
		atomic_store(&s->shared, true);
	v = atomic_load(&s->word);
	for (;;) {
		if (v == READY) {
			if (!atomic_compare_exchange_weak(&s->word, &v, NIL))
				continue;
			ready = true;
			why = PG_WHY_READY;
			break;
		}
		if (v != NIL) {
			atomic_fetch_add(&pg_sched.pollwaiters, 1);
			atomic_store_explicit(&s->epoch, atomic_load(&epoch), memory_order_relaxed);
			why = wait_queued(g, pd, s, deadline, mode);
			atomic_fetch_sub(&pg_sched.pollwaiters, 1);
			ready = why & PG_WHY_READY;
			break;
		}
		if (!atomic_compare_exchange_weak(&s->word, &v, WAIT(g)))
			continue;
		atomic_fetch_add(&pg_sched.pollwaiters, 1);
		atomic_store_explicit(&s->epoch, atomic_load(&epoch), memory_order_relaxed);
		pg_wait_prepare(g);
		if (atomic_load(&s->shared) && ready_now(fd, mode)) {
			pg_wait_abort(g);
			ready = true;
			why = PG_WHY_READY;
		} else if (atomic_load(&pd->gen) == gen) {
			why = pg_park_commit(g, commit, s, deadline, mode == PG_READ ? PG_WAIT_netread : PG_WAIT_netwrite);
		} else {
			pg_wait_abort(g);
			why = PG_WHY_SIGNAL;
		}
		atomic_fetch_sub(&pg_sched.pollwaiters, 1);
		/* Still ours: it was not an edge.  Not ours: an edge took us off. */
		v = (uintptr_t)g;
		if (!atomic_compare_exchange_strong(&s->word, &v, NIL)) {
			v = WAIT(g); /* woken before the commit */
			if (!atomic_compare_exchange_strong(&s->word, &v, NIL))
				ready = true;
			if (v == READY)
				atomic_compare_exchange_strong(&s->word, &v, NIL);
		}
		/* We have left the word. */
		if (atomic_load(&s->nqueued) > 0 && !ready)
			wake_queued(pd, s, false, NULL);
		break;
	}
	if (atomic_load(&pd->gen) != gen)
		r = -EBADF;
	else if (ready)
		r = 0;
	else if (why & PG_WHY_SIGNAL)
		r = -EINTR;
	else if (why & PG_WHY_TIMEOUT && pg_now() >= deadline)
		r = -ETIMEDOUT;
	else
		r = 0;
	if (r == 0 && mode == PG_READ)
		atomic_store_explicit(&pd->drained, 0, memory_order_relaxed);
	pg_rt_exit(g);
	return r;
}

void pg_netpoll_baton(int fd, int mode)
{
	struct pg_pd *pd = pg_pd_peek(fd);
	struct pg_g *g;

	if (pd == NULL || atomic_load_explicit(&pd->side[mode].nqueued, memory_order_relaxed) == 0)
		return;
	g = pg_self();
	pg_rt_enter(g);
	wake_queued(pd, &pd->side[mode], false, NULL);
	pg_rt_exit(g);
}

void pg_netpoll_drained(int fd)
{
	struct pg_pd *pd = pg_pd_peek(fd);

	/* Only an edge tells of what comes next, so there must be a registration. */
	if (pd && atomic_load_explicit(&pd->registered, memory_order_relaxed) &&
	    !atomic_load_explicit(&pd->hup, memory_order_relaxed))
		atomic_store_explicit(&pd->drained, 1, memory_order_relaxed);
	if (pd && atomic_load_explicit(&pd->side[PG_READ].nqueued, memory_order_relaxed))
		pg_netpoll_baton(fd, PG_READ);
}

bool pg_netpoll_registered(int fd)
{
	struct pg_pd *pd = pg_pd_peek(fd);

	return pd && atomic_load_explicit(&pd->registered, memory_order_relaxed);
}

bool pg_netpoll_empty(int fd)
{
	struct pg_pd *pd = pg_pd_peek(fd);

	return pd && atomic_load_explicit(&pd->drained, memory_order_relaxed) &&
	       !atomic_load_explicit(&pd->hup, memory_order_relaxed) &&
	       atomic_load_explicit(&pd->side[PG_READ].word, memory_order_relaxed) != READY;
}

/* ---- waiting for many ---- */

int pg_netpoll_poll(const struct pollfd *fds, unsigned n, int64_t deadline, bool (*recheck)(void *), void *arg)
{
	struct pg_pollnode few[8], *nodes = few;
	struct pg_g *g = pg_self();
	unsigned k = 0, why = PG_WHY_READY;
	int r = 0;

	if (n > 8) {
		nodes = pg_mmap_alloc(n * sizeof *nodes);
		if (nodes == NULL)
			return -EPERM;
	}
	pg_rt_enter(g);
	for (unsigned i = 0; i < n; i++) {
		struct pg_pd *pd;
		if (fds[i].fd < 0)
			continue;
		pd = pg_pd_get(fds[i].fd);
		r = pd ? reg(pd) : -EPERM;
		if (r < 0)
			goto out;
		nodes[k].pd = pd;
		nodes[k++].g = g;
	}
	pg_wait_prepare(g);
	for (unsigned i = 0; i < k; i++) {
		struct pg_pd *pd = nodes[i].pd;
		pg_lock(&pd->lock);
		nodes[i].prev = NULL;
		nodes[i].next = pd->polls;
		if (pd->polls)
			pd->polls->prev = &nodes[i];
		pd->polls = &nodes[i];
		atomic_fetch_add(&pd->npoll, 1);
		pg_unlock(&pd->lock);
	}
	atomic_fetch_add(&pg_sched.pollwaiters, 1);
	if (recheck(arg))
		pg_wait_abort(g);
	else
		why = pg_park(g, deadline, PG_WAIT_poll);
	atomic_fetch_sub(&pg_sched.pollwaiters, 1);
	for (unsigned i = 0; i < k; i++) {
		struct pg_pd *pd = nodes[i].pd;
		struct pg_pollnode *x = &nodes[i];
		pg_lock(&pd->lock);
		if (x->prev)
			x->prev->next = x->next;
		else
			pd->polls = x->next;
		if (x->next)
			x->next->prev = x->prev;
		atomic_fetch_sub(&pd->npoll, 1);
		pg_unlock(&pd->lock);
	}
	r = why & PG_WHY_READY ? 0 : why & PG_WHY_SIGNAL ? -EINTR : pg_now() >= deadline ? -ETIMEDOUT : 0;
out:
	pg_rt_exit(g);
	if (nodes != few)
		pg_sys(SYS_munmap, nodes, n * sizeof *nodes);
	return r;
}

/* ---- closing, audit ---- */

void pg_fd_forget(int fd)
{
	struct pg_pd *pd = fd < 0 ? NULL : pg_pd_peek(fd);
	struct pg_g *g;

	if (pd == NULL)
		return;
	atomic_store_explicit(&pd->flags_gen, 0, memory_order_relaxed);
	if (!atomic_load(&pd->registered)) {
		atomic_store_explicit(&pd->kind, PG_FD_UNKNOWN, memory_order_relaxed);
		return;
	}
	g = pg_self();
	pg_rt_enter(g);
	pg_lock(&pd->lock);
	atomic_fetch_add(&pd->gen, 1);
	atomic_store(&pd->kind, PG_FD_UNKNOWN);
	atomic_store(&pd->drained, 0);
	atomic_store(&pd->hup, 0);
	if (atomic_exchange(&pd->registered, 0))
		pg_netpoll_del(pd);
	pg_unlock(&pd->lock);
	for (int mode = 0; mode < 2; mode++) {
		struct pg_side *s = &pd->side[mode];
		uintptr_t v = atomic_load(&s->word);
		/* The next descriptor of this number begins with NIL. */
		while (v != NIL && !IS_WAIT(v) && !atomic_compare_exchange_weak(&s->word, &v, NIL))
			;
		if (IS_G(v))
			wake_to((struct pg_g *)v, PG_WHY_READY, NULL);
		else if (IS_WAIT(v))
			pg_pd_edge(pd, mode, NULL);
		if (atomic_load(&s->nqueued))
			wake_queued(pd, s, true, NULL);
		atomic_store(&s->user, NULL);
		atomic_store(&s->shared, false);
	}
	pg_pd_pollers(pd, NULL);
	pg_rt_exit(g);
}

void pg_fd_forget_range(unsigned lo, unsigned hi)
{
	unsigned m = (unsigned)atomic_load(&pg_pd_max);

	for (unsigned fd = lo; fd <= hi && fd <= m; fd++)
		pg_fd_forget((int)fd);
}

static void audit_batch(struct pollfd *pf, int n, struct pg_glist *l)
{
	if (n == 0 || pg_sys(SYS_poll, pf, n, 0) <= 0)
		return;
	for (int i = 0; i < n; i++) {
		struct pg_pd *pd = pg_pd_peek(pf[i].fd);
		if (pf[i].revents == 0)
			continue;
		if (pf[i].revents & POLLNVAL) {
			pg_fd_forget(pf[i].fd);
			continue;
		}
		/* Ready, and yet waited for: the registration belongs to something else, or is gone. */
		pg_lock(&pd->lock);
		pg_netpoll_del(pd);
		atomic_store(&pd->drained, 0);
		atomic_store(&pd->registered, pg_netpoll_add(pd) == 0);
		pg_unlock(&pd->lock);
		if (pf[i].revents & ~POLLOUT)
			pg_pd_edge(pd, PG_READ, l);
		if (pf[i].revents & ~POLLIN)
			pg_pd_edge(pd, PG_WRITE, l);
		pg_pd_pollers(pd, l);
	}
}

void pg_netpoll_audit(int64_t now)
{
	static int64_t last;
	struct pollfd pf[AUDIT_BATCH];
	struct pg_glist l = {0};
	uint32_t e;
	int n = 0, m = atomic_load(&pg_pd_max);

	if (atomic_load(&pg_sched.pollwaiters) == 0 || now - last < 1000000000)
		return;
	last = now;
	e = atomic_fetch_add(&epoch, 1);
	for (int fd = 0; fd <= m; fd++) {
		struct pg_pd *pd = pg_pd_peek(fd);
		short ev = 0;
		if (pd == NULL) {
			fd |= PG_PD_CHUNK - 1;
			continue;
		}
		for (int mode = 0; mode < 2; mode++) {
			struct pg_side *s = &pd->side[mode];
			if (IS_G(atomic_load_explicit(&s->word, memory_order_relaxed)) && atomic_load(&s->epoch) != e)
				ev |= mode == PG_READ ? POLLIN : POLLOUT;
		}
		/* A G in poll(2) may wait for one direction only and others be ready for long: it has looked itself. */
		if (ev == 0)
			continue;
		pf[n++] = (struct pollfd){fd, ev, 0};
		if (n == AUDIT_BATCH) {
			audit_batch(pf, n, &l);
			n = 0;
		}
	}
	audit_batch(pf, n, &l);
	pg_injectlist(&l);
}

/* In a fork's child: nobody waits any more, and the poller is a new one. */
void pg_netpoll_forked(void)
{
	for (int i = 0; i < PG_PD_NCHUNKS; i++) {
		struct pg_pd *c = pg_pd_peek(i * PG_PD_CHUNK);
		for (int k = 0; c && k < PG_PD_CHUNK; k++) {
			struct pg_pd *pd = &c[k];
			pd->lock = (struct pg_lock){0};
			atomic_fetch_add(&pd->gen, 1);
			atomic_store(&pd->registered, 0);
			atomic_store(&pd->drained, 0);
			atomic_store(&pd->npoll, 0);
			pd->polls = NULL;
			for (int mode = 0; mode < 2; mode++) {
				pd->side[mode].queue = pd->side[mode].queuetail = NULL;
				atomic_store(&pd->side[mode].nqueued, 0);
				atomic_store(&pd->side[mode].word, NIL);
			}
		}
	}
}
