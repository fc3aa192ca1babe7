/* SPDX-License-Identifier: MIT */
/*
 * Modules that come and go while threads run: their thread-local variables have the initial image in living and new threads,
 * also when a module is loaded again at its former place, and in the threads that a constructor makes.  Prints one line per case; the
 * same natively and under pgreen.
 */
#include <dlfcn.h>
#include <errno.h>
#include <iconv.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 12

static int failures;

static void check(const char *what, int ok)
{
	printf("%-60s %s\n", what, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, arg) != 0)
		abort();
	return t;
}

static void *open_module(const char *name)
{
	static char dir[PATH_MAX];
	char path[PATH_MAX + 64];
	void *h;

	if (dir[0] == 0) {
		ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);
		if (n < 0)
			abort();
		dir[n] = 0;
		*strrchr(dir, '/') = 0;
	}
	snprintf(path, sizeof path, "%s/module-%s.so", dir, name);
	h = dlopen(path, RTLD_NOW);
	if (h == NULL) {
		printf("%s\n", dlerror());
		exit(2);
	}
	return h;
}

static struct module {
	int (*initial)(void);
	void (*put)(int);
	int (*get)(void);
} mod;

static void *symbol(void *h, const char *name)
{
	void *p = dlsym(h, name);

	if (p == NULL) {
		printf("%s\n", dlerror());
		exit(2);
	}
	return p;
}

static void find(void *h)
{
	void *p;

	p = symbol(h, "mod_initial"), memcpy(&mod.initial, &p, sizeof p);
	p = symbol(h, "mod_put"), memcpy(&mod.put, &p, sizeof p);
	p = symbol(h, "mod_get"), memcpy(&mod.get, &p, sizeof p);
}

/* ---- N threads that live all the while, and do the same thing when they are told ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t told = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static int (*task)(int);
static int round_no, running, good;

static void *living(void *arg)
{
	int seen = 0, me = (int)(intptr_t)arg;

	pthread_mutex_lock(&lock);
	for (;;) {
		while (seen == round_no)
			pthread_cond_wait(&told, &lock);
		seen = round_no;
		int (*fn)(int) = task;
		pthread_mutex_unlock(&lock);
		if (fn == NULL)
			return NULL;
		int ok = fn(me);
		pthread_mutex_lock(&lock);
		good += ok;
		if (--running == 0)
			pthread_cond_signal(&done);
	}
}

/* How many of them return other than 0. */
static int all(int (*fn)(int))
{
	int n;

	pthread_mutex_lock(&lock);
	task = fn;
	good = 0;
	running = N;
	round_no++;
	pthread_cond_broadcast(&told);
	while (fn && running > 0)
		pthread_cond_wait(&done, &lock);
	n = good;
	pthread_mutex_unlock(&lock);
	return n;
}

static int soil(int me)
{
	int ok = mod.initial();

	for (int i = 0; i < 5; i++) {
		mod.put(1000 + me);
		sched_yield();
		ok &= mod.get() == 1000 + me;
	}
	return ok;
}

static int still(int me)
{
	return mod.get() == 1000 + me;
}

static void *new_thread(void *arg)
{
	return (void *)(intptr_t)soil((int)(intptr_t)arg);
}

static void *idle(void *arg)
{
	return arg;
}

/* Three times as many as live at a time: memory is used again. */
static int all_new(void *(*fn)(void *))
{
	pthread_t t[N];
	void *r;
	int n = 0;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < N; i++)
			t[i] = start(fn, (void *)(intptr_t)(i + 1));
		for (int i = 0; i < N; i++) {
			pthread_join(t[i], &r);
			n += r != NULL;
		}
	}
	return n;
}

static void one_module(const char *name)
{
	char what[80];
	int ok = 1, fresh = 1, kept = 1, own = 1;

	for (int i = 0; i < 10; i++) {
		void *h = open_module(name), *again;

		find(h);
		own &= soil(77);
		ok &= all(soil) == N;
		fresh &= all_new(new_thread) == 3 * N;
		/* A second handle changes nothing. */
		again = open_module(name);
		kept &= again == h && all(still) == N && mod.get() == 1077;
		dlclose(again);
		kept &= all(still) == N;
		dlclose(h);
		fresh &= all_new(idle) == 3 * N;
	}
	snprintf(what, sizeof what, "%s: who opens it finds the image", name);
	check(what, own);
	snprintf(what, sizeof what, "%s: threads that live find the image", name);
	check(what, ok);
	snprintf(what, sizeof what, "%s: threads that come find the image", name);
	check(what, fresh);
	snprintf(what, sizeof what, "%s: opened twice, closed once", name);
	check(what, kept);
}

/* ---- a constructor that makes threads ---- */

static int (*host_fn)(int);

static int host_one(int me)
{
	return host_fn(500 + me);
}

static int in_constructor;

void host_call_in_threads(int (*fn)(int));
void host_call_in_threads(int (*fn)(int))
{
	host_fn = fn;
	in_constructor = all(host_one);
}

static int (*init_get)(void);

static int got_kept(int me)
{
	return init_get() == 500 + me;
}

