/* SPDX-License-Identifier: MIT */
/*
 * The command `pgreen`: puts libpgreen.so in front of LD_PRELOAD and executes a program, or says in one line
 * why that would not work.  It keeps no state and leaves nothing behind: after the exec there is only the
 * program.
 *
 * Exit status when it does not become the program: 125 wrong use, 126 cannot be run (so), 127 not found.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload/program.h"

#define LIBRARY "libpgreen.so"

static const char usage[] =
	"Usage: pgreen [options] [--] PROGRAM [ARG...]\n"
	"Runs an unmodified pthread program on green threads.\n"
	"\n"
	"  --maxprocs N     use N processors (PGREEN_MAXPROCS)\n"
	"  --wire PATTERN   threads with such a name get an OS thread each (PGREEN_WIRE)\n"
	"  --stats          print counters on stderr at exit (PGREEN_STATS)\n"
	"  --schedtrace MS  print a line of scheduler state on stderr every MS milliseconds "
	"(PGREEN_SCHEDTRACE)\n"
	"\n"
	"  --check PROGRAM  say whether PROGRAM would run on green threads, and if not, why\n"
	"  --list           list the calls covered\n"
	"  --version        print the version\n"
	"  --help           print this\n"
	"\n"
	"PGREEN=off in the environment runs PROGRAM natively. See pgreen(1) for all knobs.\n";

static _Noreturn void fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static _Noreturn void fail(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("pgreen: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(status);
}

/* What happens at a call, by the kind of its row in calls.def. */
static const char *kind_text(const char *kind)
{
	static const char *const kinds[][2] = {
		{"own", "parks the thread alone, or answers for it"},
		{"ann", "announced: others run on if it blocks"},
		{"load", "announced: others run on if it blocks"},
		{"annp", "announced: others run on if it blocks"},
		{"spawn", "announced: others run on if it blocks"},
		{"annr", "announced: others run on if it blocks"},
		{"annv", "announced: others run on if it blocks"},
		{"cann", "announced: others run on if it blocks; cancellation point"},
		{"cannr", "announced: others run on if it blocks; cancellation point"},
		{"exec", "the new program starts with nothing of ours pending"},
		{"long", "gives its processor away at once"},
		{"longr", "gives its processor away at once"},
		{"clong", "gives its processor away at once; cancellation point"},
		{"clongr", "gives its processor away at once; cancellation point"},
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i][0], kind) == 0)
			return kinds[i][1];
	return kind;
}

static void list_calls(void)
{
	static const char *const calls[][3] = {
#define C(kind, family, version, ret, name, params, args) {#name, #family, #kind},
#include "shim/calls.def"
#undef C
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		printf("%-32s %-10s %s\n", calls[i][0], calls[i][1], kind_text(calls[i][2]));
}

/*
 * The library: beside this executable, where `make install` puts it relative to that, or in the prefix given
 * at build time. False if it is in none of these places.
 */
static bool find_library(char lib[PATH_MAX])
{
	static const char *const places[] = {"/" LIBRARY, "/../lib/pgreen/" LIBRARY};
	char self[PATH_MAX], joined[PATH_MAX + sizeof("/../lib/pgreen/" LIBRARY)];

	if (realpath("/proc/self/exe", self)) {
		*strrchr(self, '/') = '\0';
		for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
			snprintf(joined, sizeof(joined), "%s%s", self, places[i]);
			if (realpath(joined, lib))
				return true;
		}
	}
	return realpath(PG_LIBDIR "/" LIBRARY, lib) != NULL;
}

/* What keeps the library from being preloaded into anything, or NULL. */
static const char *library_problem(char lib[PATH_MAX])
{
	if (!find_library(lib))
		return LIBRARY " is neither beside this command nor in " PG_LIBDIR;
	if (strpbrk(lib, " :"))
		return "LD_PRELOAD cannot name a library in a directory with a space or a colon in its name";
	if (access(lib, R_OK) < 0)
		return LIBRARY " cannot be read";
	return NULL;
}

static void set_variable(const char *name, const char *value)
{
	if (setenv(name, value, 1) < 0)
		fail(125, "out of memory");
}

/* Puts the library in front and keeps the rest, unless it is in front already. */
static void set_preload(const char *lib)
{
	const char *old = getenv("LD_PRELOAD");
	size_t n = strlen(lib);
	char *all;

	if (!old || *old == '\0') {
		set_variable("LD_PRELOAD", lib);
		return;
	}
	if (strncmp(old, lib, n) == 0 && (old[n] == '\0' || strchr(": ", old[n])))
		return;
	if (asprintf(&all, "%s:%s", lib, old) < 0)
		fail(125, "out of memory");
	set_variable("LD_PRELOAD", all);
	free(all);
}

