/* SPDX-License-Identifier: MIT */
/*
 * Descriptors: the table of poll descriptors, and what is known of each number - its kind, O_NONBLOCK, socket time-outs.
 *
 * The table has two levels, is filled on demand and never shrinks: a pd is type-stable.  The kind is learnt at first use and
 * forgotten when the number is closed (pg_fd_forget).  Flags and time-outs belong to the open file, which other descriptors
 * may share, so any change made by this process makes everybody ask again (flags_gen); changes by other processes are not seen.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "arch.h"
#include "core/netpoll.h"
#include "core/pd.h"
#include "core/proc.h"

static _Atomic(struct pg_pd *) chunks[PG_PD_NCHUNKS];
static _Atomic uint32_t flags_gen = 1;
_Atomic int pg_pd_max;

/* The pd of fd if it has one. */
struct pg_pd *pg_pd_peek(int fd)
{
	struct pg_pd *c;

	if ((unsigned)fd >= (unsigned)PG_PD_CHUNK * PG_PD_NCHUNKS)
		return NULL;
	c = atomic_load_explicit(&chunks[fd / PG_PD_CHUNK], memory_order_acquire);
	return c ? &c[fd % PG_PD_CHUNK] : NULL;
}

struct pg_pd *pg_pd_get(int fd)
{
	struct pg_pd *pd = pg_pd_peek(fd), *c, *none = NULL;
	int m;

	if (pd == NULL) {
		if ((unsigned)fd >= (unsigned)PG_PD_CHUNK * PG_PD_NCHUNKS)
			return NULL;
		c = pg_mmap_alloc(PG_PD_CHUNK * sizeof *c);
		if (c == NULL)
			return NULL;
		for (int i = 0; i < PG_PD_CHUNK; i++)
			c[i].fd = fd / PG_PD_CHUNK * PG_PD_CHUNK + i;
		if (!atomic_compare_exchange_strong(&chunks[fd / PG_PD_CHUNK], &none, c))
			pg_sys(SYS_munmap, c, PG_PD_CHUNK * sizeof *c);
		pd = pg_pd_peek(fd);
	}
	for (m = atomic_load_explicit(&pg_pd_max, memory_order_relaxed); fd > m;)
		if (atomic_compare_exchange_weak(&pg_pd_max, &m, fd))
			break;
	return pd;
}

/* ---- what a descriptor is ---- */

static enum pg_fdkind learn(int fd)
{
	struct stat st;
	int v, w;
	socklen_t n = sizeof v;

	if (pg_sys(SYS_fstat, fd, &st) < 0)
		return PG_FD_BAD;
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFBLK:
		return PG_FD_FILE;
	case S_IFSOCK:
		if (pg_sys(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &v, &n) == 0 && v == IPPROTO_TCP) {
			n = sizeof w;
			/* Out-of-band data in the stream would end a read early. */
			if (pg_sys(SYS_getsockopt, fd, SOL_SOCKET, SO_OOBINLINE, &w, &n) == 0 && w == 0)
				return PG_FD_STREAM;
		}
		return PG_FD_SOCKET;
	case S_IFIFO:
	case 0: /* eventfd, timerfd and their like */
		return PG_FD_NOWAIT;
	default:
		return PG_FD_POLL;
	}
}

enum pg_fdkind pg_fd_kind(int fd)
{
	struct pg_pd *pd = fd < 0 ? NULL : pg_pd_get(fd);
	uint8_t k;

	if (pd == NULL)
		return PG_FD_BAD;
	k = atomic_load_explicit(&pd->kind, memory_order_relaxed);
	if (k == PG_FD_UNKNOWN) {
		k = (uint8_t)learn(fd);
		if (k != PG_FD_BAD)
			atomic_store_explicit(&pd->kind, k, memory_order_relaxed);
	}
	return k;
}

static void get_flags(struct pg_pd *pd, uint32_t gen)
{
	struct timeval tv;
	socklen_t n;
	long fl = pg_sys(SYS_fcntl, pd->fd, F_GETFL);
	int64_t t[2] = {PG_FOREVER, PG_FOREVER};
	uint8_t k = atomic_load_explicit(&pd->kind, memory_order_relaxed);

	if (k == PG_FD_SOCKET || k == PG_FD_STREAM) {
		for (int i = 0; i < 2; i++) {
			n = sizeof tv;
			if (pg_sys(SYS_getsockopt, pd->fd, SOL_SOCKET, i == PG_READ ? SO_RCVTIMEO : SO_SNDTIMEO, &tv, &n) == 0 &&
			    (tv.tv_sec || tv.tv_usec))
				t[i] = tv.tv_sec > INT64_MAX / 2000000000 ? PG_FOREVER : (int64_t)tv.tv_sec * 1000000000 + tv.tv_usec * 1000;
		}
	}
	pd->nonblock = fl >= 0 && fl & O_NONBLOCK;
	pd->timeout[0] = t[0];
	pd->timeout[1] = t[1];
	atomic_store_explicit(&pd->flags_gen, gen, memory_order_release);
}

static struct pg_pd *fresh_flags(int fd)
{
	struct pg_pd *pd = fd < 0 ? NULL : pg_pd_get(fd);
	uint32_t gen = atomic_load(&flags_gen);

	if (pd && atomic_load_explicit(&pd->flags_gen, memory_order_acquire) != gen)
		get_flags(pd, gen);
	return pd;
}

bool pg_fd_nonblock(int fd)
{
	struct pg_pd *pd = fresh_flags(fd);

	return pd && pd->nonblock;
}

int64_t pg_fd_timeout(int fd, int mode)
{
	struct pg_pd *pd = fresh_flags(fd);

	return pd ? pd->timeout[mode] : PG_FOREVER;
}

void pg_fd_flags_changed(void)
{
	if (atomic_fetch_add(&flags_gen, 1) == UINT32_MAX)
		atomic_fetch_add(&flags_gen, 1); /* 0 is what a new pd has */
}
