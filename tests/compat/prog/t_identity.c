/* SPDX-License-Identifier: MIT */
/*
 * What a thread is by itself: number, name, CPU clock, CPU set, policy, options of prctl, stack, entry in /proc.  One line per
 * part.  Nothing is measured; where time has to pass, a clock is waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

#define CHECK(x)                                                                                                       \
	do {                                                                                                           \
		if (!(x)) {                                                                                            \
			printf("line %d: %s\n", __LINE__, #x);                                                         \
			failures++;                                                                                    \
		}                                                                                                      \
	} while (0)

static void done(const char *what)
{
	printf("%s\n", what);
	fflush(stdout);
}

static int64_t ns(const struct timespec *ts)
{
	return (int64_t)ts->tv_sec * 1000000000 + ts->tv_nsec;
}

static int64_t now(clockid_t clock)
{
	struct timespec ts = { 0 };

	CHECK(clock_gettime(clock, &ts) == 0);
	return ns(&ts);
}

/* ---- a thread that does what it is told ---- */

enum { WAIT, SPIN, STOP };

struct worker {
	pthread_t t;
	pid_t tid;
	sem_t ready, go;
	atomic_int order;
	atomic_long turns;
	atomic_int signals;
	void *(*job)(struct worker *); /* run at go, between two waits */
	int64_t clock;
};

static _Thread_local struct worker *me;

static void *worker(void *arg)
{
	struct worker *w = me = arg;

	w->tid = gettid();
	sem_post(&w->ready);
	for (;;) {
		while (sem_wait(&w->go) != 0)
			;
		if (w->order == STOP)
			break;
		if (w->job)
			w->job(w);
		while (w->order == SPIN)
			w->turns++;
		sem_post(&w->ready);
	}
	CHECK(gettid() == w->tid);
	return NULL;
}

static void wait_for(sem_t *s)
{
	while (sem_wait(s) != 0)
		;
}

static void begin(struct worker *w)
{
	memset(w, 0, sizeof *w);
	sem_init(&w->ready, 0, 0);
	sem_init(&w->go, 0, 0);
	CHECK(pthread_create(&w->t, NULL, worker, w) == 0);
	wait_for(&w->ready);
}

static void let(struct worker *w, void *(*job)(struct worker *))
{
	w->job = job;
	sem_post(&w->go);
	wait_for(&w->ready);
	w->job = NULL;
}

static void end(struct worker *w)
{
	w->order = STOP;
	sem_post(&w->go);
	CHECK(pthread_join(w->t, NULL) == 0);
}

/* ---- numbers ---- */

static void count(int sig)
{
	(void)sig;
	me->signals++;
}

static void *numbers_inside(struct worker *w)
{
	CHECK(gettid() == w->tid);
	CHECK(syscall(SYS_gettid) == w->tid);
	CHECK(getpid() != w->tid);
	return NULL;
}

static void numbers(void)
{
	enum { N = 4 };
	static struct worker w[N];
	struct sigaction sa = { .sa_handler = count };

	sigaction(SIGUSR1, &sa, NULL);
	CHECK(gettid() == getpid());
	for (int i = 0; i < N; i++)
		begin(&w[i]);
	for (int i = 0; i < N; i++) {
		let(&w[i], numbers_inside);
		CHECK(w[i].tid != getpid());
		for (int k = 0; k < i; k++)
			CHECK(w[i].tid != w[k].tid);
		CHECK(syscall(SYS_tgkill, getpid(), w[i].tid, 0) == 0);
	}
	for (int i = 0; i < N; i++)
		for (int k = 0; k <= i; k++) {
			CHECK(tgkill(getpid(), w[i].tid, SIGUSR1) == 0);
			while (w[i].signals <= k)
				sched_yield();
		}
	for (int i = 0; i < N; i++)
		CHECK(w[i].signals == i + 1);
	for (int i = 0; i < N; i++)
		end(&w[i]);
	CHECK(tgkill(getpid(), w[0].tid, 0) == -1 && errno == ESRCH);
	done("numbers");
}

