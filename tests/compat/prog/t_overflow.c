/* SPDX-License-Identifier: MIT */
/*
 * Stacks: as deep as was asked for, true bounds, and the death of who goes further: by SIGSEGV, or as the program's own handler on an
 * alternate stack decides.  The deaths happen in children that run this program again with an argument.  Under pgreen
 * an overflow that nobody handles is told on stderr in one line; a fault that is none is not.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESTORER 0x04000000 /* libc shows the kernel's flag */

static int failures;

static void check(const char *what, int ok)
{
	printf("%-60s %s\n", what, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

/* ---- ways to die ---- */

static volatile int sink, no_end = 1, null_at = 8;

__attribute__((noinline)) static int deeper(int n)
{
	volatile char frame[200];

	frame[0] = (char)n;
	if (no_end)
		sink = deeper(n + 1) + frame[0];
	return sink;
}

/* Frames of half a page: the guard is hit by their middle. */
__attribute__((noinline)) static int deeper_large(int n)
{
	volatile char frame[2000];

	frame[0] = frame[1999] = (char)n;
	if (no_end)
		sink = deeper_large(n + 1) + frame[0];
	return sink;
}

static void *overflow(void *arg)
{
	if (arg)
		sched_yield();
	return (void *)(intptr_t)deeper(0);
}

static void *overflow_large(void *arg) { (void)arg; return (void *)(intptr_t)deeper_large(0); }

static void *null_pointer(void *arg)
{
	(void)arg;
	*(volatile int *)(uintptr_t)null_at = 1;
	return NULL;
}

static void *in_a_hole(void *arg)
{
	char *p = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)arg;
	*(volatile char *)p = 1;
	return NULL;
}

static void *raises(void *arg) { (void)arg; raise(SIGSEGV); return NULL; }
static void *to_process(void *arg) { (void)arg; kill(getpid(), SIGSEGV); for (;;) pause(); return NULL; }

static pthread_t start(void *(*fn)(void *), void *arg, size_t size)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	if (size && pthread_attr_setstacksize(&a, size))
		abort();
	if (pthread_create(&t, &a, fn, arg))
		abort();
	pthread_attr_destroy(&a);
	return t;
}

static void *nothing(void *arg) { return arg; }
static void *spins(void *arg) { for (;;) sched_yield(); return arg; }
static void *sleeps(void *arg) { for (;;) pause(); return arg; }

static void handler(int sig) { (void)sig; _exit(7); }
static void count(int sig) { (void)sig; }

static void action(void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGSEGV, &sa, NULL);
}

/* What a language's runtime does: each thread has an alternate stack, and knows its guard. */
static _Thread_local char *guard_lo, *guard_hi;

static void runtime_handler(int sig, siginfo_t *info, void *ctx)
{
	char *addr = info->si_addr;

	(void)ctx;
	if (addr >= guard_lo && addr < guard_hi) {
		if (write(1, "own stack overflow\n", 19) == 19)
			abort();
	}
	signal(sig, SIG_DFL);
}

