/* SPDX-License-Identifier: MIT */
/*
 * Objects in shared memory, between this process and a second copy of the program: run as this one is, and natively.  Sums that
 * must hold, hand-overs, owners that die in either process, time-outs; and that other threads go on while one waits for such
 * an object.  Prints one line per case; the same natively and under pgreen.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NORMAL, RECURSIVE, ERRORCHECK, ROBUST, ROBUST_RECURSIVE, PI, ROBUST_PI, PP, KINDS };
enum { T = 3, ROUNDS = 150, TURNS = 60 };

static struct shared {
	pthread_mutex_t m[KINDS];
	long count[KINDS];
	pthread_cond_t cond;
	int turn;
	pthread_rwlock_t rw;
	long pair[2];
	pthread_barrier_t barrier;
	sem_t sem;
	long sem_count, named_count;
	int has_pp;
	char name[32];
} *s;

static sem_t *named;
static int failures;

static void check(const char *mode, const char *what, int ok)
{
	printf("%-8s %-56s %s\n", mode, what, ok ? "ok" : "FAILED");
	fflush(stdout);
	failures += !ok;
}

static pthread_t start(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, arg) != 0)
		abort();
	return t;
}

static struct timespec in_ms(int ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_nsec += ms * 1000000L;
	ts.tv_sec += ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return ts;
}

static void init_mutex(pthread_mutex_t *m, int kind, int shared)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_setpshared(&a, shared ? PTHREAD_PROCESS_SHARED : PTHREAD_PROCESS_PRIVATE);
	if (kind == RECURSIVE || kind == ROBUST_RECURSIVE)
		pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	if (kind == ERRORCHECK)
		pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
	if (kind == ROBUST || kind == ROBUST_RECURSIVE || kind == ROBUST_PI)
		pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	if (kind == PI || kind == ROBUST_PI)
		pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
	if (kind == PP)
		pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_PROTECT);
	if (pthread_mutex_init(m, &a) != 0)
		abort();
	pthread_mutexattr_destroy(&a);
}

static int is_robust(int kind)
{
	return kind == ROBUST || kind == ROBUST_RECURSIVE || kind == ROBUST_PI;
}

/* ---- sums: T threads in each process ---- */

static void *counts(void *arg)
{
	intptr_t bad = 0;

	pthread_barrier_wait(&s->barrier);
	for (int i = 0; i < ROUNDS; i++) {
		struct timespec far = in_ms(100000);

		for (int k = 0; k < KINDS; k++) {
			int r;
			if (k == PP && !s->has_pp)
				continue;
			if (i % 3 == 0)
				r = pthread_mutex_timedlock(&s->m[k], &far);
			else if (i % 3 == 1)
				while ((r = pthread_mutex_trylock(&s->m[k])) == EBUSY)
					sched_yield();
			else
				r = pthread_mutex_lock(&s->m[k]);
			bad += r != 0;
			long c = s->count[k];
			if (i % 16 == 0)
				sched_yield();
			s->count[k] = c + 1;
			if (k == RECURSIVE || k == ROBUST_RECURSIVE)
				bad += pthread_mutex_lock(&s->m[k]) != 0 || pthread_mutex_unlock(&s->m[k]) != 0;
			if (k == ERRORCHECK)
				bad += pthread_mutex_lock(&s->m[k]) != EDEADLK;
			bad += pthread_mutex_unlock(&s->m[k]) != 0;
			if (k != NORMAL && k != PI && k != PP && k != ROBUST_PI)
				bad += pthread_mutex_unlock(&s->m[k]) != EPERM;
		}
		if (i % 4 == 0) {
			bad += pthread_rwlock_wrlock(&s->rw) != 0;
			s->pair[0]++;
			sched_yield();
			s->pair[1]++;
		} else {
			bad += pthread_rwlock_rdlock(&s->rw) != 0;
			bad += s->pair[0] != s->pair[1];
		}
		bad += pthread_rwlock_unlock(&s->rw) != 0;
		bad += sem_wait(&s->sem) != 0;
		s->sem_count++;
		bad += sem_post(&s->sem) != 0;
		bad += sem_timedwait(named, &far) != 0;
		s->named_count++;
		bad += sem_post(named) != 0;
	}
	pthread_barrier_wait(&s->barrier);
	return (void *)bad;
	(void)arg;
}

