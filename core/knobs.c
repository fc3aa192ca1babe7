/* SPDX-License-Identifier: MIT */
/*
 * The knobs, read from the environment once, by the constructor, before there is a second thread; constant
 * afterwards.  A value is a decimal number; a size in bytes may have k, m or g behind it for 1024, its square
 * and its cube.  Anything else, a number out of range or a PGREEN_ name that is none gets one line, and the
 * default stays.  As with getenv, the first of two entries of one name counts.  A few are text, which is copied: programs
 * write over their environment.
 *
 * Needs from below: pg_say.  No libc: the constructor may run before that of the program's malloc.
 */
#include "core/knobs.h"

#include <stddef.h>

#include "core/say.h"

struct pg_knobs pg_knobs = {
#define X(name, field, def, lo, hi, doc) .field = (def),
	PG_KNOBS(X)
#undef X
};

static const struct knob {
	const char *name;
	size_t offset;
	int64_t least, most; /* both 0: a text */
} knobs[] = {
#define X(name, field, def, lo, hi, doc) {name, offsetof(struct pg_knobs, field), (lo), (hi)},
	PG_KNOBS(X)
#undef X
#define X(name, field, doc) {name, offsetof(struct pg_knobs, field), 0, 0},
	PG_TEXT_KNOBS(X)
#undef X
};
#define NKNOBS (sizeof(knobs) / sizeof(knobs[0]))
_Static_assert(NKNOBS <= 64, "a bit for each knob in pg_knobs_init");

/* What follows prefix in s, or NULL. */
static const char *after(const char *s, const char *prefix)
{
	while (*prefix)
		if (*s++ != *prefix++)
			return NULL;
	return s;
}

static bool parse(const char *s, bool bytes, int64_t *value)
{
	int64_t v = 0;
	int shift = 0;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *s - '0', &v))
			return false;
	switch (bytes ? *s : '\0') {
	case 'g':
	case 'G':
		shift += 10; /* fall through */
	case 'm':
	case 'M':
		shift += 10; /* fall through */
	case 'k':
	case 'K':
		shift += 10;
		s++;
	}
	if (*s != '\0')
		return false;
	return !__builtin_mul_overflow(v, (int64_t)1 << shift, value);
}

static void set_text(const struct knob *k, const char *text)
{
	char *to = (char *)&pg_knobs + k->offset;
	size_t n = 0;

	while (text[n])
		n++;
	if (n >= PG_KNOB_TEXT) {
		pg_say("PGREEN_%s keeps its default, for this is longer than %d characters: %s", k->name, PG_KNOB_TEXT - 1, text);
		return;
	}
	for (size_t i = 0; i <= n; i++)
		to[i] = text[i];
}

static void set(const struct knob *k, const char *text)
{
	bool bytes = k->most == INT64_MAX; /* only sizes have no bound */
	int64_t v;

	if (parse(text, bytes, &v) && v >= k->least && v <= k->most)
		*(int64_t *)((char *)&pg_knobs + k->offset) = v;
	else if (bytes)
		pg_say("PGREEN_%s keeps its default, for this is no number of bytes: %s", k->name, text);
	else
		pg_say("PGREEN_%s keeps its default, for this is no number from %ld to %ld: %s", k->name,
		       k->least, k->most, text);
}

static void set_switch(const char *text)
{
	const char *rest;

	if ((rest = after(text, "off")) && *rest == '\0')
		pg_knobs.off = true;
	else if (*text != '\0' && !((rest = after(text, "on")) && *rest == '\0'))
		pg_say("PGREEN is on or off, and stays on, for this is neither: %s", text);
}

void pg_knobs_init(char **environ_)
{
	uint64_t seen = 0;
	bool seen_switch = false;

	for (char **e = environ_; e && *e; e++) {
		const char *name, *text = NULL;
		size_t i;

		if ((text = after(*e, "PGREEN=")) && !seen_switch) {
			seen_switch = true;
			set_switch(text);
		}
		if (!(name = after(*e, "PGREEN_")))
			continue;
		for (i = 0; i < NKNOBS; i++)
			if ((text = after(name, knobs[i].name)) && *text == '=')
				break;
		if (i == NKNOBS) {
			pg_say("there is no such knob: %s", *e);
		} else if (!(seen >> i & 1)) {
			seen |= 1ull << i;
			if (knobs[i].most == 0)
				set_text(&knobs[i], text + 1);
			else
				set(&knobs[i], text + 1);
		}
	}
}
