/* SPDX-License-Identifier: MIT */
/* Futexes as syscall() has them (bynumber.c).  Results are the kernel's. */
#ifndef PG_SHIM_FUTEX_H
#define PG_SHIM_FUTEX_H

#include "shim/objects.h"

/* Not in the headers of every system. */
enum { PG_SYS_futex_wake = 454, PG_SYS_futex_wait = 455, PG_SYS_futex_requeue = 456 };

/* Blocks: the G; on shared words the OS thread. */
long pg_futex(struct pg_g *g, const long *args);
/* The newer calls: false when it is none of them, or one for the kernel.  Blocks: the G; futex_waitv the OS thread. */
bool pg_futex2(struct pg_g *g, long n, const long *a, long *r);

#endif
