/* SPDX-License-Identifier: MIT */
/*
 * Mutexes.  Needs from below: pg_sema_wait and pg_sema_wake on the word.
 *
 * The word, with owner and legal exits:
 *   FREE       nobody's.               -> LOCKED by anyone, -> CONTENDED by one who has waited
 *   LOCKED     held, nobody waits.     -> FREE by the holder, -> CONTENDED or HEIR by a waiter
 *   CONTENDED  held, some may wait.    -> FREE by the holder, who wakes one; -> HEIR by a waiter
 *   HEIR       held, some may wait, one of them (the heir) for more than a millisecond.
 *                                      -> RESERVED by the holder, who wakes the heir,
 *                                      -> CONTENDED by the heir, when it gives up
 *   RESERVED   nobody's but the heir's.  -> CONTENDED by the heir, which then holds the mutex
 *
 * Usually the mutex goes to whoever comes first (barging): the running thread need not wait for a
 * sleeping one.  A waiter that was woken, lost the race and has waited for PG_STARVED becomes the heir,
 * unless there is one: then the next unlock hands the mutex over.  So each starved waiter gets it after
 * at most one more loss for each time it is woken.
 *
 * Why no wake-up is lost: plain waiters and the heir sleep on the word with different bits.  While a
 * plain waiter sleeps, either the word is CONTENDED, HEIR or RESERVED (and a coming unlock passes
 * through CONTENDED, since who has waited locks with CONTENDED), or a woken waiter is on its way, which
 * locks with CONTENDED or marks the word before it sleeps or gives up.  (pg_sema_wait says 0 to whom a
 * wake-up was given, even if its time is over; it looks at the word once more.)
 *
 * Why hand-over is safe against time-outs: the heir leaves only by a compare-and-swap of the word it
 * saw, HEIR -> CONTENDED.  If that fails, the word is RESERVED and the heir takes the mutex, late but in
 * time.
 *
 * A fork: in the child an heir of the parent does not exist.  heirgen != pg_fork_gen says so; then HEIR
 * counts as CONTENDED and RESERVED as FREE.
 *
 * Kinds: normal and adaptive are the same.  Recursive and errorcheck compare owner with the caller's
 * tid: only the owner itself can find it equal, so a stale value does no harm.
 */
#include "shim/objects.h"

#include "arch.h"

enum { FREE, LOCKED, CONTENDED, HEIR, RESERVED };
enum { PLAIN_BIT = 1, HEIR_BIT = 2 };

#define KIND_FAST(m) (((m)->kind & ~PG_MUTEX_ELISION) == PTHREAD_MUTEX_TIMED_NP)

