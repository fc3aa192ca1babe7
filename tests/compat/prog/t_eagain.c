/* SPDX-License-Identifier: MIT */
/* pthread_create says EAGAIN when address space is short or the stack absurd; the program goes on, and it works later. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define MOST 4000

static sem_t gate;

static void *parked(void *arg)
{
	while (sem_wait(&gate))
		;
	return arg;
}

static void *quick(void *arg)
{
	return (char *)arg + 1;
}

static unsigned long vm_size(void)
{
	unsigned long kb = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "VmSize: %lu", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb * 1024;
}

static const char *works(void)
{
	pthread_t t;
	void *ret;
	int err = pthread_create(&t, NULL, quick, (void *)1);

	if (err)
		return strerror(err);
	return pthread_join(t, &ret) == 0 && ret == (void *)2 ? "works" : "joined wrongly";
}

int main(void)
{
	static pthread_t t[MOST];
	pthread_attr_t big;
	struct rlimit old, tight;
	int made = 0, err = 0, bad = 0;

	sem_init(&gate, 0, 0);
	printf("before: %s\n", works());

	pthread_attr_init(&big);
	printf("absurd stack, set: %d\n", pthread_attr_setstacksize(&big, 1UL << 47));
	printf("absurd stack, create: %s\n", strerror(pthread_create(&t[0], &big, quick, NULL)));
	printf("after it: %s\n", works());

	getrlimit(RLIMIT_AS, &old);
	tight = old;
	tight.rlim_cur = vm_size() + (256UL << 20);
	if (setrlimit(RLIMIT_AS, &tight))
		return 2;
	pthread_attr_init(&big);
	pthread_attr_setstacksize(&big, 16UL << 20);
	for (made = 0; made < MOST; made++) {
		err = pthread_create(&t[made], &big, parked, (void *)(long)made);
		if (err)
			break;
	}
	fprintf(stderr, "%d threads fitted\n", made);
	printf("little address space: %s\n", err ? strerror(err) : "no error");
	for (int i = 0; i < 50; i++)
		if (pthread_create(&t[made], &big, parked, NULL) == 0)
			made++;
	printf("again: %s\n", made < MOST - 50 ? "refused" : "no error");
	for (int i = 0; i < made; i++)
		sem_post(&gate);
	for (int i = 0; i < made; i++)
		bad += pthread_join(t[i], NULL) != 0;
	printf("joined: %s\n", bad ? "wrongly" : "all");
	setrlimit(RLIMIT_AS, &old);
	printf("after it: %s\n", works());
	for (made = 0; made < 200 && !pthread_create(&t[made], &big, parked, NULL); made++)
		;
	printf("with room again: %d\n", made);
	for (int i = 0; i < made; i++)
		sem_post(&gate);
	for (int i = 0; i < made; i++)
		pthread_join(t[i], NULL);
	puts("ok");
	return 0;
}
