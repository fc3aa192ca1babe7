/* SPDX-License-Identifier: MIT */
/*
 * The runner of the unit tests, and what core expects of shim and preload: the first and last frame of a thread, the
 * constructor, the real pthread_create and __register_atfork.
 */
#include "tests/unit/support.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/knobs.h"
#include "core/say.h"
#include "core/signal.h"

enum { LIMIT_SECONDS = 15, STACK = 64 << 10, MAXTESTS = 64, MAXOUT = 64 << 10 };

extern char **environ;

/* ---- in place of shim and preload ---- */

extern void pg_fork_register(void);
extern void pg_foreign_add(struct pg_g *g);
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *);
int pg_real_pthread_create(unsigned long *t, const void *attr, void *(*fn)(void *), void *arg);
int pg_real_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
bool pg_cancel_from_handler(struct pg_g *g, ucontext_t *uc);
void pg_thread_main(struct pg_g *g);

int pg_real_pthread_create(unsigned long *t, const void *attr, void *(*fn)(void *), void *arg)
{
	return pthread_create(t, attr, fn, arg);
}

int pg_real_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return __register_atfork(prepare, parent, child, NULL);
}

bool pg_cancel_from_handler(struct pg_g *g, ucontext_t *uc)
{
	(void)g;
	(void)uc;
	return false;
}

void pg_unwind_hook(void)
{
}

/* vfork in switch.S refers to these. */
void pg_bottom(void);
void pg_bottom(void) {}
void pg_vfork_before(void);
pid_t pg_vfork_after(long raw);

void pg_vfork_before(void)
{
}

pid_t pg_vfork_after(long raw)
{
	return (pid_t)raw;
}

static void init_native(struct pg_g *g, uint32_t tid)
{
	g->magic = PG_MAGIC;
	g->tcb = pg_arch_tp();
	g->m = &pg_nullm;
	g->mode = PG_NATIVE;
	g->tid = tid;
	g->timer.idx = -1;
	g->sigclass = -1;
	atomic_store(&g->state, PG_G_running);
	g->altstack.ss_flags = SS_DISABLE;
	pg_self_ = g;
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &g->sigmask, 8);
}

struct pg_g *pg_self_slow(void)
{
	uint32_t tid = (uint32_t)pg_sys(SYS_gettid);
	struct pg_g *g;

	if (pg_main_g.magic == 0) {
		pg_arch_init();
		init_native(&pg_main_g, tid);
		return &pg_main_g;
	}
	g = pg_mmap_alloc(sizeof *g);
	if (g == NULL)
		pg_throw("out of memory for a foreign thread");
	init_native(g, tid);
	atomic_store(&g->rt, 1);
	pg_foreign_add(g);
	atomic_store(&g->rt, 0);
	return g;
}

void pg_thread_main(struct pg_g *g)
{
	pg_tls_thread_start(g);
	g->result = g->fn(g->arg);
	atomic_fetch_sub(&pg_nthreads, 1);
	pg_tls_thread_end(g);
	pg_rt_enter(g);
	pg_gexit(g);
}

__attribute__((constructor)) static void start(void)
{
	pg_self();
	pg_knobs_init(NULL);
	pg_signal_init();
	pg_fork_register();
}

/* ---- threads ---- */

static struct pg_g *make(void *(*fn)(void *), void *arg)
{
	int err = 0;
	struct pg_g *g = pg_newg(STACK, 4096, NULL, &err);

	if (g == NULL)
		pg_throw("no thread: error %d", err);
	g->fn = fn;
	g->arg = arg;
	g->sigmask = pg_self()->sigmask;
	atomic_fetch_add(&pg_nthreads, 1);
	return g;
}

struct pg_g *unit_go(void *(*fn)(void *), void *arg)
{
	struct pg_g *g = make(fn, arg);

	pg_newproc(g);
	return g;
}

void unit_detached(void *(*fn)(void *), void *arg)
{
	struct pg_g *g = make(fn, arg);

	atomic_store(&g->life, PG_LIFE_DETACHED);
	pg_newproc(g);
}

void *unit_join(struct pg_g *g)
{
	struct pg_g *self = pg_self();
	void *r;

	atomic_store(&g->joiner, self);
	pg_rt_enter(self);
	while (!atomic_load(&g->dead)) {
		pg_wait_prepare(self);
		if (atomic_load(&g->dead))
			pg_wait_abort(self);
		else
			pg_park(self, PG_FOREVER, PG_WAIT_join);
		/* Signals are delivered outside. */
		pg_rt_exit(self);
		pg_rt_enter(self);
	}
	r = g->result;
	pg_gfree(g);
	pg_rt_exit(self);
	return r;
}

unsigned long unit_os(void *(*fn)(void *), void *arg)
{
	pthread_t t;
	int r = pthread_create(&t, NULL, fn, arg);

	if (r)
		pg_throw("no OS thread: error %d", r);
	return t;
}

