/* SPDX-License-Identifier: MIT */
/*
 * Pending signals: those of a thread and those of the process, and how the latter find a thread.
 *
 * A signal for a thread lies on its G.  Senders push nodes on g->sigq, a lock-free stack; the G moves them to sigpriv, in order of
 * arrival, and takes them from there.  The words beside it:
 *   sigclaim  signals below 32, of which one at most is pending: set by the sender that will push the node, cleared by the G when it
 *             takes that node.  One claim, one node.
 *   sigbare   pending without a node, since there was none to be had; their siginfo is lost.
 *   sigpend   a hint for whoever asks without being the G: set after the node has been pushed.  The G clears it, empties
 *             sigq and sets it again for what it has; so a bit may be left without a node, but no node without a bit.
 *
 * A signal for the process lies on procq, in order of arrival, under procq_lock; any G that has it unblocked, or waits for it, may take it.
 * q->to has been told, and is preferred as long as it would take it (takes).  Who blocks a signal tells another (pg_sig_retarget):
 * it stores its mask, then looks at procpend; who queues one sets procpend, then looks at masks.
 *
 * Signals that interrupted the runtime itself go to the inbox, a lock-free stack; the next context that may queue Gs moves them on,
 * in order, under procq_lock.
 *
 * Lock order: procq_lock, then the scheduler's.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/proc.h"
#include "core/sigstate.h"

static struct pg_lock procq_lock;
static struct pg_sigq *procq, **procq_tail = &procq;
static uint64_t procbare; /* pending without a node; procq_lock */
_Atomic uint64_t pg_sig_procpend; /* written under procq_lock */

static _Atomic(struct pg_sigq *) inbox;
static _Atomic uint64_t inbox_bits; /* those for which there was no node */
_Atomic bool pg_signal_inbox;       /* there may be something */

static void fill(struct pg_sigq *q, int sig, const siginfo_t *info)
{
	q->to = NULL;
	q->timed = false;
	if (info) {
		q->info = *info;
	} else {
		memset(&q->info, 0, sizeof q->info);
		q->info.si_code = SI_TKILL;
		q->info.si_pid = getpid();
		q->info.si_uid = getuid();
	}
	q->info.si_signo = sig;
}

/* A stack of nodes, youngest first, emptied; oldest first. */
static struct pg_sigq *empty(_Atomic(struct pg_sigq *) *stack)
{
	struct pg_sigq *q = atomic_exchange(stack, NULL), *rev = NULL, *n;

	for (; q; q = n) {
		n = q->next;
		q->next = rev;
		rev = q;
	}
	return rev;
}

static void push(_Atomic(struct pg_sigq *) *stack, struct pg_sigq *q)
{
	struct pg_sigq *head = atomic_load(stack);

	do
		q->next = head;
	while (!atomic_compare_exchange_weak(stack, &head, q));
}

/* ---- of a thread ---- */

static bool waits(struct pg_g *g, uint64_t bit) { return (atomic_load(&g->sigwaiting) & bit) != 0; }

static void tell(struct pg_g *g, uint64_t bit)
{
	if (!(*(volatile uint64_t *)&g->sigmask & bit)) {
		atomic_fetch_or(&g->pending, PG_PEND_SIGNAL);
		pg_interrupt(g);
	} else if (waits(g, bit)) {
		pg_interrupt(g);
	}
}

/* 0; 1: there is one already; -EAGAIN. */
static int queue_on(struct pg_g *g, int sig, const siginfo_t *info, uint64_t timer, bool timed)
{
	uint64_t bit = pg_sigbit(sig);
	struct pg_sigq *q;

	if (sig < 32 && atomic_fetch_or(&g->sigclaim, bit) & bit)
		return 1;
	q = pg_sigq_get(sig >= 32 && !timed);
	if (q) {
		fill(q, sig, info);
		q->timer = timer;
		q->timed = timed;
		push(&g->sigq, q);
	} else if (sig >= 32) {
		return -EAGAIN;
	} else {
		atomic_fetch_or(&g->sigbare, bit);
	}
	atomic_fetch_or(&g->sigpend, bit);
	tell(g, bit);
	return 0;
}

