/* SPDX-License-Identifier: MIT */
/*
 * Cancellation of every call that is a cancellation point, and what each has done or undone afterwards.
 *
 * Each row is a call that waits for ever and a look at what it left.  It is cancelled in four ways: while it waits; before it
 * is called; in a thread with an OS thread of its own (a CPU set of one CPU, which wires a green thread); and with a
 * signal handler in between.  The clean-up handlers that ran are counted: one in the row, one around it.
 */
#include <aio.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}
#define CHECK(x) do { if ((long)(x) == -1) die(#x); } while (0)

static int p[2], sv[2], lfd, full[2];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, other = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static pthread_t sleeper;
static int msq, sems, ep, lockfd;
static mqd_t mq;
static FILE *in, *out;
static volatile int handled;
static _Atomic int cleaned, entered;

static struct timespec far(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_sec += 1000;
	return ts;
}

static void handler(int sig) { (void)sig; handled++; }
static void cleanup(void *arg) { (void)arg; cleaned++; }
static void unlock(void *arg) { cleaned++; if (pthread_mutex_unlock(arg) != 0) die("unlock"); }

/* ---- the calls ---- */

static char buf[65536];

static void c_read(void) { read(p[0], buf, 1); }
static void c_readv(void) { struct iovec v = {buf, 1}; readv(p[0], &v, 1); }
static void c_write(void) { write(full[1], buf, sizeof buf); }
static void c_writev(void) { struct iovec v = {buf, sizeof buf}; writev(full[1], &v, 1); }
static void c_recv(void) { recv(sv[0], buf, 1, 0); }
static void c_recvfrom(void) { recvfrom(sv[0], buf, 1, 0, NULL, NULL); }
static void c_recvmsg(void) { struct iovec v = {buf, 1}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1}; recvmsg(sv[0], &m, 0); }
static void c_recvmmsg(void)
{
	struct iovec v = {buf, 1};
	struct mmsghdr m = {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}};
	recvmmsg(sv[0], &m, 1, 0, NULL);
}
static void c_accept(void) { accept(lfd, NULL, NULL); }
static void c_accept4(void) { accept4(lfd, NULL, NULL, SOCK_CLOEXEC); }
static void c_poll(void) { struct pollfd f = {p[0], POLLIN, 0}; poll(&f, 1, -1); }
static void c_ppoll(void) { struct pollfd f = {p[0], POLLIN, 0}; ppoll(&f, 1, NULL, NULL); }
static void c_select(void) { fd_set s; FD_ZERO(&s); FD_SET(p[0], &s); select(p[0] + 1, &s, NULL, NULL, NULL); }
static void c_pselect(void) { fd_set s; FD_ZERO(&s); FD_SET(p[0], &s); pselect(p[0] + 1, &s, NULL, NULL, NULL, NULL); }
static void c_epoll(void) { struct epoll_event e; epoll_wait(ep, &e, 1, -1); }
static void c_epoll_pwait(void) { struct epoll_event e; sigset_t m; sigemptyset(&m); epoll_pwait(ep, &e, 1, -1, &m); }
static void c_sleep(void) { sleep(1000); }
static void c_usleep(void) { for (;;) usleep(900000); }
static void c_nanosleep(void) { struct timespec t = {1000, 0}; nanosleep(&t, NULL); }
static void c_clock_nanosleep(void) { struct timespec t = far(CLOCK_MONOTONIC); clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL); }
static void c_pause(void) { for (;;) pause(); }
static void c_sigsuspend(void) { sigset_t m; sigemptyset(&m); for (;;) sigsuspend(&m); }
static void c_sigwait(void) { sigset_t s; int sig; sigemptyset(&s); sigaddset(&s, SIGUSR2); sigwait(&s, &sig); }
static void c_sigwaitinfo(void) { sigset_t s; sigemptyset(&s); sigaddset(&s, SIGUSR2); for (;;) sigwaitinfo(&s, NULL); }
static void c_sigtimedwait(void)
{
	struct timespec t = {1000, 0};
	sigset_t s;
	sigemptyset(&s);
	sigaddset(&s, SIGUSR2);
	for (;;)
		sigtimedwait(&s, NULL, &t);
}
static void c_sem_wait(void) { while (sem_wait(&sem) < 0 && errno == EINTR); }
static void c_sem_timedwait(void) { struct timespec t = far(CLOCK_REALTIME); while (sem_timedwait(&sem, &t) < 0 && errno == EINTR); }
static void c_sem_clockwait(void) { struct timespec t = far(CLOCK_MONOTONIC); while (sem_clockwait(&sem, CLOCK_MONOTONIC, &t) < 0 && errno == EINTR); }
static void c_join(void) { pthread_join(sleeper, NULL); }
static void c_timedjoin(void) { struct timespec t = far(CLOCK_REALTIME); pthread_timedjoin_np(sleeper, NULL, &t); }
static void c_cond_wait(void)
{
	pthread_mutex_lock(&mutex);
	pthread_cleanup_push(unlock, &mutex);
	for (;;)
		pthread_cond_wait(&cond, &mutex);
	pthread_cleanup_pop(1);
}
static void c_cond_timedwait(void)
{
	struct timespec t = far(CLOCK_REALTIME);

	pthread_mutex_lock(&mutex);
	pthread_cleanup_push(unlock, &mutex);
	for (;;)
		pthread_cond_timedwait(&cond, &mutex, &t);
	pthread_cleanup_pop(1);
}
/* Not even then may it go without the mutex. */
static void c_cond_async(void) { pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL); c_cond_wait(); }
static void c_waitpid(void) { while (waitpid(-1, NULL, 0) < 0 && errno == EINTR); }
static void c_waitid(void) { siginfo_t si; while (waitid(P_ALL, 0, &si, WEXITED) < 0 && errno == EINTR); }
static void c_msgrcv(void) { struct { long t; char c; } m; while (msgrcv(msq, &m, 1, 0, 0) < 0 && errno == EINTR); }
static void c_mq_receive(void) { while (mq_receive(mq, buf, sizeof buf, NULL) < 0 && errno == EINTR); }
static void c_mq_timedreceive(void) { struct timespec t = far(CLOCK_REALTIME); while (mq_timedreceive(mq, buf, sizeof buf, NULL, &t) < 0 && errno == EINTR); }
static void c_setlkw(void) { struct flock l = {.l_type = F_WRLCK}; while (fcntl(lockfd, F_OFD_SETLKW, &l) < 0 && errno == EINTR); }
static struct aiocb cb;
static void c_aio_suspend(void)
{
	const struct aiocb *list[1] = {&cb};

	cb = (struct aiocb){.aio_fildes = p[0], .aio_buf = buf, .aio_nbytes = 1};
	if (aio_read(&cb) < 0)
		die("aio_read");
	pthread_cleanup_push(cleanup, NULL);
	while (aio_suspend(list, 1, NULL) < 0 && errno == EINTR);
	pthread_cleanup_pop(1);
}
static void c_open(void) { open("fifo", O_RDONLY); }
static void c_fgets(void) { fgets(buf, 10, in); }
static void c_fread(void) { fread(buf, 1, 10, in); }
static void c_getc(void) { getc(in); }
static void c_getline(void) { char *l = NULL; size_t n = 0; getline(&l, &n, in); }
static void c_fscanf(void) { int i; fscanf(in, "%d", &i); }
static void c_fprintf(void) { for (;;) fprintf(out, "%s", "some text that goes into a buffer and then into a pipe"); }
static void c_fwrite(void) { for (;;) fwrite(buf, 1, sizeof buf, out); }
static void c_fputs(void) { for (;;) fputs("text", out); }
static void c_fflush(void) { fputs("text", out); fflush(out); }
static void c_system(void) { system("exec sleep 1000"); }
static void c_testcancel(void) { for (;;) { pthread_testcancel(); sched_yield(); } }

