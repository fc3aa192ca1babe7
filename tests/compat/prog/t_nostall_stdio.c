/* SPDX-License-Identifier: MIT */
/*
 * No call of libc that reads, writes, locks or looks up inside keeps the other threads waiting: stdio on slow descriptors, locked
 * streams, callbacks that block, resolver, dynamic linker, posix_spawn.  syslog's socket is the system's: it is asked for its line on
 * stderr.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <err.h>
#include <error.h>
#include <execinfo.h>
#include <fmtmsg.h>
#include <ftw.h>
#include <grp.h>
#include <malloc.h>
#include <mntent.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <resolv.h>
#include <shadow.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio_ext.h>
#include <sys/stat.h>
#include <syslog.h>
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
static int with_list(void (*fn)(const char *, va_list), const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fn(fmt, ap);
	va_end(ap);
	return 1;
}
static int c_vwarn(void) { return with_list(vwarn, "%d", 1); }
static int c_vwarnx(void) { return with_list(vwarnx, "%d", 1); }
static int c_warnx(void) { warnx("%s", "warnx"); return 1; }
static int c_psiginfo(void) { siginfo_t si = { .si_signo = SIGUSR1 }; psiginfo(&si, "psiginfo"); return 1; }
static int c_herror(void) { herror("herror"); return 1; }
static int c_fmtmsg(void) { return fmtmsg(MM_PRINT, "no:stall", MM_INFO, "fmtmsg", NULL, NULL) != MM_NOTOK; }
static int c_error(void) { error(0, 0, "error"); return 1; }
static int c_backtrace(void) { void *at[1] = { (void *)c_error }; backtrace_symbols_fd(at, 1, 2); return 1; }
static int c_syslog(void) { openlog("nostall", LOG_PERROR, LOG_USER); syslog(LOG_INFO, "syslog"); return 1; }
static void to_syslog(const char *fmt, va_list ap) { vsyslog(LOG_INFO, fmt, ap); }
static int c_vsyslog(void) { openlog("nostall", LOG_PERROR, LOG_USER); return with_list(to_syslog, "%d", 1); }
static int c_psignal(void) { psignal(SIGUSR1, "psignal"); return 1; }

/* ---- records of files; three of these readers want to know first where they are, which no pipe says ---- */

static void put_mount(void) { if (write(fd[1], "a /b c d 0 0\n", 13) != 13) die("put"); close(fd[1]); fd[1] = -1; }
static int c_fgetpwent(void) { return fgetpwent(f) == NULL; }
static int c_fgetgrent(void) { return fgetgrent(f) == NULL; }
static int c_fgetspent(void) { return fgetspent(f) == NULL; }
static int c_getmntent(void) { struct mntent *p = getmntent(f); return p != NULL && p->mnt_dir[1] == 'b'; }
static int c_putpwent(void) { struct passwd p = { "a", "x", 1, 1, "", "", "" }; return putpwent(&p, f) == 0; }
static int c_putgrent(void) { struct group p = { "a", "x", 1, (char *[]){ NULL } }; return putgrent(&p, f) == 0; }
static int c_putspent(void) { struct spwd p = { "a", "x", 1, 1, 1, 1, 1, 1, 0 }; return putspent(&p, f) == 0; }
static int c_putw(void) { return putw(1, f) == 0; }
static int c_fseek(void) { return fputs("x", f) >= 0 && fseek(f, 0, SEEK_SET) == -1; }
static int c_rewind(void) { if (fputs("x", f) < 0) return 0; rewind(f); return 1; }

/* ---- a stream that another thread has locked ---- */

