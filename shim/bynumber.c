/* SPDX-License-Identifier: MIT */
/*
 * syscall(): programs and libraries call the kernel by number for what libc has no function for, and some for what it has.
 *
 * What the shim has a function for goes there: waits become waits of a G, and the runtime hears of closed descriptors, signal
 * actions and masks.  A call by number is no cancellation point, so cancellation is off meanwhile (a jump out of a handler leaves it
 * off).  What names a thread by number, belongs to a thread, or changes what the runtime keeps account of goes to the function that
 * knows; what the kernel keeps per thread wires the G; what else may block is announced.  All others are the kernel's, with nothing
 * in between but a look into a switch.
 */
#include "shim/futex.h"

#include <sched.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/signal.h"
#include "shim/io.h"
#include "shim/process.h"

/* As linux/io_uring.h has them, which older systems lack. */
#define IORING_ENTER_GETEVENTS 1u
#define IORING_SETUP_SINGLE_ISSUER (1u << 12)
#define IORING_SETUP_DEFER_TASKRUN (1u << 13)

/* Memory that the kernel is going to read; false: it would say EFAULT. */
static bool peek(void *to, long from, size_t n)
{
	struct iovec local = { to, n }, remote = { (void *)from, n };

	return pg_sys6(SYS_process_vm_readv, pg_sys0(SYS_getpid), (long)&local, 1, (long)&remote, 1, 0) == (long)n;
}

/* ---- announced ---- */

/* In these calls one argument is a relative time, which an interruption of ours must not lengthen: its index, or -1. */
static int timed_arg(long n)
{
	return n == SYS_io_getevents || n == SYS_io_pgetevents ? 4 : -1;
}

/* Known to wait, and for nothing that will be there at once? */
static bool waits_long(long n, const long *a)
{
	switch (n) {
	case SYS_io_uring_enter:
		return ((unsigned)a[3] & IORING_ENTER_GETEVENTS) && (unsigned)a[2] != 0;
	case SYS_io_getevents: case SYS_io_pgetevents:
		return a[1] > 0;
	case SYS_waitid:
		return !(a[3] & WNOHANG);
	default:
		return false;
	}
}

static long announced(struct pg_g *g, long n, const long *given)
{
	uint32_t before = g->sig_ran;
	long a[6] = { given[0], given[1], given[2], given[3], given[4], given[5] }, r;
	int i = timed_arg(n);
	int64_t deadline = PG_FOREVER;
	struct timespec left;

	if (i >= 0 && a[i] != 0 && !pg_timespec_bad((const struct timespec *)a[i]))
		deadline = pg_deadline_rel((const struct timespec *)a[i]);
	do {
		if (deadline != PG_FOREVER)
			a[i] = (long)pg_left(deadline, &left);
		if (waits_long(n, a))
			pg_io_enterlong(g);
		else
			pg_entersyscall(g);
		r = pg_sys6(n, a[0], a[1], a[2], a[3], a[4], a[5]);
		pg_exitsyscall(g);
	} while (r == -EINTR && pg_eintr_ours(g, before, false));
	return r;
}

/* ---- what the kernel keeps per thread ---- */

