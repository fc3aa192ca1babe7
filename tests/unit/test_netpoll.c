/* SPDX-License-Identifier: MIT */
/* core/netpoll.c and netpoll_epoll.c: the word of a direction, several waiters and the baton, deadlines, closing, poll. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/netpoll.h"
#include "core/pd.h"
#include "core/signal.h"
#include "tests/unit/support.h"

enum { WAITERS = 8 };

static int fd[2];
static _Atomic uint32_t n, got, bad;

static void make_pipe(void)
{
	assert_int_equal(pipe2(fd, O_NONBLOCK), 0);
}

static long put(int to, const void *buf, size_t len)
{
	return pg_sys(SYS_write, to, buf, len);
}

/* Try, wait on EAGAIN, try again: as the shim does it. */
static long take(int from, void *buf, size_t len)
{
	for (;;) {
		long r = pg_sys(SYS_read, from, buf, len);
		if (r != -EAGAIN) {
			pg_netpoll_baton(from, PG_READ);
			return r;
		}
		r = pg_netpoll_wait(from, PG_READ, PG_FOREVER);
		if (r < 0)
			return r;
	}
}

/* Uses up what the registration reports at once (a pipe's write end is writable from the start). */
static int settle(int f, int mode)
{
	return pg_netpoll_wait(f, mode, pg_now() + 1000000);
}

static void kinds(void)
{
	int sv[2], ev = eventfd(0, 0), file = open("/proc/self/exe", O_RDONLY);

	make_pipe();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(pg_fd_kind(fd[0]), PG_FD_NOWAIT);
	assert_int_equal(pg_fd_kind(ev), PG_FD_NOWAIT);
	assert_int_equal(pg_fd_kind(file), PG_FD_FILE);
	assert_int_equal(pg_fd_kind(-1), PG_FD_BAD);
	assert_int_equal(pg_fd_kind(900), PG_FD_BAD);
	assert_true(pg_fd_kind(sv[0]) == PG_FD_SOCKET || pg_fd_kind(sv[0]) == PG_FD_STREAM);
	assert_true(pg_fd_nonblock(fd[0]));
	assert_false(pg_fd_nonblock(sv[0]));
	assert_int_equal(fcntl(sv[0], F_SETFL, O_NONBLOCK), 0);
	pg_fd_flags_changed();
	assert_true(pg_fd_nonblock(sv[0]));
	assert_true(pg_fd_timeout(sv[0], PG_READ) == PG_FOREVER);
	assert_int_equal(setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){2, 0}, sizeof(struct timeval)), 0);
	pg_fd_flags_changed();
	assert_int_equal(pg_fd_timeout(sv[0], PG_READ), 2000000000);
	/* The number comes back as something else. */
	pg_fd_forget(ev);
	assert_int_equal(dup2(file, ev), ev);
	assert_int_equal(pg_fd_kind(ev), PG_FD_FILE);
	assert_int_equal(pg_netpoll_wait(file, PG_READ, PG_FOREVER), -EPERM);
	assert_int_equal(pg_netpoll_wait(900, PG_READ, PG_FOREVER), -EBADF);
}

static void edge_before_wait(void)
{
	char c;

	make_pipe();
	assert_int_equal(settle(fd[0], PG_READ), -ETIMEDOUT);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(put(fd[1], "x", 1), 1);
		if (i % 2)
			unit_sleep(50000);
		assert_int_equal(pg_netpoll_wait(fd[0], PG_READ, PG_FOREVER), 0);
		assert_int_equal(pg_sys(SYS_read, fd[0], &c, 1), 1);
	}
}

static void deadline(void)
{
	make_pipe();
	for (int i = 0; i < 20; i++) {
		int64_t until = pg_now() + i * 100000;
		assert_int_equal(pg_netpoll_wait(fd[0], PG_READ, until), -ETIMEDOUT);
		assert_true(pg_now() >= until);
		assert_int_equal(atomic_load(&pg_pd_peek(fd[0])->side[PG_READ].word), 0);
	}
	assert_int_equal(atomic_load(&pg_sched.pollwaiters), 0);
}

static void *consumer(void *arg)
{
	char c;
	uint64_t rng = unit_rng((uintptr_t)arg);

	for (;;) {
		long r = take(fd[0], &c, 1);
		if (r != 1) {
			if (r != 0)
				atomic_fetch_add(&bad, 1);
			return NULL;
		}
		atomic_fetch_add(&got, 1);
		if (unit_rand(&rng, 8) == 0)
			unit_chaos(&rng);
	}
}

