/* SPDX-License-Identifier: MIT */
/*
 * Ps and Ms: who holds which, how they are made, given away and put to rest; the start of the runtime.
 *
 * A P is held by one M (p->m, status RUNNING), or idle on sched.pidle, or on its way: handed over in nextp of an M
 * that is being woken, or on sched.pspawn until sysmon has made an M for it.
 * An M is a bare kernel thread with a g0 of ours; libc does not know it.  Ms without a P sleep on their note, on sched.midle, and
 * are used again, the last one first.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch.h"
#include "core/chaos.h"
#include "core/cputime.h"
#include "core/knobs.h"
#include "core/proc.h"
#include "core/say.h"
#include "core/signal.h"
#include "core/thread.h"

enum { G0_STACK = 64 << 10 };

_Atomic bool pg_started;
int pg_nprocs = 1;
struct pg_p *pg_allp;
struct pg_g pg_main_g;
struct pg_m pg_nullm;
_Atomic int pg_nthreads = 1;

/* ---- Ps ---- */

void pg_pidleput(struct pg_p *p)
{
	atomic_store(&p->status, PG_P_IDLE);
	p->link = pg_sched.pidle;
	pg_sched.pidle = p;
	atomic_fetch_add(&pg_sched.npidle, 1);
}

struct pg_p *pg_pidleget(void)
{
	struct pg_p *p = pg_sched.pidle;

	if (p) {
		pg_sched.pidle = p->link;
		atomic_fetch_sub(&pg_sched.npidle, 1);
	}
	return p;
}

void pg_acquirep(struct pg_m *m, struct pg_p *p)
{
	m->p = p;
	atomic_store(&p->m, m);
	atomic_store(&p->status, PG_P_RUNNING);
	if (pg_unlikely(atomic_load_explicit(&pg_sched.sysmonwait, memory_order_relaxed)))
		pg_sysmon_wake();
}

void pg_releasep(struct pg_m *m)
{
	struct pg_p *p = m->p;

	m->p = NULL;
	atomic_store(&p->m, NULL);
}

/* ---- Ms ---- */


static void mstart(void *arg)
{
	struct pg_m *m = arg;

	m->tid = (int)pg_sys(SYS_gettid);
	/* Not sysmon's, which may have made it: a child that is forked here takes the name on. */
	if (pg_main_g.name[0] != '\0')
		pg_sys(SYS_prctl, PR_SET_NAME, pg_main_g.name);
	pg_tls_robust(m->g0.tcb);
	pg_own_stack_install(m);
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &m->sigmask, NULL, 8);
	pg_schedule(m);
}

static struct pg_m *allocm(void)
{
	size_t tls = pg_tls_size();
	size_t own = (sizeof(struct pg_m) + 63) / 64 * 64, n = own + pg_own_stack_size();
	struct pg_m *m;
	char *mem;

	pg_lock(&pg_sched.lock);
	m = pg_sched.mfree;
	if (m)
		pg_sched.mfree = m->link;
	pg_unlock(&pg_sched.lock);
	if (m) {
		/* Second-hand: a valid object that others may still look at. */
		m->retire = false;
		m->prev = NULL;
		m->ss_sp = NULL;
		m->g0.cmdseq = 0;
		m->g0.sp = NULL;
		m->cur = &m->g0;
		atomic_store(&m->cpumark, 0);
		atomic_store(&m->kicked, 0);
		atomic_store(&m->execing, 0);
		atomic_fetch_and(&m->attn, PG_ATTN_STOP | PG_ATTN_FENCE);
		atomic_store(&m->g0.rt, 1);
		return m;
	}
	mem = pg_mmap_alloc(n + tls + 4096 + G0_STACK);
	m = (struct pg_m *)mem;
	if (mem == NULL)
		return NULL;
	/* Lowest the structure, then the alternate stack, the stack, TLS and TCB. */
	m->own_ss = mem + own;
	m->g0.stack_lo = mem + n;
	m->g0.stack_top = mem + n + G0_STACK;
	m->g0.magic = PG_MAGIC;
	m->g0.tcb = pg_tls_new(mem + n + G0_STACK + tls - pg_tcb_size());
	pg_tls_setself(m->g0.tcb, &m->g0);
	m->g0.m = m;
	m->g0.mode = PG_NATIVE; /* the shim never runs here, save under a foreign signal handler */
	m->g0.timer.idx = -1;
	if (!pg_have_membarrier || pg_knobs.chaos)
		atomic_store(&m->attn, PG_ATTN_FENCE);
	atomic_store(&m->g0.rt, 1);
	m->cur = &m->g0;
	m->rnd = (uint32_t)(uintptr_t)m ^ 0x9e3779b9u;
	if (m->rnd == 0)
		m->rnd = 1;
	return m;
}

static void publishm(struct pg_m *m)
{
	if (m->published)
		return;
	m->published = true;
	m->alllink = atomic_load(&pg_sched.allm);
	while (!atomic_compare_exchange_weak(&pg_sched.allm, &m->alllink, m))
		;
}

