/* SPDX-License-Identifier: MIT */
/*
 * What core may know about the processor: raw system calls, the thread pointer, the context switch, the words of
 * a signal frame.  Every architecture has one file of this name with these functions; they replace each other,
 * they do not branch.
 */
#ifndef PG_ARCH_H
#define PG_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

/* Raw system calls: no errno, no cancellation; an error is returned as -errno. */
static inline long pg_sys0(long n)
{
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n) : "rcx", "r11", "memory");
	return r;
}

static inline long pg_sys6(long n, long a, long b, long c, long d, long e, long f)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}

static inline long pg_sys3(long n, long a, long b, long c)
{
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return r;
}

static inline long pg_sys4(long n, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return r;
}

#define PG_SYS_ARGS(n, a, b, c, d, e, f, ...) (n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)
/* pg_sys(number, up to six arguments) */
#define pg_sys(...) pg_sys6(PG_SYS_ARGS(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0))

static inline void pg_cpu_relax(void)
{
	__asm__ volatile("pause" ::: "memory");
}

/* The thread pointer: glibc keeps the address of the TCB in its first word. */
static inline void *pg_arch_tp(void)
{
	void *tp;
	__asm__ volatile("mov %%fs:0, %0" : "=r"(tp));
	return tp;
}

/* Offsets into glibc's tcbhead_t; part of the x86-64 TLS and stack-protector ABI. */
enum {
	PG_TCB_TCB = 0x00,
	PG_TCB_DTV = 0x08,
	PG_TCB_SELF = 0x10,
	PG_TCB_MULTIPLE_THREADS = 0x18,
	PG_TCB_STACK_GUARD = 0x28,
	PG_TCB_POINTER_GUARD = 0x30,
};

/* glibc mangles the registers of a jmp_buf with the pointer guard of the TCB. */
static inline uintptr_t pg_arch_demangle(uintptr_t v)
{
	uintptr_t guard;
	__asm__("ror $17, %0" : "+r"(v));
	__asm__("mov %%fs:0x30, %0" : "=r"(guard));
	return v ^ guard;
}

static inline uintptr_t pg_arch_mangle(uintptr_t v)
{
	uintptr_t guard;
	__asm__("mov %%fs:0x30, %0" : "=r"(guard));
	v ^= guard;
	__asm__("rol $17, %0" : "+r"(v));
	return v;
}

enum { PG_JMPBUF_SP = 6, PG_JMPBUF_PC = 7 }; /* places in __jmp_buf */

/* Where the jump to a redirected jmp_buf lands: aligns the stack and calls pg_bottom(), which does not return. */
void pg_arch_bottom(void);
void pg_bottom(void);

/* Finds out how the thread pointer is written; once, before the first switch. */
void pg_arch_init(void);
void pg_arch_set_tp(void *tp);

/*
 * Saves the callee-saved registers, mxcsr and the x87 control word on the current stack and the stack pointer in
 * *save; loads tp into the thread pointer and goes on where `load` was saved.  Returns when somebody switches back.
 * Needs: signals of ours held off (rt > 0).  Blocks: the caller, until switched to.
 */
void pg_arch_switch(void **save, void *load, void *tp);

/* Lays a frame on an empty stack so that switching to the returned pointer calls fn(arg) and never returns. */
void *pg_arch_frame(void *stack_top, void (*fn)(void *), void *arg);

/* A kernel thread that shares everything, running fn(arg) on the stack with its thread pointer set; its tid or -errno.
 * *tidptr receives the tid before it starts. */
long pg_arch_clone(void (*fn)(void *), void *stack_top, unsigned long flags, void *arg, int *tidptr, void *tp);

/* Runs fn(arg) with a frame on the stack which, if an exception or a forced unwind passes, calls pg_unwind_hook(). */
void pg_arch_guarded(void (*fn)(void *), void *arg);
void pg_unwind_hook(void);

/* Calls fn(arg) on another stack and returns. */
void pg_arch_call_on(void *stack_top, void (*fn)(void *), void *arg);

/* Signal frames. */
void pg_arch_restorer(void); /* the sa_restorer of our handlers */
#define PG_SA_RESTORER 0x04000000
static inline uintptr_t pg_uc_pc(const ucontext_t *uc) { return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP]; }
static inline uintptr_t pg_uc_sp(const ucontext_t *uc) { return (uintptr_t)uc->uc_mcontext.gregs[REG_RSP]; }

/* Is the interrupted code at its syscall instruction, about to (re)start it? */
static inline bool pg_uc_at_syscall(const ucontext_t *uc)
{
	const unsigned char *pc = (const unsigned char *)pg_uc_pc(uc);
	return pc[0] == 0x0f && pc[1] == 0x05;
}

/* Makes the interrupted system call return -err instead of being restarted. */
static inline void pg_uc_fail_syscall(ucontext_t *uc, int err)
{
	uc->uc_mcontext.gregs[REG_RIP] += 2;
	uc->uc_mcontext.gregs[REG_RAX] = -(long)err;
}

#endif