/* ---- hand-overs: 2 * T threads in a ring ---- */

static int kind_of_ring, first_of_ring;

static void *takes_turns(void *arg)
{
	int me = first_of_ring + (int)(intptr_t)arg;
	pthread_mutex_t *m = &s->m[kind_of_ring];
	intptr_t bad = 0;

	pthread_mutex_lock(m);
	for (int i = 0; i < TURNS; i++) {
		while (s->turn % (2 * T) != me) {
			struct timespec far = in_ms(100000);
			bad += (i % 2 ? pthread_cond_wait(&s->cond, m) : pthread_cond_timedwait(&s->cond, m, &far)) != 0;
		}
		s->turn++;
		pthread_cond_broadcast(&s->cond);
	}
	pthread_mutex_unlock(m);
	return (void *)bad;
}

static int in_threads(void *(*fn)(void *))
{
	pthread_t t[T];
	intptr_t bad = 0;

	for (int i = 0; i < T; i++)
		t[i] = start(fn, (void *)(intptr_t)i);
	for (int i = 0; i < T; i++) {
		void *r;
		pthread_join(t[i], &r);
		bad += (intptr_t)r;
	}
	return bad == 0;
}

/* ---- owners that die ---- */

static void *locks_and_ends(void *arg)
{
	intptr_t bad = 0;

	for (int k = 0; k < KINDS; k++)
		if (is_robust(k))
			bad += pthread_mutex_lock(&s->m[k]) != 0;
	return (void *)bad;
	(void)arg;
}

static int wake_lock[2], wake_hold[2];

static void *locks_and_stays(void *arg)
{
	char c;
	intptr_t bad = (intptr_t)locks_and_ends(NULL);

	bad += write(wake_lock[1], bad ? "x" : "y", 1) != 1;
	bad += read(wake_hold[0], &c, 1) != 1;
	return (void *)bad;
	(void)arg;
}

static atomic_int waiting;

/* Expects to inherit each mutex from a dead owner. */
static void *inherits(void *arg)
{
	int k = (int)(intptr_t)arg, r;

	waiting++;
	r = pthread_mutex_lock(&s->m[k]);
	if (r != EOWNERDEAD || pthread_mutex_consistent(&s->m[k]) != 0 || pthread_mutex_unlock(&s->m[k]) != 0)
		return (void *)(intptr_t)(1000 + r);
	r = pthread_mutex_lock(&s->m[k]);
	if (r != 0 || pthread_mutex_unlock(&s->m[k]) != 0)
		return (void *)(intptr_t)(2000 + r);
	return NULL;
}

static pthread_t heirs[KINDS];

static void start_heirs(void)
{
	waiting = 0;
	for (int k = 0; k < KINDS; k++)
		if (is_robust(k))
			heirs[k] = start(inherits, (void *)(intptr_t)k);
	while (waiting < 3)
		sched_yield();
}

static int join_heirs(void)
{
	int good = 0;

	for (int k = 0; k < KINDS; k++) {
		void *r;
		if (!is_robust(k))
			continue;
		pthread_join(heirs[k], &r);
		good += r == NULL;
	}
	return good == 3;
}

/* ---- the other process: does what it reads, and answers y or x ---- */

static void *spoils(void *arg)
{
	/* unlocks without having made it consistent */
	int r = pthread_mutex_lock(&s->m[ROBUST]), q = pthread_mutex_lock(&s->m[ROBUST_PI]);

	pthread_mutex_unlock(&s->m[ROBUST]);
	pthread_mutex_unlock(&s->m[ROBUST_PI]);
	return (void *)(intptr_t)(r != EOWNERDEAD || q != EOWNERDEAD);
	(void)arg;
}

