/* SPDX-License-Identifier: MIT */
/*
 * The functions behind ours.  One pointer per row of calls.def: NULL until somebody needs it, then what the
 * objects after ours in the search order define, and constant.  Any thread may look a row up at any time, in
 * a constructor that runs before ours as well: two that do it at once store the same pointer.
 *
 * A row with a version means a name of which libc exports several ABIs on some architecture; where that
 * version does not exist there is only one, and the plain name finds it.
 *
 * Needs from below: ld.so's dlsym and dlvsym, which on success call no malloc.
 */
#include "preload/real.h"

#include <errno.h>

#include "core/say.h"

struct pg_real_table pg_real;

static const struct {
	const char *name, *version;
} rows[] = {
#define C(kind, family, version, ret, name, params, args) {#name, version},
#include "shim/calls.def"
#undef C
};

_Static_assert(sizeof(rows) / sizeof(rows[0]) * sizeof(void *) == sizeof(struct pg_real_table),
	       "one row for each pointer of the table");

/* NULL: no such symbol, or none yet: some rows are of libraries that libc has moved things out of. */
static void *look_up(size_t i)
{
	int saved = errno;
	void *fn = NULL;

	if (*rows[i].version)
		fn = dlvsym(RTLD_NEXT, rows[i].name, rows[i].version);
	if (!fn)
		fn = dlsym(RTLD_NEXT, rows[i].name);
	if (fn)
		__atomic_store_n((void **)&pg_real + i, fn, __ATOMIC_RELEASE);
	errno = saved;
	return fn;
}

void *pg_real_find(size_t offset)
{
	void *fn = look_up(offset / sizeof(void *));

	if (!fn)
		pg_refuse("this C library has no %s: run the program with PGREEN=off", rows[offset / sizeof(void *)].name);
	return fn;
}

void pg_real_all(void)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (__atomic_load_n((void **)&pg_real + i, __ATOMIC_RELAXED) == NULL)
			look_up(i);
}
