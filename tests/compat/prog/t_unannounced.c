/* SPDX-License-Identifier: MIT */
/*
 * A thread sleeps where no call has announced it: in a lock inside libc (stdio, the malloc arena, the loader), in a page fault, in
 * OpenMP's library.  The others are not delayed by more than 20 ms, threads can be made meanwhile, and the sleeper goes on when what it
 * waits for has come.  A number as argument: so many rounds of each, and how late the others were; a second one: only what has it in its name.
 */
#include <dlfcn.h>
#include <errno.h>
#include <error.h>
#include <linux/userfaultfd.h>
#include <link.h>
#include <malloc.h>
#include <omp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "gaps.h"

#define HOLD (60 * MS)

static atomic_int held, passed, bad;
static void *hold_arena(void *);

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static void *nothing(void *arg)
{
	return arg;
}

static void *(*want_it)(void *);

static void *wanter(void *arg)
{
	while (!atomic_load(&held))
		nap(MS / 10);
	nap(2 * MS);
	return want_it(arg);
}

/*
 * One thread holds something from the call of hold() on, another wants it.  A third is made and ends in the meantime, unless what is
 * held is malloc's, which libc needs to make one.
 */
static void two(void *(*hold)(void *), void *(*want)(void *), void (*release)(void))
{
	pthread_t a, b, c;

	held = passed = 0;
	want_it = want;
	pthread_create(&b, NULL, wanter, NULL);
	if (hold)
		pthread_create(&a, NULL, hold, NULL);
	else
		atomic_store(&held, 1);
	nap(5 * MS);
	if (hold != hold_arena) {
		pthread_create(&c, NULL, nothing, NULL);
		pthread_join(c, NULL);
	}
	nap(HOLD);
	if (atomic_load(&passed))
		atomic_store(&bad, 1);
	if (release)
		release();
	if (hold)
		pthread_join(a, NULL);
	pthread_join(b, NULL);
	if (!atomic_load(&passed))
		atomic_store(&bad, 1);
}

static int fd[2], saved_err;
static atomic_int go;

static void let_go(void)
{
	atomic_store(&go, 1);
}

static void until_let_go(void)
{
	atomic_store(&held, 1);
	while (!atomic_load(&go))
		nap(MS);
}

/* ---- stdio: error() flushes stdout by an internal call ---- */

static void *hold_stdout(void *arg)
{
	flockfile(stdout);
	until_let_go();
	funlockfile(stdout);
	return arg;
}

static void *want_stdout(void *arg)
{
	error(0, 0, "not an error");
	atomic_store(&passed, 1);
	return arg;
}

/* What it says goes nowhere. */
static void stdio(void)
{
	int null = open("/dev/null", O_WRONLY);

	saved_err = dup(2);
	dup2(null, 2);
	close(null);
	go = 0;
	two(hold_stdout, want_stdout, let_go);
	dup2(saved_err, 2);
	close(saved_err);
}

/* ---- the malloc arena: malloc_stats() has it locked while it writes ---- */

static void *hold_arena(void *arg)
{
	atomic_store(&held, 1);
	malloc_stats();
	return arg;
}

/* Not from this thread's cache. */
static void *want_arena(void *arg)
{
	void *volatile p = malloc(20000);

	free(p);
	atomic_store(&passed, 1);
	return arg;
}

static void drain(void)
{
	char junk[4096];

	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	while (!atomic_load(&passed) && (read(fd[0], junk, sizeof junk) > 0 || errno == EAGAIN))
		nap(MS / 10);
}

static void arena(void)
{
	static char junk[4096];

	if (pipe(fd))
		die("pipe");
	fcntl(fd[1], F_SETFL, O_NONBLOCK);
	while (write(fd[1], junk, sizeof junk) > 0)
		;
	while (write(fd[1], junk, 1) > 0)
		;
	fcntl(fd[1], F_SETFL, 0);
	saved_err = dup(2);
	dup2(fd[1], 2);
	two(hold_arena, want_arena, drain);
	dup2(saved_err, 2);
	close(saved_err);
	close(fd[0]);
	close(fd[1]);
}

/* ---- the loader's locks ---- */

static int visits(struct dl_phdr_info *i, size_t n, void *arg)
{
	(void)i, (void)n, (void)arg;
	until_let_go();
	return 1;
}

static void *hold_list(void *arg)
{
	dl_iterate_phdr(visits, NULL);
	return arg;
}

static int seen(struct dl_phdr_info *i, size_t n, void *arg)
{
	(void)i, (void)n, (void)arg;
	return 1;
}

static void *want_list(void *arg)
{
	dl_iterate_phdr(seen, NULL);
	atomic_store(&passed, 1);
	return arg;
}

static void list(void)
{
	go = 0;
	two(hold_list, want_list, let_go);
}

/* ---- a page that takes its time ---- */

static int uffd = -1;
static char *page;
static long pagesize;

static void *want_page(void *arg)
{
	if (*(volatile char *)page == 0)
		atomic_store(&passed, 1);
	return arg;
}

static void bring_page(void)
{
	struct uffdio_zeropage z = { .range = { (unsigned long)page, (unsigned long)pagesize } };

	if (ioctl(uffd, UFFDIO_ZEROPAGE, &z))
		die("UFFDIO_ZEROPAGE");
}

static void fault(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	if (uffd < 0) {
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
		if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) {
			uffd = -2; /* not allowed here */
			return;
		}
		pagesize = sysconf(_SC_PAGESIZE);
	}
	page = mmap(NULL, (size_t)pagesize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (unsigned long)page;
	reg.range.len = (unsigned long)pagesize;
	if (page == MAP_FAILED || ioctl(uffd, UFFDIO_REGISTER, &reg))
		die("UFFDIO_REGISTER");
	two(NULL, want_page, bring_page);
	munmap(page, (size_t)pagesize);
}

/* ---- OpenMP: all but one wait at the end of the loop ---- */

static void *team(void *arg)
{
	int n = 2 * omp_get_num_procs(), sum = 0;

	/* Twice as many as processors: its library spins but briefly then. */
#pragma omp parallel for num_threads(n) schedule(static, 1) reduction(+ : sum)
	for (int i = 0; i < n; i++) {
		if (i == 0)
			nap(HOLD);
		sum++;
	}
	if (sum == n)
		atomic_store(&passed, 1);
	return arg;
}

static void openmp(void)
{
	pthread_t t;

	passed = 0;
	pthread_create(&t, NULL, team, NULL);
	pthread_join(t, NULL);
	if (!atomic_load(&passed))
		atomic_store(&bad, 1);
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*block)(void); } kinds[] = {
		{ "the lock of a stream", stdio }, { "a malloc arena", arena }, { "the loader's list", list }, { "a page fault", fault },
		{ "OpenMP", openmp },
	};
	int n = argc > 1 ? atoi(argv[1]) : 0, ok = 1;

	mallopt(M_ARENA_MAX, 1);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		if (argc > 2 && !strstr(kinds[i].name, argv[2]))
			continue;
		bad = 0;
		ok &= gaps(kinds[i].name, kinds[i].block, n);
		printf("%s: %s\n", kinds[i].name, bad ? "FAILED: it went on too early, or not at all" : "ok");
		fflush(stdout);
		ok &= !bad;
	}
	puts(ok ? "ok" : "failed");
	return !ok;
}
