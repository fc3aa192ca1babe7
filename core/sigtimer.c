/* SPDX-License-Identifier: MIT */
/*
 * Timers that signal one thread (SIGEV_THREAD_ID), for Gs.
 *
 * The kernel signals OS threads.  So the kernel's timer sends signal 32, with the key of a record, to sysmon, which queues the
 * program's signal on the G.  As natively one signal of a timer at most is pending; what expires meanwhile is its overrun.
 *
 *   gen  even: free; odd: in use.  Written under the lock.  A key is gen and index: late signals of a deleted timer find no record.
 *   n    expirations not taken yet.  0 -> more by pg_sigtimer_fired, which then queues a node; -> 0 by whoever takes or drops that node.
 *
 * Records lie in chunks that are never freed.  The child of a fork inherits no timers.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/proc.h"
#include "core/sigstate.h"
#include "core/thread.h"

enum { PER_CHUNK = 64, NCHUNK = 4096 };

struct record {
	_Atomic uint32_t gen;
	_Atomic uint32_t n;
	struct pg_g *g;   /* the target, as long as its tid is this */
	uint32_t tid;
	int sig;
	int id;           /* the kernel's name of the timer */
	union sigval value;
	_Atomic int last; /* overruns of the signal taken last */
};

static _Atomic(struct record *) chunks[NCHUNK];
static uint32_t nrecords;   /* ever used; lock */
static struct pg_lock lock; /* gen, id, nrecords */

static struct record *at(uint32_t i)
{
	return &atomic_load(&chunks[i / PER_CHUNK])[i % PER_CHUNK];
}

static struct record *find(uint64_t key)
{
	struct record *r = at((uint32_t)key);

	return atomic_load(&r->gen) == key >> 32 ? r : NULL;
}

/* A free record, now in use.  NULL: no memory. */
static struct record *get(uint64_t *key)
{
	struct record *r = NULL;
	uint32_t i;

	pg_lock(&lock);
	for (i = 0; i < nrecords; i++)
		if (!(atomic_load(&at(i)->gen) & 1))
			break;
	if (i == nrecords && i < PER_CHUNK * NCHUNK) {
		if (i % PER_CHUNK == 0)
			atomic_store(&chunks[i / PER_CHUNK], pg_mmap_alloc(PER_CHUNK * sizeof *r));
		if (atomic_load(&chunks[i / PER_CHUNK]))
			nrecords++;
	}
	if (i < nrecords) {
		r = at(i);
		r->id = -1;
		atomic_store(&r->n, 0);
		atomic_store(&r->last, 0);
		*key = (uint64_t)(atomic_fetch_add(&r->gen, 1) + 1) << 32 | i;
	}
	pg_unlock(&lock);
	return r;
}

static void put(struct record *r)
{
	pg_lock(&lock);
	atomic_fetch_add(&r->gen, 1);
	pg_unlock(&lock);
}

/* -ENOENT: no timer of ours. */
static int by_id(int id, struct record **out)
{
	int r = -ENOENT;

	pg_lock(&lock);
	for (uint32_t i = 0; i < nrecords; i++)
		if (atomic_load(&at(i)->gen) & 1 && at(i)->id == id) {
			*out = at(i);
			r = 0;
			break;
		}
	pg_unlock(&lock);
	return r;
}

int pg_sigtimer_create(int clock, struct pg_g *g, int sig, union sigval value, int *id)
{
	struct pg_g *self = pg_self();
	struct sigevent ev;
	struct record *r;
	uint64_t key;
	long e;

	if (g->mode == PG_NATIVE && !g->oswired)
		return -ENOTSUP; /* an OS thread with a number of its own */
	pg_rt_enter(self);
	r = get(&key);
	if (r == NULL) {
		pg_rt_exit(self);
		return -EAGAIN;
	}
	r->g = g;
	r->tid = g->tid;
	r->sig = sig;
	r->value = value;
	memset(&ev, 0, sizeof ev);
	ev.sigev_notify = SIGEV_THREAD_ID;
	ev.sigev_signo = PG_SIG_KICK;
	ev.sigev_value.sival_ptr = (void *)key;
	ev._sigev_un._tid = pg_sysmon_tid;
	e = pg_sys(SYS_timer_create, clock, &ev, id);
	if (e < 0)
		put(r);
	else
		r->id = *id;
	pg_rt_exit(self);
	return (int)e;
}

void pg_sigtimer_delete(int id)
{
	struct pg_g *self = pg_self();
	struct record *r;

	pg_rt_enter(self);
	if (by_id(id, &r) == 0)
		put(r);
	pg_rt_exit(self);
}

int pg_sigtimer_overrun(int id)
{
	struct pg_g *self = pg_self();
	struct record *r;
	int n;

	pg_rt_enter(self);
	n = by_id(id, &r);
	if (n == 0)
		n = atomic_load(&r->last);
	pg_rt_exit(self);
	return n;
}

void pg_sigtimer_fired(const siginfo_t *info)
{
	struct pg_g *g = pg_sysmon_g;
	uint64_t key = (uint64_t)(uintptr_t)info->si_value.sival_ptr;
	struct record *r = find(key);

	if (r == NULL || atomic_fetch_add(&r->n, 1 + (uint32_t)info->si_overrun) != 0)
		return;
	if (!pg_sig_inbox_timer(g, key))
		atomic_store(&r->n, 0);
	if (atomic_load_explicit(&g->rt, memory_order_relaxed) == 0)
		pg_signal_route(g);
}

void pg_sigtimer_deliver(uint64_t key)
{
	struct record *r = find(key);
	siginfo_t info;

	if (r == NULL || atomic_load(&r->n) == 0)
		return;
	memset(&info, 0, sizeof info);
	info.si_code = SI_TIMER;
	info.si_timerid = r->id;
	info.si_value = r->value;
	/* If its thread has ended nobody gets it, as natively. */
	if (r->g->tid != r->tid || r->g->sigclass < 0 || pg_gkill_timer(r->g, r->sig, &info, key) != 0)
		atomic_store(&r->n, 0);
}

void pg_sigtimer_taken(uint64_t key, siginfo_t *info)
{
	struct record *r = find(key);
	uint32_t n;

	if (r == NULL)
		return;
	n = atomic_exchange(&r->n, 0);
	info->si_overrun = n == 0 ? 0 : n - 1 > INT_MAX ? INT_MAX : (int)(n - 1);
	atomic_store(&r->last, info->si_overrun);
}

void pg_sigtimers_forked(void)
{
	lock = (struct pg_lock){0};
	for (uint32_t i = 0; i < nrecords; i++)
		if (atomic_load(&at(i)->gen) & 1)
			atomic_fetch_add(&at(i)->gen, 1);
}
