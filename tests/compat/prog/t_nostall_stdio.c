/* SPDX-License-Identifier: MIT */
/*
 * No call of libc that reads, writes, locks or looks up inside keeps the other threads waiting: stdio on slow descriptors, locked
 * streams, callbacks that block, resolver, dynamic linker, posix_spawn.  Not asked: syslog, whose socket is the system's, and
 * getpass, which wants a terminal.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <err.h>
#include <ftw.h>
#include <netinet/in.h>
#include <resolv.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio_ext.h>
#include <sys/stat.h>
#include <wchar.h>

#include "nostall.h"

static FILE *f;
static char buf[64];
static wchar_t wbuf[64];
static char dir[] = "/tmp/nostall.XXXXXX", path[128];

/* ---- reading from a pipe, or from a socket ---- */

static void f_pipe(void) { make_pipe(); f = fdopen(fd[0], "r"); }
static void f_socket(void)
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
		die("socketpair");
	f = fdopen(fd[0], "r");
}
static void put_line(void) { if (write(fd[1], "12345678\n", 9) != 9) die("put"); }
static void f_close(void) { fclose(f); close(fd[1]); }
static int c_fgets(void) { return fgets(buf, sizeof buf, f) == buf; }
static int c_getline(void) { char *l = NULL; size_t n = 0; int ok = getline(&l, &n, f) == 9; free(l); return ok; }
static int c_getdelim(void) { char *l = NULL; size_t n = 0; int ok = getdelim(&l, &n, '3', f) == 3; free(l); return ok; }
static int c_fread(void) { return fread(buf, 4, 2, f) == 2; }
static int c_getc(void) { return getc(f) == '1'; }
static int c_fgetc(void) { return fgetc(f) == '1' && fgetc(f) == '2'; }
static int c_getc_unlocked(void) { return getc_unlocked(f) == '1'; }
static int c_getw(void) { int n = getw(f); return memcmp(&n, "1234", 4) == 0; }
static int c_fscanf(void) { int n; return fscanf(f, "%d", &n) == 1 && n == 12345678; }
static int scan(const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vfscanf(f, fmt, ap);
	va_end(ap);
	return r;
}
static int c_vfscanf(void) { int n; return scan("%4d", &n) == 1 && n == 1234; }
static int c_fgetwc(void) { return fgetwc(f) == L'1'; }
static int c_getwc(void) { return getwc(f) == L'1'; }
static int c_fgetws(void) { return fgetws(wbuf, 64, f) == wbuf; }
static int c_fwscanf(void) { int n; return fwscanf(f, L"%d", &n) == 1 && n == 12345678; }

static int saved_in;
static void in_pipe(void)
{
	make_pipe();
	saved_in = dup(0);
	dup2(fd[0], 0);
	close(fd[0]);
	fd[0] = -1;
}
static void in_back(void)
{
	dup2(saved_in, 0);
	close(saved_in);
	close(fd[1]);
	clearerr(stdin);
	__fpurge(stdin);
}
static int c_getchar(void) { return getchar() == '1'; }
static int c_scanf(void) { int n; return scanf("%d", &n) == 1 && n == 12345678; }

/* ---- writing to a full pipe ---- */

static void f_full(int mode)
{
	full_pipe();
	f = fdopen(fd[1], "w");
	setvbuf(f, NULL, mode, 4096);
}
static void f_unbuffered(void) { f_full(_IONBF); }
static void f_buffered(void) { f_full(_IOFBF); }
static void f_lines(void) { f_full(_IOLBF); }
static void w_close(void) { fclose(f); close(fd[0]); }
static void r_close(void) { close(fd[0]); }
static int c_fprintf(void) { return fprintf(f, "%d\n", 12345) == 6; }
static int print(const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vfprintf(f, fmt, ap);
	va_end(ap);
	return r;
}
static int c_vfprintf(void) { return print("%d\n", 12345) == 6; }
static int c_dprintf(void) { return dprintf(fd[1], "%d\n", 12345) == 6; }
static int c_fputs(void) { return fputs("12345\n", f) >= 0; }
static int c_putc(void) { return putc('x', f) == 'x'; }
static int c_fputc_line(void) { return fputc('x', f) == 'x' && fputc('\n', f) == '\n'; }
static int c_fwrite(void) { return fwrite(junk, 1, sizeof junk, f) == sizeof junk; }
static int c_fflush(void) { return fputs("x", f) >= 0 && fflush(f) == 0; }
static int c_fclose(void) { return fputs("x", f) >= 0 && fclose(f) == 0; }
static int c_fputwc(void) { return fputwc(L'x', f) == L'x'; }
static int c_fputws(void) { return fputws(L"xyz", f) >= 0; }
static int c_fwprintf(void) { return fwprintf(f, L"%d", 12345) == 5; }
static int c_setvbuf(void) { return fputs("x", f) >= 0 && setvbuf(f, NULL, _IONBF, 0) == 0; }
static int saved_err;
static void err_full(void)
{
	full_pipe();
	saved_err = dup(2);
	dup2(fd[1], 2);
}
static void err_back(void) { dup2(saved_err, 2); close(saved_err); close_both(); }
static int c_perror(void) { perror("perror"); return 1; }
static int c_warn(void) { warn("%s", "warn"); return 1; }
static int c_psignal(void) { psignal(SIGUSR1, "psignal"); return 1; }

