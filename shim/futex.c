/* SPDX-License-Identifier: MIT */
/*
 * syscall(): programs and libraries call the kernel by number for what libc has no function for, futexes
 * most of all.
 *
 * A private futex is a wait of a G on the runtime's own queues, of native Gs too: who waits and who
 * wakes may differ in kind. Shared ones, the PI operations and everything else that may block are
 * announced.  What names a thread by number, belongs to a thread, or changes what the runtime keeps
 * account of goes to the function of the shim that knows; what the kernel keeps per thread wires the G.
 * All others are the kernel's, with nothing in between but a look into a switch.
 */
#include "shim/objects.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"
#include "core/signal.h"
#include "shim/process.h"

/* ---- futexes ---- */

static long futex_wait(struct pg_g *g, const _Atomic uint32_t *addr, uint32_t val, clockid_t clock, bool absolute,
		       const struct timespec *ts, uint32_t bits)
{
	uint32_t before = ts ? g->sig_ran : g->sig_norestart;
	int64_t deadline = PG_FOREVER;
	int r;

	if (bits == 0)
		return -EINVAL;
	if (ts) {
		if (pg_timespec_bad(ts) || ts->tv_sec < 0)
			return -EINVAL;
		deadline = absolute ? pg_deadline_abs(clock, ts) : pg_deadline_rel(ts);
	}
	for (;;) {
		r = pg_sema_wait(addr, val, bits, deadline);
		if (r == -EINTR && pg_eintr_ours(g, before, ts == NULL))
			continue;
		if (r == -ETIMEDOUT && absolute && !pg_until_passed(clock, ts)) {
			deadline = pg_deadline_abs(clock, ts);
			continue;
		}
		return r;
	}
}

static long futex_requeue(const _Atomic uint32_t *addr, long nwake, const void *addr2, long nmove, bool check, uint32_t val)
{
	int moved = 0, r;

	if ((int)nwake < 0 || (int)nmove < 0)
		return -EINVAL;
	r = pg_sema_requeue(addr, (int)nwake, addr2, (int)nmove, check, val, &moved);
	return r < 0 ? r : r + moved;
}

static inline int howmany(long n)
{
	return (int)n < 1 ? 1 : (int)n; /* the kernel wakes one before it counts */
}

static long announced(struct pg_g *g, long n, long a, long b, long c, long d, long e, long f)
{
	uint32_t before = g->sig_ran;
	long r;

	do {
		pg_entersyscall(g);
		r = pg_sys6(n, a, b, c, d, e, f);
		pg_exitsyscall(g);
	} while (r == -EINTR && pg_eintr_ours(g, before, false));
	return r;
}

/* Blocks: the G. */
static long futex(struct pg_g *g, long a, long op, long val, long d, long e, long val3)
{
	const _Atomic uint32_t *addr = (const _Atomic uint32_t *)a;
	const struct timespec *ts = (const struct timespec *)d;
	clockid_t clock = op & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	int cmd = (int)op & FUTEX_CMD_MASK;

	if (cmd == FUTEX_LOCK_PI || cmd == FUTEX_LOCK_PI2 || cmd == FUTEX_TRYLOCK_PI || cmd == FUTEX_UNLOCK_PI)
		pg_wire_for_object(g); /* the word holds thread numbers */
	if (!(op & FUTEX_PRIVATE_FLAG))
		return announced(g, SYS_futex, a, op, val, d, e, val3);
	switch (cmd) {
	case FUTEX_WAIT: case FUTEX_WAIT_BITSET: case FUTEX_WAKE: case FUTEX_WAKE_BITSET: case FUTEX_REQUEUE:
	case FUTEX_CMP_REQUEUE: case FUTEX_WAKE_OP:
		if (a & 3)
			return -EINVAL;
		if (addr == NULL)
			return -EFAULT;
	}
	switch (cmd) {
	case FUTEX_REQUEUE: case FUTEX_CMP_REQUEUE: case FUTEX_WAKE_OP:
		if (e & 3)
			return -EINVAL;
		if (e == 0)
			return -EFAULT;
	}
	switch (cmd) {
	case FUTEX_WAIT:
		return futex_wait(g, addr, (uint32_t)val, clock, false, ts, PG_SEMA_ANY);
	case FUTEX_WAIT_BITSET:
		return futex_wait(g, addr, (uint32_t)val, clock, true, ts, (uint32_t)val3);
	case FUTEX_WAKE:
		return pg_sema_wake(addr, howmany(val), PG_SEMA_ANY);
	case FUTEX_WAKE_BITSET:
		return (uint32_t)val3 == 0 ? -EINVAL : pg_sema_wake(addr, howmany(val), (uint32_t)val3);
	case FUTEX_REQUEUE:
		return futex_requeue(addr, val, (const void *)e, d, false, 0);
	case FUTEX_CMP_REQUEUE:
		return futex_requeue(addr, val, (const void *)e, d, true, (uint32_t)val3);
	case FUTEX_WAKE_OP:
		return pg_sema_wake_op(addr, howmany(val), (_Atomic uint32_t *)e, howmany(d), (uint32_t)val3);
	default:
		return announced(g, SYS_futex, a, op, val, d, e, val3);
	}
}

