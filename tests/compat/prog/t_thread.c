/* SPDX-License-Identifier: MIT */
/* Threads as POSIX and glibc promise them: join codes, attributes, names, keys, fresh TLS, cancellation. One line per part. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static struct timespec in_ms(clockid_t clock, long ms)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_nsec += ms % 1000 * 1000000;
	ts.tv_sec += ms / 1000 + ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return ts;
}

/* ---- create, join, detach ---- */

static void *identity(void *arg)
{
	return arg;
}

static atomic_int gate;

static void *at_gate(void *arg)
{
	while (!gate)
		usleep(1000);
	return arg;
}

static atomic_int entered;

static void *join_it(void *arg)
{
	entered = 1;
	return (void *)(intptr_t)pthread_join(*(pthread_t *)arg, NULL);
}

static void joins(void)
{
	pthread_t t, u;
	void *r;
	struct timespec ts;

	CHECK(pthread_create(&t, NULL, identity, &failures) == 0);
	CHECK(!pthread_equal(t, pthread_self()));
	CHECK(pthread_join(t, &r) == 0 && r == &failures);
	CHECK(pthread_join(pthread_self(), NULL) == EDEADLK);

	gate = 0;
	CHECK(pthread_create(&t, NULL, at_gate, &r) == 0);
	CHECK(pthread_tryjoin_np(t, NULL) == EBUSY);
	ts = in_ms(CLOCK_REALTIME, 20);
	CHECK(pthread_timedjoin_np(t, NULL, &ts) == ETIMEDOUT);
	ts = in_ms(CLOCK_MONOTONIC, 20);
	CHECK(pthread_clockjoin_np(t, NULL, CLOCK_MONOTONIC, &ts) == ETIMEDOUT);
	CHECK(pthread_clockjoin_np(t, NULL, CLOCK_PROCESS_CPUTIME_ID, &ts) == EINVAL);
	gate = 1;
	ts = in_ms(CLOCK_REALTIME, 20000);
	CHECK(pthread_timedjoin_np(t, &r, &ts) == 0 && r == &r);

	/* Joined by another thread. */
	gate = entered = 0;
	CHECK(pthread_create(&t, NULL, at_gate, NULL) == 0);
	CHECK(pthread_create(&u, NULL, join_it, &t) == 0);
	while (!entered)
		usleep(1000);
	gate = 1;
	CHECK(pthread_join(u, &r) == 0 && r == NULL);

	/* tryjoin in the end succeeds. */
	CHECK(pthread_create(&t, NULL, identity, NULL) == 0);
	while (pthread_tryjoin_np(t, &r) == EBUSY)
		sched_yield();
	CHECK(r == NULL);

	gate = 0;
	CHECK(pthread_create(&t, NULL, at_gate, NULL) == 0);
	CHECK(pthread_detach(t) == 0);
	CHECK(pthread_detach(t) == EINVAL);
	CHECK(pthread_join(t, NULL) == EINVAL);
	gate = 1;

	/* Detached after its end. */
	CHECK(pthread_create(&t, NULL, identity, NULL) == 0);
	usleep(20000);
	CHECK(pthread_detach(t) == 0);
	done("joins");
}

static atomic_int storm_count;

static void *storm_one(void *arg)
{
	storm_count++;
	return arg;
}

static void storm(void)
{
	pthread_attr_t attr;
	pthread_t t;
	int made = 0;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (int i = 0; i < 5000; i++) {
		if (pthread_create(&t, i % 2 ? &attr : NULL, storm_one, NULL) == 0) {
			made++;
			if (i % 2 == 0)
				CHECK(pthread_detach(t) == 0);
		}
		if (i % 200 == 199)
			while (storm_count < made)
				usleep(1000);
	}
	while (storm_count < made)
		usleep(1000);
	CHECK(made == 5000);
	pthread_attr_destroy(&attr);
	done("detached storm");
}

/* ---- attributes ---- */

static void check_bounds(size_t least, void *lo, void *hi)
{
	pthread_attr_t attr;
	void *addr;
	size_t size;
	char local;

	CHECK(pthread_getattr_np(pthread_self(), &attr) == 0);
	CHECK(pthread_attr_getstack(&attr, &addr, &size) == 0);
	CHECK(&local >= (char *)addr && &local < (char *)addr + size);
	CHECK(size >= least);
	if (lo)
		CHECK((char *)addr >= (char *)lo && (char *)addr + size <= (char *)hi);
	pthread_attr_destroy(&attr);
}

