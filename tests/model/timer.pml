/* SPDX-License-Identifier: MIT */
/*
 * Deadlines: timers and the poller against parking and Ps that go idle.
 *
 * Models      core/timer.c: pg_timer_add, pg_timer_del, pg_timers_run, pg_timers_next; core/park.c: pg_park_commit with a
 *             deadline; core/sched.c: findrunnable from the timers on, with polling and polluntil; core/netpoll_epoll.c:
 *             pg_netpoll_break and the break in pg_netpoll; core/proc.c: pg_handoffp (-DRETAKES).
 * Command     tests/model/run quick timer
 * Size        quick 0.8 M and 0.1 M states (-DPOLLS), 3 s; all 7 M (-DWAITS=2), 9 s
 *
 * Two Ms, two Ps, two Gs; each waits WAITS times for a moment between 2 and END, and may be woken early, also when it waits
 * for something else already.  With -DPOLLS a G on a P begins to wait for a descriptor.  Time goes on when nothing
 * else can.  The heap's and the scheduler's sections are one step; how Ms are woken is simplified (sched.pml has it): an idle P
 * is handed to an M that is or comes to rest.  There is no sysmon: nothing here may need it.  PG_FOREVER is 9.
 *
 * Checked     - before time goes on, every timer that is due has been run, and data has been seen by a poller
 *             - all Gs end; a wait ends with TIMEOUT only at its own deadline
 *
 * Mutants     1  the sleeper in the poller neither sets polluntil to FOREVER while it looks nor looks again (one would do)
 *             3  who finds nothing to sleep for leaves the poller without a second look
 *             4  pg_timer_add does not break the sleep
 *             6  no pg_timer_del
 *             7  TIMEOUT is taken for the wait's own without a look at the clock
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef NM
#define NM 2
#endif
#ifndef NG
#define NG 2
#endif
#ifndef WAITS
#define WAITS 1   /* of each G */
#endif
#ifndef WAKES
#define WAKES 1   /* early wake-ups by a thread without a P */
#endif
#ifndef RETAKES
#define RETAKES 0
#endif
#define NP 2

#define NOP 7
#define NOG 7
#define PAST 0
#define FOREVER 9
#define END 3     /* no deadline is later */

#define W_IDLE   0
#define W_PREP   1
#define W_PARKED 2
#define W_WOKEN  3

byte now = 1;
byte wait[NG];
bool timedout[NG];   /* WOKEN by PG_WHY_TIMEOUT */
byte when[NG];
bool onheap[NG];
byte heapof[NG];     /* g->timer.p */
byte timer0[NP] = FOREVER;

bool polling;
byte polluntil = PAST;
byte pollwaiters;
bool breaking, edge; /* edge: the eventfd's */
bool data, pwaits, polled; /* -DPOLLS: a G that waits for a descriptor, once, and the descriptor */

chan runq = [NG] of { byte };
chan startq = [NP] of { byte }; /* Ps handed to an M that wakes up or is made */
bool pidle[NP];
byte npidle;
byte user[NM] = NOP; /* the P of an M whose G is in user code */
bool taken[NM];
byte dead;
byte waits[NG];
byte retakes = RETAKES;

inline pidleget(q)
{
	if
	:: pidle[0] -> q = 0; pidle[0] = false; npidle--
	:: !pidle[0] && pidle[1] -> q = 1; pidle[1] = false; npidle--
	:: else -> q = NOP
	fi
}

inline pidleput(q)
{
	assert(!pidle[q]);
	pidle[q] = true; npidle++
}

/* pg_wakep: an idle P gets an M, unless nothing is idle; the hand-shake with spinners is in sched.pml */
inline wakep()
{
	atomic {
		if
		:: pidle[0] -> pidle[0] = false; npidle--; startq!0
		:: !pidle[0] && pidle[1] -> pidle[1] = false; npidle--; startq!1
		:: else
		fi
	}
}

/* pg_wake(x, t ? TIMEOUT : READY) */
inline wake(x, t)
{
	atomic {
		if
		:: wait[x] == W_PREP -> wait[x] = W_WOKEN; timedout[x] = t
		:: wait[x] == W_PARKED ->
			wait[x] = W_WOKEN; timedout[x] = t;
			runq!x;
			if
			:: pidle[0] -> pidle[0] = false; npidle--; startq!0
			:: !pidle[0] && pidle[1] -> pidle[1] = false; npidle--; startq!1
			:: else
			fi
		:: else
		fi
	}
}

