/* SPDX-License-Identifier: MIT */
/*
 * The user-level futex: hashed first-in first-out queues of waiting Gs.
 *
 * A node lies on the waiter's stack.  It is on a queue from the waiter's enqueue until a waker or the waiter itself takes it
 * off, always under the lock of the bucket the node is in; node->bucket changes only under both locks (requeue).
 * A waiter whose node a waker has taken off counts as woken, whatever else ended its wait at the same time: the waker need
 * not know whether it won the claim, and no wake-up is lost.  A taker's last access to a node is the store of bucket = -1.
 * Lock order: the bucket of lower index first.
 */
#include <errno.h>
#include <linux/futex.h>

#include "core/proc.h"
#include "core/sema.h"

enum { NBUCKETS = 1024, BATCH = 32 };

struct node {
	struct node *next, *prev;
	const void *addr;
	struct pg_g *g;
	uint32_t bits;
	_Atomic int bucket; /* -1: on none */
};

static struct bucket {
	struct pg_lock lock;
	_Atomic int n;
	struct node *head, *tail;
} __attribute__((aligned(64))) buckets[NBUCKETS];

static int hash(const void *addr)
{
	uint64_t x = (uintptr_t)addr >> 2;

	x *= 0x9e3779b97f4a7c15u;
	return (int)(x >> 54);
}

static void unlink_node(struct bucket *b, struct node *n)
{
	*(n->prev ? &n->prev->next : &b->head) = n->next;
	*(n->next ? &n->next->prev : &b->tail) = n->prev;
	atomic_store_explicit(&b->n, atomic_load_explicit(&b->n, memory_order_relaxed) - 1, memory_order_relaxed);
}

/* Unlinks for good; n may be gone at once. */
static struct pg_g *take_node(struct bucket *b, struct node *n)
{
	struct pg_g *g = n->g;

	unlink_node(b, n);
	atomic_store_explicit(&n->bucket, -1, memory_order_release); /* pairs with the acquire in remove_node */
	return g;
}

static void append_node(int i, struct node *n)
{
	struct bucket *b = &buckets[i];

	n->next = NULL;
	n->prev = b->tail;
	*(b->tail ? &b->tail->next : &b->head) = n;
	b->tail = n;
	atomic_store_explicit(&n->bucket, i, memory_order_relaxed);
	/* pairs with the fence in pg_sema_wake: counted before the word is compared */
	atomic_store_explicit(&b->n, atomic_load_explicit(&b->n, memory_order_relaxed) + 1, memory_order_seq_cst);
}

/* Takes n off the queue it is on now, which a requeue may be changing.  False: somebody has taken it off. */
static bool remove_node(struct node *n)
{
	for (;;) {
		int i = atomic_load_explicit(&n->bucket, memory_order_acquire);
		if (i < 0)
			return false;
		pg_lock(&buckets[i].lock);
		if (atomic_load_explicit(&n->bucket, memory_order_relaxed) == i) {
			unlink_node(&buckets[i], n);
			pg_unlock(&buckets[i].lock);
			return true;
		}
		pg_unlock(&buckets[i].lock);
	}
}

int pg_sema_wait(const _Atomic uint32_t *addr, uint32_t expected, uint32_t bits, int64_t deadline)
{
	struct pg_g *g = pg_self();
	struct node n = {.addr = addr, .g = g, .bits = bits};
	int i = hash(addr), r;
	struct bucket *b = &buckets[i];
	unsigned why;

	pg_rt_enter(g);
	pg_wait_prepare(g);
	pg_lock(&b->lock);
	append_node(i, &n);
	if (atomic_load(addr) != expected) {
		unlink_node(b, &n);
		pg_unlock(&b->lock);
		pg_wait_abort(g);
		pg_rt_exit(g);
		return -EAGAIN;
	}
	pg_unlock(&b->lock);
	why = pg_park(g, deadline, PG_WAIT_sema);
	if (!remove_node(&n))
		r = 0;
	else if (why & PG_WHY_SIGNAL)
		r = -EINTR;
	else if (why & PG_WHY_TIMEOUT && pg_now() >= deadline)
		r = -ETIMEDOUT;
	else
		r = 0; /* a late wake-up of an older wait */
	pg_rt_exit(g);
	return r;
}

