/* SPDX-License-Identifier: MIT */
/*
 * The watcher: a real thread of libc's, which never holds a P.
 *
 * Every tick it looks at each P that an M holds.  Where nothing has been switched since the last look and others wait:
 *   - the G has announced a system call, it is still the same one, and the kernel says that its thread sleeps: the P is retaken.
 *     A thread that runs in the kernel, or waits for a CPU behind other processes, keeps its P for a time slice: another M would
 *     only contend for the same CPU.  It is asked again after as long as it has been in the call already;
 *   - its thread has used no CPU time since then and the kernel says that it sleeps (a raw syscall instruction, a futex inside
 *     libc, a page fault): the P is retaken as well.  At its first sight the tick is short, so that the second look comes soon;
 *   - otherwise the G computes: after its time slice it is asked to yield, by signal.
 * It polls when nobody has for long, runs timers that are overdue, and audits descriptors that have been waited for very long.
 * A tick is 20 us while it finds something to do, growing to 10 ms; with all Ps idle for a while it sleeps on
 * its note until an M takes a P again (sysmonwait, set before the last look at the Ps).
 * It also is where process-directed signals go which no running G takes (signal.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arch.h"
#include "core/chaos.h"
#include "core/cputime.h"
#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/signal.h"
#include "core/stats.h"
#include "core/syscall.h"
#include "core/thread.h"

enum { TICK_MIN = 20000, TICK_MAX = 10000000, IDLE_TICKS = 100, POLL_LATE = 10000000, URGENT = 1000000, OWE = 2000000,
       AUDIT = 200000000, ASK = 250000 };

static struct pg_g sysmon_g;
struct pg_g *pg_sysmon_g; /* set while it runs */
static struct pg_note started;
int pg_sysmon_tid;
static bool hogs; /* some G has used up its time slice and not waited since */

extern void pg_tls_learn_res(void);
extern int pg_real_pthread_create(unsigned long *t, const void *attr, void *(*fn)(void *), void *arg);

long pg_task_read(int tid, const char *file, char *buf, size_t n)
{
	char path[48] = "/proc/self/task/", digits[12], *s = path + 16;
	int k = 0, fd;
	long r;

	if (tid <= 0)
		return -ESRCH;
	for (; tid; tid /= 10)
		digits[k++] = (char)('0' + tid % 10);
	while (k)
		*s++ = digits[--k];
	while ((*s++ = *file++) != '\0')
		;
	fd = (int)pg_sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fd;
	r = pg_sys(SYS_read, fd, buf, n);
	pg_sys(SYS_close, fd);
	return r;
}

/* Does the kernel say that this thread sleeps? */
static bool asleep(int tid)
{
	char buf[256];
	long r = pg_task_read(tid, "/stat", buf, sizeof buf - 1);

	if (r <= 0)
		return false;
	/* "tid (name) S ...": the name may hold anything, so from the right. */
	for (long i = r - 1; i > 0; i--)
		if (buf[i] == ')')
			return i + 2 < r && (buf[i + 2] == 'S' || buf[i + 2] == 'D');
	return false;
}

/* Gs wait on the list of the spent ones, and p has taken none for long: the next one is its turn. */
static void owe(struct pg_p *p, struct pg_g *g, int64_t now)
{
	uint32_t runs = atomic_load_explicit(&p->spentruns, memory_order_relaxed);

	if (runs != p->sm_spentruns || atomic_load(&g->spent) || atomic_load(&pg_sched.spentsize) == 0) {
		p->sm_spentruns = runs;
		p->sm_owes = now;
	} else if (now - p->sm_owes > OWE) {
		atomic_store(&p->owe, true);
	}
}

enum saw { NOTHING, SUSPECT, DID };

/* The G of m has announced nothing: has it slept since the last look?  SUSPECT: it may, look again soon. */
static enum saw unannounced(struct pg_m *m, struct pg_p *p, int64_t now)
{
	int64_t cpu, before = m->sm_cpu;

	if (now < m->sm_ask)
		return NOTHING;
	m->sm_ask = now + ASK; /* one that runs is not asked at each short tick */
	m->sm_cpu = cpu = pg_os_clock(m->tid);
	if (cpu == -1)
		return NOTHING;
	if (cpu != before) { /* it has run; does it now? */
		if (pg_os_clock(m->tid) != cpu || !asleep(m->tid))
			return NOTHING;
		m->sm_ask = now;
		return SUSPECT;
	}
	if (!asleep(m->tid) || !pg_retake(m, p))
		return NOTHING;
	pg_handoffp(p);
	return DID;
}

/* others: a G that has not had its time slice waits somewhere. */
static enum saw look(struct pg_p *p, int64_t now, int64_t slice, bool others)
{
	struct pg_m *m = atomic_load(&p->m);
	uint32_t sw, insys;
	struct pg_g *g;
	enum saw saw;
	bool work, fresh;