/* ---- what they left ---- */

static void l_pipe(void) { CHECK(write(p[1], "x", 1)); if (read(p[0], buf, 10) != 1) die("a byte is lost"); }
static void l_aio(void)
{
	CHECK(write(p[1], "x", 1)); /* for the request, which goes on */
	while (aio_error(&cb) == EINPROGRESS)
		sched_yield();
	if (aio_return(&cb) != 1)
		die("aio_return");
}
static void l_sock(void) { CHECK(write(sv[1], "x", 1)); if (read(sv[0], buf, 10) != 1) die("a byte is lost"); }
static void l_sem(void) { int v; CHECK(sem_post(&sem)); CHECK(sem_getvalue(&sem, &v)); if (v != 1) die("the semaphore is taken"); CHECK(sem_wait(&sem)); }
static void l_mutex(void) { if (pthread_mutex_trylock(&mutex)) die("the mutex is held"); pthread_mutex_unlock(&mutex); }
static void l_accept(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "socket"};
	int c = socket(AF_UNIX, SOCK_STREAM, 0), s;

	CHECK(connect(c, (struct sockaddr *)&a, sizeof a));
	CHECK(s = accept(lfd, NULL, NULL));
	close(s);
	close(c);
}
static void l_signal(void)
{
	sigset_t s;
	int sig;

	sigemptyset(&s);
	sigaddset(&s, SIGUSR2);
	CHECK(kill(getpid(), SIGUSR2));
	if (sigwait(&s, &sig) || sig != SIGUSR2)
		die("the signal is lost");
}
static void l_msg(void) { struct { long t; char c; } m = {1, 'x'}; CHECK(msgsnd(msq, &m, 1, 0)); if (msgrcv(msq, &m, 1, 0, IPC_NOWAIT) != 1) die("a message is lost"); }
static void l_mq(void) { CHECK(mq_send(mq, "x", 1, 0)); if (mq_receive(mq, buf, sizeof buf, NULL) != 1) die("a message is lost"); }
static void l_in(void)
{
	if (ftrylockfile(in))
		die("the stream is locked");
	funlockfile(in);
	CHECK(write(p[1], "7\n", 2));
	if (fgets(buf, 10, in) == NULL || strcmp(buf, "7\n"))
		die("the line is lost");
}
static void l_full(void)
{
	int flags = fcntl(full[0], F_GETFL);

	CHECK(fcntl(full[0], F_SETFL, flags | O_NONBLOCK));
	while (read(full[0], buf, sizeof buf) > 0);
	CHECK(fcntl(full[0], F_SETFL, flags));
}
static void l_out(void)
{
	if (ftrylockfile(out))
		die("the stream is locked");
	funlockfile(out);
	l_full();
	/* The stream may have something left. */
	if (fflush(out))
		die("fflush");
	l_full();
}
static void l_children(void)
{
	pid_t pid;
	int n = 0;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		n++;
	if (pid == 0 || n > 0)
		die("a child is left");
}
static void l_nothing(void) {}
static void l_join(void) { pthread_t t = sleeper; if (pthread_tryjoin_np(t, NULL) != EBUSY) die("it is not joinable any more"); }

