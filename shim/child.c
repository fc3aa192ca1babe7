/* SPDX-License-Identifier: MIT */
/*
 * Waiting for children, and the calls of libc that start one and wait for it.
 *
 * Needs from below: core/syscall.  No state.  Each wait is tried with WNOHANG first, so a child that has
 * ended costs no change of hands.
 */
#include "shim/io.h"

#include "core/thread.h"

/* Blocks: until a child changes state.  Cancel: yes. */
PG_EXPORT pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
	struct pg_g *g = pg_self_;

	if (options & WNOHANG)
		return PG_REAL(wait4)(pid, status, options, usage);
	if (pg_is_green()) {
		long r;
		pg_io_testcancel(g);
		r = pg_sys(SYS_wait4, pid, status, options | WNOHANG, usage);
		if (r != 0)
			return (pid_t)pg_ret(r);
	}
	return PG_CLONG(g, true, PG_REAL(wait4)(pid, status, options, usage));
}

PG_EXPORT pid_t waitpid(pid_t pid, int *status, int options)
{
	return wait4(pid, status, options, NULL);
}
extern __typeof__(waitpid) __waitpid __attribute__((alias("waitpid")));

PG_EXPORT pid_t wait3(int *status, int options, struct rusage *usage)
{
	return wait4(-1, status, options, usage);
}

PG_EXPORT pid_t wait(int *status)
{
	return wait4(-1, status, 0, NULL);
}
extern __typeof__(wait) __wait __attribute__((alias("wait")));

PG_EXPORT int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
	if (options & WNOHANG)
		return PG_REAL(waitid)(type, id, info, options);
	return PG_CLONG(pg_self_, true, PG_REAL(waitid)(type, id, info, options));
}

/*
 * Blocks: until the command ends.  Cancel: before it starts; then not, since libc holds signals back
 * meanwhile.
 */
PG_EXPORT int system(const char *command)
{
	struct pg_g *g = pg_self_;
	int r;

	if (g != NULL) {
		pg_io_testcancel(g);
		pg_io_enterlong(g);
		pg_stay(g);
	}
	r = PG_REAL(system)(command);
	if (g != NULL)
		pg_exitsyscall(g);
	return r;
}