static char own_stack[256 * 1024] __attribute__((aligned(4096)));

static void *bounds(void *arg)
{
	volatile char deep[100 * 1024];

	memset((char *)deep, 1, sizeof deep);
	if (arg)
		check_bounds(128 * 1024, own_stack, own_stack + sizeof own_stack);
	else
		check_bounds(512 * 1024, NULL, NULL);
	return (void *)(uintptr_t)deep[5];
}

static void *detach_state(void *arg)
{
	pthread_attr_t attr;
	int state = -1;

	pthread_getattr_np(pthread_self(), &attr);
	pthread_attr_getdetachstate(&attr, &state);
	pthread_attr_destroy(&attr);
	*(int *)arg = state;
	gate = 1;
	return NULL;
}

static void attributes(void)
{
	pthread_attr_t attr;
	pthread_t t;
	struct sched_param param = { 0 };
	int state, policy;
	size_t guard;
	cpu_set_t cpus;

	check_bounds(64 * 1024, NULL, NULL);
	CHECK(pthread_create(&t, NULL, bounds, NULL) == 0 && pthread_join(t, NULL) == 0);
	pthread_attr_init(&attr);
	CHECK(pthread_attr_setstacksize(&attr, 512 * 1024) == 0);
	CHECK(pthread_create(&t, &attr, bounds, NULL) == 0 && pthread_join(t, NULL) == 0);
	CHECK(pthread_attr_setguardsize(&attr, 0) == 0);
	CHECK(pthread_create(&t, &attr, bounds, NULL) == 0 && pthread_join(t, NULL) == 0);
	CHECK(pthread_attr_setstack(&attr, own_stack, sizeof own_stack) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&t, &attr, bounds, own_stack) == 0 && pthread_join(t, NULL) == 0);
	pthread_attr_destroy(&attr);

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	gate = 0;
	state = -1;
	CHECK(pthread_create(&t, &attr, detach_state, &state) == 0);
	while (!gate)
		usleep(1000);
	CHECK(state == PTHREAD_CREATE_DETACHED);
	pthread_attr_destroy(&attr);

	/* Of a live thread. */
	gate = 0;
	CHECK(pthread_create(&t, NULL, at_gate, NULL) == 0);
	CHECK(pthread_getattr_np(t, &attr) == 0);
	CHECK(pthread_attr_getguardsize(&attr, &guard) == 0 && guard == (size_t)sysconf(_SC_PAGESIZE));
	CHECK(pthread_attr_getdetachstate(&attr, &state) == 0 && state == PTHREAD_CREATE_JOINABLE);
	pthread_attr_destroy(&attr);
	CHECK(pthread_getschedparam(t, &policy, &param) == 0 && policy == SCHED_OTHER && param.sched_priority == 0);
	CHECK(pthread_setschedparam(t, SCHED_OTHER, &param) == 0);
	param.sched_priority = 5;
	CHECK(pthread_setschedparam(t, SCHED_OTHER, &param) == EINVAL);
	CHECK(pthread_setschedparam(t, 77, &param) == EINVAL);
	CHECK(pthread_getaffinity_np(t, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 0);
	CHECK(pthread_setaffinity_np(t, sizeof cpus, &cpus) == 0);
	CPU_ZERO(&cpus);
	CHECK(pthread_setaffinity_np(t, sizeof cpus, &cpus) == EINVAL);
	CHECK(pthread_getaffinity_np(t, 1, &cpus) == EINVAL);
	gate = 1;
	pthread_join(t, NULL);

	/* An explicit ordinary policy is nobody's privilege. */
	pthread_attr_init(&attr);
	pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
	CHECK(pthread_create(&t, &attr, identity, NULL) == 0 && pthread_join(t, NULL) == 0);
	pthread_attr_destroy(&attr);
	done("attributes");
}

static void *pin_self(void *arg)
{
	cpu_set_t all, one, got;

	(void)arg;
	CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, &all)) {
			CPU_SET(i, &one);
			break;
		}
	}
	CHECK(pthread_setaffinity_np(pthread_self(), sizeof one, &one) == 0);
	CHECK(pthread_getaffinity_np(pthread_self(), sizeof got, &got) == 0 && CPU_EQUAL(&got, &one));
	CHECK(sched_getaffinity(0, sizeof got, &got) == 0 && CPU_EQUAL(&got, &one));
	CHECK(sched_getcpu() >= 0 && CPU_ISSET(sched_getcpu(), &one));
	CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
	return NULL;
}