static void fill_full(void)
{
	int flags = fcntl(full[1], F_GETFL);

	CHECK(fcntl(full[1], F_SETFL, flags | O_NONBLOCK));
	while (write(full[1], buf, 4096) > 0);
	CHECK(fcntl(full[1], F_SETFL, flags));
}

enum { FILL = 1, EXTRA = 2, CHILD = 4, ENDS = 8 };
static const struct row {
	const char *name;
	void (*call)(void), (*left)(void);
	int flags; /* FILL: into a full pipe; EXTRA: has a clean-up handler; CHILD: with a child; ENDS: a handler ends the call */
} rows[] = {
	{"read", c_read, l_pipe, 0}, {"readv", c_readv, l_pipe, 0},
	{"write", c_write, l_full, FILL}, {"writev", c_writev, l_full, FILL},
	{"recv", c_recv, l_sock, 0}, {"recvfrom", c_recvfrom, l_sock, 0}, {"recvmsg", c_recvmsg, l_sock, 0},
	{"recvmmsg", c_recvmmsg, l_sock, 0}, {"accept", c_accept, l_accept, 0}, {"accept4", c_accept4, l_accept, 0},
	{"poll", c_poll, l_pipe, ENDS}, {"ppoll", c_ppoll, l_pipe, ENDS}, {"select", c_select, l_pipe, ENDS},
	{"pselect", c_pselect, l_pipe, ENDS}, {"epoll_wait", c_epoll, l_pipe, ENDS}, {"epoll_pwait", c_epoll_pwait, l_pipe, ENDS},
	{"sleep", c_sleep, l_nothing, ENDS}, {"usleep", c_usleep, l_nothing, 0}, {"nanosleep", c_nanosleep, l_nothing, ENDS},
	{"clock_nanosleep", c_clock_nanosleep, l_nothing, ENDS}, {"pause", c_pause, l_nothing, 0},
	{"sigsuspend", c_sigsuspend, l_nothing, 0}, {"sigwait", c_sigwait, l_signal, 0},
	{"sigwaitinfo", c_sigwaitinfo, l_signal, 0}, {"sigtimedwait", c_sigtimedwait, l_signal, 0},
	{"sem_wait", c_sem_wait, l_sem, 0}, {"sem_timedwait", c_sem_timedwait, l_sem, 0},
	{"sem_clockwait", c_sem_clockwait, l_sem, 0}, {"pthread_join", c_join, l_join, 0},
	{"pthread_timedjoin_np", c_timedjoin, l_join, 0}, {"pthread_cond_wait", c_cond_wait, l_mutex, EXTRA},
	{"pthread_cond_wait, asynchronous", c_cond_async, l_mutex, EXTRA},
	{"pthread_cond_timedwait", c_cond_timedwait, l_mutex, EXTRA}, {"waitpid", c_waitpid, l_nothing, CHILD},
	{"waitid", c_waitid, l_nothing, CHILD}, {"msgrcv", c_msgrcv, l_msg, 0}, {"mq_receive", c_mq_receive, l_mq, 0},
	{"mq_timedreceive", c_mq_timedreceive, l_mq, 0}, {"fcntl F_OFD_SETLKW", c_setlkw, l_nothing, 0},
	{"aio_suspend", c_aio_suspend, l_aio, EXTRA}, {"open of a FIFO", c_open, l_nothing, 0},
	{"fgets", c_fgets, l_in, 0}, {"fread", c_fread, l_in, 0}, {"getc", c_getc, l_in, 0}, {"getline", c_getline, l_in, 0},
	{"fscanf", c_fscanf, l_in, 0}, {"fprintf", c_fprintf, l_out, FILL},
	{"fwrite", c_fwrite, l_out, FILL}, {"fputs", c_fputs, l_out, FILL},
	{"fflush", c_fflush, l_out, FILL}, {"system", c_system, l_children, 0},
	{"pthread_testcancel", c_testcancel, l_nothing, 0},
};
enum { NROWS = sizeof rows / sizeof rows[0] };

