/* SPDX-License-Identifier: MIT */
/* What kind of program is behind a file name, and would the preload reach it?  For the launcher; reads files
 * only. */
#ifndef PG_PROGRAM_H
#define PG_PROGRAM_H

#include <limits.h>

enum pg_fate {
	PG_FATE_GREEN,  /* ld.so will load the library into it */
	PG_FATE_NATIVE, /* better left alone: it has a scheduler of its own */
	PG_FATE_REFUSE, /* the preload would be ignored, or the program is none */
};

struct pg_program {
	enum pg_fate fate;
	int status;             /* exit status when refused: 126, or 127 when something does not exist */
	char why[3 * PATH_MAX]; /* one sentence without its full stop: the reason, or what is worth knowing;
				   "" when nothing is */
	char image[PATH_MAX];   /* the file that the kernel maps in the end: the program or its interpreter */
	char loader[PATH_MAX];  /* its PT_INTERP; "" if it has none */
};

/*
 * Looks a name up in PATH as execvp(3) does, into path.  0 or the errno that execvp would report: EACCES when
 * something of that name exists that cannot be executed, else ENOENT and the like.
 */
int pg_program_find(const char *name, char path[PATH_MAX]);

/* Reads the file, follows #! lines, and fills *pr. */
void pg_program_examine(const char *path, struct pg_program *pr);

#endif
