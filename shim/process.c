/* SPDX-License-Identifier: MIT */
/*
 * Processes: fork and its relatives, exec with a list of arguments, and the calls whose effect the kernel keeps per OS
 * thread while the program means its process or its thread.  Of the latter there are three sorts:
 *
 *   every OS thread   set*id and setgroups (glibc tells each of its threads by a signal and waits for ever for green
 *                     ones), nice and setpriority of the first thread, PR_SET_NO_NEW_PRIVS
 *   wire              the caller keeps its OS thread from then on and the call is made there: unshare, setns, capset,
 *                     setfsuid, personality, iopl, ioperm, pkey_alloc, pkey_set, ptrace, the options of prctl that are
 *                     a thread's, setpriority of another thread
 *   pass              what the kernel keeps per process
 *
 * nice natively changes one thread on Linux (POSIX: the process).  A first thread that calls it with others running
 * means them all, or those it is going to create; another thread means itself.
 */
#include <asm/prctl.h>
#include <fcntl.h>
#include <limits.h>
#include <paths.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "arch.h"
#include "core/knobs.h"
#include "core/netpoll.h"
#include "core/say.h"
#include "core/signal.h"
#include "core/thread.h"
#include "shim/process.h"
#include "shim/shim.h"

pid_t __fork(void);
int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso);
int capset(void *hdr, const void *data);
int arch_prctl(int code, unsigned long addr);
int __arch_prctl(int code, unsigned long addr);

static bool started(void)
{
	return atomic_load_explicit(&pg_started, memory_order_relaxed);
}

/* ---- fork ---- */

static pid_t do_fork(pid_t (*real)(void), bool handlers)
{
	struct pg_g *g = pg_self_;
	pid_t pid;

	if (!started() || pg_in_vfork())
		return real();
	pid = pg_fork(real, handlers);
	/* The child is called as the thread that forked, not as the OS thread. */
	if (pid == 0 && g != NULL && g->name[0] != '\0')
		pg_sys(SYS_prctl, PR_SET_NAME, g->name);
	return pid;
}

PG_EXPORT pid_t fork(void) { return do_fork(PG_REAL(fork), true); }
pid_t __fork(void) PG_ALIAS(fork);
PG_EXPORT pid_t _Fork(void) { return do_fork(PG_REAL(_Fork), false); }

/*
 * The parent's P goes to others while it is suspended.  What the child is likely to call is looked up beforehand, so
 * that the child does not take the dynamic linker's locks.  A vfork in a vfork's child leaves the bits as they are:
 * they belong to the process whose memory it is.
 */
void pg_vfork_before(void)
{
	struct pg_g *g = pg_self();

	if (pg_knobs.off || pg_in_vfork())
		return;
	(void)PG_REAL(execve);
	(void)PG_REAL(execvp);
	(void)PG_REAL(sigaction);
	(void)PG_REAL(pthread_sigmask);
	if (g->mode == PG_GREEN) {
		pg_entersyscallblock(g);
		pg_stay(g);
		/* as if wired: with its own M the child would wait for a P at its first pg_rt_enter */
		g->wiredm = g->m;
		g->m = &pg_nullm;
		g->mode = PG_NATIVE;
		g->oswired |= PG_VFORK_GREEN;
	}
	g->oswired |= PG_VFORK | (uint32_t)pg_sys0(SYS_getpid) << PG_VFORK_PID;
}

pid_t pg_vfork_after(long raw)
{
	struct pg_g *g = pg_self();
	uint32_t was = g->oswired;

	if (was >> PG_VFORK_PID != (uint32_t)pg_sys0(SYS_getpid))
		return (pid_t)pg_ret(raw);
	g->oswired = was & (PG_VFORK_GREEN - 1);
	if (was & PG_VFORK_GREEN) {
		g->m = g->wiredm;
		g->wiredm = NULL;
		g->mode = PG_GREEN;
		pg_exitsyscall(g);
	}
	return (pid_t)pg_ret(raw);
}

