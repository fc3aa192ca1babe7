/* SPDX-License-Identifier: MIT */
/*
 * Park and ready: the word g->wait.
 *
 * Models      core/park.c: pg_wait_prepare, pg_wait_abort, pg_park, pg_wake; the part of core/sched.c
 *             that runs after a switch (m->prev, m->prevop) and commits the park.
 * Command     tests/model/run quick park
 * Size        quick 1,828,458 states (one wait, all three sources at once) and 4,619,184 (two waits, two sources,
 *             the yielding G), 3 and 6 s; all (two waits, three sources) 13,534,408 states, 15 s
 *
 * One G (0) waits twice; a second G (1) yields, so that the next context after a switch is sometimes a
 * G, sometimes g0. Two Ms.  Three sources, in each round any non-empty set of them: a resource (finds
 * the G on a queue), a timer (armed in pg_park), a signal (addressed to the G directly).  A source of
 * round 1 may be so late that its wake-up hits round 2. TSO store buffers are modelled for the two
 * stores of the Dekker pair: g->wait = PREP and pending = 1.
 *
 * Checked     - a G runs on one M at a time, and only after the switch away from it has saved its registers
 *             - it is on the run queue at most once
 *             - each wait has at most one winner, and each park that returns has exactly one
 *             - no lost wake-up: G 0 ends, whatever set of sources there is
 *
 * Mutants     1  the commit is a plain store, not a CAS
 *             2  the waker makes the G runnable although it found PREP
 *             3  the condition is not looked at again after PREP
 *             4  PREP is a plain store (no barrier before the second look)
 *             5  pending is set by a plain store (no barrier before the waker loads g->wait)
 *             6  the waker stores WOKEN instead of a CAS: two winners
 */
#ifndef MUTANT
#define MUTANT 0
#endif

#ifndef SOURCES
#define SOURCES 3 /* most sources in the two rounds together */
#endif
#ifndef ROUNDS
#define ROUNDS 2  /* waits of the first G */
#endif
#ifndef YIELDS
#define YIELDS 1  /* of the second G */
#endif

#define W_IDLE   0
#define W_PREP   1
#define W_PARKED 2
#define W_WOKEN  3

#define RES 1
#define TIM 2
#define SIG 4

#define NOG 2 /* no G: the M is on g0 */

#define OP_READY  0 /* m->prevop: what the next context does with m->prev */
#define OP_COMMIT 1
#define OP_NONE   2

byte wait = W_IDLE;
bool wait_buf;      /* PREP is in the store buffer of the M that runs G 0 */
bool pending;
bool pending_buf;   /* the same for the signal's store */
bool cond[3], due[3];
byte src[3];
byte round = 1;     /* of G 0; ROUNDS + 1: it has ended */
bool inq;           /* on the resource's queue */
byte armed;         /* the round its timer is armed for, 0: none */
byte wins;          /* of the current wait */

chan runq = [4] of { byte };
bool onq[2];
bool saved[2];      /* its registers are in memory; nobody is on its stack */
bool started;       /* G 0 has a frame of pg_park to return to */

inline ready(g)
{
	atomic {
		assert(!onq[g]);
		onq[g] = true;
		runq!g
	}
}

/* what any locked instruction of the M that runs G 0 does */
inline drain_wait()
{
	if
	:: wait_buf -> wait = W_PREP; wait_buf = false
	:: else
	fi
}

inline claim()
{
	wait = W_WOKEN;
	wins++;
	assert(wins == 1)
}

/* pg_wake(0) */
inline wake()
{
	do
	:: w = wait;
#if MUTANT == 6
	   if
	   :: w == W_PREP -> atomic { claim() }; break
	   :: w == W_PARKED -> atomic { claim() }; ready(0); break
	   :: else -> break
	   fi
#else
	   if
	   :: w == W_PREP ->
		atomic {
			if
			:: wait == W_PREP -> claim(); won = true
			:: else -> won = false
			fi
		};
		if
		:: won ->
#if MUTANT == 2
			ready(0);
#endif
			break
		:: else
		fi
	   :: w == W_PARKED ->
		atomic {
			if
			:: wait == W_PARKED -> claim(); won = true
			:: else -> won = false
			fi
		};
		if
		:: won -> ready(0); break
		:: else
		fi
	   :: else -> break
	   fi
#endif
	od;
	atomic { w = 0; won = false }
}

