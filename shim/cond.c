/* SPDX-License-Identifier: MIT */
/*
 * Condition variables: a first-in first-out queue of waiters inside the object.  Needs from below:
 * pg_park, pg_wake, pg_lock.
 *
 * A waiter is a node on its own stack, and its state says who has taken it:
 *   QUEUED     on the queue.  -> SIGNALLED by a signaller, -> LEAVING by the waiter (time-out, signal, cancellation)
 *   SIGNALLED  taken off by a signaller; the node may vanish at once. The waiter never touches the object again.
 *   LEAVING    still on the queue; the waiter takes it off under the lock. A signaller passes it over.
 * Both leave QUEUED by compare-and-swap, so a signal goes to exactly one waiter, which reports success
 * even if its time was over as well; one that has given up takes no signal with it.
 *
 * A waiter prepares its wait and then looks at its state; a signaller changes the state and then wakes:
 * one of the two sees the other.  A spurious wake-up leaves the node where it is, so a waiter keeps its
 * place in the queue.
 *
 * Signal handlers run while the node stays on the queue: natively the wait goes on afterwards, and a signal
 * sent by the handler must find it.  g->condwait leads to the nodes of such waits, innermost first: a handler that
 * jumps away or ends its thread takes them off (pg_cond_forsake).  A cancellation is acted upon with the
 * mutex locked.
 *
 * A broadcast takes all waiters that were there when it began, some at a time, and makes them runnable;
 * they come to the mutex's queue by themselves.  Rejected: moving nodes to that queue.  A switch costs
 * as much as the move, the mutex may be any kind, and a waiter on the wrong queue would need a second
 * way out for each of time-out, signal and fork.
 *
 * The last access of a signaller is the unlock, before it wakes anybody.  Destroying waits for those who
 * are LEAVING.
 */
#include "shim/objects.h"

struct pg_condwait {
	struct pg_condwait *next, *prev; /* the object's lock */
	struct pg_g *g;
	uint32_t seq;
	_Atomic uint32_t state;
	struct pg_cond *c;
	struct pg_mutex *m;
	struct pg_condwait *outer; /* on g->condwait; the G's */
	uint32_t type;             /* the G's cancellation type before the wait */
};

enum { QUEUED, SIGNALLED, LEAVING };
enum { SHARED = 1, MONOTONIC = 2 };
enum { BATCH = 32, POLL = 1000000 };

/* Waiters of before a fork are on stacks that are no more.  Lock held. */
static inline void forget_ghosts(struct pg_cond *c)
{
	if (pg_unlikely(c->gen != pg_fork_gen)) {
		c->gen = pg_fork_gen;
		c->head = c->tail = NULL;
	}
}

static inline struct pg_condwait *first(struct pg_cond *c)
{
	return atomic_load_explicit(&c->head, memory_order_relaxed);
}

/* What was between prev and next is not on the queue any more.  Lock held. */
static inline void join(struct pg_cond *c, struct pg_condwait *prev, struct pg_condwait *next)
{
	if (prev)
		prev->next = next;
	else
		atomic_store_explicit(&c->head, next, memory_order_relaxed);
	if (next)
		next->prev = prev;
	else
		c->tail = prev;
}

static void enqueue(struct pg_cond *c, struct pg_condwait *w)
{
	pg_lock(&c->lock);
	forget_ghosts(c);
	w->seq = c->seq++;
	w->prev = c->tail;
	if (c->tail)
		c->tail->next = w;
	else
		atomic_store_explicit(&c->head, w, memory_order_relaxed);
	c->tail = w;
	pg_unlock(&c->lock);
}

static bool move_state(struct pg_condwait *w, uint32_t to)
{
	uint32_t s = QUEUED;

	return atomic_compare_exchange_strong(&w->state, &s, to);
}

/* False: a signaller was faster. */
static bool leave(struct pg_cond *c, struct pg_condwait *w)
{
	if (!move_state(w, LEAVING))
		return false;
	pg_lock(&c->lock);
	join(c, w->prev, w->next);
	pg_unlock(&c->lock);
	return true;
}

/* Up to max waiters with numbers before *limit off the queue; how many.  *more: there may be further ones. */
static int pop(struct pg_cond *c, struct pg_g **batch, int max, const uint32_t *limit, bool *more)
{
	struct pg_condwait *w, *next, *prev;
	int n = 0;

	*more = false;
	for (w = first(c); w && (int32_t)(w->seq - *limit) < 0; w = next) {
		struct pg_g *g = w->g;

		if (n == max) {
			*more = true;
			break;
		}
		next = w->next;
		prev = w->prev;
		if (move_state(w, SIGNALLED)) {
			join(c, prev, next);
			batch[n++] = g;
		}
	}
	return n;
}

