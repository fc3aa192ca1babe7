/* SPDX-License-Identifier: MIT */
/*
 * Message queues, System V semaphores and messages, waits for asynchronous I/O.
 *
 * Needs from below: core/netpoll for POSIX message queues, which are descriptors and can be polled; the
 * others are tried without waiting first, then called announced with the P handed off.  None of the System
 * V calls is ever restarted, so each tells our own interruptions from the program's by the count of all
 * handlers.
 */
#include "shim/io.h"

/* ---- POSIX message queues ---- */

/* A timeout in the past is the kernel's way to say "do not wait": ETIMEDOUT then means that it would have. */
static const struct timespec past;

static long mq_loop(struct pg_g *g, bool rd, mqd_t mq, char *buf, size_t n, unsigned *prio, unsigned sprio,
		    const struct timespec *abs)
{
	struct pg_iowait w = pg_iowait_init(g, mq, rd ? PG_READ : PG_WRITE);
	long r;

	pg_io_testcancel(g);
	w.deadline = PG_FOREVER;
	for (;;) {
		r = rd ? pg_sys(SYS_mq_timedreceive, mq, buf, n, prio, &past)
		       : pg_sys(SYS_mq_timedsend, mq, buf, n, sprio, &past);
		if (r != -ETIMEDOUT)
			break;
		/* Only now does the kernel look at the program's time. */
		if (abs != NULL && w.deadline == PG_FOREVER) {
			if (abs->tv_sec < 0 || pg_timespec_bad(abs))
				return -EINVAL;
			w.deadline = pg_deadline_abs(CLOCK_REALTIME, abs);
			if (w.deadline == 0)
				w.deadline = 1;
		}
		r = pg_io_wait(&w);
		if (r != 0)
			return r == -EAGAIN ? -ETIMEDOUT : r;
	}
	pg_netpoll_baton(mq, w.mode);
	return r;
}

/* Blocks: the mount of the queues, a look-up.  Cancel: no. */
PG_EXPORT mqd_t mq_open(const char *name, int flags, ...)
{
	mode_t mode = 0;
	struct mq_attr *attr = NULL;

	if (flags & O_CREAT) {
		va_list ap;
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		attr = va_arg(ap, struct mq_attr *);
		va_end(ap);
	}
	return PG_ANN(pg_self_, false, PG_REAL(mq_open)(name, flags, mode, attr));
}

/* Blocks: until there is a message.  Cancel: yes. */
PG_EXPORT ssize_t mq_receive(mqd_t mq, char *buf, size_t n, unsigned *prio)
{
	if (!pg_is_green())
		return PG_CANN(pg_self_, true, PG_REAL(mq_receive)(mq, buf, n, prio));
	return pg_io_result(mq_loop(pg_self_, true, mq, buf, n, prio, 0, NULL));
}

PG_EXPORT ssize_t mq_timedreceive(mqd_t mq, char *restrict buf, size_t n, unsigned *restrict prio,
				  const struct timespec *restrict abs)
{
	if (!pg_is_green())
		return PG_CANN(pg_self_, true, PG_REAL(mq_timedreceive)(mq, buf, n, prio, abs));
	return pg_io_result(mq_loop(pg_self_, true, mq, buf, n, prio, 0, abs));
}

/* Blocks: until there is room.  Cancel: yes. */
PG_EXPORT int mq_send(mqd_t mq, const char *buf, size_t n, unsigned prio)
{
	if (!pg_is_green())
		return PG_CANN(pg_self_, true, PG_REAL(mq_send)(mq, buf, n, prio));
	return (int)pg_io_result(mq_loop(pg_self_, false, mq, (char *)buf, n, NULL, prio, NULL));
}

PG_EXPORT int mq_timedsend(mqd_t mq, const char *buf, size_t n, unsigned prio, const struct timespec *abs)
{
	if (!pg_is_green())
		return PG_CANN(pg_self_, true, PG_REAL(mq_timedsend)(mq, buf, n, prio, abs));
	return (int)pg_io_result(mq_loop(pg_self_, false, mq, (char *)buf, n, NULL, prio, abs));
}

/* ---- System V ---- */

/* Blocks: until there is room or IPC_NOWAIT.  Cancel: yes. */
PG_EXPORT int msgsnd(int id, const void *msg, size_t n, int flags)
{
	struct pg_g *g = pg_self_;

	if (pg_is_green()) {
		long r;
		pg_io_testcancel(g);
		r = pg_sys(SYS_msgsnd, id, msg, n, flags | IPC_NOWAIT);
		if (r != -EAGAIN || (flags & IPC_NOWAIT))
			return (int)pg_ret(r);
	}
	return PG_CLONG(g, false, PG_REAL(msgsnd)(id, msg, n, flags));
}

