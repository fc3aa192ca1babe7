/* SPDX-License-Identifier: MIT */
/*
 * Processes made many times while threads are parked in everything a thread can wait in, and others run: fork from any
 * thread, the child makes threads again; vfork, posix_spawn, system, popen, daemon, forkpty, fork by its number, from
 * handlers and from atfork handlers; user ids changed by one thread for all.  Prints one line per case; the same natively and
 * under pgreen, and the same whoever runs it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static int failures, many; /* with an argument: 1000 forks, 200 execs */

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

static int exit_of(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* How many of n threads return NULL. */
static int in_threads(int n, void *(*fn)(void *))
{
	pthread_t t[16];
	void *res;
	int good = 0;

	for (int i = 0; i < n; i++)
		t[i] = start(fn, (void *)(intptr_t)i);
	for (int i = 0; i < n; i++) {
		pthread_join(t[i], &res);
		good += res == NULL;
	}
	return good;
}

/* ---- one thread parked in each way; all go on when they are released, and say whether they saw what they should ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER, held = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t sem, *shared_sem;
static atomic_int is_open;
static int pipes[3][2], listener, pair[2], ep;
static pthread_t sleeper;
static atomic_int here, awake, let_go;

/* set*id natively sends each thread a signal, which interrupts these. */
#define AGAIN(call)                                                                                                    \
	({                                                                                                             \
		int r_;                                                                                                \
		do                                                                                                     \
			r_ = (int)(call);                                                                              \
		while (r_ < 0 && errno == EINTR);                                                                      \
		r_;                                                                                                    \
	})

static void *parked(void *arg)
{
	struct timespec far;
	struct pollfd p = { .fd = pipes[1][0], .events = POLLIN };
	struct epoll_event ev;
	sigset_t set;
	fd_set fds;
	char c;
	int sig, ok = 0, fd;

	clock_gettime(CLOCK_REALTIME, &far);
	far.tv_sec += 1000;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	here++;
	switch ((intptr_t)arg) {
	case 0:
		pthread_mutex_lock(&gate);
		while (!is_open)
			pthread_cond_wait(&opened, &gate);
		ok = 1;
		pthread_mutex_unlock(&gate);
		break;
	case 1:
		pthread_mutex_lock(&gate);
		while (!is_open && pthread_cond_timedwait(&opened, &gate, &far) == 0)
			;
		ok = is_open;
		pthread_mutex_unlock(&gate);
		break;
	case 2:
		ok = AGAIN(sem_wait(&sem)) == 0;
		break;
	case 3:
		ok = AGAIN(sem_timedwait(shared_sem, &far)) == 0;
		break;
	case 4:
		ok = read(pipes[0][0], &c, 1) == 1;
		break;
	case 5:
		fd = accept(listener, NULL, NULL);
		ok = fd >= 0;
		close(fd);
		break;
	case 6:
		ok = AGAIN(poll(&p, 1, -1)) == 1;
		break;
	case 7:
		FD_ZERO(&fds);
		FD_SET(pipes[1][0], &fds);
		ok = AGAIN(select(pipes[1][0] + 1, &fds, NULL, NULL, NULL)) == 1;
		break;
	case 8:
		ok = AGAIN(epoll_wait(ep, &ev, 1, -1)) == 1;
		break;
	case 9:
		ok = recv(pair[0], &c, 1, 0) == 1;
		break;
	case 10:
		ok = sigwait(&set, &sig) == 0 && sig == SIGUSR2;
		break;
	case 11:
		ok = pthread_mutex_lock(&held) == 0;
		pthread_mutex_unlock(&held);
		break;
	case 12:
		ok = pthread_rwlock_wrlock(&rw) == 0;
		pthread_rwlock_unlock(&rw);
		break;
	case 13:
		ok = pthread_barrier_wait(&barrier) <= 0;
		break;
	case 14:
		while (!is_open)
			ok = nanosleep(&(struct timespec){1000, 0}, NULL) < 0 && errno == EINTR;
		awake = 1;
		while (!let_go) /* who wakes it must still know it */
			sched_yield();
		break;
	case 15: {
		void *r = NULL;
		ok = pthread_join(sleeper, &r) == 0 && r == (void *)1;
		break;
	}
	case 16: /* what is kept per OS thread */
		setfsuid(getuid());
		ok = read(pipes[2][0], &c, 1) == 1;
		break;
	case 17: /* now and then out of it */
		while (!is_open)
			usleep(100);
		ok = 1;
		break;
	}
	return (void *)(intptr_t)ok;
}

enum { WAYS = 18 };
static pthread_t parkers[WAYS];

static void ignore(int sig)
{
	(void)sig;
}

/* Also in a child, where objects are as the parent's threads left them. */
static void park_all(void)
{
	struct sigaction sa = { .sa_handler = ignore };
	struct epoll_event ev = { .events = EPOLLIN };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	shared_sem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	sem_init(shared_sem, 1, 0);
	sem_init(&sem, 0, 0);
	pthread_barrier_init(&barrier, NULL, 2);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	ep = epoll_create1(0);
	if (listen(listener, 8) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || ep < 0)
		abort();
	for (int i = 0; i < 3; i++)
		if (pipe(pipes[i]) < 0)
			abort();
	epoll_ctl(ep, EPOLL_CTL_ADD, pipes[1][0], &ev);
	pthread_mutex_init(&held, NULL);
	pthread_mutex_init(&gate, NULL);
	pthread_cond_init(&opened, NULL);
	pthread_rwlock_init(&rw, NULL);
	pthread_mutex_lock(&held);
	pthread_rwlock_rdlock(&rw);
	for (intptr_t i = 0; i < WAYS; i++) {
		parkers[i] = start(parked, (void *)i);
		if (i == 14)
			sleeper = parkers[i];
	}
	while (here < WAYS)
		sched_yield();
}

static int release_all(void)
{
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	int good = 0, s = socket(AF_INET, SOCK_STREAM, 0), sent = 1;

	pthread_mutex_lock(&gate);
	is_open = 1;
	pthread_cond_broadcast(&opened);
	pthread_mutex_unlock(&gate);
	sem_post(&sem);
	sem_post(shared_sem);
	getsockname(listener, (struct sockaddr *)&a, &n);
	sent &= connect(s, (struct sockaddr *)&a, n) == 0;
	for (int i = 0; i < 3; i++)
		sent &= write(pipes[i][1], "x", 1) == 1;
	sent &= write(pair[1], "x", 1) == 1;
	pthread_kill(parkers[10], SIGUSR2);
	pthread_mutex_unlock(&held);
	pthread_rwlock_unlock(&rw);
	pthread_barrier_wait(&barrier);
	/* It sleeps from some time on. */
	while (!awake) {
		pthread_kill(sleeper, SIGUSR1);
		sched_yield();
	}
	let_go = 1;
	for (int i = 0; i < WAYS; i++) {
		void *r = NULL;
		if (i == 14)
			continue; /* joined by the next one */
		pthread_join(parkers[i], &r);
		good += r == (void *)1;
	}
	close(s);
	return sent && good == WAYS - 1;
}

/* ---- load ---- */

static atomic_int stop;
static FILE *null;
static char module[PATH_MAX];

static void *load(void *arg)
{
	static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	unsigned seed = (unsigned)(intptr_t)arg + 1;

	while (!stop) {
		void *p[8], *h;

		pthread_mutex_lock(&m);
		pthread_mutex_unlock(&m);
		for (int i = 0; i < 8; i++)
			p[i] = malloc((size_t)(rand_r(&seed) % 3000 + 1));
		for (int i = 0; i < 8; i++)
			free(p[i]);
		fprintf(null, "%d %s\n", rand_r(&seed), "is a number");
		if (arg == NULL && (h = dlopen(module, RTLD_NOW)) != NULL)
			dlclose(h);
		/* More Ps than CPUs: whoever only yields to its like keeps the forkers from running. */
		if (rand_r(&seed) % 2)
			usleep(50);
		else
			sched_yield();
	}
	return arg;
}

/* ---- fork ---- */

static void *echo(void *arg)
{
	int *fd = arg;
	char c = 0;

	return (void *)(intptr_t)(read(fd[0], &c, 1) == 1 && write(fd[3], &c, 1) == 1 ? c : -1);
}

/* In a child: threads that wait on pipes, answer, and end.  NULL if all is well. */
static int threads_again(int n)
{
	int fd[4];
	pthread_t t[8];
	char c;

	if (pipe(fd) < 0 || pipe(fd + 2) < 0)
		return 1;
	for (int i = 0; i < n; i++)
		t[i] = start(echo, fd);
	for (int i = 0; i < n; i++) {
		c = (char)(i + 1);
		if (write(fd[1], &c, 1) != 1 || read(fd[2], &c, 1) != 1 || c < 1 || c > n)
			return 2;
	}
	for (int i = 0; i < n; i++) {
		void *r;
		if (pthread_join(t[i], &r) != 0 || (intptr_t)r < 1)
			return 3;
	}
	for (int i = 0; i < 4; i++)
		close(fd[i]);
	return 0;
}

static void *grandparent(void *arg)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(threads_again(2) ? 1 : 21);
	return exit_of(pid) == 21 ? arg : (void *)1;
}

