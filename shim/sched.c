/* SPDX-License-Identifier: MIT */
/*
 * Scheduling parameters and CPU affinity.  The kernel keeps them per OS thread, a green thread has none: ordinary policies and
 * CPU sets that leave the process its CPUs are only recorded.  A real-time policy or a narrower set wires the thread
 * that it is for: the caller at once, another at its next look (core/wire.c, which keeps the sets and then applies them).  For
 * a thread that is wired the kernel is told and asked, by the number of its OS thread.
 */
#include "shim/thread.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "shim/process.h"

static cpu_set_t proc_cpus; /* of the process when its first thread was created; written before that */

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

/* Keeps cpus as the set of g, NULL: the process's.  0 or an error number. */
static int record(struct pg_g *g, const cpu_set_t *cpus)
{
	struct pg_g *self = pg_self();
	int r;

	pg_rt_enter(self);
	r = pg_cpus_set(g, cpus ? (const unsigned long *)cpus : NULL);
	pg_rt_exit(self);
	return -r;
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

int pg_sched_pin_self(struct pg_g *g, size_t n, const cpu_set_t *cpus)
{
	cpu_set_t s = clip(n, cpus);
	bool narrow;
	int err = pg_sched_maypin(&s, &narrow);
	long r;

	if (err)
		return err;
	if (g->mode == PG_GREEN && !narrow)
		return record(g, NULL);
	pg_shim_wire(g);
	r = pg_sys(SYS_sched_setaffinity, 0, n, cpus);
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
		pg_shim_wire(g);
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

static struct pg_g *by_tid(pid_t tid)
{
	struct pg_g *g;

	if (pg_passthrough() || !atomic_load(&pg_started) || tid < 0 || pg_in_vfork())
		return NULL;
	g = tid == 0 ? pg_self() : pg_tid2g(tid);
	return g && pg_is_ours(g) ? g : NULL;
}

/* What the kernel knows g by, when g is the caller or has an OS thread of its own; else the OS thread at hand. */
static pid_t os_thread(struct pg_g *g)
{
	return g == pg_self() ? 0 : atomic_load(&g->ostid);
}

/* Another green thread has been told something that takes an OS thread; or is wired by now, and then true. */
static bool wire_other(struct pg_g *g)
{
	struct pg_g *self = pg_self();

	pg_rt_enter(self);
	pg_wire_later(g);
	pg_rt_exit(self);
	return atomic_load(&g->ostid) != 0;
}

/* ---- CPU sets ---- */

static int set_cpus(struct pg_g *g, size_t n, const cpu_set_t *cpus)
{
	cpu_set_t s;
	bool narrow;
	int err;

	if (g == pg_self())
		return pg_sched_pin_self(g, n, cpus);
	if (pg_thread_ended(g))
		return ESRCH;
	if (atomic_load(&g->ostid) == 0) {
		s = clip(n, cpus);
		err = pg_sched_maypin(&s, &narrow);
		if (err == 0)
			err = record(g, narrow ? &s : NULL);
		if (err || !narrow || !wire_other(g))
			return err;
	}
	return (int)-pg_sys(SYS_sched_setaffinity, atomic_load(&g->ostid), n, cpus);
}

/* As the system call: the number of bytes, or -errno. */
static long get_cpus(struct pg_g *g, size_t n, cpu_set_t *cpus)
{
	struct pg_g *self = pg_self();
	cpu_set_t s;
	bool own;
	long r;

	if (pg_thread_ended(g))
		return -ESRCH;
	/* The kernel's answer in any case, also for its opinion on n. */
	r = pg_sys(SYS_sched_getaffinity, os_thread(g), n, cpus);
	if (r < 0 || atomic_load(&g->ostid) || (g == self && g->mode != PG_GREEN))
		return r;
	pg_rt_enter(self);
	own = pg_cpus_get(g, (unsigned long *)&s);
	pg_rt_exit(self);
	if (!own) {
		if (self->mode == PG_GREEN)
			return r;
		s = proc_cpus;
	}
	memcpy(cpus, &s, (size_t)r < sizeof s ? (size_t)r : sizeof s);
	return r;
}

long pg_raw_getaffinity(pid_t pid, size_t n, cpu_set_t *cpus)
{
	struct pg_g *g = by_tid(pid);

	return g ? get_cpus(g, n, cpus) : pg_sys(SYS_sched_getaffinity, pid, n, cpus);
}

/* libc's functions give 0 for success and clear what the kernel leaves. */
static int fill_cpus(struct pg_g *g, size_t n, cpu_set_t *cpus)
{
	long r = get_cpus(g, n, cpus);

	if (r < 0)
		return (int)-r;
	memset((char *)cpus + r, 0, n - (size_t)r);
	return 0;
}

/* Differs: a narrower set binds another green thread from its next look on. */
PG_EXPORT int pthread_setaffinity_np(pthread_t t, size_t n, const cpu_set_t *set)
{
	struct pg_g *g = ours(t);

	return g ? set_cpus(g, n, set) : PG_REAL(pthread_setaffinity_np)(t, n, set);
}

PG_EXPORT int pthread_getaffinity_np(pthread_t t, size_t n, cpu_set_t *set)
{
	struct pg_g *g = ours(t);

	return g ? fill_cpus(g, n, set) : PG_REAL(pthread_getaffinity_np)(t, n, set);
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

	return g ? (int)pg_ret(-fill_cpus(g, n, set)) : PG_REAL(sched_getaffinity)(pid, n, set);
}

/* ---- policies ---- */

static int set_policy(struct pg_g *g, int policy, int prio)
{
	struct sched_param param = { .sched_priority = prio };
	long r;
	int err;

	if (g == pg_self())
		return pg_sched_rt_self(g, policy, prio);
	if (pg_thread_ended(g))
		return ESRCH;
	err = pg_sched_may(policy, prio);
	if (err)
		return err;
	if (atomic_load(&g->ostid) == 0) {
		g->policy = policy;
		g->prio = prio;
		if (!pg_sched_rt(policy & ~SCHED_RESET_ON_FORK) || !wire_other(g))
			return 0;
	}
	r = pg_sys(SYS_sched_setscheduler, atomic_load(&g->ostid), policy, &param);
	if (r == 0) {
		g->policy = policy;
		g->prio = prio;
	}
	return (int)-r;
}

/* Differs: a real-time policy takes hold of another green thread at its next look. */
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
	if (pg_thread_ended(g))
		return ESRCH;
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

PG_EXPORT int sched_rr_get_interval(pid_t pid, struct timespec *ts)
{
	struct pg_g *g = by_tid(pid);

	return PG_REAL(sched_rr_get_interval)(g ? os_thread(g) : pid, ts);
}

/* What all versions of the kernel's struct sched_attr begin with. */
struct sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
};

/* By number only.  The caller is wired, since all of it is the kernel's; of another green thread policy and priority count. */
long pg_raw_setattr(pid_t pid, const void *arg, unsigned flags)
{
	const struct sched_attr *attr = arg;
	struct pg_g *g = by_tid(pid);
	long r;

	if (g == NULL || attr == NULL)
		return pg_sys(SYS_sched_setattr, pid, attr, flags);
	if (g != pg_self() && atomic_load(&g->ostid) == 0)
		return -set_policy(g, (int)attr->policy, (int)attr->priority);
	if (g == pg_self())
		pg_shim_wire(g);
	r = pg_sys(SYS_sched_setattr, os_thread(g), attr, flags);
	if (r == 0) {
		g->policy = (int)attr->policy;
		g->prio = (int)attr->priority;
	}
	return r;
}

long pg_raw_getattr(pid_t pid, void *arg, unsigned size, unsigned flags)
{
	struct sched_attr *attr = arg;
	struct pg_g *g = by_tid(pid);
	long r = pg_sys(SYS_sched_getattr, g ? os_thread(g) : pid, attr, size, flags);

	if (r == 0 && g && g->mode == PG_GREEN) {
		attr->policy = (uint32_t)(g->policy & ~SCHED_RESET_ON_FORK);
		attr->priority = (uint32_t)g->prio;
	}
	return r;
}

pid_t pg_os_thread(pid_t tid)
{
	struct pg_g *g = by_tid(tid);

	return g ? os_thread(g) : tid;
}

/* Older names. */
PG_EXPORT int __sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
	__attribute__((alias("sched_setscheduler"), copy(sched_setscheduler)));
PG_EXPORT int __sched_getscheduler(pid_t pid) __attribute__((alias("sched_getscheduler"), copy(sched_getscheduler)));
PG_EXPORT int __sched_getparam(pid_t pid, struct sched_param *param)
	__attribute__((alias("sched_getparam"), copy(sched_getparam)));
