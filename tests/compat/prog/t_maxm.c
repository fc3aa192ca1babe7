/* SPDX-License-Identifier: MIT */
/*
 * As many OS threads as are truly blocked, and no more.  A hundred threads block in a call that the library knows (flock), another hundred
 * in an instruction of their own: each holds an OS thread.  When they have ended the OS threads become few again (the program waits for
 * that, for as long as it takes), and a second round makes no more of them than the first.
 */
#include <sys/file.h>

#include "gaps.h"

#define EACH 100
#define SLACK 24 /* Ms that are on their way, one for each P and more, and the watcher */

static int pipes[2], lock;
static char path[] = "/tmp/t_maxm.XXXXXX";
static atomic_int in;

static void *knows(void *arg)
{
	int fd = open(path, O_RDWR);

	atomic_fetch_add(&in, 1);
	if (fd < 0 || flock(fd, LOCK_SH) || close(fd))
		arg = NULL;
	return arg;
}

static void *by_itself(void *arg)
{
	char c;

	atomic_fetch_add(&in, 1);
	return raw(SYS_read, pipes[0], (long)&c, 1, 0) == 1 ? arg : NULL;
}

static int count(void)
{
	long waited;

	return os_threads(&waited);
}

/* Returns the most OS threads that were seen. */
static int one_round(int *failed)
{
	static char bytes[EACH];
	pthread_t t[2 * EACH];
	int most, n, same = 0;
	void *r;

	in = 0;
	if (flock(lock, LOCK_EX))
		exit(2);
	for (int i = 0; i < 2 * EACH; i++)
		if (pthread_create(&t[i], NULL, i % 2 ? knows : by_itself, &in)) {
			perror("pthread_create");
			exit(2);
		}
	/* All are inside when each has an OS thread; and then until it grows no more. */
	for (most = 0; same < 20; same++) {
		nap(5 * MS);
		n = count();
		if (n > most)
			most = n, same = 0;
		if (most < 2 * EACH)
			same = 0;
	}
	flock(lock, LOCK_UN);
	for (int done = 0; done < EACH; done += n)
		if ((n = (int)write(pipes[1], bytes, (size_t)(EACH - done))) < 0)
			exit(2);
	for (int i = 0; i < 2 * EACH; i++) {
		pthread_join(t[i], &r);
		if (r != &in)
			*failed = 1;
	}
	return most;
}

int main(int argc, char **argv)
{
	int start, most[2], failed = 0, few = 40;

	if (pipe(pipes) || (lock = mkstemp(path)) < 0)
		return 2;
	start = count();
	for (int i = 0; i < 2; i++) {
		most[i] = one_round(&failed);
		/* As few as the Ps need and a few spare ones. */
		while (i == 0 && count() > few)
			nap(100 * MS);
		if (argc > 1)
			printf("%d at first, %d at most, then %d\n", start, most[i], count());
	}
	unlink(path);
	if (most[0] > 2 * EACH + SLACK)
		printf("%s:%d: %d OS threads for %d that were blocked\n", __FILE__, __LINE__, most[0], 2 * EACH), failed = 1;
	if (most[1] > most[0] + SLACK)
		printf("%s:%d: %d OS threads in the second round, %d in the first\n", __FILE__, __LINE__, most[1], most[0]), failed = 1;
	puts(failed ? "failed" : "ok");
	return failed;
}