static int child_life(int i)
{
	char *p = malloc(1000);
	void *r = NULL;

	if (gettid() != getpid() || p == NULL)
		return 201;
	memset(p, i, 1000);
	free(p);
	if (snprintf((char[32]){0}, 32, "%d", i) <= 0)
		return 202;
	if (i % 10 == 3 && threads_again(4))
		return 203;
	if (i % 20 == 7) {
		pthread_join(start(grandparent, NULL), &r);
		if (r != NULL)
			return 204;
	}
	return i % 200;
}

static void *forker(void *arg)
{
	for (int i = 0; i < (many ? 250 : 50); i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(child_life(i));
		if (exit_of(pid) != i % 200)
			return (void *)1;
	}
	return NULL;
	(void)arg;
}

static void *all_kinds(void *arg)
{
	char *argv[] = {"sh", "-c", "exit 6", NULL}, line[32], cmd[32];
	int m, bad = 0, fd[2];
	pid_t pid;
	FILE *f;

	for (int i = 0; i < 5 && !bad; i++) {
		pid = vfork();
		if (pid == 0) {
			execv("/bin/sh", argv);
			_exit(99);
		}
		bad += exit_of(pid) != 6;
		bad += posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) != 0 || exit_of(pid) != 6;
		bad += WEXITSTATUS(system("exit 7")) != 7;
		snprintf(cmd, sizeof cmd, "echo %d; exit 8", i);
		f = popen(cmd, "r");
		bad += f == NULL || fgets(line, sizeof line, f) == NULL || atoi(line) != i || WEXITSTATUS(pclose(f)) != 8;
		pid = (pid_t)syscall(i % 2 ? SYS_fork : SYS_clone, SIGCHLD, 0, 0, 0, 0);
		if (pid == 0)
			syscall(SYS_exit_group, gettid() == getpid() ? 9 : 10);
		bad += exit_of(pid) != 9;
		pid = _Fork();
		if (pid == 0)
			_exit(11);
		bad += exit_of(pid) != 11;
		pid = forkpty(&m, NULL, NULL, NULL);
		if (pid == 0)
			_exit(write(1, "pty\n", 4) == 4 ? 12 : 13);
		for (ssize_t have = 0, r; have < 5; have += r)
			if ((r = read(m, line + have, (size_t)(5 - have))) <= 0)
				abort(); /* a line may come in pieces */
		bad += memcmp(line, "pty\r\n", 5) != 0 || exit_of(pid) != 12;
		close(m);
		/* The daemon is nobody's child: it is heard of through a pipe. */
		if (pipe(fd) < 0)
			abort();
		pid = fork();
		if (pid == 0) {
			char c = 1;
			if (daemon(1, 1) < 0)
				_exit(1);
			c = getsid(0) == getpid() && threads_again(3) == 0 ? 'd' : 'x';
			_exit(write(fd[1], &c, 1) != 1);
		}
		close(fd[1]);
		bad += exit_of(pid) != 0 || read(fd[0], line, 2) != 1 || line[0] != 'd';
		close(fd[0]);
	}
	return (void *)(intptr_t)(bad + 0 * (intptr_t)arg);
}

