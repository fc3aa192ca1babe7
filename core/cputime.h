/* SPDX-License-Identifier: MIT */
/* The CPU time of green threads: what the shim asks, and the hooks of the scheduler. */
#ifndef PG_CPUTIME_H
#define PG_CPUTIME_H

#include "core/g.h"

/* Nanoseconds for which g, one of ours, has really run; negative: its OS thread is gone.  The first question makes every later
 * switch of the process dearer by a system call.  Blocks: nothing. */
int64_t pg_cputime(struct pg_g *g);
/* The CPU time of OS thread tid, 0: the caller's, in ns.  Negative: there is no such thread any more. */
int64_t pg_os_clock(int tid);
/* total, the calling G's, in parts like those of its OS thread, user and system; each part of a G never goes back. */
void pg_cputime_split(struct pg_g *g, int64_t total, int64_t user, int64_t system, int64_t out[2]);

/* For the scheduler: */
extern _Atomic bool pg_cputime_on;
void pg_cputime_switch(struct pg_m *m, struct pg_g *from, struct pg_g *to); /* only while on */
void pg_cputime_wired(struct pg_g *g, struct pg_m *m);
void pg_cputime_start(struct pg_g *g); /* the runtime starts with it */
void pg_cputime_tick(int64_t now);     /* sysmon, rt > 0 */

#endif