static int is_spoilt(void)
{
	/* glibc's trylock says so too, and leaves it locked. */
	return pthread_mutex_lock(&s->m[ROBUST]) == ENOTRECOVERABLE && pthread_mutex_lock(&s->m[ROBUST_PI]) == ENOTRECOVERABLE;
}

static int in_one(void *(*fn)(void *))
{
	void *r;

	pthread_join(start(fn, NULL), &r);
	return r == NULL;
}

static pthread_t holder;

static int obey(char what)
{
	char c = 'x';
	void *r;

	switch (what) {
	case 'c':
		return in_threads(counts);
	case 'e': /* a thread that ends while it holds them */
		return in_one(locks_and_ends);
	case 'h': /* one that goes on until it is told, or killed */
		holder = start(locks_and_stays, NULL);
		return read(wake_lock[0], &c, 1) == 1 && c == 'y';
	case 'H':
		if (write(wake_hold[1], "x", 1) != 1)
			return 0;
		pthread_join(holder, &r);
		return r == NULL;
	case 'w':
		start_heirs();
		return 1;
	case 'W':
		return join_heirs();
	case 's':
		return in_one(spoils);
	case 'S':
		return is_spoilt();
	case 'q':
		exit(0);
	default: /* a ring on the mutex of this kind */
		kind_of_ring = what - '0';
		first_of_ring = T;
		return in_threads(takes_turns);
	}
}

static void *other_main(void *arg)
{
	char c;

	while (read(0, &c, 1) == 1) {
		char answer = obey(c) ? 'y' : 'x';
		if (write(1, &answer, 1) != 1)
			break;
	}
	return arg;
}

static int to_other[2], from_other[2];
static pid_t other;

static void run_other(const char *path, int native)
{
	pid_t pid;

	if (pipe2(to_other, O_CLOEXEC) < 0 || pipe2(from_other, O_CLOEXEC) < 0)
		abort();
	pid = fork();
	if (pid == 0) {
		dup2(to_other[0], 0);
		dup2(from_other[1], 1);
		if (native) {
			unsetenv("LD_PRELOAD");
			setenv("PGREEN", "off", 1);
		}
		execl("/proc/self/exe", "t_shared", path, (char *)NULL);
		_exit(99);
	}
	other = pid;
	close(to_other[0]);
	close(from_other[1]);
}

static void tell(char c)
{
	if (write(to_other[1], &c, 1) != 1)
		abort();
}

static int answer(void)
{
	char c = 'x';

	return read(from_other[0], &c, 1) == 1 && c == 'y';
}

static int ask(char c)
{
	tell(c);
	return answer();
}

static void end_other(int sig)
{
	if (sig)
		kill(other, sig);
	else
		tell('q');
	waitpid(other, NULL, 0);
	close(to_other[1]);
	close(from_other[0]);
}

/* ---- others go on while one waits ---- */

static void *waits(void *arg)
{
	struct timespec far = in_ms(100000);
	int r = -1;

	waiting++;
	switch ((intptr_t)arg) {
	case 0: r = pthread_mutex_lock(&s->m[NORMAL]); break;
	case 1: r = pthread_mutex_timedlock(&s->m[ERRORCHECK], &far); break;
	case 2: r = pthread_mutex_lock(&s->m[PI]); break;
	case 3: r = pthread_rwlock_wrlock(&s->rw); break;
	case 4: r = sem_wait(&s->sem); break;
	case 5: r = sem_wait(named); break;
	case 6:
		r = 0; /* the turn may have come already */
		pthread_mutex_lock(&s->m[RECURSIVE]);
		while (s->turn != -1 && r == 0)
			r = pthread_cond_wait(&s->cond, &s->m[RECURSIVE]);
		pthread_mutex_unlock(&s->m[RECURSIVE]);
		return (void *)(intptr_t)r;
	}
	switch ((intptr_t)arg) {
	case 0: pthread_mutex_unlock(&s->m[NORMAL]); break;
	case 1: pthread_mutex_unlock(&s->m[ERRORCHECK]); break;
	case 2: pthread_mutex_unlock(&s->m[PI]); break;
	case 3: pthread_rwlock_unlock(&s->rw); break;
	case 4: sem_post(&s->sem); break;
	case 5: sem_post(named); break;
	}
	return (void *)(intptr_t)r;
}

