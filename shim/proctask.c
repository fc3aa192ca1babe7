/* SPDX-License-Identifier: MIT */
/*
 * The entries of green threads in /proc: task/TID in /proc/self and /proc/PID, /proc/TID, /proc/thread-self.
 *
 * comm, stat, status and schedstat are what the kernel says of the OS thread (of a wired thread) or of the first thread, with
 * the number, the name, the state and the CPU time of the thread that is meant.  They are made when they are opened, in a
 * memory file.  All other entries are those of that OS thread, which differ little within a process.
 *
 * Rejected: a comm that can be written.  It would have to be seen when somebody writes to a descriptor.
 */
#include "shim/proctask.h"

#include "shim/io.h"
#include "shim/process.h"
#include "shim/thread.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/cputime.h"

enum { TEXT = 4096 }; /* more than the kernel writes into the files that are edited */

/* prefix and what ends it (a slash or the end): then s points behind. */
static bool skip(const char **s, const char *prefix)
{
	size_t n = strlen(prefix);

	if (strncmp(*s, prefix, n) != 0 || ((*s)[n] != '/' && (*s)[n] != '\0'))
		return false;
	*s += n;
	return true;
}

static bool skip_number(const char **s, long *number)
{
	char *end;

	if (**s < '0' || **s > '9')
		return false;
	*number = strtol(*s, &end, 10);
	*s = end;
	return *end == '/' || *end == '\0';
}

/* Whose entry is it?  NULL: none of ours, or one that the kernel has.  *rest: "" or "/comm" and so on. */
static struct pg_g *owner(const char *path, const char **rest)
{
	const char *s = path + strlen("/proc/");
	struct pg_g *g;
	long pid, tid;

	if (pg_passthrough() || !atomic_load(&pg_started) || pg_in_vfork())
		return NULL;
	pid = (long)pg_sys0(SYS_getpid);
	if (skip(&s, "thread-self")) {
		tid = pg_self()->tid;
	} else if (skip(&s, "self")) {
		tid = 0;
	} else {
		if (!skip_number(&s, &tid))
			return NULL;
		if (tid == pid)
			tid = 0;
	}
	if (tid == 0 && (strncmp(s, "/task/", 6) != 0 || (s += 6, !skip_number(&s, &tid))))
		return NULL;
	if (tid == pid || tid <= 0 || tid > INT32_MAX)
		return NULL;
	g = pg_tid2g((pid_t)tid);
	*rest = s;
	return g && pg_is_ours(g) ? g : NULL;
}

static const char *kernels_path(struct pg_g *g, const char *rest, char *buf)
{
	int os = atomic_load(&g->ostid), n;

	n = snprintf(buf, PG_PROC_PATH, "/proc/self/task/%d%s", os ? os : (int)pg_sys0(SYS_getpid), rest);
	return n > 0 && n < PG_PROC_PATH ? buf : NULL;
}

const char *pg_proc_path(const char *path, char buf[PG_PROC_PATH])
{
	const char *rest;
	struct pg_g *g = owner(path, &rest);

	return g ? kernels_path(g, rest, buf) : NULL;
}

/* ---- the files that are made ---- */

/* A wired thread's may have been changed by a write to the kernel's. */
static const char *name_of(struct pg_g *g, char name[PG_NAME_MAX])
{
	if (pthread_getname_np(pg_g2pthread(g), name, PG_NAME_MAX) != 0)
		name[0] = '\0';
	return name;
}

static char state_of(struct pg_g *g)
{
	return atomic_load(&g->state) == PG_G_waiting ? 'S' : 'R';
}

/* The n-th word of a line, from 0; its end if there is none. */
static const char *word(const char *s, int n)
{
	while (n-- > 0) {
		s += strcspn(s, " \n");
		s += *s == ' ';
	}
	return s;
}

static void put(int fd, const char *s, size_t n)
{
	pg_sys(SYS_write, fd, s, n);
}

static void make_stat(int fd, struct pg_g *g, const char *text)
{
	const char *tail = strrchr(text, ')'), *times, *after;
	char buf[128], name[PG_NAME_MAX];
	int n;

	if (tail == NULL || tail[1] != ' ')
		return;
	tail = word(tail + 2, 1); /* behind the state */
	times = word(tail, 10);   /* utime, the 14th field of all */
	after = word(times, 2);
	n = snprintf(buf, sizeof buf, "%u (%s) %c ", g->tid, name_of(g, name), state_of(g));
	put(fd, buf, (size_t)n);
	put(fd, tail, (size_t)(times - tail));
	n = snprintf(buf, sizeof buf, "%ld 0 ", (long)(pg_cputime(g) / (1000000000 / sysconf(_SC_CLK_TCK))));
	put(fd, buf, (size_t)n);
	put(fd, after, strlen(after));
}

