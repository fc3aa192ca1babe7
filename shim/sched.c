/* SPDX-License-Identifier: MIT */
/*
 * Scheduling parameters and CPU affinity.  The kernel keeps them per OS thread, a green thread has none: ordinary policies and
 * CPU sets that leave the process its CPUs are only recorded.  A real-time policy or a narrower set wires the thread
 * that asks for it for itself.
 *
 * The records of CPU sets lie in a small table by thread number, since few threads have one; when it is full the oldest is
 * forgotten.
 */
#include "shim/thread.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"

#define NRECORDS 256

static cpu_set_t proc_cpus; /* of the process when its first thread was created; written before that */

static struct {
	struct pg_lock lock; /* protects the rest */
	unsigned next;
	struct {
		uint32_t tid;
		cpu_set_t cpus;
	} r[NRECORDS];
} records;

void pg_sched_remember(void)
{
	struct sched_param param = { 0 };
	long policy = pg_sys(SYS_sched_getscheduler, 0);

	CPU_ZERO(&proc_cpus);
	pg_sys(SYS_sched_getaffinity, 0, sizeof proc_cpus, &proc_cpus);
	pg_sys(SYS_sched_getparam, 0, &param);
	if (policy >= 0) {
		pg_main_g.policy = (int)policy;
		pg_main_g.prio = param.sched_priority;
	}
}

/* Keeps cpus as the set of thread tid; NULL forgets it. */
static void record(uint32_t tid, const cpu_set_t *cpus)
{
	struct pg_g *self = pg_self();
	unsigned i;

	pg_rt_enter(self);
	pg_lock(&records.lock);
	for (i = 0; i < NRECORDS && records.r[i].tid != tid; i++)
		;
	if (i == NRECORDS && cpus)
		i = records.next++ % NRECORDS;
	if (i < NRECORDS) {
		records.r[i].tid = cpus ? tid : 0;
		if (cpus)
			records.r[i].cpus = *cpus;
	}
	pg_unlock(&records.lock);
	pg_rt_exit(self);
}

static bool recorded(uint32_t tid, cpu_set_t *cpus)
{
	struct pg_g *self = pg_self();
	bool found = false;

	if (tid == 0)
		return false;
	pg_rt_enter(self);
	pg_lock(&records.lock);
	for (unsigned i = 0; i < NRECORDS && !found; i++) {
		if (records.r[i].tid == tid) {
			*cpus = records.r[i].cpus;
			found = true;
		}
	}
	pg_unlock(&records.lock);
	pg_rt_exit(self);
	return found;
}

static cpu_set_t clip(size_t n, const cpu_set_t *cpus)
{
	cpu_set_t s;

	CPU_ZERO(&s);
	memcpy(&s, cpus, n < sizeof s ? n : sizeof s);
	return s;
}

static bool covers_process(const cpu_set_t *cpus)
{
	cpu_set_t both;

	CPU_AND(&both, cpus, &proc_cpus);
	return CPU_EQUAL(&both, &proc_cpus);
}

/*
 * Asks the kernel whether it would allow the call by making it on the OS thread at hand and undoing it; the G stays on that
 * thread meanwhile.
 */
int pg_sched_maypin(const cpu_set_t *cpus, bool *narrow)
{
	struct pg_g *self = pg_self();
	cpu_set_t old;
	long r, n;

	*narrow = false;
	if (covers_process(cpus))
		return 0;
	*narrow = true;
	pg_rt_enter(self);
	n = pg_sys(SYS_sched_getaffinity, 0, sizeof old, &old);
	r = pg_sys(SYS_sched_setaffinity, 0, sizeof *cpus, cpus);
	if (r == 0 && n > 0)
		pg_sys(SYS_sched_setaffinity, 0, n, &old);
	pg_rt_exit(self);
	return (int)-r;
}

int pg_sched_may(int policy, int prio)
{
	struct pg_g *self = pg_self();
	struct sched_param param = { .sched_priority = prio }, old = { 0 };
	long r, was;

	pg_rt_enter(self);
	was = pg_sys(SYS_sched_getscheduler, 0);
	pg_sys(SYS_sched_getparam, 0, &old);
	r = pg_sys(SYS_sched_setscheduler, 0, policy, &param);
	if (r == 0 && was >= 0)
		pg_sys(SYS_sched_setscheduler, 0, was, &old);
	pg_rt_exit(self);
	return (int)-r;
}

