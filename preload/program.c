/* SPDX-License-Identifier: MIT */
/*
 * What kind of program is behind a file name.  ld.so ignores a preload silently where it cannot or must not
 * honour it, so the launcher asks beforehand: is the image that the kernel maps dynamic, ours in
 * architecture, loaded by glibc's ld.so, and free of the secure-execution mode (see getauxval(3), AT_SECURE)?
 *
 * A script is judged by the interpreter of its #! line, at most LINKS deep as in the kernel; `#!/usr/bin/env
 * NAME` by env alone, whose child gets the preload from the environment.  Text without #! is what execvp
 * gives to /bin/sh.
 *
 * A file that may be executed but not read is let through with a word about it.
 */
#include "preload/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define LINKS    5   /* interpreters of interpreters that the kernel follows */
#define HASHBANG 256 /* how much of a #! line it reads */

/* A file in memory; NULL and 0 when empty. */
struct image {
	const unsigned char *at;
	size_t size;
};

static void verdict(struct pg_program *pr, enum pg_fate fate, int status, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void verdict(struct pg_program *pr, enum pg_fate fate, int status, const char *fmt, ...)
{
	va_list ap;

	pr->fate = fate;
	pr->status = status;
	va_start(ap, fmt);
	vsnprintf(pr->why, sizeof(pr->why), fmt, ap);
	va_end(ap);
}

static bool map_file(const char *path, struct image *im, struct stat *st)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	void *p = NULL;

	if (fd < 0)
		return false;
	if (fstat(fd, st) == 0 && st->st_size > 0)
		p = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	int err = errno;
	close(fd);
	errno = err;
	if (p == MAP_FAILED)
		return false;
	im->at = p;
	im->size = p ? (size_t)st->st_size : 0;
	return true;
}

static void unmap_file(struct image *im)
{
	if (im->at)
		munmap((void *)im->at, im->size);
}

/* n bytes of the image at offset, or NULL: the offsets come from a file that may be damaged. */
static const void *part(const struct image *im, uint64_t offset, uint64_t n)
{
	return offset <= im->size && n <= im->size - offset ? im->at + offset : NULL;
}

static bool has_bytes(const struct image *im, const char *text)
{
	return im->at && memmem(im->at, im->size, text, strlen(text));
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static const char *machine_name(const Elf64_Ehdr *eh)
{
	switch (eh->e_machine) {
	case EM_X86_64:
		return eh->e_ident[EI_CLASS] == ELFCLASS64 ? "64-bit x86" : "x32";
	case EM_386:
		return "32-bit x86";
	case EM_AARCH64:
		return "64-bit ARM";
	case EM_ARM:
		return "32-bit ARM";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "64-bit POWER";
	case EM_S390:
		return "s390";
	default:
		return "another processor";
	}
}

/* The launcher is built for the architecture of the library, so its own header says what fits. */
static bool same_machine(const Elf64_Ehdr *eh)
{
	static Elf64_Ehdr own;

	if (own.e_machine == 0) {
		int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, &own, sizeof(own));
		if (fd >= 0)
			close(fd);
		if (n != (ssize_t)sizeof(own)) {
			own.e_machine = 0;
			return true; /* without /proc nothing can be said */
		}
	}
	return eh->e_ident[EI_CLASS] == own.e_ident[EI_CLASS] &&
	       eh->e_ident[EI_DATA] == own.e_ident[EI_DATA] && eh->e_machine == own.e_machine;
}

/* The Go linker leaves a note with the owner "Go" and, usually, a section .go.buildinfo. */
static bool is_go(const struct image *im, const Elf64_Ehdr *eh)
{
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		const Elf64_Phdr *ph = part(im, eh->e_phoff + (uint64_t)i * sizeof(*ph), sizeof(*ph));
		if (!ph || ph->p_type != PT_NOTE)
			continue;
		for (uint64_t off = 0; off < ph->p_filesz;) {
			const Elf64_Nhdr *nh = part(im, ph->p_offset + off, sizeof(*nh) + 4);
			if (!nh)
				break;
			if (nh->n_namesz == 4 && memcmp(nh + 1, "Go", 3) == 0)
				return true;
			off += sizeof(*nh) + (((uint64_t)nh->n_namesz + 3) & ~3ull) +
			       (((uint64_t)nh->n_descsz + 3) & ~3ull);
		}
	}
	const Elf64_Shdr *names =
		part(im, eh->e_shoff + (uint64_t)eh->e_shstrndx * sizeof(*names), sizeof(*names));
	for (unsigned i = 0; names && i < eh->e_shnum; i++) {
		const Elf64_Shdr *sh = part(im, eh->e_shoff + (uint64_t)i * sizeof(*sh), sizeof(*sh));
		static const char want[] = ".go.buildinfo";
		const char *name = sh ? part(im, names->sh_offset + sh->sh_name, sizeof(want)) : NULL;
		if (name && memcmp(name, want, sizeof(want)) == 0)
			return true;
	}
	return false;
}

