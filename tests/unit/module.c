/* SPDX-License-Identifier: MIT */
/* A shared object with thread-local variables, for test_tls to open. */
__thread int unit_mod_set = 4711;
__thread char unit_mod_zero[64];

int *unit_mod_set_addr(void);
char *unit_mod_zero_addr(void);

__attribute__((noinline)) int *unit_mod_set_addr(void)
{
	return &unit_mod_set;
}

__attribute__((noinline)) char *unit_mod_zero_addr(void)
{
	return unit_mod_zero;
}
