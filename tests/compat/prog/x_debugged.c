// SPDX-License-Identifier: MIT
/* For gdb: three threads wait at a barrier, one more meets a breakpoint. Built by tools.py with -g. */
#include <pthread.h>
#include <stdio.h>

struct who {
	int number;
	const char *name;
};

static pthread_barrier_t barrier;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int sum;

__attribute__((noinline)) static void meet(struct who *who)
{
	pthread_mutex_lock(&lock);
	sum += who->number;
	pthread_mutex_unlock(&lock);
}

__attribute__((noinline)) static void last(int count)
{
	printf("sum %d of %d\n", sum, count);
	fflush(stdout);
}

static void *worker(void *arg)
{
	struct who *who = arg;

	if (who->number == 4)
		meet(who);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return NULL;
}

int main(void)
{
	static struct who all[4] = { { 1, "one" }, { 2, "two" }, { 3, "three" }, { 4, "four" } };
	pthread_t t[4];

	pthread_barrier_init(&barrier, NULL, 5);
	for (int i = 0; i < 4; i++)
		if (pthread_create(&t[i], NULL, worker, &all[i]))
			return 1;
	pthread_barrier_wait(&barrier);
	last(4);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	return 0;
}
