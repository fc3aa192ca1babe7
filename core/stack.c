/* SPDX-License-Identifier: MIT */
/*
 * The memory of threads.  A slot holds one thread:
 *
 *	low	guard | stack, growing down | static TLS | struct pthread | struct pg_g	high
 *
 * Slots of one size lie side by side in one mapping, a slab, reserved and never given back: struct pg_g is type-stable.  Guards come
 * from MADV_GUARD_INSTALL, which splits no mapping (Linux 6.13), else from mprotect.  A guard and the top of its lower
 * neighbour share a page table.
 * Free slots of one size are cached per P and per class (under the class lock), newest first; a slot that goes deep into the
 * class list gives the pages of its stack back.  p->gfree is a list to which only the owner of the P adds, so that its compare-and-swap
 * can't mistake one list for another; who finds no memory takes the whole list of any P.
 * A thread on a stack of the program's own gets a slot of the smallest size for the rest.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "arch.h"
#include "core/chaos.h"
#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/thread.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum { MAXCLASS = 64, PCACHE = 64, KEEP = 512, TID_BASE = 1 << 23 };

struct pg_slab { /* a class of slots */
	struct pg_lock lock; /* protects all below */
	size_t total, guard;
	char *next, *end;    /* unused part of the newest mapping */
	struct pg_g *free;
	int nfree;
};
static struct pg_slab classes[MAXCLASS];
static _Atomic int nclasses;
static struct pg_lock class_lock;
static _Atomic uint32_t next_tid = TID_BASE;
static size_t default_stack;
static _Atomic bool no_guard_install;

extern bool pg_tls_full(void *tcb, struct pg_g *g);
extern void pg_tls_again(struct pg_g *g);
extern void pg_gstart(void *arg);

static size_t round_page(size_t n) { return (n + 4095) & ~(size_t)4095; }