static void names(void)
{
	pthread_t t;
	char buf[32];

	gate = 0;
	CHECK(pthread_create(&t, NULL, at_gate, NULL) == 0);
	CHECK(pthread_setname_np(t, "worker-15-chars") == 0);
	CHECK(pthread_getname_np(t, buf, sizeof buf) == 0 && strcmp(buf, "worker-15-chars") == 0);
	CHECK(pthread_setname_np(t, "sixteen-chars-xx") == ERANGE);
	CHECK(pthread_getname_np(t, buf, 15) == ERANGE);
	CHECK(pthread_setname_np(pthread_self(), "main") == 0);
	CHECK(pthread_getname_np(pthread_self(), buf, 16) == 0 && strcmp(buf, "main") == 0);
	gate = 1;
	pthread_join(t, NULL);
	CHECK(gettid() == getpid());
	CHECK(pthread_create(&t, NULL, pin_self, NULL) == 0 && pthread_join(t, NULL) == 0);
	done("names, affinity");
}

/* ---- keys ---- */

static pthread_key_t key_a, key_b, key_none, key_never;
static atomic_int a_runs, b_runs;

static void dtor_a(void *v)
{
	a_runs++;
	CHECK(v == &key_a);
	CHECK(pthread_getspecific(key_a) == NULL);
	pthread_setspecific(key_b, &key_b); /* one more round */
}

static void dtor_b(void *v)
{
	/* Never has enough: PTHREAD_DESTRUCTOR_ITERATIONS ends it. */
	b_runs++;
	pthread_setspecific(key_b, v);
}

static void *with_keys(void *arg)
{
	CHECK(pthread_getspecific(key_a) == NULL && pthread_getspecific(key_b) == NULL);
	CHECK(pthread_getspecific(key_none) == NULL);
	pthread_setspecific(key_a, &key_a);
	pthread_setspecific(key_none, &key_none);
	if (arg)
		pthread_exit(NULL);
	return NULL;
}

static void dtor_never(void *v)
{
	(void)v;
	CHECK(!"the destructor of a deleted key ran");
}

static void *delete_key(void *arg)
{
	(void)arg;
	pthread_setspecific(key_never, &key_never);
	CHECK(pthread_key_delete(key_never) == 0);
	return NULL;
}

static void keys(void)
{
	pthread_t t;
	pthread_key_t many[200];

	CHECK(pthread_key_create(&key_a, dtor_a) == 0);
	CHECK(pthread_key_create(&key_b, dtor_b) == 0);
	CHECK(pthread_key_create(&key_none, NULL) == 0);
	for (int i = 0; i < 10; i++) {
		a_runs = b_runs = 0;
		CHECK(pthread_create(&t, NULL, with_keys, i % 2 ? &t : NULL) == 0 && pthread_join(t, NULL) == 0);
		CHECK(a_runs == 1);
		CHECK(b_runs == PTHREAD_DESTRUCTOR_ITERATIONS);
	}
	CHECK(pthread_key_create(&key_never, dtor_never) == 0);
	CHECK(pthread_create(&t, NULL, delete_key, NULL) == 0 && pthread_join(t, NULL) == 0);
	for (int i = 0; i < 200; i++)
		CHECK(pthread_key_create(&many[i], NULL) == 0);
	CHECK(pthread_setspecific(many[199], many) == 0 && pthread_getspecific(many[199]) == many);
	for (int i = 0; i < 200; i++)
		CHECK(pthread_key_delete(many[i]) == 0);
	CHECK(pthread_key_delete(many[0]) == EINVAL);
	CHECK(pthread_setspecific(many[0], many) == EINVAL);
	done("keys");
}

/* ---- TLS ---- */

static __thread int tls_int = 41;
static __thread char tls_text[32] = "fresh";
static __thread long tls_zero[16];
static __thread double tls_double = 2.5;

static void *tls_one(void *arg)
{
	long sum = 0;

	for (int i = 0; i < 16; i++)
		sum += tls_zero[i];
	*(int *)arg = errno == 0 && tls_int == 41 && strcmp(tls_text, "fresh") == 0 && sum == 0 && tls_double == 2.5;
	tls_int = 7;
	strcpy(tls_text, "used");
	memset(tls_zero, 0xff, sizeof tls_zero);
	tls_double = -1;
	errno = EBADF;
	return NULL;
}

static void tls(void)
{
	int good = 0;

	tls_int = 1;
	for (int i = 0; i < 1000; i++) {
		pthread_t t;
		int ok = 0;

		CHECK(pthread_create(&t, NULL, tls_one, &ok) == 0 && pthread_join(t, NULL) == 0);
		good += ok;
	}
	CHECK(good == 1000);
	CHECK(tls_int == 1);
	done("tls");
}