/* ---- names ---- */

static void *names_inside(struct worker *w)
{
	char name[16];

	(void)w;
	CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, "from outside") == 0);
	CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "from outside") == 0);
	CHECK(prctl(PR_SET_NAME, "a name that is far too long") == 0);
	CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, "a name that is ") == 0);
	CHECK(pthread_setname_np(pthread_self(), "inside") == 0);
	CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "inside") == 0);
	return NULL;
}

static void *fork_inside(struct worker *w)
{
	char name[16];
	int status;
	pid_t pid = fork();

	(void)w;
	if (pid == 0)
		_exit(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "inside") == 0 ? 7 : 8);
	CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	return NULL;
}

static void names(void)
{
	struct worker w, heir;
	char name[16], small[15];

	CHECK(pthread_setname_np(pthread_self(), "the first") == 0);
	begin(&w);
	CHECK(pthread_getname_np(w.t, name, sizeof name) == 0 && strcmp(name, "the first") == 0);
	CHECK(pthread_setname_np(pthread_self(), "renamed") == 0);
	CHECK(pthread_getname_np(w.t, name, sizeof name) == 0 && strcmp(name, "the first") == 0);
	CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, "renamed") == 0);
	CHECK(pthread_setname_np(w.t, "from outside") == 0);
	let(&w, names_inside);
	let(&w, fork_inside);
	CHECK(pthread_getname_np(w.t, name, sizeof name) == 0 && strcmp(name, "inside") == 0);
	CHECK(pthread_getname_np(w.t, small, sizeof small) == ERANGE);
	CHECK(pthread_setname_np(w.t, "sixteen bytes...") == ERANGE);
	CHECK(pthread_setname_np(w.t, "fifteen bytes..") == 0);
	CHECK(pthread_getname_np(w.t, name, sizeof name) == 0 && strcmp(name, "fifteen bytes..") == 0);
	begin(&heir);
	CHECK(pthread_getname_np(heir.t, name, sizeof name) == 0 && strcmp(name, "renamed") == 0);
	end(&heir);
	end(&w);
	done("names");
}

/* ---- CPU clocks ---- */

static void *read_clock(struct worker *w)
{
	clockid_t id;
	struct timespec ts;
	struct rusage ru;
	int64_t a = now(CLOCK_THREAD_CPUTIME_ID), b, c, d;

	CHECK(pthread_getcpuclockid(pthread_self(), &id) == 0);
	b = now(id);
	CHECK(getrusage(RUSAGE_THREAD, &ru) == 0);
	c = now(CLOCK_THREAD_CPUTIME_ID);
	CHECK(syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &ts) == 0);
	d = ns(&ts);
	CHECK(a <= b && b <= c && c <= d);
	w->clock = d;
	return NULL;
}

static int64_t process_time(void)
{
	return now(CLOCK_PROCESS_CPUTIME_ID);
}

