/* SPDX-License-Identifier: MIT */
/* The poll descriptor, shared by netpoll.c (who waits) and netpoll_epoll.c (what the kernel says). */
#ifndef PG_PD_H
#define PG_PD_H

#include "core/g.h"
#include "core/proc.h"

struct pg_waiter;
struct pg_pollnode;

struct pg_side {
	_Atomic uintptr_t word;    /* NIL, READY, WAIT, G: see netpoll.c */
	_Atomic int nqueued;
	_Atomic uint32_t epoch;    /* audit count when the wait began */
	_Atomic(struct pg_g *) user; /* the first G that waited */
	_Atomic bool shared;       /* others have, too; sticky until the descriptor is closed */
	struct pg_waiter *queue, *queuetail; /* under the lock */
};

struct pg_pd {
	struct pg_lock lock;       /* queues, polls, registration */
	int fd;                    /* constant */
	_Atomic uint32_t gen;      /* counts closes; under the lock */
	_Atomic uint8_t registered;/* written under the lock */
	_Atomic uint8_t kind;      /* enum pg_fdkind */
	_Atomic uint8_t drained;   /* the last read took all there was */
	_Atomic uint8_t hup;       /* hang-up, error or urgent data seen: always try */
	bool nonblock;             /* valid while flags_gen is the current one */
	_Atomic uint32_t flags_gen;
	int64_t timeout[2];
	struct pg_side side[2];
	struct pg_pollnode *polls; /* under the lock */
	_Atomic int npoll;
};

enum { PG_PD_CHUNK = 1024, PG_PD_NCHUNKS = 4096 };
extern _Atomic int pg_pd_max; /* highest number that has a pd */

/* The pd of fd if it has one; the same, made if need be (NULL: a bad number, or no memory). */
struct pg_pd *pg_pd_peek(int fd);
struct pg_pd *pg_pd_get(int fd);
void pg_pd_edge(struct pg_pd *pd, int mode, struct pg_glist *l);
void pg_pd_pollers(struct pg_pd *pd, struct pg_glist *l);
/* Edge-triggered registration for both directions: 0 or -errno (EPERM: not pollable, EBADF). pd locked. */
int pg_netpoll_add(struct pg_pd *pd);
void pg_netpoll_del(struct pg_pd *pd);
void pg_netpoll_forked(void);

#endif
