/* SPDX-License-Identifier: MIT */
/* The few things of x86-64 that C can say: how to write the thread pointer, the first frame of a stack, the personality. */
#include "arch.h"

#include <sys/auxv.h>
#include <sys/syscall.h>

#ifndef ARCH_SET_FS
#define ARCH_SET_FS 0x1002
#endif
#define HWCAP2_FSGSBASE 2

extern void pg_arch_switch_fs(void **, void *, void *);
extern void pg_arch_switch_prctl(void **, void *, void *);
extern void pg_arch_entry(void);

static void (*switch_fn)(void **, void *, void *) = pg_arch_switch_prctl;
static bool have_fsgsbase;

void pg_arch_init(void)
{
	have_fsgsbase = (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;
	switch_fn = have_fsgsbase ? pg_arch_switch_fs : pg_arch_switch_prctl;
}

void pg_arch_set_tp(void *tp)
{
	if (have_fsgsbase)
		__asm__ volatile("wrfsbase %0" ::"r"(tp) : "memory");
	else
		pg_sys(SYS_arch_prctl, ARCH_SET_FS, tp);
}

void pg_arch_switch(void **save, void *load, void *tp)
{
	switch_fn(save, load, tp);
}

void *pg_arch_frame(void *stack_top, void (*fn)(void *), void *arg)
{
	uint64_t *sp = (uint64_t *)((uintptr_t)stack_top & ~(uintptr_t)15);
	uint32_t mxcsr;
	uint16_t fcw;

	__asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(fcw));
	*--sp = 0;
	*--sp = 0;                        /* the entry is jumped to: rsp is 16-aligned there, as before a call */
	*--sp = (uintptr_t)pg_arch_entry; /* return address of the switch */
	*--sp = 0;                        /* rbp: the frame chain ends */
	*--sp = (uintptr_t)fn;            /* rbx */
	*--sp = (uintptr_t)arg;           /* r12 */
	*--sp = 0;
	*--sp = 0;
	*--sp = 0;
	*--sp = mxcsr | (uint64_t)fcw << 32;
	return sp;
}

/*
 * The personality of pg_arch_guarded.  It catches nothing; on the clean-up pass it runs the hook and lets the
 * exception go on.  The numbers are the Itanium C++ ABI's: version, actions (2 = _UA_CLEANUP_PHASE), 8 =
 * _URC_CONTINUE_UNWIND.
 */
int pg_personality(int version, int actions, uint64_t class, void *exception, void *context);
__attribute__((visibility("hidden")))
int pg_personality(int version, int actions, uint64_t class, void *exception, void *context)
{
	(void)version;
	(void)class;
	(void)exception;
	(void)context;
	if (actions & 2)
		pg_unwind_hook();
	return 8;
}
