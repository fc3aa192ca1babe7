/* SPDX-License-Identifier: MIT */
/*
 * No call keeps the other threads waiting for memory that takes its time: a path, a name or a buffer lies in a page that is not there
 * until the first thread brings it (userfaultfd), empty.  So everything can be made to block that takes a pointer, also calls that
 * otherwise wait for disks only.  What the calls answer does not matter.  Where userfaultfd is not allowed, they fault on a page that
 * is there, and the thread waits for a pipe.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <iconv.h>
#include <linux/userfaultfd.h>
#include <locale.h>
#include <mntent.h>
#include <mqueue.h>
#include <netdb.h>
#include <nl_types.h>
#include <pty.h>
#include <pwd.h>
#include <resolv.h>
#include <semaphore.h>
#include <shadow.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/swap.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <utime.h>
#include <utmp.h>
#include <utmpx.h>

#include "nostall.h"

static char *P; /* the page */
static int uffd, file = -1, dirfd_ = -1, ino, pty, tty;
static long size;
static char buf[256], dir[] = "/tmp/nostall.XXXXXX";
static FILE *f;
static struct stat st;

static void page_setup(void)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	P = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (unsigned long)P;
	reg.range.len = (unsigned long)size;
	if (P == MAP_FAILED || (uffd >= 0 && ioctl(uffd, UFFDIO_REGISTER, &reg)))
		die("page");
	make_pipe();
}

static void page_bring(void)
{
	struct uffdio_zeropage z = { .range = { (unsigned long)P, (unsigned long)size } };

	if (uffd >= 0 ? ioctl(uffd, UFFDIO_ZEROPAGE, &z) : write(fd[1], "x", 1) != 1)
		die("UFFDIO_ZEROPAGE");
}

static void page_after(void)
{
	munmap(P, (size_t)size);
	close_both();
}

/* The thread waits before it calls where there is no slow memory. */
static void wait_instead(void)
{
	char c;

	if (uffd < 0 && read(fd[0], &c, 1) != 1)
		die("read");
}

static int none(const char *p, const struct stat *s, int t) { (void)p, (void)s, (void)t; return 0; }
static int nonew(const char *p, const struct stat *s, int t, struct FTW *w) { (void)p, (void)s, (void)t, (void)w; return 0; }
static char *no_args[] = { NULL };
static struct iovec iov;
static struct iovec *to_page(void) { iov = (struct iovec){ P, 1 }; return &iov; }
static struct iovec *from_buf(void) { static struct iovec v; v = (struct iovec){ buf, 1 }; return &v; }
static void fput(void) { if (f) fclose(f); f = NULL; }
static FILE *fget(const char *name, const char *mode) { f = fopen(name, mode); return f; }

