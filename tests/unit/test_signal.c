/* SPDX-License-Identifier: MIT */
/* core/signal.c: masks and pending signals of Gs, delivery to parked and running ones, sigwait, signals for the process. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/signal.h"
#include "tests/unit/support.h"

static _Atomic uint32_t handled, stop, n, bad, wrong_g;
static struct pg_g *_Atomic expect_g;
static _Atomic uint32_t last_sig;
static _Atomic uintptr_t last_value;

static void handler(int sig, siginfo_t *info, void *uc)
{
	(void)uc;
	if (expect_g && pg_self() != expect_g)
		atomic_fetch_add(&wrong_g, 1);
	last_sig = (uint32_t)sig;
	last_value = (uintptr_t)info->si_value.sival_ptr;
	atomic_fetch_add(&handled, 1);
}

static void handle(int sig, int flags, uint64_t mask)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

	memcpy(&sa.sa_mask, &mask, sizeof mask);
	assert_int_equal(pg_sigaction(sig, &sa, NULL), 0);
}

static uint64_t block(int how, uint64_t set)
{
	uint64_t old = 0;

	assert_int_equal(pg_sigprocmask(how, &set, &old), 0);
	return old;
}

#define USR1 pg_sigbit(SIGUSR1)
#define USR2 pg_sigbit(SIGUSR2)

static uint64_t kernel_mask(void)
{
	uint64_t m = 0;

	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &m, 8);
	return m;
}

/* ---- actions and masks ---- */

static void actions_are_remembered(void)
{
	struct sigaction sa = {.sa_handler = SIG_IGN}, old;
	uint64_t m;

	assert_int_equal(pg_sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, SIG_DFL);
	handle(SIGUSR1, SA_RESTART, USR2 | pg_sigbit(SIGKILL));
	assert_int_equal(pg_sigaction(SIGUSR1, &sa, &old), 0);
	assert_ptr_equal((void *)old.sa_sigaction, (void *)handler);
	assert_int_equal(old.sa_flags, SA_SIGINFO | SA_RESTART);
	memcpy(&m, &old.sa_mask, sizeof m);
	assert_int_equal(m, USR2);
	assert_int_equal(pg_sigaction(SIGUSR1, NULL, &old), 0);
	assert_ptr_equal(old.sa_handler, SIG_IGN);
	assert_int_equal(pg_sigaction(0, NULL, &old), -EINVAL);
	assert_int_equal(pg_sigaction(65, NULL, &old), -EINVAL);
	assert_int_equal(pg_sigaction(PG_SIG_KICK, &sa, NULL), -EINVAL);
	assert_int_equal(pg_sigaction(SIGKILL, &sa, NULL), -EINVAL);
	assert_int_equal(pg_sigprocmask(17, &m, NULL), -EINVAL);
}

static void masks_add_up(void)
{
	uint64_t was = block(SIG_BLOCK, 0);

	assert_int_equal(block(SIG_SETMASK, ~0ull), was);
	/* What nobody can block is not in it. */
	assert_int_equal(block(SIG_SETMASK, USR1), ~(pg_sigbit(SIGKILL) | pg_sigbit(SIGSTOP) | pg_sigbit(32) | pg_sigbit(33)));
	assert_int_equal(block(SIG_BLOCK, USR2), USR1);
	assert_int_equal(block(SIG_UNBLOCK, USR1), USR1 | USR2);
	assert_int_equal(block(SIG_SETMASK, was), USR2);
	assert_int_equal(kernel_mask(), was);
}

static void *mask_keeper(void *arg)
{
	struct pg_g *g = pg_self();
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (int i = 0; i < 60; i++) {
		uint64_t m = unit_rand(&rng, 2) ? 0 : USR1 << unit_rand(&rng, 4);
		block(SIG_SETMASK, m);
		unit_chaos(&rng);
		pg_rt_enter(g);
		if (g->sigmask != m || kernel_mask() != m || g->m->sigmask != m)
			atomic_fetch_add(&bad, 1);
		pg_rt_exit(g);
	}
	return NULL;
}

