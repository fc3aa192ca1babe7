/* SPDX-License-Identifier: MIT */
/*
 * Readiness of descriptors turned into ready Gs.  One edge-triggered epoll registration per descriptor, made at its first
 * wait; the protocol is: try the call without blocking, on EAGAIN wait here, try again.  All may return early.
 */
#ifndef PG_NETPOLL_H
#define PG_NETPOLL_H

#include <poll.h>

#include "core/g.h"

enum { PG_READ = 0, PG_WRITE = 1 };

/* What a descriptor is, learnt at first use and forgotten by pg_fd_forget. */
enum pg_fdkind {
	PG_FD_UNKNOWN,
	PG_FD_BAD,      /* not open: let the real call say so */
	PG_FD_FILE,     /* regular file, directory, block device: announced calls */
	PG_FD_SOCKET,   /* MSG_DONTWAIT works */
	PG_FD_STREAM,   /* the same, and a TCP or Unix stream: a short read means drained */
	PG_FD_NOWAIT,   /* pipe, FIFO, eventfd, timerfd: preadv2(RWF_NOWAIT) works */
	PG_FD_POLL,     /* tty, inotify, signalfd, other character devices: poll, then an announced call */
};

enum pg_fdkind pg_fd_kind(int fd);
/* Is O_NONBLOCK set by the program?  Cached; pg_fd_flags_changed() makes everybody ask the kernel again. */
bool pg_fd_nonblock(int fd);
void pg_fd_flags_changed(void);
/* SO_RCVTIMEO / SO_SNDTIMEO in ns, PG_FOREVER when none; mode PG_READ or PG_WRITE. Cached, see pg_fd_flags_changed. */
int64_t pg_fd_timeout(int fd, int mode);

/* fd is about to be closed or replaced (close, dup2, ...): wakes its waiters with -EBADF and takes it out of the poller.
 * Cheap for descriptors nobody ever waited for. */
void pg_fd_forget(int fd);
void pg_fd_forget_range(unsigned lo, unsigned hi);

/*
 * Waits until fd may be ready for mode.  0 try again; -ETIMEDOUT; -EINTR a signal handler ran or cancellation;
 * -EBADF closed by another thread meanwhile; -EPERM the poller does not take this descriptor: use an announced call.
 * Blocks: the G.  deadline in monotonic ns.
 */
int pg_netpoll_wait(int fd, int mode, int64_t deadline);

/* The caller's operation got something and there may be more: if other Gs wait for the same, lets the next one try. */
void pg_netpoll_baton(int fd, int mode);

/* A read took less than it asked for from a PG_FD_STREAM: the next reader may wait without trying first. */
void pg_netpoll_drained(int fd);
/* Has anybody waited for it here? */
bool pg_netpoll_registered(int fd);
/* Should the next read wait before it tries? */
bool pg_netpoll_empty(int fd);

/*
 * Waits until one of the descriptors may have an event poll(2) would report.  Same results as pg_netpoll_wait.  The caller
 * has found none ready, calls this, and looks again: recheck(arg) is called after the G is published, and returning true
 * (something is ready) abandons the wait with 0.
 */
int pg_netpoll_poll(const struct pollfd *fds, unsigned n, int64_t deadline, bool (*recheck)(void *), void *arg);

/* Is this one of our own descriptors (the epoll set, its eventfd)?  Programs that close everything must not close these. */
bool pg_fd_ours(int fd);

#endif
