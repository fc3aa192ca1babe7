/* SPDX-License-Identifier: MIT */
/*
 * Futexes by number.  A private futex is a wait of a G on the runtime's own queues, of native Gs too: who waits and who
 * wakes may differ in kind.  Shared ones and the PI operations are the kernel's: announced.
 *
 * One call waits for several words and has no such queue, futex_waitv: it waits in the kernel.  From its first use on (waitv_used,
 * set for good before the wait) a wake that finds too few Gs asks the kernel for the others.
 */
#include "shim/futex.h"

#include <linux/futex.h>

#include "shim/io.h"

enum { FUTEX2_U32_PRIVATE = 2 | FUTEX_PRIVATE_FLAG }; /* flags of futex_wait and its kin: 32 bits, of one process */

static _Atomic bool waitv_used;

static long futex_wait(struct pg_g *g, const _Atomic uint32_t *addr, uint32_t val, clockid_t clock, bool absolute,
		       const struct timespec *ts, uint32_t bits)
{
	uint32_t before = ts ? g->sig_ran : g->sig_norestart;
	int64_t deadline = PG_FOREVER;
	int r;

	if (bits == 0)
		return -EINVAL;
	if (ts) {
		if (pg_timespec_bad(ts) || ts->tv_sec < 0)
			return -EINVAL;
		deadline = absolute ? pg_deadline_abs(clock, ts) : pg_deadline_rel(ts);
	}
	for (;;) {
		r = pg_sema_wait(addr, val, bits, deadline);
		if (r == -EINTR && pg_eintr_ours(g, before, ts == NULL))
			continue;
		if (r == -ETIMEDOUT && absolute && !pg_until_passed(clock, ts)) {
			deadline = pg_deadline_abs(clock, ts);
			continue;
		}
		return r;
	}
}

static long futex_requeue(const _Atomic uint32_t *addr, long nwake, const void *addr2, long nmove, bool check, uint32_t val)
{
	int moved = 0, r;

	if ((int)nwake < 0 || (int)nmove < 0)
		return -EINVAL;
	r = pg_sema_requeue(addr, (int)nwake, addr2, (int)nmove, check, val, &moved);
	return r < 0 ? r : r + moved;
}

/* Wakes n, and those who wait in the kernel when there may be some. */
static int futex_wake(const _Atomic uint32_t *addr, int n, uint32_t bits)
{
	int woken = pg_sema_wake(addr, n, bits);

	if (woken < n && woken >= 0 && pg_unlikely(atomic_load(&waitv_used))) {
		long r = pg_sys(SYS_futex, addr, FUTEX_WAKE_BITSET_PRIVATE, n - woken, NULL, NULL, bits);
		woken += r > 0 ? (int)r : 0;
	}
	return woken;
}

static inline int howmany(long n)
{
	return (int)n < 1 ? 1 : (int)n; /* the kernel wakes one before it counts */
}

/*
 * A word that other processes may wait for too.  A relative time becomes an absolute one, as the wait is made again after an
 * interruption of ours.
 */
static long in_kernel(struct pg_g *g, long a, long op, long val, long d, long e, long val3)
{
	const struct timespec *ts = (const struct timespec *)d;
	uint32_t before = ts ? g->sig_ran : g->sig_norestart;
	int cmd = (int)op & FUTEX_CMD_MASK;
	struct timespec at;
	int64_t until;
	long r;

	if (cmd == FUTEX_WAIT && ts != NULL && !pg_timespec_bad(ts) && ts->tv_sec >= 0 &&
	    (until = pg_deadline_rel(ts)) != PG_FOREVER) {
		at = (struct timespec){ until / 1000000000, until % 1000000000 };
		op = (op & ~(long)(FUTEX_CMD_MASK | FUTEX_CLOCK_REALTIME)) | FUTEX_WAIT_BITSET;
		d = (long)&at;
		val3 = (long)PG_SEMA_ANY;
	}
	do {
		if (cmd == FUTEX_WAIT || cmd == FUTEX_WAIT_BITSET)
			pg_io_enterlong(g);
		else
			pg_entersyscall(g);
		r = pg_sys6(SYS_futex, a, op, val, d, e, val3);
		pg_exitsyscall(g);
	} while (r == -EINTR && pg_eintr_ours(g, before, ts == NULL));
	return r;
}

