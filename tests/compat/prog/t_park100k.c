/* SPDX-License-Identifier: MIT */
/* 100,000 threads with default attributes, half blocked on a condition, half on a semaphore; then all are joined. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N 100000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t go = PTHREAD_COND_INITIALIZER;
static sem_t sem;
static int open_now;
static int arrived;
static int left;

static void *wait_cond(void *arg)
{
	pthread_mutex_lock(&lock);
	arrived++;
	while (!open_now)
		pthread_cond_wait(&go, &lock);
	left++;
	pthread_mutex_unlock(&lock);
	return arg;
}

static void *wait_sem(void *arg)
{
	pthread_mutex_lock(&lock);
	arrived++;
	pthread_mutex_unlock(&lock);
	while (sem_wait(&sem))
		;
	pthread_mutex_lock(&lock);
	left++;
	pthread_mutex_unlock(&lock);
	return arg;
}

static void memory(void)
{
	char line[128];
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "VmRSS", 5) || !strncmp(line, "VmPTE", 5) || !strncmp(line, "Threads", 7))
			fputs(line, stderr);
	if (f)
		fclose(f);
}

int main(void)
{
	static pthread_t t[N];
	int made, err = 0;
	long bad = 0;

	sem_init(&sem, 0, 0);
	for (made = 0; made < N; made++) {
		err = pthread_create(&t[made], NULL, made % 2 ? wait_sem : wait_cond, (void *)(long)made);
		if (err)
			break;
	}
	for (;;) {
		pthread_mutex_lock(&lock);
		int now = arrived;
		pthread_mutex_unlock(&lock);
		if (now == made)
			break;
		nanosleep(&(struct timespec){0, 2000000}, NULL);
	}
	memory();
	printf("%d parked\n", made);
	if (err)
		printf("then: %s\n", strerror(err));
	pthread_mutex_lock(&lock);
	open_now = 1;
	pthread_cond_broadcast(&go);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < made; i++)
		if (i % 2)
			sem_post(&sem);
	for (int i = 0; i < made; i++) {
		void *ret;

		bad += pthread_join(t[i], &ret) != 0 || ret != (void *)(long)i;
	}
	printf("%d joined\n", left);
	if (bad)
		printf("%ld joined wrongly\n", bad);
	puts(bad || err ? "failed" : "ok");
	return bad || err ? 1 : 0;
}
