/* SPDX-License-Identifier: MIT */
/* The memory of a thread: stack, TCB, static TLS, struct g; and the identity that glibc expects to find there. */
#ifndef PG_THREAD_H
#define PG_THREAD_H

#include "core/g.h"

/*
 * A G with stack and TLS, not yet runnable.  stack: usable bytes (0: the default); ustack: a stack of the program's
 * (its lowest address), or NULL.  NULL with errno-style *err when memory is out.  Calls malloc through ld.so: not under rt.
 */
struct pg_g *pg_newg(size_t stack, size_t guard, void *ustack, int *err);
/* Gives the memory of a dead G back.  rt > 0. */
void pg_gfree(struct pg_g *g);
/* What a new G does first and last in its own context. */
void pg_tls_thread_start(struct pg_g *g);
void pg_tls_thread_end(struct pg_g *g);
/* Before the program's constructors: the objects that are loaded now stay. */
void pg_tls_startup(void);
/* Objects may have been loaded or unloaded: are there any with TLS?  Not under rt. */
void pg_tls_look(void);
/* 1: the caller is about to open one, -1: it has. */
void pg_tls_loading(int by);
/* Around a call that holds a lock of ld.so's which the child of a fork would find held: fork waits. */
int pg_ldso_begin(struct pg_g *g);
void pg_ldso_end(struct pg_g *g, int begun);

/* libc's own word about g's cancellation, cancelhandling of its struct pthread; NULL: this libc does not say where. */
_Atomic uint32_t *pg_tls_cancelword(struct pg_g *g);

/* The OS thread that g, the caller, is on stays as long as the process: it is going to make a child, or to have what must not be
 * lost.  Announced or under rt, so that g is not moved before it does.  Blocks: nothing. */
void pg_stay(struct pg_g *g);

static inline unsigned long pg_g2pthread(struct pg_g *g) { return (unsigned long)g->tcb; }
/* The G of a pthread_t, NULL if it is none that we know. */
struct pg_g *pg_pthread2g(unsigned long t);

/* Threads made since the start. */
unsigned long pg_threads_made(void);
size_t pg_default_stack(void);
/* Bytes of TCB, static TLS and struct g that lie on a stack. */
size_t pg_stack_overhead(void);

#endif