static void clocks(void)
{
	enum { WORK = 40000000 }; /* ns of CPU time */
	struct worker spinner, sleeper;
	clockid_t spin, sleep_, own, other;
	struct timespec ts;
	int64_t started = now(CLOCK_MONOTONIC), before, was, is, slept;

	CHECK(pthread_getcpuclockid(pthread_self(), &own) == 0);
	begin(&spinner);
	begin(&sleeper);
	CHECK(pthread_getcpuclockid(spinner.t, &spin) == 0);
	CHECK(pthread_getcpuclockid(sleeper.t, &sleep_) == 0);
	CHECK(own != spin && own != sleep_ && spin != sleep_);
	CHECK(pthread_getcpuclockid(spinner.t, &other) == 0 && other == spin);
	CHECK(clock_getres(spin, &ts) == 0 && ts.tv_sec == 0);
	CHECK(clock_getres(CLOCK_THREAD_CPUTIME_ID, &ts) == 0);
	ts.tv_sec = ts.tv_nsec = 0;
	CHECK(clock_settime(spin, &ts) == -1 && errno == EPERM);
	CHECK(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &ts, NULL) == EINVAL);
	CHECK(clock_nanosleep(own, 0, &ts, NULL) == EINVAL);

	let(&sleeper, read_clock);
	slept = now(sleep_);
	CHECK(slept >= sleeper.clock);

	/* The spinner's clock goes on while it spins, nobody else's does, and it goes on no faster than the wall's. */
	before = process_time();
	spinner.order = SPIN;
	sem_post(&spinner.go);
	was = now(spin);
	while (now(spin) < WORK) {
		is = now(spin);
		CHECK(is >= was);
		was = is;
		sched_yield();
	}
	ts.tv_sec = 0;
	ts.tv_nsec = 1000000;
	CHECK(clock_nanosleep(spin, 0, &ts, NULL) == 0);
	is = now(spin);
	CHECK(is >= was + ts.tv_nsec);
	CHECK(is <= now(CLOCK_MONOTONIC) - started);
	CHECK(is - WORK / 2 <= process_time());
	CHECK(process_time() > before);
	spinner.order = WAIT;
	wait_for(&spinner.ready);
	was = now(spin);
	CHECK(was >= WORK);
	CHECK(now(sleep_) < was);
	let(&spinner, read_clock);
	CHECK(spinner.clock >= was);
	let(&sleeper, read_clock);
	CHECK(sleeper.clock < spinner.clock);
	CHECK(now(own) <= process_time());

	end(&spinner);
	end(&sleeper);
	CHECK(clock_gettime(spin, &ts) == -1 && errno == EINVAL);
	CHECK(clock_nanosleep(spin, 0, &ts, NULL) == EINVAL);
	CHECK(clock_getcpuclockid(0, &own) == 0 && clock_getcpuclockid(getpid(), &other) == 0);
	CHECK(now(own) <= now(other));
	done("clocks");
}

/* A thread asks for the first time when its work is done. */
static void *late(void *arg)
{
	int64_t *used = arg, until = process_time() + 60000000;

	while (process_time() < until)
		;
	*used = now(CLOCK_THREAD_CPUTIME_ID);
	return NULL;
}

static void asks_late(void)
{
	int64_t used = 0;
	pthread_t t;

	CHECK(pthread_create(&t, NULL, late, &used) == 0);
	CHECK(pthread_join(t, NULL) == 0);
	CHECK(used > 10000000);
	CHECK(used <= process_time());
	done("a late question");
}

/* ---- where and how it runs ---- */

static cpu_set_t all;

static int cpus_of(void)
{
	return CPU_COUNT(&all);
}

static void *pin_inside(struct worker *w)
{
	cpu_set_t one, got;
	int cpu = 0;

	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CHECK(pthread_setaffinity_np(pthread_self(), sizeof one, &one) == 0);
	CHECK(sched_getaffinity(0, sizeof got, &got) == 0 && CPU_EQUAL(&got, &one));
	CHECK(sched_getaffinity(w->tid, sizeof got, &got) == 0 && CPU_EQUAL(&got, &one));
	CHECK(sched_getcpu() == cpu);
	return NULL;
}