inline netpoll_break()
{
	atomic {
		if
		:: breaking
		:: else -> breaking = true; edge = true
		fi
	}
}

/* the heap's lock is held */
inline set0(q)
{
	timer0[q] = FOREVER;
	if
	:: onheap[0] && heapof[0] == q -> timer0[q] = when[0]
	:: else
	fi;
	if
	:: onheap[1] && heapof[1] == q && when[1] < timer0[q] -> timer0[q] = when[1]
	:: else
	fi
}

/* pg_timers_run(q, now); due: a set */
inline timers_run(q)
{
	atomic {
		due[0] = onheap[0] && heapof[0] == q && when[0] <= now;
		due[1] = onheap[1] && heapof[1] == q && when[1] <= now;
		onheap[0] = onheap[0] && !due[0];
		onheap[1] = onheap[1] && !due[1];
		set0(q)
	};
	atomic {
		if
		:: due[0] -> due[0] = false; wake(0, true)
		:: else
		fi;
		if
		:: due[1] -> due[1] = false; wake(1, true)
		:: else
		fi
	}
}

/* pg_timers_next(): the Ps one after the other */
inline timers_next(t)
{
	t = timer0[0];
	if
	:: timer0[1] < t -> t = timer0[1]
	:: else
	fi
}

inline stop_data()
{
	if
	:: data && pwaits -> data = false; pwaits = false; pollwaiters--
	:: else
	fi
}

/* inside pg_netpoll, after the system call; sleeper: until != 0 */
inline got_break(sleeper)
{
	breaking = false;
	if
	:: !sleeper && polling -> netpoll_break()
	:: else
	fi
}

proctype M(byte i; byte g)
{
	byte p = NOP, x, t, until, deadline;
	bool due[2], brk, first;

	if
	:: g != NOG -> p = 0; goto go_on
	:: else
	fi;

stopm:
end_stopm:
	startq?p;

top:	if
	:: timer0[p] <= now -> timers_run(p)
	:: else
	fi;
	if
	:: atomic { nempty(runq) -> runq?g; goto go_on }
	:: empty(runq)
	fi;
	if
	:: pollwaiters > 0 && !polling ->
		/* pg_netpoll(0) */
		atomic { brk = edge; edge = false; stop_data() };
		if
		:: brk -> brk = false; got_break(false)
		:: else
		fi
	:: else
	fi;
	/* a thief looks at the other's timers */
	if
	:: timer0[1 - p] <= now -> timers_run(1 - p)
	:: skip
	fi;
	atomic {
		if
		:: nempty(runq) -> runq?g; goto go_on
		:: empty(runq) -> pidleput(p); p = NOP
		fi
	};
	if
	:: nempty(runq) ->
		atomic { pidleget(p) };
		if
		:: p != NOP -> goto top
		:: else
		fi
	:: empty(runq)
	fi;
	if
	:: atomic { !polling -> polling = true }
	:: polling -> goto stopm
	fi;
#if MUTANT != 1
	polluntil = FOREVER;
#endif
	timers_next(until);
	if
	:: until != FOREVER || pollwaiters > 0 ->
		polluntil = until;
#if MUTANT != 1
		timers_next(t);
		if
		:: t < until -> until = PAST
		:: else
		fi;
		t = 0;
#endif
		/* pg_netpoll(until) */
end_poll:	atomic {
			(until != FOREVER && now >= until) || edge || (data && pwaits) ->
			brk = edge; edge = false; stop_data()
		};
		if
		:: brk -> brk = false; got_break(true)
		:: else
		fi;
		atomic { until = 0; polling = false };
		atomic { pidleget(p) };
		if
		:: p != NOP ->
			if
			:: timer0[0] <= now -> timers_run(0)
			:: else
			fi;
			if
			:: timer0[1] <= now -> timers_run(1)
			:: else
			fi;
			goto top
		:: else -> goto stopm
		fi
	:: else ->
		atomic { until = 0; polling = false };
#if MUTANT != 3
		timers_next(t);
		if
		:: pollwaiters > 0 || t != FOREVER ->
			atomic { t = 0; pidleget(p) };
			if
			:: p != NOP -> goto top
			:: else
			fi
		:: else
		fi;
		t = 0
#endif
	fi;
	goto stopm;

go_on:	/* g goes on */
	if
	:: wait[g] == W_WOKEN -> goto resumed
	:: else
	fi;
next:	atomic { user[i] = p };
	atomic { user[i] = NOP;
		if
		:: taken[i] -> taken[i] = false; p = NOP; pidleget(p);
			if
			:: p == NOP -> runq!g; g = NOG; goto stopm /* queues for a P; a new look at idle ones is in sched.pml */
			:: else
			fi
		:: else
		fi
	};
#ifdef POLLS
	if
	:: atomic { !polled -> polled = true; pwaits = true; pollwaiters++ }
	:: true
	fi;
#endif
	if
	:: waits[g] == WAITS ->
		atomic { dead++; g = NOG };
		goto top
	:: else
	fi;
	waits[g]++;
	atomic { select(deadline : 2 .. END) };
again:	/* pg_park with a deadline */
	wait[g] = W_PREP;
	atomic {
		assert(!onheap[g]);
		when[g] = deadline; heapof[g] = p; onheap[g] = true;
		first = deadline < timer0[p];
		set0(p)
	};
	if
	:: first ->
		first = false;
#if MUTANT != 4
		if
		:: deadline < polluntil && polling -> netpoll_break()
		:: else
		fi
#endif
	:: else
	fi;
	/* switched away; committed by the next on this M */
	atomic {
		deadline = 0;
		if
		:: wait[g] == W_PREP -> wait[g] = W_PARKED
		:: else -> runq!g
		fi;
		g = NOG
	};
	goto top;

resumed:
	atomic { deadline = when[g]; x = heapof[g] };
#if MUTANT != 6
	atomic { onheap[g] = false; set0(x); x = 0 };
#else
	x = 0;
#endif
	atomic {
		wait[g] = W_IDLE;
		first = timedout[g];
#if MUTANT != 7
		first = first && now >= deadline;
#endif
		timedout[g] = false
	};
	if
	:: first -> assert(now >= deadline)
	:: !first && now < deadline -> goto again    /* pg_sleep_until */
	:: !first                                    /* or what it waited for is there */
	fi;
	atomic { first = false; deadline = 0; when[g] = 0; heapof[g] = 0 };
	goto next
}

