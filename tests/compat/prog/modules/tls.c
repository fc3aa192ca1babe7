/* SPDX-License-Identifier: MIT */
/* For t_dlopen: thread-local variables, in a module built once with each model of TLS that a shared object may use. */

static __thread int set = 4711;
static __thread char zero[64] __attribute__((aligned(32)));
static __thread char wide[128] __attribute__((aligned(128))) = "wide";

/* Does the calling thread find the initial image? */
int mod_initial(void);
int mod_initial(void)
{
	for (int i = 0; i < 64; i++)
		if (zero[i])
			return 0;
	return set == 4711 && wide[0] == 'w' && wide[4] == 0 && (unsigned long)wide % 128 == 0;
}

void mod_put(int v);
void mod_put(int v)
{
	set = v;
	for (int i = 0; i < 64; i++)
		zero[i] = (char)(v | 1);
	wide[0] = (char)v;
}

int mod_get(void);
int mod_get(void)
{
	return set;
}
