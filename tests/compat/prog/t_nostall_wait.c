/* SPDX-License-Identifier: MIT */
/* No wait keeps the other threads waiting: objects, signals, sleeping, children, System V and POSIX IPC, futexes by number. */
#include <aio.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <threads.h>
#include <wordexp.h>

#include "nostall.h"

static const struct timespec *soon(void)
{
	static struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 600;
	return &ts;
}

/* ---- mutexes ---- */

static pthread_mutex_t m;
static void mutex_of(int type, int protocol, int shared, int robust)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, type);
	pthread_mutexattr_setprotocol(&a, protocol);
	pthread_mutexattr_setpshared(&a, shared);
	pthread_mutexattr_setrobust(&a, robust);
	pthread_mutex_init(&m, &a);
	pthread_mutex_lock(&m);
}
static void m_normal(void) { mutex_of(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE, 0, 0); }
static void m_recursive(void) { mutex_of(PTHREAD_MUTEX_RECURSIVE, PTHREAD_PRIO_NONE, 0, 0); }
static void m_shared(void) { mutex_of(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE, 1, 0); }
static void m_robust(void) { mutex_of(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE, 0, 1); }
static void m_inherit(void) { mutex_of(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_INHERIT, 0, 0); }
static void m_release(void) { pthread_mutex_unlock(&m); }
static void m_after(void) { pthread_mutex_destroy(&m); }
static int c_lock(void) { return pthread_mutex_lock(&m) == 0 && pthread_mutex_unlock(&m) == 0; }
static int c_timedlock(void) { return pthread_mutex_timedlock(&m, soon()) == 0 && pthread_mutex_unlock(&m) == 0; }
static int c_clocklock(void) { return pthread_mutex_clocklock(&m, CLOCK_REALTIME, soon()) == 0 && pthread_mutex_unlock(&m) == 0; }
static mtx_t cm;
static void cm_setup(void) { mtx_init(&cm, mtx_plain); mtx_lock(&cm); }
static void cm_release(void) { mtx_unlock(&cm); }
static int c_mtx(void) { return mtx_lock(&cm) == thrd_success && mtx_unlock(&cm) == thrd_success; }
static int c_mtx_timed(void) { return mtx_timedlock(&cm, soon()) == thrd_success && mtx_unlock(&cm) == thrd_success; }
static void cm_timed(void) { mtx_init(&cm, mtx_timed); mtx_lock(&cm); }
static cnd_t cn;
static int cn_flag;
static void cn_setup(void) { mtx_init(&cm, mtx_plain); cnd_init(&cn); cn_flag = 0; }
static void cn_release(void) { mtx_lock(&cm); cn_flag = 1; cnd_broadcast(&cn); mtx_unlock(&cm); }
static int c_cnd(void) { mtx_lock(&cm); while (!cn_flag) cnd_wait(&cn, &cm); return mtx_unlock(&cm) == thrd_success; }
static int c_cnd_timed(void)
{
	mtx_lock(&cm);
	while (!cn_flag)
		cnd_timedwait(&cn, &cm, soon());
	return mtx_unlock(&cm) == thrd_success;
}
static pthread_spinlock_t sp;
static void sp_setup(void) { pthread_spin_init(&sp, 0); pthread_spin_lock(&sp); }
static void sp_release(void) { pthread_spin_unlock(&sp); }
static int c_spin(void) { return pthread_spin_lock(&sp) == 0; }

/* ---- conditions, semaphores and the others ---- */

static pthread_cond_t cv = PTHREAD_COND_INITIALIZER;
static int flag;
static void m_free(void) { m_normal(); pthread_mutex_unlock(&m); flag = 0; }
static void signal_it(void)
{
	pthread_mutex_lock(&m);
	flag = 1;
	pthread_cond_broadcast(&cv);
	pthread_mutex_unlock(&m);
}
static int cond(int timed)
{
	int r = 0;

	pthread_mutex_lock(&m);
	while (!flag && r == 0)
		r = timed == 0 ? pthread_cond_wait(&cv, &m) : timed == 1 ? pthread_cond_timedwait(&cv, &m, soon())
			: pthread_cond_clockwait(&cv, &m, CLOCK_REALTIME, soon());
	pthread_mutex_unlock(&m);
	return r == 0;
}
static int c_cond(void) { return cond(0); }
static int c_cond_timed(void) { return cond(1); }
static int c_cond_clock(void) { return cond(2); }