/* ---- cancellation ---- */

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cv = PTHREAD_COND_INITIALIZER;
static int fds[2];
static pthread_t blocker;
static char trace[64];

static void note(void *arg)
{
	strcat(trace, arg);
}

static void unlock(void *arg)
{
	strcat(trace, "u");
	CHECK(pthread_mutex_unlock(arg) == 0);
}

static void block_cond(void)
{
	pthread_mutex_lock(&mu);
	pthread_cleanup_push(unlock, &mu);
	entered = 1;
	for (;;)
		pthread_cond_wait(&cv, &mu);
	pthread_cleanup_pop(1);
}

static void block_read(void)
{
	char c;

	entered = 1;
	CHECK(read(fds[0], &c, 1) == -2);
}

static void block_sleep(void)
{
	entered = 1;
	sleep(1000);
	CHECK(!"slept");
}

static void block_join(void)
{
	entered = 1;
	pthread_join(blocker, NULL);
	CHECK(!"joined");
}

static void block_spin(void)
{
	static volatile unsigned long n;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	entered = 1;
	for (;;)
		n++;
}

static void block_test(void)
{
	entered = 1;
	for (;;) {
		pthread_testcancel();
		sched_yield();
	}
}

static void *nested(void *arg)
{
	void (*block)(void) = *(void (**)(void))arg;

	pthread_cleanup_push(note, "1");
	pthread_cleanup_push(note, "2");
	pthread_cleanup_push(note, "x");
	pthread_cleanup_pop(0);
	block();
	pthread_cleanup_pop(0);
	pthread_cleanup_pop(0);
	return NULL;
}

static void cancel_one(const char *what, void (*block)(void), const char *expected, int delay)
{
	pthread_t t;
	void *r = NULL;

	trace[0] = '\0';
	entered = 0;
	CHECK(pthread_create(&t, NULL, nested, &block) == 0);
	while (!entered)
		usleep(500);
	usleep(delay);
	CHECK(pthread_cancel(t) == 0);
	CHECK(pthread_join(t, &r) == 0 && r == PTHREAD_CANCELED);
	if (strcmp(trace, expected) != 0) {
		printf("%s: handlers %s, not %s\n", what, trace, expected);
		failures++;
	}
}

static void *disabled(void *arg)
{
	int old;

	CHECK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old) == 0 && old == PTHREAD_CANCEL_ENABLE);
	entered = 1;
	while (!gate)
		usleep(500);
	pthread_testcancel();
	strcat(trace, "d");
	CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old) == 0 && old == PTHREAD_CANCEL_DISABLE);
	pthread_cleanup_push(note, "e");
	pthread_testcancel();
	pthread_cleanup_pop(0);
	return arg;
}

static void *disabled_to_the_end(void *arg)
{
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	entered = 1;
	while (!gate)
		usleep(500);
	return arg;
}

static void *cancels_itself(void *arg)
{
	pthread_cleanup_push(note, "s");
	CHECK(pthread_cancel(pthread_self()) == 0);
	strcat(trace, "p");
	pthread_testcancel();
	pthread_cleanup_pop(0);
	return arg;
}

static void *cancels_itself_async(void *arg)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	pthread_cleanup_push(note, "s");
	pthread_cancel(pthread_self());
	strcat(trace, "p");
	pthread_cleanup_pop(0);
	return arg;
}