/* ---- exec: the lists of arguments; the rest are rows ---- */

/* The number of arguments before the NULL, arg included. */
static int count_args(const char *arg, va_list ap)
{
	int n = 0;

	for (; arg != NULL && n < INT_MAX; n++)
		arg = va_arg(ap, const char *);
	return n;
}

/* argv from the list, on the stack: in the child of a vfork and in handlers nothing may be allocated. */
#define GATHER(argv, arg, ap)                                                                                          \
	char **argv;                                                                                                   \
	do {                                                                                                           \
		va_start(ap, arg);                                                                                     \
		int n_ = count_args(arg, ap);                                                                          \
		va_end(ap);                                                                                            \
		if (n_ == INT_MAX)                                                                                     \
			return (int)pg_ret(-E2BIG);                                                                    \
		argv = __builtin_alloca(((size_t)n_ + 1) * sizeof *argv);                                              \
		va_start(ap, arg);                                                                                     \
		argv[0] = (char *)(uintptr_t)arg;                                                                      \
		for (int i_ = 1; i_ <= n_; i_++)                                                                       \
			argv[i_] = va_arg(ap, char *);                                                                 \
	} while (0)

PG_EXPORT int execl(const char *path, const char *arg, ...)
{
	va_list ap;
	GATHER(argv, arg, ap);
	va_end(ap);
	return execve(path, argv, environ);
}

PG_EXPORT int execle(const char *path, const char *arg, ...)
{
	va_list ap;
	GATHER(argv, arg, ap);
	char **envp = va_arg(ap, char **);
	va_end(ap);
	return execve(path, argv, envp);
}

PG_EXPORT int execlp(const char *file, const char *arg, ...)
{
	va_list ap;
	GATHER(argv, arg, ap);
	va_end(ap);
	return execvp(file, argv);
}

/* ---- daemon, forkpty: libc's would fork behind our back ---- */

/* Makes fd a copy of from, for everybody who knew what fd was. */
static void replace_fd(int from, int fd)
{
	pg_fd_forget(fd);
	pg_sys3(SYS_dup2, from, fd, 0);
}

static int null_streams(void)
{
	struct stat st;
	long fd = pg_sys(SYS_openat, AT_FDCWD, _PATH_DEVNULL, O_RDWR);

	if (fd < 0)
		return (int)pg_ret(fd);
	if (fstat((int)fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
		pg_sys3(SYS_close, fd, 0, 0);
		return (int)pg_ret(-ENODEV);
	}
	for (int to = 0; to <= 2; to++)
		replace_fd((int)fd, to);
	if (fd > 2)
		pg_sys3(SYS_close, fd, 0, 0);
	return 0;
}

PG_EXPORT int daemon(int nochdir, int noclose)
{
	pid_t pid;

	if (!started() || pg_in_vfork())
		return PG_REAL(daemon)(nochdir, noclose);
	pid = fork();
	if (pid < 0)
		return -1;
	if (pid > 0)
		_exit(0);
	if (setsid() < 0)
		return -1;
	if (!nochdir)
		pg_sys3(SYS_chdir, (long)"/", 0, 0);
	return noclose ? 0 : null_streams();
}

PG_EXPORT int forkpty(int *master, char *name, const struct termios *term, const struct winsize *win)
{
	int m, s, err;
	pid_t pid;

	if (!started() || pg_in_vfork())
		return PG_REAL(forkpty)(master, name, term, win);
	if (openpty(&m, &s, name, term, win) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		close(m);
		if (login_tty(s) < 0)
			_exit(1);
		return 0;
	}
	err = errno;
	close(s);
	if (pid < 0) {
		close(m);
		errno = err;
		return -1;
	}
	*master = m;
	return pid;
}

/* Blocks: nothing.  The terminal takes the place of the standard streams, of which the poller must hear. */
PG_EXPORT int login_tty(int fd)
{
	if (started() && !pg_in_vfork())
		for (int to = 0; to <= 2; to++)
			pg_fd_forget(to);
	return PG_REAL(login_tty)(fd);
}

/* ---- atfork: core's handlers come first, so that they run last before and first after the fork ---- */

PG_EXPORT int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso)
{
	pg_fork_register();
	return PG_REAL(__register_atfork)(prepare, parent, child, dso);
}

