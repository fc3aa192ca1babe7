/* SPDX-License-Identifier: MIT */
/*
 * System calls by number, through syscall(), from threads: what they change is seen by libc's functions and the other way round; no
 * cancellation point; processes made by clone; a thread that ends by number.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

static void check(const char *what, int ok)
{
	printf("%-52s %s\n", what, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

static void nap(long us)
{
	struct timespec ts = { 0, us * 1000 };

	nanosleep(&ts, NULL);
}

/* Runs fn in a thread; its answer. */
static void *in_thread(void *(*fn)(void *), void *arg)
{
	pthread_t t;
	void *r;

	if (pthread_create(&t, NULL, fn, arg) || pthread_join(t, &r))
		abort();
	return r;
}

/* ---- signals ---- */

struct kact {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

static atomic_int hits;
static pthread_t ran_in;
static void on_signal(int sig) { (void)sig; hits++; ran_in = pthread_self(); }

static void *actions(void *arg)
{
	struct kact act = { on_signal, 0, NULL, 1ull << (SIGUSR2 - 1) }, old;
	struct sigaction sa;
	int ok;

	(void)arg;
	/* by number: the kernel wants a restorer on x86-64, which is libc's */
	sigaction(SIGUSR1, NULL, &sa);
	sa.sa_handler = on_signal;
	sa.sa_flags = 0;
	sigaction(SIGUSR1, &sa, NULL);
	ok = syscall(SYS_rt_sigaction, SIGUSR1, NULL, &old, 8) == 0 && old.handler == on_signal;
	act.flags = old.flags | SA_RESTART;
	act.restorer = old.restorer;
	ok &= syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, 8) == 0;
	ok &= sigaction(SIGUSR1, NULL, &sa) == 0 && sa.sa_handler == on_signal && (sa.sa_flags & SA_RESTART) &&
	      sigismember(&sa.sa_mask, SIGUSR2) == 1 && sigismember(&sa.sa_mask, SIGHUP) == 0;
	hits = 0;
	ok &= pthread_kill(pthread_self(), SIGUSR1) == 0 && hits == 1 && pthread_equal(ran_in, pthread_self());
	ok &= syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, 4) == -1 && errno == EINVAL;
	ok &= syscall(SYS_rt_sigaction, SIGKILL, &act, NULL, 8) == -1 && errno == EINVAL;
	return (void *)(long)ok;
}

static void *masks(void *arg)
{
	uint64_t set = 1ull << (SIGUSR1 - 1), pend = 0;
	sigset_t now;
	int ok;

	(void)arg;
	ok = syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 8) == 0;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	ok &= sigismember(&now, SIGUSR1) == 1;
	hits = 0;
	ok &= syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1) == 0 && hits == 0;
	ok &= syscall(SYS_rt_sigpending, &pend, 8) == 0 && (pend & set);
	ok &= syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, 8) == 0 && hits == 1;
	return (void *)(long)ok;
}

static void *suspends(void *arg)
{
	uint64_t set = 1ull << (SIGUSR1 - 1), none = 0;
	int ok;

	(void)arg;
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 8);
	hits = 0;
	pthread_kill(pthread_self(), SIGUSR1);
	ok = syscall(SYS_rt_sigsuspend, &none, 8) == -1 && errno == EINTR && hits == 1;
	pthread_kill(pthread_self(), SIGUSR1);
	ok &= syscall(SYS_rt_sigtimedwait, &set, NULL, NULL, 8) == SIGUSR1 && hits == 1;
	ok &= syscall(SYS_rt_sigtimedwait, &set, NULL, &(struct timespec){ 0, 1000 }, 8) == -1 && errno == EAGAIN;
	return (void *)(long)ok;
}

/* ---- descriptors ---- */