proctype M()
{
	byte cur = NOG, prev = NOG, next = NOG, op = OP_NONE;
	byte yields = YIELDS;

on_g0:
end_g0:	atomic { runq?next -> onq[next] = false };

do_switch: /* save prev, load next */
	atomic {
		if
		:: cur != NOG -> assert(!saved[cur]); saved[cur] = true
		:: else
		fi;
		if
		:: next != NOG -> assert(saved[next]); saved[next] = false
		:: else
		fi;
		prev = cur; cur = next; next = NOG
	};
	/* finish: the next context's first act */
	if
	:: op == OP_COMMIT ->
#if MUTANT == 1
		wait = W_PARKED;
#else
		atomic {
			if
			:: wait == W_PREP -> wait = W_PARKED; op = OP_NONE
			:: else -> assert(wait == W_WOKEN); op = OP_READY
			fi
		};
		if
		:: op == OP_READY -> ready(prev)
		:: else
		fi
#endif
	:: op == OP_READY -> ready(prev)
	:: else
	fi;
	atomic { op = OP_NONE; prev = NOG };
	if
	:: cur == NOG -> goto on_g0
	:: cur == 1 -> goto yielder
	:: cur == 0 && started -> goto resumed
	:: else -> atomic { started = true; goto look }
	fi;

yielder:
	if
	:: yields > 0 ->
		yields--;
		if
		:: atomic { nempty(runq) -> runq?next; onq[next] = false }
		:: next = NOG
		fi;
		op = OP_READY;
		goto do_switch
	:: atomic { op = OP_NONE; goto do_switch } /* ends: to g0 */
	fi;

look:	/* G 0, user side of the wait */
	if
	:: atomic { cond[round] || due[round] || pending -> pending = false }; goto round_done
	:: else
	fi;
	atomic {
		assert(wait == W_IDLE);
		wins = 0;
#if MUTANT == 4
		wait_buf = true
#else
		wait = W_PREP
#endif
	};
	if
	:: src[round] & RES -> atomic { drain_wait(); inq = true }
	:: else
	fi;
#if MUTANT != 3
	if
	:: cond[round] || pending ->
		atomic { drain_wait(); wait = W_IDLE };
		inq = false;
		goto look
	:: else
	fi;
#endif
	if
	:: src[round] & TIM -> atomic { drain_wait(); armed = round }
	:: else
	fi;
	if
	:: atomic { nempty(runq) -> runq?next; onq[next] = false }
	:: next = NOG
	fi;
	atomic { drain_wait(); op = OP_COMMIT };
	goto do_switch;

resumed:
	atomic { assert(wait == W_WOKEN && wins == 1); wait = W_IDLE };
	armed = 0;
	inq = false;
	goto look;

round_done:
	round++;
	if
	:: round <= ROUNDS -> goto look
	:: else
	fi;
	atomic { op = OP_NONE; next = NOG; goto do_switch }
}

proctype Resource()
{
	byte r = 1, w;
	bool won, found;

	do
	:: atomic { r > 2 || (r == 2 && !(src[2] & RES)) || !((src[1] | src[2]) & RES) -> break }
	:: atomic { r == 1 && !(src[1] & RES) && (src[2] & RES) -> r = 2 }
	:: atomic { r <= 2 && (src[r] & RES) -> skip };
		round >= r;
		cond[r] = true;
		atomic { found = inq && round == r; inq = (found -> false : inq) };
		if
		:: found -> wake()
		:: else
		fi;
		found = false;
		r++
	od
}

proctype Timer()
{
	byte r = 1, w;
	bool won, found;

	do
	:: atomic { r > 2 || (r == 2 && !(src[2] & TIM)) || !((src[1] | src[2]) & TIM) -> break }
	:: atomic { r == 1 && !(src[1] & TIM) && (src[2] & TIM) -> r = 2 }
	:: atomic { r <= 2 && (src[r] & TIM) -> skip };
		if
		:: atomic { armed == r -> armed = 0; due[r] = true; found = true }
		:: round > r
		fi;
		if
		:: found -> wake()
		:: else
		fi;
		found = false;
		r++
	od
}

proctype Signal()
{
	byte r = 1, w;
	bool won;

	do
	:: atomic { r > 2 || (r == 2 && !(src[2] & SIG)) || !((src[1] | src[2]) & SIG) -> break }
	:: atomic { r == 1 && !(src[1] & SIG) && (src[2] & SIG) -> r = 2 }
	:: atomic { r <= 2 && (src[r] & SIG) -> skip };
		round >= r;
#if MUTANT == 5
		pending_buf = true;
#else
		pending = true;
#endif
		wake();
		atomic {
			if
			:: pending_buf -> pending = true; pending_buf = false
			:: else
			fi
		};
		r++
	od
}

#if MUTANT == 4 || MUTANT == 5
/* store buffers empty themselves some time */
active proctype Drain()
{
end:	do
	:: atomic { wait_buf -> wait = W_PREP; wait_buf = false }
	:: atomic { pending_buf -> pending = true; pending_buf = false }
	od
}
#endif

/* cannot end before G 0 has: a stuck G is an invalid end state */
active proctype Monitor()
{
	round == ROUNDS + 1
}

init {
	byte k;

	atomic {
		select(k : 1..7);
		src[1] = k;
		select(k : 1..7);
		src[2] = (ROUNDS == 2 -> k : 0);
		k = 0;
		if
		:: (src[1] & 1) + ((src[1] >> 1) & 1) + (src[1] >> 2) +
		   (src[2] & 1) + ((src[2] >> 1) & 1) + (src[2] >> 2) > SOURCES ->
			src[1] = RES; src[2] = (ROUNDS == 2 -> RES : 0) /* too many: one that is covered anyway */
		:: else
		fi;
		saved[0] = true; saved[1] = true;
		onq[0] = true; onq[1] = true;
		runq!0; runq!1;
		run M(); run M();
		run Resource(); run Timer(); run Signal()
	}
}