/* What old binaries import; newer ones have it linked in, around the one above. */
PG_EXPORT int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return __register_atfork(prepare, parent, child, NULL);
}

/* ---- every OS thread ---- */

static long on_all(long nr, long a, long b, long c)
{
	return pg_in_vfork() ? pg_sys(nr, a, b, c) : pg_allthreads_syscall(nr, a, b, c);
}

/* Where threads may differ. */
static int everywhere(long nr, long a, long b, long c)
{
	long r = on_all(nr, a, b, c);

	return (int)pg_ret(r == PG_ALLTHREADS_DIFFER ? 0 : r);
}

static int setid(long nr, long a, long b, long c)
{
	long r = on_all(nr, a, b, c);

	if (r == PG_ALLTHREADS_DIFFER)
		abort(); /* some threads have given up their rights and some have not; as glibc */
	return (int)pg_ret(r);
}

#define SETID(name, params, args, nr, a, b, c)                                                                         \
	PG_EXPORT int name params                                                                                      \
	{                                                                                                              \
		return started() ? setid(nr, (long)(a), (long)(b), (long)(c)) : PG_REAL(name) args;               \
	}

SETID(setuid, (uid_t uid), (uid), SYS_setuid, uid, 0, 0)
SETID(setgid, (gid_t gid), (gid), SYS_setgid, gid, 0, 0)
SETID(setreuid, (uid_t ruid, uid_t euid), (ruid, euid), SYS_setreuid, ruid, euid, 0)
SETID(setregid, (gid_t rgid, gid_t egid), (rgid, egid), SYS_setregid, rgid, egid, 0)
SETID(setresuid, (uid_t ruid, uid_t euid, uid_t suid), (ruid, euid, suid), SYS_setresuid, ruid, euid, suid)
SETID(setresgid, (gid_t rgid, gid_t egid, gid_t sgid), (rgid, egid, sgid), SYS_setresgid, rgid, egid, sgid)
SETID(setgroups, (size_t n, const gid_t *list), (n, list), SYS_setgroups, n, list, 0)

PG_EXPORT int seteuid(uid_t uid)
{
	if (!started())
		return PG_REAL(seteuid)(uid);
	if (uid == (uid_t)-1)
		return (int)pg_ret(-EINVAL);
	return setid(SYS_setresuid, -1, (long)uid, -1);
}

PG_EXPORT int setegid(gid_t gid)
{
	if (!started())
		return PG_REAL(setegid)(gid);
	if (gid == (gid_t)-1)
		return (int)pg_ret(-EINVAL);
	return setid(SYS_setresgid, -1, (long)gid, -1);
}

/* libc's ends in its own setgroups.  Like it, takes fewer groups when the kernel takes no more. */
PG_EXPORT int initgroups(const char *user, gid_t group)
{
	gid_t *list = NULL, *bigger;
	int n = 64, r, err;

	if (!started())
		return PG_REAL(initgroups)(user, group);
	for (;;) {
		int had = n;
		bigger = realloc(list, (size_t)n * sizeof *list);
		if (bigger == NULL) {
			free(list);
			return -1;
		}
		list = bigger;
		if (getgrouplist(user, group, list, &n) >= 0)
			break;
		if (n <= had)
			n = had * 2;
	}
	do
		r = setgroups((size_t)n, list);
	while (r < 0 && errno == EINVAL && --n > 0);
	err = errno;
	free(list);
	errno = err;
	return r;
}

