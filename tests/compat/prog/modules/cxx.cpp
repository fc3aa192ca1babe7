// SPDX-License-Identifier: MIT
// For t_dlopen: thread_local objects with constructors and destructors, in a module.
#include <atomic>

extern "C" {
extern std::atomic<int> host_made, host_gone;
int cxx_use(int v);
}

namespace {

struct object {
	int v = 77;
	object() { host_made++; }
	~object() { host_gone++; }
};

thread_local object one, two;

}

// What was there; afterwards v is.
int cxx_use(int v)
{
	int was = one.v == two.v ? one.v : -1;

	one.v = two.v = v;
	return was;
}