/* The kernel's mask goes with the G. */
static void masks_follow_gs(void)
{
	struct pg_g *g[8];

	for (uintptr_t i = 0; i < 8; i++)
		g[i] = unit_go(mask_keeper, (void *)i);
	for (int i = 0; i < 8; i++)
		unit_join(g[i]);
	assert_int_equal(bad, 0);
}

/* ---- thread-directed ---- */

static void to_oneself(void)
{
	struct pg_g *g = pg_self();
	siginfo_t info = {.si_code = SI_QUEUE};

	expect_g = g;
	handle(SIGUSR1, 0, 0);
	handle(SIGRTMIN, 0, 0);
	assert_int_equal(pg_gkill(g, SIGUSR1, NULL), 0);
	assert_int_equal(handled, 1); /* before it returns */
	block(SIG_BLOCK, USR1 | pg_sigbit(SIGRTMIN));
	for (int i = 0; i < 5; i++)
		assert_int_equal(pg_gkill(g, SIGUSR1, NULL), 0);
	for (uintptr_t i = 0; i < 5; i++) {
		info.si_value.sival_ptr = (void *)(100 + i);
		assert_int_equal(pg_gkill(g, SIGRTMIN, &info), 0);
	}
	assert_int_equal(handled, 1);
	assert_true(pg_sigpending() & USR1);
	assert_true(pg_sigpending() & pg_sigbit(SIGRTMIN));
	block(SIG_UNBLOCK, USR1);
	assert_int_equal(handled, 2); /* an ordinary signal is pending once */
	assert_false(pg_sigpending() & USR1);
	block(SIG_UNBLOCK, pg_sigbit(SIGRTMIN));
	assert_int_equal(handled, 7); /* a real-time one as often as it was sent */
	assert_int_equal(last_value, 104);
	assert_int_equal(wrong_g, 0);
}

static void queue_has_an_end(void)
{
	struct pg_g *g = pg_self();
	struct rlimit rl, less;
	uint32_t sent = 0;

	assert_int_equal(getrlimit(RLIMIT_SIGPENDING, &rl), 0);
	less = rl;
	less.rlim_cur = 5000;
	assert_int_equal(setrlimit(RLIMIT_SIGPENDING, &less), 0);
	handle(SIGRTMIN, 0, 0);
	for (int round = 0; round < 2; round++) {
		sent = handled = 0;
		block(SIG_BLOCK, pg_sigbit(SIGRTMIN));
		while (pg_gkill(g, SIGRTMIN, NULL) == 0)
			sent++;
		assert_int_equal(sent, 5000);
		block(SIG_UNBLOCK, pg_sigbit(SIGRTMIN));
		assert_int_equal(handled, sent);
	}
	setrlimit(RLIMIT_SIGPENDING, &rl);
}

static void *parked(void *arg)
{
	(void)arg;
	atomic_store(&expect_g, pg_self());
	atomic_fetch_add(&n, 1);
	return (void *)(intptr_t)pg_sleep_until(PG_FOREVER, PG_WAIT_sleep);
}

static void to_a_parked_g(void)
{
	handle(SIGUSR1, 0, 0);
	for (uint32_t i = 1; i <= 100; i++) {
		struct pg_g *g = unit_go(parked, NULL);
		if (i % 2)
			unit_await_parked(g, PG_WAIT_sleep);
		else
			unit_await(&n, i); /* perhaps on its way to sleep */
		assert_int_equal(pg_gkill(g, SIGUSR1, NULL), 0);
		if (i % 2)
			assert_int_equal((intptr_t)unit_join(g), -EINTR);
		else {
			/* The handler may have run before it went to sleep, as natively. */
			unit_await(&handled, i);
			while (!atomic_load(&g->dead)) {
				pg_gkill(g, SIGUSR1, NULL);
				unit_yield();
			}
			unit_join(g);
			handled = i;
		}
		assert_int_equal(wrong_g, 0);
		expect_g = NULL;
	}
}

static void *spins(void *arg)
{
	(void)arg;
	atomic_store(&expect_g, pg_self());
	atomic_fetch_add(&n, 1);
	while (!stop)
		pg_cpu_relax();
	return NULL;
}

