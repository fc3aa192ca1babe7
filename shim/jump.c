/* SPDX-License-Identifier: MIT */
/*
 * longjmp in its four names, setcontext, swapcontext and abort: the calls by which libc changes a mask or an action behind core's
 * back.
 */
#include "arch.h"
#include "core/signal.h"
#include "shim/objects.h"
#include "shim/process.h"
#include "shim/shim.h"
#include "shim/sigset.h"

void __longjmp_chk(struct __jmp_buf_tag env[1], int val) __attribute__((noreturn)); /* no header declares it */

/*
 * libc's abort unblocks SIGABRT in the kernel and raises it there, then takes our handler away and raises it again.
 * The first time must find a G whose own mask agrees, or the program's handler would be put off instead of run.
 */
PG_EXPORT void abort(void)
{
	uint64_t set = pg_sigbit(SIGABRT);

	if (!pg_sig_direct())
		pg_sigprocmask(SIG_UNBLOCK, &set, NULL);
	PG_REAL(abort)();
	__builtin_unreachable();
}

/*
 * What libc shall jump to.  A mask kept in env is restored here, through core, and libc gets a copy that has none: it
 * would tell only the kernel, and on an M that may by then run with another G's mask.
 */
static inline struct __jmp_buf_tag *prepare_jump(struct __jmp_buf_tag *env, struct __jmp_buf_tag *copy)
{
	struct pg_g *g = pg_self_;
	uint64_t mask;

	if (pg_sig_direct())
		return env;
	if (g != NULL && pg_unlikely(g->condwait != NULL))
		pg_cond_forsake(g, (uintptr_t)__builtin_frame_address(0),
				pg_arch_demangle((uintptr_t)env->__jmpbuf[PG_JMPBUF_SP]), false);
	if (g != NULL && pg_unlikely(g->libc_handlers != 0))
		pg_libc_handlers_left(g, pg_arch_demangle((uintptr_t)env->__jmpbuf[PG_JMPBUF_SP]));
	if (!env->__mask_was_saved)
		return env;
	mask = pg_set_get(&env->__saved_mask) & ~PG_SIGS_UNBLOCKABLE;
	pg_sigprocmask(SIG_SETMASK, &mask, NULL);
	*copy = *env;
	copy->__mask_was_saved = 0;
	return copy;
}

#define JUMP(name)                                                                                                     \
	PG_EXPORT void name(struct __jmp_buf_tag env[1], int val)                                                      \
	{                                                                                                              \
		struct __jmp_buf_tag copy;                                                                             \
		PG_REAL(name)(prepare_jump(env, &copy), val);                                                          \
		__builtin_unreachable();                                                                               \
	}

JUMP(longjmp)
JUMP(_longjmp)
JUMP(siglongjmp)
JUMP(__longjmp_chk) /* libc's check, which allows going up only from the alternate stack, is libc's still */

/*
 * Contexts: libc sets the mask that a context was saved with in the kernel alone.  One that is the caller's own mask needs nothing;
 * another goes through core first, and then the kernel's is the same.  Of native Gs the kernel's is all there is.
 */
PG_EXPORT int setcontext(const ucontext_t *to)
{
	uint64_t mask;

	if (pg_is_green()) {
		mask = pg_set_get(&to->uc_sigmask) & ~PG_SIGS_UNBLOCKABLE;
		pg_sigprocmask(SIG_SETMASK, &mask, NULL);
	}
	return PG_REAL(setcontext)(to);
}

/*
 * With two masks the switch is made of its halves, since libc's would save the mask that is set for the context to come.  What is
 * saved leads back into this frame, which lives for as long.
 */
PG_EXPORT int swapcontext(ucontext_t *restrict from, const ucontext_t *restrict to)
{
	volatile bool back = false;
	uint64_t own;

	if (!pg_is_green() || pg_sigprocmask(SIG_BLOCK, NULL, &own) != 0 ||
	    own == (pg_set_get(&to->uc_sigmask) & ~PG_SIGS_UNBLOCKABLE))
		return PG_REAL(swapcontext)(from, to);
	if (getcontext(from) != 0)
		return -1;
	if (back)
		return 0;
	back = true;
	pg_set_put(&from->uc_sigmask, own);
	return setcontext(to);
}
