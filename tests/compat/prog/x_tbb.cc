// SPDX-License-Identifier: MIT
// Work by oneTBB: parallel loops, reductions, sorting, task groups, a pipeline, concurrent containers.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <vector>
#include <tbb/blocked_range.h>
#include <tbb/concurrent_hash_map.h>
#include <tbb/concurrent_queue.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/parallel_pipeline.h>
#include <tbb/parallel_reduce.h>
#include <tbb/parallel_sort.h>
#include <tbb/task_group.h>

static uint64_t mix(uint64_t x)
{
	for (int i = 0; i < 20; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	return x;
}

static long fib(int n)
{
	if (n < 16)
		return n < 2 ? n : fib(n - 1) + fib(n - 2);
	long a, b;
	tbb::task_group g;
	g.run([&] { a = fib(n - 1); });
	b = fib(n - 2);
	g.wait();
	return a + b;
}

int main()
{
	tbb::global_control four(tbb::global_control::max_allowed_parallelism, 4);
	const size_t n = 2000000;
	std::vector<uint64_t> v(n);

	tbb::parallel_for(tbb::blocked_range<size_t>(0, n), [&](const tbb::blocked_range<size_t> &r) {
		for (size_t i = r.begin(); i != r.end(); i++)
			v[i] = mix(i + 1);
	});
	uint64_t sum = tbb::parallel_reduce(tbb::blocked_range<size_t>(0, n), uint64_t(0),
		[&](const tbb::blocked_range<size_t> &r, uint64_t s) {
			for (size_t i = r.begin(); i != r.end(); i++)
				s += v[i];
			return s;
		}, [](uint64_t a, uint64_t b) { return a + b; });
	printf("reduce %llu\n", (unsigned long long)sum);

	tbb::parallel_sort(v.begin(), v.end());
	size_t wrong = 0;
	for (size_t i = 1; i < n; i++)
		wrong += v[i - 1] > v[i];
	printf("sort %llu %llu, %zu wrong\n", (unsigned long long)v[0], (unsigned long long)v[n - 1], wrong);

	printf("fib %ld\n", fib(32));

	int next = 0;
	uint64_t piped = 0;
	tbb::parallel_pipeline(8,
		tbb::make_filter<void, int>(tbb::filter_mode::serial_in_order, [&](tbb::flow_control &f) {
			if (next == 20000)
				f.stop();
			return next++;
		}) & tbb::make_filter<int, uint64_t>(tbb::filter_mode::parallel, [](int x) { return mix(x + 1); }) &
		tbb::make_filter<uint64_t, void>(tbb::filter_mode::serial_in_order, [&](uint64_t x) { piped = piped * 31 + x; }));
	printf("pipeline %llu\n", (unsigned long long)piped);

	tbb::concurrent_hash_map<int, int> map;
	tbb::parallel_for(0, 200000, [&](int i) {
		tbb::concurrent_hash_map<int, int>::accessor a;
		map.insert(a, i % 1000);
		a->second++;
	});
	long counted = 0;
	for (auto &e : map)
		counted += e.second;
	printf("map %zu %ld\n", map.size(), counted);

	tbb::concurrent_bounded_queue<int> q;
	q.set_capacity(10);
	std::atomic<long> taken{0};
	tbb::task_group g;
	g.run([&] { for (int i = 1; i <= 5000; i++) q.push(i); });
	for (int i = 1; i <= 5000; i++) {
		int x;
		q.pop(x);
		taken += x;
	}
	g.wait();
	printf("queue %ld\n", taken.load());

	try {
		tbb::parallel_for(0, 1000, [](int i) { if (i == 777) throw std::runtime_error("from a task"); });
	} catch (const std::exception &e) {
		printf("caught %s\n", e.what());
	}
	return 0;
}
