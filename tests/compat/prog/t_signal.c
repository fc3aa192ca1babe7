/* SPDX-License-Identifier: MIT */
/*
 * Signals in a program of many threads: who runs the handler, masks, waiting, interrupted calls, alternate stacks, jumps.
 * Prints one line per case; the same natively and under pgreen.  Results are recorded by the threads, printed by main.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N 20

static int failures;

static void check(const char *what, int ok)
{
	printf("%-52s %s\n", what, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

static void nap(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static void until(atomic_int *v, int n)
{
	for (int i = 0; i < 20000 && atomic_load(v) < n; i++)
		nap(1);
}

static void handle(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

static void handle_info(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = { .sa_sigaction = fn, .sa_flags = flags | SA_SIGINFO };

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

static void set_of(sigset_t *set, int sig)
{
	sigemptyset(set);
	sigaddset(set, sig);
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, arg) != 0)
		abort();
	return t;
}

static atomic_int ready, done, hits, go;
static void reset(void) { ready = done = hits = go = 0; }

/* ---- the handler runs in the thread that was meant ---- */

static struct slot {
	pthread_t t, ran_in;
	atomic_int n;
	int in_thread;
} slots[N];
static __thread struct slot *my_slot;

static void note_thread(int sig)
{
	(void)sig;
	if (my_slot != NULL) {
		my_slot->ran_in = pthread_self();
		atomic_fetch_add(&my_slot->n, 1);
	}
	atomic_fetch_add(&hits, 1);
}

static void *wait_parked(void *arg)
{
	static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	static pthread_cond_t c = PTHREAD_COND_INITIALIZER;

	my_slot = arg;
	atomic_fetch_add(&ready, 1);
	if (((struct slot *)arg - slots) % 2) {
		pthread_mutex_lock(&m);
		while (!go) {
			struct timespec ts;
			clock_gettime(CLOCK_REALTIME, &ts);
			ts.tv_nsec += 20000000;
			if (ts.tv_nsec >= 1000000000)
				ts.tv_sec++, ts.tv_nsec -= 1000000000;
			pthread_cond_timedwait(&c, &m, &ts);
		}
		pthread_mutex_unlock(&m);
	} else {
		while (!go)
			nap(5);
	}
	return NULL;
}

static void test_kill_each(void)
{
	int ok = 1;

	reset();
	handle(SIGUSR1, note_thread, SA_RESTART);
	for (int i = 0; i < N; i++)
		slots[i].t = start(wait_parked, &slots[i]);
	until(&ready, N);
	for (int i = 0; i < N; i++)
		ok &= pthread_kill(slots[i].t, SIGUSR1) == 0;
	until(&hits, N);
	check("pthread_kill: 20 threads, 20 handlers", ok && hits == N);
	ok = pthread_kill(slots[0].t, 0) == 0 && pthread_kill(slots[0].t, 99) == EINVAL && pthread_kill(slots[0].t, 32) == EINVAL;
	check("pthread_kill: signal 0, bad signals", ok);
	ok = 1;
	go = 1;
	for (int i = 0; i < N; i++) {
		pthread_join(slots[i].t, NULL);
		ok &= slots[i].n == 1 && pthread_equal(slots[i].ran_in, slots[i].t);
	}
	check("pthread_kill: each in its own thread, once", ok);
}

/* ---- masks ---- */

