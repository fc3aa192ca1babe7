/* SPDX-License-Identifier: MIT */
/*
 * The poller on epoll(7): one set, edge-triggered, data = descriptor and low bits of its generation.  An eventfd in the
 * set wakes the M that sleeps in it.  Both descriptors are numbered high and closed on exec.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/chaos.h"
#include "core/netpoll.h"
#include "core/pd.h"
#include "core/proc.h"
#include "core/say.h"

enum { NEVENTS = 128 };
#define BREAK UINT64_MAX

static int epfd = -1, evfd = -1;
static _Atomic int breaking; /* a wake-up is on its way */
static bool no_pwait2;

/* Out of the way of programs that count on low numbers. */
static int high(int fd)
{
	struct rlimit rl = {1024, 1024};
	int r;

	if (fd < 0)
		return fd;
	pg_sys(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &rl);
	int lim = rl.rlim_cur > 1024 ? 1024 : (int)rl.rlim_cur;
	for (int from = lim - 16; from > fd; from /= 2) {
		r = (int)pg_sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, from);
		if (r >= 0) {
			pg_sys(SYS_close, fd);
			return r;
		}
	}
	return fd;
}

int pg_netpoll_init(void)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = BREAK};
	long r;

	r = pg_chaos_fail(PG_CHAOS_FD);
	epfd = high((int)(r ? r : pg_sys(SYS_epoll_create1, EPOLL_CLOEXEC)));
	if (epfd < 0)
		return epfd;
	r = pg_chaos_fail(PG_CHAOS_FD);
	evfd = high((int)(r ? r : pg_sys(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK)));
	if (evfd < 0) {
		r = evfd;
		pg_sys(SYS_close, epfd);
		epfd = evfd = -1;
		return (int)r;
	}
	pg_sys(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, evfd, &ev);
	return 0;
}

/* In a fork's child: the set is shared with the parent, so it is only closed. */
void pg_netpoll_drop(void);
void pg_netpoll_drop(void)
{
	if (epfd >= 0)
		pg_sys(SYS_close, epfd);
	if (evfd >= 0)
		pg_sys(SYS_close, evfd);
	epfd = evfd = -1;
	atomic_store(&breaking, 0);
}

bool pg_fd_ours(int fd)
{
	return fd >= 0 && (fd == epfd || fd == evfd);
}

int pg_netpoll_add(struct pg_pd *pd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET,
				 .data.u64 = (uint64_t)atomic_load(&pd->gen) << 32 | (uint32_t)pd->fd};
	long r = pg_chaos_fail(PG_CHAOS_EPOLL);

	if (r == 0)
		r = pg_sys(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, pd->fd, &ev);
	if (r == -EEXIST) /* the number came back by dup2 of the same file */
		r = pg_sys(SYS_epoll_ctl, epfd, EPOLL_CTL_MOD, pd->fd, &ev);
	return r == -ENOMEM || r == -ENOSPC || r == -ELOOP ? -EPERM : (int)r;
}

void pg_netpoll_del(struct pg_pd *pd)
{
	struct epoll_event ev = {0};

	pg_sys(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, pd->fd, &ev);
}

void pg_netpoll_break(void)
{
	uint64_t one = 1;

	if (atomic_exchange(&breaking, 1) == 0)
		pg_sys(SYS_write, evfd, &one, 8);
}

void pg_netpoll(int64_t until, struct pg_glist *l)
{
	struct epoll_event ev[NEVENTS];
	int64_t now = pg_now(), left = 0;
	struct timespec ts = {0, 0};
	long n = -ENOSYS;

	if (until > now)
		left = until - now;
	if (!no_pwait2) {
		ts.tv_sec = left / 1000000000;
		ts.tv_nsec = left % 1000000000;
		n = pg_sys(SYS_epoll_pwait2, epfd, ev, NEVENTS, until == PG_FOREVER ? NULL : &ts, NULL, 8);
		if (n == -ENOSYS)
			no_pwait2 = true;
	}
	if (n == -ENOSYS) {
		int64_t ms = until == PG_FOREVER ? -1 : (left + 999999) / 1000000;
		n = pg_sys(SYS_epoll_pwait, epfd, ev, NEVENTS, (int)(ms > 1 << 30 ? 1 << 30 : ms), NULL, 8);
	}
	atomic_store_explicit(&pg_sched.lastpoll, now, memory_order_relaxed);
	for (long i = 0; i < n; i++) {
		uint32_t e = ev[i].events;
		struct pg_pd *pd;

		if (ev[i].data.u64 == BREAK) {
			atomic_store(&breaking, 0);
			/* Meant for the sleeper, and we are none: pass it on. */
			if (until == 0 && atomic_load(&pg_sched.polling))
				pg_netpoll_break();
			continue;
		}
		pd = pg_pd_peek((int)(uint32_t)ev[i].data.u64);
		if (pd == NULL || atomic_load(&pd->gen) != (uint32_t)(ev[i].data.u64 >> 32))
			continue;
		if (e & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
			atomic_store_explicit(&pd->hup, 1, memory_order_release);
		if (e & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
			pg_pd_edge(pd, PG_READ, l);
		if (e & (EPOLLOUT | EPOLLHUP | EPOLLERR))
			pg_pd_edge(pd, PG_WRITE, l);
		pg_pd_pollers(pd, l);
	}
}
