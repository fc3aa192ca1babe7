/* SPDX-License-Identifier: MIT */
/*
 * What makes a G a thread in the eyes of glibc: a struct pthread with static TLS below it, found through the thread pointer.
 *
 * Sizes come from ld.so (_dl_get_tls_static_info), offsets within struct pthread from the descriptors libc exports for
 * libthread_db, from the kernel (the robust list head it was told) and from __resp of a real thread.  What is not known is
 * left zero, which is what a fresh NPTL thread has there.
 *
 * A TCB is made once and serves many threads in turn: see modules.c for the thread-local variables.  It is on libc's list of
 * threads from then on, so that ld.so knows it as one of its own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/rseq.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/chaos.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/thread.h"

__thread struct pg_g *pg_self_;

/* What ld.so and libc export for their own use. */
static void *(*dl_allocate_tls)(void *);
static void (*ctype_init)(void);
static struct { size_t size, align, pthread_size, list_off, tid_off; long robust_off, rseq_off, resp_off, res_off, cancel_off; } lay;
static ptrdiff_t self_off;
static bool initialised;


/*
 * libc's list of threads on stacks that it has not made.  dlopen gives a new module's static TLS its image in the threads on it,
 * before any constructor runs; dlclose waits until none of them is looking up a symbol.
 */
static struct pg_lock threads_lock;
static void **threads;
static uint32_t threads_gen = 1;  /* another in the child of a fork, where libc forgets all threads but one */

struct thread_db_desc { uint32_t bits, count, offset; };

bool pg_thread_db(const char *name, size_t *off)
{
	const struct thread_db_desc *d = dlsym(RTLD_DEFAULT, name);

	if (d)
		*off = d->offset;
	return d != NULL;
}