static void __attribute__((noinline)) signal_some(struct pg_g *self, struct pg_cond *c, bool all)
{
	struct pg_g *batch[BATCH];
	bool begun = false, more;
	uint32_t limit = 0;

	pg_rt_enter(self);
	do {
		int n;

		pg_lock(&c->lock);
		forget_ghosts(c);
		if (!begun)
			limit = c->seq;
		begun = true;
		n = pop(c, batch, all ? BATCH : 1, &limit, &more);
		pg_unlock(&c->lock);
		/* A G that woke for another reason meanwhile finds itself SIGNALLED. */
		for (int i = 0; i < n; i++)
			pg_wake(batch[i], PG_WHY_READY);
	} while (all && more);
	pg_rt_exit(self);
}

/* Parks until signalled (0), cancelled (EINTR) or late (ETIMEDOUT); after the latter two w is off the queue.  rt == 1. */
static int wait_queued(struct pg_g *g, struct pg_cond *c, struct pg_condwait *w, clockid_t clock,
		       const struct timespec *ts)
{
	int64_t deadline = pg_until(clock, ts);

	for (;;) {
		unsigned why;

		pg_wait_prepare(g);
		if (atomic_load(&w->state) == SIGNALLED) {
			pg_wait_abort(g);
			return 0;
		}
		/* One that came while handlers ran has had its wake-up. */
		if (pg_unlikely(pg_cancel_wanted(g))) {
			pg_wait_abort(g);
			return leave(c, w) ? EINTR : 0;
		}
		why = pg_park(g, deadline, PG_WAIT_cond);
		if (atomic_load(&w->state) == SIGNALLED)
			return 0;
		if (why & PG_WHY_SIGNAL) {
			w->outer = g->condwait;
			g->condwait = w;
			pg_rt_exit(g); /* handlers run here */
			pg_rt_enter(g);
			g->condwait = w->outer;
			continue;
		}
		if (pg_until_passed(clock, ts))
			return leave(c, w) ? ETIMEDOUT : 0;
		if (why & PG_WHY_TIMEOUT)
			deadline = pg_until(clock, ts);
	}
}

static int wait_private(struct pg_g *g, struct pg_cond *c, struct pg_mutex *m, clockid_t clock,
			const struct timespec *ts)
{
	struct pg_condwait w = { .g = g, .c = c, .m = m };
	uint32_t type;
	int r, err;

	pg_testcancel();
	/* Not even an asynchronous cancellation may leave without the mutex. */
	w.type = type = pg_cancel_type(g, PTHREAD_CANCEL_DEFERRED);
	pg_rt_enter(g);
	if (pg_cancel_wanted(g)) { /* it came since we looked; from here on one finds us waiting */
		pg_rt_exit(g);
		pg_cancel_type(g, type);
		pg_testcancel();
		pg_rt_enter(g);
	}
	enqueue(c, &w);
	err = pg_mutex_unlock(g, m);
	if (err == 0) {
		r = wait_queued(g, c, &w, clock, ts);
	} else if (leave(c, &w)) {
		r = EINTR;
	} else {
		signal_some(g, c, false); /* it was for somebody who really waits */
		r = EINTR;
	}
	pg_rt_exit(g);
	if (err == 0)
		err = pg_mutex_lock(g, m);
	pg_cancel_type(g, type);
	if (r != 0)
		pg_testcancel();
	if (err)
		return err;
	return r == ETIMEDOUT ? ETIMEDOUT : 0;
}

void pg_cond_forsake(struct pg_g *g, uintptr_t from, uintptr_t to, bool lock)
{
	struct pg_condwait *w;

	while ((w = g->condwait) != NULL && (uintptr_t)w - from < to - from) {
		struct pg_cond *c = w->c;

		g->condwait = w->outer;
		pg_rt_enter(g);
		if (!leave(c, w))
			signal_some(g, c, false); /* what was for us is for another */
		pg_rt_exit(g);
		pg_cancel_type(g, w->type);
		if (lock)
			pg_mutex_lock(g, w->m);
	}
}

static int real_wait(struct pg_cond *c, struct pg_mutex *m, clockid_t clock, const struct timespec *ts)
{
	pthread_cond_t *cond = (pthread_cond_t *)c;
	pthread_mutex_t *mutex = (pthread_mutex_t *)m;

	return ts ? PG_REAL(pthread_cond_clockwait)(cond, mutex, clock, ts) : PG_REAL(pthread_cond_wait)(cond, mutex);
}