enum { WAITING, EARLY, WIRED, SIGNALLED, NWAYS };
static const char *const ways[] = {"waiting", "early", "wired", "signalled"};
static int way;

static void *victim(void *arg)
{
	const struct row *r = arg;

	pthread_cleanup_push(cleanup, NULL);
	if (way == EARLY) {
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		pthread_cancel(pthread_self());
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	}
	entered = 1;
	r->call();
	pthread_cleanup_pop(0);
	return "returned";
}

static void nap(void)
{
	struct timespec t = {0, 1500000};

	nanosleep(&t, NULL);
}

static void try(const struct row *r)
{
	pthread_attr_t attr;
	pthread_t t;
	void *res;
	pid_t child = 0;

	cleaned = entered = handled = 0;
	if (r->flags & FILL)
		fill_full();
	if (r->flags & CHILD && (child = fork()) == 0) {
		for (;;)
			pause();
	}
	pthread_attr_init(&attr);
	if (way == WIRED) {
		cpu_set_t all, one;
		int cpu = 0;
		sched_getaffinity(0, sizeof all, &all);
		while (!CPU_ISSET(cpu, &all))
			cpu++;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		pthread_attr_setaffinity_np(&attr, sizeof one, &one);
	}
	errno = pthread_create(&t, &attr, victim, (void *)r);
	if (errno)
		die("pthread_create");
	pthread_attr_destroy(&attr);
	while (!entered)
		sched_yield();
	if (way != EARLY) {
		nap();
		if (way == SIGNALLED) {
			pthread_kill(t, SIGUSR1);
			while (!handled)
				sched_yield();
		}
		pthread_cancel(t);
	}
	pthread_join(t, &res);
	if (res != PTHREAD_CANCELED && !(res != NULL && way == SIGNALLED && r->flags & ENDS))
		printf("%s %s: not cancelled\n", r->name, ways[way]);
	else if (res == PTHREAD_CANCELED && cleaned != 1 + ((r->flags & EXTRA) != 0) && !(way == EARLY && cleaned == 1))
		printf("%s %s: %d clean-up handlers\n", r->name, ways[way], cleaned);
	if (child) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	r->left();
}

