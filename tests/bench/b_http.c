/* SPDX-License-Identifier: MIT */
/*
 * A load client for servers of HTTP and of other requests with one known answer: many connections in one thread, each in a
 * closed loop, every answer compared byte by byte.
 *
 *   b_http -p PORT [-c CONNECTIONS] [-d SECONDS] [-u TARGET] -b BODY-FILE [-n] [-k KILLS] [-x] [-s PID,PID...]
 *   b_http -p PORT [...] -q REQUEST-FILE -a ANSWER-FILE [-g GREETING] [-l LOGIN-FILE -L ANSWER]
 *
 * The first form asks for TARGET by HTTP/1.1; the answer must be status 200 and have the bytes of BODY-FILE for its body, by
 * Content-Length, in chunks, or up to the end of the connection.  A server may close a connection after an answer that says
 * so; the next request is made on a new one.  The second form sends the bytes of one file and wants those of another.
 * Before that there may be a greeting by the server of GREETING bytes, whatever they are, and then the bytes of LOGIN-FILE with an
 * answer of ANSWER bytes.
 *
 * -n: a connection for each request.  -k: so many times a second a connection is reset with half its request sent, or its
 * answer unread.  -x: connections that the server refuses or closes are counted and made again (it may be out of descriptors,
 * or be told to stop); without it they are failures.  A wrong answer always is one.
 *
 * A connection is: dialling -> greeted -> asking (its request under way) -> answered -> asking...; or closed, and dialled again.
 * At most RAMP of them are not yet answered for the first time, and those that are wait idly.  After each has had an answer, or
 * after PATIENCE seconds, the window of SECONDS begins; `unanswered` counts the connections that had none in it.
 *
 * It prints one line of name=value: requests per second, latencies in µs, CPU time of the servers' processes per request in µs,
 * their memory in KB, their OS threads, connections made, lost and killed.  Exit status 1, with a line on stderr:
 * a wrong answer, a lost connection, or no answer at all for STUCK seconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum { RAMP = 64, PATIENCE = 12, STUCK = 25, EVENTS = 256, HEAD = 4096, AGAIN_MS = 20 };

struct conn {
	int fd;            /* -1: to be dialled again at sent_at */
	bool connected, asked;
	bool half;         /* to be reset: only half of its request is sent */
	uint32_t greeted;  /* bytes of the preface so far */
	uint32_t heads;    /* bytes in head */
	int64_t body_left; /* of the body by its length, or of the chunk; -1: up to the end */
	bool chunked, in_body, closing;
	uint32_t got; /* bytes of the body or the raw answer */
	uint64_t seen;
	bool within; /* had an answer in the window */
	int64_t sent_at;
	char head[HEAD];
};

static struct conn *conns;
static long nconns = 1;
static int ep;
static struct sockaddr_in addr = {.sin_family = AF_INET};
static bool raw, each_new, lenient;
static char *req, *want, *login;
static size_t req_len, want_len, greeting_len, login_len, preface_len; /* preface: greeting and login's answer */
static uint64_t made, lost, killed, answered_first, in_time;

static char *contents(const char *path, size_t *len)
{
	FILE *f = fopen(path, "r");
	char *buf = NULL;
	size_t n = 0, r;

	if (!f)
		die(path, errno);
	do {
		buf = realloc(buf, n + 65536);
		if (!buf)
			die("no memory", 0);
		n += r = fread(buf + n, 1, 65536, f);
	} while (r > 0);
	fclose(f);
	*len = n;
	return buf;
}

/* -- connections ------------------------------------------------------------------------------------------- */

static void dial(struct conn *c)
{
	struct epoll_event ev = {.events = EPOLLOUT, .data.ptr = c};
	struct linger reset = {.l_onoff = 1};
	int one = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket", errno);
	c->connected = c->asked = false;
	c->greeted = 0;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(c->fd, (const struct sockaddr *)&addr, sizeof(addr)) && errno != EINPROGRESS)
		die("connect", errno);
	if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev))
		die("epoll_ctl", errno);
	c->sent_at = now();
	made++;
}

static void hang_up(struct conn *c)
{
	close(c->fd);
	c->fd = -1;
	c->sent_at = now();
}

/* The server closed it, or never took it. */
static void gone(struct conn *c, const char *what, int err)
{
	if (!lenient)
		die(what, err);
	lost++;
	hang_up(c);
	c->sent_at += AGAIN_MS * 1000000ll;
}

static void ask(struct conn *c)
{
	size_t len = c->half ? req_len / 2 : req_len;
	ssize_t n;

	c->asked = true;
	c->heads = c->got = 0;
	c->in_body = raw;
	c->body_left = raw ? (int64_t)want_len : -1;
	c->chunked = c->closing = false;
	if (c->seen)
		c->sent_at = now(); /* the first counts from its dialling */
	n = send(c->fd, req, len, MSG_NOSIGNAL);
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
		gone(c, "the server closed a connection", errno);
		return;
	}
	if (n != (ssize_t)len)
		die("a request could not be sent", n < 0 ? errno : EPROTO);
}