static void runtime_thread(size_t alt)
{
	pthread_attr_t a;
	size_t size, guard;
	void *lo;
	stack_t ss = { .ss_size = alt };

	pthread_getattr_np(pthread_self(), &a);
	pthread_attr_getstack(&a, &lo, &size);
	pthread_attr_getguardsize(&a, &guard);
	pthread_attr_destroy(&a);
	guard_lo = (char *)lo - guard;
	guard_hi = (char *)lo + guard;
	ss.ss_sp = mmap(NULL, alt, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaltstack(&ss, NULL);
}

static void *runtime_overflow(void *arg)
{
	runtime_thread(64 << 10);
	for (int i = 0; i < 50; i++)
		sched_yield();
	deeper(0);
	return arg;
}

static void *runtime_null(void *arg)
{
	runtime_thread(64 << 10);
	sched_yield();
	return null_pointer(arg);
}

static void *runtime_idle(void *arg)
{
	runtime_thread(64 << 10);
	for (;;)
		sched_yield();
	return arg;
}

static void runtime_action(void)
{
	struct sigaction sa = { .sa_sigaction = runtime_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGSEGV, &sa, NULL);
}

static int child(const char *how)
{
	pthread_t t;
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	if (!strcmp(how, "thread"))
		t = start(overflow, NULL, 256 << 10);
	else if (!strcmp(how, "large"))
		t = start(overflow_large, NULL, 256 << 10);
	else if (!strcmp(how, "default"))
		t = start(overflow, NULL, 0);
	else if (!strcmp(how, "minimum"))
		t = start(overflow, NULL, (size_t)PTHREAD_STACK_MIN);
	else if (!strcmp(how, "busy")) {
		for (int i = 0; i < 4; i++)
			start(spins, NULL, 0);
		t = start(overflow, &t, 0);
	} else if (!strcmp(how, "many")) {
		for (int i = 0; i < 20; i++)
			t = start(overflow, &t, 256 << 10);
	} else if (!strcmp(how, "named")) {
		t = start(sleeps, NULL, 0);
		pthread_setname_np(pthread_self(), "first");
		deeper(0);
	} else if (!strcmp(how, "main")) {
		pthread_join(start(nothing, NULL, 0), NULL);
		t = pthread_self();
		deeper(0);
	} else if (!strcmp(how, "fork")) {
		pthread_join(start(nothing, NULL, 0), NULL);
		t = pthread_self();
		pid_t p = fork();
		int st;
		if (p == 0)
			deeper(0);
		waitpid(p, &st, 0);
		if (WIFSIGNALED(st))
			raise(WTERMSIG(st));
	} else if (!strcmp(how, "null"))
		t = start(null_pointer, NULL, 0);
	else if (!strcmp(how, "hole"))
		t = start(in_a_hole, NULL, 0);
	else if (!strcmp(how, "raise"))
		t = start(raises, NULL, 0);
	else if (!strcmp(how, "kill"))
		t = start(to_process, NULL, 0);
	else if (!strcmp(how, "handler")) {
		action(handler, 0);
		t = start(overflow, NULL, 256 << 10);
	} else if (!strcmp(how, "handler-onstack")) {
		/* asked for, but the thread has none */
		action(handler, SA_ONSTACK);
		t = start(overflow, NULL, 256 << 10);
	} else if (!strcmp(how, "handler-late")) {
		t = start(sleeps, NULL, 0);
		action(handler, SA_ONSTACK);
		t = start(overflow, NULL, 256 << 10);
	} else if (!strcmp(how, "handler-null")) {
		t = start(sleeps, NULL, 0);
		action(handler, SA_ONSTACK);
		t = start(null_pointer, NULL, 256 << 10);
	} else if (!strcmp(how, "handler-gone")) {
		t = start(sleeps, NULL, 0);
		action(count, 0);
		action(SIG_DFL, 0);
		t = start(overflow, NULL, 256 << 10);
	} else if (!strcmp(how, "ignored")) {
		action(SIG_IGN, 0);
		t = start(overflow, NULL, 256 << 10);
	} else if (!strcmp(how, "runtime")) {
		runtime_action();
		for (int i = 0; i < 6; i++)
			start(runtime_idle, NULL, 0);
		t = start(runtime_overflow, NULL, 256 << 10);
	} else if (!strcmp(how, "runtime-null")) {
		runtime_action();
		t = start(runtime_null, NULL, 256 << 10);
	} else
		return 3;
	pthread_join(t, NULL);
	return 4;
}

/* ---- the parent's side ---- */

static int under_pgreen(void)
{
	const char *s = getenv("LD_PRELOAD");

	return s && strstr(s, "libpgreen");
}

/* Runs the child; prints how it ended.  told: it must have said one line about an overflow, under pgreen. */
static void run(const char *how, int told)
{
	char err[8192], what[200];
	int p[2], st, lines = 0;
	size_t n = 0;
	ssize_t r;
	pid_t pid;

	fflush(stdout);
	if (pipe(p))
		abort();
	pid = fork();
	if (pid == 0) {
		dup2(p[1], 2);
		close(p[0]);
		close(p[1]);
		execl("/proc/self/exe", "t_overflow", how, (char *)NULL);
		_exit(9);
	}
	close(p[1]);
	while (n < sizeof err - 1 && ((r = read(p[0], err + n, sizeof err - 1 - n)) > 0 || (r < 0 && errno == EINTR)))
		n += r > 0 ? (size_t)r : 0;
	err[n] = 0;
	close(p[0]);
	while (waitpid(pid, &st, 0) < 0 && errno == EINTR)
		;
	for (char *s = err; (s = strstr(s, "stack overflow in thread")) != NULL; s++)
		lines++;
	if (WIFSIGNALED(st))
		snprintf(what, sizeof what, "%s: killed by signal %d", how, WTERMSIG(st));
	else
		snprintf(what, sizeof what, "%s: exit status %d", how, WEXITSTATUS(st));
	check(what, lines == (told && under_pgreen()));
	if (lines != (told && under_pgreen()))
		fprintf(stderr, "%s said: %s\n", how, err);
}

/* ---- deep, but not too deep ---- */

__attribute__((noinline)) static size_t down_to(char *limit, size_t n)
{
	volatile char frame[64];

	frame[0] = (char)n;
	if ((char *)frame > limit)
		n = down_to(limit, n + 1);
	return n + (size_t)(frame[0] & 0);
}

struct deep { size_t size, room; int bounds, again; };

static void *goes_deep(void *arg)
{
	struct deep *d = arg;
	pthread_attr_t a;
	size_t size, asked;
	char here, *lo;
	void *l;

	pthread_getattr_np(pthread_self(), &a);
	pthread_attr_getstack(&a, &l, &size);
	pthread_attr_getstacksize(&a, &asked);
	pthread_attr_destroy(&a);
	lo = l;
	d->bounds = &here > lo && &here < lo + size && size >= d->size && asked == d->size;
	/* All but what a thread has for itself at the top, and a margin for the frame of this test. */
	d->room = (size_t)(&here - lo);
	down_to(&here - (d->size - 8192), 0);
	for (int i = 0; i < 3; i++) {
		sched_yield();
		down_to(&here - (d->size - 8192), 0);
	}
	/* The lowest page is inside. */
	*(volatile char *)lo = 1;
	d->again = *(volatile char *)lo == 1;
	return NULL;
}

static void test_depth(void)
{
	const size_t sizes[] = { (size_t)PTHREAD_STACK_MIN, 64 << 10, 1 << 20, 8 << 20, 64 << 20 };
	char what[100];

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct deep d[4];
		pthread_t t[4];
		int ok = 1;

		for (int k = 0; k < 4; k++) {
			d[k] = (struct deep){ .size = sizes[i] };
			t[k] = start(goes_deep, &d[k], sizes[i]);
		}
		for (int k = 0; k < 4; k++) {
			pthread_join(t[k], NULL);
			ok &= d[k].bounds && d[k].again && d[k].room > d[k].size - 8192;
		}
		snprintf(what, sizeof what, "a stack of %zu bytes, nearly all of it used", sizes[i]);
		check(what, ok);
	}
}

