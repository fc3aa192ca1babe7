/* SPDX-License-Identifier: MIT */
/*
 * Contexts of ucontext.h in threads: coroutines that yield to the scheduler between their steps, and contexts with signal masks
 * of their own.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <ucontext.h>

#define THREADS 8
#define STEPS 2000
#define STACK 65536

static int failures;

static void check(const char *what, int ok)
{
	printf("%-44s %s\n", what, ok ? "ok" : "FAILED");
	failures += !ok;
}

/* A thread, and a coroutine that it has on a stack of its own. */
struct co {
	ucontext_t outside, inside;
	long sum;
	int blocked;    /* has the coroutine SIGUSR1 blocked, and the thread not? */
	int ok;
	pthread_t self;
	char *stack;
};

static __thread struct co *mine;
static atomic_int hits;
static void on_signal(int sig) { (void)sig; hits++; }

static int usr1_blocked(void)
{
	sigset_t now;

	pthread_sigmask(SIG_BLOCK, NULL, &now);
	return sigismember(&now, SIGUSR1);
}

static void routine(void)
{
	struct co *c = mine;

	for (int i = 1; i <= STEPS; i++) {
		c->ok &= pthread_equal(pthread_self(), c->self) && mine == c && usr1_blocked() == c->blocked;
		c->sum += i;
		if (i % 16 == 0)
			sched_yield();
		swapcontext(&c->inside, &c->outside);
	}
	setcontext(&c->outside);
}

static void *thread(void *arg)
{
	struct co *c = arg;

	mine = c;
	c->self = pthread_self();
	c->ok = 1;
	c->stack = malloc(STACK);
	getcontext(&c->inside);
	c->inside.uc_stack.ss_sp = c->stack;
	c->inside.uc_stack.ss_size = STACK;
	if (c->blocked)
		sigaddset(&c->inside.uc_sigmask, SIGUSR1);
	makecontext(&c->inside, routine, 0);
	for (int i = 0; i <= STEPS; i++) {
		swapcontext(&c->outside, &c->inside);
		c->ok &= usr1_blocked() == 0;
		if (i % 32 == 0) {
			struct timespec ts = { 0, 1000 };
			nanosleep(&ts, NULL);
		}
	}
	free(c->stack);
	return (void *)(long)(c->ok && c->sum == (long)STEPS * (STEPS + 1) / 2);
}

static int run(int blocked)
{
	static struct co cos[THREADS];
	pthread_t t[THREADS];
	int ok = 1;

	for (int i = 0; i < THREADS; i++) {
		cos[i] = (struct co){ .blocked = blocked && i % 2 };
		pthread_create(&t[i], NULL, thread, &cos[i]);
	}
	for (int i = 0; i < THREADS; i++) {
		void *r;
		pthread_join(t[i], &r);
		ok &= r != NULL;
	}
	return ok;
}

/* A signal that the context blocks comes when the mask does not any more. */
static ucontext_t out, in;
static int early;
static void in_blocked(void)
{
	pthread_kill(pthread_self(), SIGUSR1);
	early = hits;
	swapcontext(&in, &out);
}

static void *delivered(void *arg)
{
	static char stack[STACK];

	hits = 0;
	getcontext(&in);
	in.uc_stack.ss_sp = stack;
	in.uc_stack.ss_size = sizeof stack;
	sigaddset(&in.uc_sigmask, SIGUSR1);
	makecontext(&in, in_blocked, 0);
	swapcontext(&out, &in);
	return early == 0 && hits == 1 ? arg : NULL;
}

int main(void)
{
	pthread_t t;
	void *r;

	signal(SIGUSR1, on_signal);
	check("coroutines", run(0));
	check("coroutines with masks", run(1));
	pthread_create(&t, NULL, delivered, &failures);
	pthread_join(t, &r);
	check("a signal waits for the other context", r == &failures);
	check("the first thread", delivered(&t) == &t);
	puts(failures ? "FAILED" : "ok");
	return failures != 0;
}
