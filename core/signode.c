/* SPDX-License-Identifier: MIT */
/*
 * The nodes of pending signals: a lock-free free list over chunks of a table that grows and is never freed.  Handlers take nodes wherever
 * they interrupt.  The head of the list has a tag, so that a node which comes back meanwhile is not mistaken; a node is
 * read by who loses that race, which is why its link is atomic and its memory stays.
 */
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/proc.h"
#include "core/sigstate.h"

enum { PER_CHUNK = 1024, NCHUNK = 1024 };

static _Atomic(struct pg_sigq *) chunks[NCHUNK];
static _Atomic uint64_t pool_free; /* low half: index + 1 of the first free node, high half: a tag against ABA */
static _Atomic uint32_t pool_used; /* indices ever handed out */
static _Atomic uint32_t pool_busy; /* nodes in use */

static struct pg_sigq *node(uint32_t i)
{
	return &atomic_load(&chunks[i / PER_CHUNK])[i % PER_CHUNK];
}

/* As the kernel: bounds what programs queue, not what it sends itself. */
static bool over_limit(void)
{
	struct rlimit rl;

	return pg_sys(SYS_prlimit64, 0, RLIMIT_SIGPENDING, NULL, &rl) == 0 && atomic_load(&pool_busy) >= rl.rlim_cur;
}

struct pg_sigq *pg_sigq_get(bool limited)
{
	uint64_t f;
	uint32_t n;

	if (limited && over_limit())
		return NULL;
	f = atomic_load(&pool_free);
	while ((uint32_t)f) {
		struct pg_sigq *q = node((uint32_t)f - 1);
		if (atomic_compare_exchange_weak(&pool_free, &f, ((f >> 32) + 1) << 32 | atomic_load(&q->nextfree))) {
			atomic_fetch_add(&pool_busy, 1);
			return q;
		}
	}
	n = atomic_load(&pool_used);
	for (;;) {
		if (n >= PER_CHUNK * NCHUNK)
			return NULL;
		/* The chunk first: an index that is handed out has memory behind it. */
		if (atomic_load(&chunks[n / PER_CHUNK]) == NULL) {
			struct pg_sigq *none = NULL, *c = pg_mmap_alloc(PER_CHUNK * sizeof *c);
			if (c == NULL)
				return NULL;
			if (!atomic_compare_exchange_strong(&chunks[n / PER_CHUNK], &none, c))
				pg_sys(SYS_munmap, c, (PER_CHUNK * sizeof *c + 4095) & ~4095ul);
		}
		if (atomic_compare_exchange_weak(&pool_used, &n, n + 1))
			break;
	}
	atomic_fetch_add(&pool_busy, 1);
	node(n)->idx = n;
	return node(n);
}

void pg_sigq_put(struct pg_sigq *q)
{
	uint64_t f = atomic_load(&pool_free);

	atomic_fetch_sub(&pool_busy, 1);
	do
		atomic_store(&q->nextfree, (uint32_t)f);
	while (!atomic_compare_exchange_weak(&pool_free, &f, ((f >> 32) + 1) << 32 | (q->idx + 1)));
}