static void with_constructor(void)
{
	int threads = 1, before = 1, after = 1;

	for (int i = 0; i < 5; i++) {
		void *h = open_module("init"), *p;
		int (*ok)(void);

		p = symbol(h, "init_ok"), memcpy(&ok, &p, sizeof p);
		p = symbol(h, "init_get"), memcpy(&init_get, &p, sizeof p);
		before &= in_constructor == N;
		threads &= ok();
		after &= all(got_kept) == N;
		dlclose(h);
	}
	check("constructor: its threads find the image and keep theirs", threads);
	check("constructor: living threads find the image at once", before);
	check("constructor: what they write then stays", after);
}

/* ---- thread_local objects of C++ ---- */

atomic_int host_made, host_gone;
static int (*cxx_use)(int);

static int cxx_one(int me)
{
	int was = cxx_use(me);

	return was == 77 && cxx_use(me) == me;
}

static void *cxx_thread(void *arg)
{
	return (void *)(intptr_t)cxx_one((int)(intptr_t)arg);
}

static int modules(struct dl_phdr_info *i, size_t n, void *arg)
{
	(void)n;
	if (strstr(i->dlpi_name, "module-cxx"))
		*(int *)arg = 1;
	return 0;
}

static void cxx(void)
{
	void *h = open_module("cxx"), *p;
	int loaded = 0, n;

	p = symbol(h, "cxx_use"), memcpy(&cxx_use, &p, sizeof p);
	n = all_new(cxx_thread);
	check("thread_local: made and gone with each thread", n == 3 * N && host_made == 6 * N && host_gone == 6 * N);
	check("thread_local: in threads that lived before", all(cxx_one) == N && host_made == 8 * N && host_gone == 6 * N);
	dlclose(h);
	dl_iterate_phdr(modules, &loaded);
	check("thread_local: their destructors keep the module", loaded == 1);
}

/* ---- opening and closing without end, while others use the module, bind symbols, convert, are made and end ---- */

static atomic_int stop, users_bad, gen;
static pthread_rwlock_t open_now = PTHREAD_RWLOCK_INITIALIZER;

static void *user(void *arg)
{
	int last = 0, me = (int)(intptr_t)arg;

	while (!stop) {
		pthread_rwlock_rdlock(&open_now);
		if (gen) {
			if (gen != last ? !mod.initial() : mod.get() != me)
				users_bad++;
			last = gen;
			mod.put(me);
		}
		pthread_rwlock_unlock(&open_now);
		sched_yield();
	}
	return NULL;
}

static void *looker(void *arg)
{
	while (!stop) {
		iconv_t c;

		if (dlsym(RTLD_DEFAULT, "fopen") == NULL || dlsym(RTLD_DEFAULT, "no such symbol") != NULL)
			users_bad++;
		c = iconv_open("ISO-8859-2", "UTF-8");
		if (c == (iconv_t)-1)
			users_bad++;
		else
			iconv_close(c);
		sched_yield();
	}
	return arg;
}

static void *maker(void *arg)
{
	while (!stop)
		pthread_join(start(idle, NULL), NULL);
	return arg;
}

static void *forker(void *arg)
{
	while (!stop) {
		int status = -1;
		pid_t pid = fork();

		if (pid == 0)
			_exit(33);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 33)
			users_bad++;
		usleep(500);
	}
	return arg;
}

static void storm(void)
{
	static const char *const names[] = {"initial-exec", "global-dynamic"};
	pthread_t t[8];

	for (int i = 0; i < 4; i++)
		t[i] = start(user, (void *)(intptr_t)(i + 1));
	t[4] = start(looker, NULL);
	t[5] = start(maker, NULL);
	t[6] = start(forker, NULL);
	t[7] = start(looker, NULL);
	for (int i = 1; i <= 200; i++) {
		void *h = open_module(names[i % 2]);

		pthread_rwlock_wrlock(&open_now);
		find(h);
		gen = i;
		pthread_rwlock_unlock(&open_now);
		for (int k = 0; k < 10; k++)
			sched_yield();
		pthread_rwlock_wrlock(&open_now);
		gen = 0;
		pthread_rwlock_unlock(&open_now);
		if (dlclose(h) != 0)
			users_bad++;
	}
	stop = 1;
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	check("opened and closed 200 times, in use", users_bad == 0);
}

/* ---- alignment ---- */

static __thread char aligned[300] __attribute__((aligned(256))) = "aligned";

static void *is_aligned(void *arg)
{
	char local[64] __attribute__((aligned(64)));
	volatile char *p = local;
	int ok = (uintptr_t)aligned % 256 == 0 && strcmp(aligned, "aligned") == 0 && (uintptr_t)p % 64 == 0;

	aligned[0] = 'x';
	sched_yield();
	return (void *)(intptr_t)(ok && aligned[0] == 'x' && arg != NULL);
}

int main(void)
{
	pthread_t t[N];

	alarm(120);
	check("TLS aligned to 256 bytes, in the first thread", is_aligned((void *)1) != NULL);
	check("TLS aligned to 256 bytes, in others", all_new(is_aligned) == 3 * N);
	for (int i = 0; i < N; i++)
		t[i] = start(living, (void *)(intptr_t)i);
	one_module("initial-exec");
	one_module("global-dynamic");
	with_constructor();
	cxx();
	storm();
	all(NULL);
	for (int i = 0; i < N; i++)
		pthread_join(t[i], NULL);
	check("thread_local: destructors of the last threads", host_made == host_gone);
	printf("%s\n", failures ? "FAILED" : "all ok");
	return failures != 0;
}