/* ---- atfork, handlers, wired threads, generations ---- */

/* Each thread's own: handlers run in the thread that forks. */
static __thread char order[64];
static __thread int recording, nesting;

static void say(char c)
{
	size_t n = strlen(order);

	if (recording && n < sizeof order - 1)
		order[n] = c;
}

static void pre1(void) { say('a'); }
static void par1(void) { say('b'); }
static void chi1(void) { say('c'); }
static void pre2(void)
{
	say('d');
	if (recording && nesting++ == 0) {
		pid_t pid = fork(); /* runs them all again */
		if (pid == 0)
			_exit(14);
		if (exit_of(pid) != 14)
			say('!');
		say('|');
	}
}
static void par2(void) { say('e'); }
static void chi2(void) { say('f'); }

static void *atfork_thread(void *arg)
{
	pid_t pid;
	int code;

	recording = 1;
	pid = fork();
	if (pid == 0)
		_exit(strcmp(order, "ddabe|acf") == 0 ? 0 : 1);
	recording = 0;
	code = exit_of(pid);
	return code == 0 && strcmp(order, "ddabe|abe") == 0 ? NULL : (void *)1;
	(void)arg;
}

static _Thread_local volatile sig_atomic_t handled, from_handler;

static void fork_in_handler(int sig)
{
	pid_t pid = fork();

	(void)sig;
	if (pid == 0)
		_exit(15);
	from_handler += exit_of(pid) == 15;
	handled++;
}

