/* SPDX-License-Identifier: MIT */
/*
 * The user-level futex: Gs wait on an address, in hashed queues with a lock each.  First in, first out.
 */
#ifndef PG_SEMA_H
#define PG_SEMA_H

#include "core/g.h"

/*
 * If *addr == expected, waits until a wake on addr whose bits meet ours, the deadline (monotonic ns, PG_FOREVER), or a signal.
 * 0 woken, -EAGAIN the value differs, -ETIMEDOUT, -EINTR a signal handler has run or a cancellation came.
 * May also return 0 spuriously.  Blocks: the G.  Source: futex(2), Go's semaphore root.
 */
int pg_sema_wait(const _Atomic uint32_t *addr, uint32_t expected, uint32_t bits, int64_t deadline);
#define PG_SEMA_ANY 0xffffffffu

/* Wakes up to n waiters of addr whose bits meet ours; how many it woke.  Never touches *addr.  Blocks: nothing. */
int pg_sema_wake(const void *addr, int n, uint32_t bits);

/*
 * Wakes up to nwake waiters of addr, moves up to nmove more to addr2.  If check, only when *addr == expected, else
 * -EAGAIN; the comparison happens under both queue locks.  The number woken, *moved the number moved.
 */
int pg_sema_requeue(const _Atomic uint32_t *addr, int nwake, const void *addr2, int nmove, bool check, uint32_t expected,
		    int *moved);

/* FUTEX_WAKE_OP: both under the queue locks. */
int pg_sema_wake_op(const void *addr, int nwake, _Atomic uint32_t *addr2, int nwake2, uint32_t op);

#endif
