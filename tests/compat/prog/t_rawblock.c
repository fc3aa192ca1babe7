/* SPDX-License-Identifier: MIT */
/*
 * Threads block in a system call that no library function made (an instruction of its own); the others must not be delayed beyond
 * 20 ms.  First a futex wait, then a read of an empty pipe, then four blockers at once.  A number as argument: so many rounds of each,
 * and how late the others were.
 */
#include <linux/futex.h>

#include "gaps.h"

static int pipes[2];

static void *futex_blocker(void *arg)
{
	int word = 0;
	struct timespec t = { 0, 60 * MS };

	(void)arg;
	raw(SYS_futex, (long)&word, FUTEX_WAIT_PRIVATE, 0, (long)&t);
	return NULL;
}

static void *pipe_blocker(void *arg)
{
	char c;

	(void)arg;
	raw(SYS_read, pipes[0], (long)&c, 1, 0);
	return NULL;
}

static void block(void *(*blocker)(void *), int n)
{
	pthread_t b[4];

	for (int i = 0; i < n; i++)
		pthread_create(&b[i], NULL, blocker, NULL);
	nap(70 * MS);
	if (blocker == pipe_blocker && write(pipes[1], "xxxx", (size_t)n) != n)
		exit(2);
	for (int i = 0; i < n; i++)
		pthread_join(b[i], NULL);
}

static void futex1(void) { block(futex_blocker, 1); }
static void futex4(void) { block(futex_blocker, 4); }
static void pipe1(void) { block(pipe_blocker, 1); }
static void pipe4(void) { block(pipe_blocker, 4); }

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 0, ok = 1;

	if (pipe(pipes))
		return 2;
	ok &= gaps("futex", futex1, n);
	ok &= gaps("pipe", pipe1, n);
	ok &= gaps("four in futex", futex4, n);
	ok &= gaps("four in pipe", pipe4, n);
	puts(ok ? "ok" : "failed");
	return !ok;
}
