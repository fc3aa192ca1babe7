/* SPDX-License-Identifier: MIT */
/*
 * OpenMP, whose library waits by system calls of its own: teams larger than the number of processors, barriers, critical sections, tasks,
 * two teams at once.
 */
#include <omp.h>
#include <pthread.h>
#include <stdio.h>

static long sums(int threads)
{
	long sum = 0;

#pragma omp parallel for num_threads(threads) reduction(+ : sum) schedule(dynamic, 100)
	for (int i = 1; i <= 100000; i++)
		sum += i;
	return sum;
}

static int barriers(int threads)
{
	int at[16] = { 0 }, bad = 0;

#pragma omp parallel num_threads(threads)
	{
		int me = omp_get_thread_num();

		for (int round = 1; round <= 3; round++) {
			at[me] = round;
#pragma omp barrier
			for (int i = 0; i < threads; i++)
				if (at[i] != round)
#pragma omp atomic write
					bad = 1;
#pragma omp barrier
		}
	}
	return !bad;
}

static long fib(int n)
{
	long a, b;

	if (n < 2)
		return n;
#pragma omp task shared(a) if (n > 12)
	a = fib(n - 1);
	b = fib(n - 2);
#pragma omp taskwait
	return a + b;
}

static void *team(void *arg)
{
	long n = 0;

#pragma omp parallel num_threads(4)
	for (int i = 0; i < 1000; i++)
#pragma omp critical
		n++;
	*(long *)arg = n;
	return NULL;
}

int main(void)
{
	pthread_t t[2];
	long n[2], f = 0;

	printf("sum by 4: %ld, by 16: %ld\n", sums(4), sums(16));
	printf("barriers of 4: %s\n", barriers(4) ? "ok" : "FAILED");
#pragma omp parallel num_threads(4)
#pragma omp single
	f = fib(20);
	printf("tasks: %ld\n", f);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, team, &n[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	printf("two teams: %ld %ld\n", n[0], n[1]);
	return 0;
}
