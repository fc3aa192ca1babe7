/* SPDX-License-Identifier: MIT */
/* What the load clients share: the clock, latencies, and the server seen from outside. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NS = 1000000000 };

_Noreturn static void die(const char *what, int err)
{
	fprintf(stderr, "%s: %s%s%s\n", program_invocation_short_name, what, err ? ": " : "", err ? strerror(err) : "");
	exit(1);
}

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * NS + ts.tv_nsec;
}

/* -- latencies: a histogram with 32 steps in each power of two ------------------------------------------- */

enum { STEPS = 32, BUCKETS = 60 * STEPS };
static uint64_t histogram[BUCKETS];
static uint64_t measured;

static unsigned bucket(uint64_t ns)
{
	unsigned top;

	if (ns < STEPS)
		return (unsigned)ns;
	top = 63 - (unsigned)__builtin_clzll(ns);
	return (top - 4) * STEPS + (unsigned)(ns >> (top - 5) & (STEPS - 1));
}

/* The middle of a bucket. */
static double bucket_ns(unsigned b)
{
	if (b < STEPS)
		return b;
	return ((b % STEPS) + STEPS + 0.5) * (double)(1ull << (b / STEPS - 1));
}

static void answered_in(int64_t ns)
{
	histogram[bucket((uint64_t)ns)]++;
	measured++;
}

static double percentile(double share)
{
	uint64_t want = (uint64_t)(share * (double)measured), sum = 0;

	for (unsigned b = 0; b < BUCKETS; b++)
		if ((sum += histogram[b]) > want)
			return bucket_ns(b);
	return 0;
}

/* -- the server, seen from outside: one process or several ------------------------------------------------- */

enum { PIDS = 64 };
static pid_t pids[PIDS];
static int npids;

/* Numbers with commas between. */
static void servers(char *list)
{
	for (char *s = strtok(list, ","); s && npids < PIDS; s = strtok(NULL, ","))
		pids[npids++] = (pid_t)atoi(s);
}

/* In µs.  Of several, those that have ended count no more; of one that is a failure. */
static double server_cpu(void)
{
	double sum = 0;

	for (int i = 0; i < npids; i++) {
		struct timespec ts;
		clockid_t clock;

		if (!clock_getcpuclockid(pids[i], &clock) && !clock_gettime(clock, &ts))
			sum += (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
		else if (npids == 1)
			die("the server is gone", 0);
	}
	return sum;
}

static long server_status(const char *name)
{
	long sum = 0;

	for (int i = 0; i < npids; i++) {
		char path[64], line[256];
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/status", (int)pids[i]);
		f = fopen(path, "r");
		while (f && fgets(line, sizeof(line), f))
			if (!strncmp(line, name, strlen(name)))
				sum += atol(line + strlen(name));
		if (f)
			fclose(f);
	}
	return sum;
}
