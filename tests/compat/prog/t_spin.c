/* SPDX-License-Identifier: MIT */
/* Four threads spin on a variable without a call; a fifth ends them after some work.  On few Ps this needs preemption. */
#include <pthread.h>
#include <stdio.h>
#include <time.h>

static volatile int flag;   /* the spinners only read it; volatile keeps the loop a loop */
static volatile int second; /* set by the first spinner that leaves */

static void *spin(void *arg)
{
	unsigned long n = 0;

	while (!flag)
		n++;
	second = 1;
	*(unsigned long *)arg = n;
	return NULL;
}

static void *finish(void *arg)
{
	unsigned x = 1;

	for (int i = 0; i < 20000000; i++)
		x = x * 1664525u + 1013904223u;
	*(unsigned *)arg = x;
	flag = 1;
	while (!second)
		;
	return NULL;
}

int main(void)
{
	for (int round = 0; round < 3; round++) {
		pthread_t s[4], f;
		unsigned long n[4];
		unsigned x;

		flag = second = 0;
		for (int i = 0; i < 4; i++)
			if (pthread_create(&s[i], NULL, spin, &n[i]))
				return 1;
		if (pthread_create(&f, NULL, finish, &x))
			return 1;
		for (int i = 0; i < 4; i++)
			pthread_join(s[i], NULL);
		pthread_join(f, NULL);
		printf("round %d: %u\n", round, x);
	}
	puts("ok");
	return 0;
}
