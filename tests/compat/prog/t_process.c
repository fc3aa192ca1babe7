/* SPDX-License-Identifier: MIT */
/*
 * Processes made by a program of many threads: fork, vfork, exec, posix_spawn, system, popen, atfork handlers, user ids, and
 * what an exec'd program finds.  Prints one line per case; the same natively and under pgreen.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N 20

extern char **environ;
static int failures;
static const char self_path[] = "/proc/self/exe";

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

/* Runs fn in n threads and counts those that returned NULL. */
static int in_threads(int n, void *(*fn)(void *))
{
	pthread_t t[N];
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

/* ---- threads that are parked all the while ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static int open_gate;

static void *parked(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&gate);
	while (!open_gate)
		pthread_cond_wait(&opened, &gate);
	pthread_mutex_unlock(&gate);
	return NULL;
}

/* ---- fork ---- */

static void *add_one(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
	nap(1);
	return NULL;
}

static void *fork_thread(void *arg)
{
	pthread_t me = pthread_self();
	pid_t pid;

	(void)arg;
	pid = fork();
	if (pid == 0) {
		atomic_int sum = 0;
		pthread_t t[10];

		if (!pthread_equal(me, pthread_self()) || gettid() != getpid())
			_exit(1);
		for (int i = 0; i < 10; i++)
			t[i] = start(add_one, &sum);
		for (int i = 0; i < 10; i++)
			pthread_join(t[i], NULL);
		_exit(sum == 10 ? 42 : 2);
	}
	return exit_of(pid) == 42 ? NULL : (void *)1;
}

static void *exec_thread(void *arg)
{
	for (int i = 0; i < 3; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			switch ((intptr_t)arg % 4) {
			case 0: execl("/bin/true", "true", (char *)NULL); break;
			case 1: execlp("true", "true", "with", "arguments", (char *)NULL); break;
			case 2: execle("/bin/true", "true", (char *)NULL, environ); break;
			case 3: execv("/bin/true", (char *[]){ "true", NULL }); break;
			}
			_exit(99);
		}
		if (exit_of(pid) != 0)
			return (void *)1;
	}
	return NULL;
}

static void *vfork_thread(void *arg)
{
	for (int i = 0; i < 3; i++) {
		pid_t pid = vfork();
		if (pid == 0) {
			if ((intptr_t)arg % 2)
				_exit(5);
			execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
			_exit(99);
		}
		if (pid < 0 || exit_of(pid) != 5)
			return (void *)1;
	}
	return NULL;
}

static atomic_int usr1;
static void on_usr1(int sig)
{
	(void)sig;
	atomic_fetch_add(&usr1, 1);
}

/* What the child changes about signals is the child's own. */
static int vfork_signals(void)
{
	struct sigaction sa;
	sigset_t set, now;
	pid_t pid;
	int code;

	signal(SIGUSR1, on_usr1);
	pid = vfork();
	if (pid == 0) {
		sigfillset(&set);
		sigprocmask(SIG_SETMASK, &set, NULL);
		signal(SIGUSR1, SIG_IGN);
		execl("/bin/true", "true", (char *)NULL);
		_exit(99);
	}
	code = exit_of(pid);
	sigaction(SIGUSR1, NULL, &sa);
	sigprocmask(SIG_BLOCK, NULL, &now);
	raise(SIGUSR1);
	signal(SIGUSR1, SIG_DFL);
	return code == 0 && sa.sa_handler == on_usr1 && !sigismember(&now, SIGTERM) && usr1 == 1;
}

static void *spawn_thread(void *arg)
{
	char *argv[] = { "sh", "-c", "exit 6", NULL };
	pid_t pid;

	(void)arg;
	if (posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) != 0 || exit_of(pid) != 6)
		return (void *)1;
	return posix_spawn(&pid, "/no/such/file", NULL, NULL, argv, environ) == ENOENT ? NULL : (void *)1;
}

