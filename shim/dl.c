/* SPDX-License-Identifier: MIT */
/*
 * dlopen and dlclose: core/tls.c must know of modules with TLS that come and go, and a fork must not come in the middle, when
 * ld.so holds a lock that nobody would release in the child.  So something is to be done after the call.
 *
 * But glibc also looks at who calls: a name without a slash is searched for along the caller's DT_RUNPATH or DT_RPATH, and
 * $ORIGIN is the caller's.  Called from here that would be this library, which has neither.  So, when the caller is an object
 * with a search path of its own, its path is asked of glibc (RTLD_DI_SERINFO: everything in glibc's order, expanded) and
 * gone through here; in all other cases the answer is the same whoever asks: the RPATH of the program itself applies to every
 * object it loads, preloaded ones too.  Rejected: a tail call, which keeps the return address, because then nothing of ours
 * runs afterwards; and returning through an instruction found in the caller, because no unwinder would follow.
 * The caller is always in the base namespace: a preload is in no other.
 *
 * Differs: along such a path the glibc-hwcaps subdirectories are not looked at.
 */
#include "shim/shim.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/thread.h"

static struct link_map *object_at(void *pc)
{
	Dl_info info;
	void *map = NULL;

	return dladdr1(pc, &info, &map, RTLD_DL_LINKMAP) ? map : NULL;
}

static bool has_path(const struct link_map *map)
{
	for (const ElfW(Dyn) *d = map->l_ld; d && d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_RUNPATH || d->d_tag == DT_RPATH)
			return true;
	}
	return false;
}

static void *real(Lmid_t ns, const char *file, int mode)
{
	struct pg_g *g = pg_self();
	int begun;
	void *h;

	if (file == NULL || mode & RTLD_NOLOAD)
		return ns == LM_ID_BASE ? PG_REAL(dlopen)(file, mode) : PG_REAL(dlmopen)(ns, file, mode);
	pg_tls_loading(1);
	begun = pg_ldso_begin(g);
	h = ns == LM_ID_BASE ? PG_REAL(dlopen)(file, mode) : PG_REAL(dlmopen)(ns, file, mode);
	pg_ldso_end(g, begun);
	pg_tls_look();
	pg_tls_loading(-1);
	return h;
}

/* "$ORIGIN/..." or "${ORIGIN}/..." with the directory of map; NULL: nothing to replace, or no memory. */
static char *expand(struct link_map *map, const char *file)
{
	char dir[4096], *s;
	size_t n;

	if (strncmp(file, "$ORIGIN/", 8) == 0)
		file += 7;
	else if (strncmp(file, "${ORIGIN}/", 10) == 0)
		file += 9;
	else
		return NULL;
	if (dlinfo(map, RTLD_DI_ORIGIN, dir) < 0)
		return NULL;
	n = strlen(dir) + strlen(file) + 1;
	s = malloc(n);
	if (s) {
		strcpy(s, dir);
		strcat(s, file);
	}
	return s;
}

/* The search path of map, or NULL. */
static Dl_serinfo *path_of(struct link_map *map)
{
	Dl_serinfo size, *info;

	if (map == NULL || dlinfo(map, RTLD_DI_SERINFOSIZE, &size) < 0)
		return NULL;
	info = malloc(size.dls_size);
	if (info == NULL)
		return NULL;
	if (dlinfo(map, RTLD_DI_SERINFOSIZE, info) < 0 || dlinfo(map, RTLD_DI_SERINFO, info) < 0) {
		free(info);
		return NULL;
	}
	return info;
}

/* How many directories of a come before the end it has in common with b. */
static unsigned differ(const Dl_serinfo *a, const Dl_serinfo *b)
{
	unsigned n = a->dls_cnt, m = b->dls_cnt;

	while (n > 0 && m > 0 && strcmp(a->dls_serpath[n - 1].dls_name, b->dls_serpath[m - 1].dls_name) == 0) {
		n--;
		m--;
	}
	return n;
}

static char *in_dir(const char *dir, const char *file)
{
	char *s = malloc(strlen(dir) + strlen(file) + 2);

	if (s == NULL)
		return NULL;
	strcpy(s, dir);
	strcat(s, "/");
	strcat(s, file);
	if (access(s, R_OK) == 0)
		return s;
	free(s);
	return NULL;
}

/*
 * The first file of this name along the path of map; NULL: none, or no memory.  The end which our own path shares with it
 * (LD_LIBRARY_PATH perhaps, the system's directories, before them the cache) is left to glibc.
 */
static char *search(struct link_map *map, const char *file)
{
	Dl_serinfo *theirs = path_of(map), *own = path_of(object_at((void *)(uintptr_t)search));
	char *found = NULL;

	if (theirs && own) {
		unsigned n = differ(theirs, own);

		for (unsigned i = 0; i < n && !found; i++)
			found = in_dir(theirs->dls_serpath[i].dls_name, file);
	}
	free(theirs);
	free(own);
	return found;
}

static void *open_for(void *caller, Lmid_t ns, const char *file, int mode)
{
	struct link_map *map;
	char *path = NULL;
	void *h = NULL;
	int saved = errno;

	if (file && *file && (strchr(file, '/') == NULL || file[0] == '$') && (map = object_at(caller)) != NULL) {
		if (file[0] == '$') {
			path = expand(map, file);
		} else if (has_path(map)) {
			/* What is loaded already goes by its name, wherever it came from. */
			h = real(ns, file, mode | RTLD_NOLOAD);
			if (h == NULL) {
				dlerror();
				path = search(map, file);
			}
		}
	}
	if (h == NULL) {
		errno = saved;
		h = real(ns, path ? path : file, mode);
	}
	saved = errno;
	free(path);
	errno = saved;
	return h;
}

PG_EXPORT void *dlopen(const char *file, int mode)
{
	return open_for(__builtin_return_address(0), LM_ID_BASE, file, mode);
}

PG_EXPORT void *dlmopen(Lmid_t ns, const char *file, int mode)
{
	return open_for(__builtin_return_address(0), ns, file, mode);
}

/* Blocks: in destructors of the program's; and while another thread is looking up a symbol. */
PG_EXPORT int dlclose(void *handle)
{
	struct pg_g *g = pg_self();
	int begun = pg_ldso_begin(g), r;

	r = PG_REAL(dlclose)(handle);
	pg_ldso_end(g, begun);
	pg_tls_look();
	return r;
}
