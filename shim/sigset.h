/* SPDX-License-Identifier: MIT */
/*
 * Sets and numbers of signals as the program's calls carry them.  Like the kernel, only the first word of a sigset_t is
 * read and written.  Signals 32 and 33 do not exist for a program: sigaction refuses them, sets drop them, as in glibc.
 */
#ifndef PG_SHIM_SIGSET_H
#define PG_SHIM_SIGSET_H

#include <signal.h>

#include "core/knobs.h"
#include "core/signal.h"
#include "shim/process.h"

#define PG_SIGS_HIDDEN (3ull << 31)
#define PG_SIGS_UNBLOCKABLE (pg_sigbit(SIGKILL) | pg_sigbit(SIGSTOP))

static inline uint64_t pg_set_get(const sigset_t *set) { return set->__val[0] & ~PG_SIGS_HIDDEN; }
static inline void pg_set_put(sigset_t *set, uint64_t mask) { set->__val[0] = mask & ~PG_SIGS_HIDDEN; }

static inline bool pg_sig_hidden(int sig) { return sig == 32 || sig == 33; }
static inline bool pg_sig_valid(int sig) { return sig > 0 && sig < NSIG && !pg_sig_hidden(sig); }

/* Is the kernel's state all there is: nothing of ours, or another process in our memory? */
static inline bool pg_sig_direct(void) { return pg_in_vfork() || pg_unlikely(pg_knobs.off); }

#endif