static void to_a_running_g(void)
{
	struct pg_g *g;

	handle(SIGUSR1, 0, 0);
	g = unit_go(spins, NULL);
	unit_await(&n, 1);
	for (uint32_t i = 1; i <= 30; i++) {
		assert_int_equal(pg_gkill(g, SIGUSR1, NULL), 0);
		unit_await(&handled, i);
	}
	stop = 1;
	unit_join(g);
	assert_int_equal(wrong_g, 0);
}

static void *blocks_then_opens(void *arg)
{
	(void)arg;
	block(SIG_BLOCK, USR1);
	atomic_fetch_add(&n, 1);
	unit_await(&stop, 1);
	uint32_t before = handled;
	block(SIG_UNBLOCK, USR1);
	return (void *)(uintptr_t)(before == 0 && handled == 1);
}

static void to_one_that_blocks_it(void)
{
	struct pg_g *g;

	handle(SIGUSR1, 0, 0);
	g = unit_go(blocks_then_opens, NULL);
	unit_await(&n, 1);
	expect_g = g;
	assert_int_equal(pg_gkill(g, SIGUSR1, NULL), 0);
	for (int i = 0; i < 50; i++)
		unit_yield();
	assert_int_equal(handled, 0);
	stop = 1;
	assert_true(unit_join(g) != NULL);
	assert_int_equal(wrong_g, 0);
}

/* ---- every real-time signal arrives ---- */

enum { SENDERS = 3, EACH = 1500 };
static struct pg_g *_Atomic victim;
static _Atomic uint32_t sent, senders;

static void *rt_sender(void *arg)
{
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (int i = 0; i < EACH; i++) {
		while (pg_gkill(victim, SIGRTMIN + 1, NULL) == -EAGAIN)
			unit_yield();
		atomic_fetch_add(&sent, 1);
		if (unit_rand(&rng, 64) == 0)
			unit_chaos(&rng);
	}
	atomic_fetch_sub(&senders, 1);
	return NULL;
}

static void *rt_victim(void *arg)
{
	uint64_t rng = unit_rng(500);

	(void)arg;
	atomic_store(&victim, pg_self());
	while (senders > 0 || handled < SENDERS * EACH) {
		if (unit_rand(&rng, 4) == 0)
			unit_chaos(&rng);
		if (senders == 0 && handled < SENDERS * EACH && !stop) {
			/* All are sent: what is queued is delivered on the way out of the runtime. */
			for (int i = 0; i < 100; i++)
				unit_yield();
			break;
		}
	}
	return NULL;
}

static void no_realtime_signal_is_lost(void)
{
	struct pg_g *g, *s[SENDERS - 1];
	unsigned long t;

	handle(SIGRTMIN + 1, 0, 0);
	senders = SENDERS;
	g = unit_go(rt_victim, NULL);
	while (victim == NULL)
		unit_yield();
	for (uintptr_t i = 0; i < SENDERS - 1; i++)
		s[i] = unit_go(rt_sender, (void *)i);
	t = unit_os(rt_sender, (void *)99);
	for (int i = 0; i < SENDERS - 1; i++)
		unit_join(s[i]);
	unit_join(g);
	unit_os_join(t);
	assert_int_equal(sent, SENDERS * EACH);
	assert_int_equal(handled, sent);
}

/* ---- sigwait, sigsuspend ---- */

static void *waits(void *arg)
{
	siginfo_t info;
	int r;

	block(SIG_BLOCK, USR1 | USR2);
	atomic_fetch_add(&n, 1);
	r = pg_sigwait(USR1, &info, PG_FOREVER);
	if (r != SIGUSR1 || info.si_signo != SIGUSR1)
		atomic_fetch_add(&bad, 1);
	return arg;
}

static void sigwait_takes_thread_signal(void)
{
	for (uint32_t i = 1; i <= 40; i++) {
		struct pg_g *g = unit_go(waits, NULL);
		unit_await(&n, i);
		if (i % 3)
			unit_sleep(i % 3 * 100000);
		assert_int_equal(pg_gkill(g, SIGUSR2, NULL), 0); /* not waited for: stays pending */
		assert_int_equal(pg_gkill(g, SIGUSR1, NULL), 0);
		unit_join(g);
	}
	assert_int_equal(bad, 0);
}