static sem_t sm, *sem;
static void s_setup(void) { sem = &sm; sem_init(sem, 0, 0); }
static void s_shared(void) { sem = &sm; sem_init(sem, 1, 0); }
static void s_named(void)
{
	char name[64];

	snprintf(name, sizeof name, "/nostall.%d", getpid());
	sem = sem_open(name, O_CREAT | O_EXCL, 0600, 0);
	if (sem == SEM_FAILED)
		die("sem_open");
	sem_unlink(name);
}
static void s_release(void) { sem_post(sem); }
static void s_close(void) { sem_close(sem); }
static int c_sem(void) { return sem_wait(sem) == 0; }
static int c_sem_timed(void) { return sem_timedwait(sem, soon()) == 0; }
static int c_sem_clock(void) { return sem_clockwait(sem, CLOCK_REALTIME, soon()) == 0; }

static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static void rw_write(void) { pthread_rwlock_wrlock(&rw); }
static void rw_read(void) { pthread_rwlock_rdlock(&rw); }
static void rw_release(void) { pthread_rwlock_unlock(&rw); }
static int c_rdlock(void) { return pthread_rwlock_rdlock(&rw) == 0 && pthread_rwlock_unlock(&rw) == 0; }
static int c_wrlock(void) { return pthread_rwlock_wrlock(&rw) == 0 && pthread_rwlock_unlock(&rw) == 0; }
static int c_timedrd(void) { return pthread_rwlock_timedrdlock(&rw, soon()) == 0 && pthread_rwlock_unlock(&rw) == 0; }

static int c_timedwr(void) { return pthread_rwlock_timedwrlock(&rw, soon()) == 0 && pthread_rwlock_unlock(&rw) == 0; }
static int c_clockrd(void) { return pthread_rwlock_clockrdlock(&rw, CLOCK_REALTIME, soon()) == 0 && pthread_rwlock_unlock(&rw) == 0; }
static int c_clockwr(void) { return pthread_rwlock_clockwrlock(&rw, CLOCK_REALTIME, soon()) == 0 && pthread_rwlock_unlock(&rw) == 0; }

static pthread_barrier_t bar;
static void b_setup(void) { pthread_barrier_init(&bar, NULL, 2); }
static void b_release(void) { pthread_barrier_wait(&bar); }
static void b_after(void) { pthread_barrier_destroy(&bar); }
static int c_barrier(void) { int r = pthread_barrier_wait(&bar); return r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD; }

/* Somebody who stays until there is a byte in the pipe. */
static pthread_t stayer;
static void *stay(void *arg) { char c; return read(fd[0], &c, 1) == 1 ? arg : NULL; }
static void j_setup(void)
{
	make_pipe();
	pthread_create(&stayer, NULL, stay, &fd);
}
static int c_join(void) { void *r; return pthread_join(stayer, &r) == 0 && r == &fd; }
static int c_timedjoin(void) { void *r; return pthread_timedjoin_np(stayer, &r, soon()) == 0 && r == &fd; }
static int c_clockjoin(void) { void *r; return pthread_clockjoin_np(stayer, &r, CLOCK_REALTIME, soon()) == 0 && r == &fd; }
static int c_thrd_join(void) { int r; return thrd_join(stayer, &r) == thrd_success; }
static pthread_once_t once_;
static void slow_once(void) { char c; if (read(fd[0], &c, 1) != 1) die("once"); }
static void *first_once(void *arg) { pthread_once(&once_, slow_once); return arg; }
static void o_setup(void)
{
	make_pipe();
	once_ = PTHREAD_ONCE_INIT;
	pthread_create(&stayer, NULL, first_once, NULL);
	nap(1000);
}
static void o_after(void) { pthread_join(stayer, NULL); close_both(); }
static int c_call_once(void) { call_once((once_flag *)&once_, slow_once); return 1; }
static int c_once(void) { return pthread_once(&once_, slow_once) == 0; }