static bool per_thread(long n, const long *a)
{
	uint32_t params[3];

	switch (n) {
	case SYS_io_uring_setup: /* flags: only the thread that made the ring may use it */
		return peek(params, a[1], sizeof params) && params[2] & (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	case SYS_setuid: case SYS_setgid: case SYS_setreuid: case SYS_setregid: case SYS_setresuid: case SYS_setresgid:
	case SYS_setgroups: case SYS_setfsuid: case SYS_setfsgid: case SYS_capset: case SYS_unshare: case SYS_setns:
	case SYS_seccomp: case SYS_landlock_restrict_self: case SYS_personality: case SYS_ptrace: case SYS_pkey_alloc:
	case SYS_set_mempolicy: case SYS_ioprio_set: case SYS_set_robust_list: case SYS_rseq:
	case SYS_set_tid_address: case SYS_add_key: case SYS_keyctl: case SYS_perf_event_open: case SYS_iopl:
	case SYS_ioperm: case SYS_io_uring_register:
		return true;
	default:
		return false;
	}
}

static bool may_block(long n)
{
	switch (n) {
	case SYS_pread64: case SYS_preadv: case SYS_preadv2: case SYS_pwrite64: case SYS_pwritev: case SYS_pwritev2:
	case SYS_splice: case SYS_tee: case SYS_vmsplice: case SYS_sendfile: case SYS_copy_file_range: case SYS_open:
	case SYS_openat: case SYS_openat2: case SYS_creat: case SYS_fsync: case SYS_fdatasync: case SYS_sync:
	case SYS_syncfs: case SYS_sync_file_range: case SYS_msync: case SYS_fallocate: case SYS_ftruncate:
	case SYS_truncate: case SYS_waitid: case SYS_io_uring_enter: case SYS_io_getevents: case SYS_io_pgetevents:
	case SYS_io_submit: case SYS_membarrier: case SYS_getrandom: case SYS_mount: case SYS_umount2:
	case SYS_finit_module: case SYS_getdents64: case SYS_userfaultfd: case SYS_process_vm_readv:
	case SYS_process_vm_writev: case SYS_pidfd_send_signal: case SYS_renameat2: case SYS_unlinkat: case SYS_bpf:
	case SYS_mlock: case SYS_mlockall: case SYS_madvise: case SYS_fadvise64: case SYS_quotactl:
	case SYS_init_module: case SYS_delete_module: case SYS_pivot_root: case SYS_swapon: case SYS_swapoff:
	case SYS_syslog: case SYS_mlock2: case SYS_process_madvise: case SYS_process_mrelease: case SYS_getdents:
	case SYS_fanotify_mark: case SYS_inotify_add_watch: case SYS_move_mount: case SYS_fsconfig: case SYS_fsmount:
	case SYS_open_tree: case SYS_mount_setattr: case SYS_statx: case SYS_readahead: case SYS_open_by_handle_at:
	case SYS_name_to_handle_at: case SYS_pidfd_getfd:
		return true;
	default:
		return false;
	}
}

/* ---- calls that another function of the shim knows more about; results are the kernel's ---- */

static long raw_tkill(long tid, long sig)
{
	siginfo_t si = { .si_signo = (int)sig, .si_code = SI_TKILL };

	si.si_pid = getpid();
	si.si_uid = getuid();
	return pg_tgkill(-1, (pid_t)tid, (int)sig, &si);
}

static long raw_mask(long how, long set, long old, long size)
{
	return size != 8 ? -EINVAL : pg_sigprocmask((int)how, (const uint64_t *)set, (uint64_t *)old);
}

static long raw_getpriority(long which, long who)
{
	int r;

	errno = 0;
	r = getpriority((__priority_which_t)which, (id_t)who);
	return r == -1 && errno ? -errno : 20 - r;
}

/* The clock is that of a thread of ours. */
static long raw_clock(long n, const long *a)
{
	clockid_t clock = (clockid_t)a[0];

	switch (n) {
	case SYS_clock_gettime: return clock_gettime(clock, (struct timespec *)a[1]);
	case SYS_clock_getres: return clock_getres(clock, (struct timespec *)a[1]);
	default: return clock_settime(clock, (const struct timespec *)a[1]);
	}
}

/* Where these calls have the number of a thread, ours mean nothing to the kernel. */
static void translate_tid(long n, long *a)
{
	switch (n) {
	case SYS_prlimit64: case SYS_get_robust_list:
		a[0] = pg_os_thread((pid_t)a[0]);
		break;
	case SYS_ioprio_get: case SYS_ioprio_set:
		if (a[0] == 1 /* IOPRIO_WHO_PROCESS, which is a thread */)
			a[1] = pg_os_thread((pid_t)a[1]);
		break;
	case SYS_perf_event_open:
		a[1] = pg_os_thread((pid_t)a[1]);
		break;
	}
}

/* libc's struct sigaction is another than the kernel's, and this is the kernel's. */
struct ksigaction {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

static int raw_sigaction(int sig, const struct ksigaction *act, struct ksigaction *old)
{
	struct sigaction in = { 0 }, was = { 0 };
	int r;

	if (act != NULL) {
		in.sa_handler = act->handler;
		in.sa_flags = (int)(act->flags & ~(unsigned long)PG_SA_RESTORER); /* libc and the runtime have their own */
		in.sa_mask.__val[0] = act->mask;
	}
	r = sigaction(sig, act != NULL ? &in : NULL, old != NULL ? &was : NULL);
	if (r == 0 && old != NULL)
		*old = (struct ksigaction){ was.sa_handler, (unsigned)was.sa_flags, NULL, was.sa_mask.__val[0] };
	return r;
}

/* The kernel writes the time left into the program's timeout; libc's functions do not. */
static int64_t time_limit(const struct timespec *ts)
{
	return ts == NULL || pg_timespec_bad(ts) || ts->tv_sec < 0 ? PG_FOREVER : pg_deadline_rel(ts);
}

static int raw_ppoll(struct pollfd *fds, nfds_t n, struct timespec *ts, const sigset_t *mask)
{
	int64_t deadline = time_limit(ts);
	int r = ppoll(fds, n, ts, mask);

	if (deadline != PG_FOREVER)
		pg_left(deadline, ts);
	return r;
}

static int raw_pselect(const long *a)
{
	struct timespec *ts = (struct timespec *)a[4];
	const struct {
		const sigset_t *set;
		size_t size;
	} *mask = (const void *)a[5];
	int64_t deadline = time_limit(ts);
	int r;

	if (mask != NULL && mask->set != NULL && mask->size != 8) {
		errno = EINVAL;
		return -1;
	}
	r = pselect((int)a[0], (fd_set *)a[1], (fd_set *)a[2], (fd_set *)a[3], ts, mask != NULL ? mask->set : NULL);
	if (deadline != PG_FOREVER)
		pg_left(deadline, ts);
	return r;
}

/* Of the masks the kernel reads 8 bytes; the functions look no further either. */
static bool bad_mask(long set, long size)
{
	return set != 0 && size != 8;
}

/* ---- processes made by clone ---- */

/* The number and arguments of the one under way.  Written by whoever has cloning, read in the world that stands still. */
static const long *clone_args;
static long clone_nr;
static _Atomic uint64_t cloning; /* its pg_fork_gen + 1; 0, or another process's: nobody */

static pid_t do_clone(void)
{
	const long *a = clone_args;

	return (pid_t)pg_ret(pg_sys6(clone_nr, a[0], a[1], a[2], a[3], a[4], a[5]));
}

/* A process with memory of its own, that goes on in the caller's: as fork, the runtime must get ready for it. */
static bool is_process(long n, const long *a)
{
	struct {
		uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack;
	} c3;

	if (n == SYS_clone)
		return (a[0] & (CLONE_VM | CLONE_THREAD)) == 0 && a[1] == 0;
	return n == SYS_clone3 && (size_t)a[1] >= sizeof c3 && peek(&c3, a[0], sizeof c3) &&
	       (c3.flags & (CLONE_VM | CLONE_THREAD)) == 0 && c3.stack == 0;
}

static pid_t clone_process(long n, const long *a)
{
	uint64_t mine = (uint64_t)pg_fork_gen + 1, was = 0;
	pid_t r;

	while (was == mine || !atomic_compare_exchange_strong(&cloning, &was, mine)) {
		sched_yield();
		was = atomic_load(&cloning);
	}
	clone_nr = n;
	clone_args = a;
	r = atomic_load_explicit(&pg_started, memory_order_relaxed) ? pg_fork(do_clone, false) : do_clone();
	atomic_store(&cloning, 0);
	return r;
}

/* ---- the table ---- */

#define P(type, i) ((type)a[i])
#define I(i) ((int)a[i])

/* Reading, writing, sockets, readiness.  False: not one of these.  *x as of libc's functions. */
static bool known_io(long n, const long *a, long *x)
{
	switch (n) {
	case SYS_read: *x = read(I(0), P(void *, 1), P(size_t, 2)); break;
	case SYS_write: *x = write(I(0), P(const void *, 1), P(size_t, 2)); break;
	case SYS_readv: *x = readv(I(0), P(const struct iovec *, 1), I(2)); break;
	case SYS_writev: *x = writev(I(0), P(const struct iovec *, 1), I(2)); break;
	case SYS_recvfrom:
		*x = recvfrom(I(0), P(void *, 1), P(size_t, 2), I(3), P(struct sockaddr *, 4), P(socklen_t *, 5));
		break;
	case SYS_sendto:
		*x = sendto(I(0), P(const void *, 1), P(size_t, 2), I(3), P(const struct sockaddr *, 4), P(socklen_t, 5));
		break;
	case SYS_recvmsg: *x = recvmsg(I(0), P(struct msghdr *, 1), I(2)); break;
	case SYS_sendmsg: *x = sendmsg(I(0), P(const struct msghdr *, 1), I(2)); break;
	case SYS_recvmmsg:
		*x = recvmmsg(I(0), P(struct mmsghdr *, 1), P(unsigned, 2), I(3), P(struct timespec *, 4));
		break;
	case SYS_sendmmsg: *x = sendmmsg(I(0), P(struct mmsghdr *, 1), P(unsigned, 2), I(3)); break;
	case SYS_accept: *x = accept(I(0), P(struct sockaddr *, 1), P(socklen_t *, 2)); break;
	case SYS_accept4: *x = accept4(I(0), P(struct sockaddr *, 1), P(socklen_t *, 2), I(3)); break;
	case SYS_connect: *x = connect(I(0), P(const struct sockaddr *, 1), P(socklen_t, 2)); break;
	case SYS_setsockopt: *x = setsockopt(I(0), I(1), I(2), P(const void *, 3), P(socklen_t, 4)); break;
	case SYS_poll: *x = poll(P(struct pollfd *, 0), P(nfds_t, 1), I(2)); break;
	case SYS_ppoll:
		if (bad_mask(a[3], a[4]))
			return false;
		*x = raw_ppoll(P(struct pollfd *, 0), P(nfds_t, 1), P(struct timespec *, 2), P(const sigset_t *, 3));
		break;
	case SYS_select:
		*x = select(I(0), P(fd_set *, 1), P(fd_set *, 2), P(fd_set *, 3), P(struct timeval *, 4));
		break;
	case SYS_pselect6: *x = raw_pselect(a); break;
	case SYS_epoll_wait: *x = epoll_wait(I(0), P(struct epoll_event *, 1), I(2), I(3)); break;
	case SYS_epoll_pwait:
		if (bad_mask(a[4], a[5]))
			return false;
		*x = epoll_pwait(I(0), P(struct epoll_event *, 1), I(2), I(3), P(const sigset_t *, 4));
		break;
	case SYS_epoll_pwait2:
		if (bad_mask(a[4], a[5]))
			return false;
		*x = epoll_pwait2(I(0), P(struct epoll_event *, 1), I(2), P(const struct timespec *, 3), P(const sigset_t *, 4));
		break;
	case SYS_fcntl: *x = fcntl(I(0), I(1), P(void *, 2)); break;
	case SYS_ioctl: *x = ioctl(I(0), P(unsigned long, 1), P(void *, 2)); break;
	case SYS_flock: *x = flock(I(0), I(1)); break;
	case SYS_close: *x = close(I(0)); break;
	case SYS_close_range: *x = close_range(P(unsigned, 0), P(unsigned, 1), I(2)); break;
	case SYS_dup2: *x = dup2(I(0), I(1)); break;
	case SYS_dup3: *x = dup3(I(0), I(1), I(2)); break;
	default: return false;
	}
	return true;
}

/* Other waits. */
static bool known_wait(long n, const long *a, long *x)
{
	switch (n) {
	case SYS_nanosleep: *x = nanosleep(P(const struct timespec *, 0), P(struct timespec *, 1)); break;
	case SYS_clock_nanosleep:
		*x = clock_nanosleep(I(0), I(1), P(const struct timespec *, 2), P(struct timespec *, 3));
		if (*x != 0) {
			errno = (int)*x;
			*x = -1;
		}
		break;
	case SYS_pause: *x = pause(); break;
	case SYS_rt_sigsuspend:
		if (a[1] != 8)
			return false;
		*x = sigsuspend(P(const sigset_t *, 0));
		break;
	case SYS_rt_sigtimedwait:
		if (a[3] != 8)
			return false;
		*x = sigtimedwait(P(const sigset_t *, 0), P(siginfo_t *, 1), P(const struct timespec *, 2));
		break;
	case SYS_wait4: *x = wait4((pid_t)a[0], P(int *, 1), I(2), P(struct rusage *, 3)); break;
	case SYS_waitid:
		if (a[4] != 0)
			return false;
		*x = waitid(P(idtype_t, 0), P(id_t, 1), P(siginfo_t *, 2), I(3));
		break;
	case SYS_semop: *x = semop(I(0), P(struct sembuf *, 1), P(size_t, 2)); break;
	case SYS_semtimedop: *x = semtimedop(I(0), P(struct sembuf *, 1), P(size_t, 2), P(const struct timespec *, 3)); break;
	case SYS_msgsnd: *x = msgsnd(I(0), P(const void *, 1), P(size_t, 2), I(3)); break;
	case SYS_msgrcv: *x = msgrcv(I(0), P(void *, 1), P(size_t, 2), a[3], I(4)); break;
	case SYS_mq_timedsend:
		*x = mq_timedsend((mqd_t)a[0], P(const char *, 1), P(size_t, 2), P(unsigned, 3), P(const struct timespec *, 4));
		break;
	case SYS_mq_timedreceive:
		*x = mq_timedreceive((mqd_t)a[0], P(char *, 1), P(size_t, 2), P(unsigned *, 3), P(const struct timespec *, 4));
		break;
	case SYS_sched_yield: *x = sched_yield(); break;
	default: return false;
	}
	return true;
}

/* Signals, processes, priorities. */
static bool known_state(long n, const long *a, long *x)
{
	switch (n) {
	case SYS_rt_sigaction:
		if (a[3] != 8)
			return false;
		*x = raw_sigaction(I(0), P(const struct ksigaction *, 1), P(struct ksigaction *, 2));
		break;
	case SYS_sigaltstack: *x = sigaltstack(P(const stack_t *, 0), P(stack_t *, 1)); break;
	case SYS_tgkill: *x = tgkill((pid_t)a[0], (pid_t)a[1], I(2)); break;
	case SYS_kill: *x = kill((pid_t)a[0], I(1)); break;
	case SYS_prctl: *x = prctl(I(0), a[1], a[2], a[3], a[4]); break;
	case SYS_arch_prctl: *x = arch_prctl(I(0), P(unsigned long, 1)); break;
	case SYS_setpriority: *x = setpriority((__priority_which_t)a[0], P(id_t, 1), I(2)); break;
	case SYS_sched_setaffinity: *x = sched_setaffinity((pid_t)a[0], P(size_t, 1), P(cpu_set_t *, 2)); break;
	case SYS_sched_setscheduler: *x = sched_setscheduler((pid_t)a[0], I(1), P(struct sched_param *, 2)); break;
	case SYS_sched_getscheduler: *x = sched_getscheduler((pid_t)a[0]); break;
	case SYS_sched_setparam: *x = sched_setparam((pid_t)a[0], P(struct sched_param *, 1)); break;
	case SYS_sched_getparam: *x = sched_getparam((pid_t)a[0], P(struct sched_param *, 1)); break;
	case SYS_sched_rr_get_interval: *x = sched_rr_get_interval((pid_t)a[0], P(struct timespec *, 1)); break;
	case SYS_clock_gettime: case SYS_clock_getres: case SYS_clock_settime:
		if (pg_clock_thread(I(0)) == NULL)
			return false;
		*x = raw_clock(n, a);
		break;
	case SYS_getrusage: *x = getrusage((__rusage_who_t)a[0], P(struct rusage *, 1)); break;
	case SYS_fork: case SYS_vfork: *x = _Fork(); break; /* vfork would return twice through our frame */
	case SYS_clone: case SYS_clone3:
		if (!is_process(n, a))
			return false;
		*x = clone_process(n, a);
		break;
	default: return false;
	}
	return true;
}

/* Those that have the kernel's form already. */
static bool known_raw(struct pg_g *g, long n, const long *a, long *r)
{
	int saved = errno;

	switch (n) {
	case SYS_set_tid_address:
		/* The word is the kernel's to clear when the OS thread ends, which is not when this thread does. */
		*r = g->tid;
		return atomic_load_explicit(&pg_started, memory_order_relaxed);
	case SYS_gettid: *r = g->tid; return true;
	case SYS_tkill: *r = raw_tkill(a[0], a[1]); return true;
	case SYS_rt_tgsigqueueinfo:
		*r = pg_tgkill((pid_t)a[0], (pid_t)a[1], I(2), P(const siginfo_t *, 3));
		return true;
	case SYS_sched_getaffinity: *r = pg_raw_getaffinity((pid_t)a[0], P(size_t, 1), P(cpu_set_t *, 2)); return true;
	case SYS_sched_setattr: *r = pg_raw_setattr((pid_t)a[0], P(const void *, 1), P(unsigned, 2)); return true;
	case SYS_sched_getattr: *r = pg_raw_getattr((pid_t)a[0], P(void *, 1), P(unsigned, 2), P(unsigned, 3)); return true;
	case SYS_rt_sigprocmask: *r = raw_mask(a[0], a[1], a[2], a[3]); return true;
	case SYS_rt_sigpending:
		if (a[1] != 8 || a[0] == 0)
			return false;
		*P(uint64_t *, 0) = pg_sigpending();
		*r = 0;
		return true;
	case SYS_getpriority:
		*r = raw_getpriority(a[0], a[1]);
		errno = saved;
		return true;
	default: return pg_futex2(g, n, a, r);
	}
}

static bool known(struct pg_g *g, long n, const long *a, long *r)
{
	bool deferred = g->cancel_type == PTHREAD_CANCEL_DEFERRED;
	int saved = errno, cancel;
	long x;

	if (known_raw(g, n, a, r))
		return true;
	if (deferred)
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	bool found = known_io(n, a, &x) || known_wait(n, a, &x) || known_state(n, a, &x);
	if (deferred)
		pthread_setcancelstate(cancel, NULL);
	if (found)
		*r = x == -1 ? -errno : x;
	errno = saved;
	return found;
}

/* Blocks: as the call does.  Cancel: no.  Differs: a G that asks for what is the kernel's per thread becomes wired. */
PG_EXPORT long syscall(long n, ...)
{
	struct pg_g *g = pg_self_;
	long a[6], r;
	va_list ap;

	va_start(ap, n);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	/* A thread that was never seen needs a G only to wait among the others. */
	if (pg_passthrough() || pg_unlikely(pg_in_vfork()) || (pg_unlikely(g == NULL) && n != SYS_futex))
		return pg_ret(pg_sys6(n, a[0], a[1], a[2], a[3], a[4], a[5]));
	g = pg_self();
	if (n == SYS_futex)
		return pg_ret(pg_futex(g, a));
	if (n == SYS_exit && atomic_load(&pg_started) && pg_is_ours(g))
		pg_thread_end(g);
	if (known(g, n, a, &r))
		return pg_ret(r);
	if (per_thread(n, a))
		pg_wire_for_object(g);
	translate_tid(n, a);
	if (may_block(n))
		return pg_ret(announced(g, n, a));
	return pg_ret(pg_sys6(n, a[0], a[1], a[2], a[3], a[4], a[5]));
}