/*
 * Would the kernel start this image in secure-execution mode?  As in the kernel: when the effective ids after
 * the exec are not the real ones, or when file capabilities add to those of a caller who is not root.  A
 * caller with no_new_privs or a file system mounted nosuid switches the set-id bits off.
 */
static const char *secure_reason(const char *path, const struct stat *st)
{
	struct statvfs fs;
	bool nosuid = statvfs(path, &fs) == 0 && (fs.f_flag & ST_NOSUID);
	bool setid = !nosuid && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
	struct vfs_ns_cap_data caps;

	if (setid && (st->st_mode & S_ISUID)) {
		if (st->st_uid != getuid())
			return "is set-user-ID";
	} else if (geteuid() != getuid()) {
		return "would run under an assumed user ID";
	}
	if (setid && (st->st_mode & S_ISGID) && (st->st_mode & S_IXGRP)) {
		if (st->st_gid != getgid())
			return "is set-group-ID";
	} else if (getegid() != getgid()) {
		return "would run under an assumed group ID";
	}
	if (nosuid || getuid() == 0)
		return NULL;
	memset(&caps, 0, sizeof(caps));
	if (getxattr(path, "security.capability", &caps, sizeof(caps)) > 0 &&
	    ((caps.magic_etc & VFS_CAP_FLAGS_EFFECTIVE) || caps.data[0].permitted || caps.data[1].permitted))
		return "has file capabilities";
	return NULL;
}

/* The PT_INTERP of the image into loader, "" if there is none; false if the file is damaged. */
static bool find_loader(const struct image *im, const Elf64_Ehdr *eh, char loader[PATH_MAX])
{
	loader[0] = '\0';
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		const Elf64_Phdr *ph = part(im, eh->e_phoff + (uint64_t)i * sizeof(*ph), sizeof(*ph));
		if (!ph)
			return false;
		if (ph->p_type != PT_INTERP)
			continue;
		const char *name = part(im, ph->p_offset, ph->p_filesz);
		if (!name || ph->p_filesz < 2 || ph->p_filesz > PATH_MAX || name[ph->p_filesz - 1] != '\0')
			return false;
		strcpy(loader, name);
		return true;
	}
	return true;
}

static void examine_elf(const struct image *im, const struct stat *st, struct pg_program *pr)
{
	const Elf64_Ehdr *eh = part(im, 0, sizeof(*eh));
	const char *path = pr->image, *reason;
	struct image ld = {NULL, 0};
	struct stat ldst;

	if (eh && !same_machine(eh)) {
		verdict(pr, PG_FATE_REFUSE, 126, "%s is a program for %s, which the library is not built for",
			path, machine_name(eh));
		return;
	}
	if (!eh || (eh->e_type != ET_EXEC && eh->e_type != ET_DYN) || eh->e_phentsize != sizeof(Elf64_Phdr) ||
	    !find_loader(im, eh, pr->loader)) {
		verdict(pr, PG_FATE_REFUSE, 126, "%s is no program that can be executed, or it is damaged",
			path);
		return;
	}
	bool go = is_go(im, eh);
	/* ld.so run by name has no loader but itself, and honours the preload for what it is told to run. */
	bool is_loader =
		pr->loader[0] == '\0' && eh->e_type == ET_DYN && has_bytes(im, "_dl_allocate_tls") &&
		(strncmp(base_name(path), "ld-linux", 8) == 0 || strncmp(base_name(path), "ld.so", 5) == 0);
	if (pr->loader[0] == '\0' && !is_loader) {
		verdict(pr, PG_FATE_REFUSE, 126,
			"%s is statically linked%s: there is no ld.so to load the library", path,
			go ? " (and Go has its own scheduler)" : "");
		return;
	}
	if ((reason = secure_reason(path, st))) {
		verdict(pr, PG_FATE_REFUSE, 126, "%s %s: ld.so ignores LD_PRELOAD for it", path, reason);
		return;
	}
	if (!is_loader) {
		bool musl = strncmp(base_name(pr->loader), "ld-musl", 7) == 0;
		if (!musl && !map_file(pr->loader, &ld, &ldst)) {
			verdict(pr, PG_FATE_REFUSE, 127, "%s needs the loader %s: %s", path, pr->loader,
				strerror(errno));
			return;
		}
		bool glibc = !musl && has_bytes(&ld, "GLIBC_PRIVATE");
		unmap_file(&ld);
		if (!glibc) {
			verdict(pr, PG_FATE_REFUSE, 126, "%s is not a glibc program: its loader is %s", path,
				pr->loader);
			return;
		}
	}
	if (go)
		verdict(pr, PG_FATE_NATIVE, 0, "%s is a Go program and has its own scheduler: runs natively",
			path);
	else
		verdict(pr, PG_FATE_GREEN, 0, "%s", "");
}

