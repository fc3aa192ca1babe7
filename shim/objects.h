/* SPDX-License-Identifier: MIT */
/*
 * The synchronisation objects: what a program's memory looks like to the files of the family (mutex.c,
 * cond.c, rwlock.c, sem.c, barrier.c, spin.c, once.c).
 *
 * Every object keeps glibc's size, the meaning of its static initialisers (all-zero but for a kind), and
 * the places where glibc's init functions write attributes; those functions are not interposed.  The
 * other words are ours.  An object whose attributes make it the kernel's or another process's business
 * (shared, robust, PI, PP) is left to libc altogether.
 *
 * An object may be freed as soon as the caller's own use of it is over: no function touches it after the
 * store that lets somebody else take it.  A wake-up uses its address only.
 *
 * After a fork, the threads that the object still counts as waiting are gone.  Objects therefore note
 * the pg_fork_gen of their waiters; what belongs to another generation is forgotten.
 */
#ifndef PG_OBJECTS_H
#define PG_OBJECTS_H

#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <threads.h>

#include "core/lock.h"
#include "core/sema.h"
#include "shim/thread.h"

/* core/fork.c: another number in the child of each fork, before it runs anything of the program. */
extern unsigned pg_fork_gen;

struct pg_mutex {
	_Atomic uint32_t word;    /* mutex.c */
	uint32_t count;           /* recursive: how often; the owner's */
	_Atomic uint32_t owner;   /* its tid; written by the owner, compared with one's own by others */
	uint32_t nusers;          /* not used by us */
	int kind;                 /* PTHREAD_MUTEX_* and the bits below; constant */
	short spins, elision;
	_Atomic uint32_t heirgen; /* pg_fork_gen of the heir */
	uint32_t spare[3];
};
_Static_assert(sizeof(struct pg_mutex) == sizeof(pthread_mutex_t), "size of a mutex");
_Static_assert(sizeof(struct pg_mutex) == sizeof(mtx_t), "size of a C11 mutex");
_Static_assert(offsetof(struct pg_mutex, kind) == offsetof(pthread_mutex_t, __data.__kind), "kind of a mutex");
_Static_assert(offsetof(struct pg_mutex, owner) == offsetof(pthread_mutex_t, __data.__owner), "owner of a mutex");
_Static_assert(offsetof(struct pg_mutex, heirgen) == offsetof(pthread_mutex_t, __data.__list), "spare words of a mutex");

/* glibc's bits in kind. */
enum {
	PG_MUTEX_TYPE = 3,
	PG_MUTEX_ROBUST = 16,
	PG_MUTEX_PI = 32,
	PG_MUTEX_PP = 64,
	PG_MUTEX_SHARED = 128,
	PG_MUTEX_REAL = PG_MUTEX_ROBUST | PG_MUTEX_PI | PG_MUTEX_PP | PG_MUTEX_SHARED,
	PG_MUTEX_ELISION = 256 | 512,
};

struct pg_condwait;

/*
 * A handler that interrupted waits for condition variables does not return to them: they end, those at addresses between from and to.
 * lock: with the mutex, for clean-up handlers.  g is the caller, rt == 0.  Blocks: the G, for the mutex.
 */
void pg_cond_forsake(struct pg_g *g, uintptr_t from, uintptr_t to, bool lock);

struct pg_cond {
	struct pg_lock lock;      /* protects the queue; innermost, held for some instructions under rt */
	_Atomic(struct pg_condwait *) head;
	struct pg_condwait *tail;
	uint32_t gen;             /* pg_fork_gen of the queue */
	uint32_t seq;             /* number of the next waiter */
	uint32_t spare;
	uint32_t flags;           /* glibc's __wrefs: 1 shared, 2 CLOCK_MONOTONIC; constant */
	uint32_t spare2[2];
};
_Static_assert(sizeof(struct pg_cond) == sizeof(pthread_cond_t), "size of a condition variable");
_Static_assert(sizeof(struct pg_cond) == sizeof(cnd_t), "size of a C11 condition variable");
_Static_assert(offsetof(struct pg_cond, flags) == offsetof(pthread_cond_t, __data.__wrefs), "flags of a condition variable");