static int send(struct pg_g *g, int sig, const siginfo_t *info, uint64_t timer, bool timed)
{
	struct pg_g *self = pg_self();
	int r;

	pg_rt_enter(self);
	r = queue_on(g, sig, info, timer, timed);
	pg_rt_exit(self); /* delivers at once when g is the caller */
	return r;
}

int pg_gkill(struct pg_g *g, int sig, const siginfo_t *info)
{
	int r = send(g, sig, info, 0, false);

	return r < 0 ? r : 0;
}

int pg_gkill_timer(struct pg_g *g, int sig, const siginfo_t *info, uint64_t timer)
{
	return send(g, sig, info, timer, true);
}

/* What is pending for g alone.  By g, rt > 0. */
uint64_t pg_sig_thread(struct pg_g *g)
{
	uint64_t set = 0;

	if (atomic_load(&g->sigpend) == 0)
		return 0;
	atomic_exchange(&g->sigpend, 0); /* pairs with queue_on: it pushes, then sets */
	for (struct pg_sigq *q = empty(&g->sigq), *n; q; q = n) {
		n = q->next;
		q->next = NULL;
		if (g->sigpriv)
			g->sigprivtail->next = q;
		else
			g->sigpriv = q;
		g->sigprivtail = q;
		g->sigprivset |= pg_sigbit(q->info.si_signo);
	}
	set = g->sigprivset | atomic_load(&g->sigbare);
	if (set)
		atomic_fetch_or(&g->sigpend, set);
	return set;
}

static void no_info(siginfo_t *info, int sig)
{
	memset(info, 0, sizeof *info);
	info->si_signo = sig;
	info->si_code = SI_USER;
}

static int take_thread(struct pg_g *g, uint64_t pend, siginfo_t *info)
{
	int sig = __builtin_ctzll(pend) + 1;
	uint64_t bit = pg_sigbit(sig);
	struct pg_sigq *q, *before = NULL, *rest;

	if (!(g->sigprivset & bit)) {
		no_info(info, sig);
		atomic_fetch_and(&g->sigbare, ~bit);
	} else {
		for (q = g->sigpriv; q->info.si_signo != sig; q = q->next)
			before = q;
		if (before)
			before->next = q->next;
		else
			g->sigpriv = q->next;
		if (g->sigprivtail == q)
			g->sigprivtail = before;
		for (rest = q->next; rest && rest->info.si_signo != sig; rest = rest->next)
			;
		if (rest == NULL)
			g->sigprivset &= ~bit;
		*info = q->info;
		if (q->timed)
			pg_sigtimer_taken(q->timer, info);
		pg_sigq_put(q);
	}
	if (sig < 32)
		atomic_fetch_and(&g->sigclaim, ~bit);
	return sig;
}

void pg_sig_drop(struct pg_g *g)
{
	siginfo_t info;
	uint64_t set;

	while ((set = pg_sig_thread(g)) != 0)
		take_thread(g, set, &info);
}

/* ---- of the process ---- */

static bool takes(struct pg_g *g, uint64_t bit)
{
	uint32_t st = atomic_load(&g->state);

	return st != PG_G_dead && st != PG_G_idle && st != PG_G_ghost && *(volatile int *)&g->sigclass >= 0 &&
	       (!(*(volatile uint64_t *)&g->sigmask & bit) || waits(g, bit));
}

struct pick { uint64_t bit; struct pg_g *g, *waiter; };

static void pick_one(struct pg_g *g, void *arg)
{
	struct pick *k = arg;

	if (k->waiter || !takes(g, k->bit))
		return;
	if (waits(g, k->bit))
		k->waiter = g;
	else if (k->g == NULL)
		k->g = g;
}