static void sigwait_takes_process_signal(void)
{
	block(SIG_BLOCK, USR1 | USR2);
	for (uint32_t i = 1; i <= 40; i++) {
		struct pg_g *g = unit_go(waits, NULL);
		unit_await(&n, i);
		if (i % 3)
			unit_sleep(i % 3 * 100000);
		assert_int_equal(pg_sys(SYS_kill, pg_sys(SYS_getpid), SIGUSR1), 0);
		unit_join(g);
	}
	assert_int_equal(bad, 0);
}

static void sigwait_times_out(void)
{
	siginfo_t info;
	int64_t until;

	block(SIG_BLOCK, USR1);
	assert_int_equal(pg_sigwait(USR1, &info, 0), -EAGAIN);
	until = pg_now() + 2000000;
	assert_int_equal(pg_sigwait(USR1, &info, until), -EAGAIN);
	assert_true(pg_now() >= until);
	pg_gkill(pg_self(), SIGUSR1, NULL);
	assert_int_equal(pg_sigwait(USR1, NULL, 0), SIGUSR1);
	assert_int_equal(pg_sigwait(USR1, &info, 0), -EAGAIN);
}

static void *suspends(void *arg)
{
	int r;

	(void)arg;
	block(SIG_BLOCK, USR1 | USR2);
	atomic_fetch_add(&n, 1);
	r = pg_sigsuspend(USR2);
	if (r != -EINTR || pg_self()->sigmask != (USR1 | USR2))
		atomic_fetch_add(&bad, 1);
	return NULL;
}

static void sigsuspend_opens_the_mask(void)
{
	handle(SIGUSR1, 0, 0);
	for (uint32_t i = 1; i <= 60; i++) {
		struct pg_g *g = unit_go(suspends, NULL);
		unit_await(&n, i);
		if (i % 2)
			unit_await_parked(g, PG_WAIT_sigwait);
		expect_g = g;
		assert_int_equal(pg_gkill(g, SIGUSR1, NULL), 0);
		unit_join(g);
		assert_int_equal(handled, i);
	}
	assert_int_equal(bad + wrong_g, 0);
}

/* ---- signals for the process ---- */

/* Every G is parked and one of them would take it. */
static void process_signal_finds_a_parked_g(void)
{
	struct pg_g *g;
	pid_t pid = (pid_t)pg_sys(SYS_getpid), child;

	handle(SIGUSR1, 0, 0);
	g = unit_go(parked, NULL);
	unit_await(&n, 1);
	block(SIG_BLOCK, USR1);
	child = fork();
	if (child == 0) {
		usleep(20000);
		kill(pid, SIGUSR1);
		_exit(0);
	}
	assert_int_equal((intptr_t)unit_join(g), -EINTR);
	assert_int_equal(handled, 1);
	assert_int_equal(wrong_g, 0);
	waitpid(child, NULL, 0);
}

static void *ping(void *arg)
{
	uint64_t rng = unit_rng((uintptr_t)arg);

	while (!stop) {
		unit_chaos(&rng);
		unit_sleep(unit_rand(&rng, 30000));
	}
	return NULL;
}

/*
 * Signals for the process come at any instruction: of a G in the runtime, of the scheduler with its lock held, of the
 * watcher.  Nobody may take a lock or touch a queue from there.
 */
static void *dozes(void *arg)
{
	(void)arg;
	return (void *)(intptr_t)pg_sleep_until(pg_now() + 1000000, PG_WAIT_sleep);
}

