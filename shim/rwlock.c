/* SPDX-License-Identifier: MIT */
/*
 * Read-write locks.  Needs from below: pg_sema_wait and pg_sema_wake on the low half of the state.
 *
 * The state is one 64-bit word.  Low half: COUNT readers that hold the lock, and flags; high half:
 * readers that are registered as waiting (each will look at the state once more before it goes away).
 *   W      a writer holds it
 *   WW     writers may sleep: whoever lets the lock go wakes one
 *   HEIR   one of them (the heir) has waited for PG_STARVED
 *   GATE   let go by a writer for the registered readers: readers may enter, writers may not; the first one clears it
 *   RES    let go for the heir, which alone may take it
 * Somebody is bound to come while any of W, COUNT, GATE and RES is set; without them all, WW and HEIR
 * are clear.
 *
 * Letting go (W cleared, or the last reader out), in this order:
 *   a writer, and readers are registered       GATE, all readers woken.  Not if writers are preferred and one waits
 *   HEIR                                       RES, the heir woken
 *   WW                                         free, one writer woken; if none slept, all readers
 *   readers are registered                     free, all woken
 * So under the default, readers get in after each writer, and a starved writer after the readers.  New
 * readers join readers even past a waiting writer, as glibc has it;
 * PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP holds them back while WW is set.
 *
 * Why no wake-up is lost: registration is part of the word that letting go swaps, and a registered
 * reader that may enter does so even if its time is over: a GATE is always used.  A writer that has
 * slept takes the lock with WW set, for the others that sleep; a woken one either takes it or sets WW
 * again.  The heir leaves by a swap from HEIR, or takes RES. A writer that gives up clears WW and wakes
 * all, so that readers are not held back for nobody.
 *
 * After a fork the registered ones, the heir and WW are forgotten at the first slow operation
 * (forget_ghosts), before anybody of the new process can have registered.
 */
#include "shim/objects.h"

#include "arch.h"

#define W (1u << 31)
#define WW (1u << 30)
#define GATE (1u << 29)
#define HEIR (1u << 28)
#define RES (1u << 27)
#define COUNT (RES - 1)
#define MAXREADERS (COUNT / 2)
#define REGISTERED (1ull << 32)

enum { READER_BIT = 1, WRITER_BIT = 2, HEIR_BIT = 4 };

static struct pg_lock ghostlock; /* one forgetter at a time; innermost */

static inline bool swing(struct pg_rwlock *l, uint64_t *from, uint64_t to)
{
	return atomic_compare_exchange_strong_explicit(&l->state, from, to, memory_order_acq_rel, memory_order_relaxed);
}

static inline uint64_t state(struct pg_rwlock *l)
{
	return atomic_load_explicit(&l->state, memory_order_relaxed);
}

static inline bool prefers_writers(const struct pg_rwlock *l)
{
	return l->flags == PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP;
}

static inline bool is_mine(struct pg_rwlock *l, struct pg_g *g)
{
	return atomic_load_explicit(&l->writer, memory_order_relaxed) == g->tid;
}

static void forget_ghosts(struct pg_g *g, struct pg_rwlock *l)
{
	uint64_t s;

	if (pg_likely(atomic_load_explicit(&l->gen, memory_order_acquire) == pg_fork_gen))
		return;
	pg_rt_enter(g);
	pg_lock(&ghostlock);
	if (atomic_load_explicit(&l->gen, memory_order_relaxed) != pg_fork_gen) {
		s = state(l);
		while (!swing(l, &s, s & (W | COUNT)))
			;
		/* pairs with the acquire above: nobody registers before this */
		atomic_store_explicit(&l->gen, pg_fork_gen, memory_order_release);
	}
	pg_unlock(&ghostlock);
	pg_rt_exit(g);
}

static inline bool may_read(uint64_t s, bool prefer)
{
	if (s & (W | RES))
		return false;
	return s & GATE || !(prefer && s & WW);
}

