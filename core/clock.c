/* SPDX-License-Identifier: MIT */
/*
 * Reading clocks as core does: by the function that the kernel maps into every process (the vDSO), which nobody
 * interposes, clock_gettime being a row of the shim's.  Where there is none (under Valgrind) by system call.
 *
 * Needs from below: getauxval.  The function is looked up at the first use, in the constructor at the latest; two threads that
 * look at once store the same pointer.
 */
#include <elf.h>
#include <link.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/sched.h"

typedef int gettime(clockid_t, struct timespec *);

static _Atomic(gettime *) vdso;

static int by_call(clockid_t clock, struct timespec *ts)
{
	return (int)pg_sys(SYS_clock_gettime, clock, ts);
}

/* The vDSO is a shared object, all of which lies in memory as in its file. */
static gettime *look_up(void)
{
	const char *base = (const char *)getauxval(AT_SYSINFO_EHDR), *names = NULL;
	const ElfW(Ehdr) *eh = (const ElfW(Ehdr) *)base;
	const ElfW(Phdr) *ph;
	const ElfW(Sym) *syms = NULL;
	const uint32_t *hash = NULL;
	const ElfW(Dyn) *dyn = NULL;
	uintptr_t bias = 0;
	bool loaded = false;

	if (base == NULL)
		return by_call;
	ph = (const ElfW(Phdr) *)(base + eh->e_phoff);
	for (int i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_type == PT_LOAD && !loaded) {
			loaded = true;
			bias = (uintptr_t)base + ph[i].p_offset - ph[i].p_vaddr;
		} else if (ph[i].p_type == PT_DYNAMIC) {
			dyn = (const ElfW(Dyn) *)(base + ph[i].p_offset);
		}
	}
	for (; dyn && dyn->d_tag != DT_NULL; dyn++) {
		const void *at = (const void *)(bias + dyn->d_un.d_ptr);
		if (dyn->d_tag == DT_STRTAB)
			names = at;
		else if (dyn->d_tag == DT_SYMTAB)
			syms = at;
		else if (dyn->d_tag == DT_HASH)
			hash = at;
	}
	if (names == NULL || syms == NULL || hash == NULL)
		return by_call;
	for (uint32_t i = 0; i < hash[1]; i++) /* the number of symbols */
		if (syms[i].st_shndx != SHN_UNDEF && strcmp(names + syms[i].st_name, "__vdso_clock_gettime") == 0)
			return (gettime *)(bias + syms[i].st_value);
	return by_call;
}

static int64_t read_clock(clockid_t clock)
{
	gettime *fn = atomic_load_explicit(&vdso, memory_order_relaxed);
	struct timespec ts;

	if (pg_unlikely(fn == NULL)) {
		fn = look_up();
		atomic_store_explicit(&vdso, fn, memory_order_relaxed);
	}
	if (pg_unlikely(fn(clock, &ts) != 0))
		return -1;
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t pg_now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}