/* The library's own arrangements do not show. */
static void *looks(void *arg)
{
	struct sigaction sa;
	stack_t ss, mine = { .ss_sp = arg, .ss_size = 64 << 10 };
	intptr_t ok = 1;

	memset(&ss, 0xff, sizeof ss);
	ok &= sigaltstack(NULL, &ss) == 0 && ss.ss_flags == SS_DISABLE && ss.ss_sp == NULL && ss.ss_size == 0;
	ok &= sigaction(SIGSEGV, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL && sa.sa_flags == 0;
	ok &= sigaltstack(&mine, &ss) == 0 && ss.ss_flags == SS_DISABLE;
	sched_yield();
	ok &= sigaltstack(NULL, &ss) == 0 && ss.ss_flags == 0 && ss.ss_sp == arg && ss.ss_size == 64 << 10;
	mine.ss_flags = SS_DISABLE;
	ok &= sigaltstack(&mine, &ss) == 0 && ss.ss_flags == 0 && ss.ss_sp == arg;
	sched_yield();
	ok &= sigaltstack(NULL, &ss) == 0 && ss.ss_flags == SS_DISABLE && ss.ss_sp == NULL;
	return (void *)ok;
}

static void test_hidden(void)
{
	pthread_t t[8];
	void *r;
	int ok = 1;
	struct sigaction sa, back;

	for (int i = 0; i < 8; i++)
		t[i] = start(looks, malloc(64 << 10), 0);
	for (int i = 0; i < 8; i++) {
		pthread_join(t[i], &r);
		ok &= r != NULL;
	}
	check("no alternate stack, default action: as the program left them", ok);
	action(count, SA_RESTART | SA_NODEFER);
	ok = sigaction(SIGSEGV, NULL, &sa) == 0 && sa.sa_handler == count && (sa.sa_flags & ~RESTORER) == (SA_RESTART | SA_NODEFER);
	memset(&back, 0, sizeof back);
	back.sa_handler = SIG_DFL;
	back.sa_flags = SA_RESTART;
	ok &= sigaction(SIGSEGV, &back, &sa) == 0 && sa.sa_handler == count;
	ok &= sigaction(SIGSEGV, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL && (sa.sa_flags & ~RESTORER) == SA_RESTART;
	ok &= signal(SIGSEGV, SIG_DFL) == SIG_DFL;
	check("what is set is what is got", ok);
}

/* A handler with SA_ONSTACK in a thread that has no alternate stack runs on the thread's, and may wait there. */
static atomic_int onstack_ok, onstack_runs;

static _Thread_local char *bound_lo, *bound_hi;

static void learn_bounds(void)
{
	pthread_attr_t a;
	size_t size;
	void *lo;

	pthread_getattr_np(pthread_self(), &a);
	pthread_attr_getstack(&a, &lo, &size);
	pthread_attr_destroy(&a);
	bound_lo = lo;
	bound_hi = bound_lo + size;
}

static void onstack(int sig)
{
	char here;

	(void)sig;
	for (int i = 0; i < 10; i++)
		sched_yield();
	if (&here > bound_lo && &here < bound_hi)
		onstack_ok++;
	onstack_runs++;
}

static void *sends_itself(void *arg)
{
	volatile unsigned spin = 0;
	sigset_t usr1;

	learn_bounds();
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
	for (int i = 0; i < 20; i++) {
		kill(getpid(), SIGUSR1);
		for (int k = 0; k < 20000; k++)
			spin++;
		raise(SIGUSR1);
	}
	return arg;
}

static void test_onstack_without(void)
{
	struct sigaction sa = { .sa_handler = onstack, .sa_flags = SA_ONSTACK | SA_RESTART };
	sigset_t usr1;
	pthread_t t[4];

	/* The threads take it, main does not. */
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	for (int i = 0; i < 4; i++)
		t[i] = start(sends_itself, NULL, 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
	check("SA_ONSTACK without an alternate stack", onstack_ok == onstack_runs && onstack_runs >= 80);
	signal(SIGUSR1, SIG_DFL);
}

int main(int argc, char **argv)
{
	static const char *told[] = { "thread", "large", "default", "minimum", "busy", "many", "named", "main", "fork", "handler-gone" };
	static const char *silent[] = { "null", "hole", "raise", "kill", "handler", "handler-onstack", "handler-late", "handler-null",
					"ignored", "runtime", "runtime-null" };

	if (argc > 1)
		return child(argv[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	test_depth();
	test_hidden();
	test_onstack_without();
	for (size_t i = 0; i < sizeof told / sizeof *told; i++)
		run(told[i], 1);
	for (size_t i = 0; i < sizeof silent / sizeof *silent; i++)
		run(silent[i], 0);
	return failures != 0;
}