static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t own_cond = PTHREAD_COND_INITIALIZER;
static int own_turn;

static void *plays(void *arg)
{
	pthread_mutex_lock(&own_lock);
	for (int i = 0; i < 500; i++) {
		while (own_turn % 2 != (int)(intptr_t)arg)
			pthread_cond_wait(&own_cond, &own_lock);
		own_turn++;
		pthread_cond_broadcast(&own_cond);
	}
	pthread_mutex_unlock(&own_lock);
	return NULL;
}

static int others_go_on(void)
{
	pthread_t w[7], p[2];
	intptr_t bad = 0;

	pthread_mutex_lock(&s->m[NORMAL]);
	pthread_mutex_lock(&s->m[ERRORCHECK]);
	pthread_mutex_lock(&s->m[PI]);
	pthread_rwlock_rdlock(&s->rw);
	sem_wait(&s->sem);
	sem_wait(named);
	s->turn = 0;
	waiting = 0;
	for (intptr_t i = 0; i < 7; i++)
		w[i] = start(waits, (void *)i);
	while (waiting < 7)
		sched_yield();
	own_turn = 0;
	for (intptr_t i = 0; i < 2; i++)
		p[i] = start(plays, (void *)i);
	for (int i = 0; i < 2; i++)
		pthread_join(p[i], NULL);
	pthread_mutex_unlock(&s->m[NORMAL]);
	pthread_mutex_unlock(&s->m[ERRORCHECK]);
	pthread_mutex_unlock(&s->m[PI]);
	pthread_rwlock_unlock(&s->rw);
	sem_post(&s->sem);
	sem_post(named);
	pthread_mutex_lock(&s->m[RECURSIVE]);
	s->turn = -1;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->m[RECURSIVE]);
	for (int i = 0; i < 7; i++) {
		void *r;
		pthread_join(w[i], &r);
		bad += (intptr_t)r;
	}
	return bad == 0 && own_turn == 1000;
}

/* ---- time-outs, while the other process holds the robust ones ---- */

static void *times_out(void *arg)
{
	struct timespec ts = in_ms(10);
	intptr_t bad = 0;

	for (int k = 0; k < KINDS; k++) {
		if (!is_robust(k))
			continue;
		bad += pthread_mutex_timedlock(&s->m[k], &ts) != ETIMEDOUT;
		bad += pthread_mutex_trylock(&s->m[k]) != EBUSY;
		bad += pthread_mutex_unlock(&s->m[k]) != EPERM;
		bad += pthread_mutex_consistent(&s->m[k]) != EINVAL;
	}
	for (int k = 0; k <= PI; k++) {
		if (is_robust(k))
			continue;
		bad += pthread_mutex_lock(&s->m[k]) != 0;
		ts = in_ms(5);
		while (pthread_cond_timedwait(&s->cond, &s->m[k], &ts) != ETIMEDOUT)
			;
		bad += pthread_mutex_unlock(&s->m[k]) != 0;
	}
	sem_wait(&s->sem);
	bad += sem_timedwait(&s->sem, &ts) == 0 || errno != ETIMEDOUT;
	sem_post(&s->sem);
	sem_wait(named);
	bad += sem_timedwait(named, &ts) == 0 || errno != ETIMEDOUT;
	bad += sem_trywait(named) == 0 || errno != EAGAIN;
	sem_post(named);
	return (void *)bad;
	(void)arg;
}

/* ---- within one process ---- */

static pthread_mutex_t private[KINDS];

static void *ends_with_private(void *arg)
{
	return (void *)(intptr_t)(pthread_mutex_lock(&private[(intptr_t)arg]) != 0);
}

