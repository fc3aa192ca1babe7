/* SPDX-License-Identifier: MIT */
/*
 * The runtime's own mutex between OS threads.  Two variants with this interface, chosen when building: lock_futex.c (a
 * futex word) and lock_sema.c (a list of waiting threads, each with a semaphore of its own).
 *
 * Held for some tens of instructions, never across a park, a user callback or a call that may allocate.  All-zero is
 * unlocked.  Not recursive.  The unlocking store is the last access: the lock may be freed as soon as it can be taken.
 */
#ifndef PG_LOCK_H
#define PG_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pg_lock {
	_Atomic uintptr_t key;
};

/* One who waits, on its own stack; used by the sema variant. */
struct pg_lock_waiter {
	struct pg_lock_waiter *next;
	_Atomic uint32_t sema;
};

/* Blocks: the OS thread (M).  Source: Go's runtime lock (2011, futex- and sema-based). */
void pg_lock(struct pg_lock *l);
bool pg_trylock(struct pg_lock *l);
void pg_unlock(struct pg_lock *l);
extern const char pg_lock_variant[]; /* "futex" or "sema" */

#endif
