/* SPDX-License-Identifier: MIT */
/*
 * Thread-specific data.  Keys and values are glibc's: it keeps the values in the TCB, which moves with the G, so
 * pthread_getspecific is not touched.  glibc also runs the destructors of foreign threads.  A green thread never takes glibc's
 * way out, so its destructors run here, from a table beside glibc's that says which key has which.
 *
 * An entry of the table: NULL -> the destructor by pthread_key_create, which alone knows the key yet; -> NULL by
 * pthread_key_delete before glibc may hand the key out again.
 *
 * g->tsd_used: the thread has stored something since the last round.  The first thread may have done so before there was a
 * G to tell; for it the answer is always yes.
 */
#include "shim/thread.h"

#include <limits.h>

typedef void (*destructor)(void *);

static _Atomic(destructor) destructors[PTHREAD_KEYS_MAX];
static _Atomic unsigned nkeys; /* one above the highest key ever made */

PG_EXPORT int pthread_key_create(pthread_key_t *key, void (*fn)(void *))
{
	int err = PG_REAL(pthread_key_create)(key, fn);
	unsigned n;

	if (err || *key >= PTHREAD_KEYS_MAX)
		return err;
	atomic_store(&destructors[*key], fn);
	n = atomic_load(&nkeys);
	while (n <= *key && !atomic_compare_exchange_weak(&nkeys, &n, *key + 1))
		;
	return 0;
}

PG_EXPORT int __pthread_key_create(pthread_key_t *key, void (*fn)(void *))
	__attribute__((alias("pthread_key_create"), copy(pthread_key_create)));

PG_EXPORT int pthread_key_delete(pthread_key_t key)
{
	if (key < PTHREAD_KEYS_MAX)
		atomic_store(&destructors[key], NULL);
	return PG_REAL(pthread_key_delete)(key);
}

PG_EXPORT int pthread_setspecific(pthread_key_t key, const void *value)
{
	struct pg_g *g = pg_self_;

	if (g && value)
		g->tsd_used = true;
	return PG_REAL(pthread_setspecific)(key, value);
}

PG_EXPORT int __pthread_setspecific(pthread_key_t key, const void *value)
	__attribute__((alias("pthread_setspecific"), copy(pthread_setspecific)));

static void one_round(bool run)
{
	unsigned n = atomic_load(&nkeys);

	for (unsigned k = 0; k < n; k++) {
		void *value = pthread_getspecific(k);
		destructor fn;

		if (value == NULL)
			continue;
		PG_REAL(pthread_setspecific)(k, NULL);
		fn = atomic_load(&destructors[k]);
		if (run && fn)
			fn(value);
	}
}

void pg_keys_end(struct pg_g *g)
{
	if (g == &pg_main_g)
		g->tsd_used = true;
	for (int i = 0; g->tsd_used && i < PTHREAD_DESTRUCTOR_ITERATIONS; i++) {
		g->tsd_used = false;
		one_round(true);
	}
	/* The TCB serves another thread later: it must find nothing. */
	if (g->tsd_used)
		one_round(false);
	g->tsd_used = false;
}
