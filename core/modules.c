/* SPDX-License-Identifier: MIT */
/*
 * Modules: whose thread-local variables go back to their initial image when a TCB serves another thread, and where libc's code
 * lies.  libc's own TLS (malloc's cache, the locale) stays with the TCB, ld.so's and ours as well.
 *
 * What the program started with stays as long as the process, at a fixed distance from the TCB: a table.  Other modules
 * come and go, also behind our back (libc opens some itself), and are looked for at the start of each thread,
 * under ld.so's own lock: while that is held none is unmapped.  `late` says whether there are any.
 */
#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "arch.h"
#include "core/proc.h"
#include "core/sigstate.h"
#include "core/thread.h"

enum { MAXMODS = 256, PATIENCE = 100000000 };
static struct mod { ptrdiff_t off; const void *image; size_t filesz, memsz; } mods[MAXMODS];
static int nmods;
static int startup_objects;       /* how many objects the program started with: the first ones on ld.so's list */
static bool too_many;             /* the table has not got all of theirs */
static _Atomic uint64_t late;     /* bit 0: others have TLS; above, a count of changes */
static _Atomic int loading;       /* calls of dlopen under way: their constructors may make threads */
static _Atomic unsigned long long counted[2]; /* ld.so's counts of objects added and removed at the last look */
extern _Atomic int pg_fork_wanted;
static const char *libc_base, *own_base, *ld_base;
static size_t static_size; /* of the static TLS, with struct pthread */
static bool initialised;

static const char *base_of(const void *addr)
{
	Dl_info i;

	return dladdr(addr, &i) ? i.dli_fbase : NULL;
}

/* ld.so's table of modules with TLS, by number. */
static struct { char **list; size_t len, next, array, entry, map, tls_offset; } slots;

/* The calling thread's block of a module with static TLS; NULL: it has not, or not yet.  Under ld.so's lock. */
static char *static_block(size_t modid)
{
	char *l = slots.list ? *slots.list : NULL, *map;
	ptrdiff_t off;

	for (size_t len; l && modid >= (len = *(size_t *)(l + slots.len)); modid -= len)
		l = *(char **)(l + slots.next);
	map = l ? __atomic_load_n((char **)(l + slots.array + modid * slots.entry + slots.map), __ATOMIC_ACQUIRE) : NULL;
	off = map ? *(volatile ptrdiff_t *)(map + slots.tls_offset) : 0;
	return off > 0 && (size_t)off <= static_size ? (char *)pg_arch_tp() - off : NULL;
}

static void find_slots(char *rtld)
{
	const uint32_t *size = dlsym(RTLD_DEFAULT, "_thread_db_sizeof_dtv_slotinfo");
	size_t off;

	if (rtld && size && pg_thread_db("_thread_db_rtld_global__dl_tls_dtv_slotinfo_list", &off) &&
	    pg_thread_db("_thread_db_dtv_slotinfo_list_len", &slots.len) && pg_thread_db("_thread_db_dtv_slotinfo_list_next", &slots.next) &&
	    pg_thread_db("_thread_db_dtv_slotinfo_list_slotinfo", &slots.array) && pg_thread_db("_thread_db_dtv_slotinfo_map", &slots.map) &&
	    pg_thread_db("_thread_db_link_map_l_tls_offset", &slots.tls_offset)) {
		slots.entry = *size;
		slots.list = (char **)(rtld + off);
	}
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

struct walk { int seen; bool late, exec; unsigned long long n[2]; };

/* Does it ask for executable stacks?  One that says nothing does, on this architecture; the vDSO is not asked. */
static bool wants_exec(struct dl_phdr_info *i)
{
	for (int k = 0; k < i->dlpi_phnum; k++)
		if (i->dlpi_phdr[k].p_type == PT_GNU_STACK)
			return i->dlpi_phdr[k].p_flags & PF_X;
	return strncmp(i->dlpi_name, "linux-vdso", 10) != 0;
}

static int scan_startup(struct dl_phdr_info *i, size_t size, void *arg)
{
	const char *tp = pg_arch_tp(), *data = i->dlpi_tls_data;
	const ElfW(Phdr) *ph = tls_of(i);

	(void)size;
	if (((struct walk *)arg)->seen++ >= startup_objects)
		return 1;
	if (ph == NULL)
		return 0;
	if (data == NULL || data >= tp || data < tp - static_size || nmods == MAXMODS)
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
	w->exec |= wants_exec(i);
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
		if (w.exec)
			pg_stacks_exec();
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

void pg_modules_init(char *rtld, const void *in_ldso, size_t size)
{
	static_size = size;
	libc_base = base_of(dlsym(RTLD_DEFAULT, "gnu_get_libc_version"));
	own_base = base_of((void *)&pg_modules_init);
	ld_base = base_of(in_ldso);
	find_slots(rtld);
	pg_tls_startup();
	dl_iterate_phdr(scan_startup, &(struct walk){0});
	dl_iterate_phdr(find_text, NULL);
	initialised = true;
	pg_tls_look();
}

/* Counted like a handler that interrupted libc.  Inside another one it does not wait: the fork waits for that. */
int pg_ldso_begin(struct pg_g *g)
{
	int64_t until = 0;
	int begun;

	/* A handler may have jumped out of fork: not without end. */
	while (pg_unlikely(atomic_load(&pg_fork_wanted) > 0) && g->libc_handlers == 0 && (until == 0 || pg_now() < until)) {
		if (until == 0)
			until = pg_now() + PATIENCE;
		pg_yield();
	}
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
	/* Not told until this thread has touched it.  Dynamic TLS has the image then; static TLS may be a former thread's.  Rejected:
	 * to touch it here, which takes another lock of ld.so's, in the wrong order. */
	if (data == NULL)
		data = static_block(i->dlpi_tls_modid);
	if (data)
		to_image(data, (const char *)i->dlpi_addr + ph->p_vaddr, ph->p_filesz, ph->p_memsz);
	return 0;
}

void pg_modules_reset(struct pg_g *g)
{
	for (int i = 0; i < nmods; i++)
		to_image((char *)g->tcb + mods[i].off, mods[i].image, mods[i].filesz, mods[i].memsz);
	if (pg_unlikely(atomic_load(&late) & 1 || atomic_load(&loading) || too_many)) {
		int held = pg_ldso_begin(g);
		dl_iterate_phdr(reset_late, &(struct walk){0});
		pg_ldso_end(g, held);
	}
}
