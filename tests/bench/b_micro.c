/* SPDX-License-Identifier: MIT */
/*
 * What the basic thread operations cost, in an ordinary pthread program that knows nothing of pgreen.
 *
 *   b_micro create|pingpong|yield [THREADS]|contend [THREADS]      threads at work together
 *           mutex|rwlock|wrlock|sem|once|getspecific|read          one thread, nobody in its way
 *           burst N|parked N|sleepers N                            very many threads
 *           spawn N PROGRAM [ARG...]                               start and end of a process, of any program
 *
 * It prints one number (parked: three): nanoseconds per operation unless said otherwise below; the median of several rounds,
 * each long enough to be measured.  Exit status 1, with a line on stderr, when something went wrong or counted wrong.
 *
 * The uncontended operations are measured with a second thread alive, because glibc leaves out the atomics while a process
 * has only one, and such a figure would say nothing about a threaded program.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 7, ROUND_NS = 30000000, NS = 1000000000 };

extern char **environ;

_Noreturn static void die(const char *what, int err)
{
	fprintf(stderr, "b_micro: %s%s%s\n", what, err ? ": " : "", err ? strerror(err) : "");
	exit(1);
}

static void check(int err, const char *what)
{
	if (err)
		die(what, err);
}

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * NS + ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* One round: n operations; returns the nanoseconds they took. */
typedef int64_t round_fn(long n);

/* The median of the rounds, in nanoseconds per operation.  The first ones find the right n and warm everything up. */
static double median(round_fn *f)
{
	double ns[ROUNDS];
	long n = 64;
	int64_t t;

	while ((t = f(n)) < ROUND_NS / 2 && n < 1L << 30)
		n *= t < ROUND_NS / 32 ? 8 : 2;
	for (int i = 0; i < ROUNDS; i++)
		ns[i] = (double)f(n) / (double)n;
	qsort(ns, ROUNDS, sizeof(ns[0]), by_value);
	return ns[ROUNDS / 2];
}

/* -- a gate: threads gather before it and go together ----------------------------------------------- */

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_open = PTHREAD_COND_INITIALIZER;
static pthread_cond_t gate_full = PTHREAD_COND_INITIALIZER;
static long gate_here, gate_wanted;
static bool gate_is_open;

static void gate_shut(long wanted)
{
	gate_here = 0;
	gate_wanted = wanted;
	gate_is_open = false;
}

static void gate_pass(void)
{
	pthread_mutex_lock(&gate_lock);
	if (++gate_here == gate_wanted)
		pthread_cond_signal(&gate_full);
	while (!gate_is_open)
		pthread_cond_wait(&gate_open, &gate_lock);
	pthread_mutex_unlock(&gate_lock);
}

static void gate_await(void)
{
	pthread_mutex_lock(&gate_lock);
	while (gate_here < gate_wanted)
		pthread_cond_wait(&gate_full, &gate_lock);
	pthread_mutex_unlock(&gate_lock);
}

static void gate_release(void)
{
	pthread_mutex_lock(&gate_lock);
	gate_is_open = true;
	pthread_cond_broadcast(&gate_open);
	pthread_mutex_unlock(&gate_lock);
}

static void *stay(void *arg)
{
	gate_pass();
	return arg;
}

/* Makes this a threaded process for good. */
static void second_thread(void)
{
	pthread_t t;

	gate_shut(1);
	check(pthread_create(&t, NULL, stay, NULL), "pthread_create");
	gate_await();
}

/* n threads in f together, each with its share of the work; returns the time from their start to the last join. */
static int64_t together(int n, void *(*f)(void *), void *arg)
{
	pthread_t t[64];
	int64_t start;

	if (n < 1 || n > 64)
		die("from 1 to 64 threads", 0);
	gate_shut(n);
	for (int i = 0; i < n; i++)
		check(pthread_create(&t[i], NULL, f, arg), "pthread_create");
	gate_await();
	start = now();
	gate_release();
	for (int i = 0; i < n; i++)
		check(pthread_join(t[i], NULL), "pthread_join");
	return now() - start;
}

/* -- threads at work together ------------------------------------------------------------------------ */

static void *nothing(void *arg)
{
	return arg;
}

static int64_t round_create(long n)
{
	int64_t start = now();

	for (long i = 0; i < n; i++) {
		pthread_t t;
		void *result;

		check(pthread_create(&t, NULL, nothing, &start), "pthread_create");
		check(pthread_join(t, &result), "pthread_join");
		if (result != &start)
			die("a thread came back with another result", 0);
	}
	return now() - start;
}

/* Two threads take turns; each has a condition of its own to wait on. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t mine[2];
	int turn, next_player;
	long turns; /* of each */
} pp = {.lock = PTHREAD_MUTEX_INITIALIZER, .mine = {PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER}};

