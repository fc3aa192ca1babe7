/* SPDX-License-Identifier: MIT */
/*
 * Opening, closing, duplicating and locking descriptors.
 *
 * Needs from below: core/netpoll, which must hear of a close before it happens (pg_fd_forget), of changed
 * flags after it.  No state of its own.
 *
 * The runtime's own descriptors are kept from programs that close everything: to close, dup2 and
 * close_range they look as if they were not open.  These calls matter on native threads too, since their
 * descriptors are everybody's; in the child of a vfork, which has descriptors of its own but our memory,
 * nothing may be forgotten.
 */
#include "shim/io.h"
#include "shim/process.h"
#include "shim/proctask.h"

/* Must the poller hear what this thread does to descriptors?  Not before the start, not in a vfork's child. */
static bool telling(void)
{
	return atomic_load_explicit(&pg_started, memory_order_relaxed) && !pg_in_vfork();
}

static bool ours(int fd)
{
	return telling() && pg_fd_ours(fd);
}

static int bad_fd(void)
{
	errno = EBADF;
	return -1;
}

/* ---- opening ---- */

/* A mode follows only with these flags; reading it without is harmless here but not clean. */
static mode_t open_mode(int flags, va_list ap)
{
	return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(ap, mode_t) : 0;
}

#define OPEN_BODY(call)												\
	va_list ap;												\
	mode_t mode;												\
	va_start(ap, flags);											\
	mode = open_mode(flags, ap);										\
	va_end(ap);												\
	int fd = PG_CANN(pg_self_, true, call);									\
	return pg_likely(!pg_in_proc(path, fd < 0)) ? fd : pg_proc_open(path, flags, fd)

/* Blocks: the disk; a FIFO until its other end is opened.  Cancel: yes. */
PG_EXPORT int open(const char *path, int flags, ...)
{
	OPEN_BODY(PG_REAL(open)(path, flags, mode));
}
extern __typeof__(open) __open __attribute__((alias("open")));

PG_EXPORT int open64(const char *path, int flags, ...)
{
	OPEN_BODY(PG_REAL(open64)(path, flags, mode));
}
extern __typeof__(open64) __open64 __attribute__((alias("open64")));

PG_EXPORT int openat(int dir, const char *path, int flags, ...)
{
	OPEN_BODY(PG_REAL(openat)(dir, path, flags, mode));
}

PG_EXPORT int openat64(int dir, const char *path, int flags, ...)
{
	OPEN_BODY(PG_REAL(openat64)(dir, path, flags, mode));
}

/* ---- closing ---- */

/*
 * Blocks: the disk, SO_LINGER.  Cancel: yes, before anything is closed.  Differs: ends waits of other
 * threads on it.
 */
PG_EXPORT int close(int fd)
{
	struct pg_g *g = pg_self_;
	int r;

	if (pg_unlikely(ours(fd)))
		return bad_fd();
	if (g == NULL)
		return PG_REAL(close)(fd);
	pg_io_testcancel(g);
	if (telling())
		pg_fd_forget(fd);
	/* Not made again after EINTR: the descriptor is gone. */
	pg_entersyscall(g);
	r = PG_REAL(close)(fd);
	pg_exitsyscall(g);
	return r;
}
extern __typeof__(close) __close __attribute__((alias("close")));

/*
 * The first of ours in lo..hi, or hi + 1.  They cannot lie above what the kernel ever gives out by default.
 */
static unsigned next_ours(unsigned lo, unsigned hi)
{
	unsigned top = hi < (1u << 20) ? hi : (1u << 20);

	for (unsigned fd = lo; fd <= top; fd++)
		if (pg_fd_ours((int)fd))
			return fd;
	return hi + 1; /* 0 when hi is the last there is */
}

/* Blocks: nothing much.  Differs: leaves the runtime's own descriptors open. */
PG_EXPORT int close_range(unsigned lo, unsigned hi, int flags)
{
	if (!telling() || lo > hi || (flags & CLOSE_RANGE_CLOEXEC))
		return PG_REAL(close_range)(lo, hi, flags);
	pg_fd_forget_range(lo, hi);
	for (;;) {
		unsigned o = next_ours(lo, hi);
		bool last = o == hi + 1;

		if (last || o > lo) {
			int r = PG_REAL(close_range)(lo, last ? hi : o - 1, flags);
			if (r != 0)
				return r;
		}
		if (last || o == hi)
			return 0;
		lo = o + 1;
	}
}

PG_EXPORT void closefrom(int lo)
{
	if (!telling() || close_range(lo < 0 ? 0 : (unsigned)lo, ~0u, 0) != 0)
		PG_REAL(closefrom)(lo);
}

/* Blocks: nothing.  Differs: as close, for what `to` was. */
PG_EXPORT int dup2(int from, int to)
{
	if (ours(from) || ours(to))
		return bad_fd();
	if (from != to && telling() && pg_sys(SYS_fcntl, from, F_GETFD) >= 0)
		pg_fd_forget(to);
	return PG_REAL(dup2)(from, to);
}
extern __typeof__(dup2) __dup2 __attribute__((alias("dup2"), copy(dup2)));