/* ---- wire ---- */

static void wire(void)
{
	pg_shim_wire(pg_self_);
}

PG_EXPORT int unshare(int flags)
{
	wire();
	return PG_REAL(unshare)(flags);
}

PG_EXPORT int setns(int fd, int type)
{
	wire();
	return PG_REAL(setns)(fd, type);
}

PG_EXPORT int capset(void *hdr, const void *data)
{
	wire();
	return PG_REAL(capset)(hdr, data);
}

/* ~0 is how a program asks for the present value. */
PG_EXPORT int personality(unsigned long persona)
{
	if ((unsigned)persona != ~0u)
		wire();
	return PG_REAL(personality)(persona);
}

PG_EXPORT int iopl(int level)
{
	wire();
	return PG_REAL(iopl)(level);
}

PG_EXPORT int ioperm(unsigned long from, unsigned long num, int turn_on)
{
	wire();
	return PG_REAL(ioperm)(from, num, turn_on);
}

/* The rights of a key are in a register of the OS thread, which a switch does not carry over. */
PG_EXPORT int pkey_alloc(unsigned flags, unsigned rights)
{
	wire();
	return PG_REAL(pkey_alloc)(flags, rights);
}

PG_EXPORT int pkey_set(int key, unsigned rights)
{
	wire();
	return PG_REAL(pkey_set)(key, rights);
}

/* Asking needs no wire: the answers are the process's, or the thread pointer, which is the G's own. */
PG_EXPORT int arch_prctl(int code, unsigned long addr)
{
	if (code == ARCH_SET_FS || code == ARCH_SET_GS || code == ARCH_SET_CPUID)
		wire();
	return PG_REAL(arch_prctl)(code, addr);
}
int __arch_prctl(int code, unsigned long addr) PG_ALIAS(arch_prctl);

/* -1 is how a program asks for the present value. */
PG_EXPORT int setfsuid(uid_t uid)
{
	if (uid != (uid_t)-1)
		wire();
	return PG_REAL(setfsuid)(uid);
}

PG_EXPORT int setfsgid(gid_t gid)
{
	if (gid != (gid_t)-1)
		wire();
	return PG_REAL(setfsgid)(gid);
}

PG_EXPORT long ptrace(enum __ptrace_request request, ...)
{
	va_list ap;
	pid_t pid;
	void *addr, *data;

	va_start(ap, request);
	pid = va_arg(ap, pid_t);
	addr = va_arg(ap, void *);
	data = va_arg(ap, void *);
	va_end(ap);
	wire();
	return PG_REAL(ptrace)(request, pid, addr, data);
}

/* ---- prctl ---- */

/* Is the option's effect the calling OS thread's, and does it change anything? */
static bool of_thread(int option)
{
	switch (option) {
	case PR_SET_SECCOMP:
	case PR_SET_KEEPCAPS:
	case PR_SET_SECUREBITS:
	case PR_CAPBSET_DROP:
	case PR_CAP_AMBIENT:
	case PR_SET_TIMERSLACK:
	case PR_SET_TSC:
	case PR_MCE_KILL:
	case PR_SET_UNALIGN:
	case PR_SET_FPEMU:
	case PR_SET_FPEXC:
	case PR_SET_ENDIAN:
	case PR_SET_FP_MODE:
	case PR_SVE_SET_VL:
	case PR_PAC_RESET_KEYS:
	case PR_SET_TAGGED_ADDR_CTRL:
	case PR_SET_SPECULATION_CTRL:
	case PR_SET_IO_FLUSHER:
	case PR_SET_SYSCALL_USER_DISPATCH:
		return true;
	default:
		return false;
	}
}