static inline bool swing(struct pg_mutex *m, uint32_t from, uint32_t to)
{
	return atomic_compare_exchange_strong_explicit(&m->word, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

static inline bool take(struct pg_mutex *m)
{
	uint32_t c = FREE;

	/* pairs with the release in drop and drop_slow */
	return atomic_compare_exchange_strong_explicit(&m->word, &c, LOCKED, memory_order_acquire, memory_order_relaxed);
}

static inline void own(struct pg_mutex *m, struct pg_g *g)
{
	atomic_store_explicit(&m->owner, g->tid, memory_order_relaxed);
}

static inline bool is_mine(struct pg_mutex *m, struct pg_g *g)
{
	return atomic_load_explicit(&m->owner, memory_order_relaxed) == g->tid;
}

static inline bool heir_is_gone(struct pg_mutex *m)
{
	return atomic_load_explicit(&m->heirgen, memory_order_relaxed) != pg_fork_gen;
}

static bool spin(struct pg_mutex *m)
{
	for (int i = pg_spins(); i > 0; i--) {
		uint32_t c = atomic_load_explicit(&m->word, memory_order_relaxed);

		if (c == FREE && take(m))
			return true;
		if (c >= HEIR)
			return false;
		pg_cpu_relax();
	}
	return false;
}

/* The heir's time is over.  True: it has got the mutex all the same. */
static bool abdicate(struct pg_mutex *m)
{
	for (;;) {
		uint32_t c = atomic_load_explicit(&m->word, memory_order_relaxed);

		if (c == RESERVED && swing(m, RESERVED, CONTENDED))
			return true;
		if (c == HEIR && swing(m, HEIR, CONTENDED))
			return false;
		if (c < HEIR)
			return false;
	}
}

/* The word was not FREE.  0, ETIMEDOUT, or EINVAL for a time that is none. */
static int __attribute__((noinline)) take_slow(struct pg_mutex *m, clockid_t clock, const struct timespec *ts)
{
	int64_t deadline, since = 0;
	bool heir = false;

	if (ts && pg_timespec_bad(ts))
		return EINVAL;
	if (spin(m))
		return 0;
	deadline = pg_until(clock, ts);
	for (;;) {
		uint32_t c = atomic_load_explicit(&m->word, memory_order_relaxed), want = c;

		if (c == FREE || (c == RESERVED && (heir || heir_is_gone(m)))) {
			if (swing(m, c, CONTENDED))
				return 0;
			continue;
		}
		if (c < HEIR) {
			heir = false; /* it was, in the process that forked us from inside a signal handler */
			want = CONTENDED;
			if (since && pg_now() - since > PG_STARVED) {
				atomic_store_explicit(&m->heirgen, pg_fork_gen, memory_order_relaxed);
				want = HEIR;
			}
			if (want != c && !swing(m, c, want))
				continue;
			heir = want == HEIR;
		}
		if (since == 0)
			since = pg_now();
		if (pg_sema_wait(&m->word, want, heir ? HEIR_BIT : PLAIN_BIT, deadline) == -ETIMEDOUT) {
			if (pg_until_passed(clock, ts))
				return heir && abdicate(m) ? 0 : ETIMEDOUT;
			deadline = pg_until(clock, ts);
		}
	}
}

static void __attribute__((noinline)) drop_slow(struct pg_mutex *m)
{
	for (;;) {
		uint32_t c = atomic_load_explicit(&m->word, memory_order_relaxed), to = FREE, bits = PLAIN_BIT;

		if (c == FREE || c == RESERVED)
			return; /* unlocked though nobody held it: the program's mistake, without consequences as natively */
		if (c == HEIR && !heir_is_gone(m)) {
			to = RESERVED;
			bits = HEIR_BIT;
		}
		/* From here on the mutex may be gone. */
		if (atomic_compare_exchange_weak_explicit(&m->word, &c, to, memory_order_release, memory_order_relaxed)) {
			if (c != LOCKED)
				pg_sema_wake(&m->word, 1, bits);
			return;
		}
	}
}

static inline void drop(struct pg_mutex *m)
{
	uint32_t c = LOCKED;

	atomic_store_explicit(&m->owner, 0, memory_order_relaxed);
	/* pairs with the acquire in take and swing */
	if (pg_unlikely(!atomic_compare_exchange_strong_explicit(&m->word, &c, FREE, memory_order_release,
								 memory_order_relaxed)))
		drop_slow(m);
}

/* ---- mutexes that are libc's ---- */

static int real_lock(struct pg_mutex *m, clockid_t clock, const struct timespec *ts)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)m;

	return ts ? PG_REAL(pthread_mutex_clocklock)(mutex, clock, ts) : PG_REAL(pthread_mutex_lock)(mutex);
}

/* The kernel, or the thread numbers of another process, are compared with the caller's: it must have a real one. */
static void identify(struct pg_g *g, int kind)
{
	int type = kind & PG_MUTEX_TYPE;

	if (kind & (PG_MUTEX_ROBUST | PG_MUTEX_PI | PG_MUTEX_PP) || type == PTHREAD_MUTEX_RECURSIVE_NP ||
	    type == PTHREAD_MUTEX_ERRORCHECK_NP)
		pg_wire_for_object(g);
}

static int foreign_lock(struct pg_g *g, struct pg_mutex *m, clockid_t clock, const struct timespec *ts)
{
	int r;

	if (m->kind < 0)
		return EINVAL; /* destroyed */
	identify(g, m->kind);
	/* Not when it has an OS thread of its own: glibc's trylock of an unrecoverable mutex leaves it locked. */
	if (g->mode == PG_GREEN) {
		r = PG_REAL(pthread_mutex_trylock)((pthread_mutex_t *)m);
		if (r != EBUSY)
			return r;
	}
	pg_entersyscall(g);
	r = real_lock(m, clock, ts);
	pg_exitsyscall(g);
	return r;
}

/* ---- all kinds ---- */

static int __attribute__((noinline)) lock_any(struct pg_g *g, struct pg_mutex *m, clockid_t clock,
					      const struct timespec *ts)
{
	int type = m->kind & PG_MUTEX_TYPE, r;

	if (m->kind & PG_MUTEX_REAL)
		return foreign_lock(g, m, clock, ts);
	if (type == PTHREAD_MUTEX_RECURSIVE_NP && is_mine(m, g)) {
		if (m->count == UINT32_MAX)
			return EAGAIN;
		m->count++;
		return 0;
	}
	if (type == PTHREAD_MUTEX_ERRORCHECK_NP && is_mine(m, g))
		return EDEADLK;
	if (!take(m) && (r = take_slow(m, clock, ts)) != 0)
		return r;
	own(m, g);
	m->count = 1;
	return 0;
}

static int __attribute__((noinline)) unlock_any(struct pg_g *g, struct pg_mutex *m)
{
	int type = m->kind & PG_MUTEX_TYPE;

	if (m->kind & PG_MUTEX_REAL)
		return m->kind < 0 ? EINVAL : PG_REAL(pthread_mutex_unlock)((pthread_mutex_t *)m);
	if (type == PTHREAD_MUTEX_RECURSIVE_NP) {
		if (!is_mine(m, g))
			return EPERM;
		if (--m->count != 0)
			return 0;
	} else if (type == PTHREAD_MUTEX_ERRORCHECK_NP && !is_mine(m, g)) {
		return EPERM;
	}
	drop(m);
	return 0;
}

