/* SPDX-License-Identifier: MIT */
/*
 * What makes a G a thread in the eyes of glibc: a struct pthread with static TLS below it, found through the thread pointer.
 *
 * Sizes come from ld.so (_dl_get_tls_static_info), offsets within struct pthread from the descriptors libc exports for
 * libthread_db, from the kernel (the robust list head it was told) and from __resp of a real thread.  What is not known is
 * left zero, which is what a fresh NPTL thread has there.
 *
 * A TCB is made once and serves many threads in turn.  libc's own TLS (malloc's cache, the locale) stays with it; every
 * other module's block goes back to its initial image at the start of each thread.
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
#include "core/thread.h"

__thread struct pg_g *pg_self_;

/* What ld.so and libc export for their own use. */
static void *(*dl_allocate_tls)(void *);
static void (*ctype_init)(void);
static struct { size_t size, align, pthread_size, list_off, tid_off; long robust_off, rseq_off, resp_off, res_off, cancel_off; } lay;
static ptrdiff_t self_off;

/* Modules whose TLS must be reset when a TCB serves another thread. */
enum { MAXMODS = 256 };
static struct mod { ptrdiff_t off; const void *image; size_t filesz, memsz; } mods[MAXMODS];
static int nmods;
static bool dynamic_mods;
static const char *libc_base, *own_base, *ld_base;

static struct pg_lock allg_lock;
static _Atomic(struct pg_g *) allg; /* push-only */

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

struct scan { const char *tp; };

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

static int scan_module(struct dl_phdr_info *i, size_t size, void *arg)
{
	struct scan *s = arg;
	const char *base = (const char *)i->dlpi_addr;

	(void)size;
	for (int k = 0; k < i->dlpi_phnum; k++) {
		const ElfW(Phdr) *ph = &i->dlpi_phdr[k];
		const char *data = i->dlpi_tls_data;
		if (ph->p_type != PT_TLS)
			continue;
		if (base == libc_base || base == own_base || base == ld_base)
			continue;
		/* Not told until this thread has touched it: a module loaded later, with static TLS. */
		if (data == NULL && tls_get_addr && static_tls(i))
			data = tls_get_addr((size_t[2]){i->dlpi_tls_modid, 0});
		if (data == NULL || data >= s->tp || data < s->tp - lay.size) {
			dynamic_mods = true; /* allocated when first used; reset by walking */
			continue;
		}
		if (nmods < MAXMODS)
			mods[nmods++] = (struct mod){data - s->tp, base + ph->p_vaddr, ph->p_filesz, ph->p_memsz};
		else
			dynamic_mods = true;
	}
	return 0;
}

