/* SPDX-License-Identifier: MIT */
/*
 * Cancellation and pthread_exit: who decides that a thread ends, and how its stack is unwound.
 *
 * State, all in the G: cancelled (set by anyone, for good), cancel_state and cancel_type (the G), cancel_point (the G: it is in an
 * announced blocking call that is a cancellation point), exiting (the G, for good: nothing cancels it any more).  A cancellation
 * acts when cancelled, enabled and not exiting, and the G is at a cancellation point (pg_testcancel), in an
 * announced call, or asynchronous; the latter two are found out by the handler of PG_SIG_KICK.
 *
 * libc has cancellation points of its own inside stdio, system, the resolver: system calls around which it sets the type
 * to asynchronous in a word of the TCB (cancelhandling).  We keep that word as pthread_cancel and its kin would, so
 * libc notices a cancellation before such a call by itself, and the handler of PG_SIG_KICK sees that it interrupted one.
 * In the former case libc unwinds the stack itself, down to the outermost buffer, which is ours: pg_thread_main's,
 * in the first thread pg_bottom's.  Then the word says EXITING while g->exiting is 0: whoever looks makes it 1 (pg_cancel_acts).
 *
 * Clean-up handlers stay where glibc keeps them, in the TCB:
 *   - pthread_cleanup_push makes a __pthread_unwind_buf_t, a jmp_buf with a link (__pad[0]) to the one outside.  glibc's
 *     __pthread_register_cancel and __pthread_unregister_cancel push and pop the head in the TCB, of a green thread as of
 *     any other; old binaries and parts of libc itself (vfprintf) use _pthread_cleanup_push in the same way.  So neither pair
 *     is interposed, a chain begun before the runtime started goes on, and registering through a probe reads the head.
 *   - the outermost buffer has no link.  In a green thread it is the one of pg_thread_main (g->exit_buf).  In the first
 *     thread it is glibc's, in the caller of main; there the end runs on top of the unwound stack instead, and when the
 *     runtime starts the buffer is redirected to pg_bottom, for libc's own unwinding.
 * The stack is walked by _Unwind_ForcedUnwind of the program's own libgcc; its stop function sees each frame before it
 * is left, and jumps to a buffer's jmp_buf when it comes to that frame.
 *
 * Foreign threads end through glibc's pthread_exit: their last buffer is in its start_thread.  glibc's pthread_cancel is never
 * called once the runtime runs: it would take PG_SIG_KICK from us.
 */
#include "shim/thread.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unwind.h>

#include "arch.h"
#include "core/say.h"
#include "core/signal.h"
#include "shim/objects.h"

/* Bits of cancelhandling, the same in all of glibc 2.3 to 2.40; the first two are verified before the word is used. */
enum { LIBC_DISABLED = 1, LIBC_ASYNC = 2, LIBC_CANCELING = 4, LIBC_CANCELED = 8, LIBC_EXITING = 16 };

extern void _pthread_cleanup_push(struct _pthread_cleanup_buffer *, void (*)(void *), void *);
extern void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *, int);

_Static_assert(sizeof((struct pg_g *)0)->unwind_exc >= sizeof(struct _Unwind_Exception) + 8,
	       "room for an aligned exception");
_Static_assert(PTHREAD_CANCEL_ENABLE == 0 && PTHREAD_CANCEL_DEFERRED == 0, "zero is the initial state");

/* The unwinder; written once by pg_unwind_link, forced last. */
static struct {
	_Atomic(_Unwind_Reason_Code (*)(struct _Unwind_Exception *, _Unwind_Stop_Fn, void *)) forced;
	_Unwind_Word (*cfa)(struct _Unwind_Context *);
	void (*longjmp)(struct __jmp_buf_tag *, int) __attribute__((noreturn));
} unwinder;

/* ---- libc's word ---- */

static bool word_known;

