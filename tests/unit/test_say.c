/* SPDX-License-Identifier: MIT */
/* core/say.c: formats, the length limit, and how the two fatal voices end the process. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/say.h"
#include "tests/unit/support.h"

static char text[8192], want[1024];

static void formats(void *arg)
{
	const char *none = arg;

	pg_say("a %s b %s %d %d %u %x %%", "str", none, -5, INT32_MIN, 4294967295u, 0xbeefu);
	pg_say("%ld %lu %lx %lld %zu", INT64_MIN, UINT64_MAX, 0xfedcba9876543210ul, -1ll, sizeof(int));
	pg_say("%p %p", (void *)0x1234, NULL);
	pg_say("own newline\n");
	pg_say("%s", "");
}

static void says_what_printf_would(void)
{
	int st = unit_in_child(formats, NULL, text, sizeof text);

	assert_int_equal(st, 0);
	snprintf(want, sizeof want, "pgreen: a str b (null) %d %d %u %x %%\n", -5, INT32_MIN, 4294967295u, 0xbeefu);
	snprintf(want + strlen(want), sizeof want - strlen(want), "pgreen: %ld %lu %lx %lld %zu\n", INT64_MIN, UINT64_MAX,
		 0xfedcba9876543210ul, -1ll, sizeof(int));
	strcat(want, "pgreen: 0x1234 0x0\npgreen: own newline\npgreen: \n");
	assert_string_equal(text, want);
}

static void long_line(void *arg)
{
	char big[4000];

	(void)arg;
	memset(big, 'x', sizeof big);
	big[sizeof big - 1] = 0;
	pg_say("%s%d", big, 42);
	pg_say("next");
}

static void cuts_long_lines(void)
{
	char *nl;

	assert_int_equal(unit_in_child(long_line, NULL, text, sizeof text), 0);
	nl = strchr(text, '\n');
	assert_non_null(nl);
	assert_true(nl - text < 600 && nl - text > 200);
	assert_string_equal(nl + 1, "pgreen: next\n");
}

static void caught(int sig)
{
	(void)sig;
	_exit(7);
}

static void throwing(void *arg)
{
	struct sigaction sa = {.sa_handler = arg ? caught : SIG_IGN};
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	sigaction(SIGABRT, &sa, NULL);
	pg_throw("bug %d", 1);
}

/* Whatever the program made of SIGABRT. */
static void throw_aborts(void)
{
	for (int i = 0; i < 2; i++) {
		int st = unit_in_child(throwing, i ? text : NULL, text, sizeof text);
		assert_true(WIFSIGNALED(st));
		assert_int_equal(WTERMSIG(st), SIGABRT);
		assert_string_equal(text, "pgreen: bug 1\n");
	}
}

static void refusing(void *arg)
{
	(void)arg;
	pg_refuse("not here: %s", "go elsewhere");
}

static void refuse_exits_125(void)
{
	int st = unit_in_child(refusing, NULL, text, sizeof text);

	assert_true(WIFEXITED(st));
	assert_int_equal(WEXITSTATUS(st), 125);
	assert_string_equal(text, "pgreen: not here: go elsewhere\n");
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(says_what_printf_would),
	UNIT_NATIVE(cuts_long_lines),
	UNIT_NATIVE(throw_aborts),
	UNIT_NATIVE(refuse_exits_125),
};
UNIT_MAIN(tests)