/* ---- signals and sleeping ---- */

static sigset_t usr1(void) { sigset_t s; sigemptyset(&s); sigaddset(&s, SIGUSR1); return s; }
static int c_sigwait(void)
{
	sigset_t s = usr1();
	int sig, ok;

	pthread_sigmask(SIG_BLOCK, &s, NULL);
	ok = sigwait(&s, &sig) == 0 && sig == SIGUSR1;
	return ok;
}
static int c_sigwaitinfo(void)
{
	sigset_t s = usr1();
	pthread_sigmask(SIG_BLOCK, &s, NULL);
	return sigwaitinfo(&s, NULL) == SIGUSR1;
}
static int c_sigtimedwait(void)
{
	sigset_t s = usr1();
	struct timespec ts = { 600, 0 };
	pthread_sigmask(SIG_BLOCK, &s, NULL);
	return sigtimedwait(&s, NULL, &ts) == SIGUSR1;
}
static int c_sigsuspend(void) { sigset_t s; sigemptyset(&s); return sigsuspend(&s) == -1 && errno == EINTR; }
extern int __xpg_sigpause(int sig); /* sigpause, which headers warn of */
static int c_sigpause(void) { return __xpg_sigpause(SIGUSR2) == -1 && errno == EINTR; }
static int c_pause(void) { return pause() == -1 && errno == EINTR; }
static int c_nanosleep(void) { struct timespec ts = { 600, 0 }; return nanosleep(&ts, &ts) == -1 && errno == EINTR; }
static int c_clock_nanosleep(void)
{
	struct timespec ts = { 600, 0 };
	return clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL) == EINTR;
}
static int c_clock_abs(void) { return clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, soon(), NULL) == EINTR; }
static int c_sleep(void) { return sleep(600) > 500; }
static int c_usleep(void) { return usleep(600000000) == -1 && errno == EINTR; }
static int c_thrd_sleep(void) { struct timespec ts = { 600, 0 }; return thrd_sleep(&ts, NULL) == -1; }

/* ---- children ---- */

static pid_t child;
static void child_setup(void)
{
	make_pipe();
	if ((child = fork()) == 0) {
		char c;
		_exit(read(fd[0], &c, 1) != 1);
	}
}
static int c_waitpid(void) { int st; return waitpid(child, &st, 0) == child && st == 0; }
static int c_wait(void) { int st; return wait(&st) == child && st == 0; }
static int c_wait4(void) { int st; return wait4(child, &st, 0, NULL) == child && st == 0; }
static int c_wait3(void) { int st; return wait3(&st, 0, NULL) == child && st == 0; }
static int c_waitid(void) { siginfo_t si; return waitid(P_PID, child, &si, WEXITED) == 0 && si.si_pid == child; }
static char *shell(const char *fmt)
{
	static char s[128];

	snprintf(s, sizeof s, fmt, fd[0]);
	return s;
}
static int c_system(void) { return system(shell("read x </proc/self/fd/%d")) == 0; }
static int c_popen(void)
{
	FILE *f = popen(shell("read x </proc/self/fd/%d; echo $x"), "r");
	char s[8];
	int ok = f != NULL && fgets(s, sizeof s, f) != NULL && s[0] == 'x';

	return f != NULL && pclose(f) == 0 && ok;
}
static int c_pclose(void) { FILE *f = popen(shell("read x </proc/self/fd/%d"), "r"); return f != NULL && pclose(f) == 0; }
static int c_wordexp(void)
{
	wordexp_t w;
	int ok = wordexp(shell("$(read x </proc/self/fd/%d && echo $x)"), &w, 0) == 0 && w.we_wordc == 1 && w.we_wordv[0][0] == 'x';

	wordfree(&w);
	return ok;
}
static int c_vfork(void)
{
	pid_t p = vfork();
	int st;

	if (p == 0) {
		char c;
		_exit(read(fd[0], &c, 1) != 1);
	}
	return waitpid(p, &st, 0) == p && st == 0;
}