static inline _Atomic uint32_t *word(struct pg_g *g)
{
	return word_known ? pg_tls_cancelword(g) : NULL;
}

static inline void word_set(struct pg_g *g, uint32_t clear, uint32_t set)
{
	_Atomic uint32_t *w = word(g);

	if (w == NULL)
		return;
	if (clear)
		atomic_fetch_and(w, ~clear);
	if (set)
		atomic_fetch_or(w, set);
}

/* Before the first thread, on the calling thread: does libc keep state and type where we think? */
static bool word_check(struct pg_g *g)
{
	_Atomic uint32_t *w = pg_tls_cancelword(g);
	uint32_t before;
	int state;
	bool ok;

	if (w == NULL)
		return false;
	before = atomic_load(w);
	if (PG_REAL(pthread_setcancelstate)(PTHREAD_CANCEL_DISABLE, &state) != 0)
		return false;
	ok = atomic_load(w) == (before | LIBC_DISABLED);
	PG_REAL(pthread_setcancelstate)(PTHREAD_CANCEL_ENABLE, NULL);
	ok = ok && atomic_load(w) == (before & ~(uint32_t)LIBC_DISABLED);
	PG_REAL(pthread_setcancelstate)(state, NULL);
	return ok && (before & ~(uint32_t)(LIBC_DISABLED | LIBC_ASYNC)) == 0;
}

void pg_cancel_start(struct pg_g *g)
{
	__pthread_unwind_buf_t *b;
	__pthread_unwind_buf_t probe;

	word_known = word_check(g);
	if (!word_known || g != &pg_main_g)
		return;
	word_set(g, LIBC_DISABLED | LIBC_ASYNC, g->cancel_state | g->cancel_type << 1);
	__pthread_register_cancel(&probe);
	__pthread_unregister_cancel(&probe);
	for (b = probe.__pad[0]; b != NULL && b->__pad[0] != NULL; b = b->__pad[0])
		;
	if (b != NULL)
		b->__cancel_jmp_buf[0].__cancel_jmp_buf[PG_JMPBUF_PC] = (long)pg_arch_mangle((uintptr_t)pg_arch_bottom);
}

void pg_cancel_fresh(struct pg_g *g)
{
	_Atomic uint32_t *w = word(g);

	if (w != NULL)
		atomic_store_explicit(w, 0, memory_order_relaxed);
}

void pg_cancel_exiting(struct pg_g *g)
{
	g->exiting = 1;
	word_set(g, 0, LIBC_EXITING);
	pg_barrier();
	atomic_store(&g->cancel_point, 0);
}

/* libc ended an announced call by its own cancellation. */
static void left_by_libc(struct pg_g *g)
{
	g->exiting = 1;
	g->result = PTHREAD_CANCELED;
	pg_barrier();
	atomic_store(&g->cancel_point, 0);
	if (atomic_load_explicit(&g->insys, memory_order_relaxed) & 1)
		pg_exitsyscall(g);
}

uint32_t pg_cancel_settype(struct pg_g *g, uint32_t type)
{
	uint32_t was = g->cancel_type;

	atomic_store_explicit(&g->cancel_type, type, memory_order_relaxed);
	word_set(g, LIBC_ASYNC, type << 1);
	return was;
}

bool pg_cancel_acts(struct pg_g *g)
{
	_Atomic uint32_t *w = word(g);

	if (g->cancel_state != PTHREAD_CANCEL_ENABLE || g->exiting)
		return false;
	if (w != NULL && atomic_load_explicit(w, memory_order_relaxed) & LIBC_EXITING) {
		if (g == pg_self_)
			left_by_libc(g);
		return false;
	}
	return true;
}

void pg_cancel_landed(struct pg_g *g)
{
	uintptr_t top = (uintptr_t)g->stack_hi;

	if (g->exiting)
		return;
	left_by_libc(g);
	pg_once_unwound(g, top - 1, top);
}

/* ---- unwinding ---- */

