/* SPDX-License-Identifier: MIT */
/*
 * The bodies of all rows of calls.def that only announce: the real call between entersyscall and exitsyscall.
 *
 * kind: [c][ann|long][r|v].  c: a cancellation point; long: the P is handed off at once; r: made again
 * after an EINTR that no handler of the program without SA_RESTART accounts for; v: returns nothing.
 * load: libc may open modules in it.
 * annp: `path` may be the entry of a green thread in /proc; if there is no such file, the call is made again with what stands in for it.
 * spawn: makes a child process.
 * exec: no kick may be pending when the process becomes another program.
 */
#include "shim/io.h"

#include "core/signal.h"
#include "core/thread.h"
#include "shim/proctask.h"

#define ENTER(cancels, enter)											\
	struct pg_g *pg_g_ = pg_self_;										\
	if (pg_likely(pg_g_ != NULL)) {										\
		if (cancels)											\
			pg_cancel_enter(pg_g_);									\
		PG_ENTER(pg_g_, enter);										\
	}

#define LEAVE(cancels)												\
	if (pg_likely(pg_g_ != NULL)) {										\
		if (cancels)											\
			pg_cancel_leave(pg_g_);									\
		pg_exitsyscall(pg_g_);										\
	}

/* One thread: nobody to announce it to.  A cancellation point is more than an announcement. */
#define ALONE(cancels) (!(cancels) && pg_unlikely(!atomic_load_explicit(&pg_started, memory_order_relaxed)))

#define ONCE(cancels, enter, ret, name, params, args)								\
	PG_EXPORT ret name params										\
	{													\
		if (ALONE(cancels))										\
			return PG_REAL(name) args;								\
		ENTER(cancels, enter)										\
		ret pg_r_ = PG_REAL(name) args;									\
		LEAVE(cancels)											\
		return pg_r_;											\
	}

#define VOID(cancels, enter, name, params, args)								\
	PG_EXPORT void name params										\
	{													\
		if (ALONE(cancels)) {										\
			PG_REAL(name) args;									\
			return;											\
		}												\
		ENTER(cancels, enter)										\
		PG_REAL(name) args;										\
		LEAVE(cancels)											\
	}

#define AGAIN(cancels, enter, ret, name, params, args)								\
	PG_EXPORT ret name params										\
	{													\
		if (ALONE(cancels))										\
			return PG_REAL(name) args;								\
		return PG_ANNOUNCED_(pg_self_, true, cancels, enter, PG_REAL(name) args);			\
	}

#define GEN_load(ret, name, params, args)									\
	PG_EXPORT ret name params										\
	{													\
		ENTER(0, pg_entersyscall)									\
		ret pg_r_ = PG_REAL(name) args;									\
		LEAVE(0)											\
		pg_tls_look();											\
		return pg_r_;											\
	}

#define FAILED(r) ((intptr_t)(r) == _Generic((r), DIR *: 0, default: -1))

#define GEN_annp(ret, name, params, args)									\
	PG_EXPORT ret name params										\
	{													\
		char pg_buf_[PG_PROC_PATH];									\
		ENTER(0, pg_entersyscall)									\
		ret pg_r_ = PG_REAL(name) args;									\
		LEAVE(0)											\
		if (pg_unlikely(FAILED(pg_r_)) && pg_in_proc(path, true) && pg_proc_path(path, pg_buf_) != NULL) {	\
			path = pg_buf_;										\
			pg_r_ = PG_REAL(name) args;								\
		}												\
		return pg_r_;											\
	}

#define GEN_exec(ret, name, params, args)									\
	PG_EXPORT ret name params										\
	{													\
		struct pg_g *pg_g_ = pg_self_;									\
		if (pg_g_ == NULL)										\
			return PG_REAL(name) args;								\
		pg_entersyscall(pg_g_);										\
		pg_exec_hold(pg_g_);										\
		ret pg_r_ = PG_REAL(name) args;									\
		pg_exec_release(pg_g_);										\
		pg_exitsyscall(pg_g_);										\
		return pg_r_;											\
	}
#define GEN_spawn(ret, name, params, args)									\
	PG_EXPORT ret name params										\
	{													\
		ENTER(0, pg_entersyscall)									\
		if (pg_g_ != NULL)										\
			pg_stay(pg_g_);									\
		ret pg_r_ = PG_REAL(name) args;									\
		LEAVE(0)											\
		return pg_r_;											\
	}

#define GEN_own(ret, name, params, args)
#define GEN_ann(ret, name, params, args) ONCE(0, pg_entersyscall, ret, name, params, args)
#define GEN_annr(ret, name, params, args) AGAIN(0, pg_entersyscall, ret, name, params, args)
#define GEN_annv(ret, name, params, args) VOID(0, pg_entersyscall, name, params, args)
#define GEN_cann(ret, name, params, args) ONCE(1, pg_entersyscall, ret, name, params, args)
#define GEN_cannr(ret, name, params, args) AGAIN(1, pg_entersyscall, ret, name, params, args)
#define GEN_long(ret, name, params, args) ONCE(0, pg_io_enterlong, ret, name, params, args)
#define GEN_longr(ret, name, params, args) AGAIN(0, pg_io_enterlong, ret, name, params, args)
#define GEN_clong(ret, name, params, args) ONCE(1, pg_io_enterlong, ret, name, params, args)
#define GEN_clongr(ret, name, params, args) AGAIN(1, pg_io_enterlong, ret, name, params, args)

#define C(kind, family, version, ret, name, params, args) GEN_##kind(ret, name, params, args)
#include "shim/calls.def"
#undef C
