/* SPDX-License-Identifier: MIT */
/* What PGREEN_STATS, PGREEN_DEADLOCK and PGREEN_MAXM print, from what is kept anyway.  On stderr, one line each. */
#include <sys/syscall.h>

#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/stats.h"
#include "core/thread.h"

static const char *const reasons[] = {
#define X(n) #n,
	PG_REASONS(X)
#undef X
};
enum { NREASONS = sizeof reasons / sizeof *reasons };

void pg_stats_exit(void)
{
	unsigned long switches = 0, handoffs = 0;
	int ms = 0;

	if (!pg_knobs.stats)
		return;
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink) {
		switches += atomic_load(&m->switches);
		ms++;
	}
	for (int i = 0; pg_allp && i < pg_nprocs; i++)
		handoffs += pg_allp[i].handoffs;
	pg_say("stats: threads=%lu switches=%lu osthreads=%d procs=%d retaken=%lu", pg_threads_made(), switches, ms, pg_nprocs,
	       handoffs);
}

static size_t append(char *text, size_t len, size_t size, const char *s)
{
	while (*s && len < size - 1)
		text[len++] = *s++;
	text[len] = '\0';
	return len;
}

struct census { int n[NREASONS], parked, others; };

static void count(struct pg_g *g, void *arg)
{
	struct census *c = arg;
	uint32_t st = atomic_load(&g->state), why = atomic_load(&g->reason);

	if (st == PG_G_dead || st == PG_G_idle || st == PG_G_ghost)
		return;
	if (g->mode != PG_GREEN || st != PG_G_waiting || why >= NREASONS) {
		c->others++;
		return;
	}
	c->parked++;
	c->n[why]++;
}

void pg_deadlock_check(void)
{
	static bool said;
	struct census c = {0};
	char text[256] = "";
	size_t len = 0;

	if (!pg_knobs.deadlock || said || atomic_load(&pg_sched.npidle) + atomic_load(&pg_sched.npheld) != pg_nprocs || atomic_load(&pg_sched.runqsize) > 0 ||
	    pg_timers_next() != PG_FOREVER || atomic_load(&pg_sched.pollwaiters) > 0)
		return;
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
		if (m->tid && m->cur != &m->g0)
			return; /* in a system call, or wired */
	count(&pg_main_g, &c);
	pg_foreach_g(count, &c);
	if (c.others || c.parked == 0)
		return;
	said = true;
	for (int i = 0; i < NREASONS; i++) {
		if (c.n[i] == 0)
			continue;
		len = append(text, len, sizeof text, reasons[i]);
		len = append(text, len, sizeof text, " ");
	}
	pg_say("deadlock: all %d threads are asleep for good, waiting for: %s", c.parked, text);
}

/* ---- PGREEN_MAXM reached: which calls hold the OS threads ---- */

static const struct { int nr; const char *name; } calls[] = {
#define X(n) {SYS_##n, #n},
	X(read) X(write) X(readv) X(writev) X(pread64) X(pwrite64) X(openat) X(open) X(close) X(fsync) X(fdatasync) X(poll) X(ppoll)
	X(select) X(pselect6) X(epoll_wait) X(epoll_pwait) X(epoll_pwait2) X(accept) X(accept4) X(connect) X(recvfrom) X(recvmsg)
	X(sendto) X(sendmsg) X(sendfile) X(splice) X(flock) X(fcntl) X(ioctl) X(wait4) X(waitid) X(futex) X(nanosleep)
	X(clock_nanosleep) X(rt_sigtimedwait) X(rt_sigsuspend) X(semtimedop) X(semop) X(msgrcv) X(msgsnd) X(mq_timedreceive)
	X(mq_timedsend) X(io_uring_enter) X(io_getevents) X(getdents64) X(fallocate) X(msync) X(unlinkat)
#undef X
};
enum { NCALLS = sizeof calls / sizeof *calls };

/* The system call that OS thread tid is in, or -1: it runs, or the kernel does not say. */
static int call_of(int tid)
{
	char buf[64];
	long r = pg_task_read(tid, "/syscall", buf, sizeof buf);
	int nr = 0, i = 0;

	for (; i < r && buf[i] >= '0' && buf[i] <= '9'; i++)
		nr = nr * 10 + buf[i] - '0';
	return i ? nr : -1;
}

void pg_capped_say(void)
{
	static bool said;
	int held[NCALLS + 1] = {0}, all = 0, running = 0;
	char text[256] = "";
	size_t len = 0;

	if (said || !pg_sched.capped)
		return;
	said = true;
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink) {
		int tid = m->tid, nr, i = 0;
		if (tid == 0 || *(struct pg_g *volatile *)&m->cur == &m->g0)
			continue;
		all++;
		if ((nr = call_of(tid)) < 0) {
			running++;
			continue;
		}
		while (i < NCALLS && calls[i].nr != nr)
			i++;
		held[i]++;
	}
	for (int i = 0; i <= NCALLS; i++) {
		char number[12];
		int n = held[i], k = sizeof number;
		if (n == 0)
			continue;
		for (number[--k] = '\0'; n; n /= 10)
			number[--k] = (char)('0' + n % 10);
		len = append(text, len, sizeof text, " ");
		len = append(text, len, sizeof text, i < NCALLS ? calls[i].name : "others");
		len = append(text, len, sizeof text, "=");
		len = append(text, len, sizeof text, number + k);
	}
	pg_say("no more than %ld OS threads (PGREEN_MAXM), so work waits until one is free; %d of %d run, the others are in:%s",
	       (long)pg_knobs.maxm, running, all, text);
}