static void fatal(const char *line) __attribute__((noreturn));
static void fatal(const char *line)
{
	pg_sys(SYS_write, 2, line, strlen(line));
	abort();
}

void pg_unwind_link(void)
{
	void *from = RTLD_DEFAULT, *forced, *cfa, *jump;

	if (pg_likely(atomic_load_explicit(&unwinder.forced, memory_order_acquire) != NULL))
		return;
	forced = dlsym(from, "_Unwind_ForcedUnwind");
	if (forced == NULL) {
		from = PG_REAL(dlopen)("libgcc_s.so.1", RTLD_NOW);
		if (from == NULL)
			fatal("libgcc_s.so.1 must be installed for pthread_cancel to work\n");
		forced = dlsym(from, "_Unwind_ForcedUnwind");
	}
	cfa = dlsym(from, "_Unwind_GetCFA");
	jump = dlsym(RTLD_NEXT, "_longjmp"); /* libc's: ours would restore a mask */
	if (forced == NULL || cfa == NULL || jump == NULL)
		fatal("libgcc_s.so.1 must be installed for pthread_cancel to work\n");
	memcpy(&unwinder.cfa, &cfa, sizeof cfa);
	memcpy(&unwinder.longjmp, &jump, sizeof jump);
	atomic_store_explicit(&unwinder.forced, (__typeof__(unwinder.forced))forced, memory_order_release);
}

/* The innermost buffer of the calling thread. */
static __pthread_unwind_buf_t *innermost(void)
{
	__pthread_unwind_buf_t probe;

	__pthread_register_cancel(&probe);
	__pthread_unregister_cancel(&probe);
	return probe.__pad[0];
}

/*
 * Runs the old-style handlers of the frames below `limit`.  Distances are measured from the top of the thread's stack,
 * so that a frame on an alternate stack above it counts as further in.
 */
static void run_old(uintptr_t limit, uintptr_t top)
{
	for (;;) {
		struct _pthread_cleanup_buffer probe, *b;

		_pthread_cleanup_push(&probe, NULL, NULL);
		b = probe.__prev;
		if (b == NULL || (uintptr_t)b - top >= limit - top) {
			_pthread_cleanup_pop(&probe, 0);
			return;
		}
		probe.__prev = b->__prev;
		_pthread_cleanup_pop(&probe, 0);
		b->__routine(b->__arg);
	}
}

static uintptr_t buf_sp(const __pthread_unwind_buf_t *b)
{
	return pg_arch_demangle((uintptr_t)b->__cancel_jmp_buf[0].__cancel_jmp_buf[PG_JMPBUF_SP]);
}

/* The first thread is unwound down to the caller of main; its end runs here.  A pthread_exit in a destructor comes back. */
static void end_here(struct pg_g *g) __attribute__((noreturn));
static void end_here(struct pg_g *g)
{
	__pthread_unwind_buf_t bottom;

	if (__sigsetjmp_cancel(bottom.__cancel_jmp_buf, 0) == 0) {
		__pthread_register_cancel(&bottom);
		bottom.__pad[0] = NULL;
		g->exit_buf = &bottom;
	}
	pg_thread_end(pg_self());
}

/* The first thread, unwound by libc. */
void pg_bottom(void)
{
	struct pg_g *g = pg_self();

	pg_cancel_landed(g);
	end_here(g);
}

/* Called for each frame about to be left; param is the buffer to stop at. */
static _Unwind_Reason_Code stop(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
				struct _Unwind_Exception *exc, struct _Unwind_Context *context, void *param)
{
	struct pg_g *g = pg_self();
	__pthread_unwind_buf_t *buf = param;
	uintptr_t top = (uintptr_t)g->stack_hi;
	uintptr_t cfa = unwinder.cfa(context);
	bool last = buf == NULL || (buf->__pad[0] == NULL && buf != g->exit_buf);

