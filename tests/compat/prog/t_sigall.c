/* SPDX-License-Identifier: MIT */
/*
 * More of signals with threads: every kind of wait interrupted or restarted, signals for the process while all threads wait in different
 * calls, order and number of queued ones, several takers, nesting, repairs of faults under preemption.
 * Prints one line per case; the same natively and under pgreen.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int failures;

static void check(const char *what, int ok)
{
	printf("%-64s %s\n", what, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

static void nap(long us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000 };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static void handle(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

static sigset_t one(int sig)
{
	sigset_t s;

	sigemptyset(&s);
	sigaddset(&s, sig);
	return s;
}

static void mask(int how, int sig)
{
	sigset_t s = one(sig);

	pthread_sigmask(how, &s, NULL);
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, arg) != 0)
		abort();
	return t;
}

/* ---- one thread in each kind of wait ---- */

enum kind { SEM, COND, READ, ACCEPT, POLL, NAP, PAUSE, SIGWAIT, SIGSUSPEND, NKINDS };
static const char *const kinds[] = { "sem_wait", "pthread_cond_wait", "read", "accept", "poll", "nanosleep", "pause", "sigwaitinfo",
				     "sigsuspend" };

struct waiter {
	pthread_t t;
	enum kind kind;
	sem_t sem;
	pthread_mutex_t m;
	pthread_cond_t c;
	int go, pipe[2], sock, port;
	atomic_int ready, hits, done;
	int result, err;
};
static __thread struct waiter *me;
static atomic_int strays;

static void hit(int sig)
{
	(void)sig;
	if (me)
		me->hits++;
	else
		strays++;
}

static void *waits(void *arg)
{
	struct waiter *w = arg;
	struct timespec long_time = { 300, 0 };
	struct pollfd p = { .fd = w->pipe[0], .events = POLLIN };
	sigset_t set = one(SIGUSR2), none;
	char b;

	me = w;
	sigemptyset(&none);
	sigaddset(&none, SIGUSR2);
	mask(SIG_UNBLOCK, SIGUSR1);
	w->ready = 1;
	errno = 0;
	switch (w->kind) {
	case SEM: w->result = sem_wait(&w->sem); break;
	case COND:
		pthread_mutex_lock(&w->m);
		while (!w->go)
			w->result = pthread_cond_wait(&w->c, &w->m);
		pthread_mutex_unlock(&w->m);
		break;
	case READ: w->result = (int)read(w->pipe[0], &b, 1); break;
	case ACCEPT: w->result = accept(w->sock, NULL, NULL); break;
	case POLL: w->result = poll(&p, 1, -1); break;
	case NAP: w->result = nanosleep(&long_time, NULL); break;
	case PAUSE: w->result = pause(); break;
	case SIGWAIT: w->result = sigwaitinfo(&set, NULL); break;
	case SIGSUSPEND: w->result = sigsuspend(&none); break;
	default: abort();
	}
	w->err = errno;
	w->done = 1;
	return NULL;
}

static void prepare(struct waiter *w, enum kind k)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof a;

	memset(w, 0, sizeof *w);
	w->kind = k;
	sem_init(&w->sem, 0, 0);
	pthread_mutex_init(&w->m, NULL);
	pthread_cond_init(&w->c, NULL);
	if (pipe(w->pipe))
		abort();
	w->sock = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(w->sock, (struct sockaddr *)&a, sizeof a) || listen(w->sock, 5) ||
	    getsockname(w->sock, (struct sockaddr *)&a, &n))
		abort();
	w->port = a.sin_port;
	w->t = start(waits, w);
	while (!w->ready)
		nap(100);
}

/* What the thread waits for happens. */
static void release(struct waiter *w)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	sem_post(&w->sem);
	pthread_mutex_lock(&w->m);
	w->go = 1;
	pthread_cond_signal(&w->c);
	pthread_mutex_unlock(&w->m);
	if (write(w->pipe[1], "x", 1) != 1)
		abort();
	if (w->kind == ACCEPT) {
		int s = socket(AF_INET, SOCK_STREAM, 0);
		a.sin_port = (in_port_t)w->port;
		if (connect(s, (struct sockaddr *)&a, sizeof a))
			abort();
		close(s);
	}
	if (w->kind == SIGWAIT)
		pthread_kill(w->t, SIGUSR2);
}

static void finish(struct waiter *w)
{
	pthread_join(w->t, NULL);
	if (w->kind == ACCEPT && w->result >= 0)
		close(w->result);
	close(w->pipe[0]);
	close(w->pipe[1]);
	close(w->sock);
}

static int restarts(enum kind k) { return k == SEM || k == READ || k == ACCEPT; }

