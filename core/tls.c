/* SPDX-License-Identifier: MIT */
/*
 * What makes a G a thread in the eyes of glibc: a struct pthread with static TLS below it, found through the thread pointer.
 *
 * Sizes come from ld.so (_dl_get_tls_static_info), offsets within struct pthread from the descriptors libc exports for
 * libthread_db, from the kernel (the robust list head it was told) and from __resp of a real thread.  What is not known is
 * left zero, which is what a fresh NPTL thread has there.
 *
 * A TCB is made once and serves many threads in turn.  libc's own TLS (malloc's cache, the locale) stays with it; every
 * other module's block goes back to its initial image at the start of each thread.  It is on libc's list of threads from then on, so
 * that ld.so knows it as one of its own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <linux/futex.h>
#include <linux/rseq.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/sigstate.h"
#include "core/thread.h"

__thread struct pg_g *pg_self_;

/* What ld.so and libc export for their own use. */
static void *(*dl_allocate_tls)(void *);
static void (*ctype_init)(void);
static struct { size_t size, align, pthread_size, list_off, tid_off; long robust_off, rseq_off, resp_off, res_off; } lay;
static ptrdiff_t self_off;
static bool initialised;

/*
 * Modules whose TLS must be reset when a TCB serves another thread.  Those of the program's start stay as long as the process, at a
 * fixed distance from the TCB.  The others come and go, also behind our back (libc opens some itself), and are
 * looked for at the start of each thread, under ld.so's own lock: while that is held none is unmapped.
 */
enum { MAXMODS = 256 };
static struct mod { ptrdiff_t off; const void *image; size_t filesz, memsz; } mods[MAXMODS];
static int nmods;
static int startup_objects;       /* how many objects the program started with: the first ones on ld.so's list */
static bool too_many;             /* the table has not got all of theirs */
static _Atomic uint64_t late;     /* bit 0: others have TLS; above, a count of changes */
static _Atomic int loading;       /* calls of dlopen under way: their constructors may make threads */
static _Atomic unsigned long long counted[2]; /* ld.so's counts of objects added and removed at the last look */
static const char *libc_base, *own_base, *ld_base;

/*
 * libc's list of threads on stacks that it has not made.  dlopen gives a new module's static TLS its image in the threads on it,
 * before any constructor runs; dlclose waits until none of them is looking up a symbol.
 */
static struct pg_lock threads_lock;
static void **threads;
static uint32_t threads_gen = 1;  /* another in the child of a fork, where libc forgets all threads but one */

struct thread_db_desc { uint32_t bits, count, offset; };

static bool desc(const char *name, size_t *off)
{
	const struct thread_db_desc *d = dlsym(RTLD_DEFAULT, name);

	if (d)
		*off = d->offset;
	return d != NULL;
}