/* early wake-ups: what a G waits for comes, or a late one for an older wait */
proctype Waker()
{
	byte k, x, t;

	do
	:: k == WAKES -> break
	:: k < WAKES ->
		atomic { k++; select(t : now .. END) };
		now >= t; /* or a later moment of it */
		atomic { select(x : 0 .. NG - 1) };
		wake(x, false)
	od
}

#if RETAKES
/* sysmon takes the P of a G in user code: pg_handoffp */
proctype Retaker()
{
	byte n, k, t;

	do
	:: retakes == 0 || dead == NG -> break
	:: atomic { retakes > 0 ->
		retakes--;
		k = 0;
		do
		:: k < NM && user[k] != NOP && !taken[k] -> taken[k] = true; n = user[k]; k = 0; break
		:: k < NM && (user[k] == NOP || taken[k]) -> k++
		:: k == NM -> k = 0; n = NOP; break
		od
	   };
	   if
	   :: n != NOP ->
		if
		:: nempty(runq) -> startq!n
		:: empty(runq) ->
			timers_next(t);
			atomic {
				if
				:: nempty(runq) -> startq!n; t = PAST
				:: empty(runq) && (npidle == NP - 1 || timer0[n] != FOREVER) && !polling &&
				   (pollwaiters > 0 || t != FOREVER) -> startq!n; t = PAST
				:: empty(runq) && !((npidle == NP - 1 || timer0[n] != FOREVER) && !polling &&
				   (pollwaiters > 0 || t != FOREVER)) -> pidleput(n); t = FOREVER
				fi
			};
			if
			:: t == FOREVER && timer0[n] < polluntil && polling -> netpoll_break()
			:: else
			fi
		fi
	   :: else
	   fi;
	   atomic { n = 0; t = 0 }
	od
}
#endif

/* Time goes on when nothing else does: by then all that is due has been seen to. */
proctype Clock()
{
	do
	:: timeout ->
		assert(!(onheap[0] && when[0] <= now) && !(onheap[1] && when[1] <= now));
#ifdef POLLS
		assert(!(data && pwaits));
		if
		:: !data && pwaits -> data = true
		:: else
		fi;
#endif
		if
		:: now <= END -> now++
		:: else -> break
		fi
	od;
	assert(dead == NG && !pwaits)
}

init {
	atomic {
		pidle[1] = true; npidle = 1;
		runq!1; /* starts on an M of its own */
		pidle[1] = false; npidle = 0; startq!1;
		run M(0, 0); run M(1, NOG);
#if NM > 2
		run M(2, NOG);
#endif
		run Waker();
#if RETAKES
		run Retaker();
#endif
		run Clock()
	}
}