struct pg_rwlock {
	_Atomic uint64_t state;   /* rwlock.c */
	_Atomic uint32_t gen;     /* pg_fork_gen of the waiters in state */
	uint32_t spare[3];
	_Atomic uint32_t writer;  /* its tid; written by the writer, compared with one's own by others */
	uint32_t shared;          /* constant */
	uint32_t spare2[4];
	uint32_t flags;           /* PTHREAD_RWLOCK_*; constant */
	uint32_t spare3;
};
_Static_assert(sizeof(struct pg_rwlock) == sizeof(pthread_rwlock_t), "size of a read-write lock");
_Static_assert(offsetof(struct pg_rwlock, shared) == offsetof(pthread_rwlock_t, __data.__shared), "shared of a rwlock");
_Static_assert(offsetof(struct pg_rwlock, flags) == offsetof(pthread_rwlock_t, __data.__flags), "flags of a rwlock");
_Static_assert(_Alignof(pthread_rwlock_t) >= 8, "the state of a rwlock is one word");

#define PG_OBJ_SHARED 128u /* in semaphores and barriers: as glibc's init functions write it */

struct pg_sem {
	_Atomic uint64_t data;    /* value in the low half, number of waiters in the high one, as glibc has it */
	uint32_t shared;          /* 0 or PG_OBJ_SHARED; constant */
	uint32_t spare[5];
};
_Static_assert(sizeof(struct pg_sem) == sizeof(sem_t), "size of a semaphore");

struct pg_barrier {
	_Atomic uint64_t state;   /* arrivals of this round in the low half, number of the round in the high one */
	uint32_t count;           /* constant */
	uint32_t shared;          /* 0 or PG_OBJ_SHARED; constant */
	_Atomic uint32_t inside;  /* threads in pthread_barrier_wait; barrier.c */
	uint32_t spare[3];
};
_Static_assert(sizeof(struct pg_barrier) == sizeof(pthread_barrier_t), "size of a barrier");
_Static_assert(_Alignof(pthread_barrier_t) >= 8, "the state of a barrier is one word");

/* The half of a 64-bit state that futex-like waits compare. */
static inline const _Atomic uint32_t *pg_low(const _Atomic uint64_t *state)
{
	return (const _Atomic uint32_t *)state;
}
static inline const _Atomic uint32_t *pg_high(const _Atomic uint64_t *state)
{
	return (const _Atomic uint32_t *)state + 1;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");

enum { PG_STARVED = 1000000 }; /* ns after which a waiter has the object handed over */

/* Turns of a loop with a pause before a waiter goes to sleep; on one processor the holder can't go on meanwhile. */
static inline int pg_spins(void)
{
	return pg_nprocs > 1 ? 30 : 0;
}

/* ---- timed waits: ts NULL is for ever ---- */

static inline bool pg_clock_bad(clockid_t clock)
{
	return clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC;
}

static inline int64_t pg_until(clockid_t clock, const struct timespec *ts)
{
	return ts ? pg_deadline_abs(clock, ts) : PG_FOREVER;
}

/* Has it passed on the clock that the program named?  That may have been set while the runtime counted monotonic time. */
static inline bool pg_until_passed(clockid_t clock, const struct timespec *ts)
{
	struct timespec now;

	if (ts == NULL)
		return false;
	clock_gettime(clock, &now);
	return now.tv_sec != ts->tv_sec ? now.tv_sec > ts->tv_sec : now.tv_nsec >= ts->tv_nsec;
}

/*
 * thread.c: the first thread used such an object before there was a runtime.  It keeps its OS thread then, or another G on
 * that would pass for the owner.
 */
extern bool pg_identified_early;

/* Gives the kernel's identity to a green thread about to use what keeps a kernel thread's number. */
static inline void pg_wire_for_object(struct pg_g *g)
{
	if (pg_unlikely(!atomic_load_explicit(&pg_started, memory_order_relaxed))) {
		pg_identified_early = true;
	} else if (g->mode == PG_GREEN) {
		pg_rt_enter(g);
		pg_wire(g);
		pg_rt_exit(g);
	}
}

/* The calling G.  In a process that does not use pgreen, or could not start it, `real` is the answer instead. */
#define PG_SYNC_SELF(g, real)                                                                                          \
	struct pg_g *g;                                                                                                \
	if (pg_passthrough())                                                                                          \
		return real;                                                                                           \
	g = pg_self()

/* A second name that libc exports for a function. */
#define PG_SECOND_NAME(name, of, param) PG_EXPORT int name(param) __attribute__((alias(#of), copy(of)))

/* mutex.c, for cond.c: as pthread_mutex_lock and _unlock by g. */
int pg_mutex_lock(struct pg_g *g, struct pg_mutex *m);
int pg_mutex_unlock(struct pg_g *g, struct pg_mutex *m);

#endif
