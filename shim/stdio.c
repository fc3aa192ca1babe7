/* SPDX-License-Identifier: MIT */
/*
 * The calls of stdio that are more than a row of the list: the variadic ones, announced through their va_list forms, and
 * the ones for a single character, announced only when they may block.
 *
 * A stream's lock lives in libc; a G that waits for it holds its OS thread.  getc and its kin touch the kernel once in
 * thousands of calls, so the two things that make them block are looked at first: an empty buffer (its pointers are part of libc's
 * ABI, since old headers had macros that used them) and a lock that somebody has (its first word is 0 while it is free).  The look
 * takes no lock, and a wrong answer costs an announcement too many or one too few, which the watcher makes good.
 */
#include "shim/io.h"

#define VARIADIC_VOID(last, call)										\
	struct pg_g *g = pg_self_;										\
	va_list ap;												\
	va_start(ap, last);											\
	if (g != NULL)												\
		PG_ENTER(g, pg_entersyscall);									\
	call;													\
	if (g != NULL)												\
		pg_exitsyscall(g);										\
	va_end(ap)

#define VARIADIC(last, call)											\
	int r;													\
	VARIADIC_VOID(last, r = call);										\
	return r

PG_EXPORT int printf(const char *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vprintf)(fmt, ap));
}

PG_EXPORT int fprintf(FILE *restrict f, const char *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vfprintf)(f, fmt, ap));
}

PG_EXPORT int dprintf(int fd, const char *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vdprintf)(fd, fmt, ap));
}

PG_EXPORT int __printf_chk(int flag, const char *fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__vprintf_chk)(flag, fmt, ap));
}

PG_EXPORT int __fprintf_chk(FILE *f, int flag, const char *fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__vfprintf_chk)(f, flag, fmt, ap));
}

PG_EXPORT int __dprintf_chk(int fd, int flag, const char *fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__vdprintf_chk)(fd, flag, fmt, ap));
}

/*
 * In this C dialect the headers rename the scanf family to its C99 form; the old names are reached by
 * theirs.
 */
PG_EXPORT int pg_old_scanf(const char *restrict fmt, ...) __asm__("scanf");
PG_EXPORT int pg_old_fscanf(FILE *restrict f, const char *restrict fmt, ...) __asm__("fscanf");
PG_EXPORT int pg_old_vscanf(const char *restrict fmt, va_list ap) __asm__("vscanf");
PG_EXPORT int pg_old_vfscanf(FILE *restrict f, const char *restrict fmt, va_list ap) __asm__("vfscanf");

PG_EXPORT int pg_old_scanf(const char *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vscanf)(fmt, ap));
}

PG_EXPORT int pg_old_fscanf(FILE *restrict f, const char *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vfscanf)(f, fmt, ap));
}

PG_EXPORT int pg_old_vscanf(const char *restrict fmt, va_list ap)
{
	return PG_ANN(pg_self_, false, PG_REAL(vscanf)(fmt, ap));
}

PG_EXPORT int pg_old_vfscanf(FILE *restrict f, const char *restrict fmt, va_list ap)
{
	return PG_ANN(pg_self_, false, PG_REAL(vfscanf)(f, fmt, ap));
}

PG_EXPORT int __isoc99_scanf(const char *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__isoc99_vscanf)(fmt, ap));
}

PG_EXPORT int __isoc99_fscanf(FILE *restrict f, const char *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__isoc99_vfscanf)(f, fmt, ap));
}

PG_EXPORT void syslog(int pri, const char *fmt, ...)
{
	VARIADIC_VOID(fmt, PG_REAL(vsyslog)(pri, fmt, ap));
}

PG_EXPORT void __syslog_chk(int pri, int flag, const char *fmt, ...)
{
	VARIADIC_VOID(fmt, PG_REAL(__vsyslog_chk)(pri, flag, fmt, ap));
}

/* ---- wide characters ---- */

PG_EXPORT int wprintf(const wchar_t *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vwprintf)(fmt, ap));
}

PG_EXPORT int fwprintf(FILE *restrict f, const wchar_t *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vfwprintf)(f, fmt, ap));
}

PG_EXPORT int __wprintf_chk(int flag, const wchar_t *fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__vwprintf_chk)(flag, fmt, ap));
}

PG_EXPORT int __fwprintf_chk(FILE *f, int flag, const wchar_t *fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__vfwprintf_chk)(f, flag, fmt, ap));
}

