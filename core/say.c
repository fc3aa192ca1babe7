/* SPDX-License-Identifier: MIT */
/*
 * The library's three voices.  A message is put together on the stack of the caller and leaves in one write,
 * so that lines of several threads do not mix; nothing of libc is called, so that they work in signal
 * handlers, before the constructor, and on a G whose TLS is broken.  What does not fit PG_SAY_MAX is cut off.
 *
 * Needs from below: raw system calls.  Rejected: vsnprintf, which may call malloc and reads the locale
 * through the TLS.
 */
#include "core/say.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "arch.h"

#define PG_SAY_MAX 512

struct line {
	char buf[PG_SAY_MAX];
	size_t len;
};

/* One place is kept free for the newline. */
static void put(struct line *l, char c)
{
	if (l->len < PG_SAY_MAX - 1)
		l->buf[l->len++] = c;
}

static void put_string(struct line *l, const char *s)
{
	for (s = s ? s : "(null)"; *s; s++)
		put(l, *s);
}

static void put_number(struct line *l, uint64_t v, unsigned base)
{
	char digits[20];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n)
		put(l, digits[--n]);
}

static void format(struct line *l, const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(l, *fmt);
			continue;
		}
		/* l, ll and z all mean eight bytes here. */
		bool wide = false;
		for (fmt++; *fmt == 'l' || *fmt == 'z'; fmt++)
			wide = true;
		switch (*fmt) {
		case 's':
			put_string(l, va_arg(ap, const char *));
			break;
		case 'd': {
			int64_t v = wide ? va_arg(ap, int64_t) : va_arg(ap, int);
			if (v < 0)
				put(l, '-');
			put_number(l, v < 0 ? -(uint64_t)v : (uint64_t)v, 10);
			break;
		}
		case 'u':
			put_number(l, wide ? va_arg(ap, uint64_t) : va_arg(ap, unsigned), 10);
			break;
		case 'x':
			put_number(l, wide ? va_arg(ap, uint64_t) : va_arg(ap, unsigned), 16);
			break;
		case 'p':
			put_string(l, "0x");
			put_number(l, (uintptr_t)va_arg(ap, void *), 16);
			break;
		case '\0':
			return;
		default:
			put(l, *fmt);
		}
	}
}

/* A newline is added unless the text brought one; an interrupted write is made again, any other failure has
 * no remedy. */
static void vsay(const char *fmt, va_list ap)
{
	struct line l;

	l.len = 0;
	put_string(&l, "pgreen: ");
	format(&l, fmt, ap);
	if (l.buf[l.len - 1] != '\n')
		l.buf[l.len++] = '\n';
	while (pg_sys(SYS_write, 2, l.buf, l.len) == -EINTR)
		;
}

void pg_say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(fmt, ap);
	va_end(ap);
}

/*
 * Ends the process by SIGABRT whatever the program made of that signal: the kernel's default action,
 * unblocked, sent to the thread that found the bug so that the core file shows it first.
 */
static _Noreturn void die_by_abort(void)
{
	struct {
		uintptr_t handler;
		unsigned long flags;
		uintptr_t restorer;
		uint64_t mask;
	} dfl = {0, 0, 0, 0};
	uint64_t set = 1ull << (SIGABRT - 1);

	pg_sys(SYS_rt_sigaction, SIGABRT, &dfl, 0, sizeof(dfl.mask));
	pg_sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &set, 0, sizeof(set));
	pg_sys(SYS_tgkill, pg_sys(SYS_getpid), pg_sys(SYS_gettid), SIGABRT);
	for (;;)
		pg_sys(SYS_exit_group, 128 + SIGABRT);
}

void pg_throw(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(fmt, ap);
	va_end(ap);
	die_by_abort();
}

void pg_refuse(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(fmt, ap);
	va_end(ap);
	for (;;)
		pg_sys(SYS_exit_group, 125);
}
