/* SPDX-License-Identifier: MIT */
/*
 * The plain echo server of the textbooks: one thread accepts, each connection gets a thread, reads and writes block.  Threads
 * have default attributes and are detached.  Port on 127.0.0.1 of the system's choice, printed as `PORT n` when it listens.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE = 64 };

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char buf[MESSAGE];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
		for (ssize_t done = 0; done < n;) {
			ssize_t w = write(fd, buf + done, (size_t)(n - done));

			if (w > 0)
				done += w;
			else if (errno != EINTR)
				goto out;
		}
out:
	close(fd);
	return NULL;
}

int main(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int one = 1, s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_attr_t detached;

	signal(SIGPIPE, SIG_IGN);
	if (s < 0 || bind(s, (struct sockaddr *)&addr, len) || listen(s, 4096) ||
	    getsockname(s, (struct sockaddr *)&addr, &len)) {
		perror("b_echo_server");
		return 1;
	}
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	printf("PORT %d\n", ntohs(addr.sin_port));
	fflush(stdout);
	for (;;) {
		pthread_t t;
		int err, fd = accept(s, NULL, NULL);

		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			perror("b_echo_server: accept");
			return 1;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		err = pthread_create(&t, &detached, serve, (void *)(intptr_t)fd);
		if (err) {
			fprintf(stderr, "b_echo_server: pthread_create: %s\n", strerror(err));
			close(fd);
		}
	}
}
