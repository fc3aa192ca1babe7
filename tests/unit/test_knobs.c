/* SPDX-License-Identifier: MIT */
/* core/knobs.c: values, defaults, and the one line that a wrong value gets. */
#include <string.h>
#include <sys/wait.h>

#include "core/knobs.h"
#include "tests/unit/support.h"

static char text[4096];

struct want {
	char *env[8];
	bool (*check)(void);
};

static void parse(void *arg)
{
	struct want *w = arg;

	pg_knobs_init(w->env);
	if (!w->check())
		__builtin_trap();
}

static void given(struct want w)
{
	int st = unit_in_child(parse, &w, text, sizeof text);

	assert_true(WIFEXITED(st) && WEXITSTATUS(st) == 0);
}

static unsigned lines(void)
{
	unsigned n = 0;

	for (const char *s = text; (s = strchr(s, '\n')); s++)
		n++;
	return n;
}

static bool defaults(void)
{
	return !pg_knobs.off && pg_knobs.maxprocs == 0 && pg_knobs.stack == 0 && pg_knobs.preempt == 10000 &&
	       pg_knobs.maxm == 10000 && pg_knobs.chaos == 0;
}
static bool three(void) { return pg_knobs.maxprocs == 3 && pg_knobs.preempt == 0 && pg_knobs.chaos == UINT32_MAX; }
static bool off(void) { return pg_knobs.off; }
static bool kilo(void) { return pg_knobs.stack == 64 << 10; }
static bool mega(void) { return pg_knobs.stack == 8 << 20; }
static bool giga(void) { return pg_knobs.stack == (int64_t)2 << 30; }

static void good_values(void)
{
	given((struct want){{NULL}, defaults});
	assert_string_equal(text, "");
	given((struct want){{"PATH=/bin", "PGREENX=1", "XPGREEN_MAXPROCS=7", "PGREEN=on", "PGREEN=", NULL}, defaults});
	assert_string_equal(text, "");
	given((struct want){{"PGREEN_MAXPROCS=3", "PGREEN_PREEMPT=0", "PGREEN_CHAOS=4294967295", NULL}, three});
	assert_string_equal(text, "");
	given((struct want){{"PGREEN=off", NULL}, off});
	given((struct want){{"PGREEN_STACK=64k", NULL}, kilo});
	given((struct want){{"PGREEN_STACK=65536", NULL}, kilo});
	given((struct want){{"PGREEN_STACK=8M", NULL}, mega});
	given((struct want){{"PGREEN_STACK=2g", NULL}, giga});
	assert_string_equal(text, "");
}

static void first_entry_counts(void)
{
	given((struct want){{"PGREEN=off", "PGREEN=on", NULL}, off});
	given((struct want){{"PGREEN_STACK=64k", "PGREEN_STACK=1m", NULL}, kilo});
	assert_string_equal(text, "");
}

static bool text_kept(void) { return strcmp(pg_knobs.wire, "io-*,main") == 0 && pg_knobs.maxprocs == 0; }
static bool text_empty(void) { return pg_knobs.wire[0] == '\0'; }

static void texts(void)
{
	static char longest[13 + PG_KNOB_TEXT] = "PGREEN_WIRE=";

	given((struct want){{"PGREEN_WIRE=io-*,main", "PGREEN_WIRE=other", NULL}, text_kept});
	assert_string_equal(text, "");
	given((struct want){{"PGREEN_WIRE=", NULL}, text_empty});
	assert_string_equal(text, "");
	memset(longest + 12, 'x', PG_KNOB_TEXT);
	given((struct want){{longest, NULL}, text_empty});
	assert_int_equal(lines(), 1);
	/* The text is ours: programs write over their environment. */
	char mine[] = "PGREEN_WIRE=a*b?c,,*z";
	pg_knobs_init((char *[]){mine, NULL});
	memset(mine, '#', sizeof mine - 1);
	assert_string_equal(pg_knobs.wire, "a*b?c,,*z");
	static const struct { const char *name; bool wired; } names[] = {
		{"abxc", true}, {"axxbbxc", true}, {"abc", false}, {"abxcd", false}, {"z", true}, {"xyz", true}, {"", true},
		{"b", false}, {"abxc,", false}, {"a", false}, {"abxbyc", true},
	};
	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
		assert_int_equal(pg_wire_named(names[i].name), names[i].wired);
	pg_knobs_init((char *[]){"PGREEN_WIRE=*", NULL});
	assert_true(pg_wire_named("") && pg_wire_named("any"));
	pg_knobs.wire[0] = '\0';
	assert_false(pg_wire_named(""));
}

static void wrong_values(void)
{
	static char *const bad[] = {
		"PGREEN_MAXPROCS=257", "PGREEN_MAXPROCS=-1", "PGREEN_MAXPROCS=", "PGREEN_MAXPROCS=3k", "PGREEN_MAXPROCS=0x3",
		"PGREEN_MAXPROCS= 3", "PGREEN_MAXPROCS=99999999999999999999", "PGREEN_STACK=64q", "PGREEN_STACK=k",
		"PGREEN_STACK=8kk", "PGREEN_STACK=9223372036854775807k", "PGREEN_MAXM=3", "PGREEN=maybe", "PGREEN=offf",
		"PGREEN_NOSUCH=1", "PGREEN_MAXPROC=1", "PGREEN_MAXPROCSX=1",
	};

	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		given((struct want){{bad[i], NULL}, defaults});
		assert_int_equal(lines(), 1);
		assert_int_equal(strncmp(text, "pgreen: ", 8), 0);
		/* The line names the knob. */
		assert_non_null(strstr(text, "PGREEN"));
	}
}

static const struct unit_test tests[] = {
	UNIT_NATIVE(good_values),
	UNIT_NATIVE(first_entry_counts),
	UNIT_NATIVE(texts),
	UNIT_NATIVE(wrong_values),
};
UNIT_MAIN(tests)