void unit_os_join(unsigned long t)
{
	pthread_join(t, NULL);
}

void unit_yield(void)
{
	struct pg_g *g = pg_self();

	pg_rt_enter(g);
	pg_yield();
	pg_rt_exit(g);
}

void unit_sleep(int64_t ns)
{
	pg_sleep_until(pg_now() + ns, PG_WAIT_sleep);
}

void unit_chaos(uint64_t *rng)
{
	uint32_t k = unit_rand(rng, 16);

	if (k < 4) {
		for (uint32_t i = unit_rand(rng, 200); i > 0; i--)
			pg_cpu_relax();
	} else if (k < 8) {
		unit_yield();
	} else if (k == 8) {
		unit_sleep(unit_rand(rng, 100000));
	}
}

void unit_await(const _Atomic uint32_t *word, uint32_t atleast)
{
	while (atomic_load(word) < atleast)
		unit_yield();
}

void unit_await_parked(struct pg_g *g, enum pg_reason reason)
{
	while (atomic_load(&g->wait) != PG_W_PARKED || atomic_load(&g->reason) != (uint32_t)reason)
		unit_yield();
}

/* ---- random numbers: splitmix64 ---- */

uint64_t unit_seed;

uint64_t unit_rng(uint64_t salt)
{
	return unit_seed ^ (salt + 1) * 0xd1342543de82ef95u;
}

uint32_t unit_rand(uint64_t *rng, uint32_t n)
{
	uint64_t z = *rng += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return n ? (uint32_t)((z ^ z >> 31) >> 16) % n : 0;
}

/* ---- the dump of a child that hangs ---- */

static const char *const state_names[] = {
#define X(n) #n,
	PG_GSTATES(X)
#undef X
};

static const char *const reason_names[] = {
#define X(n) #n,
	PG_REASONS(X)
#undef X
};

static void dump_g(struct pg_g *g, void *arg)
{
	uint32_t st = atomic_load(&g->state);

	(void)arg;
	if (st == PG_G_dead)
		return;
	pg_say("G %p tid %u %s wait %x for %s, rt %u pending %x insys %u mode %u m %p mask %lx sigpend %lx", (void *)g, g->tid,
	       state_names[st], atomic_load(&g->wait), reason_names[atomic_load(&g->reason)], atomic_load(&g->rt),
	       atomic_load(&g->pending), atomic_load(&g->insys), g->mode, (void *)g->m, (unsigned long)g->sigmask,
	       (unsigned long)atomic_load(&g->sigpend));
}

static void dump(int sig)
{
	(void)sig;
	pg_say("hangs, on thread %d, G %p", (int)pg_sys(SYS_gettid), (void *)pg_self_);
	dump_g(&pg_main_g, NULL);
	pg_foreach_g(dump_g, NULL);
	for (struct pg_m *m = atomic_load(&pg_sched.allm); m; m = m->alllink)
		pg_say("M %p tid %d p %d cur %s %p spinning %d attn %x g0.rt %u", (void *)m, m->tid, m->p ? m->p->id : -1,
		       m->cur == &m->g0 ? "g0" : "G", (void *)m->cur, m->spinning, atomic_load(&m->attn), atomic_load(&m->g0.rt));
	for (int i = 0; pg_allp && i < pg_nprocs; i++)
		pg_say("P %d status %u m %p runq %u runnext %p", i, atomic_load(&pg_allp[i].status),
		       (void *)atomic_load(&pg_allp[i].m),
		       atomic_load(&pg_allp[i].runqtail) - atomic_load(&pg_allp[i].runqhead),
		       (void *)atomic_load(&pg_allp[i].runnext));
	pg_say("lock %lx npidle %d nmspinning %d runqsize %d polling %d pollwaiters %d stopped %u",
	       (unsigned long)atomic_load(&pg_sched.lock.key), atomic_load(&pg_sched.npidle), atomic_load(&pg_sched.nmspinning),
	       atomic_load(&pg_sched.runqsize), atomic_load(&pg_sched.polling), atomic_load(&pg_sched.pollwaiters),
	       atomic_load(&pg_sched.stopped));
	_exit(99);
}

/* ---- running ---- */

static const struct unit_test *all;
static char *self_path;

struct job {
	const struct unit_test *test;
	int procs;
	char name[96];
};

static void child_body(void **state)
{
	const struct unit_test *t = *state;

	if (t->ps)
		assert_int_equal(pg_start(), 0);
	t->fn();
}

/* In the child: one test. */
static int child_main(const struct unit_test *t)
{
	struct CMUnitTest c = {.name = t->name, .test_func = child_body, .initial_state = (void *)(uintptr_t)t};
	struct sigaction sa = {.sa_handler = dump};

	sigaction(SIGQUIT, &sa, NULL);
	pg_knobs_init(environ);
	return _cmocka_run_group_tests(t->name, &c, 1, NULL, NULL) ? 1 : 0;
}