/*
 * Of another process as well.  libc unlocks the mutex itself, which it can't do with one of ours: then each wait is
 * short and returns as if woken for no reason.
 */
static int wait_shared(struct pg_g *g, struct pg_cond *c, struct pg_mutex *m, clockid_t clock,
		       const struct timespec *ts)
{
	int64_t deadline;
	int r;

	if (m->kind & PG_MUTEX_REAL) {
		pg_cancel_enter(g);
		pg_entersyscall(g);
		r = real_wait(c, m, clock, ts);
		pg_cancel_leave(g);
		pg_exitsyscall(g);
		return r;
	}
	pg_testcancel();
	r = pg_mutex_unlock(g, m);
	if (r)
		return r;
	deadline = pg_until(clock, ts);
	if (deadline > pg_now() + POLL)
		deadline = pg_now() + POLL;
	pg_sleep_until(deadline, PG_WAIT_cond);
	r = pg_mutex_lock(g, m);
	pg_testcancel();
	return r ? r : pg_until_passed(clock, ts) ? ETIMEDOUT : 0;
}

static int wait_any(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *ts)
{
	struct pg_cond *c = (struct pg_cond *)cond;
	struct pg_mutex *m = (struct pg_mutex *)mutex;

	PG_SYNC_SELF(g, real_wait(c, m, clock, ts));
	if (pg_unlikely(c->flags & SHARED))
		return wait_shared(g, c, m, clock, ts);
	return wait_private(g, c, m, clock, ts);
}

/* Blocks: the G.  Cancel: yes; the mutex is locked again first, no signal is lost. */
PG_EXPORT int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	return wait_any(cond, mutex, CLOCK_REALTIME, NULL);
}

PG_EXPORT int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *ts)
{
	struct pg_cond *c = (struct pg_cond *)cond;

	if (pg_timespec_bad(ts))
		return EINVAL;
	return wait_any(cond, mutex, c->flags & MONOTONIC ? CLOCK_MONOTONIC : CLOCK_REALTIME, ts);
}

PG_EXPORT int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock,
				     const struct timespec *ts)
{
	if (pg_timespec_bad(ts) || pg_clock_bad(clock))
		return EINVAL;
	return wait_any(cond, mutex, clock, ts);
}

PG_EXPORT int pthread_cond_signal(pthread_cond_t *cond)
{
	struct pg_cond *c = (struct pg_cond *)cond;

	PG_SYNC_SELF(g, PG_REAL(pthread_cond_signal)(cond));
	if (pg_unlikely(c->flags & SHARED))
		return PG_REAL(pthread_cond_signal)(cond);
	/* A waiter that the caller knows of was queued before it released the mutex. */
	if (first(c) != NULL)
		signal_some(g, c, false);
	return 0;
}

PG_EXPORT int pthread_cond_broadcast(pthread_cond_t *cond)
{
	struct pg_cond *c = (struct pg_cond *)cond;

	PG_SYNC_SELF(g, PG_REAL(pthread_cond_broadcast)(cond));
	if (pg_unlikely(c->flags & SHARED))
		return PG_REAL(pthread_cond_broadcast)(cond);
	/* A waiter that the caller knows of was queued before it released the mutex. */
	if (first(c) != NULL)
		signal_some(g, c, true);
	return 0;
}

/* Blocks: the G, while anybody is in the middle of leaving (and as natively, while somebody waits). */
PG_EXPORT int pthread_cond_destroy(pthread_cond_t *cond)
{
	struct pg_cond *c = (struct pg_cond *)cond;

	PG_SYNC_SELF(g, PG_REAL(pthread_cond_destroy)(cond));
	if (pg_unlikely(c->flags & SHARED)) {
		int r;

		pg_entersyscall(g);
		r = PG_REAL(pthread_cond_destroy)(cond);
		pg_exitsyscall(g);
		return r;
	}
	for (int i = 0;; i++) {
		bool empty;

		pg_rt_enter(g);
		pg_lock(&c->lock);
		forget_ghosts(c);
		empty = first(c) == NULL;
		pg_unlock(&c->lock);
		if (!empty && i < 10)
			pg_yield();
		pg_rt_exit(g);
		if (empty)
			return 0;
		if (i >= 10)
			pg_sleep_until(pg_now() + POLL, PG_WAIT_cond);
	}
}
