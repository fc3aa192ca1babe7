/* SPDX-License-Identifier: MIT */
/*
 * A note: a one-time event an OS thread sleeps on.  noteclear before anybody can wake or sleep; then exactly one
 * thread sleeps and at most one wakes, in any order.  After the wake-up it may be cleared and used again.
 */
#ifndef PG_NOTE_H
#define PG_NOTE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pg_note {
	_Atomic uintptr_t key; /* futex: 0 clear, 1 woken.  sema: 0 clear, 1 woken, else the sleeper */
};

/* Blocks: nothing. */
void pg_noteclear(struct pg_note *n);
/* Blocks: the OS thread, until pg_notewakeup. */
void pg_notesleep(struct pg_note *n);
/* The same until deadline (CLOCK_MONOTONIC ns, PG_FOREVER); true if woken.  Returns false early when a signal handler
 * has run, so callers that must not miss one look at their own state again. */
bool pg_notetsleep(struct pg_note *n, int64_t deadline);
/* Wakes the sleeper, or lets the next sleep return at once.  A second wake-up is ignored. */
void pg_notewakeup(struct pg_note *n);

#endif