static void show(const char *name, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "\n");
		print_error("  %s | %.*s\n", name, (int)n, text);
		text += n + (text[n] == '\n');
	}
}

/* In the parent: runs the child and judges it. */
static void run_job(void **state)
{
	struct job *j = *state;
	static char out[MAXOUT];
	char index[16], procs[16], seed[32];
	size_t len = 0;
	time_t end = time(NULL) + LIMIT_SECONDS;
	int fd[2], status = 0, quits = 0;
	pid_t pid;

	snprintf(index, sizeof index, "%d", (int)(j->test - all));
	snprintf(procs, sizeof procs, "%d", j->procs);
	snprintf(seed, sizeof seed, "%llu", (unsigned long long)unit_seed);
	assert_int_equal(pipe(fd), 0);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		dup2(fd[1], 1);
		dup2(fd[1], 2);
		close(fd[0]);
		close(fd[1]);
		setenv("UNIT_SEED", seed, 1);
		if (j->procs)
			setenv("PGREEN_MAXPROCS", procs, 1);
		execl("/proc/self/exe", self_path, "--child", index, (char *)NULL);
		_exit(98);
	}
	assert_true(pid > 0);
	close(fd[1]);
	for (;;) {
		struct pollfd pf = {fd[0], POLLIN, 0};
		char junk[1024];
		ssize_t r;

		if (poll(&pf, 1, 1000) == 1) {
			if (len < sizeof out - 1)
				r = read(fd[0], out + len, sizeof out - 1 - len);
			else
				r = read(fd[0], junk, sizeof junk);
			if (r <= 0)
				break;
			if (len < sizeof out - 1)
				len += (size_t)r;
		}
		if (time(NULL) >= end) {
			kill(quits ? -pid : pid, quits ? SIGKILL : SIGQUIT);
			quits++;
			end = time(NULL) + 3;
		}
	}
	close(fd[0]);
	kill(-pid, SIGKILL); /* what the test left behind; the child itself is done */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	out[len] = 0;
	if (status == 0 && quits == 0)
		return;
	show(j->name, out);
	if (quits)
		fail_msg("hangs with seed %s", seed);
	if (WIFSIGNALED(status))
		fail_msg("ended by signal %d with seed %s", WTERMSIG(status), seed);
	fail_msg("failed with seed %s", seed);
}

int unit_main(int argc, char **argv, const struct unit_test *tests, unsigned n)
{
	static struct CMUnitTest list[MAXTESTS];
	static struct job jobs[MAXTESTS];
	static const int procs[] = {1, 2, 8};
	const char *seed = getenv("UNIT_SEED"), *slash;
	size_t k = 0;

	all = tests;
	self_path = argv[0];
	unit_seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 1000003 ^ (uint64_t)getpid();
	if (argc == 3 && strcmp(argv[1], "--child") == 0)
		return child_main(&tests[atoi(argv[2])]);
	printf("seed %llu\n", (unsigned long long)unit_seed);
	fflush(stdout);
	for (unsigned i = 0; i < n; i++) {
		for (int p = -1; p < 3; p++) {
			struct job *j = &jobs[k];
			if (p < 0 ? tests[i].ps != 0 : !(tests[i].ps >> p & 1))
				continue;
			if (k == MAXTESTS)
				abort();
			j->test = &tests[i];
			j->procs = p < 0 ? 0 : procs[p];
			if (j->procs)
				snprintf(j->name, sizeof j->name, "%s_p%d", tests[i].name, j->procs);
			else
				snprintf(j->name, sizeof j->name, "%s", tests[i].name);
			if (argc > 1 && strstr(j->name, argv[1]) == NULL)
				continue;
			list[k] = (struct CMUnitTest){.name = j->name, .test_func = run_job, .initial_state = j};
			k++;
		}
	}
	slash = strrchr(argv[0], '/');
	return _cmocka_run_group_tests(slash ? slash + 1 : argv[0], list, k, NULL, NULL) ? 1 : 0;
}

int unit_in_child(void (*fn)(void *), void *arg, char *out, size_t size)
{
	size_t len = 0;
	int fd[2], status = -1;
	ssize_t r;
	pid_t pid;

	if (pipe(fd) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		for (int s = 1; s < 32; s++)
			if (s != SIGQUIT && s != SIGKILL && s != SIGSTOP)
				signal(s, SIG_DFL); /* cmocka's handlers would report to the wrong process */
		dup2(fd[1], 2);
		close(fd[0]);
		close(fd[1]);
		fn(arg);
		_exit(0);
	}
	close(fd[1]);
	while (pid > 0 && len + 1 < size && (r = read(fd[0], out + len, size - 1 - len)) > 0)
		len += (size_t)r;
	if (size)
		out[len] = 0;
	close(fd[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0)
		;
	return status;
}