static void *handler_thread(void *arg)
{
	for (int i = 0; i < 20; i++)
		pthread_kill(pthread_self(), SIGURG);
	return handled == 20 && from_handler == 20 ? NULL : (void *)1;
	(void)arg;
}

static _Thread_local sigjmp_buf back;
static atomic_int jumps, no_more;

static void jump(int sig)
{
	(void)sig;
	siglongjmp(back, 1);
}

/* A thread whose handlers interrupt libc and jump out of it, for good as well: in a child nobody waits for them. */
static void *jumper(void *arg)
{
	sigsetjmp(back, 1);
	jumps++;
	while (!no_more)
		getppid();
	return arg;
}

static void *teaser(void *arg)
{
	pthread_t t = *(pthread_t *)arg;

	while (!no_more) {
		int n = jumps;

		if (n > 0)
			pthread_kill(t, SIGWINCH);
		while (!no_more && n == jumps)
			sched_yield();
	}
	return NULL;
}

static void *wired_thread(void *arg)
{
	setfsgid(getgid());
	for (int i = 0; i < 10; i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(threads_again(3) ? 1 : 16);
		if (exit_of(pid) != 16)
			return (void *)1;
	}
	return NULL;
	(void)arg;
}

static void *generation(void *arg)
{
	intptr_t left = (intptr_t)arg;
	pid_t pid = fork();

	if (pid == 0) {
		void *r = (void *)1;
		if (left == 0)
			_exit(threads_again(4));
		pthread_join(start(generation, (void *)(left - 1)), &r);
		_exit(r != NULL);
	}
	return (void *)(intptr_t)exit_of(pid);
}

/* ---- ids ---- */

static uid_t uid;
static gid_t gid;

static void *has_ids(void *arg)
{
	uid_t r, e, s;
	gid_t rg, eg, sg, list[64];
	int n = getgroups(64, list), ok = arg == NULL;

	getresuid(&r, &e, &s);
	ok = ok || (r == uid && e == uid && s == uid);
	getresgid(&rg, &eg, &sg);
	ok = ok && rg == gid && eg == gid && sg == gid;
	/* only root may set them */
	return (void *)(intptr_t)(!ok || (uid == 12345 && (n != 1 || list[0] != 4711)));
}

static int ready_pipe[2], go_pipe[2];

static void *waits_for_ids(void *arg)
{
	char c;

	if ((intptr_t)arg % 3 == 0)
		setfsuid(geteuid()); /* has an OS thread of its own */
	if (write(ready_pipe[1], "r", 1) != 1 || read(go_pipe[0], &c, 1) != 1)
		return (void *)1;
	return has_ids((void *)1);
}