/* execve, and as in execvp what the kernel does not know as a program goes to the shell. */
static _Noreturn void execute(const char *path, char **argv)
{
	execv(path, argv);
	if (errno == ENOEXEC) {
		size_t n = 0;
		while (argv[n])
			n++;
		char **sh = calloc(n + 2, sizeof(*sh));
		if (!sh)
			fail(125, "out of memory");
		sh[0] = (char *)"/bin/sh";
		sh[1] = (char *)path;
		memcpy(sh + 2, argv + 1, (n - 1) * sizeof(*sh));
		execv(sh[0], sh);
	}
	fail(errno == ENOENT ? 127 : 126, "%s: %s", path, strerror(errno));
}

static void find_program(const char *name, char path[PATH_MAX], int notfound, int notexecutable)
{
	int err = pg_program_find(name, path);

	if (err == EACCES)
		fail(notexecutable, "%s: cannot be executed", name);
	if (err)
		fail(notfound, "%s: not found", name);
}

/* --check: 0 if the program would be started, 1 if it would be refused. */
static int check(const char *name)
{
	static struct pg_program pr;
	char path[PATH_MAX], lib[PATH_MAX];
	const char *problem = library_problem(lib);

	find_program(name, path, 1, 1);
	pg_program_examine(path, &pr);
	printf("program: %s\n", path);
	if (strcmp(pr.image, path) != 0)
		printf("run by:  %s\n", pr.image);
	if (pr.loader[0])
		printf("loader:  %s\n", pr.loader);
	if (!problem)
		printf("library: %s\n", lib);
	if (pr.fate != PG_FATE_GREEN)
		printf("verdict: %s: %s\n", pr.fate == PG_FATE_NATIVE ? "native" : "no", pr.why);
	else if (problem)
		printf("verdict: no: %s\n", problem);
	else if (pr.why[0])
		printf("verdict: unknown: %s\n", pr.why);
	else
		puts("verdict: yes: runs on green threads");
	return pr.fate == PG_FATE_REFUSE || (problem && pr.fate == PG_FATE_GREEN);
}

static _Noreturn void run(char **argv)
{
	static struct pg_program pr;
	char path[PATH_MAX], lib[PATH_MAX];
	const char *mode = getenv("PGREEN"), *problem;

	find_program(argv[0], path, 127, 126);
	if (mode && strcmp(mode, "off") == 0)
		execute(path, argv);
	pg_program_examine(path, &pr);
	if (pr.fate == PG_FATE_REFUSE)
		fail(pr.status, "%s", pr.why);
	if (pr.why[0])
		fprintf(stderr, "pgreen: %s\n", pr.why);
	if (pr.fate == PG_FATE_NATIVE)
		execute(path, argv);
	if ((problem = library_problem(lib)))
		fail(125, "%s", problem);
	set_preload(lib);
	execute(path, argv);
}

/* The value of option `name` at argv[*i], given as --name=VALUE or as the next word; NULL if argv[*i] is
 * another option. */
static const char *option_value(char **argv, int *i, const char *name)
{
	size_t n = strlen(name);

	if (strncmp(argv[*i], name, n) != 0)
		return NULL;
	if (argv[*i][n] == '=')
		return argv[*i] + n + 1;
	if (argv[*i][n] != '\0')
		return NULL;
	if (!argv[*i + 1])
		fail(125, "%s needs a value", name);
	return argv[++*i];
}

static const char *number(const char *option, const char *text)
{
	if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
		fail(125, "%s takes a number, not '%s'", option, text);
	return text;
}

/* An answer on stdout counts only if it got there. */
static int finish(int status)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		fail(125, "cannot write: %s", strerror(errno));
	return status;
}

int main(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc && argv[i][0] == '-' && argv[i][1] != '\0'; i++) {
		const char *value;

		if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		} else if (strcmp(argv[i], "--help") == 0) {
			fputs(usage, stdout);
			return finish(0);
		} else if (strcmp(argv[i], "--version") == 0) {
			puts("pgreen " PG_VERSION);
			return finish(0);
		} else if (strcmp(argv[i], "--list") == 0) {
			list_calls();
			return finish(0);
		} else if (strcmp(argv[i], "--stats") == 0) {
			set_variable("PGREEN_STATS", "1");
		} else if ((value = option_value(argv, &i, "--maxprocs"))) {
			set_variable("PGREEN_MAXPROCS", number("--maxprocs", value));
		} else if ((value = option_value(argv, &i, "--wire"))) {
			set_variable("PGREEN_WIRE", value);
		} else if ((value = option_value(argv, &i, "--schedtrace"))) {
			set_variable("PGREEN_SCHEDTRACE", number("--schedtrace", value));
		} else if ((value = option_value(argv, &i, "--check"))) {
			if (argv[i + 1])
				fail(125, "--check takes one program and nothing after it");
			return finish(check(value));
		} else {
			fail(125, "no such option: %s (try pgreen --help)", argv[i]);
		}
	}
	if (i >= argc)
		fail(125, "no program given (try pgreen --help)");
	run(argv + i);
}