/* A new M that starts with P p, spinning or not, or with g and no P.  False: the kernel refuses. */
static bool newm(struct pg_p *p, bool spinning, struct pg_g *g)
{
	struct pg_m *m = allocm();
	uint64_t all = ~0ull, old;
	long r;

	if (m == NULL)
		return false;
	m->nextp = NULL;
	m->spinning = spinning;
	m->firstg = g;
	if (p)
		pg_acquirep(m, p);
	pg_lock(&pg_idlock); /* before the kick is blocked: whoever holds it may wait for us to answer one */
	/* The kick too: it may change the mask that we are going to put back. */
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
	m->sigmask = ~pg_sigbit(PG_SIG_KICK);
	publishm(m);
	r = pg_chaos_fail(PG_CHAOS_CLONE);
	if (r == 0)
		r = pg_arch_clone(mstart, m->g0.stack_top,
			  CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
			  CLONE_PARENT_SETTID, m, &m->tid, m->g0.tcb);
	pg_sys(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, 8);
	pg_unlock(&pg_idlock);
	if (r >= 0)
		return true;
	if (p)
		pg_releasep(m);
	m->tid = 0;
	atomic_store(&m->g0.rt, 0);
	pg_mfree(m);
	return false;
}

bool pg_movem(struct pg_g *g)
{
	bool room;

	pg_lock(&pg_sched.lock);
	room = pg_sched.mcount < pg_knobs.maxm;
	pg_sched.mcount += room;
	pg_unlock(&pg_sched.lock);
	if (room && !newm(NULL, false, g)) {
		pg_lock(&pg_sched.lock);
		pg_sched.mcount--;
		pg_unlock(&pg_sched.lock);
		room = false;
	}
	return room;
}

static bool runtime_has_work(struct pg_p *p)
{
	return !pg_runqempty(p) || atomic_load(&pg_sched.runqsize) > 0;
}

/* Gives p, or an idle P, to an M.  spinning: nmspinning has been counted up for it.  False: there was no idle P. */
static bool startm(struct pg_p *p, bool spinning)
{
	struct pg_m *m;

	pg_lock(&pg_sched.lock);
	if (p == NULL && (p = pg_pidleget()) == NULL) {
		pg_unlock(&pg_sched.lock);
		if (spinning)
			atomic_fetch_sub(&pg_sched.nmspinning, 1);
		return false;
	}
	m = pg_sched.midle;
	if (m) {
		pg_sched.midle = m->link;
		pg_sched.nmidle--;
		pg_unlock(&pg_sched.lock);
		m->spinning = spinning;
		m->nextp = p;
		atomic_store(&p->m, m);
		pg_notewakeup(&m->note);
		return true;
	}
	if (pg_sched.mcount < pg_knobs.maxm) {
		pg_sched.mcount++;
		if (pg_self_->mode == PG_NATIVE && pg_self_->m == &pg_nullm && pg_self_ != pg_sysmon_g) {
			/* A thread inherits what the kernel keeps per thread: not from a wired or foreign one. */
			p->link = pg_sched.pspawn;
			p->spinning = spinning;
			pg_sched.pspawn = p;
			pg_unlock(&pg_sched.lock);
			pg_sysmon_poke();
			return true;
		}
		pg_unlock(&pg_sched.lock);
		if (newm(p, spinning, NULL))
			return true;
		pg_lock(&pg_sched.lock);
		pg_sched.mcount--;
	} else {
		pg_sched.capped = true; /* sysmon says it */
	}
	/* No M to be had: the P stays idle with what it has queued; whoever releases a P or comes back finds it. */
	pg_pidleput(p);
	pg_unlock(&pg_sched.lock);
	if (spinning)
		atomic_fetch_sub(&pg_sched.nmspinning, 1);
	return true;
}

/* On sysmon: the Ms that native threads asked for. */
void pg_spawn(void)
{
	struct pg_p *p;

	for (;;) {
		pg_lock(&pg_sched.lock);
		p = pg_sched.pspawn;
		if (p)
			pg_sched.pspawn = p->link;
		pg_unlock(&pg_sched.lock);
		if (p == NULL)
			return;
		if (!newm(p, p->spinning, NULL)) {
			pg_lock(&pg_sched.lock);
			pg_sched.mcount--;
			pg_pidleput(p);
			pg_unlock(&pg_sched.lock);
			if (p->spinning)
				atomic_fetch_sub(&pg_sched.nmspinning, 1);
		}
	}
}

void pg_wakep(void)
{
	int z;

	do {
		/* pairs with the fetch_sub of the last spinner in findrunnable: the G is queued before this load */
		atomic_thread_fence(memory_order_seq_cst);
		if (atomic_load_explicit(&pg_sched.npidle, memory_order_relaxed) == 0 ||
		    atomic_load_explicit(&pg_sched.nmspinning, memory_order_relaxed) != 0)
			return;
		z = 0;
		/* In vain: a P that goes idle meanwhile is put to rest by an M which took us for a spinner, so look again. */
	} while (atomic_compare_exchange_strong(&pg_sched.nmspinning, &z, 1) && !startm(NULL, true));
}