static void *inherits_private(void *arg)
{
	pthread_mutex_t *m = &private[(intptr_t)arg];
	int r = pthread_mutex_lock(m);

	return (void *)(intptr_t)(r != EOWNERDEAD || pthread_mutex_consistent(m) != 0 || pthread_mutex_unlock(m) != 0);
}

static int private_owners(void)
{
	intptr_t bad = 0;

	for (int i = 0; i < 20; i++)
		for (intptr_t k = 0; k < KINDS; k++) {
			pthread_t a, b;
			void *r;
			if (!is_robust((int)k))
				continue;
			a = start(ends_with_private, (void *)k);
			if (i % 2)
				pthread_join(a, &r);
			else
				r = NULL;
			bad += r != NULL;
			if (i % 2 == 0) { /* one waits perhaps when the other ends */
				pthread_join(a, &r);
				bad += r != NULL;
			}
			b = start(inherits_private, (void *)k);
			pthread_join(b, &r);
			bad += r != NULL;
		}
	return bad == 0;
}

/* A condition variable in shared memory with a mutex that is the process's own. */
static pthread_cond_t *mixed;
static pthread_mutex_t mixed_lock = PTHREAD_MUTEX_INITIALIZER;
static int mixed_turn;

static void *plays_mixed(void *arg)
{
	pthread_mutex_lock(&mixed_lock);
	for (int i = 0; i < 50; i++) {
		while (mixed_turn % 2 != (int)(intptr_t)arg)
			pthread_cond_wait(mixed, &mixed_lock);
		mixed_turn++;
		pthread_cond_broadcast(mixed);
	}
	pthread_mutex_unlock(&mixed_lock);
	return NULL;
}

static int mixed_works(void)
{
	pthread_t t[2];
	struct timespec ts = in_ms(5);
	int r;

	mixed = &s->cond;
	mixed_turn = 0;
	for (intptr_t i = 0; i < 2; i++)
		t[i] = start(plays_mixed, (void *)i);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	pthread_mutex_lock(&mixed_lock);
	while ((r = pthread_cond_timedwait(mixed, &mixed_lock, &ts)) == 0)
		;
	pthread_mutex_unlock(&mixed_lock);
	return mixed_turn == 100 && r == ETIMEDOUT;
}

static void init_shared(void)
{
	pthread_condattr_t ca;
	pthread_rwlockattr_t ra;
	pthread_barrierattr_t ba;

	for (int k = 0; k < KINDS; k++)
		init_mutex(&s->m[k], k, 1);
	memset(s->count, 0, sizeof s->count);
	memset(s->pair, 0, sizeof s->pair);
	s->sem_count = s->named_count = s->turn = 0;
	pthread_condattr_init(&ca);
	pthread_condattr_setpshared(&ca, PTHREAD_PROCESS_SHARED);
	pthread_cond_init(&s->cond, &ca);
	pthread_rwlockattr_init(&ra);
	pthread_rwlockattr_setpshared(&ra, PTHREAD_PROCESS_SHARED);
	pthread_rwlock_init(&s->rw, &ra);
	pthread_barrierattr_init(&ba);
	pthread_barrierattr_setpshared(&ba, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&s->barrier, &ba, 2 * T);
	sem_init(&s->sem, 1, 1);
}