	(void)version;
	(void)class;
	(void)exc;
	if (!(actions & _UA_END_OF_STACK) && (buf == NULL || cfa - top < buf_sp(buf) - top)) {
		run_old(cfa, top);
		return _URC_NO_REASON;
	}
	if (last) {
		run_old(top - 1, top);
		pg_once_unwound(g, top - 1, top);
		end_here(g);
	}
	run_old(buf == g->exit_buf ? top - 1 : buf_sp(buf), top);
	pg_once_unwound(g, buf == g->exit_buf ? top - 1 : buf_sp(buf), top);
	/* A handler may call pthread_exit itself: its own buffer must not be the next. */
	if (buf != g->exit_buf)
		__pthread_unregister_cancel(buf);
	unwinder.longjmp((struct __jmp_buf_tag *)buf->__cancel_jmp_buf, 1);
}

static void not_rethrown(_Unwind_Reason_Code reason, struct _Unwind_Exception *exc)
{
	(void)reason;
	(void)exc;
	fatal("FATAL: exception not rethrown\n");
}

static void unwind(struct pg_g *g, __pthread_unwind_buf_t *buf) __attribute__((noreturn));
static void unwind(struct pg_g *g, __pthread_unwind_buf_t *buf)
{
	/* libgcc may write two words of it at once: it must have the alignment of its type. */
	uintptr_t at = ((uintptr_t)g->unwind_exc + 15) & ~(uintptr_t)15;
	struct _Unwind_Exception *exc = (struct _Unwind_Exception *)at;

	exc->exception_class = 0;
	exc->exception_cleanup = not_rethrown;
	atomic_load(&unwinder.forced)(exc, stop, buf);
	abort(); /* only when the stack is corrupt */
}

void pg_thread_exit(struct pg_g *g, void *result)
{
	pg_unwind_link();
	pg_cancel_exiting(g);
	if (!pg_is_ours(g)) {
		PG_REAL(pthread_exit)(result);
		__builtin_unreachable();
	}
	g->result = result;
	if (pg_unlikely(g->condwait != NULL))
		pg_cond_forsake(g, 0, UINTPTR_MAX, true);
	unwind(g, innermost());
}

void pg_testcancel(void)
{
	struct pg_g *g = pg_self();

	if (pg_cancel_wanted(g))
		pg_thread_exit(g, PTHREAD_CANCELED);
}

bool pg_cancel_from_handler(struct pg_g *g, ucontext_t *uc)
{
	_Atomic uint32_t *w = word(g);
	uint32_t v = w != NULL ? atomic_load(w) : 0;

	if (!pg_cancel_wanted(g))
		return false;
	if (v & LIBC_DISABLED || (g->cancel_type != PTHREAD_CANCEL_ASYNCHRONOUS && g->cancel_point == 0 && !(v & LIBC_ASYNC))) {
		/* libc may act on it by itself, and would leave the call announced. */
		if (atomic_load_explicit(&g->insys, memory_order_relaxed) & 1)
			atomic_fetch_add(&g->insys, 1);
		return false;
	}
	pg_cancel_exiting(g);
	/* This handler is never returned from: the announced call ends here, and so does a mask that libc has set by itself. */
	if (uc)
		pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &g->sigmask, NULL, 8);
	if (atomic_load_explicit(&g->insys, memory_order_relaxed) & 1)
		pg_exitsyscall(g);
	pg_thread_exit(g, PTHREAD_CANCELED);
}

/* An asynchronous cancellation that became possible acts at once. */
static void maybe_async(struct pg_g *g)
{
	if (g->cancel_type == PTHREAD_CANCEL_ASYNCHRONOUS)
		pg_testcancel();
}

