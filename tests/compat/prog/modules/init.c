/* SPDX-License-Identifier: MIT */
/* For t_dlopen: a module whose constructor makes threads, and has living ones use its variables before dlopen returns. */
#include <pthread.h>
#include <stdatomic.h>

static __thread int set = 815;
static pthread_t kept[3];
static atomic_int bad, go;

/* The program's: has each living thread call fn. */
extern void host_call_in_threads(int (*fn)(int));

static int initial_then(int v)
{
	int was = set;

	set = v;
	return was == 815;
}

static void *brief(void *arg)
{
	if (!initial_then(1))
		bad++;
	return arg;
}

static void *lasting(void *arg)
{
	if (!initial_then((int)(long)arg))
		bad++;
	while (!go)
		pthread_testcancel(), sched_yield();
	if (set != (int)(long)arg)
		bad++;
	return arg;
}

__attribute__((constructor)) static void begin(void)
{
	/* Memory of the first ones is used again by later ones. */
	for (int i = 0; i < 10; i++) {
		pthread_t t;
		if (pthread_create(&t, NULL, brief, NULL) == 0)
			pthread_join(t, NULL);
		else
			bad++;
	}
	for (long i = 0; i < 3; i++)
		if (pthread_create(&kept[i], NULL, lasting, (void *)(100 + i)) != 0)
			bad++;
	host_call_in_threads(initial_then);
}

/* After dlopen: did all threads find the image, and keep what they wrote? */
int init_ok(void);
int init_ok(void)
{
	go = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(kept[i], NULL);
	return bad == 0;
}

int init_get(void);
int init_get(void)
{
	return set;
}