static void wire(struct pg_g *g)
{
	if (g->mode != PG_GREEN)
		return;
	pg_rt_enter(g);
	pg_wire(g);
	pg_rt_exit(g);
}

int pg_sched_pin_self(struct pg_g *g, size_t n, const cpu_set_t *cpus)
{
	cpu_set_t s = clip(n, cpus);
	bool narrow;
	int err = pg_sched_maypin(&s, &narrow);
	long r;

	if (err)
		return err;
	if (g->mode == PG_GREEN && !narrow) {
		record(g->tid, NULL);
		return 0;
	}
	wire(g);
	r = pg_sys(SYS_sched_setaffinity, 0, n, cpus);
	if (r == 0)
		record(g->tid, &s);
	return (int)-r;
}

int pg_sched_rt_self(struct pg_g *g, int policy, int prio)
{
	struct sched_param param = { .sched_priority = prio };
	int err = pg_sched_may(policy, prio);
	long r;

	if (err)
		return err;
	if (g->mode == PG_GREEN && pg_sched_rt(policy & ~SCHED_RESET_ON_FORK))
		wire(g);
	if (g->mode != PG_GREEN) {
		r = pg_sys(SYS_sched_setscheduler, 0, policy, &param);
		if (r < 0)
			return (int)-r;
	}
	g->policy = policy;
	g->prio = prio;
	return 0;
}

/* ---- who is meant ---- */

/* The G of a pthread_t or a thread number for which we answer, or NULL: let the kernel. */
static struct pg_g *ours(pthread_t t)
{
	struct pg_g *g = pg_passthrough() || !atomic_load(&pg_started) ? NULL : pg_pthread2g(t);

	return g && pg_is_ours(g) ? g : NULL;
}

struct search {
	uint32_t tid;
	struct pg_g *found;
};

static void look(struct pg_g *g, void *arg)
{
	struct search *s = arg;

	if (g->tid == s->tid && atomic_load(&g->state) != PG_G_dead)
		s->found = g;
}

static struct pg_g *by_tid(pid_t tid)
{
	struct pg_g *self;
	struct search s = { .tid = (uint32_t)tid };

	if (pg_passthrough() || !atomic_load(&pg_started) || tid < 0)
		return NULL;
	self = pg_self();
	if (tid == 0 || s.tid == self->tid)
		return pg_is_ours(self) ? self : NULL;
	if (s.tid == pg_main_g.tid)
		return &pg_main_g;
	pg_rt_enter(self);
	pg_foreach_g(look, &s);
	pg_rt_exit(self);
	return s.found && pg_is_ours(s.found) ? s.found : NULL;
}

/* ---- CPU sets ---- */

static int set_cpus(struct pg_g *g, size_t n, const cpu_set_t *cpus)
{
	cpu_set_t s;
	bool narrow;
	int err;

	if (g == pg_self())
		return pg_sched_pin_self(g, n, cpus);
	s = clip(n, cpus);
	err = pg_sched_maypin(&s, &narrow);
	if (err == 0)
		record(g->tid, narrow ? &s : NULL);
	return err;
}

static int get_cpus(struct pg_g *g, size_t n, cpu_set_t *cpus)
{
	struct pg_g *self = pg_self();
	cpu_set_t s;
	int saved = errno, err;

	/* The kernel's answer for the OS thread at hand, also for its opinion on n. */
	if (PG_REAL(sched_getaffinity)(0, n, cpus) < 0) {
		err = errno;
		errno = saved;
		return err;
	}
	if (g == self && g->mode != PG_GREEN)
		return 0;
	if (!recorded(g->tid, &s)) {
		if (self->mode == PG_GREEN)
			return 0;
		s = proc_cpus;
	}
	memset(cpus, 0, n);
	memcpy(cpus, &s, n < sizeof s ? n : sizeof s);
	return 0;
}