static void process_signals_at_any_time(void)
{
	struct pg_g *g[10], *p;
	pid_t pid = (pid_t)pg_sys(SYS_getpid), child;
	int sleeping = 0;

	handle(SIGUSR1, SA_RESTART, 0);
	handle(SIGUSR2, 0, 0);
	child = fork();
	if (child == 0) {
		for (int i = 0; i < 30000; i++) {
			kill(pid, i % 2 ? SIGUSR1 : SIGUSR2);
			if (i % 64 == 0)
				usleep(50);
		}
		_exit(0);
	}
	for (uintptr_t i = 0; i < 10; i++)
		g[i] = unit_go(ping, (void *)i);
	while (waitpid(child, NULL, WNOHANG) == 0) {
		p = unit_go(dozes, NULL);
		expect_g = NULL;
		unit_join(p);
		expect_g = NULL;
		if (++sleeping % 16 == 0 && waitpid(child, NULL, WNOHANG) != 0)
			break;
		kill(pid, SIGUSR2);
		n = 0;
		expect_g = NULL;
		if (kill(child, 0) != 0)
			break;
	}
	stop = 1;
	for (int i = 0; i < 10; i++)
		unit_join(g[i]);
	assert_true(handled > 0);
}

static void *inherits(void *arg)
{
	(void)arg;
	return (void *)(uintptr_t)(pg_self()->sigmask == USR2 && kernel_mask() == USR2);
}

static void new_g_has_its_mask(void)
{
	block(SIG_SETMASK, USR2);
	for (int i = 0; i < 20; i++)
		assert_true(unit_join(unit_go(inherits, NULL)) != NULL);
}

static char stack[64 << 10];
static _Atomic uint32_t on_alt;

static void alt_handler(int sig)
{
	char here;

	(void)sig;
	on_alt = &here >= stack && &here < stack + sizeof stack;
	atomic_fetch_add(&handled, 1);
}

static void *uses_altstack(void *arg)
{
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack}, old;
	struct pg_g *g = pg_self();

	(void)arg;
	if (pg_sigaltstack(&ss, &old) != 0 || !(old.ss_flags & SS_DISABLE))
		atomic_fetch_add(&bad, 1);
	for (int i = 0; i < 20; i++) {
		unit_yield();
		unit_sleep(1000);
		on_alt = 0;
		pg_gkill(g, SIGUSR1, NULL);
		if (!on_alt)
			atomic_fetch_add(&bad, 1);
		on_alt = 0;
		pg_sys(SYS_tgkill, pg_sys(SYS_getpid), pg_sys(SYS_gettid), SIGUSR1);
		if (!on_alt)
			atomic_fetch_add(&bad, 1);
	}
	return NULL;
}

static void alternate_stack_goes_along(void)
{
	struct sigaction sa = {.sa_handler = alt_handler, .sa_flags = SA_ONSTACK};
	struct pg_g *g, *p[2];

	assert_int_equal(pg_sigaction(SIGUSR1, &sa, NULL), 0);
	for (uintptr_t i = 0; i < 2; i++)
		p[i] = unit_go(ping, (void *)i);
	g = unit_go(uses_altstack, NULL);
	unit_join(g);
	stop = 1;
	for (int i = 0; i < 2; i++)
		unit_join(p[i]);
	assert_int_equal(bad, 0);
	assert_int_equal(handled, 40);
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(actions_are_remembered),
	UNIT_GREEN(masks_add_up, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(masks_follow_gs, UNIT_ALL),
	UNIT_GREEN(new_g_has_its_mask, UNIT_P2),
	UNIT_GREEN(to_oneself, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(queue_has_an_end, UNIT_P1),
	UNIT_GREEN(to_a_parked_g, UNIT_ALL),
	UNIT_GREEN(to_a_running_g, UNIT_ALL),
	UNIT_GREEN(to_one_that_blocks_it, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(no_realtime_signal_is_lost, UNIT_ALL),
	UNIT_GREEN(sigwait_takes_thread_signal, UNIT_ALL),
	UNIT_GREEN(sigwait_takes_process_signal, UNIT_ALL),
	UNIT_GREEN(sigwait_times_out, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(sigsuspend_opens_the_mask, UNIT_ALL),
	UNIT_GREEN(process_signal_finds_a_parked_g, UNIT_ALL),
	UNIT_GREEN(process_signals_at_any_time, UNIT_ALL),
	UNIT_GREEN(alternate_stack_goes_along, UNIT_P1 | UNIT_P2),
};
UNIT_MAIN(tests)