/* Many on one descriptor: every byte is taken, none waits with data there, and the end reaches all. */
static void several_waiters(void)
{
	struct pg_g *g[WAITERS];
	uint64_t rng = unit_rng(50);
	uint32_t sent = 0;

	make_pipe();
	for (uintptr_t i = 0; i < WAITERS; i++)
		g[i] = unit_go(consumer, (void *)i);
	for (int i = 0; i < 1500; i++) {
		char buf[16] = {0};
		long r = put(fd[1], buf, 1 + unit_rand(&rng, 16));
		if (r > 0)
			sent += (uint32_t)r;
		if (unit_rand(&rng, 4) == 0)
			unit_chaos(&rng);
		if (i % 50 == 0)
			unit_await(&got, sent);
	}
	unit_await(&got, sent);
	close(fd[1]); /* hang-up: the poller tells */
	for (int i = 0; i < WAITERS; i++)
		unit_join(g[i]);
	assert_int_equal(bad, 0);
	assert_int_equal(got, sent);
	assert_int_equal(atomic_load(&pg_sched.pollwaiters), 0);
	assert_int_equal(atomic_load(&pg_pd_peek(fd[0])->side[PG_READ].nqueued), 0);
}

static void *waits_for_close(void *arg)
{
	(void)arg;
	atomic_fetch_add(&n, 1);
	return (void *)(intptr_t)pg_netpoll_wait(fd[0], PG_READ, PG_FOREVER);
}

static void close_while_waiting(void)
{
	struct pg_g *g[WAITERS];

	for (int round = 0; round < 20; round++) {
		n = 0;
		make_pipe();
		for (int i = 0; i < WAITERS; i++) {
			g[i] = unit_go(waits_for_close, NULL);
			unit_await_parked(g[i], PG_WAIT_netread);
		}
		pg_fd_forget(fd[0]);
		close(fd[0]);
		for (int i = 0; i < WAITERS; i++)
			assert_int_equal((intptr_t)unit_join(g[i]), -EBADF);
		close(fd[1]);
		pg_fd_forget(fd[1]);
	}
	/* The number again, as good as new. */
	make_pipe();
	assert_int_equal(settle(fd[0], PG_READ), -ETIMEDOUT);
	assert_int_equal(put(fd[1], "x", 1), 1);
	assert_int_equal(pg_netpoll_wait(fd[0], PG_READ, PG_FOREVER), 0);
}

static _Atomic uint32_t handled;

static void handler(int sig)
{
	(void)sig;
	atomic_fetch_add(&handled, 1);
}

static void signal_interrupts(void)
{
	struct sigaction sa = {.sa_handler = handler};
	struct pg_g *g[2];

	assert_int_equal(pg_sigaction(SIGUSR1, &sa, NULL), 0);
	make_pipe();
	for (uint32_t i = 1; i <= 30; i++) {
		/* The holder of the word, and one in the queue behind it. */
		for (int k = 0; k < 2; k++) {
			g[k] = unit_go(waits_for_close, NULL);
			unit_await_parked(g[k], PG_WAIT_netread);
		}
		pg_gkill(g[i % 2], SIGUSR1, NULL);
		assert_int_equal((intptr_t)unit_join(g[i % 2]), -EINTR);
		assert_int_equal(put(fd[1], "x", 1), 1);
		assert_int_equal((intptr_t)unit_join(g[1 - i % 2]), 0);
		char c;
		assert_int_equal(pg_sys(SYS_read, fd[0], &c, 1), 1);
		assert_int_equal(handled, i);
		settle(fd[0], PG_READ);
	}
}

static int sv[2];

static void *echo(void *arg)
{
	char buf[64];
	long r;

	(void)arg;
	while ((r = take(sv[1], buf, sizeof buf)) > 0)
		if (put(sv[1], buf, (size_t)r) != r)
			atomic_fetch_add(&bad, 1);
	return NULL;
}

static void ping_pong(void)
{
	struct pg_g *g;
	char buf[64];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
	g = unit_go(echo, NULL);
	for (int i = 0; i < 1500; i++) {
		assert_int_equal(put(sv[0], "hello", 5), 5);
		assert_int_equal(take(sv[0], buf, sizeof buf), 5);
	}
	shutdown(sv[0], SHUT_WR);
	unit_join(g);
	assert_int_equal(bad, 0);
}

static void drained_until_the_next_edge(void)
{
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
	pg_netpoll_drained(sv[0]);
	assert_false(pg_netpoll_empty(sv[0])); /* never registered: no edge would tell */
	settle(sv[0], PG_READ);
	settle(sv[0], PG_READ);
	pg_netpoll_drained(sv[0]);
	assert_true(pg_netpoll_empty(sv[0]));
	assert_int_equal(put(sv[1], "x", 1), 1);
	assert_int_equal(pg_netpoll_wait(sv[0], PG_READ, PG_FOREVER), 0);
	assert_false(pg_netpoll_empty(sv[0]));
	assert_int_equal(pg_sys(SYS_read, sv[0], &c, 1), 1);
	pg_netpoll_drained(sv[0]);
	close(sv[1]);
	assert_int_equal(pg_netpoll_wait(sv[0], PG_READ, PG_FOREVER), 0);
	assert_false(pg_netpoll_empty(sv[0])); /* hung up: always try */
	pg_netpoll_drained(sv[0]);
	assert_false(pg_netpoll_empty(sv[0]));
}