static void *mask_thread(void *arg)
{
	sigset_t set, old, pend;
	struct slot *s = arg;
	int inherited;

	my_slot = s;
	pthread_sigmask(SIG_SETMASK, NULL, &old);
	inherited = sigismember(&old, SIGUSR2);
	set_of(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	atomic_fetch_add(&ready, 1);
	while (!go)
		nap(2);
	sigpending(&pend);
	s->in_thread = inherited && s->n == 0 && sigismember(&pend, SIGUSR1) && !sigismember(&pend, SIGUSR2);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	s->in_thread = s->in_thread && s->n == 1 && pthread_equal(s->ran_in, pthread_self());
	sigpending(&pend);
	s->in_thread = s->in_thread && !sigismember(&pend, SIGUSR1);
	return NULL;
}

/* The only thread with the signal unblocked: it must have it when kill returns. */
static void *kill_thread(void *arg)
{
	sigset_t set;

	my_slot = arg;
	set_of(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	for (int i = 1; i <= 100; i++) {
		kill(getpid(), SIGUSR1);
		if (my_slot->n != i)
			return (void *)1;
	}
	return NULL;
}

static void test_kill_process(void)
{
	sigset_t set;
	pthread_t t;
	void *res;

	memset(slots, 0, sizeof slots);
	handle(SIGUSR1, note_thread, 0);
	set_of(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	t = start(kill_thread, &slots[0]);
	pthread_join(t, &res);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	check("kill: from the one thread that takes it, 100 times", res == NULL && pthread_equal(slots[0].ran_in, t));
}

static void test_masks(void)
{
	sigset_t set, old;
	int ok = 1;

	reset();
	memset(slots, 0, sizeof slots);
	set_of(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < N; i++)
		slots[i].t = start(mask_thread, &slots[i]);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	until(&ready, N);
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 3; k++)
			pthread_kill(slots[i].t, SIGUSR1);
	go = 1;
	for (int i = 0; i < N; i++) {
		pthread_join(slots[i].t, NULL);
		ok &= slots[i].in_thread;
	}
	check("masks: inherited, per thread, pending, on unblock", ok);
	pthread_sigmask(SIG_BLOCK, NULL, &old);
	check("masks: main's is its own", !sigismember(&old, SIGUSR1) && !sigismember(&old, SIGUSR2));
	sigfillset(&set);
	pthread_sigmask(SIG_SETMASK, &set, &old);
	pthread_sigmask(SIG_SETMASK, &old, &set);
	check("masks: kill and stop can not be blocked", !sigismember(&set, SIGKILL) && !sigismember(&set, SIGSTOP) &&
	      sigismember(&set, SIGTERM));
	errno = 0;
	ok = pthread_sigmask(77, &set, NULL) == EINVAL && pthread_sigmask(77, NULL, &old) == 0;
	ok = ok && sigprocmask(77, &set, NULL) == -1 && errno == EINVAL;
	check("masks: a wrong how", ok);
	hits = 0;
	my_slot = NULL;
	handle(SIGUSR1, note_thread, 0);
	raise(SIGUSR1);
	ok = hits == 1;
	set_of(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR1);
	ok = ok && hits == 1;
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	check("raise: before it returns, or on unblock", ok && hits == 2);
	kill(getpid(), SIGUSR1);
	check("kill: to oneself, before it returns", hits == 3);
}

/* ---- waiting for signals ---- */

static atomic_int taken;

static void *sigwaiter(void *arg)
{
	sigset_t set;
	int sig;

	(void)arg;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGTERM);
	for (;;) {
		if (sigwait(&set, &sig) != 0)
			return (void *)1;
		if (sig == SIGTERM)
			return NULL;
		atomic_fetch_add(&taken, 1);
	}
}

static void test_sigwait(void)
{
	struct timespec ts = { 0, 30000000 }, a, b, zero = { 0, 0 }, bad = { 0, 1000000000 };
	sigset_t set;
	siginfo_t si;
	pthread_t t;
	void *res;
	int r, ok;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	t = start(sigwaiter, NULL);
	for (int i = 1; i <= 200; i++) {
		kill(getpid(), SIGUSR2);
		until(&taken, i);
	}
	kill(getpid(), SIGTERM);
	pthread_join(t, &res);
	check("sigwait: 200 signals to the process", taken == 200 && res == NULL);
	clock_gettime(CLOCK_MONOTONIC, &a);
	errno = 0;
	r = sigtimedwait(&set, &si, &ts);
	ok = r == -1 && errno == EAGAIN;
	clock_gettime(CLOCK_MONOTONIC, &b);
	ok = ok && (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec >= 30000000;
	ok = ok && sigtimedwait(&set, &si, &zero) == -1 && errno == EAGAIN;
	check("sigtimedwait: timeout, poll", ok);
	ok = sigtimedwait(&set, &si, &bad) == -1 && errno == EINVAL;
	check("sigtimedwait: a wrong time", ok);
	pthread_kill(pthread_self(), SIGUSR2);
	ok = sigtimedwait(&set, &si, &zero) == SIGUSR2 && si.si_signo == SIGUSR2 && si.si_pid == getpid();
	check("sigtimedwait: takes a pending one", ok);
	sigqueue(getpid(), SIGUSR2, (union sigval){ .sival_int = 77 });
	ok = sigwaitinfo(&set, &si) == SIGUSR2 && si.si_code == SI_QUEUE && si.si_value.sival_int == 77;
	check("sigwaitinfo: a queued value", ok);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static atomic_int suspended_ok;

static void *suspender(void *arg)
{
	sigset_t block, empty, now;
	int r, e;

	(void)arg;
	my_slot = &slots[0];
	set_of(&block, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &block, NULL);
	atomic_fetch_add(&ready, 1);
	sigemptyset(&empty);
	r = sigsuspend(&empty);
	e = errno;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	suspended_ok = r == -1 && e == EINTR && sigismember(&now, SIGUSR1) && slots[0].n == 1;
	return NULL;
}

static atomic_int paused;

static void *pauser(void *arg)
{
	(void)arg;
	atomic_fetch_add(&ready, 1);
	if (pause() == -1 && errno == EINTR)
		atomic_fetch_add(&paused, 1);
	atomic_fetch_add(&done, 1);
	return NULL;
}

static void test_suspend(void)
{
	pthread_t t[N], s;

	reset();
	memset(slots, 0, sizeof slots);
	handle(SIGUSR1, note_thread, SA_RESTART);
	s = start(suspender, NULL);
	until(&ready, 1);
	pthread_kill(s, SIGUSR1);
	pthread_join(s, NULL);
	check("sigsuspend: blocked signal comes, mask is back", suspended_ok);
	reset();
	for (int i = 0; i < N; i++)
		t[i] = start(pauser, NULL);
	until(&ready, N);
	for (int i = 0; done < N && i < 20000; i++) { /* a thread may not have reached pause yet */
		for (int k = 0; k < N; k++)
			pthread_kill(t[k], SIGUSR1);
		nap(5);
	}
	for (int i = 0; i < N; i++)
		pthread_join(t[i], NULL);
	check("pause: woken by pthread_kill", paused == N);
}

/* ---- interrupted calls ---- */

static int pipe_fd[2];
static int read_result, read_errno;

static void *reader(void *arg)
{
	char c;

	(void)arg;
	atomic_fetch_add(&ready, 1);
	read_result = (int)read(pipe_fd[0], &c, 1);
	read_errno = errno;
	atomic_fetch_add(&done, 1);
	return NULL;
}

static void count(int sig)
{
	(void)sig;
	atomic_fetch_add(&hits, 1);
}

static int sleep_ok;

static void *sleeper(void *arg)
{
	struct timespec ts = { 60, 0 }, left = { 0, 0 };

	(void)arg;
	atomic_fetch_add(&ready, 1);
	/* a little more than 60 when it is interrupted at once: the timer's slack */
	sleep_ok = nanosleep(&ts, &left) == -1 && errno == EINTR && left.tv_sec >= 1 && left.tv_sec <= 60;
	atomic_fetch_add(&done, 1);
	return NULL;
}

static void test_eintr(void)
{
	pthread_t t;

	if (pipe(pipe_fd) < 0)
		abort();
	reset();
	handle(SIGUSR1, count, 0);
	t = start(reader, NULL);
	until(&ready, 1);
	for (int i = 0; !done && i < 20000; i++) {
		pthread_kill(t, SIGUSR1);
		nap(5);
	}
	pthread_join(t, NULL);
	check("read: EINTR without SA_RESTART", read_result == -1 && read_errno == EINTR);
	reset();
	handle(SIGUSR1, count, SA_RESTART);
	t = start(reader, NULL);
	until(&ready, 1);
	nap(20);
	for (int i = 1; i <= 5; i++) {
		pthread_kill(t, SIGUSR1);
		until(&hits, i);
	}
	check("read: SA_RESTART goes on, handlers ran", !done && hits == 5);
	if (write(pipe_fd[1], "x", 1) != 1)
		abort();
	pthread_join(t, NULL);
	check("read: and gets its byte", read_result == 1);
	reset();
	t = start(sleeper, NULL);
	until(&ready, 1);
	for (int i = 0; !done && i < 20000; i++) {
		pthread_kill(t, SIGUSR1);
		nap(5);
	}
	pthread_join(t, NULL);
	check("nanosleep: EINTR even with SA_RESTART, time left", sleep_ok);
}

/* ---- timers of the process, with everybody parked ---- */

static void *parked(void *arg)
{
	pthread_mutex_t *m = arg;

	atomic_fetch_add(&ready, 1);
	pthread_mutex_lock(m);
	pthread_mutex_unlock(m);
	return NULL;
}

static void test_alarm(void)
{
	static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	struct itimerval tick = { { 0, 10000 }, { 0, 10000 } }, off = { { 0, 0 }, { 0, 0 } };
	pthread_t t[N];
	sigset_t set, old;

	reset();
	handle(SIGALRM, count, 0);
	set_of(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	pthread_mutex_lock(&m);
	for (int i = 0; i < N; i++)
		t[i] = start(parked, &m);
	until(&ready, N);
	alarm(1);
	while (hits < 1)
		sigsuspend(&old);
	check("alarm: all threads parked, main suspended", hits == 1);
	setitimer(ITIMER_REAL, &tick, NULL);
	while (hits < 6)
		sigsuspend(&old);
	setitimer(ITIMER_REAL, &off, NULL);
	check("setitimer: five ticks", hits >= 6);
	pthread_mutex_unlock(&m);
	for (int i = 0; i < N; i++)
		pthread_join(t[i], NULL);
	handle(SIGALRM, SIG_DFL, 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	alarm(120);
}

/* ---- alternate stacks, faults, jumps ---- */

struct alt {
	char *lo;
	size_t size;
	int on_it, flag_in, flag_after;
};
static __thread struct alt *my_alt;

static void alt_handler(int sig)
{
	char here;
	stack_t ss;

	(void)sig;
	my_alt->on_it = &here >= my_alt->lo && &here < my_alt->lo + my_alt->size;
	sigaltstack(NULL, &ss);
	my_alt->flag_in = (ss.ss_flags & SS_ONSTACK) != 0;
}

static void *alt_thread(void *arg)
{
	struct alt *a = arg;
	stack_t ss = { 0 };

	my_alt = a;
	a->size = 65536;
	a->lo = malloc(a->size);
	ss.ss_sp = a->lo;
	ss.ss_size = a->size;
	sigaltstack(&ss, NULL);
	atomic_fetch_add(&ready, 1);
	until(&ready, N);
	raise(SIGUSR1);
	sigaltstack(NULL, &ss);
	a->flag_after = ss.ss_flags == 0 && ss.ss_sp == a->lo && ss.ss_size == a->size;
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, NULL);
	return NULL;
}

static void test_altstack(void)
{
	static struct alt alts[N];
	stack_t small = { .ss_sp = slots, .ss_size = 16 };
	pthread_t t[N];
	int ok = 1;

	reset();
	handle(SIGUSR1, alt_handler, SA_ONSTACK);
	for (int i = 0; i < N; i++)
		t[i] = start(alt_thread, &alts[i]);
	for (int i = 0; i < N; i++) {
		pthread_join(t[i], NULL);
		ok &= alts[i].on_it && alts[i].flag_in && alts[i].flag_after;
		free(alts[i].lo);
	}
	check("sigaltstack: each thread's handler on its own", ok);
	errno = 0;
	ok = sigaltstack(&small, NULL) == -1 && errno == ENOMEM;
	check("sigaltstack: too small", ok);
}

static char *page;
static __thread sigjmp_buf back;
static volatile char *volatile nowhere = (char *)8;

static void repair(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)uc;
	if ((char *)si->si_addr == page)
		mprotect(page, 4096, PROT_READ | PROT_WRITE);
	atomic_fetch_add(&hits, 1);
}

static void jump_out(int sig)
{
	(void)sig;
	siglongjmp(back, 7);
}

static void *repair_thread(void *arg)
{
	(void)arg;
	*(volatile char *)page = 42;
	return NULL;
}

static void *jump_thread(void *arg)
{
	volatile int rounds = 0, ok = 1;
	sigset_t now;

	for (volatile int i = 0; i < 50; i++) {
		int r = sigsetjmp(back, 1);
		if (r == 0) {
			*nowhere = 1;
			ok = 0;
		} else {
			ok = ok && r == 7;
			pthread_sigmask(SIG_BLOCK, NULL, &now);
			ok = ok && !sigismember(&now, SIGSEGV);
			rounds++;
		}
	}
	*(int *)arg = ok && rounds == 50;
	return NULL;
}

/* Without a saved mask the signal stays blocked after the jump. */
static void *jump_nomask_thread(void *arg)
{
	volatile int ok = 0;
	sigset_t now, set;

	if (sigsetjmp(back, 0) == 0) {
		raise(SIGUSR1);
	} else {
		pthread_sigmask(SIG_BLOCK, NULL, &now);
		ok = sigismember(&now, SIGUSR1);
		set_of(&set, SIGUSR1);
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	}
	*(int *)arg = ok;
	return NULL;
}

static void test_faults(void)
{
	pthread_t t[N];
	int oks[N], ok = 1;

	reset();
	page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	handle_info(SIGSEGV, repair, 0);
	t[0] = start(repair_thread, NULL);
	pthread_join(t[0], NULL);
	check("SIGSEGV: the handler repairs, the store goes on", *page == 42 && hits == 1);
	handle(SIGSEGV, jump_out, 0);
	for (int i = 0; i < N; i++)
		t[i] = start(jump_thread, &oks[i]);
	for (int i = 0; i < N; i++) {
		pthread_join(t[i], NULL);
		ok &= oks[i];
	}
	check("SIGSEGV: siglongjmp out, 50 times in 20 threads", ok);
	handle(SIGUSR1, jump_out, 0);
	t[0] = start(jump_nomask_thread, &oks[0]);
	pthread_join(t[0], NULL);
	check("longjmp without a mask leaves the signal blocked", oks[0]);
	handle(SIGSEGV, SIG_DFL, 0);
}

/* ---- queued values, children, old interfaces ---- */

static atomic_int queue_sum, queue_order_ok, queue_last;

static void take_value(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)uc;
	if (si->si_code != SI_QUEUE || si->si_value.sival_int <= queue_last)
		queue_order_ok = 0;
	queue_last = si->si_value.sival_int;
	queue_sum += si->si_value.sival_int;
	atomic_fetch_add(&hits, 1);
}

static void *queue_thread(void *arg)
{
	sigset_t set;

	(void)arg;
	set_of(&set, SIGRTMIN + 1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	atomic_fetch_add(&ready, 1);
	while (!go)
		nap(2);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	done = hits;
	return NULL;
}

static void test_queue(void)
{
	pthread_t t;
	int ok = 1;

	reset();
	queue_order_ok = 1;
	handle_info(SIGRTMIN + 1, take_value, 0);
	t = start(queue_thread, NULL);
	until(&ready, 1);
	for (int i = 1; i <= 100; i++)
		ok &= pthread_sigqueue(t, SIGRTMIN + 1, (union sigval){ .sival_int = i }) == 0;
	go = 1;
	pthread_join(t, NULL);
	check("pthread_sigqueue: 100 values, in order, none lost", ok && done == 100 && queue_sum == 5050 && queue_order_ok);
}

static void test_child(void)
{
	int status = 0;
	pid_t pid;

	reset();
	handle(SIGCHLD, count, SA_RESTART);
	pid = fork();
	if (pid == 0)
		_exit(9);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	until(&hits, 1);
	check("SIGCHLD: handler ran, waitpid has the status", hits == 1 && WIFEXITED(status) && WEXITSTATUS(status) == 9);
	handle(SIGCHLD, SIG_DFL, 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		sigset_t set;
		set_of(&set, SIGABRT);
		signal(SIGABRT, SIG_IGN);
		pthread_sigmask(SIG_BLOCK, &set, NULL);
		abort();
	}
	waitpid(pid, &status, 0);
	check("abort: though blocked and ignored", WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_old(void)
{
	struct sigaction sa;
	void (*was)(int);
	int ok;

	hits = 0;
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	signal(SIGUSR1, count);
	sigaction(SIGUSR1, NULL, &sa);
	ok = sa.sa_handler == count && (sa.sa_flags & SA_RESTART);
	siginterrupt(SIGUSR1, 1);
	sigaction(SIGUSR1, NULL, &sa);
	ok = ok && !(sa.sa_flags & SA_RESTART);
	was = signal(SIGUSR1, SIG_IGN);
	raise(SIGUSR1);
	ok = ok && was == count && hits == 0;
	was = signal(SIGUSR1, SIG_DFL);
	check("signal, siginterrupt", ok && was == SIG_IGN);
	sysv_signal(SIGUSR1, count);
	raise(SIGUSR1);
	sigaction(SIGUSR1, NULL, &sa);
	check("sysv_signal: once", hits == 1 && sa.sa_handler == SIG_DFL);
	errno = 0;
	ok = sigaction(SIGKILL, &sa, NULL) == -1 && errno == EINVAL && sigaction(32, NULL, &sa) == -1 && sigaction(0, NULL, &sa) == -1;
	ok = ok && sigaction(SIGKILL, NULL, &sa) == 0 && signal(99, count) == SIG_ERR;
	check("sigaction: what it refuses", ok);
}

int main(void)
{
	alarm(120);
	test_kill_each();
	test_masks();
	test_kill_process();
	test_sigwait();
	test_suspend();
	test_eintr();
	test_alarm();
	test_altstack();
	test_faults();
	test_queue();
	test_child();
	test_old();
	printf("%s\n", failures ? "FAILED" : "all ok");
	return failures != 0;
}