	if (m == NULL || atomic_load(&p->status) != PG_P_RUNNING)
		return NOTHING;
	sw = atomic_load(&m->switches);
	g = *(struct pg_g *volatile *)&m->cur;
	owe(p, g, now);
	hogs |= atomic_load(&g->spent);
	insys = atomic_load(&g->insys);
	fresh = sw != m->sm_switches || g == &m->g0;
	if (fresh) {
		m->sm_switches = sw;
		m->sm_insys = insys;
		m->sm_since = m->sm_call = m->sm_callask = m->sm_ask = now;
		m->sm_cpu = -1;
	}
	if (g == &m->g0 || (insys & 1 && fresh))
		return NOTHING;
	if (insys & 1 && insys != m->sm_insys) {
		m->sm_insys = insys;
		m->sm_call = m->sm_callask = now;
		return NOTHING;
	}
	work = others || !pg_runqempty(p) || atomic_load(&pg_sched.runqsize) > 0 || atomic_load(&p->timer0) <= now ||
	       (atomic_load(&pg_sched.pollwaiters) > 0 && !atomic_load(&pg_sched.polling));
	if (!work || atomic_load(&g->rt) != 0)
		return NOTHING;
	if (insys & 1) {
		/* Seen twice in the same call. */
		if (now < m->sm_callask)
			return NOTHING;
		if (now - m->sm_call < TICK_MAX && !asleep(m->tid)) {
			m->sm_callask = now + (now - m->sm_call);
			return NOTHING;
		}
		if (!pg_retake(m, p))
			return NOTHING;
		pg_handoffp(p);
		return DID;
	}
	saw = unannounced(m, p, now);
	if (saw != NOTHING || fresh)
		return saw;
	/*
	 * A deadline that has come is more urgent than equal shares: natively its thread would preempt.  So would one that has been
	 * woken, if it is not itself of those that only compute.
	 */
	if (slice > URGENT && (atomic_load(&p->timer0) <= now || (others && atomic_load(&g->spent))))
		slice = URGENT;
	if (slice == 0 || now - m->sm_since < slice)
		return NOTHING;
	/* One that was put off (libc) is tried again at each short tick; whether this one will be, the next look tells. */
	saw = atomic_load(&m->skips) ? DID : SUSPECT;
	atomic_fetch_or(&g->pending, PG_PEND_PREEMPT);
	pg_kick(m);
	return saw;
}

/* A G has been waiting while a P is idle: an M looks for work.  One that exists: where none can be made, none is asked for each tick. */
static void stray(void)
{
	bool idle;

	pg_lock(&pg_sched.lock);
	idle = pg_sched.midle != NULL;
	pg_unlock(&pg_sched.lock);
	if (idle)
		pg_wakep();
	else if (atomic_load(&pg_sched.polling))
		pg_netpoll_break();
}

static void trace_line(int64_t now, int64_t start)
{
	int idle = 0, ms = 0, total = 0;

	for (int i = 0; i < pg_nprocs; i++) {
		uint32_t h = atomic_load(&pg_allp[i].runqhead), t = atomic_load(&pg_allp[i].runqtail);
		total += (int)(t - h);
	}
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
		ms += m->tid != 0;
	idle = atomic_load(&pg_sched.npidle);
	pg_say("SCHED %ldms: procs=%d idleprocs=%d threads=%d spinning=%d runqueue=%d local=%d waiters=%d gs=%d",
	       (long)((now - start) / 1000000), pg_nprocs, idle, ms, atomic_load(&pg_sched.nmspinning),
	       atomic_load(&pg_sched.runqsize), total, atomic_load(&pg_sched.pollwaiters), atomic_load(&pg_nthreads));
}

static _Atomic uint32_t poked; /* somebody wants us now; a futex word, so that it is not missed on the way to sleep */

static void nap(int64_t ns)
{
	struct timespec ts = {ns / 1000000000, ns % 1000000000};

	pg_sys(SYS_futex, &poked, FUTEX_WAIT_PRIVATE, 0, &ts);
}