static void *widen_inside(struct worker *w)
{
	cpu_set_t got;

	(void)w;
	CHECK(pthread_setaffinity_np(pthread_self(), sizeof all, &all) == 0);
	CHECK(pthread_getaffinity_np(pthread_self(), sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
	return NULL;
}

static void *pinned_inside(struct worker *w)
{
	cpu_set_t got;
	unsigned cpu;

	(void)w;
	CHECK(sched_getaffinity(0, sizeof got, &got) == 0 && CPU_COUNT(&got) == 1);
	CHECK(CPU_ISSET(sched_getcpu(), &got));
	CHECK(syscall(SYS_getcpu, &cpu, NULL, NULL) == 0 && CPU_ISSET(cpu, &got));
	return NULL;
}

static void affinity(void)
{
	struct worker w, other;
	cpu_set_t one, got, none;
	int cpu = CPU_SETSIZE - 1;

	CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
	CHECK(sched_getcpu() >= 0);
	while (!CPU_ISSET(cpu, &all))
		cpu--;
	CPU_ZERO(&none);
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	begin(&w);
	begin(&other);
	CHECK(pthread_getaffinity_np(w.t, sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
	CHECK(pthread_setaffinity_np(w.t, sizeof none, &none) == EINVAL);
	CHECK(pthread_getaffinity_np(w.t, 1, &got) == EINVAL || cpus_of() < 9);
	let(&w, pin_inside);
	CHECK(pthread_getaffinity_np(w.t, sizeof got, &got) == 0 && CPU_COUNT(&got) == 1);
	CHECK(pthread_getaffinity_np(other.t, sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
	let(&w, widen_inside);
	CHECK(pthread_getaffinity_np(w.t, sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
	/* a wired one from outside, and one that is not */
	CHECK(pthread_setaffinity_np(w.t, sizeof one, &one) == 0);
	CHECK(sched_getaffinity(w.tid, sizeof got, &got) == 0 && CPU_EQUAL(&got, &one));
	let(&w, pinned_inside);
	CHECK(sched_setaffinity(other.tid, sizeof one, &one) == 0);
	CHECK(pthread_getaffinity_np(other.t, sizeof got, &got) == 0 && CPU_EQUAL(&got, &one));
	let(&other, pinned_inside);
	let(&other, pinned_inside);
	CHECK(pthread_setaffinity_np(other.t, sizeof all, &all) == 0);
	CHECK(pthread_getaffinity_np(other.t, sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
	CHECK(sched_getaffinity(0, sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
	end(&w);
	end(&other);
	CHECK(sched_getaffinity(w.tid, sizeof got, &got) == -1 && errno == ESRCH);
	/* nothing of it is left for those who come later */
	begin(&w);
	CHECK(pthread_getaffinity_np(w.t, sizeof got, &got) == 0 && CPU_EQUAL(&got, &all));
	end(&w);
	done("CPU sets");
}

static void *policy_inside(struct worker *w)
{
	struct sched_param param = { 0 };
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t prio; uint64_t rest[4]; } attr = { 0 };
	int policy;

	CHECK(pthread_getschedparam(pthread_self(), &policy, &param) == 0);
	CHECK(policy == SCHED_BATCH && param.sched_priority == 0);
	CHECK(sched_getscheduler(0) == SCHED_BATCH);
	CHECK(syscall(SYS_sched_getattr, w->tid, &attr, sizeof attr, 0) == 0 && attr.policy == SCHED_BATCH);
	return NULL;
}

static void policies(void)
{
	struct worker w;
	struct sched_param param = { 0 };
	struct timespec ts;
	int policy, before;

	begin(&w);
	CHECK(pthread_getschedparam(w.t, &before, &param) == 0 && before == sched_getscheduler(0));
	CHECK(pthread_setschedparam(w.t, SCHED_BATCH, &param) == 0);
	CHECK(pthread_getschedparam(w.t, &policy, &param) == 0 && policy == SCHED_BATCH && param.sched_priority == 0);
	let(&w, policy_inside);
	param.sched_priority = 5;
	CHECK(pthread_setschedparam(w.t, SCHED_OTHER, &param) == EINVAL);
	CHECK(pthread_setschedparam(w.t, 77, &param) == EINVAL);
	CHECK(pthread_setschedprio(w.t, 5) == EINVAL);
	CHECK(pthread_setschedprio(w.t, 0) == 0);
	param.sched_priority = 100;
	CHECK(pthread_setschedparam(w.t, SCHED_FIFO, &param) == EINVAL);
	param.sched_priority = 0;
	CHECK(sched_setscheduler(w.tid, SCHED_OTHER, &param) == 0);
	CHECK(sched_getscheduler(w.tid) == SCHED_OTHER && sched_getparam(w.tid, &param) == 0 && param.sched_priority == 0);
	CHECK(sched_rr_get_interval(w.tid, &ts) == 0);
	errno = 0;
	CHECK(getpriority(PRIO_PROCESS, (id_t)w.tid) == getpriority(PRIO_PROCESS, 0) && errno == 0);
	end(&w);
	CHECK(sched_getscheduler(w.tid) == -1 && errno == ESRCH);
	done("policies");
}

/* ---- options of prctl ---- */

static void *slack_inside(struct worker *w)
{
	(void)w;
	CHECK(prctl(PR_SET_TIMERSLACK, 123456) == 0);
	CHECK(prctl(PR_GET_TIMERSLACK) == 123456);
	CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
	return NULL;
}

static void *slack_elsewhere(struct worker *w)
{
	int sig = -1;

	(void)w;
	CHECK(prctl(PR_GET_TIMERSLACK) == 50000);
	CHECK(prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == 0);
	return NULL;
}

static void *slack_again(struct worker *w)
{
	int sig = -1;

	(void)w;
	CHECK(prctl(PR_GET_TIMERSLACK) == 123456);
	CHECK(prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == SIGUSR2);
	CHECK(prctl(PR_SET_PDEATHSIG, 0) == 0);
	CHECK(prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == 0);
	CHECK(prctl(PR_SET_PDEATHSIG, 9999) == -1 && errno == EINVAL);
	return NULL;
}

static void options(void)
{
	struct worker w, other;
	char name[16];

	begin(&w);
	begin(&other);
	CHECK(pthread_setname_np(w.t, "its own") == 0);
	let(&w, slack_inside);
	/* whichever OS thread it has now */
	CHECK(pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, "renamed") == 0);
	CHECK(pthread_getname_np(w.t, name, sizeof name) == 0 && strcmp(name, "its own") == 0);
	let(&other, slack_elsewhere);
	let(&w, slack_again);
	let(&other, slack_elsewhere);
	CHECK(prctl(PR_GET_TIMERSLACK) == 50000);
	end(&w);
	end(&other);
	done("options");
}

/* ---- stacks ---- */

static void inside(pthread_t t, size_t asked, size_t guard, int detach)
{
	pthread_attr_t attr;
	void *lo;
	size_t size, g;
	int state;
	char here;

	CHECK(pthread_getattr_np(t, &attr) == 0);
	CHECK(pthread_attr_getstack(&attr, &lo, &size) == 0);
	CHECK(&here >= (char *)lo && &here < (char *)lo + size);
	if (asked)
		CHECK(size >= asked - 65536 && size <= asked + 65536);
	CHECK(pthread_attr_getguardsize(&attr, &g) == 0);
	CHECK(guard == (size_t)-1 || g == guard);
	CHECK(pthread_attr_getdetachstate(&attr, &state) == 0 && state == detach);
	pthread_attr_destroy(&attr);
}

struct stack {
	size_t asked, guard;
	bool wire;
};

static void *stack_inside(void *arg)
{
	struct stack *s = arg;

	inside(pthread_self(), s->asked, s->guard, PTHREAD_CREATE_JOINABLE);
	if (s->wire) {
		CHECK(prctl(PR_SET_TIMERSLACK, 50001) == 0);
		inside(pthread_self(), s->asked, s->guard, PTHREAD_CREATE_JOINABLE);
	}
	return NULL;
}

static void run(const pthread_attr_t *attr, struct stack s)
{
	pthread_t t;

	CHECK(pthread_create(&t, attr, stack_inside, &s) == 0);
	CHECK(pthread_join(t, NULL) == 0);
}

static void stacks(void)
{
	pthread_attr_t attr;
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 256 * 1024;
	void *mem = NULL;

	inside(pthread_self(), 0, (size_t)-1, PTHREAD_CREATE_JOINABLE);
	run(NULL, (struct stack){ 0, page, false });
	pthread_attr_init(&attr);
	CHECK(pthread_attr_setstacksize(&attr, n) == 0);
	run(&attr, (struct stack){ n, page, false });
	run(&attr, (struct stack){ n, page, true });
	CHECK(pthread_attr_setguardsize(&attr, 3 * page) == 0);
	run(&attr, (struct stack){ n, 3 * page, false });
	CHECK(pthread_attr_setguardsize(&attr, 0) == 0);
	run(&attr, (struct stack){ n, 0, false });
	CHECK(pthread_attr_setguardsize(&attr, 100) == 0);
	run(&attr, (struct stack){ n, page, false });
	CHECK(posix_memalign(&mem, page, n) == 0);
	CHECK(pthread_attr_setstack(&attr, mem, n) == 0);
	run(&attr, (struct stack){ n, 0, false });
	pthread_attr_destroy(&attr);
	free(mem);
	done("stacks");
}

/* ---- /proc ---- */

static int text_of(const char *path, char *buf, size_t n)
{
	FILE *f = fopen(path, "re");
	size_t got;

	if (f == NULL)
		return -1;
	got = fread(buf, 1, n - 1, f);
	buf[got] = '\0';
	fclose(f);
	return 0;
}

static int text_by_open(const char *path, char *buf, size_t n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -1;
	got = read(fd, buf, n - 1);
	buf[got > 0 ? got : 0] = '\0';
	close(fd);
	return 0;
}

static void *proc_inside(struct worker *w)
{
	char text[4096];

	(void)w;
	CHECK(text_of("/proc/thread-self/comm", text, sizeof text) == 0 && strcmp(text, "in proc\n") == 0);
	return NULL;
}

static void proc(void)
{
	struct worker w;
	char path[64], text[4096], want[64];
	struct stat st;

	begin(&w);
	CHECK(pthread_setname_np(w.t, "in proc") == 0);
	snprintf(path, sizeof path, "/proc/self/task/%d/comm", (int)w.tid);
	CHECK(text_of(path, text, sizeof text) == 0 && strcmp(text, "in proc\n") == 0);
	CHECK(text_by_open(path, text, sizeof text) == 0 && strcmp(text, "in proc\n") == 0);
	CHECK(access(path, R_OK) == 0);
	CHECK(stat(path, &st) == 0 && S_ISREG(st.st_mode));
	snprintf(path, sizeof path, "/proc/%d/task/%d/comm", (int)getpid(), (int)w.tid);
	CHECK(text_by_open(path, text, sizeof text) == 0 && strcmp(text, "in proc\n") == 0);
	snprintf(path, sizeof path, "/proc/self/task/%d", (int)w.tid);
	CHECK(access(path, F_OK) == 0);
	CHECK(stat(path, &st) == 0 && S_ISDIR(st.st_mode));
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)w.tid);
	snprintf(want, sizeof want, "%d (in proc) ", (int)w.tid);
	CHECK(text_of(path, text, sizeof text) == 0 && strncmp(text, want, strlen(want)) == 0);
	snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)w.tid);
	CHECK(text_of(path, text, sizeof text) == 0 && strncmp(text, "Name:\tin proc\n", 14) == 0);
	snprintf(want, sizeof want, "\nPid:\t%d\n", (int)w.tid);
	CHECK(strstr(text, want) != NULL);
	let(&w, proc_inside);
	end(&w);
	CHECK(access(path, F_OK) == -1 && errno == ENOENT);
	CHECK(open(path, O_RDONLY) == -1 && errno == ENOENT);
	done("proc");
}

int main(void)
{
	asks_late();
	numbers();
	names();
	clocks();
	affinity();
	policies();
	options();
	stacks();
	proc();
	return failures != 0;
}