/* Some G that takes it: who waits for it, else the first thread as in the kernel, else the one it came to. */
static struct pg_g *choose(int sig, struct pg_g *here)
{
	struct pick k = {pg_sigbit(sig), NULL, NULL};

	if (here && (sig == SIGPROF || sig == SIGVTALRM))
		pick_one(here, &k);
	pick_one(&pg_main_g, &k);
	if (here)
		pick_one(here, &k);
	pg_foreach_g(pick_one, &k);
	return k.waiter ? k.waiter : k.g;
}

void pg_sig_retarget(uint64_t bits)
{
	atomic_thread_fence(memory_order_seq_cst);
	for (bits &= atomic_load(&pg_sig_procpend); bits; bits &= bits - 1) {
		int sig = __builtin_ctzll(bits) + 1;
		struct pg_g *to = choose(sig, NULL);
		if (to)
			tell(to, pg_sigbit(sig));
	}
}

/* q, or without a node only its number, becomes pending for the process.  procq_lock held. */
static void add(struct pg_sigq *q, int sig, struct pg_g *here)
{
	uint64_t bit = pg_sigbit(sig);
	struct pg_g *to;

	if ((sig < 32 || q == NULL) && atomic_load(&pg_sig_procpend) & bit) {
		if (q)
			pg_sigq_put(q);
		return;
	}
	if (q) {
		q->next = NULL;
		q->to = NULL;
		*procq_tail = q;
		procq_tail = &q->next;
	} else {
		procbare |= bit;
	}
	atomic_fetch_or(&pg_sig_procpend, bit); /* pairs with pg_sig_setmask and pg_sig_retarget */
	for (;;) {
		to = choose(sig, here);
		if (q)
			q->to = to;
		atomic_thread_fence(memory_order_seq_cst);
		if (to == NULL)
			return;
		if (takes(to, bit))
			break;
	}
	tell(to, bit);
}

void pg_sig_route(int sig, const siginfo_t *info, struct pg_g *here)
{
	struct pg_sigq *q = pg_sigq_get(false);

	if (q)
		fill(q, sig, info);
	pg_lock(&procq_lock);
	add(q, sig, here);
	pg_unlock(&procq_lock);
}

/* The first of this number that g may take, off procq; NULL.  procq_lock held. */
static struct pg_sigq *unlink_first(struct pg_g *g, int sig)
{
	uint64_t bit = pg_sigbit(sig);
	struct pg_sigq **pp, *q, *rest;
	bool older = false;

	for (pp = &procq; (q = *pp) != NULL; pp = &q->next) {
		if (q->info.si_signo != sig)
			continue;
		if (g == NULL || q->to == NULL || q->to == g || !takes(q->to, bit))
			break;
		older = true;
	}
	if (q == NULL)
		return NULL;
	*pp = q->next;
	if (procq_tail == &q->next)
		procq_tail = pp;
	for (rest = q->next; rest && rest->info.si_signo != sig; rest = rest->next)
		;
	if (!older && rest == NULL)
		atomic_fetch_and(&pg_sig_procpend, ~bit);
	return q;
}

static int take_process(struct pg_g *g, uint64_t set, siginfo_t *info)
{
	int sig = 0;

	pg_lock(&procq_lock);
	for (set &= atomic_load(&pg_sig_procpend); set; set &= set - 1) {
		int s = __builtin_ctzll(set) + 1;
		uint64_t bit = pg_sigbit(s);
		struct pg_sigq *q = NULL;
		if (procbare & bit) {
			procbare &= ~bit;
			no_info(info, s);
			/* The bit stays if there are nodes as well; it may stay without one for a moment: a look in vain. */
			for (q = procq; q && q->info.si_signo != s; q = q->next)
				;
			if (q == NULL)
				atomic_fetch_and(&pg_sig_procpend, ~bit);
			sig = s;
			break;
		}
		if ((q = unlink_first(g, s)) != NULL) {
			*info = q->info;
			pg_sigq_put(q);
			sig = s;
			break;
		}
	}
	pg_unlock(&procq_lock);
	return sig;
}