/* ---- IPC ---- */

static int id;
static struct { long type; char text[8]; } msg = { 1, "hello" };
static void q_setup(void) { id = msgget(IPC_PRIVATE, 0600); }
static void q_full(void)
{
	q_setup();
	while (msgsnd(id, &msg, sizeof msg.text, IPC_NOWAIT) == 0)
		;
}
static void q_put(void) { msgsnd(id, &msg, sizeof msg.text, 0); }
static void q_take(void) { typeof(msg) got; msgrcv(id, &got, sizeof got.text, 0, 0); }
static void q_after(void) { msgctl(id, IPC_RMID, NULL); }
static int c_msgrcv(void) { typeof(msg) got; return msgrcv(id, &got, sizeof got.text, 0, 0) == sizeof msg.text; }
static int c_msgsnd(void) { return msgsnd(id, &msg, sizeof msg.text, 0) == 0; }
static void v_setup(void) { id = semget(IPC_PRIVATE, 1, 0600); semctl(id, 0, SETVAL, 0); }
static void v_release(void) { struct sembuf b = { 0, 1, 0 }; semop(id, &b, 1); }
static void v_after(void) { semctl(id, 0, IPC_RMID); }
static int c_semop(void) { struct sembuf b = { 0, -1, 0 }; return semop(id, &b, 1) == 0; }
static int c_semtimedop(void)
{
	struct sembuf b = { 0, -1, 0 };
	struct timespec ts = { 600, 0 };
	return semtimedop(id, &b, 1, &ts) == 0;
}
static mqd_t mq;
static void mq_setup(void)
{
	struct mq_attr a = { .mq_maxmsg = 1, .mq_msgsize = 8 };
	char name[64];

	snprintf(name, sizeof name, "/nostall.%d", getpid());
	mq = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &a);
	if (mq < 0)
		die("mq_open");
	mq_unlink(name);
}
static void mq_put(void) { mq_send(mq, "x", 1, 0); }
static void mq_full(void) { mq_setup(); mq_put(); }
static void mq_take(void) { char s[8]; mq_receive(mq, s, sizeof s, NULL); }
static void mq_after(void) { mq_close(mq); }
static int c_mq_receive(void) { char s[8]; return mq_receive(mq, s, sizeof s, NULL) == 1; }
static int c_mq_timedreceive(void) { char s[8]; return mq_timedreceive(mq, s, sizeof s, NULL, soon()) == 1; }
static int c_mq_send(void) { return mq_send(mq, "y", 1, 0) == 0; }
static int c_mq_timedsend(void) { return mq_timedsend(mq, "y", 1, 0, soon()) == 0; }

static char aio_buf[4];
static struct aiocb cb;
static void aio_fill(void) { cb = (struct aiocb){ .aio_fildes = fd[0], .aio_buf = aio_buf, .aio_nbytes = 2, .aio_lio_opcode = LIO_READ }; }
static void aio_setup(void) { make_pipe(); aio_fill(); if (aio_read(&cb)) die("aio_read"); }
static int c_aio_suspend(void)
{
	const struct aiocb *l[] = { &cb };
	return aio_suspend(l, 1, NULL) == 0 && aio_error(&cb) == 0 && aio_return(&cb) == 2;
}
static void lio_setup(void) { make_pipe(); aio_fill(); }
static int c_lio(void) { struct aiocb *l[] = { &cb }; return lio_listio(LIO_WAIT, l, 1, NULL) == 0 && aio_return(&cb) == 2; }

/* ---- futexes by number ---- */