static void *changes_ids(void *arg)
{
	if (uid == 12345 && setgroups(1, (gid_t[]){4711}) != 0)
		return (void *)1;
	if (setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
		return (void *)1;
	return arg;
}

/* In a child: one thread changes the ids, all have changed. */
static int ids_for_all(void)
{
	pthread_t t[9];
	void *r;
	char c;
	int bad = 0;

	uid = geteuid() == 0 ? 12345 : getuid();
	gid = geteuid() == 0 ? 12346 : getgid();
	here = 0;
	park_all();
	if (pipe(ready_pipe) < 0 || pipe(go_pipe) < 0)
		return 1;
	for (int i = 0; i < 9; i++)
		t[i] = start(waits_for_ids, (void *)(intptr_t)i);
	for (int i = 0; i < 9; i++)
		bad += read(ready_pipe[0], &c, 1) != 1;
	pthread_join(start(changes_ids, NULL), &r);
	bad += r != NULL;
	bad += has_ids((void *)1) != NULL;
	bad += in_threads(16, has_ids) != 16;
	bad += write(go_pipe[1], "123456789", 9) != 9;
	for (int i = 0; i < 9; i++) {
		pthread_join(t[i], &r);
		bad += r != NULL;
	}
	bad += !release_all();
	return bad;
}

/* Several threads at once, none hangs. */
static void *sets_and_sets(void *arg)
{
	for (int i = 0; i < 100; i++)
		if (setresuid(-1, geteuid(), -1) != 0 || setresgid(-1, getegid(), -1) != 0)
			return (void *)1;
	return NULL;
	(void)arg;
}

/* ---- exec from a thread, many times in a row ---- */

static void *exec_again(void *arg)
{
	char num[16];

	snprintf(num, sizeof num, "%d", *(int *)arg - 1);
	execl("/proc/self/exe", "t_forks", "--chain", num, (char *)NULL);
	_exit(99);
}

static void *spins(void *arg)
{
	while (!stop)
		sched_yield();
	return arg;
}

static int chain(int left)
{
	if (left == 0)
		return threads_again(4) ? 97 : 17;
	start(parked, (void *)14);
	start(parked, (void *)0);
	start(spins, NULL);
	start(exec_again, &left);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = fork_in_handler };
	pthread_t loads[4], jumping[2];
	pid_t pid;

	if (argc == 3 && strcmp(argv[1], "--chain") == 0)
		return chain(atoi(argv[2]));
	many = argc > 1;
	alarm(180);
	if (readlink("/proc/self/exe", module, sizeof module - 40) < 0)
		abort();
	strcpy(strrchr(module, '/'), "/module-global-dynamic.so");
	null = fopen("/dev/null", "w");
	signal(SIGURG, SIG_IGN);
	signal(SIGWINCH, jump);
	sigaction(SIGURG, &sa, NULL);
	pthread_atfork(pre1, par1, chi1);
	pthread_atfork(pre2, par2, chi2);
	park_all();
	for (int i = 0; i < 4; i++)
		loads[i] = start(load, (void *)(intptr_t)i);
	check("fork from 4 threads, threads parked in all ways", in_threads(4, forker) == 4);
	check("vfork, spawn, system, popen, clone, forkpty, daemon", in_threads(4, all_kinds) == 4);
	check("atfork handlers: order, by whom; fork in one of them", in_threads(4, atfork_thread) == 4);
	check("fork in a signal handler", in_threads(4, handler_thread) == 4);
	jumping[0] = start(jumper, NULL);
	jumping[1] = start(teaser, &jumping[0]);
	check("fork while handlers are left by a jump", in_threads(2, wired_thread) == 2);
	no_more = 1;
	pthread_join(jumping[1], NULL);
	pthread_join(jumping[0], NULL);
	check("fork from threads with an OS thread of their own", in_threads(4, wired_thread) == 4);
	check("five generations, each with threads", generation((void *)4) == NULL);
	check("set*id in several threads at once", in_threads(8, sets_and_sets) == 8);
	pid = fork();
	if (pid == 0)
		_exit(ids_for_all());
	check("ids changed by one thread are every thread's", exit_of(pid) == 0);
	pid = fork();
	if (pid == 0)
		_exit(chain(many ? 200 : 40));
	check("exec from a thread, many times in a row", exit_of(pid) == 17);
	stop = 1;
	for (int i = 0; i < 4; i++)
		pthread_join(loads[i], NULL);
	check("whoever was parked goes on", release_all());
	printf("%s\n", failures ? "FAILED" : "all ok");
	return failures != 0;
}