static inline bool may_write(uint64_t s)
{
	return !(s & (W | GATE | RES | COUNT));
}

static inline bool read_fast(struct pg_rwlock *l)
{
	uint64_t s = state(l);

	return (uint32_t)s < MAXREADERS && swing(l, &s, s + 1);
}

static inline bool write_fast(struct pg_rwlock *l, struct pg_g *g)
{
	uint64_t s = state(l);

	if ((uint32_t)s != 0 || !swing(l, &s, s | W))
		return false;
	atomic_store_explicit(&l->writer, g->tid, memory_order_relaxed);
	return true;
}

/* One attempt by a reader; -1: it has to wait, and *s is what it saw. */
static int read_try(struct pg_rwlock *l, uint64_t *s, bool registered)
{
	*s = state(l);
	while (may_read(*s, prefers_writers(l))) {
		uint64_t to = (*s & ~(uint64_t)GATE) + 1;

		if ((*s & COUNT) >= MAXREADERS)
			return EAGAIN;
		if (swing(l, s, registered ? to - REGISTERED : to))
			return 0;
	}
	return -1;
}

/* Takes back a registration: true, or false since the lock may be had. */
static bool unregister(struct pg_rwlock *l, bool always)
{
	uint64_t s = state(l);

	do {
		if (!always && may_read(s, prefers_writers(l)))
			return false;
	} while (!swing(l, &s, s - REGISTERED));
	return true;
}

static int read_slow(struct pg_g *g, struct pg_rwlock *l, clockid_t clock, const struct timespec *ts)
{
	bool registered = false;
	int64_t deadline;
	uint64_t s;
	int r;

	forget_ghosts(g, l);
	for (int i = pg_spins();; i--) {
		r = read_try(l, &s, false);
		if (r >= 0)
			return r;
		if (i <= 0)
			break;
		pg_cpu_relax();
	}
	deadline = pg_until(clock, ts);
	for (;;) {
		r = read_try(l, &s, registered);
		if (r > 0 && registered)
			unregister(l, true);
		if (r >= 0)
			return r;
		if (!registered) {
			registered = swing(l, &s, s + REGISTERED);
			continue;
		}
		if (pg_sema_wait(pg_low(&l->state), (uint32_t)s, READER_BIT, deadline) != -ETIMEDOUT)
			continue;
		if (!pg_until_passed(clock, ts))
			deadline = pg_until(clock, ts);
		else if (unregister(l, false))
			return ETIMEDOUT;
	}
}

/* A writer's time is over.  True: it has got the lock all the same. */
static bool give_up(struct pg_rwlock *l, bool heir)
{
	uint64_t s = state(l), to;

	do {
		if (may_write(s) || (heir && s & RES))
			to = (s & ~(uint64_t)RES) | W | WW;
		else
			to = s & ~(uint64_t)(WW | (heir ? HEIR : 0));
	} while (!swing(l, &s, to));
	if (to & W && !(s & W))
		return true;
	if (s & WW)
		pg_sema_wake(pg_low(&l->state), INT_MAX, READER_BIT | WRITER_BIT);
	return false;
}

static int write_slow(struct pg_g *g, struct pg_rwlock *l, clockid_t clock, const struct timespec *ts)
{
	int64_t deadline, since = 0;
	bool heir = false;

	forget_ghosts(g, l);
	for (int i = pg_spins(); i > 0; i--) {
		if (write_fast(l, g))
			return 0;
		pg_cpu_relax();
	}
	deadline = pg_until(clock, ts);
	for (;;) {
		uint64_t s = state(l), to;
		int r;

		if (may_write(s) || (heir && s & RES)) {
			to = (s & ~(uint64_t)RES) | W | (since ? WW : 0);
			if (!swing(l, &s, to))
				continue;
			break;
		}
		if (!(s & (HEIR | RES)))
			heir = false; /* it was, in the process that forked us from inside a signal handler */
		to = s | WW;
		if (since && !(s & (HEIR | RES)) && pg_now() - since > PG_STARVED)
			to |= HEIR;
		if (to != s && !swing(l, &s, to))
			continue;
		if (to & ~s & HEIR)
			heir = true;
		if (since == 0)
			since = pg_now();
		r = pg_sema_wait(pg_low(&l->state), (uint32_t)to, heir ? HEIR_BIT : WRITER_BIT, deadline);
		if (r == -ETIMEDOUT) {
			if (pg_until_passed(clock, ts)) {
				if (!give_up(l, heir))
					return ETIMEDOUT;
				break;
			}
			deadline = pg_until(clock, ts);
		}
	}
	atomic_store_explicit(&l->writer, g->tid, memory_order_relaxed);
	return 0;
}