void pg_handoffp(struct pg_p *p)
{
	if (runtime_has_work(p)) {
		startm(p, false);
		return;
	}
	/* Nobody spins and every other P is idle or busy: somebody must look for work, poll and run timers. */
	int z = 0;
	if (atomic_load(&pg_sched.nmspinning) + atomic_load(&pg_sched.npidle) == 0 &&
	    atomic_compare_exchange_strong(&pg_sched.nmspinning, &z, 1)) {
		startm(p, true);
		return;
	}
	pg_lock(&pg_sched.lock);
	if (atomic_load(&pg_sched.runqsize) > 0) {
		pg_unlock(&pg_sched.lock);
		startm(p, false);
		return;
	}
	if ((atomic_load(&pg_sched.npidle) + atomic_load(&pg_sched.npheld) >= pg_nprocs - 1 || atomic_load(&p->timer0) != PG_FOREVER) &&
	    !atomic_load(&pg_sched.polling) &&
	    (atomic_load(&pg_sched.pollwaiters) > 0 || pg_timers_next() != PG_FOREVER)) {
		pg_unlock(&pg_sched.lock);
		startm(p, false);
		return;
	}
	pg_pidleput(p);
	pg_unlock(&pg_sched.lock);
	if (atomic_load(&p->timer0) < atomic_load(&pg_sched.polluntil) && atomic_load(&pg_sched.polling))
		pg_netpoll_break();
	/* Who queued a G before it could see this P idle left it to nobody. */
	for (int i = 0; i < pg_nprocs; i++) {
		if (!pg_runqempty(&pg_allp[i])) {
			pg_wakep();
			break;
		}
	}
}

/* Sleeps until somebody gives this M a P.  On g0. */
void pg_stopm(struct pg_m *m)
{
	pg_noteclear(&m->note);
	pg_lock(&pg_sched.lock);
	m->link = pg_sched.midle;
	pg_sched.midle = m;
	pg_sched.nmidle++;
	pg_unlock(&pg_sched.lock);
	/* Out of the runtime while asleep, so that stopping the world need not wait for us. */
	atomic_store(&m->g0.rt, 0);
	pg_signal_route(&m->g0);
	pg_notesleep(&m->note);
	pg_rt_enter(&m->g0);
	if (pg_unlikely(m->retire))
		pg_mexit(m);
	pg_acquirep(m, m->nextp);
	m->nextp = NULL;
}

/* ---- start ---- */

bool pg_have_membarrier;

long pg_membarrier(void)
{
	if (pg_have_membarrier)
		return pg_sys(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	return -ENOSYS;
}

static int count_cpus(void)
{
	unsigned long mask[128] = {0};
	long n = pg_sys(SYS_sched_getaffinity, 0, sizeof mask, mask);
	int cpus = 0;

	for (long i = 0; i < n / (long)sizeof(long); i++)
		cpus += __builtin_popcountl(mask[i]);
	return cpus > 0 ? cpus : 1;
}

void pg_g0_entry(void *arg)
{
	pg_schedule(arg);
}

int pg_start(void)
{
	struct pg_g *g = pg_self();
	struct pg_m *m;
	int r, n;

	if (atomic_load(&pg_started))
		return 0;
	if (g != &pg_main_g && g->slab == NULL)
		return -EAGAIN; /* a foreign thread came before main: it stays native */
	r = pg_tls_init();
	if (r < 0)
		return r;
	pg_fault_init();
	n = pg_knobs.maxprocs ? (int)pg_knobs.maxprocs : count_cpus();
	pg_nprocs = n > 256 ? 256 : n;
	pg_have_membarrier = pg_sys(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
	if (!pg_have_membarrier || pg_knobs.chaos)
		atomic_fetch_or(&pg_nullm.attn, PG_ATTN_FENCE);
	pg_allp = pg_mmap_alloc((size_t)pg_nprocs * sizeof *pg_allp);
	m = allocm();
	if (pg_allp == NULL || m == NULL)
		return -EAGAIN;
	r = pg_netpoll_init();
	if (r < 0)
		return r;
	for (int i = 0; i < pg_nprocs; i++) {
		pg_allp[i].id = i;
		atomic_store(&pg_allp[i].timer0, PG_FOREVER);
	}
	for (int i = pg_nprocs - 1; i > 0; i--)
		pg_pidleput(&pg_allp[i]);

	/* The calling thread goes on as a green G on the first M. */
	atomic_fetch_add(&g->rt, 1);
	m->tid = (int)pg_sys(SYS_gettid);
	m->sigmask = g->sigmask;
	m->ss_sp = g->altstack.ss_sp;
	if (m->ss_sp == NULL)
		pg_own_stack_install(m);
	m->g0.sp = pg_arch_frame(m->g0.stack_top, pg_g0_entry, m);
	m->cur = g;
	pg_sched.mcount = 1;
	publishm(m);
	pg_acquirep(m, &pg_allp[0]);
	g->m = m;
	g->mode = PG_GREEN;
	pg_cputime_start(g);
	pg_signal_gstart(g);
	pg_sysmon_start();
	pg_fault_start();
	atomic_store(&pg_started, true);
	pg_rt_exit(g);
	return 0;
}