/* Differs: a narrower set for another thread is remembered, but does not bind it. */
PG_EXPORT int pthread_setaffinity_np(pthread_t t, size_t n, const cpu_set_t *set)
{
	struct pg_g *g = ours(t);

	return g ? set_cpus(g, n, set) : PG_REAL(pthread_setaffinity_np)(t, n, set);
}

PG_EXPORT int pthread_getaffinity_np(pthread_t t, size_t n, cpu_set_t *set)
{
	struct pg_g *g = ours(t);

	return g ? get_cpus(g, n, set) : PG_REAL(pthread_getaffinity_np)(t, n, set);
}

/* Differs: as pthread_setaffinity_np. */
PG_EXPORT int sched_setaffinity(pid_t pid, size_t n, const cpu_set_t *set)
{
	struct pg_g *g = by_tid(pid);

	return g ? (int)pg_ret(-set_cpus(g, n, set)) : PG_REAL(sched_setaffinity)(pid, n, set);
}

PG_EXPORT int sched_getaffinity(pid_t pid, size_t n, cpu_set_t *set)
{
	struct pg_g *g = by_tid(pid);

	return g ? (int)pg_ret(-get_cpus(g, n, set)) : PG_REAL(sched_getaffinity)(pid, n, set);
}

/* ---- policies ---- */

static int set_policy(struct pg_g *g, int policy, int prio)
{
	int err;

	if (g == pg_self())
		return pg_sched_rt_self(g, policy, prio);
	err = pg_sched_may(policy, prio);
	if (err == 0) {
		g->policy = policy;
		g->prio = prio;
	}
	return err;
}

/* Differs: a real-time policy for another thread is remembered, but has no effect. */
PG_EXPORT int pthread_setschedparam(pthread_t t, int policy, const struct sched_param *param)
{
	struct pg_g *g = ours(t);

	return g ? set_policy(g, policy, param->sched_priority) : PG_REAL(pthread_setschedparam)(t, policy, param);
}

PG_EXPORT int pthread_getschedparam(pthread_t t, int *policy, struct sched_param *param)
{
	struct pg_g *g = ours(t);

	if (g == NULL)
		return PG_REAL(pthread_getschedparam)(t, policy, param);
	*policy = g->policy;
	param->sched_priority = g->prio;
	return 0;
}

PG_EXPORT int pthread_setschedprio(pthread_t t, int prio)
{
	struct pg_g *g = ours(t);

	return g ? set_policy(g, g->policy, prio) : PG_REAL(pthread_setschedprio)(t, prio);
}

PG_EXPORT int sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
{
	struct pg_g *g = param ? by_tid(pid) : NULL;

	return g ? (int)pg_ret(-set_policy(g, policy, param->sched_priority))
		 : PG_REAL(sched_setscheduler)(pid, policy, param);
}

PG_EXPORT int sched_getscheduler(pid_t pid)
{
	struct pg_g *g = by_tid(pid);

	return g ? g->policy : PG_REAL(sched_getscheduler)(pid);
}

PG_EXPORT int sched_setparam(pid_t pid, const struct sched_param *param)
{
	struct pg_g *g = param ? by_tid(pid) : NULL;

	return g ? (int)pg_ret(-set_policy(g, g->policy, param->sched_priority)) : PG_REAL(sched_setparam)(pid, param);
}

PG_EXPORT int sched_getparam(pid_t pid, struct sched_param *param)
{
	struct pg_g *g = param ? by_tid(pid) : NULL;

	if (g == NULL)
		return PG_REAL(sched_getparam)(pid, param);
	param->sched_priority = g->prio;
	return 0;
}

/* The kernel knows one interval for all threads of a policy; a green thread's number it does not know. */
PG_EXPORT int sched_rr_get_interval(pid_t pid, struct timespec *ts)
{
	return PG_REAL(sched_rr_get_interval)(by_tid(pid) ? 0 : pid, ts);
}

/* Older names. */
PG_EXPORT int __sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
	__attribute__((alias("sched_setscheduler"), copy(sched_setscheduler)));
PG_EXPORT int __sched_getscheduler(pid_t pid) __attribute__((alias("sched_getscheduler"), copy(sched_getscheduler)));
PG_EXPORT int __sched_getparam(pid_t pid, struct sched_param *param)
	__attribute__((alias("sched_getparam"), copy(sched_getparam)));