/* ---- a stream that another thread has locked ---- */

static void f_locked(void) { make_pipe(); f = fdopen(fd[1], "w"); putc('x', f); flockfile(f); }
static void f_unlock(void) { funlockfile(f); }
static int c_flockfile(void) { flockfile(f); funlockfile(f); return 1; }
static int c_feof(void) { return feof(f) == 0; }
static int c_ferror(void) { return ferror(f) == 0; }
static int c_ftell(void) { return ftell(f) == -1; }
static int c_fflush_all(void) { return fflush(NULL) == 0; }

/* ---- callbacks that block, inside calls that are announced ---- */

static atomic_int once_blocked;
static int wait_here(void)
{
	char c;
	return atomic_exchange(&once_blocked, 1) == 0 ? read(fd[0], &c, 1) == 1 : 1;
}
static void cb_setup(void) { make_pipe(); once_blocked = 0; }
static int selects(const struct dirent *d) { (void)d; return wait_here(); }
static int c_scandir(void)
{
	struct dirent **list;
	int n = scandir("/proc/self", &list, selects, alphasort), r = n;

	while (n > 0)
		free(list[--n]);
	free(list);
	return r > 5;
}
static int visits(const char *p, const struct stat *st, int type, struct FTW *w)
{
	(void)p, (void)st, (void)type, (void)w;
	return !wait_here();
}
static int c_nftw(void) { return nftw(dir, visits, 4, FTW_PHYS) == 0; }

/* ---- FIFOs ---- */

static void make_fifo(void)
{
	snprintf(path, sizeof path, "%s/fifo", dir);
	if (mkfifo(path, 0600))
		die("mkfifo");
	fd[0] = fd[1] = -1;
}
static void open_w(void) { fd[1] = open(path, O_WRONLY); }
static void fifo_after(void) { close(fd[1]); unlink(path); }
static int c_fopen(void) { f = fopen(path, "r"); return f != NULL && fclose(f) == 0; }
static int c_freopen(void)
{
	f = fopen("/dev/null", "r");
	f = freopen(path, "r", f);
	return f != NULL && fclose(f) == 0;
}
static int c_spawn(void)
{
	posix_spawn_file_actions_t fa;
	char *args[] = { "true", NULL };
	pid_t pid;
	int st;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, path, O_RDONLY, 0);
	if (posix_spawnp(&pid, "true", &fa, NULL, args, environ) != 0)
		return 0;
	posix_spawn_file_actions_destroy(&fa);
	return waitpid(pid, &st, 0) == pid && st == 0;
}

/* ---- a name server that takes its time ---- */

static struct sockaddr_in server;
static void ns_setup(void)
{
	socklen_t len = sizeof server;

	server = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	fd[0] = socket(AF_INET, SOCK_DGRAM, 0);
	fd[1] = -1;
	if (bind(fd[0], (struct sockaddr *)&server, sizeof server) || getsockname(fd[0], (struct sockaddr *)&server, &len))
		die("bind");
}
static int c_res_nsend(void)
{
	struct __res_state rs = { 0 };
	unsigned char q[512], a[512];
	int n, r;

	if (res_ninit(&rs))
		return 0;
	rs.nscount = 1;
	rs.nsaddr_list[0] = server;
	rs.retrans = 30;
	rs.retry = 1;
	n = res_nmkquery(&rs, ns_o_query, "nostall.example", ns_c_in, ns_t_a, NULL, 0, NULL, q, sizeof q);
	r = n < 0 ? -1 : res_nsend(&rs, q, n, a, sizeof a);
	res_nclose(&rs);
	return r >= n;
}
static void ns_answer(void)
{
	struct sockaddr_in from;
	socklen_t len = sizeof from;
	unsigned char q[512];
	ssize_t n = recvfrom(fd[0], q, sizeof q, 0, (struct sockaddr *)&from, &len);

	q[2] |= 0x80; /* an answer, of no records, */
	q[3] |= 0x80; /* by one who would have asked others */
	sendto(fd[0], q, (size_t)n, 0, (struct sockaddr *)&from, len);
}

/* ---- a module whose constructor blocks ---- */

static const char source[] =
	"#include <stdlib.h>\n#include <unistd.h>\n"
	"__attribute__((constructor)) static void slow(void) { char c; if (read(atoi(getenv(\"NOSTALL_FD\")), &c, 1) != 1) abort(); }\n"
	"int answer(void) { return 42; }\n";