static bool no(void *arg) { (void)arg; return false; }
static bool yes(void *arg) { (void)arg; return true; }

static bool readable(void *arg)
{
	struct pollfd pf = {*(int *)arg, POLLIN, 0};

	return pg_sys(SYS_poll, &pf, 1, 0) == 1;
}

static void *poller(void *arg)
{
	struct pollfd pf[12];

	for (int i = 0; i < 12; i++)
		pf[i] = (struct pollfd){i % 3 ? -1 : fd[0], POLLIN, 0};
	while (!readable(&fd[0])) {
		int r = pg_netpoll_poll(pf, (unsigned)(uintptr_t)arg, PG_FOREVER, readable, &fd[0]);
		if (r != 0)
			atomic_fetch_add(&bad, 1);
	}
	atomic_fetch_add(&got, 1);
	return NULL;
}

static void poll_of_many(void)
{
	struct pg_g *g[WAITERS];
	struct pollfd pf = {-1, POLLIN, 0};
	char c;

	make_pipe();
	pf.fd = fd[0];
	assert_int_equal(pg_netpoll_poll(&pf, 1, PG_FOREVER, yes, NULL), 0);
	int64_t until = pg_now() + 3000000;
	int r;
	while ((r = pg_netpoll_poll(&pf, 1, until, no, NULL)) == 0)
		; /* the registration's own edge */
	assert_int_equal(r, -ETIMEDOUT);
	assert_int_equal(pg_netpoll_poll(NULL, 0, pg_now() + 1000000, no, NULL), -ETIMEDOUT);
	for (uint32_t round = 1; round <= 30; round++) {
		for (int i = 0; i < WAITERS; i++)
			g[i] = unit_go(poller, (void *)(uintptr_t)(i % 2 ? 1 : 12));
		if (round % 2)
			for (int i = 0; i < WAITERS; i++)
				unit_await_parked(g[i], PG_WAIT_poll);
		assert_int_equal(put(fd[1], "x", 1), 1);
		for (int i = 0; i < WAITERS; i++)
			unit_join(g[i]);
		assert_int_equal(pg_sys(SYS_read, fd[0], &c, 1), 1);
	}
	assert_int_equal(bad, 0);
	assert_int_equal(atomic_load(&pg_pd_peek(fd[0])->npoll), 0);
	assert_null(pg_pd_peek(fd[0])->polls);
}

static void *audited(void *arg)
{
	char c;

	(void)arg;
	return (void *)take(fd[0], &c, 1);
}

/* Closed and opened again behind our back: found by the audit, not a hang. */
static void stale_registration_is_found(void)
{
	int was, other[2];
	struct pg_g *g;

	make_pipe();
	was = fd[0];
	settle(fd[0], PG_READ);
	assert_int_equal(pipe2(other, O_NONBLOCK), 0);
	assert_int_equal(pg_sys(SYS_dup3, other[0], was, 0), was);
	g = unit_go(audited, NULL);
	unit_await_parked(g, PG_WAIT_netread);
	assert_int_equal(put(other[1], "x", 1), 1);
	assert_int_equal((intptr_t)unit_join(g), 1);
}

static void our_own_are_known(void)
{
	int ours = 0;

	for (int f = 0; f < 2048; f++)
		if (pg_fd_ours(f)) {
			ours++;
			assert_true(f > 100);
			assert_true(fcntl(f, F_GETFD) & FD_CLOEXEC);
		}
	assert_int_equal(ours, 2);
	assert_false(pg_fd_ours(-1));
}

static const struct unit_test tests[] = {
	UNIT_GREEN(kinds, UNIT_P1),
	UNIT_GREEN(edge_before_wait, UNIT_ALL),
	UNIT_GREEN(deadline, UNIT_ALL),
	UNIT_GREEN(several_waiters, UNIT_ALL),
	UNIT_GREEN(close_while_waiting, UNIT_ALL),
	UNIT_GREEN(signal_interrupts, UNIT_ALL),
	UNIT_GREEN(ping_pong, UNIT_ALL),
	UNIT_GREEN(drained_until_the_next_edge, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(poll_of_many, UNIT_ALL),
	UNIT_GREEN(stale_registration_is_found, UNIT_P1 | UNIT_P2),
	UNIT_GREEN(our_own_are_known, UNIT_P1),
};
UNIT_MAIN(tests)