static void f_locked(void) { make_pipe(); f = fdopen(fd[1], "w"); putc('x', f); flockfile(f); }
static void f_unlock(void) { funlockfile(f); }
static int c_flockfile(void) { flockfile(f); funlockfile(f); return 1; }
static int c_feof(void) { return feof(f) == 0; }
static int c_ferror(void) { return ferror(f) == 0; }
static int c_ftell(void) { return ftell(f) == -1; }
static int c_clearerr(void) { clearerr(f); return 1; }
static int c_setbuf(void) { setbuf(f, NULL); return 1; }
static int c_setbuffer(void) { setbuffer(f, NULL, 0); return 1; }
static int c_setlinebuf(void) { setlinebuf(f); return 1; }
static int c_ungetc(void) { ungetc('x', f); return 1; }
static int c_ungetwc(void) { ungetwc('x', f); return 1; }
static int c_ftello(void) { return ftello(f) == -1; }
static int c_fgetpos(void) { fpos_t p; return fgetpos(f, &p) == -1; }
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
/* The resolver of this thread asks our server. */
static void ask_ours(void)
{
	res_init();
	_res.nscount = 1;
	_res.nsaddr_list[0] = server;
	_res.retrans = 30;
	_res.retry = 1;
	_res.ndots = 1;
	_res.options &= ~(unsigned long)(RES_DNSRCH | RES_DEFNAMES);
}
static int c_getaddrinfo(void)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *ai;

	ask_ours();
	return getaddrinfo("nostall.example", "80", &hints, &ai) != 0;
}
static int c_getnameinfo(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(0xc0000201) } }; /* 192.0.2.1, nobody's */

	ask_ours();
	return getnameinfo((struct sockaddr *)&a, sizeof a, buf, sizeof buf, NULL, 0, NI_NAMEREQD) != 0;
}
static int c_gethostbyname(void) { ask_ours(); return gethostbyname("nostall.example") == NULL; }
static int c_gethostbyaddr(void) { in_addr_t a = htonl(0xc0000201); ask_ours(); return gethostbyaddr(&a, 4, AF_INET) == NULL; }
static int c_gethostbyname_r(void)
{
	struct hostent h, *r;
	char b[1024];
	int e;

	ask_ours();
	gethostbyname_r("nostall.example", &h, b, sizeof b, &r, &e);
	return r == NULL;
}
static int c_res_query(void) { unsigned char a[512]; ask_ours(); return res_query("nostall.example", ns_c_in, ns_t_a, a, sizeof a) < 0; }
static int c_res_search(void) { unsigned char a[512]; ask_ours(); return res_search("nostall.example", ns_c_in, ns_t_a, a, sizeof a) < 0; }
static int c_res_querydomain(void)
{
	unsigned char a[512];
	ask_ours();
	return res_querydomain("nostall", "example", ns_c_in, ns_t_a, a, sizeof a) < 0;
}
/* Asked through the hosts line of nsswitch.conf, if that names dns; else they would not wait. */
static int dns;
static void nss_setup(void)
{
	char line[256];
	FILE *conf = fopen("/etc/nsswitch.conf", "r");

	dns = 0;
	while (conf && fgets(line, sizeof line, conf))
		dns |= strncmp(line, "hosts:", 6) == 0 && strstr(line, " dns") != NULL;
	if (conf)
		fclose(conf);
	ns_setup();
}
#define BY_NSS(name) static int c_nss_##name(void) { return dns ? c_##name() : recv(fd[0], buf, 1, 0) >= 0; }
BY_NSS(getaddrinfo) BY_NSS(getnameinfo) BY_NSS(gethostbyname) BY_NSS(gethostbyaddr) BY_NSS(gethostbyname_r)
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
/* As often as it is asked. */
static void ns_answers(void)
{
	struct pollfd p = { fd[0], POLLIN, 0 };

	if (!dns)
		sendto(fd[0], "x", 1, 0, (struct sockaddr *)&server, sizeof server);
	while (dns && !atomic_load(&left))
		if (poll(&p, 1, 1) == 1)
			ns_answer();
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

/* Another thread is in that constructor and has the loader's lock, which dlsym wants: no call announces that. */
static pthread_t opener;
static void *open_it(void *arg) { (void)arg; return (void *)(long)c_dlopen(); }
static void dlsym_setup(void)
{
	dl_setup();
	pthread_create(&opener, NULL, open_it, NULL);
	nap(20000);
}
static int c_dlsym(void)
{
	char c;
	return built ? dlsym(RTLD_DEFAULT, "malloc") != NULL : read(fd[0], &c, 1) == 1;
}
static void dlsym_release(void) { if (write(fd[1], "xx", 2) != 2) die("put"); }
static void dlsym_after(void)
{
	void *ok;

	pthread_join(opener, &ok);
	if (!ok)
		die("dlopen");
	dl_after();
}

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
	{ "vwarn: full pipe", err_full, c_vwarn, drain, err_back },
	{ "warnx: full pipe", err_full, c_warnx, drain, err_back },
	{ "vwarnx: full pipe", err_full, c_vwarnx, drain, err_back },
	{ "psiginfo: full pipe", err_full, c_psiginfo, drain, err_back },
	{ "herror: full pipe", err_full, c_herror, drain, err_back },
	{ "fmtmsg: full pipe", err_full, c_fmtmsg, drain, err_back },
	{ "error: full pipe", err_full, c_error, drain, err_back },
	{ "backtrace_symbols_fd: full pipe", err_full, c_backtrace, drain, err_back },
	{ "syslog: full pipe", err_full, c_syslog, drain, err_back },
	{ "vsyslog: full pipe", err_full, c_vsyslog, drain, err_back },
	{ "putw: full pipe", f_unbuffered, c_putw, drain, w_close },
	{ "fseek: full pipe", f_buffered, c_fseek, drain, w_close },
	{ "rewind: full pipe", f_buffered, c_rewind, drain, w_close },
	{ "putpwent: full pipe", f_unbuffered, c_putpwent, drain, w_close },
	{ "putgrent: full pipe", f_unbuffered, c_putgrent, drain, w_close },
	{ "putspent: full pipe", f_unbuffered, c_putspent, drain, w_close },
	{ "locked stream: fgetpwent", f_locked, c_fgetpwent, f_unlock, w_close },
	{ "locked stream: fgetgrent", f_locked, c_fgetgrent, f_unlock, w_close },
	{ "locked stream: fgetspent", f_locked, c_fgetspent, f_unlock, w_close },
	{ "getmntent", f_pipe, c_getmntent, put_mount, f_close },
	{ "locked stream: clearerr", f_locked, c_clearerr, f_unlock, w_close },
	{ "locked stream: setbuf", f_locked, c_setbuf, f_unlock, w_close },
	{ "locked stream: setbuffer", f_locked, c_setbuffer, f_unlock, w_close },
	{ "locked stream: setlinebuf", f_locked, c_setlinebuf, f_unlock, w_close },
	{ "locked stream: ungetc", f_locked, c_ungetc, f_unlock, w_close },
	{ "locked stream: ungetwc", f_locked, c_ungetwc, f_unlock, w_close },
	{ "locked stream: ftello", f_locked, c_ftello, f_unlock, w_close },
	{ "locked stream: fgetpos", f_locked, c_fgetpos, f_unlock, w_close },
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
	{ "res_query", nss_setup, c_res_query, ns_answers, close_both },
	{ "res_search", nss_setup, c_res_search, ns_answers, close_both },
	{ "res_querydomain", nss_setup, c_res_querydomain, ns_answers, close_both },
	{ "getaddrinfo", nss_setup, c_nss_getaddrinfo, ns_answers, close_both },
	{ "getnameinfo", nss_setup, c_nss_getnameinfo, ns_answers, close_both },
	{ "gethostbyname", nss_setup, c_nss_gethostbyname, ns_answers, close_both },
	{ "gethostbyaddr", nss_setup, c_nss_gethostbyaddr, ns_answers, close_both },
	{ "gethostbyname_r", nss_setup, c_nss_gethostbyname_r, ns_answers, close_both },
	{ "dlsym: beside a slow constructor", dlsym_setup, c_dlsym, dlsym_release, dlsym_after },
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