static atomic_uint word;
static void f_setup(void) { word = 0; }
static long futex(int op, unsigned val, const struct timespec *ts) { return syscall(SYS_futex, &word, op, val, ts, NULL, -1); }
static int c_futex(void) { return futex(FUTEX_WAIT_PRIVATE, 0, NULL) == 0; }
static int c_futex_timed(void) { struct timespec ts = { 600, 0 }; return futex(FUTEX_WAIT_PRIVATE, 0, &ts) == 0; }
static int c_futex_shared(void) { struct timespec ts = { 600, 0 }; return futex(FUTEX_WAIT, 0, &ts) == 0; }
static int c_futex_waitv(void)
{
	struct futex_waitv w = { .val = 0, .uaddr = (uintptr_t)&word, .flags = 2 | FUTEX_PRIVATE_FLAG };
	return syscall(SYS_futex_waitv, &w, 1, 0, NULL, CLOCK_MONOTONIC) == 0;
}
static void wake(int op)
{
	while (!atomic_load(&left)) {
		futex(op, 1, NULL);
		nap(1000);
	}
}
static void f_wake(void) { wake(FUTEX_WAKE_PRIVATE); }
static void f_wake_shared(void) { wake(FUTEX_WAKE); }
static int n_nanosleep(void) { struct timespec ts = { 600, 0 }; return syscall(SYS_nanosleep, &ts, NULL) == -1 && errno == EINTR; }
static int n_wait4(void) { int st; return syscall(SYS_wait4, child, &st, 0, NULL) == child && st == 0; }
static int n_waitid(void) { siginfo_t si; return syscall(SYS_waitid, P_PID, child, &si, WEXITED, NULL) == 0; }
static int n_semop(void) { struct sembuf b = { 0, -1, 0 }; return syscall(SYS_semtimedop, id, &b, 1, NULL) == 0; }
static int n_sigtimedwait(void)
{
	sigset_t s = usr1();
	pthread_sigmask(SIG_BLOCK, &s, NULL);
	return syscall(SYS_rt_sigtimedwait, &s, NULL, NULL, 8) == SIGUSR1;
}