/* Called on a thread whose static TLS is complete: the main one. */
static void scan_modules(void)
{
	struct scan s = {pg_arch_tp()};

	nmods = 0;
	dynamic_mods = false;
	dl_iterate_phdr(scan_module, &s);
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

static bool initialised;

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
	size_t cancel;
	lay.cancel_off = desc("_thread_db_pthread_cancelhandling", &cancel) ? (long)cancel : -1;
	lay.resp_off = 0;
	void *resp = dlsym(RTLD_DEFAULT, "__resp");
	if (resp)
		lay.resp_off = (char *)resp - tp;
	self_off = (char *)&pg_self_ - tp;
	libc_base = base_of(dlsym(RTLD_DEFAULT, "gnu_get_libc_version"));
	own_base = base_of((void *)&pg_tls_init);
	ld_base = base_of((void *)dl_allocate_tls);
	scan_modules();
	dl_iterate_phdr(find_text, NULL);

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

static void init_tcb(char *tcb)
{
	char *from = pg_arch_tp();
	void **list = (void **)(tcb + lay.list_off);

	*(void **)(tcb + PG_TCB_TCB) = tcb;
	*(void **)(tcb + PG_TCB_SELF) = tcb;
	*(int *)(tcb + PG_TCB_MULTIPLE_THREADS) = 1;
	memcpy(tcb + PG_TCB_STACK_GUARD, from + PG_TCB_STACK_GUARD, sizeof(uintptr_t));
	memcpy(tcb + PG_TCB_POINTER_GUARD, from + PG_TCB_POINTER_GUARD, sizeof(uintptr_t));
	list[0] = list[1] = list; /* fork in the child takes itself off a list */
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
	init_tcb(tcb);
	return tcb;
}

/* A full TCB with DTV for g at tcb, whose memory is zero.  Calls calloc.  False: out of memory. */
bool pg_tls_full(void *tcb, struct pg_g *g);
bool pg_tls_full(void *tcb, struct pg_g *g)
{
	if (dl_allocate_tls(tcb) == NULL)
		return false;
	init_tcb(tcb);
	pg_tls_setself(tcb, g);
	if (lay.resp_off && lay.res_off)
		*(char **)((char *)tcb + lay.resp_off) = (char *)tcb + lay.res_off;
	*(uint32_t *)((char *)tcb + lay.tid_off) = g->tid;
	return true;
}

void pg_tls_settid(struct pg_g *g);
void pg_tls_settid(struct pg_g *g)
{
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

static int reset_dynamic(struct dl_phdr_info *i, size_t size, void *arg)
{
	const char *base = (const char *)i->dlpi_addr;

	(void)size;
	(void)arg;
	if (i->dlpi_tls_data == NULL || base == libc_base || base == own_base || base == ld_base)
		return 0;
	for (int k = 0; k < i->dlpi_phnum; k++) {
		const ElfW(Phdr) *ph = &i->dlpi_phdr[k];
		if (ph->p_type != PT_TLS)
			continue;
		memcpy(i->dlpi_tls_data, base + ph->p_vaddr, ph->p_filesz);
		memset((char *)i->dlpi_tls_data + ph->p_filesz, 0, ph->p_memsz - ph->p_filesz);
	}
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
	for (int i = 0; i < nmods; i++) {
		char *p = (char *)g->tcb + mods[i].off;
		memcpy(p, mods[i].image, mods[i].filesz);
		memset(p + mods[i].filesz, 0, mods[i].memsz - mods[i].filesz);
	}
	if (dynamic_mods)
		dl_iterate_phdr(reset_dynamic, NULL);
}

void pg_tls_thread_end(struct pg_g *g)
{
	(void)g;
}

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

static void copy_images(struct pg_g *g, void *arg)
{
	int from = *(int *)arg;

	if (g->tcb == NULL || g == pg_self_ || g->slab == NULL)
		return;
	for (int i = from; i < nmods; i++) {
		char *p = (char *)g->tcb + mods[i].off;
		memcpy(p, mods[i].image, mods[i].filesz);
		memset(p + mods[i].filesz, 0, mods[i].memsz - mods[i].filesz);
	}
}

void pg_tls_dlopened(void)
{
	static struct mod old[MAXMODS]; /* under scan_lock */
	static struct pg_lock scan_lock;
	struct pg_g *g = pg_self();
	int nold, fresh;

	if (!initialised)
		return;
	pg_rt_enter(g);
	pg_lock(&scan_lock);
	nold = nmods;
	memcpy(old, mods, sizeof old);
	scan_modules();
	/* New ones to the end, so that known ones are not touched in living threads. */
	fresh = nmods;
	for (int i = 0; i < fresh;) {
		bool known = false;
		for (int k = 0; k < nold; k++)
			known |= old[k].off == mods[i].off && old[k].image == mods[i].image;
		if (known) {
			i++;
		} else {
			struct mod m = mods[i];
			mods[i] = mods[--fresh];
			mods[fresh] = m;
		}
	}
	if (fresh < nmods)
		pg_foreach_g(copy_images, &fresh);
	pg_unlock(&scan_lock);
	pg_rt_exit(g);
}