/* Lets go with somebody waiting.  From the swap on the lock may be gone. */
static void let_go_slow(struct pg_g *g, struct pg_rwlock *l)
{
	const _Atomic uint32_t *addr = pg_low(&l->state);
	uint64_t s, to;
	int writers, heirs;
	bool readers, prefer;

	forget_ghosts(g, l);
	prefer = prefers_writers(l);
	s = state(l);
	do {
		bool waiting = s >= REGISTERED;

		readers = false;
		writers = heirs = 0;
		if (!(s & W) && (s & COUNT) == 0)
			return; /* nobody held it: the program's mistake */
		if (!(s & W) && (s & COUNT) > 1) {
			to = s - 1;
			continue;
		}
		to = s & ~(uint64_t)(W | COUNT);
		if (s & W && waiting && !(prefer && s & (WW | HEIR))) {
			to |= GATE;
			readers = true;
		} else if (s & HEIR) {
			to = (to & ~(uint64_t)HEIR) | RES;
			heirs = 1;
		} else {
			to &= ~(uint64_t)WW;
			writers = s & WW ? 1 : 0;
			readers = waiting;
		}
	} while (!swing(l, &s, to));
	if (heirs)
		pg_sema_wake(addr, 1, HEIR_BIT);
	else if (writers && pg_sema_wake(addr, 1, WRITER_BIT) > 0)
		return;
	if (readers)
		pg_sema_wake(addr, INT_MAX, READER_BIT);
}

/* ---- locks that are libc's: its numbers of threads must be the kernel's, since other processes compare theirs ---- */

static int real_lock(pthread_rwlock_t *lock, bool write, clockid_t clock, const struct timespec *ts)
{
	if (ts == NULL)
		return write ? PG_REAL(pthread_rwlock_wrlock)(lock) : PG_REAL(pthread_rwlock_rdlock)(lock);
	return write ? PG_REAL(pthread_rwlock_clockwrlock)(lock, clock, ts)
		     : PG_REAL(pthread_rwlock_clockrdlock)(lock, clock, ts);
}

static int real_try(pthread_rwlock_t *lock, bool write)
{
	return write ? PG_REAL(pthread_rwlock_trywrlock)(lock) : PG_REAL(pthread_rwlock_tryrdlock)(lock);
}

static int foreign_lock(struct pg_g *g, pthread_rwlock_t *lock, bool write, clockid_t clock, const struct timespec *ts)
{
	int r;

	pg_wire_for_object(g);
	r = real_try(lock, write);
	if (r != EBUSY)
		return r;
	pg_entersyscall(g);
	r = real_lock(lock, write, clock, ts);
	pg_exitsyscall(g);
	return r;
}

/* ---- all locks ---- */

static int lock_any(pthread_rwlock_t *lock, bool write, clockid_t clock, const struct timespec *ts)
{
	struct pg_rwlock *l = (struct pg_rwlock *)lock;

	if (ts && (pg_timespec_bad(ts) || pg_clock_bad(clock)))
		return EINVAL;
	PG_SYNC_SELF(g, real_lock(lock, write, clock, ts));
	if (pg_unlikely(l->shared))
		return foreign_lock(g, lock, write, clock, ts);
	if (write ? write_fast(l, g) : read_fast(l))
		return 0;
	if (is_mine(l, g))
		return EDEADLK;
	return write ? write_slow(g, l, clock, ts) : read_slow(g, l, clock, ts);
}