/* Only this thread takes SIGUSR1.  Sent to it, or to the process. */
static void test_wait(enum kind k, int flags, int to_process)
{
	struct waiter w;
	char what[100];
	int ok;

	handle(SIGUSR1, hit, flags);
	prepare(&w, k);
	snprintf(what, sizeof what, "%s, %s, signal for the %s", kinds[k], flags & SA_RESTART ? "SA_RESTART" : "no SA_RESTART",
		 to_process ? "process" : "thread");
	if (k == COND || (restarts(k) && flags & SA_RESTART)) {
		/* Goes on waiting. */
		for (int i = 1; i <= 5; i++) {
			if (to_process)
				kill(getpid(), SIGUSR1);
			else
				pthread_kill(w.t, SIGUSR1);
			while (w.hits < i)
				nap(100);
		}
		ok = !w.done;
		release(&w);
		finish(&w);
		ok &= w.result >= 0 && w.hits == 5;
	} else {
		while (!w.done) {
			if (to_process)
				kill(getpid(), SIGUSR1);
			else
				pthread_kill(w.t, SIGUSR1);
			nap(500);
		}
		finish(&w);
		ok = w.result == -1 && w.err == EINTR && w.hits > 0;
	}
	check(what, ok && strays == 0);
}

/* All kinds at once, and each signal for the process runs one handler, in a thread that takes it. */
static void test_all_waiting(void)
{
	struct waiter w[NKINDS];
	int n = 20, sum;

	handle(SIGUSR1, hit, SA_RESTART);
	strays = 0;
	for (int k = 0; k < NAP; k++)
		prepare(&w[k], (enum kind)k);
	for (int i = 1; i <= n; i++) {
		kill(getpid(), SIGUSR1);
		do {
			sum = 0;
			for (int k = 0; k < NAP; k++)
				sum += w[k].hits;
			nap(100);
		} while (sum < i);
	}
	for (int k = 0; k < NAP; k++) {
		release(&w[k]);
		finish(&w[k]);
	}
	check("kill, all threads in different waits: each handled once", sum == n && strays == 0);
}

/* ---- queued signals ---- */

static void test_order(void)
{
	sigset_t set;
	siginfo_t si;
	int ok = 1;

	sigemptyset(&set);
	for (int i = 0; i < 4; i++)
		sigaddset(&set, SIGRTMIN + i);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < 400; i++)
		ok &= sigqueue(getpid(), SIGRTMIN + 3 - i % 4, (union sigval){ .sival_int = i }) == 0;
	for (int k = 0; k < 4; k++)
		for (int i = 0; i < 100; i++)
			ok &= sigwaitinfo(&set, &si) == SIGRTMIN + k && si.si_code == SI_QUEUE && si.si_pid == getpid() &&
			      si.si_value.sival_int == i * 4 + 3 - k;
	check("sigqueue to the process: lowest number first, then as sent", ok);
	for (int i = 0; i < 400; i++)
		ok &= pthread_sigqueue(pthread_self(), SIGRTMIN + 3 - i % 4, (union sigval){ .sival_int = i }) == 0;
	for (int k = 0; k < 4; k++)
		for (int i = 0; i < 100; i++)
			ok &= sigwaitinfo(&set, &si) == SIGRTMIN + k && si.si_value.sival_int == i * 4 + 3 - k;
	check("pthread_sigqueue to a thread: the same", ok);
}

static atomic_int got[2000], ngot, handled_rt;

static void *takes(void *arg)
{
	sigset_t set = one(SIGRTMIN);
	siginfo_t si;
	int how = (int)(intptr_t)arg, sig;

	for (;;) {
		if (how == 0) {
			sig = sigwaitinfo(&set, &si);
		} else if (how == 1) {
			struct timespec ts = { 100, 0 };
			sig = sigtimedwait(&set, &si, &ts);
		} else {
			int fd = signalfd(-1, &set, SFD_CLOEXEC);
			struct signalfd_siginfo fi;
			sig = -1;
			if (read(fd, &fi, sizeof fi) == sizeof fi) {
				sig = (int)fi.ssi_signo;
				si.si_value.sival_int = fi.ssi_int;
			}
			close(fd);
		}
		if (sig < 0 && errno == EINTR)
			continue; /* another one was faster */
		if (sig != SIGRTMIN)
			abort();
		if (si.si_value.sival_int < 0)
			return NULL;
		got[si.si_value.sival_int]++;
		ngot++;
	}
}

static void test_takers(const char *what, int how)
{
	pthread_t t[5];
	int ok = 1;

	memset(got, 0, sizeof got);
	ngot = 0;
	for (intptr_t i = 0; i < 5; i++)
		t[i] = start(takes, (void *)(how < 0 ? i % 3 : (intptr_t)how));
	for (int i = 0; i < 1000; i++)
		ok &= sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i }) == 0;
	while (ngot < 1000)
		nap(1000);
	for (int i = 0; i < 5; i++)
		sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = -1 });
	for (int i = 0; i < 5; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 1000; i++)
		ok &= got[i] == 1;
	check(what, ok);
}

