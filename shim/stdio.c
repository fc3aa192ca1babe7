/* SPDX-License-Identifier: MIT */
/*
 * The variadic calls of stdio and syslog: announced through their va_list forms.  The others are rows of
 * the list.
 *
 * A stream's lock lives in libc; a G that waits for it holds its OS thread, and the watcher takes the P
 * away.  getc and putc and their kin are left alone: they touch the kernel once in thousands of calls.
 */
#include "shim/io.h"

#define VARIADIC(last, call)											\
	struct pg_g *g = pg_self_;										\
	va_list ap;												\
	int r;													\
	va_start(ap, last);											\
	if (g != NULL)												\
		pg_entersyscall(g);										\
	r = call;												\
	if (g != NULL)												\
		pg_exitsyscall(g);										\
	va_end(ap);												\
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

#define VARIADIC_VOID(last, call)										\
	struct pg_g *g = pg_self_;										\
	va_list ap;												\
	va_start(ap, last);											\
	if (g != NULL)												\
		pg_entersyscall(g);										\
	call;													\
	if (g != NULL)												\
		pg_exitsyscall(g);										\
	va_end(ap)

PG_EXPORT void syslog(int pri, const char *fmt, ...)
{
	VARIADIC_VOID(fmt, PG_REAL(vsyslog)(pri, fmt, ap));
}

PG_EXPORT void __syslog_chk(int pri, int flag, const char *fmt, ...)
{
	VARIADIC_VOID(fmt, PG_REAL(__vsyslog_chk)(pri, flag, fmt, ap));
}