PG_EXPORT int pthread_cancel(pthread_t t)
{
	struct pg_g *self, *g;

	/* A single thread may cancel itself: its calls are cancellation points only when the runtime runs. */
	if (pg_passthrough() || !pg_thread_ready())
		return PG_REAL(pthread_cancel)(t);
	self = pg_self();
	g = pg_pthread2g(t);
	if (g == NULL)
		return ESRCH;
	pg_unwind_link();
	if (g->exiting)
		return 0;
	atomic_store(&g->cancelled, 1);
	word_set(g, 0, LIBC_CANCELING | LIBC_CANCELED);
	if (g == self) {
		maybe_async(g);
		return 0;
	}
	atomic_fetch_or(&g->pending, PG_PEND_CANCEL); /* before the look at it which pg_interrupt provokes */
	pg_rt_enter(self);
	pg_interrupt(g);
	pg_rt_exit(self);
	return 0;
}

PG_EXPORT int pthread_setcancelstate(int state, int *old)
{
	struct pg_g *g;

	if (pg_passthrough())
		return PG_REAL(pthread_setcancelstate)(state, old);
	if (state != PTHREAD_CANCEL_ENABLE && state != PTHREAD_CANCEL_DISABLE)
		return EINVAL;
	g = pg_self();
	if (old)
		*old = (int)g->cancel_state;
	atomic_store_explicit(&g->cancel_state, (uint32_t)state, memory_order_relaxed);
	word_set(g, LIBC_DISABLED, (uint32_t)state);
	pg_barrier();
	maybe_async(g);
	return 0;
}

PG_EXPORT int pthread_setcanceltype(int type, int *old)
{
	struct pg_g *g;

	if (pg_passthrough())
		return PG_REAL(pthread_setcanceltype)(type, old);
	if (type != PTHREAD_CANCEL_DEFERRED && type != PTHREAD_CANCEL_ASYNCHRONOUS)
		return EINVAL;
	g = pg_self();
	if (old)
		*old = (int)g->cancel_type;
	pg_cancel_settype(g, (uint32_t)type);
	pg_barrier();
	maybe_async(g);
	return 0;
}

PG_EXPORT void pthread_testcancel(void)
{
	if (pg_passthrough())
		PG_REAL(pthread_testcancel)();
	else
		pg_testcancel();
}

PG_EXPORT void pthread_exit(void *result)
{
	struct pg_g *g = pg_passthrough() ? NULL : pg_self();

	if (g == NULL || !pg_is_ours(g)) {
		PG_REAL(pthread_exit)(result);
		__builtin_unreachable();
	}
	pg_thread_exit(g, result);
}

PG_EXPORT void __pthread_unwind_next(__pthread_unwind_buf_t *buf)
{
	struct pg_g *g = pg_passthrough() ? NULL : pg_self();

	if (g == NULL || !pg_is_ours(g)) {
		PG_REAL(__pthread_unwind_next)(buf);
		__builtin_unreachable();
	}
	if (!g->exiting)
		left_by_libc(g);
	unwind(g, buf->__pad[0]);
}

/* glibc's part keeps the chain; the type it saves is that of the TCB, so ours goes beside it. */
PG_EXPORT void __pthread_register_cancel_defer(__pthread_unwind_buf_t *buf)
{
	struct pg_g *g;

	PG_REAL(__pthread_register_cancel_defer)(buf);
	if (pg_passthrough())
		return;
	g = pg_self();
	buf->__pad[3] = (void *)(uintptr_t)g->cancel_type;
	atomic_store_explicit(&g->cancel_type, PTHREAD_CANCEL_DEFERRED, memory_order_relaxed);
}

PG_EXPORT void __pthread_unregister_cancel_restore(__pthread_unwind_buf_t *buf)
{
	struct pg_g *g;

	PG_REAL(__pthread_unregister_cancel_restore)(buf);
	if (pg_passthrough())
		return;
	g = pg_self();
	atomic_store_explicit(&g->cancel_type, (uint32_t)(uintptr_t)buf->__pad[3], memory_order_relaxed);
	pg_barrier();
	maybe_async(g);
}
