/* SPDX-License-Identifier: MIT */
/*
 * The same echo server written by hand as one event loop, for comparison: what could be had by giving up threads.  Level
 * triggered, no thread, no state per connection: a client of it never has more on its way than the socket buffers hold.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE = 64, EVENTS = 256 };

static void take(int ep, int s)
{
	int fd, one = 1;

	while ((fd = accept4(s, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
			close(fd);
	}
	if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		perror("b_epoll_server: accept");
		exit(1);
	}
}

static void serve(int fd)
{
	char buf[MESSAGE];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n > 0 && write(fd, buf, (size_t)n) == n)
		return;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	close(fd);
}

int main(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int ep = epoll_create1(EPOLL_CLOEXEC), s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = s}, events[EVENTS];

	signal(SIGPIPE, SIG_IGN);
	if (ep < 0 || s < 0 || bind(s, (struct sockaddr *)&addr, len) || listen(s, 4096) ||
	    getsockname(s, (struct sockaddr *)&addr, &len) || epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev)) {
		perror("b_epoll_server");
		return 1;
	}
	printf("PORT %d\n", ntohs(addr.sin_port));
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, -1);

		for (int i = 0; i < n; i++)
			if (events[i].data.fd == s)
				take(ep, s);
			else
				serve(events[i].data.fd);
	}
}