static void *system_thread(void *arg)
{
	int st = system("exit 3");

	(void)arg;
	return WIFEXITED(st) && WEXITSTATUS(st) == 3 ? NULL : (void *)1;
}

static void *popen_thread(void *arg)
{
	char line[64] = "", want[64], cmd[64];
	FILE *f;

	snprintf(cmd, sizeof cmd, "echo number %d; exit 4", (int)(intptr_t)arg);
	snprintf(want, sizeof want, "number %d\n", (int)(intptr_t)arg);
	f = popen(cmd, "r");
	if (f == NULL || fgets(line, sizeof line, f) == NULL || strcmp(line, want) != 0)
		return (void *)1;
	return WEXITSTATUS(pclose(f)) == 4 ? NULL : (void *)1;
}

/* ---- atfork ---- */

static char order[64];
static int recording;
static void say(const char *s)
{
	if (recording)
		strncat(order, s, sizeof order - strlen(order) - 1);
}
static void pre1(void) { say("a"); }
static void par1(void) { say("b"); }
static void chi1(void) { say("c"); }
static void pre2(void) { say("d"); }
static void par2(void) { say("e"); }
static void chi2(void) { say("f"); }

static void *atfork_thread(void *arg)
{
	pid_t pid;
	int code;

	(void)arg;
	recording = 1;
	order[0] = '\0';
	pid = fork();
	if (pid == 0)
		_exit(strcmp(order, "dacf") == 0 ? 0 : 1);
	recording = 0;
	code = exit_of(pid);
	return code == 0 && strcmp(order, "dabe") == 0 ? NULL : (void *)1;
}

/* ---- 200 forks under load ---- */

static atomic_int stop_load;
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;

static void *load_thread(void *arg)
{
	unsigned seed = (unsigned)(intptr_t)arg + 1;

	while (!stop_load) {
		void *p[8];
		pthread_mutex_lock(&load_lock);
		pthread_mutex_unlock(&load_lock);
		for (int i = 0; i < 8; i++)
			p[i] = malloc((size_t)(rand_r(&seed) % 3000 + 1));
		for (int i = 0; i < 8; i++)
			free(p[i]);
		sched_yield();
	}
	return NULL;
}

static int fork_storm(void)
{
	pthread_t t[8];
	int good = 0;

	for (int i = 0; i < 8; i++)
		t[i] = start(load_thread, (void *)(intptr_t)i);
	for (int i = 0; i < 200; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			char *p = malloc(1000);
			memset(p, i, 1000);
			free(p);
			_exit(i % 100);
		}
		good += exit_of(pid) == i % 100;
	}
	stop_load = 1;
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	return good;
}

/* ---- what an exec'd program finds ---- */

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n - 3; /* . and .. and the directory */
}

/* The signals blocked and ignored in this process, as the kernel has them. */
static void kernel_signals(char *buf, size_t n)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long long v, blk = 0, ign = 0;
	char line[256];

	while (fgets(line, sizeof line, f) != NULL) {
		if (sscanf(line, "SigBlk: %llx", &v) == 1)
			blk = v;
		if (sscanf(line, "SigIgn: %llx", &v) == 1)
			ign = v;
	}
	fclose(f);
	snprintf(buf, n, "%llx-%llx", blk, ign);
}

static int fds_at_start;
static char signals_at_start[64];

static void *exec_self_thread(void *arg)
{
	pid_t pid = fork();

	(void)arg;
	if (pid == 0) {
		execl(self_path, self_path, "--count", signals_at_start, (char *)NULL);
		_exit(99);
	}
	return exit_of(pid) == fds_at_start ? NULL : (void *)1;
}