int pg_sig_take(struct pg_g *g, uint64_t set, siginfo_t *info)
{
	uint64_t pend = pg_sig_thread(g) & set;

	if (pend)
		return take_thread(g, pend, info);
	if (atomic_load(&pg_sig_procpend) & set)
		return take_process(g, set, info);
	return 0;
}

void pg_sig_discard(struct pg_g *g, int sig)
{
	uint64_t bit = pg_sigbit(sig);
	struct pg_sigq *q;
	siginfo_t info;

	while (pg_sig_thread(g) & bit)
		take_thread(g, bit, &info);
	if (!(atomic_load(&pg_sig_procpend) & bit))
		return;
	pg_lock(&procq_lock);
	while ((q = unlink_first(NULL, sig)) != NULL)
		pg_sigq_put(q);
	procbare &= ~bit;
	atomic_fetch_and(&pg_sig_procpend, ~bit);
	pg_unlock(&procq_lock);
}

/* ---- the inbox ---- */

static void came(struct pg_g *g)
{
	atomic_store(&pg_signal_inbox, true);
	atomic_fetch_or(&g->pending, PG_PEND_SIGNAL); /* so that rt_exit looks */
	/* g may be asleep in the runtime, in a futex that SA_RESTART takes up again, or on its way there. */
	if (g != pg_sysmon_g)
		pg_sysmon_poke();
}

bool pg_sig_inbox_timer(struct pg_g *g, uint64_t timer)
{
	struct pg_sigq *q = pg_sigq_get(false);

	if (q == NULL)
		return false;
	q->timer = timer;
	q->timed = true;
	push(&inbox, q);
	came(g);
	return true;
}

void pg_sig_inbox(struct pg_g *g, int sig, const siginfo_t *info, struct pg_g *here)
{
	struct pg_sigq *q = pg_sigq_get(false);

	if (q) {
		fill(q, sig, info);
		q->to = here;
		push(&inbox, q);
	} else {
		atomic_fetch_or(&inbox_bits, pg_sigbit(sig));
	}
	came(g);
}

void pg_signal_route_slow(struct pg_g *g)
{
	struct pg_sigq *q, *n;
	uint64_t bits;

	pg_rt_raise(g);
	pg_rt_settle(g);
	while (atomic_exchange(&pg_signal_inbox, false)) {
		pg_lock(&procq_lock); /* one at a time, or they would change places */
		for (q = empty(&inbox); q; q = n) {
			n = q->next;
			if (q->timed) {
				uint64_t timer = q->timer;
				pg_sigq_put(q);
				pg_sigtimer_deliver(timer);
			} else {
				add(q, q->info.si_signo, q->to);
			}
		}
		for (bits = atomic_exchange(&inbox_bits, 0); bits; bits &= bits - 1)
			add(NULL, __builtin_ctzll(bits) + 1, NULL);
		pg_unlock(&procq_lock);
	}
	pg_rt_lower(g);
}

/* In a fork's child: nothing is pending. */
void pg_sigqueue_forked(void)
{
	struct pg_g *g = pg_self_;

	procq_lock = (struct pg_lock){0};
	while (procq) {
		struct pg_sigq *q = procq;
		procq = q->next;
		pg_sigq_put(q);
	}
	procq_tail = &procq;
	procbare = 0;
	atomic_store(&pg_sig_procpend, 0);
	atomic_store(&inbox, NULL);
	atomic_store(&inbox_bits, 0);
	atomic_store(&pg_signal_inbox, false);
	pg_sig_drop(g); /* what came for the parent while it was forking is the parent's */
	atomic_store(&g->sigclaim, 0);
	atomic_store(&g->sigbare, 0);
	atomic_fetch_and(&g->pending, ~(uint32_t)PG_PEND_SIGNAL);
}