PG_EXPORT int pg_old_wscanf(const wchar_t *restrict fmt, ...) __asm__("wscanf");
PG_EXPORT int pg_old_fwscanf(FILE *restrict f, const wchar_t *restrict fmt, ...) __asm__("fwscanf");
PG_EXPORT int pg_old_vwscanf(const wchar_t *restrict fmt, va_list ap) __asm__("vwscanf");
PG_EXPORT int pg_old_vfwscanf(FILE *restrict f, const wchar_t *restrict fmt, va_list ap) __asm__("vfwscanf");

PG_EXPORT int pg_old_wscanf(const wchar_t *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vwscanf)(fmt, ap));
}

PG_EXPORT int pg_old_fwscanf(FILE *restrict f, const wchar_t *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(vfwscanf)(f, fmt, ap));
}

PG_EXPORT int pg_old_vwscanf(const wchar_t *restrict fmt, va_list ap)
{
	return PG_ANN(pg_self_, false, PG_REAL(vwscanf)(fmt, ap));
}

PG_EXPORT int pg_old_vfwscanf(FILE *restrict f, const wchar_t *restrict fmt, va_list ap)
{
	return PG_ANN(pg_self_, false, PG_REAL(vfwscanf)(f, fmt, ap));
}

PG_EXPORT int __isoc99_wscanf(const wchar_t *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__isoc99_vwscanf)(fmt, ap));
}

PG_EXPORT int __isoc99_fwscanf(FILE *restrict f, const wchar_t *restrict fmt, ...)
{
	VARIADIC(fmt, PG_REAL(__isoc99_vfwscanf)(f, fmt, ap));
}

/* ---- warnings on stderr ---- */

PG_EXPORT void warn(const char *fmt, ...)
{
	VARIADIC_VOID(fmt, PG_REAL(vwarn)(fmt, ap));
}

PG_EXPORT void warnx(const char *fmt, ...)
{
	VARIADIC_VOID(fmt, PG_REAL(vwarnx)(fmt, ap));
}

/* ---- single characters ---- */

static inline bool lock_free(FILE *f)
{
	return f->_lock == NULL || __atomic_load_n((int *)f->_lock, __ATOMIC_RELAXED) == 0;
}

static inline bool has_char(FILE *f) { return f->_IO_read_ptr < f->_IO_read_end; }
static inline bool has_room(FILE *f) { return f->_IO_write_ptr < f->_IO_write_end; }

/*
 * Blocks: as the descriptor does, for the stream's lock.  A negative result is no EINTR of ours made again: stdio has noted the
 * error in the stream by then.
 */
#define ONE_CHAR(quiet, ret, name, params, args)								\
	static __attribute__((noinline)) ret name##_slowly params						\
	{													\
		return PG_ANN(pg_self_, false, PG_REAL(name) args);						\
	}													\
	PG_EXPORT ret name params										\
	{													\
		return pg_likely(quiet) ? PG_REAL(name) args : name##_slowly args;				\
	}

ONE_CHAR(has_char(f) && lock_free(f), int, getc, (FILE *f), (f))
ONE_CHAR(has_char(f) && lock_free(f), int, fgetc, (FILE *f), (f))
ONE_CHAR(has_char(f) && lock_free(f), int, _IO_getc, (FILE *f), (f))
ONE_CHAR(has_char(stdin) && lock_free(stdin), int, getchar, (void), ())
ONE_CHAR(has_char(f), int, getc_unlocked, (FILE *f), (f))
ONE_CHAR(has_char(f), int, fgetc_unlocked, (FILE *f), (f))
ONE_CHAR(has_char(stdin), int, getchar_unlocked, (void), ())
ONE_CHAR(has_room(f) && lock_free(f), int, putc, (int c, FILE *f), (c, f))
ONE_CHAR(has_room(f) && lock_free(f), int, fputc, (int c, FILE *f), (c, f))
ONE_CHAR(has_room(f) && lock_free(f), int, _IO_putc, (int c, FILE *f), (c, f))
ONE_CHAR(has_room(stdout) && lock_free(stdout), int, putchar, (int c), (c))
ONE_CHAR(has_room(f), int, putc_unlocked, (int c, FILE *f), (c, f))
ONE_CHAR(has_room(f), int, fputc_unlocked, (int c, FILE *f), (c, f))
ONE_CHAR(has_room(stdout), int, putchar_unlocked, (int c), (c))
ONE_CHAR(lock_free(f), int, feof, (FILE *f), (f))
ONE_CHAR(lock_free(f), int, ferror, (FILE *f), (f))

PG_EXPORT void clearerr(FILE *f)
{
	struct pg_g *g = pg_self_;

	if (g == NULL || lock_free(f)) {
		PG_REAL(clearerr)(f);
		return;
	}
	pg_entersyscall(g);
	PG_REAL(clearerr)(f);
	pg_exitsyscall(g);
}