static void *flags(void *arg)
{
	int p[2], ok;
	char c;

	(void)arg;
	if (pipe(p))
		return NULL;
	ok = syscall(SYS_fcntl, p[0], F_SETFL, O_NONBLOCK) == 0;
	ok &= read(p[0], &c, 1) == -1 && errno == EAGAIN;
	ok &= syscall(SYS_read, p[0], &c, 1) == -1 && errno == EAGAIN;
	ok &= syscall(SYS_write, p[1], "x", 1) == 1 && syscall(SYS_read, p[0], &c, 1) == 1 && c == 'x';
	ok &= syscall(SYS_dup2, p[1], p[0]) == p[0] && syscall(SYS_close, p[1]) == 0;
	ok &= syscall(SYS_close, p[0]) == 0 && syscall(SYS_close, p[0]) == -1 && errno == EBADF;
	ok &= syscall(SYS_read, p[0], &c, 1) == -1 && errno == EBADF;
	return (void *)(long)ok;
}

static void *times(void *arg)
{
	struct timespec ts = { 0, 2000000 };
	struct pollfd none = { -1, 0, 0 };
	int p[2], ok;
	struct { const void *set; size_t size; } mask = { NULL, 0 };

	(void)arg;
	ok = syscall(SYS_ppoll, &none, 1, &ts, NULL, 0) == 0 && ts.tv_sec == 0 && ts.tv_nsec == 0;
	ts = (struct timespec){ 0, 2000000 };
	ok &= syscall(SYS_pselect6, 0, NULL, NULL, NULL, &ts, &mask) == 0 && ts.tv_nsec == 0;
	if (pipe(p))
		return NULL;
	none.fd = p[1];
	none.events = POLLOUT;
	ts = (struct timespec){ 100, 0 };
	ok &= syscall(SYS_ppoll, &none, 1, &ts, NULL, 0) == 1 && ts.tv_sec >= 99;
	ok &= syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &(struct timespec){ 0, -1 }, NULL) == -1 && errno == EINVAL;
	ok &= syscall(SYS_nanosleep, &(struct timespec){ 0, 1000 }, NULL) == 0;
	close(p[0]);
	close(p[1]);
	return (void *)(long)ok;
}

/* ---- no cancellation point ---- */

static int quiet[2];
static atomic_int in_read, out_of_read;
static void *reads_by_number(void *arg)
{
	char c;

	in_read = 1;
	if (syscall(SYS_read, quiet[0], &c, 1) == 1)
		out_of_read = 1;
	pthread_testcancel();
	return arg;
}

static int cancels(void)
{
	pthread_t t;
	void *r;
	int early;

	if (pipe(quiet) || pthread_create(&t, NULL, reads_by_number, NULL))
		return 0;
	while (!in_read)
		nap(100);
	nap(2000);
	pthread_cancel(t);
	nap(2000);
	early = out_of_read;
	if (write(quiet[1], "x", 1) != 1)
		return 0;
	pthread_join(t, &r);
	return !early && out_of_read && r == PTHREAD_CANCELED;
}

/* ---- processes and threads ---- */

static void *nothing(void *arg) { return arg; }

static int child_lives(void)
{
	int x;

	return in_thread(nothing, &x) == &x && syscall(SYS_getpid) == getpid();
}

static int reap(long pid)
{
	int st;

	return pid > 0 && waitpid((pid_t)pid, &st, 0) == pid && st == 0;
}

static void *forks(void *arg)
{
	struct clone_args ca = { .exit_signal = SIGCHLD };
	long pid;
	int ok;

	(void)arg;
	if ((pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) == 0)
		_exit(!child_lives());
	ok = reap(pid);
	if ((pid = syscall(SYS_clone3, &ca, sizeof ca)) == 0)
		_exit(!child_lives());
	ok &= reap(pid);
	if ((pid = syscall(SYS_fork)) == 0)
		_exit(!child_lives());
	return (void *)(long)(ok & reap(pid));
}

static atomic_int went_on;
static void *leaves(void *arg)
{
	syscall(SYS_exit, 0);
	went_on = 1;
	return arg;
}

static void *names(void *arg)
{
	char name[16] = "";

	(void)arg;
	return (void *)(long)(syscall(SYS_prctl, PR_SET_NAME, "by number", 0, 0, 0) == 0 &&
			      pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, "by number") == 0 &&
			      syscall(SYS_gettid) == gettid());
}