static void *sysmon(void *arg)
{
	int64_t tick = TICK_MIN, now, start, lasttrace, lastaudit;
	int64_t slice = pg_knobs.preempt * 1000, tickmax = slice && slice < TICK_MAX ? slice : TICK_MAX;
	bool wasready = false, rested = false, others = false, again = false;
	int quiet = 0, idle = 0;

	(void)arg;
	pg_self_ = pg_sysmon_g = &sysmon_g;
	pg_tls_learn_res();
	pg_sysmon_tid = (int)pg_sys(SYS_gettid);
	pg_sys(SYS_prctl, 15 /* PR_SET_NAME */, "pgreen-sysmon");
	pg_signal_started();
	pg_notewakeup(&started);
	start = lasttrace = lastaudit = pg_now();
	for (;;) {
		bool did = false, busy = false, ready = false, suspect = false;

		now = pg_now();
		int64_t first = atomic_load(&pg_sched.npidle) ? PG_FOREVER : pg_timers_next();
		/* The Ps don't poll, and whoever is woken waits for us; or does already. */
		if (tick > URGENT && hogs &&
		    (others || (atomic_load(&pg_sched.pollwaiters) > 0 && !atomic_load(&pg_sched.polling))))
			tick = URGENT;
		if (rested)
			rested = false;
		else if (first < now + tick)
			nap(first - now < TICK_MIN ? TICK_MIN : first - now);
		else
			nap(again ? TICK_MIN : tick);
		now = pg_now();
		atomic_store(&poked, 0);
		pg_rt_enter(&sysmon_g);
		/* Signals that came to a thread which sleeps on in the runtime. */
		pg_signal_route(&sysmon_g);
		did |= pg_bury();
		pg_spawn();
		if (pg_unlikely(pg_knobs.chaos))
			pg_chaos_procs();
		hogs = atomic_load(&pg_sched.spentsize) > 0;
		for (int i = 0; i < pg_nprocs; i++) {
			struct pg_p *p = &pg_allp[i];
			if (atomic_load(&p->m))
				busy = true;
			enum saw saw = look(p, now, slice, others);
			did |= saw == DID;
			suspect |= saw == SUSPECT;
			ready |= !pg_runqempty(p);
		}
		pg_cputime_tick(now);
		others = ready || atomic_load(&pg_sched.runqsize) > atomic_load(&pg_sched.spentsize);
		ready |= atomic_load(&pg_sched.runqsize) > 0;
		/* Twice in a row: what the hand-shake of pg_wakep missed, see sched.c. */
		if (ready && wasready && atomic_load(&pg_sched.npidle) > 0)
			stray();
		wasready = ready;
		if (atomic_load(&pg_sched.pollwaiters) > 0 && !atomic_load(&pg_sched.polling) &&
		    now - atomic_load(&pg_sched.lastpoll) > (hogs ? URGENT / 2 : POLL_LATE)) {
			struct pg_glist l = {0};
			pg_netpoll(0, &l);
			if (l.n) {
				pg_injectlist(&l);
				did = true;
			}
		}
		if (pg_timers_next() < now - 1000000) {
			for (int i = 0; i < pg_nprocs; i++)
				if (atomic_load(&pg_allp[i].timer0) <= now)
					did |= pg_timers_run(&pg_allp[i], now) > 0;
			pg_wakep();
		}
		if (now - lastaudit > AUDIT) {
			lastaudit = now;
			pg_netpoll_audit(now);
			pg_retire(now);
			pg_capped_say();
			pg_deadlock_check();
		}
		pg_rt_exit(&sysmon_g);
		if (pg_knobs.schedtrace && now - lasttrace >= pg_knobs.schedtrace * 1000000) {
			lasttrace = now;
			trace_line(now, start);
		}
		again = suspect;
		if (did)
			quiet = 0, tick = TICK_MIN;
		else if (++quiet > 50 && (tick *= 2) > tickmax)
			tick = tickmax;
		idle = busy ? 0 : idle + 1;
		if (idle > IDLE_TICKS && !pg_knobs.schedtrace) {
			pg_noteclear(&pg_sched.sysmonnote);
			atomic_store(&pg_sched.sysmonwait, 1);
			busy = atomic_load(&poked);
			for (int i = 0; i < pg_nprocs; i++)
				busy |= atomic_load(&pg_allp[i].m) != NULL;
			/* Once a second all the same: the audit.  And back to sleep when nobody has come. */
			if (!busy && !pg_notetsleep(&pg_sched.sysmonnote, pg_now() + 1000000000))
				idle = IDLE_TICKS;
			else
				idle = 0;
			atomic_store(&pg_sched.sysmonwait, 0);
			rested = idle != 0;
			tick = tickmax;
		}
	}
	return NULL;
}

void pg_sysmon_wake(void)
{
	uint32_t one = 1;

	if (atomic_compare_exchange_strong(&pg_sched.sysmonwait, &one, 0))
		pg_notewakeup(&pg_sched.sysmonnote);
}

void pg_sysmon_poke(void)
{
	atomic_store(&poked, 1);
	pg_sysmon_wake();
	pg_sys(SYS_futex, &poked, FUTEX_WAKE_PRIVATE, 1);
}

void pg_sysmon_start(void)
{
	unsigned long t;
	uint64_t all = ~0ull, old;
	int r;

	sysmon_g.m = &pg_nullm;
	sysmon_g.mode = PG_NATIVE;
	sysmon_g.timer.idx = -1;
	sysmon_g.magic = PG_MAGIC;
	sysmon_g.sigmask = ~0ull; /* it only passes signals on: pg_sig_take must find none for it */
	pg_noteclear(&started);
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
	r = pg_real_pthread_create(&t, NULL, sysmon, NULL);
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, 8);
	if (r)
		pg_say("no watcher thread (error %d): blocking calls may hold others up", r);
	else
		pg_notesleep(&started);
}