/* Blocks: the G.  Cancel: no. */
PG_EXPORT int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
	struct pg_rwlock *l = (struct pg_rwlock *)lock;

	if (pg_likely(!pg_passthrough() && !l->shared) && pg_likely(read_fast(l)))
		return 0;
	return lock_any(lock, false, CLOCK_REALTIME, NULL);
}

PG_EXPORT int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
	return lock_any(lock, true, CLOCK_REALTIME, NULL);
}

PG_EXPORT int pthread_rwlock_timedrdlock(pthread_rwlock_t *lock, const struct timespec *ts)
{
	return lock_any(lock, false, CLOCK_REALTIME, ts);
}

PG_EXPORT int pthread_rwlock_timedwrlock(pthread_rwlock_t *lock, const struct timespec *ts)
{
	return lock_any(lock, true, CLOCK_REALTIME, ts);
}

PG_EXPORT int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *ts)
{
	return lock_any(lock, false, clock, ts);
}

PG_EXPORT int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *ts)
{
	return lock_any(lock, true, clock, ts);
}

PG_EXPORT int pthread_rwlock_tryrdlock(pthread_rwlock_t *lock)
{
	struct pg_rwlock *l = (struct pg_rwlock *)lock;
	uint64_t s;
	int r;

	PG_SYNC_SELF(g, real_try(lock, false));
	if (pg_unlikely(l->shared)) {
		pg_wire_for_object(g);
		return real_try(lock, false);
	}
	forget_ghosts(g, l);
	r = read_try(l, &s, false);
	return r < 0 ? EBUSY : r;
}

PG_EXPORT int pthread_rwlock_trywrlock(pthread_rwlock_t *lock)
{
	struct pg_rwlock *l = (struct pg_rwlock *)lock;

	PG_SYNC_SELF(g, real_try(lock, true));
	if (pg_unlikely(l->shared)) {
		pg_wire_for_object(g);
		return real_try(lock, true);
	}
	forget_ghosts(g, l);
	/* A lost race is another try: EBUSY says that somebody holds it. */
	while (may_write(state(l)))
		if (write_fast(l, g))
			return 0;
	return EBUSY;
}

PG_EXPORT int pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
	struct pg_rwlock *l = (struct pg_rwlock *)lock;
	uint64_t s;

	PG_SYNC_SELF(g, PG_REAL(pthread_rwlock_unlock)(lock));
	if (pg_unlikely(l->shared))
		return PG_REAL(pthread_rwlock_unlock)(lock);
	s = state(l);
	if (s & W) {
		atomic_store_explicit(&l->writer, 0, memory_order_relaxed);
		if (pg_likely(s == W) && pg_likely(swing(l, &s, 0)))
			return 0;
	} else if (pg_likely((uint32_t)s - 1 < COUNT && s < REGISTERED) && pg_likely(swing(l, &s, s - 1))) {
		return 0;
	}
	let_go_slow(g, l);
	return 0;
}

PG_SECOND_NAME(__pthread_rwlock_rdlock, pthread_rwlock_rdlock, pthread_rwlock_t *);
PG_SECOND_NAME(__pthread_rwlock_wrlock, pthread_rwlock_wrlock, pthread_rwlock_t *);
PG_SECOND_NAME(__pthread_rwlock_tryrdlock, pthread_rwlock_tryrdlock, pthread_rwlock_t *);
PG_SECOND_NAME(__pthread_rwlock_trywrlock, pthread_rwlock_trywrlock, pthread_rwlock_t *);
PG_SECOND_NAME(__pthread_rwlock_unlock, pthread_rwlock_unlock, pthread_rwlock_t *);