static void *player(void *arg)
{
	int me;

	gate_pass();
	pthread_mutex_lock(&pp.lock);
	me = pp.next_player++;
	for (long i = 0; i < pp.turns; i++) {
		while (pp.turn != me)
			pthread_cond_wait(&pp.mine[me], &pp.lock);
		pp.turn = !me;
		pthread_cond_signal(&pp.mine[!me]);
	}
	pthread_mutex_unlock(&pp.lock);
	return arg;
}

static int64_t round_pingpong(long n)
{
	pp.turns = n / 2;
	pp.turn = pp.next_player = 0;
	return together(2, player, NULL);
}

static int threads;
static long per_thread;

static void *yielder(void *arg)
{
	gate_pass();
	for (long i = 0; i < per_thread; i++)
		sched_yield();
	return arg;
}

static int64_t round_yield(long n)
{
	per_thread = n / threads;
	return together(threads, yielder, NULL);
}

static pthread_mutex_t contended = PTHREAD_MUTEX_INITIALIZER;
static long contended_count;

static void *contender(void *arg)
{
	gate_pass();
	for (long i = 0; i < per_thread; i++) {
		pthread_mutex_lock(&contended);
		contended_count++;
		pthread_mutex_unlock(&contended);
	}
	return arg;
}

static int64_t round_contend(long n)
{
	int64_t t;

	per_thread = n / threads;
	contended_count = 0;
	t = together(threads, contender, NULL);
	if (contended_count != per_thread * threads)
		die("the mutex let two in", 0);
	return t;
}

/* -- one thread, nobody in its way ------------------------------------------------------------------- */

#define ROUND(name, ...)                          \
	static int64_t round_##name(long n)       \
	{                                         \
		int64_t start = now();            \
                                                  \
		for (long i = 0; i < n; i++) {    \
			__VA_ARGS__               \
		}                                 \
		return now() - start;             \
	}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t sem;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int file = -1;

static void do_once(void)
{
}

ROUND(mutex, pthread_mutex_lock(&mutex); pthread_mutex_unlock(&mutex);)
ROUND(rwlock, pthread_rwlock_rdlock(&rwlock); pthread_rwlock_unlock(&rwlock);)
ROUND(wrlock, pthread_rwlock_wrlock(&rwlock); pthread_rwlock_unlock(&rwlock);)
ROUND(sem, sem_post(&sem); sem_wait(&sem);)
ROUND(once, pthread_once(&once, do_once);)
ROUND(getspecific, if (pthread_getspecific(key) != &key) die("pthread_getspecific", 0);)
ROUND(read, char c; if (pread(file, &c, 1, 0) != 1) die("pread", errno);)

static void prepare(void)
{
	FILE *f = tmpfile();

	if (!f || fputs("x", f) < 0 || fflush(f))
		die("tmpfile", errno);
	file = fileno(f);
	sem_init(&sem, 0, 0);
	check(pthread_key_create(&key, NULL), "pthread_key_create");
	check(pthread_setspecific(key, &key), "pthread_setspecific");
	second_thread();
}

/* -- very many threads ------------------------------------------------------------------------------- */

static pthread_t *many(long n)
{
	pthread_t *t = calloc((size_t)n, sizeof(*t));

	if (n < 1 || !t)
		die("a number of threads", EINVAL);
	return t;
}

/* Create all, then join all; per thread.  When the system has no room for more, the ones so far are joined first. */
static double burst(long n)
{
	enum { BURSTS = 3 };
	pthread_t *t = many(n);
	double ns[BURSTS];
	long full = 0;

	for (int round = 0; round < BURSTS; round++) {
		int64_t start = now();
		long joined = 0;

		for (long i = 0; i < n; i++) {
			int err;

			while ((err = pthread_create(&t[i], NULL, nothing, NULL)) == EAGAIN && joined < i) {
				full++;
				while (joined < i)
					check(pthread_join(t[joined++], NULL), "pthread_join");
			}
			check(err, "pthread_create");
		}
		while (joined < n)
			check(pthread_join(t[joined++], NULL), "pthread_join");
		ns[round] = (double)(now() - start) / (double)n;
	}
	if (full)
		fprintf(stderr, "b_micro: no room for %ld threads at a time, joined %ld times in between\n", n, full);
	qsort(ns, BURSTS, sizeof(ns[0]), by_value);
	free(t);
	return ns[BURSTS / 2];
}

/* The number of bytes in the line of a /proc file that begins with name. */
static double proc_bytes(const char *path, const char *name)
{
	char line[256];
	double kb = -1;
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name))) {
			kb = atof(line + strlen(name));
			break;
		}
	if (f)
		fclose(f);
	if (kb < 0)
		die(path, f ? EPROTO : errno);
	return kb * 1024;
}

static double own_memory(void)
{
	return proc_bytes("/proc/self/smaps_rollup", "Rss:") + proc_bytes("/proc/self/status", "VmPTE:");
}

/*
 * Bytes for each thread that waits on a condition, with default attributes: what the process has in memory, with its page
 * tables; the same with the kernel's stacks; what the whole system has less available.  The last wavers, and is too small when
 * the kernel still had memory by from threads that had ended before.
 */