void *pg_mmap_must(size_t n)
{
	long r = pg_sys(SYS_mmap, 0, (n + 4095) & ~(size_t)4095, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return r < 0 && r > -4096 ? NULL : (void *)r;
}

void *pg_mmap_alloc(size_t n)
{
	return pg_chaos_fail(PG_CHAOS_MMAP) ? NULL : pg_mmap_must(n);
}

/* At least that of a TCB. */
size_t pg_tls_align(void) { return lay.align > 64 ? lay.align : 64; }
size_t pg_tls_size(void) { return (lay.size + 63) & ~(size_t)63; }
size_t pg_tcb_size(void) { return (lay.pthread_size + 63) & ~(size_t)63; }

void pg_tls_setself(void *tcb, struct pg_g *g)
{
	*(struct pg_g **)((char *)tcb + self_off) = g;
}

int pg_tls_init(void)
{
	void (*info)(size_t *, size_t *) = dlsym(RTLD_DEFAULT, "_dl_get_tls_static_info");
	const uint32_t *psize = dlsym(RTLD_DEFAULT, "_thread_db_sizeof_pthread");
	const ptrdiff_t *rseq_offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
	const unsigned *rseq_size = dlsym(RTLD_DEFAULT, "__rseq_size");
	char *tp = pg_arch_tp();
	void *head = NULL;
	size_t len = 0;

	if (initialised)
		return 0;
	dl_allocate_tls = dlsym(RTLD_DEFAULT, "_dl_allocate_tls");
	ctype_init = dlsym(RTLD_DEFAULT, "__ctype_init");
	if (!info || !psize || !dl_allocate_tls || !ctype_init || !pg_thread_db("_thread_db_pthread_list", &lay.list_off) ||
	    !pg_thread_db("_thread_db_pthread_tid", &lay.tid_off)) {
		pg_say("this libc does not tell the layout of its threads; threads stay native");
		return -ENOSYS;
	}
	info(&lay.size, &lay.align);
	lay.pthread_size = *psize;
	lay.rseq_off = rseq_offset && rseq_size && *rseq_size ? (long)*rseq_offset : -1;
	lay.robust_off = -1;
	if (pg_sys(SYS_get_robust_list, 0, &head, &len) == 0 && (char *)head > tp && (char *)head < tp + lay.pthread_size)
		lay.robust_off = (char *)head - tp;
	size_t cancel;
	lay.cancel_off = pg_thread_db("_thread_db_pthread_cancelhandling", &cancel) ? (long)cancel : -1;
	lay.resp_off = 0;
	void *resp = dlsym(RTLD_DEFAULT, "__resp");
	if (resp)
		lay.resp_off = (char *)resp - tp;
	self_off = (char *)&pg_self_ - tp;
	char *rtld = dlsym(RTLD_DEFAULT, "_rtld_global");
	size_t off;
	if (rtld && pg_thread_db("_thread_db_rtld_global__dl_stack_user", &off))
		threads = (void **)(rtld + off);
	pg_modules_init(rtld, (void *)dl_allocate_tls, lay.size);

	/* The kernel would go on writing processor numbers into the main TCB wherever it runs: let sched_getcpu ask instead. */
	if (lay.rseq_off >= 0) {
		struct rseq *rs = (struct rseq *)(tp + lay.rseq_off);
		pg_sys(SYS_rseq, rs, *rseq_size >= 32 ? *rseq_size : 32, RSEQ_FLAG_UNREGISTER, 0x53053053);
		rs->cpu_id = (uint32_t)RSEQ_CPU_ID_UNINITIALIZED;
	}
	initialised = true;
	return 0;
}

/* Where struct pthread keeps the resolver state: told by the first real thread, whose __resp points there. */
void pg_tls_learn_res(void);
void pg_tls_learn_res(void)
{
	char *tp = pg_arch_tp();

	if (lay.resp_off == 0)
		return;
	char *res = *(char **)(tp + lay.resp_off);
	if (res > tp && res < tp + lay.pthread_size)
		lay.res_off = res - tp;
}

/* Robust mutexes that the thread holds, and the one it is about to take or let go. */
static void empty_robust(char *tcb)
{
	long *head = (long *)(tcb + lay.robust_off);

	if (lay.robust_off >= 0) {
		head[0] = (long)head;
		head[2] = 0;
	}
}

static void init_tcb(char *tcb)
{
	char *from = pg_arch_tp();

	*(void **)(tcb + PG_TCB_TCB) = tcb;
	*(void **)(tcb + PG_TCB_SELF) = tcb;
	*(int *)(tcb + PG_TCB_MULTIPLE_THREADS) = 1;
	memcpy(tcb + PG_TCB_STACK_GUARD, from + PG_TCB_STACK_GUARD, sizeof(uintptr_t));
	memcpy(tcb + PG_TCB_POINTER_GUARD, from + PG_TCB_POINTER_GUARD, sizeof(uintptr_t));
	if (lay.robust_off >= 0)
		((long *)(tcb + lay.robust_off))[1] = ((long *)(from + lay.robust_off))[1];
	empty_robust(tcb);
	if (lay.rseq_off >= 0)
		((struct rseq *)(tcb + lay.rseq_off))->cpu_id = (uint32_t)RSEQ_CPU_ID_UNINITIALIZED;
}

void *pg_tls_new(void *tcb)
{
	void **node = (void **)((char *)tcb + lay.list_off);

	node[0] = node[1] = node;
	init_tcb(tcb);
	return tcb;
}

/* Puts g on libc's list.  libc walks it forward, under a lock that we can't take, and adds to it only where threads are native. */
static void join_threads(struct pg_g *g)
{
	void **node = (void **)((char *)g->tcb + lay.list_off), **first;
	struct pg_g *self = pg_self();

	g->threads_gen = threads_gen;
	if (threads == NULL) {
		node[0] = node[1] = node; /* fork in the child takes itself off a list */
		return;
	}
	pg_rt_enter(self);
	pg_lock(&threads_lock);
	first = threads[0];
	node[0] = first;
	node[1] = threads;
	first[1] = node;
	__atomic_store_n(&threads[0], node, __ATOMIC_RELEASE);
	pg_unlock(&threads_lock);
	pg_rt_exit(self);
}

/* In the child, after libc has begun a new list with the caller alone. */
void pg_tls_forked(void)
{
	threads_gen++;
	pg_self()->threads_gen = threads_gen;
}

/* A full TCB with DTV for g at tcb, whose memory is zero.  Calls calloc.  False: out of memory. */
bool pg_tls_full(void *tcb, struct pg_g *g);
bool pg_tls_full(void *tcb, struct pg_g *g)
{
	/* First on the list: a module that is opened in between is found there, or by ld.so here. */
	join_threads(g);
	if (dl_allocate_tls(tcb) == NULL)
		return false;
	init_tcb(tcb);
	pg_tls_setself(tcb, g);
	if (lay.resp_off && lay.res_off)
		*(char **)((char *)tcb + lay.resp_off) = (char *)tcb + lay.res_off;
	*(uint32_t *)((char *)tcb + lay.tid_off) = g->tid;
	return true;
}

/* The TCB of g serves another thread. */
void pg_tls_again(struct pg_g *g);
void pg_tls_again(struct pg_g *g)
{
	if (pg_unlikely(g->threads_gen != threads_gen))
		join_threads(g);
	empty_robust(g->tcb); /* those that the former thread died with are others' now */
	*(uint32_t *)((char *)g->tcb + lay.tid_off) = g->tid;
}

_Atomic uint32_t *pg_tls_cancelword(struct pg_g *g)
{
	return lay.cancel_off > 0 ? (_Atomic uint32_t *)((char *)g->tcb + lay.cancel_off) : NULL;
}

void pg_tls_robust(void *tcb)
{
	if (lay.robust_off >= 0)
		pg_sys(SYS_set_robust_list, (char *)tcb + lay.robust_off, 24);
}

/* Entries of PI mutexes have the lowest bit set. */
bool pg_tls_owns_pi(struct pg_g *g)
{
	long *head = (long *)((char *)g->tcb + lay.robust_off);
	int limit = 2048; /* as the kernel's */

	if (lay.robust_off < 0)
		return false;
	for (long e = head[0]; (e & ~1L) != (long)head && limit-- > 0; e = *(long *)(e & ~1L))
		if (e & 1)
			return true;
	return false;
}

void pg_tls_owner_died(struct pg_g *g)
{
	char *tcb = g->tcb;
	uint32_t tid = *(uint32_t *)(tcb + lay.tid_off);
	long *head, off;
	int limit = 2048; /* as the kernel's */

	if (lay.robust_off < 0)
		return;
	head = (long *)(tcb + lay.robust_off);
	off = head[1];
	for (long e = head[0]; (e & ~1L) != (long)head && limit-- > 0;) {
		_Atomic uint32_t *w = (_Atomic uint32_t *)((e & ~1L) + off);
		long next = *(long *)(e & ~1L);
		uint32_t v = atomic_load(w);
		while ((v & FUTEX_TID_MASK) == tid && !atomic_compare_exchange_weak(w, &v, (v & FUTEX_WAITERS) | FUTEX_OWNER_DIED))
			;
		if ((v & FUTEX_TID_MASK) == tid && v & FUTEX_WAITERS)
			pg_sys(SYS_futex, w, FUTEX_WAKE, 1);
		e = next;
	}
	head[0] = (long)head;
}

void pg_tls_wired(struct pg_g *g)
{
	pg_tls_robust(g->tcb);
	/* Kernel-visible owner of robust and PI mutexes. */
	*(uint32_t *)((char *)g->tcb + lay.tid_off) = (uint32_t)pg_sys(SYS_gettid);
}

void pg_tls_thread_start(struct pg_g *g)
{
	if (g->fresh) {
		g->fresh = false;
		ctype_init();
		return;
	}
	errno = 0;
	if (uselocale((locale_t)0) != LC_GLOBAL_LOCALE)
		uselocale(LC_GLOBAL_LOCALE);
	pg_modules_reset(g);
}

void pg_tls_thread_end(struct pg_g *g)
{
	(void)g;
}