static void make_status(int fd, struct pg_g *g, const char *text)
{
	char buf[64], name[PG_NAME_MAX];
	const char *end;
	int n;

	for (; *text; text = end) {
		end = text + strcspn(text, "\n");
		end += *end == '\n';
		n = 0;
		if (strncmp(text, "Name:", 5) == 0)
			n = snprintf(buf, sizeof buf, "Name:\t%s\n", name_of(g, name));
		else if (strncmp(text, "Pid:", 4) == 0)
			n = snprintf(buf, sizeof buf, "Pid:\t%u\n", g->tid);
		else if (strncmp(text, "State:", 6) == 0)
			n = snprintf(buf, sizeof buf, "State:\t%s\n", state_of(g) == 'S' ? "S (sleeping)" : "R (running)");
		put(fd, n ? buf : text, n ? (size_t)n : (size_t)(end - text));
	}
}

static void make_schedstat(int fd, struct pg_g *g, const char *text)
{
	char buf[64];
	int n = snprintf(buf, sizeof buf, "%ld ", (long)pg_cputime(g));

	put(fd, buf, (size_t)n);
	text = word(text, 1);
	put(fd, text, strlen(text));
}

static void make_comm(int fd, struct pg_g *g, const char *text)
{
	char buf[PG_NAME_MAX + 2], name[PG_NAME_MAX];
	int n = snprintf(buf, sizeof buf, "%s\n", name_of(g, name));

	(void)text;
	put(fd, buf, (size_t)n);
}

static const struct {
	const char *name;
	void (*make)(int fd, struct pg_g *g, const char *text);
} files[] = {
	{ "/comm", make_comm },
	{ "/stat", make_stat },
	{ "/status", make_status },
	{ "/schedstat", make_schedstat },
};

/* What the kernel has to say; the length or -errno. */
static long read_text(const char *path, char text[TEXT])
{
	long fd = pg_sys(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC), r, n = 0;

	if (fd < 0)
		return fd;
	while ((r = pg_sys(SYS_read, fd, text + n, TEXT - 1 - n)) > 0)
		n += r;
	pg_sys(SYS_close, fd);
	text[n] = '\0';
	return r < 0 ? r : n;
}

static long make(struct pg_g *g, size_t which, const char *path, int flags)
{
	char text[TEXT];
	long r = read_text(path, text), fd;

	if (r < 0)
		return r;
	fd = pg_sys(SYS_memfd_create, files[which].name + 1, flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
	if (fd < 0)
		return fd;
	files[which].make((int)fd, g, text);
	pg_sys(SYS_lseek, fd, 0, SEEK_SET);
	return fd;
}

int pg_proc_open(const char *path, int flags, int fd)
{
	char buf[PG_PROC_PATH];
	const char *rest, *kernels;
	struct pg_g *g = owner(path, &rest);
	size_t i = 0;
	long r;

	if (g == NULL || (kernels = kernels_path(g, rest, buf)) == NULL)
		return fd;
	while (i < sizeof files / sizeof files[0] && strcmp(rest, files[i].name) != 0)
		i++;
	if (i == sizeof files / sizeof files[0] || (flags & O_PATH))
		r = pg_sys(SYS_openat, AT_FDCWD, kernels, flags);
	else if ((flags & O_ACCMODE) == O_RDONLY)
		r = make(g, i, kernels, flags);
	else
		r = atomic_load(&g->ostid) && atomic_load(&g->ostid) != (int)pg_sys0(SYS_getpid)
			    ? pg_sys(SYS_openat, AT_FDCWD, kernels, flags) : -EACCES;
	if (fd >= 0)
		pg_sys(SYS_close, fd); /* the OS thread's at hand, of which nobody has heard yet */
	return (int)pg_ret(r);
}

/* ---- fopen ---- */

/* f, or a stream in its place. */
static FILE *stream(const char *path, const char *mode, FILE *f)
{
	int flags = mode[0] == 'r' && strchr(mode, '+') == NULL ? O_RDONLY : O_WRONLY;
	int fd = pg_proc_open(path, flags | (strchr(mode, 'e') ? O_CLOEXEC : 0), -1);
	FILE *own;

	if (fd < 0)
		return f;
	own = fdopen(fd, mode);
	if (own == NULL) {
		close(fd);
		return f;
	}
	if (f)
		fclose(f);
	return own;
}

/* Blocks: the disk; a FIFO until its other end is opened.  Cancel: no. */
PG_EXPORT FILE *fopen(const char *restrict path, const char *restrict mode)
{
	FILE *f = PG_ANN(pg_self_, false, PG_REAL(fopen)(path, mode));

	return pg_likely(!pg_in_proc(path, f == NULL)) ? f : stream(path, mode, f);
}

PG_EXPORT FILE *fopen64(const char *restrict path, const char *restrict mode)
{
	FILE *f = PG_ANN(pg_self_, false, PG_REAL(fopen64)(path, mode));

	return pg_likely(!pg_in_proc(path, f == NULL)) ? f : stream(path, mode, f);
}