/* The takers block it again and again: none may be lost meanwhile. */
static void count_rt(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	got[si->si_value.sival_int]++;
	handled_rt++;
}

static void *opens_and_closes(void *arg)
{
	while (handled_rt < 2000) {
		mask(SIG_UNBLOCK, SIGRTMIN);
		mask(SIG_BLOCK, SIGRTMIN);
		if (arg)
			sched_yield();
	}
	return NULL;
}

static void test_windows(void)
{
	struct sigaction sa = { .sa_sigaction = count_rt, .sa_flags = SA_SIGINFO | SA_RESTART };
	pthread_t t[3];
	int ok = 1;

	memset(got, 0, sizeof got);
	sigaction(SIGRTMIN, &sa, NULL);
	for (int i = 0; i < 3; i++)
		t[i] = start(opens_and_closes, i ? &t : NULL);
	for (int i = 0; i < 2000; i++)
		ok &= sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i }) == 0;
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 2000; i++)
		ok &= got[i] == 1;
	check("2000 queued to the process, three threads open now and then", ok && handled_rt == 2000);
}

static void test_pending(void)
{
	sigset_t p;
	int ok;

	mask(SIG_BLOCK, SIGUSR1);
	handle(SIGUSR1, hit, 0);
	raise(SIGUSR1);
	kill(getpid(), SIGUSR1);
	raise(SIGUSR1);
	sigpending(&p);
	ok = sigismember(&p, SIGUSR1) == 1 && sigismember(&p, SIGUSR2) == 0;
	strays = 0;
	mask(SIG_UNBLOCK, SIGUSR1);
	sigpending(&p);
	ok &= strays == 2 && sigismember(&p, SIGUSR1) == 0;
	check("one for the thread and one for the process are pending", ok);
	mask(SIG_BLOCK, SIGUSR1);
	raise(SIGUSR1);
	kill(getpid(), SIGUSR1);
	handle(SIGUSR1, SIG_IGN, 0);
	handle(SIGUSR1, hit, 0);
	sigpending(&p);
	strays = 0;
	mask(SIG_UNBLOCK, SIGUSR1);
	check("ignoring a signal takes away what is pending", !sigismember(&p, SIGUSR1) && strays == 0);
	mask(SIG_BLOCK, SIGUSR1);
}

/* ---- nesting, jumping ---- */

static __thread volatile int depth, deepest; /* raise is a leaf function to the compiler */
static void nests(int sig)
{
	if (++depth > deepest)
		deepest = depth;
	if (depth < 5)
		raise(sig);
	depth--;
}

static void *nested(void *arg)
{
	mask(SIG_UNBLOCK, SIGUSR2);
	for (int i = 0; i < 50; i++) {
		depth = 0;
		raise(SIGUSR2);
		if (arg)
			sched_yield();
	}
	return (void *)(intptr_t)deepest;
}

static void test_nested(void)
{
	pthread_t t[4];
	void *r;
	int ok = 1;

	mask(SIG_BLOCK, SIGUSR2);
	handle(SIGUSR2, nests, SA_NODEFER);
	for (int i = 0; i < 4; i++)
		t[i] = start(nested, &t);
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], &r);
		ok &= (intptr_t)r == 5;
	}
	check("SA_NODEFER: five handlers deep", ok);
}

static __thread sigjmp_buf back;
static __thread atomic_int may_jump;
static void jumps(int sig)
{
	(void)sig;
	if (may_jump) {
		may_jump = 0;
		siglongjmp(back, 1);
	}
}

struct jumper { pthread_t t; int kind, pipe[2]; atomic_int rounds; sem_t sem; };

static void *jumper(void *arg)
{
	struct jumper *j = arg;
	struct timespec ts = { 100, 0 };
	struct pollfd p = { .fd = j->pipe[0], .events = POLLIN };
	char b;

	mask(SIG_UNBLOCK, SIGUSR2);
	while (j->rounds < 30) {
		if (sigsetjmp(back, 1) == 0) {
			may_jump = 1;
			switch (j->kind) {
			case 0: sem_wait(&j->sem); break;
			case 1: if (read(j->pipe[0], &b, 1)) break; break;
			case 2: poll(&p, 1, -1); break;
			case 3: nanosleep(&ts, NULL); break;
			case 4: pause(); break;
			}
		}
		j->rounds++;
	}
	may_jump = 0;
	mask(SIG_BLOCK, SIGUSR2);
	return NULL;
}

