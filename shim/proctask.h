/* SPDX-License-Identifier: MIT */
/*
 * The entries of green threads in /proc, which the kernel does not know.
 *
 * A wrapper makes the call as it is first.  Only when there is no such file (the kernel never gives out numbers like ours)
 * does it look at the path, which the kernel has read by then: so ordinary calls pay nothing, and wild pointers stay the
 * kernel's to refuse.  An open that succeeded looks too, for /proc/thread-self is always there.
 */
#ifndef PG_PROCTASK_H
#define PG_PROCTASK_H

#include <errno.h>
#include <stdbool.h>

#include "core/g.h"

enum { PG_PROC_PATH = 128 };

static inline bool pg_in_proc(const char *path, bool failed)
{
	return (!failed || errno == ENOENT) && path[0] == '/' && path[1] == 'p' && path[2] == 'r' && path[3] == 'o' &&
	       path[4] == 'c' && path[5] == '/';
}

/* What open(path, flags), which gave fd, should have given: fd, or a descriptor in its place. */
int pg_proc_open(const char *path, int flags, int fd);
/* The path of a green thread's entry as one that the kernel has: the OS thread's of a wired one, else the first thread's.
 * NULL: it is none of ours. */
const char *pg_proc_path(const char *path, char buf[PG_PROC_PATH]);

#endif