PG_EXPORT int prctl(int option, ...)
{
	struct pg_g *g = pg_self();
	unsigned long a, b, c, d;
	va_list ap;

	va_start(ap, option);
	a = va_arg(ap, unsigned long);
	b = va_arg(ap, unsigned long);
	c = va_arg(ap, unsigned long);
	d = va_arg(ap, unsigned long);
	va_end(ap);
	if (started() && !pg_in_vfork() && option == PR_SET_NAME) {
		char name[PG_NAME_MAX] = "";
		memcpy(name, (const char *)a, strnlen((const char *)a, sizeof name - 1));
		int err = pthread_setname_np(pg_g2pthread(g), name);
		return (int)pg_ret(-err);
	}
	if (started() && !pg_in_vfork() && option == PR_GET_NAME)
		return (int)pg_ret(-pthread_getname_np(pg_g2pthread(g), (char *)a, PG_NAME_MAX));
	/* The kernel keeps it per OS thread, of which none that has it ends before the process but a wired one's. */
	if (pg_is_green() && option == PR_SET_PDEATHSIG) {
		pg_entersyscall(g);
		pg_stay(g);
		long raw = pg_sys(SYS_prctl, option, a);
		pg_exitsyscall(g);
		int r = (int)pg_ret(raw == 0 && a == 0 ? pg_allthreads_syscall(SYS_prctl, option, 0, 0) : raw);
		if (r == 0)
			g->pdeathsig = (int)a;
		return r;
	}
	if (pg_is_green() && option == PR_GET_PDEATHSIG && a != 0) {
		*(int *)a = g->pdeathsig;
		return 0;
	}
	if (pg_is_green()) {
		/* inherited by threads created later, which may run anywhere; it can only be given up */
		if (option == PR_SET_NO_NEW_PRIVS && a == 1 && b == 0 && c == 0 && d == 0)
			return everywhere(SYS_prctl, option, 1, 0);
		if (of_thread(option))
			wire();
	}
	return PG_REAL(prctl)(option, a, b, c, d);
}

/* ---- priorities ---- */

/* The G that PRIO_PROCESS and who mean, NULL: none of ours, ask the kernel. */
static struct pg_g *prio_target(__priority_which_t which, id_t who)
{
	if (which != PRIO_PROCESS || !started() || pg_in_vfork())
		return NULL;
	return who == 0 ? pg_self() : pg_tid2g((pid_t)who);
}

/* Differs: the first thread's is every thread's; another green thread's than the caller's is not changed. */
PG_EXPORT int setpriority(__priority_which_t which, id_t who, int prio)
{
	static atomic_flag said;
	struct pg_g *g = prio_target(which, who);

	if (g == NULL)
		return PG_REAL(setpriority)(which, who, prio);
	if (g == &pg_main_g)
		return everywhere(SYS_setpriority, PRIO_PROCESS, 0, prio);
	if (g == pg_self()) {
		wire();
		return PG_REAL(setpriority)(which, 0, prio);
	}
	if (atomic_load(&g->ostid))
		return PG_REAL(setpriority)(which, (id_t)atomic_load(&g->ostid), prio);
	if (!atomic_flag_test_and_set(&said))
		pg_say("setpriority of another thread has no effect");
	return 0;
}

PG_EXPORT int getpriority(__priority_which_t which, id_t who)
{
	struct pg_g *g = prio_target(which, who);

	if (g != NULL)
		who = g == pg_self() ? 0 : (id_t)atomic_load(&g->ostid);
	return PG_REAL(getpriority)(which, who);
}

PG_EXPORT int nice(int inc)
{
	int err = errno, prio;

	if (!started() || pg_in_vfork())
		return PG_REAL(nice)(inc);
	errno = 0;
	prio = getpriority(PRIO_PROCESS, 0);
	if (prio == -1 && errno != 0)
		return -1;
	if (setpriority(PRIO_PROCESS, 0, prio + inc) < 0) {
		if (errno == EACCES)
			errno = EPERM;
		return -1;
	}
	errno = err;
	return getpriority(PRIO_PROCESS, 0);
}