/* exec from a thread while others run: the pid stays, the threads go. */
static int exec_from_thread(void)
{
	int fd[2];
	pid_t pid, told = 0;

	if (pipe(fd) < 0)
		abort();
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		char num[16];
		snprintf(num, sizeof num, "%d", fd[1]);
		execl(self_path, self_path, "--exec", num, (char *)NULL);
		_exit(99);
	}
	close(fd[1]);
	if (read(fd[0], &told, sizeof told) != sizeof told)
		told = -1;
	close(fd[0]);
	return exit_of(pid) == 0 && told == pid;
}

static void *exec_now(void *arg)
{
	execl(self_path, self_path, "--pid", (const char *)arg, (char *)NULL);
	return NULL;
}

static int child_main(char **argv)
{
	if (strcmp(argv[1], "--count") == 0) {
		char now[64];
		kernel_signals(now, sizeof now);
		return strcmp(now, argv[2]) == 0 ? count_fds() : 100;
	}
	if (strcmp(argv[1], "--exec") == 0) {
		for (int i = 0; i < 5; i++)
			start(parked, NULL);
		start(exec_now, argv[2]);
		for (;;)
			pause();
	}
	if (strcmp(argv[1], "--pid") == 0) {
		pid_t me = getpid();
		return write(atoi(argv[2]), &me, sizeof me) == sizeof me ? 0 : 1;
	}
	return 98;
}

/* ---- ids and names ---- */

static void *ids_thread(void *arg)
{
	int ok = setuid(getuid()) == 0 && setgid(getgid()) == 0 && seteuid(geteuid()) == 0;

	(void)arg;
	ok = ok && setreuid(-1, -1) == 0 && setresgid(-1, -1, -1) == 0;
	errno = 0;
	ok = ok && seteuid(-1) == -1 && errno == EINVAL;
	return ok ? NULL : (void *)1;
}

static void *name_thread(void *arg)
{
	char name[32], got[32] = "", other[32] = "";

	snprintf(name, sizeof name, "worker-%d", (int)(intptr_t)arg);
	prctl(PR_SET_NAME, name, 0, 0, 0);
	nap(5);
	prctl(PR_GET_NAME, got, 0, 0, 0);
	pthread_getname_np(pthread_self(), other, sizeof other);
	return strcmp(got, name) == 0 && strcmp(other, name) == 0 ? NULL : (void *)1;
}

int main(int argc, char **argv)
{
	pthread_t p[N];

	if (argc == 3)
		return child_main(argv);
	alarm(120);
	fds_at_start = count_fds();
	kernel_signals(signals_at_start, sizeof signals_at_start);
	for (int i = 0; i < N; i++)
		p[i] = start(parked, NULL);
	check("fork from a thread, threads in the child", in_threads(1, fork_thread) == 1);
	check("fork from 8 threads at once", in_threads(8, fork_thread) == 8);
	check("fork and exec from 20 threads at once", in_threads(N, exec_thread) == N);
	check("vfork and exec from 20 threads at once", in_threads(N, vfork_thread) == N);
	check("vfork: signal state of the child is its own", vfork_signals());
	check("posix_spawn", in_threads(10, spawn_thread) == 10);
	check("system", in_threads(5, system_thread) == 5);
	check("popen", in_threads(10, popen_thread) == 10);
	pthread_atfork(pre1, par1, chi1);
	pthread_atfork(pre2, par2, chi2);
	check("pthread_atfork: order", in_threads(1, atfork_thread) == 1);
	check("fork 200 times under load", fork_storm() == 200);
	check("exec: no descriptor, mask or ignored signal leaks", in_threads(5, exec_self_thread) == 5);
	check("exec from a thread", exec_from_thread());
	check("set*id from threads", in_threads(5, ids_thread) == 5);
	check("prctl: a name for each thread", in_threads(N, name_thread) == N);
	pthread_mutex_lock(&gate);
	open_gate = 1;
	pthread_cond_broadcast(&opened);
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < N; i++)
		pthread_join(p[i], NULL);
	printf("%s\n", failures ? "FAILED" : "all ok");
	return failures != 0;
}