/* ---- what the kernel keeps per thread ---- */

static bool per_thread(long n)
{
	switch (n) {
	case SYS_setuid: case SYS_setgid: case SYS_setreuid: case SYS_setregid: case SYS_setresuid: case SYS_setresgid:
	case SYS_setgroups: case SYS_setfsuid: case SYS_setfsgid: case SYS_capset: case SYS_unshare: case SYS_setns:
	case SYS_seccomp: case SYS_landlock_restrict_self: case SYS_personality: case SYS_prctl: case SYS_ptrace:
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
	case SYS_read: case SYS_readv: case SYS_pread64: case SYS_preadv: case SYS_preadv2: case SYS_write: case SYS_writev:
	case SYS_pwrite64: case SYS_pwritev: case SYS_pwritev2: case SYS_splice: case SYS_tee: case SYS_vmsplice:
	case SYS_sendfile: case SYS_copy_file_range: case SYS_open: case SYS_openat: case SYS_openat2: case SYS_creat:
	case SYS_fsync: case SYS_fdatasync: case SYS_sync: case SYS_syncfs: case SYS_sync_file_range: case SYS_msync:
	case SYS_flock: case SYS_fcntl: case SYS_ioctl: case SYS_fallocate: case SYS_ftruncate: case SYS_truncate:
	case SYS_poll: case SYS_ppoll: case SYS_select: case SYS_pselect6: case SYS_epoll_wait: case SYS_epoll_pwait:
	case SYS_epoll_pwait2: case SYS_nanosleep: case SYS_clock_nanosleep: case SYS_accept: case SYS_accept4:
	case SYS_connect: case SYS_recvfrom: case SYS_recvmsg: case SYS_recvmmsg: case SYS_sendto: case SYS_sendmsg:
	case SYS_sendmmsg: case SYS_wait4: case SYS_waitid: case SYS_semop: case SYS_semtimedop: case SYS_msgrcv:
	case SYS_msgsnd: case SYS_mq_timedreceive: case SYS_mq_timedsend: case SYS_futex_waitv: case SYS_io_uring_enter:
	case SYS_rt_sigtimedwait: case SYS_rt_sigsuspend: case SYS_io_getevents: case SYS_io_pgetevents:
	case SYS_io_submit: case SYS_membarrier: case SYS_getrandom:
	case SYS_mount: case SYS_umount2: case SYS_finit_module: case SYS_getdents64: case SYS_userfaultfd:
	case SYS_process_vm_readv: case SYS_process_vm_writev: case SYS_pidfd_send_signal: case SYS_renameat2:
	case SYS_unlinkat: case SYS_bpf: case SYS_mlock: case SYS_mlockall: case SYS_madvise: case SYS_fadvise64:
	case 454: /* futex_wake */ case 455: /* futex_wait */ case 456: /* futex_requeue */
		return true;
	default:
		return false;
	}
}

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
	case SYS_clock_settime: return clock_settime(clock, (const struct timespec *)a[1]);
	default:
		errno = clock_nanosleep(clock, (int)a[1], (const struct timespec *)a[2], (struct timespec *)a[3]);
		return errno ? -1 : 0;
	}
}