static void *sleep_on(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&other);
	pthread_mutex_unlock(&other);
	return NULL;
}

int main(void)
{
	char dir[] = "/tmp/t_cancel.XXXXXX", name[64];
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "socket"};
	struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
	struct mq_attr ma = {.mq_maxmsg = 2, .mq_msgsize = 16};
	struct epoll_event ev = {.events = EPOLLIN};
	struct flock l = {.l_type = F_WRLCK};
	sigset_t s;
	int fd;

	if (mkdtemp(dir) == NULL || chdir(dir) < 0)
		die(dir);
	sigemptyset(&s);
	sigaddset(&s, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &s, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	CHECK(pipe(p));
	CHECK(pipe(full));
	CHECK(fcntl(full[1], F_SETPIPE_SZ, 65536));
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	CHECK(lfd = socket(AF_UNIX, SOCK_STREAM, 0));
	CHECK(bind(lfd, (struct sockaddr *)&a, sizeof a));
	CHECK(listen(lfd, 5));
	CHECK(sem_init(&sem, 0, 0));
	CHECK(msq = msgget(IPC_PRIVATE, 0600));
	CHECK(sems = semget(IPC_PRIVATE, 1, 0600));
	snprintf(name, sizeof name, "/t_cancel.%d", (int)getpid());
	CHECK(mq = mq_open(name, O_RDWR | O_CREAT, 0600, &ma));
	mq_unlink(name);
	CHECK(ep = epoll_create1(0));
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
	CHECK(mkfifo("fifo", 0600));
	CHECK(fd = open("file", O_RDWR | O_CREAT, 0600));
	CHECK(fcntl(fd, F_OFD_SETLK, &l));
	CHECK(lockfd = open("file", O_RDWR));
	in = fdopen(p[0], "r");
	out = fdopen(full[1], "w");
	pthread_mutex_lock(&other);
	pthread_create(&sleeper, NULL, sleep_on, NULL);

	for (way = 0; way < NWAYS; way++) {
		for (int i = 0; i < NROWS; i++)
			try(&rows[i]);
		printf("%s: done\n", ways[way]);
	}

	pthread_mutex_unlock(&other);
	pthread_join(sleeper, NULL);
	msgctl(msq, IPC_RMID, NULL);
	semctl(sems, 0, IPC_RMID);
	unlink("socket");
	unlink("fifo");
	unlink("file");
	if (chdir("/") == 0)
		rmdir(dir);
	puts("ok");
	return 0;
}