int pg_sema_wake(const void *addr, int max, uint32_t bits)
{
	struct bucket *b = &buckets[hash(addr)];
	struct pg_g *g = pg_self();
	int woken = 0;

	/* The caller has changed the word; a waiter counts itself and then compares the word. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&b->n, memory_order_relaxed) == 0)
		return 0;
	pg_rt_enter(g);
	while (woken < max) {
		struct pg_g *batch[BATCH];
		int nb = 0;
		bool more = false;

		pg_lock(&b->lock);
		for (struct node *n = b->head, *next; n; n = next) {
			next = n->next;
			if (n->addr != addr || !(n->bits & bits))
				continue;
			if (nb == BATCH || woken + nb >= max) {
				more = true;
				break;
			}
			batch[nb++] = take_node(b, n);
		}
		pg_unlock(&b->lock);
		for (int i = 0; i < nb; i++)
			pg_wake(batch[i], PG_WHY_READY);
		woken += nb;
		if (!more)
			break;
	}
	pg_rt_exit(g);
	return woken;
}

static void lock2(struct bucket *a, struct bucket *b)
{
	if (a > b) {
		struct bucket *t = a;
		a = b;
		b = t;
	}
	pg_lock(&a->lock);
	if (a != b)
		pg_lock(&b->lock);
}

static void unlock2(struct bucket *a, struct bucket *b)
{
	pg_unlock(&a->lock);
	if (a != b)
		pg_unlock(&b->lock);
}

int pg_sema_requeue(const _Atomic uint32_t *addr, int nwake, const void *addr2, int nmove, bool check, uint32_t expected,
		    int *moved)
{
	int i2 = hash(addr2), woken = 0;
	struct bucket *b = &buckets[hash(addr)], *b2 = &buckets[i2];
	struct pg_g *self = pg_self();

	*moved = 0;
	pg_rt_enter(self);
	lock2(b, b2);
	if (check && atomic_load(addr) != expected) {
		unlock2(b, b2);
		pg_rt_exit(self);
		return -EAGAIN;
	}
	struct node *last = b->tail;
	for (struct node *n = b->head, *next; n; n = next) {
		next = n == last ? NULL : n->next;
		if (n->addr != (const void *)addr)
			continue;
		if (woken < nwake) {
			/* Under the locks: few, and pg_wake takes neither. */
			pg_wake(take_node(b, n), PG_WHY_READY);
			woken++;
		} else if (*moved < nmove) {
			unlink_node(b, n);
			n->addr = addr2;
			append_node(i2, n);
			++*moved;
		} else {
			break;
		}
	}
	unlock2(b, b2);
	pg_rt_exit(self);
	return woken;
}

int pg_sema_wake_op(const void *addr, int nwake, _Atomic uint32_t *addr2, int nwake2, uint32_t op)
{
	int cmp = op >> 24 & 15, what = op >> 28 & 7;
	int32_t oparg = (int32_t)(op << 8) >> 20, cmparg = (int32_t)(op << 20) >> 20, old;
	int woken;
	bool yes;

	if (op >> 28 & FUTEX_OP_OPARG_SHIFT)
		oparg = (int32_t)(1u << (oparg & 31));
	switch (what) {
	case FUTEX_OP_SET: old = (int32_t)atomic_exchange(addr2, (uint32_t)oparg); break;
	case FUTEX_OP_ADD: old = (int32_t)atomic_fetch_add(addr2, (uint32_t)oparg); break;
	case FUTEX_OP_OR: old = (int32_t)atomic_fetch_or(addr2, (uint32_t)oparg); break;
	case FUTEX_OP_ANDN: old = (int32_t)atomic_fetch_and(addr2, ~(uint32_t)oparg); break;
	case FUTEX_OP_XOR: old = (int32_t)atomic_fetch_xor(addr2, (uint32_t)oparg); break;
	default: return -ENOSYS;
	}
	switch (cmp) {
	case FUTEX_OP_CMP_EQ: yes = old == cmparg; break;
	case FUTEX_OP_CMP_NE: yes = old != cmparg; break;
	case FUTEX_OP_CMP_LT: yes = old < cmparg; break;
	case FUTEX_OP_CMP_LE: yes = old <= cmparg; break;
	case FUTEX_OP_CMP_GT: yes = old > cmparg; break;
	case FUTEX_OP_CMP_GE: yes = old >= cmparg; break;
	default: return -ENOSYS;
	}
	woken = pg_sema_wake(addr, nwake, PG_SEMA_ANY);
	if (yes)
		woken += pg_sema_wake(addr2, nwake2, PG_SEMA_ANY);
	return woken;
}

/* In a fork's child: nobody waits any more. */
void pg_sema_forked(void);
void pg_sema_forked(void)
{
	for (int i = 0; i < NBUCKETS; i++)
		buckets[i] = (struct bucket){0};
}