/* Calls that another function of the shim knows more about.  *r is in the kernel's form. */
static bool known(struct pg_g *g, long n, const long *a, long *r)
{
	int saved = errno;
	long x;

	switch (n) {
	case SYS_futex:
		*r = futex(g, a[0], a[1], a[2], a[3], a[4], a[5]);
		return true;
	case SYS_set_tid_address:
		/* The word is the kernel's to clear when the OS thread ends, which is not when this thread does. */
		*r = g->tid;
		return atomic_load_explicit(&pg_started, memory_order_relaxed);
	case SYS_gettid:
		*r = g->tid;
		return true;
	case SYS_tkill:
		*r = raw_tkill(a[0], a[1]);
		return true;
	case SYS_rt_tgsigqueueinfo:
		*r = pg_tgkill((pid_t)a[0], (pid_t)a[1], (int)a[2], (const siginfo_t *)a[3]);
		return true;
	case SYS_sched_getaffinity:
		*r = pg_raw_getaffinity((pid_t)a[0], (size_t)a[1], (cpu_set_t *)a[2]);
		return true;
	case SYS_sched_setattr:
		*r = pg_raw_setattr((pid_t)a[0], (const void *)a[1], (unsigned)a[2]);
		return true;
	case SYS_sched_getattr:
		*r = pg_raw_getattr((pid_t)a[0], (void *)a[1], (unsigned)a[2], (unsigned)a[3]);
		return true;
	case SYS_rt_sigprocmask:
		*r = raw_mask(a[0], a[1], a[2], a[3]);
		return true;
	case SYS_getpriority: x = raw_getpriority(a[0], a[1]); errno = saved; *r = x; return true;
	case SYS_clock_gettime: case SYS_clock_getres: case SYS_clock_settime: case SYS_clock_nanosleep:
		if (pg_clock_thread((clockid_t)a[0]) == NULL)
			return false;
		x = raw_clock(n, a);
		break;
	case SYS_getrusage: x = getrusage((__rusage_who_t)a[0], (struct rusage *)a[1]); break;
	case SYS_sched_yield: x = sched_yield(); break;
	case SYS_tgkill: x = tgkill((pid_t)a[0], (pid_t)a[1], (int)a[2]); break;
	case SYS_setpriority: x = setpriority((__priority_which_t)a[0], (id_t)a[1], (int)a[2]); break;
	case SYS_sched_setaffinity: x = sched_setaffinity((pid_t)a[0], (size_t)a[1], (cpu_set_t *)a[2]); break;
	case SYS_sched_setscheduler: x = sched_setscheduler((pid_t)a[0], (int)a[1], (struct sched_param *)a[2]); break;
	case SYS_sched_getscheduler: x = sched_getscheduler((pid_t)a[0]); break;
	case SYS_sched_setparam: x = sched_setparam((pid_t)a[0], (struct sched_param *)a[1]); break;
	case SYS_sched_getparam: x = sched_getparam((pid_t)a[0], (struct sched_param *)a[1]); break;
	case SYS_close: x = close((int)a[0]); break;
	case SYS_close_range: x = close_range((unsigned)a[0], (unsigned)a[1], (int)a[2]); break;
	case SYS_dup2: x = dup2((int)a[0], (int)a[1]); break;
	case SYS_dup3: x = dup3((int)a[0], (int)a[1], (int)a[2]); break;
	case SYS_pause: x = pause(); break;
	case SYS_fork: x = _Fork(); break;
	default: return false;
	}
	*r = x == -1 ? -errno : x;
	errno = saved;
	return true;
}

/* Where these calls have the number of a thread, ours mean nothing to the kernel. */
static void translate_tid(long n, long *a)
{
	switch (n) {
	case SYS_prlimit64: case SYS_get_robust_list: case SYS_sched_rr_get_interval:
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

/* fork by its other name: nothing shared, on the same stack. */
static bool is_fork(long n, const long *a)
{
	return n == SYS_clone && (a[0] & ~0xffL) == 0 && a[1] == 0;
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
	if (n == SYS_exit && g->mode == PG_GREEN)
		pg_thread_end(g);
	if (is_fork(n, a))
		n = SYS_fork;
	if (known(g, n, a, &r))
		return pg_ret(r);
	if (per_thread(n))
		pg_wire_for_object(g);
	translate_tid(n, a);
	if (may_block(n))
		return pg_ret(announced(g, n, a[0], a[1], a[2], a[3], a[4], a[5]));
	return pg_ret(pg_sys6(n, a[0], a[1], a[2], a[3], a[4], a[5]));
}