void *pg_mmap_alloc(size_t n)
{
	long r = pg_sys(SYS_mmap, 0, (n + 4095) & ~(size_t)4095, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return r < 0 && r > -4096 ? NULL : (void *)r;
}

/* At least that of a TCB. */
size_t pg_tls_align(void) { return lay.align > 64 ? lay.align : 64; }
size_t pg_tls_size(void) { return (lay.size + 63) & ~(size_t)63; }
size_t pg_tcb_size(void) { return (lay.pthread_size + 63) & ~(size_t)63; }

void pg_tls_setself(void *tcb, struct pg_g *g)
{
	*(struct pg_g **)((char *)tcb + self_off) = g;
}

static const char *base_of(const void *addr)
{
	Dl_info i;

	return dladdr(addr, &i) ? i.dli_fbase : NULL;
}

static void *(*tls_get_addr)(size_t *); /* by dlsym: a reference would make ld.so a needed library */

static bool static_tls(struct dl_phdr_info *i)
{
	for (int k = 0; k < i->dlpi_phnum; k++) {
		if (i->dlpi_phdr[k].p_type != PT_DYNAMIC)
			continue;
		const ElfW(Dyn) *d = (const ElfW(Dyn) *)(i->dlpi_addr + i->dlpi_phdr[k].p_vaddr);
		for (; d->d_tag != DT_NULL; d++)
			if (d->d_tag == DT_FLAGS)
				return d->d_un.d_val & DF_STATIC_TLS;
	}
	return false;
}

/* NULL: it has none, or it is one that every TCB keeps. */
static const ElfW(Phdr) *tls_of(struct dl_phdr_info *i)
{
	const char *base = (const char *)i->dlpi_addr;

	if (base == libc_base || base == own_base || base == ld_base)
		return NULL;
	for (int k = 0; k < i->dlpi_phnum; k++)
		if (i->dlpi_phdr[k].p_type == PT_TLS)
			return &i->dlpi_phdr[k];
	return NULL;
}

static void to_image(char *block, const void *image, size_t filesz, size_t memsz)
{
	memcpy(block, image, filesz);
	memset(block + filesz, 0, memsz - filesz);
}

static int count_objects(struct dl_phdr_info *i, size_t size, void *arg)
{
	(void)i;
	(void)size;
	++*(int *)arg;
	return 0;
}

void pg_tls_startup(void)
{
	if (startup_objects == 0)
		dl_iterate_phdr(count_objects, &startup_objects);
}

struct walk { int seen; bool late; unsigned long long n[2]; };

static int scan_startup(struct dl_phdr_info *i, size_t size, void *arg)
{
	const char *tp = pg_arch_tp(), *data = i->dlpi_tls_data;
	const ElfW(Phdr) *ph = tls_of(i);

	(void)size;
	if (((struct walk *)arg)->seen++ >= startup_objects)
		return 1;
	if (ph == NULL)
		return 0;
	if (data == NULL || data >= tp || data < tp - lay.size || nmods == MAXMODS)
		too_many = true;
	else
		mods[nmods++] = (struct mod){data - tp, (const char *)i->dlpi_addr + ph->p_vaddr, ph->p_filesz, ph->p_memsz};
	return 0;
}

static int find_late(struct dl_phdr_info *i, size_t size, void *arg)
{
	struct walk *w = arg;

	(void)size;
	w->n[0] = i->dlpi_adds;
	w->n[1] = i->dlpi_subs;
	if (w->seen++ >= startup_objects && tls_of(i))
		w->late = true;
	return 0;
}

static int only_count(struct dl_phdr_info *i, size_t size, void *arg)
{
	(void)size;
	((unsigned long long *)arg)[0] = i->dlpi_adds;
	((unsigned long long *)arg)[1] = i->dlpi_subs;
	return 1;
}

void pg_tls_look(void)
{
	unsigned long long n[2];
	uint64_t was, is;

	if (!initialised)
		return;
	dl_iterate_phdr(only_count, n);
	if (n[0] == counted[0] && n[1] == counted[1])
		return;
	do {
		struct walk w = {0};
		was = atomic_load(&late);
		dl_iterate_phdr(find_late, &w);
		is = (was | 1) + 1 + w.late;
		memcpy(n, w.n, sizeof n);
	} while (!atomic_compare_exchange_strong(&late, &was, is)); /* somebody else looked, perhaps earlier than we */
	counted[0] = n[0];
	counted[1] = n[1];
}

void pg_tls_loading(int by)
{
	atomic_fetch_add(&loading, by);
}

/* Where the code of libc and ld.so lies: preemption keeps out of it. */
static uintptr_t text[4];

static int find_text(struct dl_phdr_info *i, size_t size, void *arg)
{
	const char *base = (const char *)i->dlpi_addr;
	uintptr_t *t = base == libc_base ? &text[0] : base == ld_base ? &text[2] : NULL;

	(void)size;
	(void)arg;
	for (int k = 0; t && k < i->dlpi_phnum; k++)
		if (i->dlpi_phdr[k].p_type == PT_LOAD && i->dlpi_phdr[k].p_flags & PF_X) {
			t[0] = (uintptr_t)base + i->dlpi_phdr[k].p_vaddr;
			t[1] = t[0] + i->dlpi_phdr[k].p_memsz;
		}
	return 0;
}

void pg_find_text(uintptr_t *libc_lo, uintptr_t *libc_hi, uintptr_t *ld_lo, uintptr_t *ld_hi);
void pg_find_text(uintptr_t *libc_lo, uintptr_t *libc_hi, uintptr_t *ld_lo, uintptr_t *ld_hi)
{
	*libc_lo = text[0];
	*libc_hi = text[1];
	*ld_lo = text[2];
	*ld_hi = text[3];
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
	tls_get_addr = dlsym(RTLD_DEFAULT, "__tls_get_addr");
	if (!info || !psize || !dl_allocate_tls || !ctype_init || !desc("_thread_db_pthread_list", &lay.list_off) ||
	    !desc("_thread_db_pthread_tid", &lay.tid_off)) {
		pg_say("this libc does not tell the layout of its threads; threads stay native");
		return -ENOSYS;
	}
	info(&lay.size, &lay.align);
	lay.pthread_size = *psize;
	lay.rseq_off = rseq_offset && rseq_size && *rseq_size ? (long)*rseq_offset : -1;
	lay.robust_off = -1;
	if (pg_sys(SYS_get_robust_list, 0, &head, &len) == 0 && (char *)head > tp && (char *)head < tp + lay.pthread_size)
		lay.robust_off = (char *)head - tp;
	lay.resp_off = 0;
	void *resp = dlsym(RTLD_DEFAULT, "__resp");
	if (resp)
		lay.resp_off = (char *)resp - tp;
	self_off = (char *)&pg_self_ - tp;
	libc_base = base_of(dlsym(RTLD_DEFAULT, "gnu_get_libc_version"));
	own_base = base_of((void *)&pg_tls_init);
	ld_base = base_of((void *)dl_allocate_tls);
	pg_tls_startup();
	dl_iterate_phdr(scan_startup, &(struct walk){0});
	dl_iterate_phdr(find_text, NULL);
	char *rtld = dlsym(RTLD_DEFAULT, "_rtld_global");
	size_t off;
	if (rtld && desc("_thread_db_rtld_global__dl_stack_user", &off))
		threads = (void **)(rtld + off);

	/* The kernel would go on writing processor numbers into the main TCB wherever it runs: let sched_getcpu ask instead. */
	if (lay.rseq_off >= 0) {
		struct rseq *rs = (struct rseq *)(tp + lay.rseq_off);
		pg_sys(SYS_rseq, rs, *rseq_size >= 32 ? *rseq_size : 32, RSEQ_FLAG_UNREGISTER, 0x53053053);
		rs->cpu_id = (uint32_t)RSEQ_CPU_ID_UNINITIALIZED;
	}
	initialised = true;
	pg_tls_look();
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

static void init_tcb(char *tcb)
{
	char *from = pg_arch_tp();

	*(void **)(tcb + PG_TCB_TCB) = tcb;
	*(void **)(tcb + PG_TCB_SELF) = tcb;
	*(int *)(tcb + PG_TCB_MULTIPLE_THREADS) = 1;
	memcpy(tcb + PG_TCB_STACK_GUARD, from + PG_TCB_STACK_GUARD, sizeof(uintptr_t));
	memcpy(tcb + PG_TCB_POINTER_GUARD, from + PG_TCB_POINTER_GUARD, sizeof(uintptr_t));
	if (lay.robust_off >= 0) {
		long *r = (long *)(tcb + lay.robust_off), *rf = (long *)(from + lay.robust_off);
		r[0] = (long)r;
		r[1] = rf[1];
		r[2] = 0;
	}
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
	*(uint32_t *)((char *)g->tcb + lay.tid_off) = g->tid;
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

/* Counted like a handler that interrupted libc. */
int pg_ldso_begin(struct pg_g *g)
{
	int begun;

	while ((begun = pg_libc_handler_begin(g, text[0])) < 0)
		pg_yield();
	return begun;
}

void pg_ldso_end(struct pg_g *g, int begun)
{
	pg_libc_handler_end(g, begun);
}

static int reset_late(struct dl_phdr_info *i, size_t size, void *arg)
{
	struct walk *w = arg;
	const ElfW(Phdr) *ph = tls_of(i);
	char *data = i->dlpi_tls_data;

	(void)size;
	if ((w->seen++ < startup_objects && !too_many) || ph == NULL)
		return 0;
	/* Not told until this thread has touched it.  Dynamic TLS has the image then; static TLS may be a former thread's. */
	if (data == NULL && tls_get_addr && static_tls(i))
		data = tls_get_addr((size_t[2]){i->dlpi_tls_modid, 0});
	if (data)
		to_image(data, (const char *)i->dlpi_addr + ph->p_vaddr, ph->p_filesz, ph->p_memsz);
	return 0;
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
	for (int i = 0; i < nmods; i++)
		to_image((char *)g->tcb + mods[i].off, mods[i].image, mods[i].filesz, mods[i].memsz);
	if (pg_unlikely(atomic_load(&late) & 1 || atomic_load(&loading) || too_many)) {
		int held = pg_ldso_begin(g);
		dl_iterate_phdr(reset_late, &(struct walk){0});
		pg_ldso_end(g, held);
	}
}

void pg_tls_thread_end(struct pg_g *g)
{
	(void)g;
}