/* name of the row, what is called */
#define CALLS(X) \
	X(open, open(P, O_RDONLY)) X(openat, openat(AT_FDCWD, P, O_RDONLY)) X(creat, creat(P, 0600)) X(unlink, unlink(P)) \
	X(unlinkat, unlinkat(AT_FDCWD, P, 0)) X(remove, remove(P)) X(rename, rename(P, "/nowhere/x")) \
	X(renameat, renameat(AT_FDCWD, P, AT_FDCWD, "/nowhere/x")) X(renameat2, renameat2(AT_FDCWD, P, AT_FDCWD, "/nowhere/x", 0)) \
	X(mkdir, mkdir(P, 0700)) X(mkdirat, mkdirat(AT_FDCWD, P, 0700)) X(rmdir, rmdir(P)) X(link, link(P, "/nowhere/x")) \
	X(linkat, linkat(AT_FDCWD, P, AT_FDCWD, "/nowhere/x", 0)) X(symlink, symlink(P, "/nowhere/x")) \
	X(symlinkat, symlinkat(P, AT_FDCWD, "/nowhere/x")) X(readlink, readlink(P, buf, sizeof buf)) \
	X(readlinkat, readlinkat(AT_FDCWD, P, buf, sizeof buf)) X(realpath, realpath(P, NULL)) \
	X(canonicalize_file_name, canonicalize_file_name(P)) X(mknod, mknod(P, S_IFREG, 0)) X(mknodat, mknodat(AT_FDCWD, P, S_IFREG, 0)) \
	X(mkfifo, mkfifo(P, 0600)) X(mkfifoat, mkfifoat(AT_FDCWD, P, 0600)) X(chmod, chmod(P, 0600)) X(lchmod, lchmod(P, 0600)) \
	X(fchmodat, fchmodat(AT_FDCWD, P, 0600, 0)) X(chown, chown(P, 0, 0)) X(lchown, lchown(P, 0, 0)) \
	X(fchownat, fchownat(AT_FDCWD, P, 0, 0, 0)) X(utimes, utimes(P, NULL)) X(lutimes, lutimes(P, NULL)) \
	X(futimesat, futimesat(AT_FDCWD, P, NULL)) X(utimensat, utimensat(AT_FDCWD, P, NULL, 0)) X(utime, utime(P, NULL)) \
	X(futimes, futimes(file, (void *)P)) X(futimens, futimens(file, (void *)P)) \
	X(chdir, chdir(P)) X(chroot, chroot(P)) X(eaccess, eaccess(P, R_OK)) X(euidaccess, euidaccess(P, R_OK)) X(access, access(P, R_OK)) \
	X(faccessat, faccessat(AT_FDCWD, P, R_OK, 0)) X(pathconf, pathconf(P, _PC_LINK_MAX)) X(statfs, statfs(P, (void *)buf)) \
	X(statvfs, statvfs(P, (void *)buf)) X(stat, stat(P, &st)) X(lstat, lstat(P, &st)) X(fstatat, fstatat(AT_FDCWD, P, &st, 0)) \
	X(statx, statx(AT_FDCWD, P, 0, 0, (void *)buf)) X(fstat, fstat(file, (void *)P)) X(fstatfs, fstatfs(file, (void *)P)) \
	X(fstatvfs, fstatvfs(file, (void *)P)) X(truncate, truncate(P, 0)) X(opendir, opendir(P)) \
	X(getxattr, getxattr(P, "user.x", buf, 8)) X(lgetxattr, lgetxattr(P, "user.x", buf, 8)) X(fgetxattr, fgetxattr(file, P, buf, 8)) \
	X(setxattr, setxattr(P, "user.x", buf, 8, 0)) X(lsetxattr, lsetxattr(P, "user.x", buf, 8, 0)) \
	X(fsetxattr, fsetxattr(file, P, buf, 8, 0)) X(listxattr, listxattr(P, buf, 8)) X(llistxattr, llistxattr(P, buf, 8)) \
	X(removexattr, removexattr(P, "user.x")) X(lremovexattr, lremovexattr(P, "user.x")) X(fremovexattr, fremovexattr(file, P)) \
	X(getdents64, getdents64(dirfd_, P, 4096)) \
	X(scandir, scandir(P, (void *)buf, NULL, NULL)) X(scandirat, scandirat(AT_FDCWD, P, (void *)buf, NULL, NULL)) \
	X(ftw, ftw(P, none, 4)) X(nftw, nftw(P, nonew, 4, 0)) X(glob, glob(P, 0, NULL, &(glob_t){ 0 })) \
	X(mkstemp, mkstemp(P)) X(mkostemp, mkostemp(P, 0)) X(mkstemps, mkstemps(P, 0)) X(mkostemps, mkostemps(P, 0, 0)) X(mkdtemp, mkdtemp(P)) \
	X(shm_open, shm_open(P, O_RDONLY, 0)) X(shm_unlink, shm_unlink(P)) X(sem_open, sem_open(P, 0)) \
	X(sem_unlink, sem_unlink(P)) X(mq_open, mq_open(P, O_RDONLY)) X(mq_unlink, mq_unlink(P)) X(swapon, swapon(P, 0)) X(swapoff, swapoff(P)) \
	X(mount, mount("x", P, "x", 0, NULL)) X(umount, umount(P)) X(umount2, umount2(P, 0)) \
	X(inotify_add_watch, inotify_add_watch(ino, P, IN_CREATE)) X(name_to_handle_at, name_to_handle_at(AT_FDCWD, P, (void *)buf, (void *)(buf + 64), 0)) \
	X(execv, execv(P, no_args)) X(execve, execve(P, no_args, no_args)) X(execvp, execvp(P, no_args)) \
	X(execvpe, execvpe(P, no_args, no_args)) X(execveat, execveat(AT_FDCWD, P, no_args, no_args, 0)) \
	X(setmntent, setmntent(P, "r")) X(fopen, fopen(P, "r")) X(catopen, catopen(P, 0)) X(setlocale, setlocale(LC_CTYPE, P)) \
	X(newlocale, newlocale(LC_CTYPE_MASK, P, NULL)) X(iconv_open, iconv_open(P, "UTF-8")) \
	X(getpwnam, getpwnam(P)) X(getpwnam_r, getpwnam_r(P, (void *)buf, buf + 64, 64, (void *)(buf + 200))) X(getgrnam, getgrnam(P)) \
	X(getspnam, getspnam(P)) X(getgrouplist, getgrouplist(P, 0, (gid_t[4]){ 0 }, &(int){ 4 })) X(getservbyname, getservbyname(P, NULL)) \
	X(getprotobyname, getprotobyname(P)) X(getrpcbyname, getrpcbyname(P)) X(utmpname, utmpname(P)) \
	X(gethostbyname, gethostbyname(P)) X(gethostbyname2, gethostbyname2(P, AF_INET)) \
	X(gethostbyaddr, gethostbyaddr(P, 4, AF_INET)) X(getnetbyname, getnetbyname(P)) \
	X(getnameinfo, getnameinfo((void *)P, sizeof(struct sockaddr_in), buf, 32, NULL, 0, 0)) \
	X(getaddrinfo, getaddrinfo(P, NULL, NULL, (void *)buf)) \
	X(pread, pread(file, P, 1, 0)) X(pwrite, pwrite(file, P, 1, 0)) X(preadv, preadv(file, to_page(), 1, 0)) \
	X(pwritev, pwritev(file, to_page(), 1, 0)) X(process_vm_readv, process_vm_readv(getpid(), to_page(), 1, from_buf(), 1, 0)) \
	X(process_vm_writev, process_vm_writev(getpid(), to_page(), 1, from_buf(), 1, 0)) X(getrandom, getrandom(P, 8, 0)) \
	X(getentropy, getentropy(P, 8)) X(mlock, mlock(P, 1)) X(madvise, madvise(P, (size_t)size, 22 /* MADV_POPULATE_READ */)) \
	X(mlock2, mlock2(P, 1, 0)) X(fread, fread(P, 1, 1, fget("/proc/self/exe", "r"))) X(fwrite, fwrite(P, 1, 1, fget("/dev/null", "w"))) \
	X(fgets, fgets(P, 8, fget("/etc/passwd", "r"))) X(fputs, fputs(P, fget("/dev/null", "w"))) \
	X(fgetpos, fgetpos(fget("/dev/null", "r"), (void *)P)) X(fsetpos, fsetpos(fget("/dev/null", "r"), (void *)P)) \
	X(getmntent_r, getmntent_r(fget("/proc/self/mounts", "r"), (void *)P, buf, sizeof buf)) \
	X(tcsetattr, tcsetattr(pty, 0, (void *)P)) X(utmpxname, utmpxname(P)) X(acct, acct(P)) \
	X(pivot_root, syscall(SYS_pivot_root, P, P)) X(execl, execl(P, P, NULL)) \
	X(execlp, execlp(P, P, NULL)) X(execle, execle(P, P, NULL, no_args)) \
	X(getgrnam_r, getgrnam_r(P, (void *)buf, buf + 64, 64, (void *)(buf + 200))) \
	X(getspnam_r, getspnam_r(P, (void *)buf, buf + 96, 64, (void *)(buf + 200))) \
	X(getnetbyname_r, getnetbyname_r(P, (void *)buf, buf + 64, 64, (void *)(buf + 200), (void *)(buf + 208))) \
	X(gethostbyname2_r, gethostbyname2_r(P, AF_INET, (void *)buf, buf + 64, 64, (void *)(buf + 200), (void *)(buf + 208))) \
	X(innetgr, innetgr(P, NULL, NULL, NULL)) X(setnetgrent, setnetgrent(P)) X(fgetgrent_r, \
	  fgetgrent_r(fget("/etc/group", "r"), (void *)P, buf, sizeof buf, (void *)(buf + 128))) \
	X(fgetpwent_r, fgetpwent_r(fget("/etc/passwd", "r"), (void *)P, buf, sizeof buf, (void *)(buf + 128)))

#define FUNCTION(name, call) static int p_##name(void) { wait_instead(); (void)!(intptr_t)(call); fput(); return 1; }
CALLS(FUNCTION)

static const struct nostall cases[] = {
#define ROW(name, call) { #name, page_setup, p_##name, page_bring, page_after },
	CALLS(ROW)
};

int main(int argc, char **argv)
{
	struct uffdio_api api = { .api = UFFD_API };
	char path[64];
	int r;

	size = sysconf(_SC_PAGESIZE);
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api))
		uffd = -1;
	if (mkdtemp(dir) == NULL)
		die("mkdtemp");
	snprintf(path, sizeof path, "%s/file", dir);
	file = open(path, O_RDWR | O_CREAT, 0600);
	dirfd_ = open(dir, O_RDONLY | O_DIRECTORY);
	ino = inotify_init();
	if (openpty(&tty, &pty, NULL, NULL, NULL))
		die("openpty");
	if (file < 0 || dirfd_ < 0 || write(file, "x", 1) != 1)
		die("file");
	r = ALL(cases);
	unlink(path);
	rmdir(dir);
	return r;
}