PG_EXPORT int dup3(int from, int to, int flags)
{
	if (ours(from) || ours(to))
		return bad_fd();
	if (from != to && telling() && pg_sys(SYS_fcntl, from, F_GETFD) >= 0)
		pg_fd_forget(to);
	return PG_REAL(dup3)(from, to, flags);
}

/* Forgets the descriptor of something libc is about to close. */
static void forget_quietly(int fd, int saved)
{
	errno = saved;
	if (fd >= 0 && telling())
		pg_fd_forget(fd);
}

/* Blocks: the last flush.  Cancel: no. */
PG_EXPORT int fclose(FILE *f)
{
	int saved = errno;

	forget_quietly(fileno(f), saved);
	return PG_ANN(pg_self_, false, PG_REAL(fclose)(f));
}

#define REOPEN_BODY(call)											\
	struct pg_g *g = pg_self_;										\
	int saved = errno;											\
	FILE *r;												\
	forget_quietly(fileno(f), saved);									\
	if (g != NULL)												\
		pg_entersyscall(g);										\
	r = call;												\
	if (g != NULL)												\
		pg_exitsyscall(g);										\
	return r

PG_EXPORT FILE *freopen(const char *restrict path, const char *restrict mode, FILE *restrict f)
{
	REOPEN_BODY(PG_REAL(freopen)(path, mode, f));
}

PG_EXPORT FILE *freopen64(const char *restrict path, const char *restrict mode, FILE *restrict f)
{
	REOPEN_BODY(PG_REAL(freopen64)(path, mode, f));
}

/* Blocks: until the command ends.  Cancel: no. */
PG_EXPORT int pclose(FILE *f)
{
	int saved = errno;

	forget_quietly(fileno(f), saved);
	return PG_LONG(pg_self_, true, PG_REAL(pclose)(f));
}

PG_EXPORT int closedir(DIR *d)
{
	int saved = errno;

	forget_quietly(dirfd(d), saved);
	return PG_ANN(pg_self_, false, PG_REAL(closedir)(d));
}

PG_EXPORT int mq_close(mqd_t mq)
{
	if (telling())
		pg_fd_forget(mq);
	return PG_REAL(mq_close)(mq);
}

/* ---- fcntl, ioctl ---- */

/* Blocks: F_SETLKW and F_OFD_SETLKW until the lock is free.  Cancel: those two. */
PG_EXPORT int fcntl(int fd, int cmd, ...)
{
	struct pg_g *g = pg_self_;
	va_list ap;
	void *arg;
	int r;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (cmd == F_SETLKW || cmd == F_OFD_SETLKW) {
		if (pg_is_green()) {
			pg_io_testcancel(g);
			if (pg_sys(SYS_fcntl, fd, cmd == F_SETLKW ? F_SETLK : F_OFD_SETLK, arg) == 0)
				return 0;
		}
		return PG_CLONG(g, true, PG_REAL(fcntl)(fd, cmd, arg));
	}
	r = PG_REAL(fcntl)(fd, cmd, arg);
	if (cmd == F_SETFL && r == 0 && atomic_load_explicit(&pg_started, memory_order_relaxed))
		pg_fd_flags_changed();
	return r;
}
extern __typeof__(fcntl) fcntl64 __attribute__((alias("fcntl")));
extern __typeof__(fcntl) __fcntl __attribute__((alias("fcntl")));

/* Blocks: as the device does.  Cancel: no. */
PG_EXPORT int ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;
	int r;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	r = PG_ANN(pg_self_, true, PG_REAL(ioctl)(fd, req, arg));
	if (req == FIONBIO && r == 0 && atomic_load_explicit(&pg_started, memory_order_relaxed))
		pg_fd_flags_changed();
	return r;
}

/* ---- locks ---- */

/* Blocks: until the lock is free.  Cancel: no. */
PG_EXPORT int flock(int fd, int op)
{
	struct pg_g *g = pg_self_;

	if ((op & LOCK_NB) || op == LOCK_UN)
		return PG_REAL(flock)(fd, op);
	if (pg_is_green() && pg_sys(SYS_flock, fd, op | LOCK_NB) == 0)
		return 0;
	return PG_LONG(g, true, PG_REAL(flock)(fd, op));
}

#define LOCKF_BODY(name)											\
	struct pg_g *g = pg_self_;										\
	int saved = errno;											\
	if (cmd != F_LOCK)											\
		return PG_REAL(name)(fd, cmd, len);								\
	if (pg_is_green()) {											\
		pg_io_testcancel(g);										\
		if (PG_REAL(name)(fd, F_TLOCK, len) == 0)							\
			return 0;										\
		errno = saved;											\
	}													\
	return PG_CLONG(g, true, PG_REAL(name)(fd, F_LOCK, len))

/* Blocks: F_LOCK until the lock is free.  Cancel: yes, for F_LOCK. */
PG_EXPORT int lockf(int fd, int cmd, off_t len)
{
	LOCKF_BODY(lockf);
}

PG_EXPORT int lockf64(int fd, int cmd, off64_t len)
{
	LOCKF_BODY(lockf64);
}