/* Blocks: the G. */
long pg_futex(struct pg_g *g, const long *args)
{
	long a = args[0], op = args[1], val = args[2], d = args[3], e = args[4], val3 = args[5];
	const _Atomic uint32_t *addr = (const _Atomic uint32_t *)a;
	const struct timespec *ts = (const struct timespec *)d;
	clockid_t clock = op & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	int cmd = (int)op & FUTEX_CMD_MASK;

	if (cmd == FUTEX_LOCK_PI || cmd == FUTEX_LOCK_PI2 || cmd == FUTEX_TRYLOCK_PI || cmd == FUTEX_UNLOCK_PI)
		pg_wire_for_object(g); /* the word holds thread numbers */
	if (!(op & FUTEX_PRIVATE_FLAG))
		return in_kernel(g, a, op, val, d, e, val3);
	switch (cmd) {
	case FUTEX_WAIT: case FUTEX_WAIT_BITSET: case FUTEX_WAKE: case FUTEX_WAKE_BITSET: case FUTEX_REQUEUE:
	case FUTEX_CMP_REQUEUE: case FUTEX_WAKE_OP:
		if (a & 3)
			return -EINVAL;
		if (addr == NULL)
			return -EFAULT;
	}
	switch (cmd) {
	case FUTEX_REQUEUE: case FUTEX_CMP_REQUEUE: case FUTEX_WAKE_OP:
		if (e & 3)
			return -EINVAL;
		if (e == 0)
			return -EFAULT;
	}
	switch (cmd) {
	case FUTEX_WAIT:
		return futex_wait(g, addr, (uint32_t)val, clock, false, ts, PG_SEMA_ANY);
	case FUTEX_WAIT_BITSET:
		return futex_wait(g, addr, (uint32_t)val, clock, true, ts, (uint32_t)val3);
	case FUTEX_WAKE:
		return futex_wake(addr, howmany(val), PG_SEMA_ANY);
	case FUTEX_WAKE_BITSET:
		return (uint32_t)val3 == 0 ? -EINVAL : futex_wake(addr, howmany(val), (uint32_t)val3);
	case FUTEX_REQUEUE:
		return futex_requeue(addr, val, (const void *)e, d, false, 0);
	case FUTEX_CMP_REQUEUE:
		return futex_requeue(addr, val, (const void *)e, d, true, (uint32_t)val3);
	case FUTEX_WAKE_OP:
		return pg_sema_wake_op(addr, howmany(val), (_Atomic uint32_t *)e, howmany(d), (uint32_t)val3);
	default:
		return in_kernel(g, a, op, val, d, e, val3);
	}
}

/* What kernels from 6.7 on have as calls of their own: futex_wake, futex_wait, futex_requeue. */
bool pg_futex2(struct pg_g *g, long n, const long *a, long *r)
{
	const _Atomic uint32_t *addr = (const _Atomic uint32_t *)a[0];
	const struct futex_waitv *w = (const struct futex_waitv *)a[0];

	switch (n) {
	case PG_SYS_futex_wake:
		if (a[3] != FUTEX2_U32_PRIVATE || a[0] == 0 || a[0] & 3 || (uint32_t)a[1] == 0)
			return false;
		*r = (int)a[2] < 1 ? 0 : futex_wake(addr, (int)a[2], (uint32_t)a[1]);
		return true;
	case PG_SYS_futex_wait:
		if (a[3] != FUTEX2_U32_PRIVATE || a[0] == 0 || a[0] & 3 || (uint64_t)a[1] >> 32 || (uint32_t)a[2] == 0 ||
		    (a[4] != 0 && a[5] != CLOCK_REALTIME && a[5] != CLOCK_MONOTONIC))
			return false;
		*r = futex_wait(g, addr, (uint32_t)a[1], (clockid_t)a[5], true, (const struct timespec *)a[4], (uint32_t)a[2]);
		return true;
	case PG_SYS_futex_requeue:
		if (a[1] != 0 || w == NULL || w[0].flags != FUTEX2_U32_PRIVATE || w[1].flags != FUTEX2_U32_PRIVATE ||
		    w[0].uaddr == 0 || w[0].uaddr & 3 || w[1].uaddr == 0 || w[1].uaddr & 3)
			return false;
		*r = futex_requeue((const _Atomic uint32_t *)(uintptr_t)w[0].uaddr, a[2],
				   (const void *)(uintptr_t)w[1].uaddr, a[3], true, (uint32_t)w[0].val);
		return true;
	case SYS_futex_waitv: {
		uint32_t before = a[3] ? g->sig_ran : g->sig_norestart;
		atomic_store(&waitv_used, true);
		do {
			pg_io_enterlong(g);
			*r = pg_sys6(n, a[0], a[1], a[2], a[3], a[4], 0);
			pg_exitsyscall(g);
		} while (*r == -EINTR && pg_eintr_ours(g, before, a[3] == 0));
		return true;
	}
	default:
		return false;
	}
}