/* The greeting is over, or the login. */
static void greet(struct conn *c)
{
	if (c->greeted == greeting_len && login_len) {
		if (send(c->fd, login, login_len, MSG_NOSIGNAL) != (ssize_t)login_len)
			gone(c, "login", errno);
	} else if (c->greeted == preface_len) {
		ask(c);
	}
}

static void connected(struct conn *c)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) || err) {
		gone(c, "connect", err ? err : errno);
		return;
	}
	c->connected = true;
	epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
	if (!greeting_len)
		greet(c);
}

static const char *field(const struct conn *c, const char *name)
{
	size_t len = strlen(name);

	for (const char *l = strstr(c->head, "\r\n"); l; l = strstr(l + 2, "\r\n"))
		if (!strncasecmp(l + 2, name, len) && l[2 + len] == ':') {
			l += 3 + len;
			return l + strspn(l, " \t");
		}
	return NULL;
}

static void head_is_whole(struct conn *c)
{
	const char *f;

	if (strncmp(c->head, "HTTP/1.", 7) || strncmp(c->head + 8, " 200", 4)) {
		fprintf(stderr, "b_http: the server says %.60s\n", c->head);
		exit(1);
	}
	c->closing = c->head[7] == '0';
	f = field(c, "Connection");
	if (f && !strncasecmp(f, "close", 5))
		c->closing = true;
	if (f && !strncasecmp(f, "keep-alive", 10))
		c->closing = false;
	f = field(c, "Transfer-Encoding");
	c->chunked = f && !strncasecmp(f, "chunked", 7);
	f = field(c, "Content-Length");
	c->body_left = c->chunked ? 0 : f ? atoll(f) : -1;
	if (!c->chunked && !f)
		c->closing = true;
	if (f && !c->chunked && c->body_left != (int64_t)want_len)
		die("a body of the wrong length", 0);
	c->in_body = true;
	c->heads = 0;
}

static void body(struct conn *c, const char *p, size_t n)
{
	if (c->got + n > want_len || memcmp(want + c->got, p, n))
		die("a wrong answer", 0);
	c->got += (uint32_t)n;
}

/* Bytes of an answer; true when it is whole, and then nothing may be left. */
static bool digest(struct conn *c, const char *p, size_t n)
{
	bool whole = false;

	while (n > 0 && !whole) {
		if (c->greeted < preface_len) {
			size_t due = (c->greeted < greeting_len ? greeting_len : preface_len) - c->greeted, k = due < n ? due : n;

			c->greeted += (uint32_t)k;
			p += k, n -= k;
			if (k == due)
				greet(c);
		} else if (!c->in_body) { /* a byte at a time up to the empty line */
			if (c->heads >= HEAD - 1)
				die("a head without an end", 0);
			c->head[c->heads++] = *p++, n--;
			if (c->heads >= 4 && !memcmp(c->head + c->heads - 4, "\r\n\r\n", 4)) {
				c->head[c->heads] = '\0';
				head_is_whole(c);
				whole = !c->chunked && c->body_left == 0;
			}
		} else if (c->chunked && c->body_left == 0) { /* a chunk's size, or the line end before it */
			if (c->heads >= HEAD - 1)
				die("a chunk's size without an end", 0);
			c->head[c->heads++] = *p++, n--;
			if (c->heads > 2 && c->head[c->heads - 1] == '\n') {
				c->head[c->heads] = '\0';
				c->body_left = strtoll(c->head, NULL, 16);
				if (c->body_left == 0) {
					/* the last one; no trailers: an empty line follows */
					c->body_left = -2;
					c->heads = 0;
				}
				c->heads = 0;
			}
		} else if (c->body_left == -2) {
			p++, n--;
			whole = ++c->heads == 2;
		} else {
			size_t k = c->body_left >= 0 && (size_t)c->body_left < n ? (size_t)c->body_left : n;

			body(c, p, k);
			p += k, n -= k;
			if (c->body_left >= 0) {
				c->body_left -= (int64_t)k;
				whole = c->body_left == 0 && !c->chunked;
			}
		}
	}
	if (n > 0)
		die("more came than the answer", 0);
	if (whole && c->got != want_len)
		die("a short answer", 0);
	return whole;
}