static const struct nostall cases[] = {
	{ "mutex", m_normal, c_lock, m_release, m_after },
	{ "mutex: timed", m_normal, c_timedlock, m_release, m_after },
	{ "mutex: clock", m_normal, c_clocklock, m_release, m_after },
	{ "mutex: recursive", m_recursive, c_lock, m_release, m_after },
	{ "mutex: shared", m_shared, c_lock, m_release, m_after },
	{ "mutex: robust", m_robust, c_lock, m_release, m_after },
	{ "mutex: priority inheritance", m_inherit, c_lock, m_release, m_after },
	{ "mtx_lock", cm_setup, c_mtx, cm_release, NULL },
	{ "mtx_timedlock", cm_timed, c_mtx_timed, cm_release, NULL },
	{ "cnd_wait", cn_setup, c_cnd, cn_release, NULL },
	{ "cnd_timedwait", cn_setup, c_cnd_timed, cn_release, NULL },
	{ "spin lock", sp_setup, c_spin, sp_release, NULL },
	{ "condition", m_free, c_cond, signal_it, m_after },
	{ "condition: timed", m_free, c_cond_timed, signal_it, m_after },
	{ "condition: clock", m_free, c_cond_clock, signal_it, m_after },
	{ "semaphore", s_setup, c_sem, s_release, NULL },
	{ "semaphore: timed", s_setup, c_sem_timed, s_release, NULL },
	{ "semaphore: clock", s_setup, c_sem_clock, s_release, NULL },
	{ "semaphore: shared", s_shared, c_sem, s_release, NULL },
	{ "semaphore: named", s_named, c_sem, s_release, s_close },
	{ "rwlock: to read", rw_write, c_rdlock, rw_release, NULL },
	{ "rwlock: to write", rw_read, c_wrlock, rw_release, NULL },
	{ "rwlock: timed", rw_write, c_timedrd, rw_release, NULL },
	{ "rwlock: to write, timed", rw_read, c_timedwr, rw_release, NULL },
	{ "rwlock: to read, clock", rw_write, c_clockrd, rw_release, NULL },
	{ "rwlock: to write, clock", rw_read, c_clockwr, rw_release, NULL },
	{ "barrier", b_setup, c_barrier, b_release, b_after },
	{ "join", j_setup, c_join, put, close_both },
	{ "join: timed", j_setup, c_timedjoin, put, close_both },
	{ "join: clock", j_setup, c_clockjoin, put, close_both },
	{ "thrd_join", j_setup, c_thrd_join, put, close_both },
	{ "call_once", o_setup, c_call_once, put, o_after },
	{ "once", o_setup, c_once, put, o_after },
	{ "sigwait", with_handler, c_sigwait, interrupt, NULL },
	{ "sigwaitinfo", with_handler, c_sigwaitinfo, interrupt, NULL },
	{ "sigtimedwait", with_handler, c_sigtimedwait, interrupt, NULL },
	{ "sigsuspend", with_handler, c_sigsuspend, interrupt, NULL },
	{ "sigpause", with_handler, c_sigpause, interrupt, NULL },
	{ "pause", with_handler, c_pause, interrupt, NULL },
	{ "nanosleep", with_handler, c_nanosleep, interrupt, NULL },
	{ "clock_nanosleep", with_handler, c_clock_nanosleep, interrupt, NULL },
	{ "clock_nanosleep: absolute", with_handler, c_clock_abs, interrupt, NULL },
	{ "sleep", with_handler, c_sleep, interrupt, NULL },
	{ "usleep", with_handler, c_usleep, interrupt, NULL },
	{ "thrd_sleep", with_handler, c_thrd_sleep, interrupt, NULL },
	{ "waitpid", child_setup, c_waitpid, put, close_both },
	{ "wait", child_setup, c_wait, put, close_both },
	{ "wait4", child_setup, c_wait4, put, close_both },
	{ "wait3", child_setup, c_wait3, put, close_both },
	{ "waitid", child_setup, c_waitid, put, close_both },
	{ "system", make_pipe, c_system, put, close_both },
	{ "popen", make_pipe, c_popen, put, close_both },
	{ "pclose", make_pipe, c_pclose, put, close_both },
	{ "wordexp", make_pipe, c_wordexp, put, close_both },
	{ "vfork", make_pipe, c_vfork, put, close_both },
	{ "msgrcv", q_setup, c_msgrcv, q_put, q_after },
	{ "msgsnd: full queue", q_full, c_msgsnd, q_take, q_after },
	{ "semop", v_setup, c_semop, v_release, v_after },
	{ "semtimedop", v_setup, c_semtimedop, v_release, v_after },
	{ "mq_receive", mq_setup, c_mq_receive, mq_put, mq_after },
	{ "mq_timedreceive", mq_setup, c_mq_timedreceive, mq_put, mq_after },
	{ "mq_send: full queue", mq_full, c_mq_send, mq_take, mq_after },
	{ "mq_timedsend: full queue", mq_full, c_mq_timedsend, mq_take, mq_after },
	{ "aio_suspend", aio_setup, c_aio_suspend, put, close_both },
	{ "lio_listio", lio_setup, c_lio, put, close_both },
	{ "by number: futex", f_setup, c_futex, f_wake, NULL },
	{ "by number: futex, timed", f_setup, c_futex_timed, f_wake, NULL },
	{ "by number: futex, shared", f_setup, c_futex_shared, f_wake_shared, NULL },
	{ "by number: futex_waitv", f_setup, c_futex_waitv, f_wake, NULL },
	{ "by number: nanosleep", with_handler, n_nanosleep, interrupt, NULL },
	{ "by number: wait4", child_setup, n_wait4, put, close_both },
	{ "by number: waitid", child_setup, n_waitid, put, close_both },
	{ "by number: semtimedop", v_setup, n_semop, v_release, v_after },
	{ "by number: rt_sigtimedwait", with_handler, n_sigtimedwait, interrupt, NULL },
};

int main(int argc, char **argv)
{
	return ALL(cases);
}
