/* SPDX-License-Identifier: MIT */
/* The functions behind ours: one pointer per row of calls.def, resolved with dlsym(RTLD_NEXT) at first use. */
#ifndef PG_REAL_H
#define PG_REAL_H

#include <stddef.h>

#include "shim/types.h"

struct pg_real_table {
#define C(kind, family, version, ret, name, params, args) ret (*name) params;
#include "shim/calls.def"
#undef C
};

extern struct pg_real_table pg_real;

/* The row at this offset of the table; aborts with one line if libc has no such symbol.  Any thread, any time. */
void *pg_real_find(size_t offset);
/* All of them, before there is a second thread: later the look-up might wait for the loader's lock, held by somebody who waits
 * for us. */
void pg_real_all(void);

#define PG_REAL(name)                                                                                                  \
	((__typeof__(pg_real.name))(pg_real.name ? (void *)pg_real.name                                                \
						 : pg_real_find(offsetof(struct pg_real_table, name))))

#endif