size_t pg_default_stack(void)
{
	struct rlimit rl;

	if (default_stack)
		return default_stack;
	if (pg_knobs.stack) {
		default_stack = round_page((size_t)pg_knobs.stack);
	} else if (pg_sys(SYS_prlimit64, 0, RLIMIT_STACK, NULL, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY) {
		default_stack = round_page(rl.rlim_cur);
	} else {
		default_stack = 8 << 20; /* glibc takes 2 MB for an unlimited stack; more is free here */
	}
	if (default_stack < 16384)
		default_stack = 16384;
	return default_stack;
}

size_t pg_stack_overhead(void)
{
	return pg_tls_size() + pg_tcb_size() + sizeof(struct pg_g) + pg_tls_align() - 64;
}

/* The TCB's place decides where the program's thread-local variables are: it has their alignment, and struct pg_g follows it. */
static struct pg_g *g_of_slot(char *slot, struct pg_slab *c)
{
	uintptr_t tcb = (uintptr_t)slot + c->total - sizeof(struct pg_g) - pg_tcb_size();

	return (struct pg_g *)((tcb & ~(uintptr_t)(pg_tls_align() - 1)) + pg_tcb_size());
}

static struct pg_slab *find_class(size_t total, size_t guard)
{
	int n = atomic_load(&nclasses);

	for (int i = 0; i < n; i++)
		if (classes[i].total == total && classes[i].guard == guard)
			return &classes[i];
	pg_lock(&class_lock);
	n = atomic_load(&nclasses);
	struct pg_slab *c = NULL;
	for (int i = 0; i < n; i++)
		if (classes[i].total == total && classes[i].guard == guard)
			c = &classes[i];
	if (c == NULL && n >= MAXCLASS / 2) {
		/* Many sizes: the best that is there, else one that others will fit as well. */
		for (int i = 0; i < n; i++)
			if (classes[i].total >= total && classes[i].guard >= guard && classes[i].total / 2 <= total &&
			    (c == NULL || classes[i].total < c->total))
				c = &classes[i];
		while (c == NULL && (total & (total - 1)) != 0)
			total += total & -total;
	}
	if (c == NULL && n < MAXCLASS) {
		c = &classes[n];
		c->total = total;
		c->guard = guard;
		atomic_store(&nclasses, n + 1);
	}
	pg_unlock(&class_lock);
	return c;
}

/* The mappings that slots lie in, newest first; class_lock protects the list, and map_prot on its way to PROT_EXEC. */
struct mapping {
	struct mapping *next;
	struct pg_slab *c;
	char *at;
	size_t n;
};
enum { NMAPPINGS = 4096 / sizeof(struct mapping) };
static struct mapping *mappings, *spare; /* spare: the rest of a page of them */
static int nspare;
static int map_prot = PROT_READ | PROT_WRITE;

static bool install_guard(char *lo, size_t n)
{
	if (n == 0)
		return true;
	if (!atomic_load_explicit(&no_guard_install, memory_order_relaxed)) {
		if (pg_sys(SYS_madvise, lo, n, MADV_GUARD_INSTALL) == 0)
			return true;
		atomic_store(&no_guard_install, true);
	}
	return pg_sys(SYS_mprotect, lo, n, PROT_NONE) == 0;
}

/* Notes a mapping and gives it its protection.  False: no memory. */
static bool note_mapping(struct pg_slab *c, char *at, size_t n)
{
	struct mapping *m = NULL;

	pg_lock(&class_lock);
	if (nspare == 0 && (spare = pg_mmap_alloc(4096)) != NULL)
		nspare = NMAPPINGS;
	if (nspare > 0) {
		m = spare++;
		nspare--;
		*m = (struct mapping){ mappings, c, at, n };
		mappings = m;
		if (map_prot & PROT_EXEC)
			pg_sys(SYS_mprotect, at, n, map_prot);
	}
	pg_unlock(&class_lock);
	return m != NULL;
}

void pg_stacks_exec(void)
{
	struct pg_g *g = pg_self();

	if (map_prot & PROT_EXEC)
		return;
	pg_rt_enter(g);
	pg_lock(&class_lock);
	map_prot |= PROT_EXEC;
	for (struct mapping *m = mappings; m; m = m->next) {
		pg_sys(SYS_mprotect, m->at, m->n, map_prot);
		/* Guards that are no more than a protection have gone; the others are untouched. */
		for (char *s = m->at; atomic_load(&no_guard_install) && m->c->guard && s < m->at + m->n; s += m->c->total)
			pg_sys(SYS_mprotect, s, m->c->guard, PROT_NONE);
	}
	pg_unlock(&class_lock);
	pg_rt_exit(g);
}

/* A slot never used before; NULL: no memory. Class lock held. */
static char *new_slot(struct pg_slab *c)
{
	char *s;

	if (c->next == c->end) {
		size_t n = ((size_t)512 << 20) / c->total;
		long r;
		n = n < 1 ? 1 : n > 256 ? 256 : n;
		for (;; n = n / 8 ? n / 8 : 1) {
			r = pg_chaos_fail(PG_CHAOS_MMAP);
			if (r == 0)
				r = pg_sys(SYS_mmap, 0, n * c->total, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
			if (r > 0 || r < -4095)
				break;
			if (n == 1)
				return NULL;
		}
		if (!note_mapping(c, (char *)r, n * c->total)) {
			pg_sys(SYS_munmap, r, n * c->total);
			return NULL;
		}
		pg_sys(SYS_madvise, r, n * c->total, MADV_NOHUGEPAGE);
		c->next = (char *)r;
		c->end = c->next + n * c->total;
	}
	s = c->next;
	if (!install_guard(s, c->guard))
		return NULL;
	c->next += c->total;
	return s;
}

/* ---- free ones ---- */

/* The owner of p. */
static struct pg_g *pop_cached(struct pg_p *p, struct pg_slab *c)
{
	struct pg_g *g = atomic_load_explicit(&p->gfree, memory_order_relaxed);

	/* Nobody else adds: if g is still the head, what follows it is still what it was. */
	if (g == NULL || g->slab != c || !atomic_compare_exchange_strong(&p->gfree, &g, g->schedlink))
		return NULL;
	p->ngfree--;
	return g;
}

/* The owner of p.  False: it has enough, or others. */
static bool push_cached(struct pg_p *p, struct pg_g *g)
{
	struct pg_g *head = atomic_load_explicit(&p->gfree, memory_order_relaxed);

	if (head == NULL)
		p->ngfree = 0; /* perhaps it was emptied */
	if (p->ngfree >= PCACHE || (head && head->slab != g->slab))
		return false;
	do
		g->schedlink = head;
	while (!atomic_compare_exchange_strong(&p->gfree, &head, g));
	p->ngfree++;
	return true;
}

/* Class lock held. */
static struct pg_g *pop_class(struct pg_slab *c)
{
	struct pg_g *g = c->free;

	if (g) {
		c->free = g->schedlink;
		c->nfree--;
	}
	return g;
}

static void push_class(struct pg_g *g)
{
	struct pg_slab *c = g->slab;

	pg_lock(&c->lock);
	g->schedlink = c->free;
	c->free = g;
	c->nfree++;
	pg_unlock(&c->lock);
}

/* What all Ps have cached goes to the classes: memory is out. */
static void empty_caches(void)
{
	struct pg_g *g, *next;

	for (int i = 0; i < pg_nprocs; i++)
		for (g = atomic_exchange(&pg_allp[i].gfree, NULL); g; g = next) {
			next = g->schedlink;
			push_class(g);
		}
}

static void lay_out(struct pg_g *g, char *slot, struct pg_slab *c)
{
	char *hi = slot + c->total;

	g->slab = c;
	g->magic = PG_MAGIC;
	g->guard = c->guard;
	g->timer.idx = -1;
	g->tcb = (char *)g - pg_tcb_size();
	g->stack_lo = slot + c->guard;
	g->stack_top = (char *)g->tcb + pg_tcb_size() - pg_tls_size();
	g->stack_hi = hi;
	g->fresh = true;
}

/* What every new thread starts with, whether its slot is new or not. */
static void reset(struct pg_g *g)
{
	g->tid = atomic_fetch_add_explicit(&next_tid, 1, memory_order_relaxed);
	if (pg_unlikely(g->tid >= 1u << 29)) { /* what the id of a CPU clock has room for */
		atomic_store(&next_tid, TID_BASE);
		g->tid = TID_BASE;
	}
	atomic_store_explicit(&g->rt, 1, memory_order_relaxed);
	atomic_store_explicit(&g->pending, 0, memory_order_relaxed);
	atomic_store_explicit(&g->wait, PG_W_IDLE, memory_order_relaxed);
	atomic_store_explicit(&g->insys, 0, memory_order_relaxed);
	atomic_store_explicit(&g->life, PG_LIFE_JOINABLE, memory_order_relaxed);
	atomic_store_explicit(&g->dead, 0, memory_order_relaxed);
	atomic_store_explicit(&g->joiner, NULL, memory_order_relaxed);
	atomic_store_explicit(&g->state, PG_G_idle, memory_order_relaxed);
	atomic_store_explicit(&g->cancelled, 0, memory_order_relaxed);
	atomic_store_explicit(&g->cancel_state, 0, memory_order_relaxed);
	atomic_store_explicit(&g->cancel_type, 0, memory_order_relaxed);
	atomic_store_explicit(&g->cancel_point, 0, memory_order_relaxed);
	g->mode = PG_GREEN;
	g->oswired = 0;
	g->wiredm = NULL;
	g->result = NULL;
	g->fn_c11 = NULL;
	g->exit_buf = g->once = g->condwait = g->exit_tail = NULL;
	g->exiting = 0;
	g->tsd_used = false;
	g->name[0] = 0;
	g->sig_ran = g->sig_norestart = g->libc_handlers = 0;
	atomic_store_explicit(&g->sigpend, 0, memory_order_relaxed);
	atomic_store_explicit(&g->sigclaim, 0, memory_order_relaxed);
	atomic_store_explicit(&g->sigbare, 0, memory_order_relaxed);
	g->sigclass = -1;
	g->altstack.ss_sp = NULL;
	g->altstack.ss_flags = 2; /* SS_DISABLE */
	g->altstack.ss_size = 0;
	g->policy = g->prio = 0;
	atomic_store_explicit(&g->ostid, 0, memory_order_relaxed);
	atomic_store_explicit(&g->cputime, 0, memory_order_relaxed);
	g->cpusplit[0] = g->cpusplit[1] = 0;
	g->pdeathsig = 0;
	g->narrow = false;
	g->schedlink = NULL;
}

struct pg_g *pg_newg(size_t stack, size_t guard, void *ustack, int *err)
{
	struct pg_g *self = pg_self(), *g = NULL;
	struct pg_slab *c;
	size_t total;
	char *slot = NULL;

	/* Room for what NPTL would not put there: struct pg_g, and the frame of a preemption signal. */
	if (ustack)
		total = round_page(pg_stack_overhead() + 4096);
	else
		total = round_page((stack ? stack : pg_default_stack()) + pg_stack_overhead() + 12288) + (guard = round_page(guard));
	if (ustack)
		guard = 0;
	if ((!ustack && total < stack) || total > (size_t)1 << 46) {
		*err = EAGAIN;
		return NULL;
	}
	pg_rt_enter(self);
	c = find_class(total, guard);
	if (c == NULL) {
		pg_rt_exit(self);
		*err = EAGAIN; /* more than MAXCLASS different stack sizes */
		return NULL;
	}
	struct pg_p *p = self->mode == PG_GREEN ? self->m->p : NULL;
	if (p == NULL || (g = pop_cached(p, c)) == NULL) {
		pg_lock(&c->lock);
		if ((g = pop_class(c)) == NULL && (slot = new_slot(c)) == NULL) {
			pg_unlock(&c->lock);
			empty_caches();
			pg_lock(&c->lock);
			g = pop_class(c);
		}
		pg_unlock(&c->lock);
	}
	if (slot)
		g = g_of_slot(slot, c);
	pg_rt_exit(self);
	if (g == NULL) {
		*err = EAGAIN;
		return NULL;
	}
	if (slot) {
		lay_out(g, slot, c);
		reset(g);
		if (!pg_tls_full(g->tcb, g)) {
			/* The slot stays out of use: its TCB is in an unknown state. */
			*err = EAGAIN;
			return NULL;
		}
		pg_rt_enter(self);
		pg_allg_add(g);
		pg_rt_exit(self);
	} else {
		reset(g);
		pg_tls_again(g);
	}
	g->userstack = ustack != NULL;
	if (ustack) {
		g->stack_lo = ustack;
		g->stack_hi = (char *)ustack + stack;
		g->stack_top = g->stack_hi;
	}
	g->sp = pg_arch_frame(g->stack_top, pg_gstart, g);
	return g;
}

void pg_gfree(struct pg_g *g)
{
	struct pg_slab *c = g->slab;
	struct pg_m *m = pg_self_->m;
	struct pg_p *p = m == &pg_nullm ? NULL : m->p;

	atomic_store_explicit(&g->state, PG_G_dead, memory_order_relaxed);
	if (c == NULL)
		return;
	if (p && push_cached(p, g))
		return;
	bool trim = false;
	pg_lock(&c->lock);
	trim = c->nfree >= KEEP;
	pg_unlock(&c->lock);
	if (trim && !g->userstack) {
		char *top = (char *)((uintptr_t)g->stack_top & ~(uintptr_t)4095);
		if (top > (char *)g->stack_lo)
			pg_sys(SYS_madvise, g->stack_lo, top - (char *)g->stack_lo, MADV_DONTNEED);
	}
	push_class(g);
}

unsigned long pg_threads_made(void)
{
	return atomic_load(&next_tid) - TID_BASE;
}

static struct pg_lock allg_lock;
static _Atomic(struct pg_g *) allg; /* push-only */

void pg_allg_add(struct pg_g *g)
{
	pg_lock(&allg_lock);
	g->alllink = allg;
	allg = g;
	pg_unlock(&allg_lock);
}

/* Lock-free: nothing is ever taken off the list. */
void pg_foreach_g(void (*fn)(struct pg_g *, void *), void *arg)
{
	for (struct pg_g *g = atomic_load(&allg); g; g = g->alllink)
		fn(g, arg);
}

uint32_t pg_next_tid(void)
{
	return atomic_load(&next_tid);
}

static struct pg_lock foreign_lock;
static struct pg_g *foreign; /* push-only, linked by schedlink */

void pg_foreign_add(struct pg_g *g);
void pg_foreign_add(struct pg_g *g)
{
	pg_lock(&foreign_lock);
	g->schedlink = foreign;
	foreign = g;
	pg_unlock(&foreign_lock);
}

void pg_foreach_foreign(void (*fn)(struct pg_g *, void *), void *arg);
void pg_foreach_foreign(void (*fn)(struct pg_g *, void *), void *arg)
{
	for (struct pg_g *g = foreign; g; g = g->schedlink)
		fn(g, arg);
}

struct pg_g *pg_pthread2g(unsigned long t)
{
	struct pg_g *g;

	if (t == (unsigned long)pg_main_g.tcb)
		return &pg_main_g;
	for (g = foreign; g; g = g->schedlink)
		if ((unsigned long)g->tcb == t)
			return g;
	if (t == 0 || !atomic_load(&pg_started))
		return NULL;
	g = (struct pg_g *)(t + pg_tcb_size());
	return g->magic == PG_MAGIC && g->tcb == (void *)t ? g : NULL;
}

/* In a fork's child: what the Ps had cached is lost; the locks are free since the world was stopped. */
void pg_stack_forked(void);
void pg_stack_forked(void)
{
	foreign = NULL;
}
