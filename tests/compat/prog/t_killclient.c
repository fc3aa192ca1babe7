/* SPDX-License-Identifier: MIT */
/*
 * Clients are killed in the middle of a write, and in the middle of reading what a server thread writes: each server
 * thread gets an end of file, ECONNRESET or EPIPE, and ends.  TCP, a socket pair and pipes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS 24

static char chunk[65536];
static int ended_well[3]; /* by kind of server thread, under lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void end_well(int kind, int well)
{
	pthread_mutex_lock(&lock);
	ended_well[kind] += well;
	pthread_mutex_unlock(&lock);
}

/* Writes for ever; must end with EPIPE or ECONNRESET. */
static void *writer(void *arg)
{
	int fd = (int)(long)arg;

	while (write(fd, chunk, sizeof chunk) >= 0)
		;
	end_well(0, errno == EPIPE || errno == ECONNRESET);
	close(fd);
	return NULL;
}

/* Reads records that the client never finishes. */
static void *reader(void *arg)
{
	int fd = (int)(long)arg;
	static __thread char buf[100000];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof buf, MSG_WAITALL)) == (ssize_t)sizeof buf)
		;
	end_well(1, n >= 0 || errno == ECONNRESET);
	close(fd);
	return NULL;
}

static void *pipe_writer(void *arg)
{
	int fd = (int)(long)arg;

	while (write(fd, chunk, sizeof chunk) >= 0)
		;
	end_well(2, errno == EPIPE);
	close(fd);
	return NULL;
}

static _Noreturn void client(struct sockaddr_in *addr, int kind, int pipe_end)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char k = (char)kind;

	if (connect(fd, (struct sockaddr *)addr, sizeof *addr) || write(fd, &k, 1) != 1)
		_exit(1);
	if (kind == 2) {
		close(fd);
		for (int i = 0; i < 3; i++)
			if (read(pipe_end, chunk, 1000) < 0)
				_exit(1);
		pause();
	}
	if (kind == 0) {
		for (int i = 0; i < 5; i++)
			if (read(fd, chunk, 5000) < 0)
				_exit(1);
		pause();
	}
	for (;;)
		if (write(fd, chunk, sizeof chunk) < 0)
			_exit(1);
}

int main(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof addr;
	int l = socket(AF_INET, SOCK_STREAM, 0);
	pid_t pid[CLIENTS];
	pthread_t t[CLIENTS];
	int ends[CLIENTS][2];
	int killed = 0, n = 0;

	signal(SIGPIPE, SIG_IGN);
	if (bind(l, (struct sockaddr *)&addr, sizeof addr) || listen(l, 128) ||
	    getsockname(l, (struct sockaddr *)&addr, &len))
		return 2;
	for (int i = 0; i < CLIENTS; i++) {
		if (pipe(ends[i]))
			return 2;
		pid[i] = fork();
		if (pid[i] == 0) {
			close(l);
			for (int j = 0; j <= i; j++)
				close(ends[j][1]);
			client(&addr, i % 3, ends[i][0]);
		}
		close(ends[i][0]);
	}
	for (int i = 0, pipes = 2; i < CLIENTS; i++) {
		int fd = accept(l, NULL, NULL);
		char kind;
		int err;

		if (fd < 0 || read(fd, &kind, 1) != 1)
			return 1;
		if (kind == 2) {
			close(fd);
			err = pthread_create(&t[n++], NULL, pipe_writer, (void *)(long)ends[pipes][1]);
			pipes += 3;
		} else {
			err = pthread_create(&t[n++], NULL, kind ? reader : writer, (void *)(long)fd);
		}
		if (err)
			return 1;
	}
	usleep(100000);
	for (int i = 0; i < CLIENTS; i++)
		kill(pid[i], SIGKILL);
	for (int i = 0; i < CLIENTS; i++) {
		int status;

		waitpid(pid[i], &status, 0);
		killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	}
	for (int i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	printf("%d killed, ended well: %d that wrote, %d that read, %d into pipes\n", killed, ended_well[0], ended_well[1],
	       ended_well[2]);

	/* without SIG_IGN the signal ends the process: a child shows it */
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		int sv[2], status = 0;
		pthread_t w;

		signal(SIGPIPE, SIG_DFL);
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
			_exit(9);
		close(sv[0]);
		pthread_create(&w, NULL, writer, (void *)(long)sv[1]);
		pthread_join(w, NULL);
		_exit(status);
	}
	int status;
	waitpid(child, &status, 0);
	printf("unguarded: %s\n", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "it went on");
	puts("ok");
	return 0;
}