static void test_jumps(void)
{
	struct jumper j[10];
	int left;

	handle(SIGUSR2, jumps, SA_RESTART);
	for (int i = 0; i < 10; i++) {
		j[i].kind = i % 5;
		j[i].rounds = 0;
		sem_init(&j[i].sem, 0, 0);
		if (pipe(j[i].pipe))
			abort();
		j[i].t = start(jumper, &j[i]);
	}
	do {
		left = 0;
		for (int i = 0; i < 10; i++)
			if (j[i].rounds < 30) {
				pthread_kill(j[i].t, SIGUSR2);
				left++;
			}
		nap(200);
	} while (left);
	for (int i = 0; i < 10; i++)
		pthread_join(j[i].t, NULL);
	check("siglongjmp out of blocked calls, 30 times in 10 threads", 1);
}

/* ---- faults ---- */

enum { PAGES = 100 };

static void repair(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	mprotect((void *)((uintptr_t)si->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

static void *faults(void *arg)
{
	char *p = mmap(NULL, PAGES * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	intptr_t sum = 0;
	volatile unsigned spin = 0;

	(void)arg;
	for (int i = 0; i < PAGES; i++) {
		p[i * 4096 + 7] = (char)i;
		for (int k = 0; k < 5000; k++)
			spin++;
	}
	for (int i = 0; i < PAGES; i++)
		sum += p[i * 4096 + 7];
	munmap(p, PAGES * 4096);
	return (void *)sum;
}

static void test_faults(void)
{
	struct sigaction sa = { .sa_sigaction = repair, .sa_flags = SA_SIGINFO };
	pthread_t t[6];
	void *r;
	int ok = 1;

	sigaction(SIGSEGV, &sa, NULL);
	for (int i = 0; i < 6; i++)
		t[i] = start(faults, NULL);
	for (int i = 0; i < 6; i++) {
		pthread_join(t[i], &r);
		ok &= (intptr_t)r == PAGES * (PAGES - 1) / 2;
	}
	check("SIGSEGV: 600 repairs in six threads", ok);
	signal(SIGSEGV, SIG_DFL);
}

/* ---- the kernel's own ---- */

static atomic_int ticks, enough;
static void tick(int sig) { (void)sig; ticks++; }
static void *burns(void *arg)
{
	volatile unsigned n = 0;

	while (!enough)
		n++;
	return arg;
}

static void test_prof(void)
{
	struct itimerval it = { { 0, 2000 }, { 0, 2000 } }, off = { { 0, 0 }, { 0, 0 } };
	pthread_t t[4];

	handle(SIGPROF, tick, SA_RESTART);
	for (int i = 0; i < 4; i++)
		t[i] = start(burns, NULL);
	setitimer(ITIMER_PROF, &it, NULL);
	while (ticks < 20)
		nap(1000);
	setitimer(ITIMER_PROF, &off, NULL);
	enough = 1;
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	check("ITIMER_PROF: 20 ticks while four threads compute", ticks >= 20);
}

static __thread volatile int piped;
static void on_pipe(int sig) { (void)sig; piped++; }
static void *breaks(void *arg)
{
	int p[2];
	intptr_t ok;

	(void)arg;
	if (pipe(p))
		abort();
	close(p[0]);
	ok = write(p[1], "x", 1) == -1 && errno == EPIPE && piped == 1;
	mask(SIG_BLOCK, SIGPIPE);
	ok &= write(p[1], "x", 1) == -1 && errno == EPIPE && piped == 1;
	mask(SIG_UNBLOCK, SIGPIPE);
	ok &= piped == 2;
	close(p[1]);
	return (void *)ok;
}

static void test_pipe(void)
{
	pthread_t t[5];
	void *r;
	int ok = 1;

	handle(SIGPIPE, on_pipe, 0);
	for (int i = 0; i < 5; i++)
		t[i] = start(breaks, NULL);
	for (int i = 0; i < 5; i++) {
		pthread_join(t[i], &r);
		ok &= r != NULL;
	}
	check("SIGPIPE: to the thread that writes, EPIPE", ok && piped == 0);
}

int main(void)
{
	mask(SIG_BLOCK, SIGUSR1);
	mask(SIG_BLOCK, SIGUSR2);
	test_order();
	mask(SIG_BLOCK, SIGRTMIN);
	test_takers("sigwaitinfo in five threads: 1000 values, each once", 0);
	test_takers("sigtimedwait in five threads: 1000 values, each once", 1);
	test_takers("signalfd in five threads: 1000 values, each once", 2);
	test_takers("all three at once: 1000 values, each once", -1);
	test_windows();
	test_pending();
	for (int k = 0; k < NKINDS; k++) {
		test_wait((enum kind)k, 0, 0);
		test_wait((enum kind)k, SA_RESTART, 0);
		test_wait((enum kind)k, 0, 1);
		test_wait((enum kind)k, SA_RESTART, 1);
	}
	test_all_waiting();
	test_nested();
	test_jumps();
	test_faults();
	test_prof();
	test_pipe();
	return failures != 0;
}
