/* SPDX-License-Identifier: MIT */
/*
 * C11 threads: the POSIX functions with other results.  libc's own call its pthread functions directly,
 * past the shim. The objects are the same; mtx_init, mtx_destroy and cnd_init only write into them and
 * are libc's.
 */
#include "shim/objects.h"

#include <sched.h>

static int result(int err)
{
	switch (err) {
	case 0: return thrd_success;
	case ENOMEM: return thrd_nomem;
	case ETIMEDOUT: return thrd_timedout;
	case EBUSY: return thrd_busy;
	default: return thrd_error;
	}
}

PG_EXPORT int thrd_create(thrd_t *t, thrd_start_t fn, void *arg)
{
	if (!pg_thread_ready())
		return PG_REAL(thrd_create)(t, fn, arg);
	return result(pg_thread_create(t, NULL, NULL, fn, arg));
}

/* Blocks: the G.  Cancel: yes, as pthread_join. */
PG_EXPORT int thrd_join(thrd_t t, int *res)
{
	void *r = NULL;
	int err = pthread_join(t, &r);

	if (err == 0 && res)
		*res = (int)(intptr_t)r;
	return result(err);
}

PG_EXPORT int thrd_detach(thrd_t t)
{
	return result(pthread_detach(t));
}

PG_EXPORT void thrd_exit(int res)
{
	pthread_exit((void *)(intptr_t)res);
}

/* Blocks: the G.  Cancel: yes. */
PG_EXPORT int thrd_sleep(const struct timespec *time, struct timespec *remaining)
{
	int err = clock_nanosleep(CLOCK_REALTIME, 0, time, remaining);

	return err == 0 ? 0 : err == EINTR ? -1 : -2;
}

/* Blocks: the G. */
PG_EXPORT int mtx_lock(mtx_t *m)
{
	return result(pthread_mutex_lock((pthread_mutex_t *)m));
}

PG_EXPORT int mtx_timedlock(mtx_t *restrict m, const struct timespec *restrict ts)
{
	return result(pthread_mutex_timedlock((pthread_mutex_t *)m, ts));
}

PG_EXPORT int mtx_trylock(mtx_t *m)
{
	return result(pthread_mutex_trylock((pthread_mutex_t *)m));
}

PG_EXPORT int mtx_unlock(mtx_t *m)
{
	return result(pthread_mutex_unlock((pthread_mutex_t *)m));
}

/* Blocks: the G.  Cancel: yes, as pthread_cond_wait. */
PG_EXPORT int cnd_wait(cnd_t *c, mtx_t *m)
{
	return result(pthread_cond_wait((pthread_cond_t *)c, (pthread_mutex_t *)m));
}

PG_EXPORT int cnd_timedwait(cnd_t *restrict c, mtx_t *restrict m, const struct timespec *restrict ts)
{
	return result(pthread_cond_timedwait((pthread_cond_t *)c, (pthread_mutex_t *)m, ts));
}

PG_EXPORT int cnd_signal(cnd_t *c)
{
	return result(pthread_cond_signal((pthread_cond_t *)c));
}

PG_EXPORT int cnd_broadcast(cnd_t *c)
{
	return result(pthread_cond_broadcast((pthread_cond_t *)c));
}

PG_EXPORT void cnd_destroy(cnd_t *c)
{
	pthread_cond_destroy((pthread_cond_t *)c);
}

/* The shim keeps the destructors of keys and must hear of values. */
PG_EXPORT int tss_create(tss_t *key, tss_dtor_t fn)
{
	return result(pthread_key_create(key, fn));
}

PG_EXPORT void tss_delete(tss_t key)
{
	pthread_key_delete(key);
}

PG_EXPORT int tss_set(tss_t key, void *value)
{
	return result(pthread_setspecific(key, value));
}

_Static_assert(sizeof(once_flag) == sizeof(pthread_once_t), "size of a once flag");
PG_EXPORT void call_once(once_flag *flag, void (*fn)(void))
{
	pthread_once((pthread_once_t *)flag, fn);
}
