// SPDX-License-Identifier: MIT
/*
 * Threads that do not call anything, more of them than processors: whoever computes, spins, unwinds or allocates is interrupted
 * anywhere and must not notice; whoever waits for them gets on.  t_preempt [SECONDS]: about so long for each case, else a short
 * while.  Prints a line for each case.
 */
#include <cfenv>
#include <cmath>
#include <cpuid.h>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <atomic>
#include <climits>
#include <pthread.h>
#include <sched.h>
#include <string>
#include <time.h>
#include <unistd.h>
#include <vector>

static std::atomic<int> failures;
static double seconds = 0.25;

#define EQ(a, b) do { auto a_ = (a); auto b_ = (b); if (!(a_ == b_)) { failures++; \
	printf("t_preempt.cpp:%d: %s: %lld, not %lld\n", __LINE__, #a, (long long)a_, (long long)b_); } } while (0)

static int64_t now()
{
	timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static volatile bool stop; // plain: nobody makes it atomic for us

static void *stopper(void *)
{
	int64_t end = now() + (int64_t)(seconds * 1e9);

	while (now() < end)
		usleep(20000);
	stop = true;
	return nullptr;
}

static void run(int n, void *(*fn)(void *), size_t stack = 0)
{
	std::vector<pthread_t> t(n);
	pthread_attr_t a;
	pthread_t s;

	pthread_attr_init(&a);
	if (stack)
		EQ(pthread_attr_setstacksize(&a, stack), 0);
	stop = false;
	for (int i = 0; i < n; i++)
		if (pthread_create(&t[i], &a, fn, (void *)(intptr_t)i))
			abort();
	pthread_create(&s, nullptr, stopper, nullptr);
	for (auto x : t)
		pthread_join(x, nullptr);
	pthread_join(s, nullptr);
	pthread_attr_destroy(&a);
}

// ---- spinning ----

static void *spinner(void *)
{
	while (!stop)
		;
	return nullptr;
}

static void *yielder(void *)
{
	while (!stop)
		sched_yield();
	return nullptr;
}

static pthread_spinlock_t spin;
static long guarded, done;

static void *spin_locker(void *)
{
	long mine = 0;

	while (!stop) {
		pthread_spin_lock(&spin);
		long was = guarded;
		for (int i = 0; i < 300; i++) // descheduled here, with the others spinning
			__asm__ volatile("");
		guarded = was + 1;
		pthread_spin_unlock(&spin);
		mine++;
	}
	__atomic_fetch_add(&done, mine, __ATOMIC_RELAXED);
	return nullptr;
}

static void spin_lock()
{
	pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
	guarded = done = 0;
	run(6, spin_locker);
	EQ(guarded, done);
	pthread_spin_destroy(&spin);
}

static std::atomic_flag user_lock = ATOMIC_FLAG_INIT;

static void *own_locker(void *)
{
	long mine = 0;

	while (!stop) {
		while (user_lock.test_and_set(std::memory_order_acquire))
			;
		guarded++;
		user_lock.clear(std::memory_order_release);
		mine++;
	}
	__atomic_fetch_add(&done, mine, __ATOMIC_RELAXED);
	return nullptr;
}

// ---- computing ----

static __attribute__((noinline)) uint64_t compute(uint64_t seed)
{
	uint64_t x = seed;
	double d = 1.0 + (double)seed;
	long double l = 3.0L;

	for (int i = 0; i < 20000; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		d = d * 1.0000001 + std::sqrt((double)(x & 1023));
		l += (long double)(x & 7) / 3.0L;
	}
	uint64_t b;
	memcpy(&b, &d, sizeof b);
	return x ^ b ^ (uint64_t)(l * 1000);
}

static uint64_t reference[8];

static void *computer(void *arg)
{
	int i = (int)(intptr_t)arg % 8;

	while (!stop)
		EQ(compute(i + 1), reference[i]);
	return nullptr;
}

// In handlers: they compute for a while, in a thread that computes.
static std::atomic<long> handled;

static void handler(int)
{
	int err = errno;

	EQ(compute(3), reference[2]);
	handled++;
	errno = err;
}

static void *kicker(void *arg)
{
	auto *t = (std::vector<pthread_t> *)arg;
	long sent = 0;

	while (!stop) {
		for (auto x : *t)
			pthread_kill(x, SIGUSR1);
		sent += (long)t->size();
		usleep(2000);
	}
	return (void *)(intptr_t)sent;
}

static void *handled_computer(void *arg)
{
	errno = 4711 + (int)(intptr_t)arg;
	while (!stop) {
		EQ(compute(2), reference[1]);
		EQ(errno, 4711 + (int)(intptr_t)arg);
	}
	return nullptr;
}

static void handlers()
{
	struct sigaction sa = {};
	std::vector<pthread_t> t(4);
	pthread_t k, s;
	void *sent;

	sa.sa_handler = handler;
	sigaction(SIGUSR1, &sa, nullptr);
	handled = 0;
	stop = false;
	for (size_t i = 0; i < t.size(); i++)
		pthread_create(&t[i], nullptr, handled_computer, (void *)i);
	pthread_create(&k, nullptr, kicker, &t);
	pthread_create(&s, nullptr, stopper, nullptr);
	pthread_join(k, &sent);
	for (auto x : t)
		pthread_join(x, nullptr);
	pthread_join(s, nullptr);
	EQ(handled > 0 && handled <= (long)(intptr_t)sent, true);
	sa.sa_handler = SIG_DFL;
	sigaction(SIGUSR1, &sa, nullptr);
}

// ---- registers ----

#ifdef __x86_64__
static bool have_avx, have_avx512;

static void features()
{
	unsigned a, b, c, d, lo = 0, hi;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return;
	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	have_avx = (c & bit_AVX) && (lo & 6) == 6;
	have_avx512 = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX512F) && (lo & 0xe6) == 0xe6;
}

// Nothing but the loop between loading and storing: what differs then was changed under it.
static void sse(const char *in, char *out, long n)
{
	__asm__ volatile("movups (%[in]), %%xmm0\n movups 16(%[in]), %%xmm7\n movups 32(%[in]), %%xmm15\n"
			 "1: dec %[n]\n jnz 1b\n"
			 "movups %%xmm0, (%[out])\n movups %%xmm7, 16(%[out])\n movups %%xmm15, 32(%[out])\n"
			 : [n] "+r"(n) : [in] "r"(in), [out] "r"(out) : "xmm0", "xmm7", "xmm15", "memory", "cc");
}

__attribute__((target("avx"))) static void avx(const char *in, char *out, long n)
{
	__asm__ volatile("vmovups (%[in]), %%ymm1\n vmovups 32(%[in]), %%ymm9\n"
			 "1: dec %[n]\n jnz 1b\n"
			 "vmovups %%ymm1, (%[out])\n vmovups %%ymm9, 32(%[out])\n vzeroupper\n"
			 : [n] "+r"(n) : [in] "r"(in), [out] "r"(out) : "xmm1", "xmm9", "memory", "cc");
}

__attribute__((target("avx512f"))) static void avx512(const char *in, char *out, long n)
{
	__asm__ volatile("vmovups (%[in]), %%zmm2\n vmovups 64(%[in]), %%zmm17\n vmovups 128(%[in]), %%zmm31\n kmovw (%[in]), %%k3\n"
			 "1: dec %[n]\n jnz 1b\n"
			 "vmovups %%zmm2, (%[out])\n vmovups %%zmm17, 64(%[out])\n vmovups %%zmm31, 128(%[out])\n"
			 "kmovw %%k3, 192(%[out])\n vzeroupper\n"
			 : [n] "+r"(n) : [in] "r"(in), [out] "r"(out) : "xmm2", "xmm17", "xmm31", "k3", "memory", "cc");
}

static void x87(const char *in, char *out, long n)
{
	__asm__ volatile("fldt (%[in])\n fldt 16(%[in])\n 1: dec %[n]\n jnz 1b\n fstpt 16(%[out])\n fstpt (%[out])\n"
			 : [n] "+r"(n) : [in] "r"(in), [out] "r"(out) : "st", "st(1)", "memory", "cc");
}

static void *registers(void *arg)
{
	static const int rounding[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
	int i = (int)(intptr_t)arg, mode = rounding[i % 4];
	alignas(64) char in[256], out[256];
	unsigned seed = 17u * (unsigned)i + 1;

	fesetround(mode);
	while (!stop) {
		for (auto &c : in)
			c = (char)rand_r(&seed);
		sse(in, out, 100000);
		EQ(memcmp(in, out, 48), 0);
		if (have_avx) {
			avx(in, out, 100000);
			EQ(memcmp(in, out, 64), 0);
		}
		if (have_avx512) {
			avx512(in, out, 100000);
			EQ(memcmp(in, out, 192), 0);
			EQ(memcmp(in, out + 192, 2), 0);
		}
		long double l[2] = {(long double)seed / 7, -(long double)seed / 11};
		alignas(16) char from[32] = {}, to[32] = {};
		memcpy(from, &l[0], 10);
		memcpy(from + 16, &l[1], 10);
		x87(from, to, 100000);
		EQ(memcmp(from, to, 10), 0);
		EQ(memcmp(from + 16, to + 16, 10), 0);
		EQ(fegetround(), mode); // x87's control word; mxcsr below
		unsigned csr;
		__asm__ volatile("stmxcsr %0" : "=m"(csr));
		EQ((int)(csr >> 3 & 0xc00), mode);
	}
	return nullptr;
}
#else
static void features() {}
static void *registers(void *arg) { return computer(arg); }
#endif

// ---- unwinding, allocating, small stacks ----

struct Counter {
	long &n;
	explicit Counter(long &x) : n(x) { n++; }
	~Counter() { n--; }
};

static __attribute__((noinline)) int dive(int depth, long &alive)
{
	Counter c(alive);

	if (depth == 0)
		throw std::string("bottom");
	return dive(depth - 1, alive) + 1;
}

static void *thrower(void *)
{
	long alive = 0, caught = 0;

	while (!stop) {
		try {
			dive(12, alive);
		} catch (const std::string &s) {
			caught += s.size() == 6;
			EQ(alive, 0l);
			try {
				throw;
			} catch (const std::string &t) {
				EQ(t == "bottom", true);
			}
		}
	}
	EQ(caught > 0, true);
	return nullptr;
}

static void *allocator(void *arg)
{
	enum { SLOTS = 64 };
	char *p[SLOTS] = {};
	size_t n[SLOTS] = {};
	unsigned seed = (unsigned)(intptr_t)arg + 1;

	while (!stop) {
		int i = rand_r(&seed) % SLOTS;

		for (size_t k = 0; k < n[i]; k += 97)
			EQ(p[i][k], (char)(i + (int)n[i]));
		n[i] = (size_t)(rand_r(&seed) % 5000) + 1;
		if (seed % 3 == 0) {
			free(p[i]);
			p[i] = (char *)malloc(n[i]);
		} else {
			p[i] = (char *)realloc(p[i], n[i]);
		}
		memset(p[i], i + (int)n[i], n[i]);
	}
	for (char *x : p)
		free(x);
	return nullptr;
}

static __attribute__((noinline)) uint64_t little(int depth, uint64_t x)
{
	volatile char pad[64];

	memset((void *)pad, depth, sizeof pad);
	uint64_t r = depth ? little(depth - 1, x * 31 + 7) : x;
	for (char c : {pad[0], pad[63]})
		r += c == depth ? 1 : 1000000;
	return r;
}

static uint64_t little_result;

static void *small_stack(void *)
{
	while (!stop)
		for (int i = 0; i < 100; i++)
			EQ(little(20, 5), little_result);
	return nullptr;
}

int main(int argc, char **argv)
{
	struct {
		const char *name;
		int n;
		void *(*fn)(void *);
		void (*whole)();
		size_t stack;
	} cases[] = {
		{"spinning on a variable", 6, spinner, nullptr, 0},
		{"yielding", 6, yielder, nullptr, 0},
		{"pthread_spin_lock", 0, nullptr, spin_lock, 0},
		{"a lock of the program's own", 6, own_locker, nullptr, 0},
		{"computing", 8, computer, nullptr, 0},
		{"computing in handlers", 0, nullptr, handlers, 0},
		{"registers", 6, registers, nullptr, 0},
		{"exceptions", 6, thrower, nullptr, 0},
		{"allocating", 6, allocator, nullptr, 0},
		{"the smallest stacks", 16, small_stack, nullptr, (size_t)PTHREAD_STACK_MIN},
	};

	if (argc > 1)
		seconds = atof(argv[1]);
	features();
	for (int i = 0; i < 8; i++)
		reference[i] = compute(i + 1);
	little_result = little(20, 5);
	for (auto &c : cases) {
		int before = failures;

		guarded = done = 0;
		if (c.whole)
			c.whole();
		else
			run(c.n, c.fn, c.stack);
		EQ(guarded, done);
		printf("%s %s\n", failures == before ? "ok" : "FAILED", c.name);
		fflush(stdout);
	}
	return failures != 0;
}
