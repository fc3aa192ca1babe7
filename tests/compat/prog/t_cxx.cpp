// SPDX-License-Identifier: MIT
// C++ on threads: thread_local objects, exceptions, futures, call_once, atomic waits, and unwinding by cancellation and pthread_exit.
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <mutex>
#include <numeric>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

static int failures;

#define CHECK(x)                                                                                                       \
	do {                                                                                                           \
		if (!(x)) {                                                                                            \
			std::printf("line %d: %s\n", __LINE__, #x);                                                    \
			failures++;                                                                                    \
		}                                                                                                      \
	} while (0)

static void done(const char *what)
{
	std::printf("%s\n", what);
	std::fflush(stdout);
}

static std::atomic<int> made, gone;

struct Counted {
	std::string text;
	Counted() : text("a string too long for the small buffer of std::string") { made++; }
	~Counted() { gone += text.size() > 20; }
};

static thread_local Counted per_thread;
static thread_local int plain = 5;

static void thread_locals()
{
	made = gone = 0;
	for (int round = 0; round < 5; round++) {
		std::vector<std::thread> v;
		for (int i = 0; i < 40; i++)
			v.emplace_back([] {
				CHECK(plain == 5);
				plain = 6;
				CHECK(per_thread.text[0] == 'a');
				per_thread.text += "!";
			});
		for (auto &t : v)
			t.join();
	}
	CHECK(made == 200);
	CHECK(gone == 200);
	done("thread_local");
}

static int thrower(int depth, int n)
{
	std::string s(100, 'x');
	if (depth == 0)
		throw std::runtime_error("number " + std::to_string(n));
	return thrower(depth - 1, n) + static_cast<int>(s.size());
}

static void exceptions()
{
	std::vector<std::thread> v;
	std::atomic<int> caught{0};
	for (int n = 0; n < 100; n++)
		v.emplace_back([n, &caught] {
			for (int i = 0; i < 20; i++) {
				try {
					thrower(10, n);
				} catch (const std::exception &e) {
					/* Another one while this one is handled, with a switch in between. */
					try {
						std::this_thread::yield();
						throw n;
					} catch (int k) {
						if (k == n && e.what() == "number " + std::to_string(n))
							caught++;
					}
					CHECK(std::uncaught_exceptions() == 0);
				}
			}
		});
	for (auto &t : v)
		t.join();
	CHECK(caught == 2000);
	done("exceptions");
}

static void atomics()
{
	std::atomic<int> turn{0};
	std::vector<std::thread> v;
	long sum = 0;
	for (int id = 0; id < 4; id++)
		v.emplace_back([id, &turn, &sum] {
			for (int i = 0; i < 500; i++) {
				int t;
				while ((t = turn.load()) % 4 != id)
					turn.wait(t);
				sum += id;
				turn.store(t + 1);
				turn.notify_all();
			}
		});
	for (auto &t : v)
		t.join();
	CHECK(sum == 500 * 6);
	CHECK(turn == 2000);
	done("atomic wait");
}

static void once()
{
	std::once_flag flag;
	std::atomic<int> tries{0}, failed{0}, passed{0};
	std::vector<std::thread> v;
	for (int i = 0; i < 10; i++)
		v.emplace_back([&] {
			try {
				std::call_once(flag, [&] {
					usleep(1000);
					if (++tries < 4)
						throw std::logic_error("again");
				});
				passed++;
			} catch (const std::logic_error &) {
				failed++;
			}
		});
	for (auto &t : v)
		t.join();
	CHECK(tries == 4 && failed == 3 && passed == 7);
	done("call_once");
}

static void condvars()
{
	std::mutex m;
	std::condition_variable cv;
	std::vector<int> queue;
	long sum = 0;
	bool end = false;
	std::vector<std::thread> consumers;
	for (int i = 0; i < 4; i++)
		consumers.emplace_back([&] {
			std::unique_lock<std::mutex> l(m);
			for (;;) {
				cv.wait(l, [&] { return end || !queue.empty(); });
				if (queue.empty())
					return;
				sum += queue.back();
				queue.pop_back();
			}
		});
	for (int i = 1; i <= 2000; i++) {
		std::lock_guard<std::mutex> l(m);
		queue.push_back(i);
		cv.notify_one();
	}
	{
		std::lock_guard<std::mutex> l(m);
		end = true;
	}
	cv.notify_all();
	for (auto &t : consumers)
		t.join();
	CHECK(sum == 2001000);
	std::unique_lock<std::mutex> l(m);
	CHECK(cv.wait_for(l, std::chrono::milliseconds(5)) == std::cv_status::timeout);
	done("condition_variable");
}

static long add(const std::vector<int> &v, size_t lo, size_t hi)
{
	if (hi - lo < 500)
		return std::accumulate(v.begin() + static_cast<long>(lo), v.begin() + static_cast<long>(hi), 0L);
	size_t mid = lo + (hi - lo) / 2;
	auto left = std::async(std::launch::async, add, std::cref(v), lo, mid);
	long right = add(v, mid, hi);
	return left.get() + right;
}

static void futures()
{
	std::vector<int> v(20000, 1);
	CHECK(add(v, 0, v.size()) == 20000);
	auto bad = std::async(std::launch::async, [] { return thrower(3, 7); });
	try {
		bad.get();
		CHECK(!"no exception");
	} catch (const std::runtime_error &e) {
		CHECK(std::string(e.what()) == "number 7");
	}
	std::promise<int> p;
	auto f = p.get_future();
	std::thread t([&p] {
		usleep(2000);
		p.set_value_at_thread_exit(9);
	});
	CHECK(f.get() == 9);
	t.join();
	done("async");
}

/* ---- forced unwinding ---- */

static std::string order;
static std::atomic<int> entered;

struct Mark {
	char c;
	explicit Mark(char x) : c(x) {}
	~Mark() { order += c; }
};

static void rethrows(void (*f)())
{
	Mark m('b');
	try {
		Mark inner('c');
		f();
	} catch (const std::exception &) {
		order += '?'; // no exception of C++
	} catch (...) {
		order += 'r';
		throw;
	}
}

static void *forced(void *arg)
{
	Mark m('a');
	rethrows(*static_cast<void (**)()>(arg));
	return nullptr;
}

static void do_exit()
{
	Mark m('d');
	pthread_exit(&order);
}

static void do_sleep()
{
	Mark m('d');
	entered = 1;
	sleep(1000);
}

static pthread_mutex_t wait_m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wait_cv = PTHREAD_COND_INITIALIZER;

struct Held {
	Held() { pthread_mutex_lock(&wait_m); }
	~Held() { pthread_mutex_unlock(&wait_m); }
};

static void do_wait()
{
	Mark m('d');
	Held held; // std::condition_variable::wait is noexcept: a cancellation there would terminate
	entered = 1;
	for (;;)
		pthread_cond_wait(&wait_cv, &wait_m);
}

// No destructor here: the compiler promises to unwind from calls, not from any instruction.
static void do_spin()
{
	static volatile unsigned long n;
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
	entered = 1;
	for (;;)
		n = n + 1;
}

static void handler(void *)
{
	order += 'h';
}

static void do_push()
{
	Mark m('d');
	pthread_cleanup_push(handler, nullptr);
	entered = 1;
	for (;;) {
		pthread_testcancel();
		usleep(500);
	}
	pthread_cleanup_pop(0);
}

static void one(const char *what, void (*f)(), bool cancel, const char *expected)
{
	pthread_t t;
	void *r = nullptr;
	order.clear();
	order.reserve(64);
	entered = 0;
	CHECK(pthread_create(&t, nullptr, forced, &f) == 0);
	if (cancel) {
		while (!entered)
			usleep(500);
		usleep(1000);
		CHECK(pthread_cancel(t) == 0);
	}
	CHECK(pthread_join(t, &r) == 0);
	CHECK(r == (cancel ? PTHREAD_CANCELED : &order));
	if (order != expected) {
		std::printf("%s: %s, not %s\n", what, order.c_str(), expected);
		failures++;
	}
}

static void unwinding()
{
	for (int i = 0; i < 5; i++) {
		one("exit", do_exit, false, "dcrba");
		one("sleep", do_sleep, true, "dcrba");
		one("push", do_push, true, "hdcrba");
		one("wait", do_wait, true, "dcrba");
		CHECK(pthread_mutex_trylock(&wait_m) == 0 && pthread_mutex_unlock(&wait_m) == 0);
		one("spin", do_spin, true, "crba");
	}
	done("forced unwinding");
}

struct AtExit {
	~AtExit() { std::printf("static destructor\n"); }
};
static AtExit at_exit;

int main()
{
	thread_locals();
	exceptions();
	atomics();
	once();
	condvars();
	futures();
	unwinding();
	std::printf("%s\n", failures ? "FAILED" : "ok");
	std::fflush(stdout);
	if (failures)
		return 1;
	/* main leaves first: its destructors run, then those of the last thread, then the static ones. */
	std::thread([] { usleep(20000); }).detach();
	struct Last {
		~Last()
		{
			std::printf("main unwound\n");
			std::fflush(stdout);
		}
	} last;
	pthread_exit(nullptr);
}
