/* SPDX-License-Identifier: MIT */
/*
 * A load client: many connections in one thread, each in a closed loop of request and answer, every answer compared byte by
 * byte with the one that is due.
 *
 *   b_load -p PORT [-c CONNECTIONS] [-d SECONDS] [-m echo|memcached] [-s SERVER-PID]
 *
 * echo: 64 bytes come back as they went.  memcached: sets and gets by turns, in the text protocol; each connection has keys of
 * its own, so that the answer to a get is known.
 *
 * A connection is: connecting -> first request under way -> idle, until all are there (at most RAMP of them at a time are not
 * yet answered, so that no backlog overflows) -> in its loop -> closed with a reset, which leaves no TIME_WAIT behind.
 * After each connection has had EARLY answers and a while has passed, the window of SECONDS is measured.
 *
 * It prints one line of name=value: requests per second, latencies in µs, the CPU time of the server per request in µs,
 * its memory in KB (rss, with page tables) and its number of OS threads at the end of the window, the connections
 * accepted and answered per second before it, and a digest of the EARLY first answers of each connection, equal
 * for equal answers.  Exit status 1, with a line on stderr: a wrong answer, a lost connection, or no answer for STUCK seconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum { RAMP = 64, EARLY = 4, STUCK = 20, EVENTS = 256, WARM_MS = 300 };
enum { ECHO_SIZE = 64, SLOTS = 8, LEAST_VALUE = 40, MOST_VALUE = 1000, BUFFER = 2048 };

struct conn {
	int fd;
	bool connected;
	uint32_t got;  /* bytes of the answer so far */
	uint32_t due;  /* bytes of the answer in all */
	uint64_t made; /* requests, with the one under way */
	uint64_t seen; /* answers */
	uint64_t digest;
	int64_t sent_at;
};

static struct conn *conns;
static long nconns = 1;
static int ep;

/* -- requests and the answers that are due: functions of the connection's number and the request's -------- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 29)) * 0xd1b54a32d192ed03u;
	return x ^ (x >> 32);
}

/* len printable bytes that depend on seed. */
static void fill(char *to, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++) {
		if (i % 8 == 0)
			seed = mix(seed + 1);
		to[i] = (char)('0' + (seed >> (i % 8 * 8) & 63));
	}
}

static size_t echo_request(long c, uint64_t n, char *to)
{
	fill(to, ECHO_SIZE, mix((uint64_t)c << 32 ^ n));
	return ECHO_SIZE;
}

static size_t echo_answer(long c, uint64_t n, char *to)
{
	return echo_request(c, n, to);
}

/* The k-th set of a connection goes into slot k % SLOTS. */
static size_t value_of(long c, uint64_t k, char *to)
{
	uint64_t seed = mix((uint64_t)c << 32 ^ k);
	size_t len = LEAST_VALUE + seed % (MOST_VALUE - LEAST_VALUE);

	fill(to, len, seed);
	return len;
}

/* Which set the get number k reads back: the latest in a slot chosen at random, of those already made. */
static uint64_t read_back(long c, uint64_t k)
{
	uint64_t back = mix((uint64_t)c << 40 ^ k) % SLOTS;

	return back > k ? k : k - back;
}

static size_t memcached_request(long c, uint64_t n, char *to)
{
	uint64_t k = n / 2;

	if (n % 2 == 0) {
		char value[MOST_VALUE];
		size_t len = value_of(c, k, value);
		size_t at = (size_t)sprintf(to, "set pgreen.%ld.%ld 0 0 %zu\r\n", c, (long)(k % SLOTS), len);

		memcpy(to + at, value, len);
		memcpy(to + at + len, "\r\n", 2);
		return at + len + 2;
	}
	return (size_t)sprintf(to, "get pgreen.%ld.%ld\r\n", c, (long)(read_back(c, k) % SLOTS));
}

static size_t memcached_answer(long c, uint64_t n, char *to)
{
	char value[MOST_VALUE];
	uint64_t k = n / 2;
	size_t len, at;

	if (n % 2 == 0)
		return (size_t)sprintf(to, "STORED\r\n");
	k = read_back(c, k);
	len = value_of(c, k, value);
	at = (size_t)sprintf(to, "VALUE pgreen.%ld.%ld 0 %zu\r\n", c, (long)(k % SLOTS), len);
	memcpy(to + at, value, len);
	memcpy(to + at + len, "\r\nEND\r\n", 7);
	return at + len + 7;
}

static size_t (*make_request)(long, uint64_t, char *) = echo_request;
static size_t (*make_answer)(long, uint64_t, char *) = echo_answer;

/* -- connections ------------------------------------------------------------------------------------------- */

static void request(struct conn *c)
{
	char buf[BUFFER];
	size_t len;
	ssize_t n;

	c->got = 0;
	c->due = (uint32_t)make_answer(c - conns, c->made, buf);
	len = make_request(c - conns, c->made, buf);
	c->made++;
	c->sent_at = now();
	n = send(c->fd, buf, len, MSG_NOSIGNAL);
	if (n != (ssize_t)len)
		die("a request could not be sent", n < 0 ? errno : EPROTO);
}

