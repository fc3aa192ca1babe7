// SPDX-License-Identifier: MIT
/*
 * A signal for the process reached the first thread only after it had been woken by what the sender did next.
 *
 * kill to the own process by another thread, which the first thread takes: once it is woken by what follows the kill, its handler
 * has run, since Linux makes the signal pending on it first. Python's test_threadsignals counts on that.
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { ROUNDS = 3000 };

static volatile sig_atomic_t came;
static pthread_t by;
static sem_t go, done;

static void handler(int sig)
{
	(void)sig;
	came++;
	by = pthread_self();
}

static void *sender(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		sem_wait(&go);
		if (kill(getpid(), i & 1 ? SIGUSR1 : SIGUSR2) != 0)
			perror("kill");
		sem_post(&done);
	}
	return arg;
}

static void *spinner(void *arg)
{
	while (!*(volatile int *)arg)
		;
	return NULL;
}

int main(void)
{
	pthread_t t, s[2];
	int late = 0, elsewhere = 0, stop = 0;
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };

	sem_init(&go, 0, 0);
	sem_init(&done, 0, 0);
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	if (pthread_create(&t, NULL, sender, NULL) != 0)
		return 1;
	for (int i = 0; i < ROUNDS; i++) {
		if (i == ROUNDS - 30) /* the last ones beside threads that leave no CPU idle */
			for (int k = 0; k < 2; k++)
				if (pthread_create(&s[k], NULL, spinner, &stop) != 0)
					return 1;
		sem_post(&go);
		while (sem_wait(&done) != 0)
			;
		late += came != i + 1;
		elsewhere += came && !pthread_equal(by, pthread_self());
	}
	stop = 1;
	for (int k = 0; k < 2; k++)
		pthread_join(s[k], NULL);
	pthread_join(t, NULL);
	printf("%d signals, %d late, %d elsewhere\n", (int)came, late, elsewhere);
	return late || elsewhere || came != ROUNDS;
}
