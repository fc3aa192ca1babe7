/* SPDX-License-Identifier: MIT */
/*
 * Descriptors run out: accept, pipe, socket and open say EMFILE, threads go on and can be made, waiting still works,
 * and everything recovers once descriptors are closed.  The clients are a process of their own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int gate;    /* handlers may answer and end */
static int active;  /* handlers with an open connection */
static int served;
static int spare[2];

static int client(struct sockaddr_in *addr)
{
	int fd[CLIENTS];
	int bad = 0;

	for (int i = 0; i < CLIENTS; i++) {
		unsigned char c = (unsigned char)i;

		fd[i] = socket(AF_INET, SOCK_STREAM, 0);
		if (fd[i] < 0 || connect(fd[i], (struct sockaddr *)addr, sizeof *addr) || write(fd[i], &c, 1) != 1)
			return 1;
	}
	for (int i = 0; i < CLIENTS; i++) {
		unsigned char c;

		bad += read(fd[i], &c, 1) != 1 || c != (unsigned char)(i ^ 0x55);
		bad += read(fd[i], &c, 1) != 0;
		close(fd[i]);
	}
	return bad != 0;
}

static void *handler(void *arg)
{
	int fd = (int)(long)arg;
	unsigned char c;

	if (read(fd, &c, 1) == 1) {
		pthread_mutex_lock(&lock);
		while (!gate)
			pthread_cond_wait(&changed, &lock);
		pthread_mutex_unlock(&lock);
		c ^= 0x55;
		if (write(fd, &c, 1) != 1)
			perror("write");
	}
	close(fd);
	pthread_mutex_lock(&lock);
	active--;
	served++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void *reader(void *arg)
{
	char c = 0;

	*(int *)arg = read(spare[0], &c, 1) == 1 && c == 'x';
	return NULL;
}

/* What still has to work while no descriptor is left. */
static void while_out(void)
{
	pthread_t t[8];
	int fine[8] = {0}, p[2], sum = 0;

	printf("open: %s\n", open("/dev/null", O_RDONLY) < 0 && errno == EMFILE ? "EMFILE" : "?");
	printf("socket: %s\n", socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EMFILE ? "EMFILE" : "?");
	printf("pipe: %s\n", pipe(p) < 0 && errno == EMFILE ? "EMFILE" : "?");
	for (int i = 0; i < 8; i++)
		if (pthread_create(&t[i], NULL, reader, &fine[i]))
			printf("no thread\n");
	usleep(20000);
	for (int i = 0; i < 8; i++)
		if (write(spare[1], "x", 1) != 1)
			perror("write");
	for (int i = 0; i < 8; i++) {
		pthread_join(t[i], NULL);
		sum += fine[i];
	}
	printf("%d of 8 threads read a pipe\n", sum);
}

int main(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof addr;
	int l = socket(AF_INET, SOCK_STREAM, 0);
	int emfile = 0, accepted = 0, status;
	pthread_t t;
	pthread_attr_t detached;

	if (bind(l, (struct sockaddr *)&addr, sizeof addr) || listen(l, 128) ||
	    getsockname(l, (struct sockaddr *)&addr, &len) || pipe(spare))
		return 2;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		close(l);
		_exit(client(&addr));
	}
	if (setrlimit(RLIMIT_NOFILE, &(struct rlimit){32, 32}))
		return 2;
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	while (accepted < CLIENTS) {
		int fd = accept(l, NULL, NULL);

		if (fd < 0) {
			if (errno != EMFILE) {
				perror("accept");
				return 1;
			}
			if (!emfile++) {
				printf("accept: EMFILE\n");
				while_out();
			}
			pthread_mutex_lock(&lock);
			gate = 1;
			pthread_cond_broadcast(&changed);
			while (active > 0)
				pthread_cond_wait(&changed, &lock);
			gate = 0;
			pthread_mutex_unlock(&lock);
			continue;
		}
		accepted++;
		pthread_mutex_lock(&lock);
		active++;
		pthread_mutex_unlock(&lock);
		if (pthread_create(&t, &detached, handler, (void *)(long)fd))
			return 1;
	}
	pthread_mutex_lock(&lock);
	gate = 1;
	pthread_cond_broadcast(&changed);
	while (active > 0)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	printf("%d served, EMFILE %s\n", served, emfile ? "seen" : "never seen");
	waitpid(pid, &status, 0);
	printf("clients: %s\n", WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "all answered" : "wrong");
	puts("ok");
	return 0;
}