static int built;
static void dl_setup(void)
{
	char command[512], number[16];

	make_pipe();
	snprintf(number, sizeof number, "%d", fd[0]);
	setenv("NOSTALL_FD", number, 1);
	snprintf(path, sizeof path, "%s/slow.c", dir);
	f = fopen(path, "w");
	fputs(source, f);
	fclose(f);
	snprintf(command, sizeof command, "cc -shared -fPIC -o %s/slow.so %s 2>/dev/null", dir, path);
	built = system(command) == 0;
	unlink(path);
	snprintf(path, sizeof path, "%s/slow.so", dir);
}
/* Without a compiler there is nothing to ask; the thread waits all the same. */
static int c_dlopen(void)
{
	char c;
	void *h = built ? dlopen(path, RTLD_NOW) : NULL;
	int (*answer)(void);

	if (!built)
		return read(fd[0], &c, 1) == 1;
	if (h == NULL)
		return 0;
	*(void **)&answer = dlsym(h, "answer");
	return answer != NULL && answer() == 42 && dlclose(h) == 0;
}
static void dl_after(void) { close_both(); unlink(path); }

static const struct nostall cases[] = {
	{ "fgets", f_pipe, c_fgets, put_line, f_close },
	{ "fgets: socket", f_socket, c_fgets, put_line, f_close },
	{ "getline", f_pipe, c_getline, put_line, f_close },
	{ "getdelim", f_pipe, c_getdelim, put_line, f_close },
	{ "fread", f_pipe, c_fread, put_line, f_close },
	{ "fread: socket", f_socket, c_fread, put_line, f_close },
	{ "getc", f_pipe, c_getc, put_line, f_close },
	{ "fgetc", f_pipe, c_fgetc, put_line, f_close },
	{ "getc_unlocked", f_pipe, c_getc_unlocked, put_line, f_close },
	{ "getw", f_pipe, c_getw, put_line, f_close },
	{ "fscanf", f_pipe, c_fscanf, put_line, f_close },
	{ "vfscanf", f_pipe, c_vfscanf, put_line, f_close },
	{ "fgetwc", f_pipe, c_fgetwc, put_line, f_close },
	{ "getwc", f_pipe, c_getwc, put_line, f_close },
	{ "fgetws", f_pipe, c_fgetws, put_line, f_close },
	{ "fwscanf", f_pipe, c_fwscanf, put_line, f_close },
	{ "getchar", in_pipe, c_getchar, put_line, in_back },
	{ "scanf", in_pipe, c_scanf, put_line, in_back },
	{ "fprintf: full pipe", f_unbuffered, c_fprintf, drain, w_close },
	{ "vfprintf: full pipe", f_unbuffered, c_vfprintf, drain, w_close },
	{ "dprintf: full pipe", full_pipe, c_dprintf, drain, close_both },
	{ "fputs: full pipe", f_unbuffered, c_fputs, drain, w_close },
	{ "putc: full pipe", f_unbuffered, c_putc, drain, w_close },
	{ "fputc: a line to a full pipe", f_lines, c_fputc_line, drain, w_close },
	{ "fwrite: full pipe", f_buffered, c_fwrite, drain, w_close },
	{ "fflush: full pipe", f_buffered, c_fflush, drain, w_close },
	{ "fclose: full pipe", f_buffered, c_fclose, drain, r_close },
	{ "setvbuf: full pipe", f_buffered, c_setvbuf, drain, w_close },
	{ "fputwc: full pipe", f_unbuffered, c_fputwc, drain, w_close },
	{ "fputws: full pipe", f_unbuffered, c_fputws, drain, w_close },
	{ "fwprintf: full pipe", f_unbuffered, c_fwprintf, drain, w_close },
	{ "perror: full pipe", err_full, c_perror, drain, err_back },
	{ "warn: full pipe", err_full, c_warn, drain, err_back },
	{ "psignal: full pipe", err_full, c_psignal, drain, err_back },
	{ "locked stream: flockfile", f_locked, c_flockfile, f_unlock, w_close },
	{ "locked stream: fputs", f_locked, c_fputs, f_unlock, w_close },
	{ "locked stream: putc", f_locked, c_putc, f_unlock, w_close },
	{ "locked stream: feof", f_locked, c_feof, f_unlock, w_close },
	{ "locked stream: ferror", f_locked, c_ferror, f_unlock, w_close },
	{ "locked stream: ftell", f_locked, c_ftell, f_unlock, w_close },
	{ "locked stream: fflush of all", f_locked, c_fflush_all, f_unlock, w_close },
	{ "scandir: slow callback", cb_setup, c_scandir, put, close_both },
	{ "nftw: slow callback", cb_setup, c_nftw, put, close_both },
	{ "fopen: FIFO", make_fifo, c_fopen, open_w, fifo_after },
	{ "freopen: FIFO", make_fifo, c_freopen, open_w, fifo_after },
	{ "posix_spawn: FIFO", make_fifo, c_spawn, open_w, fifo_after },
	{ "res_nsend", ns_setup, c_res_nsend, ns_answer, close_both },
	{ "dlopen: slow constructor", dl_setup, c_dlopen, put, dl_after },
};

int main(int argc, char **argv)
{
	int r;

	signal(SIGPIPE, SIG_IGN);
	if (mkdtemp(dir) == NULL)
		die("mkdtemp");
	r = ALL(cases);
	rmdir(dir);
	return r;
}