static void cancellation(void)
{
	pthread_t t;
	void *r;
	int before = 0;

	CHECK(pthread_setcancelstate(99, NULL) == EINVAL);
	CHECK(pthread_setcanceltype(99, NULL) == EINVAL);
	CHECK(pipe(fds) == 0);
	gate = 0;
	CHECK(pthread_create(&blocker, NULL, at_gate, NULL) == 0);
	for (int i = 0; i < 3; i++) {
		cancel_one("cond_wait", block_cond, "u21", i * 2000);
		cancel_one("read", block_read, "21", i * 2000);
		cancel_one("sleep", block_sleep, "21", i * 2000);
		cancel_one("join", block_join, "21", i * 2000);
		cancel_one("spin", block_spin, "21", i * 2000);
		cancel_one("testcancel", block_test, "21", i * 2000);
	}
	/* Still joinable after its joiners were cancelled. */
	gate = 1;
	CHECK(pthread_join(blocker, NULL) == 0);
	CHECK(pthread_mutex_trylock(&mu) == 0 && pthread_mutex_unlock(&mu) == 0);
	close(fds[0]);
	close(fds[1]);

	gate = entered = 0;
	trace[0] = '\0';
	CHECK(pthread_create(&t, NULL, disabled, NULL) == 0);
	while (!entered)
		usleep(500);
	CHECK(pthread_cancel(t) == 0);
	usleep(5000);
	gate = 1;
	CHECK(pthread_join(t, &r) == 0 && r == PTHREAD_CANCELED && strcmp(trace, "de") == 0);

	gate = entered = 0;
	CHECK(pthread_create(&t, NULL, disabled_to_the_end, &failures) == 0);
	while (!entered)
		usleep(500);
	CHECK(pthread_cancel(t) == 0);
	gate = 1;
	CHECK(pthread_join(t, &r) == 0 && r == &failures);

	trace[0] = '\0';
	CHECK(pthread_create(&t, NULL, cancels_itself, NULL) == 0);
	CHECK(pthread_join(t, &r) == 0 && r == PTHREAD_CANCELED && strcmp(trace, "ps") == 0);
	trace[0] = '\0';
	CHECK(pthread_create(&t, NULL, cancels_itself_async, NULL) == 0);
	CHECK(pthread_join(t, &r) == 0 && r == PTHREAD_CANCELED && strcmp(trace, "s") == 0);

	/* Cancelled perhaps before its first instruction. */
	for (int i = 0; i < 200; i++) {
		void (*block)(void) = block_test;

		trace[0] = '\0';
		CHECK(pthread_create(&t, NULL, nested, &block) == 0);
		CHECK(pthread_cancel(t) == 0);
		CHECK(pthread_join(t, &r) == 0 && r == PTHREAD_CANCELED);
		before += strcmp(trace, "21") == 0;
	}
	CHECK(before == 200);
	done("cancellation");
}

/* ---- pthread_exit ---- */

static int deep(int n, void *result)
{
	volatile char pad[200];

	pad[0] = (char)n;
	if (n < 0)
		return 0; /* never: for the compiler's sake */
	if (n == 0)
		pthread_exit(result);
	return deep(n - 1, result) + pad[0];
}

static void *exits_deep(void *arg)
{
	pthread_cleanup_push(note, "a");
	deep(50, arg);
	pthread_cleanup_pop(0);
	return NULL;
}

static void exits_again(void *arg)
{
	strcat(trace, "x");
	pthread_exit(arg);
}

static void *exits_with_null(void *arg)
{
	pthread_cleanup_push(note, "o");
	deep(3, NULL);
	pthread_cleanup_pop(0);
	return arg;
}

static pthread_key_t key_exit;

static void *exits_in_destructor(void *arg)
{
	pthread_setspecific(key_exit, arg);
	return NULL;
}

static pthread_t main_thread;

static void *last(void *arg)
{
	(void)arg;
	CHECK(pthread_join(main_thread, NULL) == 0);
	printf("main has ended: handlers %s\n", trace);
	printf("%s\n", failures ? "FAILED" : "ok");
	return NULL; /* the last thread: exit status 0 */
}

static void exits(void)
{
	pthread_t t;
	void *r;

	trace[0] = '\0';
	CHECK(pthread_create(&t, NULL, exits_deep, &failures) == 0);
	CHECK(pthread_join(t, &r) == 0 && r == &failures && strcmp(trace, "a") == 0);
	trace[0] = '\0';
	CHECK(pthread_create(&t, NULL, exits_with_null, NULL) == 0);
	CHECK(pthread_join(t, &r) == 0 && r == NULL && strcmp(trace, "o") == 0);
	trace[0] = '\0';
	CHECK(pthread_key_create(&key_exit, exits_again) == 0);
	CHECK(pthread_create(&t, NULL, exits_in_destructor, &r) == 0);
	CHECK(pthread_join(t, &r) == 0 && r == &r && strcmp(trace, "x") == 0);
	done("exits");
}

int main(void)
{
	pthread_t t;

	joins();
	storm();
	attributes();
	names();
	keys();
	tls();
	cancellation();
	exits();
	if (failures) {
		printf("FAILED\n");
		return 1;
	}
	trace[0] = '\0';
	main_thread = pthread_self();
	CHECK(pthread_create(&t, NULL, last, NULL) == 0);
	pthread_cleanup_push(note, "m");
	pthread_exit(NULL);
	pthread_cleanup_pop(0);
	return 2;
}