/* True when an answer is whole. */
static bool receive(struct conn *c)
{
	char buf[65536];
	ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n == 0 && c->asked && c->in_body && !raw && c->body_left == -1 && !c->chunked) {
		if (c->got != want_len)
			die("a short answer", 0);
		return true;
	}
	if (n <= 0) {
		gone(c, "the server closed a connection", n < 0 ? errno : 0);
		return false;
	}
	if (c->half) /* told off, perhaps: its request is not whole */
		return false;
	return digest(c, buf, (size_t)n);
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	const char *target = "/", *body_file = NULL, *req_file = NULL, *answer_file = NULL;
	struct rlimit files;
	double seconds = 1, cpu = 0, took, kills = 0, ramped = 0;
	int64_t t, start = 0, end = 0, last, begun, next_kill = 0;
	long dialled = 0, victim = 0;
	int opt;

	while ((opt = getopt(argc, argv, "p:c:d:u:b:q:a:g:l:L:nk:xs:")) != -1)
		switch (opt) {
		case 'p': addr.sin_port = htons((uint16_t)atoi(optarg)); break;
		case 'c': nconns = atol(optarg); break;
		case 'd': seconds = atof(optarg); break;
		case 'u': target = optarg; break;
		case 'b': body_file = optarg; break;
		case 'q': req_file = optarg; break;
		case 'a': answer_file = optarg; break;
		case 'g': greeting_len = (size_t)atol(optarg); break;
		case 'l': login = contents(optarg, &login_len); break;
		case 'L': preface_len = (size_t)atol(optarg); break;
		case 'n': each_new = true; break;
		case 'k': kills = atof(optarg); break;
		case 'x': lenient = true; break;
		case 's': servers(optarg); break;
		default: return 2;
		}
	raw = req_file != NULL;
	preface_len += greeting_len;
	if (nconns < 1 || !addr.sin_port || (raw ? !answer_file : !body_file))
		die("-p PORT and -b BODY-FILE, or -q REQUEST-FILE -a ANSWER-FILE", 0);
	if (raw) {
		req = contents(req_file, &req_len);
		want = contents(answer_file, &want_len);
	} else {
		want = contents(body_file, &want_len);
		req_len = (size_t)asprintf(&req, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: b_http\r\n%s\r\n", target,
					   each_new ? "Connection: close\r\n" : "");
	}
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	conns = calloc((size_t)nconns, sizeof(*conns));
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (!conns || ep < 0)
		die("no memory or no epoll", errno);

	last = begun = t = now();
	for (;;) {
		int n, wait_ms = 1000;

		for (; dialled < nconns && (start || dialled - (long)answered_first < RAMP); dialled++)
			dial(&conns[dialled]);
		if (lenient || kills > 0 || each_new) {
			for (long i = 0; i < dialled; i++)
				if (conns[i].fd < 0 && conns[i].sent_at <= t)
					dial(&conns[i]);
			wait_ms = AGAIN_MS;
		}
		if (start && wait_ms > (end - t) / 1000000 + 1)
			wait_ms = (int)((end - t) / 1000000) + 1;
		n = epoll_wait(ep, events, EVENTS, wait_ms < 0 ? 0 : wait_ms);
		if (n < 0 && errno != EINTR)
			die("epoll_wait", errno);
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (c->fd < 0)
				continue;
			if (!c->connected) {
				connected(c);
				continue;
			}
			if (!receive(c))
				continue;
			t = last = now();
			if (start) {
				answered_in(t - c->sent_at);
				in_time += !c->within;
				c->within = true;
			}
			answered_first += c->seen++ == 0;
			if (each_new || c->closing) {
				hang_up(c);
				dial(c);
			} else if (start) {
				ask(c);
			}
		}
		t = now();
		if (t - last > (int64_t)STUCK * NS)
			die("the server does not answer any more", 0);
		if (start && kills > 0)
			for (; next_kill < t; next_kill += (int64_t)(NS / kills)) {
				struct conn *c = &conns[victim++ % nconns];

				if (c->fd < 0)
					continue;
				hang_up(c); /* its answer is under way */
				killed++;
				c->half = killed % 2; /* and the next one's request stops halfway */
			}
		if (!start && (answered_first == (uint64_t)nconns || t - begun > (int64_t)PATIENCE * NS)) {
			ramped = (double)(t - begun) / NS;
			cpu = server_cpu();
			start = next_kill = now();
			end = start + (int64_t)(seconds * NS);
			for (long i = 0; i < dialled; i++)
				if (conns[i].fd >= 0 && conns[i].seen && !each_new && !conns[i].closing)
					ask(&conns[i]);
		} else if (start && t >= end) {
			cpu = server_cpu() - cpu;
			took = (double)(t - start) / NS;
			break;
		}
	}
	if (!measured)
		die("not one answer in the window", 0);
	printf("connections=%ld requests=%lu rps=%.1f p50=%.2f p99=%.2f cpu=%.3f rss=%ld threads=%ld ramp=%.1f made=%lu lost=%lu "
	       "killed=%lu unanswered=%lu\n",
	       nconns, (unsigned long)measured, (double)measured / took, percentile(0.5) / 1e3, percentile(0.99) / 1e3,
	       cpu / (double)measured, server_status("VmRSS:") + server_status("VmPTE:"), server_status("Threads:"),
	       (double)nconns / ramped, (unsigned long)made, (unsigned long)lost, (unsigned long)killed,
	       (unsigned long)((uint64_t)nconns - in_time));
	return 0;
}