/* ---- futexes ---- */

static atomic_uint word, word2;
static void *waits(void *arg)
{
	const struct timespec *ts = arg;

	while (word == 0)
		if (syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, ts, NULL, 0) == -1 && errno != EAGAIN && errno != EINTR)
			return NULL;
	return &word;
}

static int wakes(void)
{
	struct timespec ts = { 100, 0 };
	pthread_t t[3];
	int ok = 1;

	word = 0;
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, waits, i ? &ts : NULL);
	nap(2000);
	word = 1;
	syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 3, NULL, NULL, 0);
	for (int i = 0; i < 3; i++) {
		void *r;
		pthread_join(t[i], &r);
		ok &= r == &word;
	}
	return ok;
}

static int times_out(void)
{
	struct timespec ts = { 0, 2000000 };

	word = 0;
	return syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &ts, NULL, 0) == -1 && errno == ETIMEDOUT &&
	       syscall(SYS_futex, &word, FUTEX_WAIT, 0, &ts, NULL, 0) == -1 && errno == ETIMEDOUT &&
	       syscall(SYS_futex, &word, FUTEX_WAIT, 1, &ts, NULL, 0) == -1 && errno == EAGAIN;
}

/* futex_waitv, on the first of two words; woken by the old call. */
static void *waits_for_two(void *arg)
{
	struct futex_waitv w[2] = {
		{ .val = 0, .uaddr = (uintptr_t)&word, .flags = 2 | FUTEX_PRIVATE_FLAG },
		{ .val = 0, .uaddr = (uintptr_t)&word2, .flags = 2 | FUTEX_PRIVATE_FLAG },
	};
	long r = syscall(SYS_futex_waitv, w, 2, 0, NULL, CLOCK_MONOTONIC);

	return r >= 0 || errno == EAGAIN || errno == ENOSYS ? arg : NULL;
}

static int wakes_waitv(void)
{
	pthread_t t;
	void *r;

	word = word2 = 0;
	pthread_create(&t, NULL, waits_for_two, &word);
	nap(2000);
	word2 = 1;
	syscall(SYS_futex, &word2, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	pthread_join(t, &r);
	return r == &word;
}

/* The calls of Linux 6.7: 454 wakes, 455 waits; an older kernel says that it has none. */
static void *waits_newly(void *arg)
{
	while (word == 0)
		if (syscall(455, &word, 0ul, ~0u, 2 | FUTEX_PRIVATE_FLAG, NULL, CLOCK_MONOTONIC) == -1 && errno != EAGAIN && errno != EINTR)
			return errno == ENOSYS ? arg : NULL;
	return arg;
}

static int wakes_newly(void)
{
	pthread_t t;
	void *r;

	word = 0;
	pthread_create(&t, NULL, waits_newly, &word);
	nap(2000);
	word = 1;
	if (syscall(454, &word, ~0u, 1, 2 | FUTEX_PRIVATE_FLAG) == -1)
		syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	pthread_join(t, &r);
	return r == &word;
}

int main(void)
{
	check("actions", in_thread(actions, NULL) != NULL);
	check("masks and what is pending", in_thread(masks, NULL) != NULL);
	check("waiting for signals", in_thread(suspends, NULL) != NULL);
	check("flags, dup2, close", in_thread(flags, NULL) != NULL);
	check("the time left", in_thread(times, NULL) != NULL);
	check("no cancellation point", cancels());
	check("clone, clone3, fork", in_thread(forks, NULL) != NULL);
	in_thread(leaves, NULL); /* what join says of it is left over from another */
	check("exit ends the thread", !went_on);
	check("prctl: the thread's name", in_thread(names, NULL) != NULL);
	check("futex: wait and wake", wakes());
	check("futex: time out", times_out());
	check("futex_waitv: woken by the older call", wakes_waitv());
	check("futex_wait and futex_wake", wakes_newly());
	check("clone in the first thread", forks(NULL) != NULL);
	puts(failures ? "FAILED" : "ok");
	return failures != 0;
}