static void parked(long n)
{
	pthread_t *t = many(n);
	double own, stacks, available;

	memset(t, 1, (size_t)n * sizeof(*t)); /* its pages are nobody's stack */
	second_thread();
	own = own_memory();
	stacks = proc_bytes("/proc/meminfo", "KernelStack:");
	available = proc_bytes("/proc/meminfo", "MemAvailable:");
	gate_shut(n + 1); /* the second thread waits there already */
	gate_here = 1;
	for (long i = 0; i < n; i++) {
		int err = pthread_create(&t[i], NULL, stay, NULL);

		if (err) {
			fprintf(stderr, "b_micro: thread %ld of %ld: ", i + 1, n);
			die("pthread_create", err);
		}
	}
	gate_await();
	own = own_memory() - own;
	stacks = proc_bytes("/proc/meminfo", "KernelStack:") - stacks;
	available -= proc_bytes("/proc/meminfo", "MemAvailable:");
	printf("%.0f %.0f %.0f\n", own / (double)n, (own + stacks) / (double)n, available / (double)n);
	gate_release();
	for (long i = 0; i < n; i++)
		check(pthread_join(t[i], NULL), "pthread_join");
	free(t);
}

/* Each thread sleeps until a moment of its own, from half a second to a second and a half after all are there. */
static int64_t sleepers_start;

static void *sleeper(void *arg)
{
	double *late = arg;
	int64_t due;
	struct timespec ts;
	int err;

	gate_pass();
	due = sleepers_start + NS / 2 + (int64_t)(*late * NS);
	ts.tv_sec = due / NS;
	ts.tv_nsec = due % NS;
	while ((err = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL)) == EINTR)
		;
	*late = err ? -1e9 : (double)(now() - due);
	return NULL;
}

/* Microseconds that a sleeper wakes late, at the 99th percentile. */
static double sleepers(long n)
{
	pthread_t *t = many(n);
	double *late = calloc((size_t)n, sizeof(*late));
	double p99;

	if (!late)
		die("calloc", errno);
	gate_shut(n);
	srand48(1);
	for (long i = 0; i < n; i++) {
		late[i] = drand48();
		check(pthread_create(&t[i], NULL, sleeper, &late[i]), "pthread_create");
	}
	gate_await();
	sleepers_start = now();
	gate_release();
	for (long i = 0; i < n; i++)
		check(pthread_join(t[i], NULL), "pthread_join");
	qsort(late, (size_t)n, sizeof(late[0]), by_value);
	if (late[0] < 0)
		die("a sleeper woke before its time", 0);
	p99 = late[n * 99 / 100] / 1000;
	free(late);
	free(t);
	return p99;
}

/* -- processes --------------------------------------------------------------------------------------- */

/* Microseconds from the start of a program to its end; the median of n. */
static double spawn(long n, char **argv)
{
	double *us = calloc((size_t)n, sizeof(*us));
	double median_us;

	if (n < 1 || !us || !argv[0])
		die("spawn N PROGRAM [ARG...]", EINVAL);
	for (long i = 0; i < n; i++) {
		int64_t start = now();
		int status;
		pid_t pid;

		check(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), argv[0]);
		if (waitpid(pid, &status, 0) != pid || status != 0)
			die("the program failed", 0);
		us[i] = (double)(now() - start) / 1000;
	}
	qsort(us, (size_t)n, sizeof(us[0]), by_value);
	median_us = us[n / 2];
	free(us);
	return median_us;
}

static const struct {
	const char *name;
	round_fn *round;
	int threads; /* 0: one thread, with another alive */
} rounds[] = {
	{"create", round_create, 1},
	{"pingpong", round_pingpong, 2},
	{"yield", round_yield, 2},
	{"contend", round_contend, 8},
	{"mutex", round_mutex, 0},
	{"rwlock", round_rwlock, 0},
	{"wrlock", round_wrlock, 0},
	{"sem", round_sem, 0},
	{"once", round_once, 0},
	{"getspecific", round_getspecific, 0},
	{"read", round_read, 0},
};

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long n = argc > 2 ? atol(argv[2]) : 0;

	for (size_t i = 0; i < sizeof(rounds) / sizeof(rounds[0]); i++)
		if (!strcmp(what, rounds[i].name)) {
			threads = n > 0 ? (int)n : rounds[i].threads;
			if (rounds[i].threads == 0)
				prepare();
			printf("%.2f\n", median(rounds[i].round));
			return 0;
		}
	if (!strcmp(what, "burst"))
		printf("%.1f\n", burst(n));
	else if (!strcmp(what, "parked"))
		parked(n);
	else if (!strcmp(what, "sleepers"))
		printf("%.1f\n", sleepers(n));
	else if (!strcmp(what, "spawn") && argc > 3)
		printf("%.1f\n", spawn(n, argv + 3));
	else
		die("no such measurement; see the head of its source", 0);
	return 0;
}
