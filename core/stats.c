/* SPDX-License-Identifier: MIT */
/* What PGREEN_STATS, PGREEN_DEADLOCK and PGREEN_MAXM print, from what is kept anyway.  On stderr, one line each. */
#include <fcntl.h>
#include <sys/syscall.h>

#include "arch.h"
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

/* One place where OS threads are held: a system call, and where its instruction stands. */
struct place {
	int nr, n;
	unsigned long pc;
	char module[32]; /* what holds the instruction: the end of its file's name */
	char thread[PG_NAME_MAX]; /* one that is there */
};
enum { NPLACES = 8 };

/* The system call that OS thread tid is in, or -1: it runs, or the kernel does not say.  The line: number, six arguments, sp, pc. */
static int call_of(int tid, unsigned long *pc)
{
	char buf[256];
	long r = pg_task_read(tid, "/syscall", buf, sizeof buf), i = 0;
	int nr = 0;

	for (; i < r && buf[i] >= '0' && buf[i] <= '9'; i++)
		nr = nr * 10 + buf[i] - '0';
	if (i == 0)
		return -1;
	*pc = 0;
	for (r--; r > i && buf[r] <= ' '; r--)
		;
	for (unsigned shift = 0; r > i && buf[r] != 'x' && shift < 64; r--, shift += 4)
		*pc |= (unsigned long)(buf[r] <= '9' ? buf[r] - '0' : buf[r] - 'a' + 10) << shift;
	return nr;
}

static unsigned long hex(const char **s)
{
	unsigned long v = 0;

	for (;; (*s)++)
		if (**s >= '0' && **s <= '9')
			v = v << 4 | (unsigned long)(**s - '0');
		else if (**s >= 'a' && **s <= 'f')
			v = v << 4 | (unsigned long)(**s - 'a' + 10);
		else
			return v;
}

/* The file that is mapped at pc, without its folders.  From the kernel: the loader's list has a lock. */
static void module_of(unsigned long pc, char *out, size_t size)
{
	int fd = (int)pg_sys(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
	char buf[512], line[512];
	size_t len = 0;
	long r;

	append(out, 0, size, "?");
	while (fd >= 0 && (r = pg_sys(SYS_read, fd, buf, sizeof buf)) > 0) {
		for (long i = 0; i < r; i++) {
			const char *s = line, *base;
			unsigned long lo, hi;

			if (buf[i] != '\n') {
				if (len < sizeof line - 1)
					line[len++] = buf[i];
				continue;
			}
			line[len] = '\0';
			len = 0;
			lo = hex(&s);
			hi = *s == '-' ? (s++, hex(&s)) : 0;
			if (pc < lo || pc >= hi)
				continue;
			for (base = s; *s; s++)
				if (*s == '/' || *s == ' ')
					base = s + 1;
			if (*base)
				append(out, 0, size, base);
			pg_sys(SYS_close, fd);
			return;
		}
	}
	if (fd >= 0)
		pg_sys(SYS_close, fd);
}

static const char *call_name(int nr)
{
	for (int i = 0; i < NCALLS; i++)
		if (calls[i].nr == nr)
			return calls[i].name;
	return "another call";
}

static size_t append_number(char *text, size_t len, size_t size, int n)
{
	char number[12];
	int k = sizeof number;

	number[--k] = '\0';
	do
		number[--k] = (char)('0' + n % 10);
	while ((n /= 10) != 0);
	return append(text, len, size, number + k);
}

void pg_capped_say(void)
{
	static bool said;
	static struct place places[NPLACES];
	int all = 0, running = 0, elsewhere = 0, n = 0, i;
	char text[384] = "";
	size_t len = 0;

	if (said || !pg_sched.capped)
		return;
	said = true;
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink) {
		struct pg_g *g = *(struct pg_g *volatile *)&m->cur;
		int tid = m->tid, nr;
		unsigned long pc;

		if (tid == 0 || g == &m->g0)
			continue;
		all++;
		if ((nr = call_of(tid, &pc)) < 0) {
			running++;
			continue;
		}
		for (i = 0; i < n && (places[i].nr != nr || places[i].pc != pc); i++)
			;
		if (i == NPLACES) {
			elsewhere++;
			continue;
		}
		if (i == n) {
			n++;
			places[i].nr = nr;
			places[i].pc = pc;
			module_of(pc, places[i].module, sizeof places[i].module);
			append(places[i].thread, 0, sizeof places[i].thread, g->name);
		}
		places[i].n++;
	}
	for (i = 0; i < n; i++) {
		len = append(text, len, sizeof text, i ? ", " : " ");
		len = append(text, len, sizeof text, call_name(places[i].nr));
		len = append(text, len, sizeof text, " in ");
		len = append(text, len, sizeof text, places[i].module);
		if (places[i].thread[0]) {
			len = append(text, len, sizeof text, " (thread ");
			len = append(text, len, sizeof text, places[i].thread);
			len = append(text, len, sizeof text, ")");
		}
		len = append(text, len, sizeof text, ": ");
		len = append_number(text, len, sizeof text, places[i].n);
	}
	if (elsewhere) {
		len = append(text, len, sizeof text, ", others: ");
		len = append_number(text, len, sizeof text, elsewhere);
	}
	pg_say("no more than %ld OS threads (PGREEN_MAXM), so work waits until one is free; %d of %d run, the others are in:%s",
	       (long)pg_knobs.maxm, running, all, text);
}
