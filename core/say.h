/* SPDX-License-Identifier: MIT */
/* The library's three voices.  All async-signal-safe: no allocation, one write to stderr, prefixed "pgreen: ". */
#ifndef PG_SAY_H
#define PG_SAY_H

/* printf's %s %d %u %x %p %l only. */
void pg_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A bug of ours: says it and aborts. */
void pg_throw(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Cannot work here: one sentence with the remedy, exit status 125. */
void pg_refuse(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
