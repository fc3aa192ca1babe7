/* SPDX-License-Identifier: MIT */
/*
 * For programs that ask how long a blocked thread keeps the others waiting.  Two threads sleep for a millisecond again and again, and
 * note by how much they were late; meanwhile something blocks.  A busy machine delays anybody: what the kernel kept the process's
 * OS threads waiting for a CPU (schedstat) is taken off, and most rounds must be good, of 21 at most.  A scheduler that waits does so each time.
 */
#ifndef GAPS_H
#define GAPS_H

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 21
#define MS 1000000L
#define LIMIT_NS (20 * MS)

/* A system call that no function of libc makes. */
static long raw(long n, long a, long b, long c, long d)
{
#if defined(__x86_64__)
	long ret;
	register long r10 __asm__("r10") = d;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
#else
#error "how does this machine make a system call?"
#endif
}

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static inline void nap(long ns)
{
	nanosleep(&(struct timespec){ ns / 1000000000, ns % 1000000000 }, NULL);
}

/* The OS threads of the process, and how long they have waited for a CPU, all together.  As the kernel sees it. */
static int os_threads(long *waited)
{
	struct { unsigned long ino; long off; unsigned short len; unsigned char type; char name[]; } *e;
	int dir = (int)raw(SYS_openat, AT_FDCWD, (long)"/proc/self/task", O_RDONLY | O_DIRECTORY, 0), n = 0;
	char ents[4096] __attribute__((aligned(8))), path[64], text[128];
	long got;

	*waited = 0;
	while ((got = raw(SYS_getdents64, dir, (long)ents, sizeof ents, 0)) > 0)
		for (long i = 0; i < got; i += e->len) {
			long ran = 0, wait = 0, r;
			int fd;

			e = (void *)(ents + i);
			if (e->name[0] == '.')
				continue;
			n++;
			snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", e->name);
			fd = (int)raw(SYS_openat, AT_FDCWD, (long)path, O_RDONLY, 0);
			if (fd < 0)
				continue;
			r = raw(SYS_read, fd, (long)text, sizeof text - 1, 0);
			raw(SYS_close, fd, 0, 0, 0);
			if (r > 0) {
				text[r] = '\0';
				if (sscanf(text, "%ld %ld", &ran, &wait) == 2)
					*waited += wait;
			}
		}
	raw(SYS_close, dir, 0, 0, 0);
	return n;
}

static atomic_int gaps_stop;

static inline void *sleeper(void *arg)
{
	long *worst = arg, last = now(), t;

	while (!atomic_load_explicit(&gaps_stop, memory_order_relaxed)) {
		nap(MS);
		t = now();
		if (t - last - MS > *worst)
			*worst = t - last - MS;
		last = t;
	}
	return NULL;
}

struct gap { long all, ours; }; /* the longest delay; less what the kernel may have caused of it */

static inline struct gap gap_round(void (*block)(void))
{
	long worst[2] = { 0, 0 }, before, after;
	pthread_t t[2];
	struct gap g;

	atomic_store(&gaps_stop, 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, sleeper, &worst[i]);
	nap(5 * MS);
	os_threads(&before);
	block();
	atomic_store(&gaps_stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	os_threads(&after);
	g.all = worst[0] > worst[1] ? worst[0] : worst[1];
	g.ours = after > before ? g.all - (after - before) : g.all;
	if (g.ours < 0)
		g.ours = 0;
	return g;
}

static inline int by_size(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

/* Prints how it is distributed when asked for n rounds; else true: more rounds were good than bad, after three or more. */
static inline int gaps(const char *what, void (*block)(void), int n)
{
	long best = 0, all[1000], ours[1000];
	int good = 0;

	if (n > 1000)
		n = 1000;
	for (int i = 0; i < (n ? n : ROUNDS); i++) {
		struct gap g = gap_round(block);

		all[i] = g.all;
		ours[i] = g.ours;
		if (i == 0 || g.ours < best)
			best = g.ours;
		good += g.ours < LIMIT_NS;
		if (!n && i >= 2 && good > i + 1 - good)
			return 1;
	}
	if (n) {
		qsort(all, (size_t)n, sizeof *all, by_size);
		qsort(ours, (size_t)n, sizeof *ours, by_size);
		printf("%-28s late by us: median %6ld, 90%% %6ld, most %6ld; less the kernel's part: %6ld %6ld %6ld\n", what, all[n / 2] / 1000,
		       all[n * 9 / 10] / 1000, all[n - 1] / 1000, ours[n / 2] / 1000, ours[n * 9 / 10] / 1000, ours[n - 1] / 1000);
		fflush(stdout);
		return 1;
	}
	printf("%s: the others waited for %ld us at least, and too long in %d of %d rounds\n", what, best / 1000, ROUNDS - good, ROUNDS);
	return 0;
}

#endif