int pg_mutex_lock(struct pg_g *g, struct pg_mutex *m)
{
	if (pg_likely(KIND_FAST(m)) && pg_likely(take(m))) {
		own(m, g);
		return 0;
	}
	return lock_any(g, m, CLOCK_REALTIME, NULL);
}

int pg_mutex_unlock(struct pg_g *g, struct pg_mutex *m)
{
	if (pg_unlikely(!KIND_FAST(m)))
		return unlock_any(g, m);
	drop(m);
	return 0;
}

/* Blocks: the G.  Cancel: no. */
PG_EXPORT int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	struct pg_mutex *m = (struct pg_mutex *)mutex;

	PG_SYNC_SELF(g, PG_REAL(pthread_mutex_lock)(mutex));
	return pg_mutex_lock(g, m);
}

PG_EXPORT int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	struct pg_mutex *m = (struct pg_mutex *)mutex;

	PG_SYNC_SELF(g, PG_REAL(pthread_mutex_unlock)(mutex));
	return pg_mutex_unlock(g, m);
}

/* Differs: EBUSY also while the mutex is on its way to a starved waiter. */
PG_EXPORT int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
	struct pg_mutex *m = (struct pg_mutex *)mutex;

	PG_SYNC_SELF(g, PG_REAL(pthread_mutex_trylock)(mutex));
	if (m->kind & PG_MUTEX_REAL) {
		if (m->kind < 0)
			return EINVAL;
		identify(g, m->kind);
		return PG_REAL(pthread_mutex_trylock)(mutex);
	}
	if (take(m)) {
		own(m, g);
		m->count = 1;
		return 0;
	}
	if ((m->kind & PG_MUTEX_TYPE) != PTHREAD_MUTEX_RECURSIVE_NP || !is_mine(m, g)) {
		uint32_t c = atomic_load_explicit(&m->word, memory_order_relaxed);

		if (c != RESERVED || !heir_is_gone(m) || !swing(m, RESERVED, CONTENDED))
			return EBUSY;
		own(m, g);
		m->count = 1;
		return 0;
	}
	if (m->count == UINT32_MAX)
		return EAGAIN;
	m->count++;
	return 0;
}

static int timedlock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *ts)
{
	PG_SYNC_SELF(g, PG_REAL(pthread_mutex_clocklock)(mutex, clock, ts));
	return lock_any(g, (struct pg_mutex *)mutex, clock, ts);
}

/* Blocks: the G.  Cancel: no. */
PG_EXPORT int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *ts)
{
	return timedlock(mutex, CLOCK_REALTIME, ts);
}

PG_EXPORT int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *ts)
{
	return pg_clock_bad(clock) ? EINVAL : timedlock(mutex, clock, ts);
}

/* glibc finds out by a count of users that ours do not keep. */
PG_EXPORT int pthread_mutex_destroy(pthread_mutex_t *mutex)
{
	struct pg_mutex *m = (struct pg_mutex *)mutex;

	PG_SYNC_SELF(g, PG_REAL(pthread_mutex_destroy)(mutex));
	(void)g;
	if (!(m->kind & PG_MUTEX_REAL) && atomic_load(&m->word) != FREE &&
	    !(atomic_load(&m->word) == RESERVED && heir_is_gone(m)))
		return EBUSY;
	return PG_REAL(pthread_mutex_destroy)(mutex);
}

/* Blocks: in the kernel, until it has the mutex.  Only of the PP protocol. */
PG_EXPORT int pthread_mutex_setprioceiling(pthread_mutex_t *mutex, int ceiling, int *old)
{
	struct pg_mutex *m = (struct pg_mutex *)mutex;
	int r;

	PG_SYNC_SELF(g, PG_REAL(pthread_mutex_setprioceiling)(mutex, ceiling, old));
	if (m->kind >= 0 && m->kind & PG_MUTEX_PP)
		identify(g, m->kind);
	pg_entersyscall(g);
	r = PG_REAL(pthread_mutex_setprioceiling)(mutex, ceiling, old);
	pg_exitsyscall(g);
	return r;
}

PG_SECOND_NAME(__pthread_mutex_lock, pthread_mutex_lock, pthread_mutex_t *);
PG_SECOND_NAME(__pthread_mutex_unlock, pthread_mutex_unlock, pthread_mutex_t *);
PG_SECOND_NAME(__pthread_mutex_trylock, pthread_mutex_trylock, pthread_mutex_t *);
PG_SECOND_NAME(__pthread_mutex_destroy, pthread_mutex_destroy, pthread_mutex_t *);