/* Blocks: until there is such a message or IPC_NOWAIT.  Cancel: yes. */
PG_EXPORT ssize_t msgrcv(int id, void *msg, size_t n, long type, int flags)
{
	struct pg_g *g = pg_self_;

	if (pg_is_green()) {
		long r;
		pg_io_testcancel(g);
		r = pg_sys(SYS_msgrcv, id, msg, n, type, flags | IPC_NOWAIT);
		if (r != -ENOMSG || (flags & IPC_NOWAIT))
			return pg_ret(r);
	}
	return PG_CLONG(g, false, PG_REAL(msgrcv)(id, msg, n, type, flags));
}

/* Blocks: until all operations can be done.  Cancel: no. */
PG_EXPORT int semop(int id, struct sembuf *ops, size_t n)
{
	static const struct timespec zero;

	if (pg_is_green()) {
		long r = pg_sys(SYS_semtimedop, id, ops, n, &zero);
		bool nowait = false;

		/* EAGAIN is also what an operation with IPC_NOWAIT says; the real call tells which. */
		for (size_t i = 0; r == -EAGAIN && i < n; i++)
			nowait |= (ops[i].sem_flg & IPC_NOWAIT) != 0;
		if (r != -EAGAIN)
			return (int)pg_ret(r);
		if (nowait)
			return PG_ANN(pg_self_, false, PG_REAL(semop)(id, ops, n));
	}
	return PG_LONG(pg_self_, false, PG_REAL(semop)(id, ops, n));
}

/* Blocks: the same, with a relative timeout.  Cancel: no. */
PG_EXPORT int semtimedop(int id, struct sembuf *ops, size_t n, const struct timespec *timeout)
{
	struct timespec left;
	int64_t deadline;

	if (timeout == NULL)
		return semop(id, ops, n);
	if (!pg_is_green() || timeout->tv_sec < 0 || pg_timespec_bad(timeout))
		return PG_ANN(pg_self_, false, PG_REAL(semtimedop)(id, ops, n, timeout));
	deadline = pg_deadline_rel(timeout);
	return PG_LONG(pg_self_, false, PG_REAL(semtimedop)(id, ops, n, pg_left(deadline, &left)));
}

/* ---- asynchronous I/O ---- */

/* Blocks: until one of the requests is done.  Cancel: yes. */
#define SUSPEND_BODY(name)											\
	struct pg_g *g = pg_self_;										\
	struct timespec left;											\
	int64_t deadline;											\
	if (!pg_is_green() || (timeout != NULL && (timeout->tv_sec < 0 || pg_timespec_bad(timeout))))		\
		return PG_CANN(g, false, PG_REAL(name)(list, n, timeout));					\
	deadline = timeout == NULL ? PG_FOREVER : pg_deadline_rel(timeout);					\
	return PG_CLONG(g, false, PG_REAL(name)(list, n, pg_left(deadline, &left)))

PG_EXPORT int aio_suspend(const struct aiocb *const list[], int n, const struct timespec *restrict timeout)
{
	SUSPEND_BODY(aio_suspend);
}

PG_EXPORT int aio_suspend64(const struct aiocb64 *const list[], int n, const struct timespec *restrict timeout)
{
	SUSPEND_BODY(aio_suspend64);
}

/*
 * Blocks: with LIO_WAIT, until all requests are done.  Cancel: yes, for LIO_WAIT.
 * The requests are queued once: after an interruption of ours the wait goes on with aio_suspend.
 */
#define LISTIO_BODY(name, suspend, error)									\
	struct pg_g *g = pg_self_;										\
	bool failed = false;											\
	uint32_t before;											\
	int r;													\
	if (g == NULL)												\
		return PG_REAL(name)(mode, list, n, sig);							\
	before = g->sig_ran;											\
	if (mode == LIO_WAIT) {											\
		pg_cancel_enter(g);										\
		pg_io_enterlong(g);										\
	} else {												\
		pg_entersyscall(g);										\
	}													\
	r = PG_REAL(name)(mode, list, n, sig);									\
	if (mode == LIO_WAIT)											\
		pg_cancel_leave(g);										\
	pg_exitsyscall(g);											\
	if (r == 0 || mode != LIO_WAIT || errno != EINTR || !pg_eintr_ours(g, before, false))			\
		return r;											\
	for (int i = 0; i < n; i++) {										\
		if (list[i] == NULL || list[i]->aio_lio_opcode == LIO_NOP)					\
			continue;										\
		while ((r = error(list[i])) == EINPROGRESS)							\
			if (suspend((void *)&list[i], 1, NULL) != 0 && errno == EINTR)				\
				return -1;									\
		failed |= r != 0;										\
	}													\
	if (failed)												\
		errno = EIO;											\
	return failed ? -1 : 0

PG_EXPORT int lio_listio(int mode, struct aiocb *const list[restrict], int n, struct sigevent *restrict sig)
{
	LISTIO_BODY(lio_listio, aio_suspend, aio_error);
}

PG_EXPORT int lio_listio64(int mode, struct aiocb64 *const list[restrict], int n, struct sigevent *restrict sig)
{
	LISTIO_BODY(lio_listio64, aio_suspend64, aio_error64);
}