/* True when the answer is whole. */
static bool receive(struct conn *c)
{
	char buf[BUFFER], due[BUFFER];
	ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
	size_t len;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0)
		die("the server closed a connection", n < 0 ? errno : 0);
	if (c->seen == c->made || c->got + (size_t)n > c->due)
		die("more came than the answer", 0);
	len = make_answer(c - conns, c->seen, due);
	if (len != c->due || memcmp(due + c->got, buf, (size_t)n))
		die("a wrong answer", 0);
	if (c->seen < EARLY)
		for (ssize_t i = 0; i < n; i++)
			c->digest = (c->digest ^ (unsigned char)buf[i]) * 0x100000001b3u;
	c->got += (uint32_t)n;
	if (c->got < c->due)
		return false;
	c->seen++;
	return true;
}

static void dial(struct conn *c, const struct sockaddr_in *addr)
{
	struct epoll_event ev = {.events = EPOLLOUT, .data.ptr = c};
	struct linger reset = {.l_onoff = 1};
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket", errno);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(c->fd, (const struct sockaddr *)addr, sizeof(*addr)) && errno != EINPROGRESS)
		die("connect", errno);
	if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev))
		die("epoll_ctl", errno);
}

static void connected(struct conn *c)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) || err)
		die("connect", err ? err : errno);
	c->connected = true;
	epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
	request(c);
}

/* The next events; dies when there is none for too long. */
static int await(struct epoll_event *events, int64_t until)
{
	int64_t left = until ? (until - now() + 999999) / 1000000 : STUCK * 1000;
	int n = epoll_wait(ep, events, EVENTS, left < 0 ? 0 : left > STUCK * 1000 ? STUCK * 1000 : (int)left);

	if (n < 0 && errno != EINTR)
		die("epoll_wait", errno);
	if (n == 0 && (!until || left >= STUCK * 1000))
		die("the server does not answer any more", 0);
	return n;
}

static double ramp(const struct sockaddr_in *addr)
{
	struct epoll_event events[EVENTS];
	int64_t start = now();
	long dialled = 0, answered = 0;

	while (answered < nconns) {
		while (dialled < nconns && dialled - answered < RAMP)
			dial(&conns[dialled++], addr);
		for (int i = 0, n = await(events, 0); i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c->connected)
				connected(c);
			else if (receive(c))
				answered++;
		}
	}
	return (double)(now() - start) / NS;
}

/* Every connection in its loop.  Until the window begins, nothing is counted; at its end, everything stops. */
static double loop(double seconds, double *cpu)
{
	struct epoll_event events[EVENTS];
	int64_t t = now(), warm = t + WARM_MS * 1000000ll, start = 0, end = 0, last = t;
	long late = nconns; /* connections without their early answers */

	for (long i = 0; i < nconns; i++)
		request(&conns[i]);
	for (;;) {
		int n = await(events, end);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!receive(c))
				continue;
			t = last = now();
			if (start) {
				answered_in(t - c->sent_at);
			}
			late -= c->seen == EARLY;
			request(c);
		}
		t = now();
		if (t - last > (int64_t)STUCK * NS)
			die("the server does not answer any more", 0);
		if (!start && late == 0 && t >= warm) {
			*cpu = server_cpu();
			start = now();
			end = start + (int64_t)(seconds * NS);
		} else if (start && t >= end) {
			*cpu = server_cpu() - *cpu;
			return (double)(t - start) / NS;
		}
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct rlimit files;
	double seconds = 1, cpu = 0, took, ramped;
	uint64_t digest = 0;
	int opt;

	while ((opt = getopt(argc, argv, "p:c:d:m:s:")) != -1)
		switch (opt) {
		case 'p': addr.sin_port = htons((uint16_t)atoi(optarg)); break;
		case 'c': nconns = atol(optarg); break;
		case 'd': seconds = atof(optarg); break;
		case 's': servers(optarg); break;
		case 'm':
			if (!strcmp(optarg, "memcached")) {
				make_request = memcached_request;
				make_answer = memcached_answer;
			} else if (strcmp(optarg, "echo")) {
				die("-m echo or -m memcached", 0);
			}
			break;
		default: return 2;
		}
	if (nconns < 1 || !addr.sin_port)
		die("-p PORT [-c CONNECTIONS] [-d SECONDS] [-m echo|memcached] [-s SERVER-PID]", 0);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	conns = calloc((size_t)nconns, sizeof(*conns));
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (!conns || ep < 0)
		die("no memory or no epoll", errno);
	ramped = ramp(&addr);
	took = loop(seconds, &cpu);
	for (long i = 0; i < nconns; i++)
		digest += mix(conns[i].digest + (uint64_t)i);
	if (!measured)
		die("not one answer in the window", 0);
	printf("connections=%ld requests=%lu rps=%.1f p50=%.2f p99=%.2f cpu=%.3f rss=%ld threads=%ld ramp=%.1f digest=%016lx\n",
	       nconns, (unsigned long)measured, (double)measured / took, percentile(0.5) / 1e3, percentile(0.99) / 1e3,
	       cpu / (double)measured, server_status("VmRSS:") + server_status("VmPTE:"), server_status("Threads:"),
	       (double)nconns / ramped, (unsigned long)digest);
	return 0;
}