/* The interpreter named by a #! line, as the kernel parses it; false if there is none on it. */
static bool hashbang(const struct image *im, char interp[HASHBANG])
{
	size_t i = 2, n = 0, end = im->size < HASHBANG ? im->size : HASHBANG;

	while (i < end && (im->at[i] == ' ' || im->at[i] == '\t'))
		i++;
	while (i < end && im->at[i] != '\n' && im->at[i] != ' ' && im->at[i] != '\t' && im->at[i] != '\0')
		interp[n++] = (char)im->at[i++];
	interp[n] = '\0';
	return n > 0 && i < HASHBANG;
}

/* 0, or the errno with which execve would refuse the file itself. */
static int executable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno;
	if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0)
		return EACCES;
	return 0;
}

void pg_program_examine(const char *path, struct pg_program *pr)
{
	char interp[HASHBANG];

	verdict(pr, PG_FATE_GREEN, 0, "%s", "");
	pr->loader[0] = '\0';
	snprintf(pr->image, sizeof(pr->image), "%s", path);
	for (int links = 0; links <= LINKS; links++) {
		struct image im = {NULL, 0};
		struct stat st;

		int err = executable(pr->image);
		if (err) {
			verdict(pr, PG_FATE_REFUSE, err == EACCES ? 126 : 127, "%s%s%s: %s", path,
				links ? " needs the interpreter " : "", links ? pr->image : "",
				strerror(err));
			return;
		}
		if (!map_file(pr->image, &im, &st)) {
			verdict(pr, PG_FATE_GREEN, 0,
				"%s cannot be read, so nobody knows whether it takes the library", pr->image);
			return;
		}
		if (im.size >= SELFMAG && memcmp(im.at, ELFMAG, SELFMAG) == 0) {
			examine_elf(&im, &st, pr);
			unmap_file(&im);
			return;
		}
		if (im.size >= 2 && im.at[0] == '#' && im.at[1] == '!') {
			if (!hashbang(&im, interp)) {
				verdict(pr, PG_FATE_REFUSE, 126, "%s names no interpreter after its #!",
					pr->image);
				unmap_file(&im);
				return;
			}
		} else {
			strcpy(interp, "/bin/sh");
		}
		unmap_file(&im);
		snprintf(pr->image, sizeof(pr->image), "%s", interp);
	}
	verdict(pr, PG_FATE_REFUSE, 126, "%s: its interpreters lead from script to script", path);
}

int pg_program_find(const char *name, char path[PATH_MAX])
{
	char fallback[PATH_MAX];
	const char *dirs = getenv("PATH");
	int worst = ENOENT;

	if (strlen(name) >= PATH_MAX)
		return ENAMETOOLONG;
	if (*name == '\0')
		return ENOENT;
	if (strchr(name, '/')) {
		strcpy(path, name);
		return executable(path);
	}
	if (!dirs) {
		size_t n = confstr(_CS_PATH, fallback, sizeof(fallback));
		dirs = n > 0 && n <= sizeof(fallback) ? fallback : "/bin:/usr/bin";
	}
	for (;; dirs++) {
		size_t n = strcspn(dirs, ":");
		/* An empty entry is the working directory; one that is too long is none. */
		int len = snprintf(path, PATH_MAX, "%.*s%s%s", (int)n, dirs, n ? "/" : "./", name);
		int err = len < PATH_MAX ? executable(path) : ENAMETOOLONG;
		if (!err)
			return 0;
		if (err == EACCES)
			worst = EACCES;
		dirs += n;
		if (*dirs == '\0')
			return worst;
	}
}