static void with_other(const char *mode, const char *path, int native)
{
	static const int rings[] = {NORMAL, RECURSIVE, ROBUST, PI};
	int ok, sums = 1;

	init_shared();
	run_other(path, native);
	tell('c');
	ok = in_threads(counts);
	ok &= answer();
	for (int k = 0; k < KINDS; k++)
		sums &= s->count[k] == (k == PP && !s->has_pp ? 0 : 2 * T * ROUNDS);
	sums &= s->sem_count == 2 * T * ROUNDS && s->named_count == 2 * T * ROUNDS && s->pair[0] == s->pair[1];
	check(mode, "calls return what they should", ok);
	check(mode, "sums hold", sums);
	ok = 1;
	for (int i = 0; i < 4; i++) {
		s->turn = 0;
		kind_of_ring = rings[i];
		first_of_ring = 0;
		tell((char)('0' + rings[i]));
		ok &= in_threads(takes_turns);
		ok &= answer() && s->turn == 2 * T * TURNS;
	}
	check(mode, "hand-overs by a condition variable", ok);
	check(mode, "others go on while one waits", others_go_on());
	ok = ask('h') && in_one(times_out);
	check(mode, "time-outs", ok);
	start_heirs();
	ok = ask('H') && join_heirs();
	check(mode, "a thread of the other dies, some wait", ok);
	ok = ask('e') && (start_heirs(), join_heirs());
	check(mode, "a thread of the other has died", ok);
	ok = in_one(locks_and_ends) && ask('w') && ask('W');
	check(mode, "a thread of ours has died", ok);
	holder = start(locks_and_stays, NULL);
	ok = read(wake_lock[0], &(char){0}, 1) == 1 && ask('w');
	ok &= write(wake_hold[1], "x", 1) == 1;
	pthread_join(holder, NULL);
	ok &= ask('W');
	check(mode, "a thread of ours dies, some wait", ok);
	ok = in_one(locks_and_ends) && ask('s') && ask('S') && is_spoilt();
	check(mode, "not made consistent: can't be recovered, in both", ok);
	init_mutex(&s->m[ROBUST], ROBUST, 1);
	init_mutex(&s->m[ROBUST_PI], ROBUST_PI, 1);
	/* ROBUST_RECURSIVE is still a dead one's. */
	check(mode, "a third one", pthread_mutex_lock(&s->m[ROBUST_RECURSIVE]) == EOWNERDEAD &&
	      pthread_mutex_consistent(&s->m[ROBUST_RECURSIVE]) == 0 && pthread_mutex_unlock(&s->m[ROBUST_RECURSIVE]) == 0);
	ok = ask('h');
	start_heirs();
	end_other(SIGKILL);
	ok &= join_heirs();
	check(mode, "the other process is killed, some wait", ok);
	run_other(path, native);
	ok = ask('h');
	end_other(0);
	start_heirs();
	ok &= join_heirs();
	check(mode, "the other process has ended", ok);
}

static void *pp_allowed(void *arg)
{
	pthread_mutex_t m;

	init_mutex(&m, PP, 0);
	return (void *)(intptr_t)(pthread_mutex_lock(&m) == 0 && pthread_mutex_unlock(&m) == 0);
	(void)arg;
}

int main(int argc, char **argv)
{
	char path[] = "/tmp/t_shared-XXXXXX";
	int fd = argc > 1 ? open(argv[1], O_RDWR) : mkstemp(path);
	void *r;

	alarm(120);
	if (fd < 0 || (argc == 1 && ftruncate(fd, sizeof *s) < 0) || pipe(wake_lock) < 0 || pipe(wake_hold) < 0)
		return 2;
	s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED)
		return 2;
	close(fd);
	if (argc > 1) {
		named = sem_open(s->name, 0);
		if (named == SEM_FAILED)
			return 2;
		/* Not in the first thread. */
		pthread_join(start(other_main, NULL), NULL);
		return 0;
	}
	snprintf(s->name, sizeof s->name, "/t_shared-%d", (int)getpid());
	named = sem_open(s->name, O_CREAT | O_EXCL, 0600, 1);
	if (named == SEM_FAILED)
		return 2;
	pthread_join(start(pp_allowed, NULL), &r);
	s->has_pp = r != NULL;
	for (int k = 0; k < KINDS; k++)
		init_mutex(&private[k], k, 0);
	check("own", "threads that end with private robust mutexes", private_owners());
	init_shared();
	check("own", "a shared condition variable with a private mutex", mixed_works());
	with_other("alike", path, 0);
	with_other("native", path, 1);
	sem_close(named);
	sem_unlink(s->name);
	unlink(path);
	printf("%s\n", failures ? "FAILED" : "all ok");
	return failures != 0;
}
