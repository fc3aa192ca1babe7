/* SPDX-License-Identifier: MIT */
/*
 * PollDesc: readiness of one direction of a descriptor, several readers.
 *
 * Models      core/netpoll.c: pg_netpoll_wait with its commit callback, the edge from the poller,
 *             pg_netpoll_baton, deadlines, pg_fd_forget; the use they make of g->wait (core/park.c:
 *             pg_park_commit, pg_wake).
 * Command     tests/model/run quick polldesc   (with a deadline; -DCLOSE: with pg_fd_forget instead of the
 *             end of file; `all`: -DN=3, three readers)
 * Size        quick 3,763,888 (BYTES=2) and 3,790,161 states (CLOSE), 5 s each; all (BYTES=3) 8.7 M
 *
 * N readers (two), a source of BYTES bytes and an end of file, the poller (edges that came together are
 * one).  A reader tries first; on EAGAIN it waits, then tries again.  After a success it may leave for
 * good, unless it is the last.  Reader 0 may have a deadline.  Sections under the pd lock are one step.
 * All accesses to the word are locked instructions, so no store buffer is needed.
 *
 * Rules that the model showed to be needed
 *             - whoever succeeds, or stops trying for another reason than EAGAIN, passes the baton
 *             - an edge that finds nobody on the word, or who leaves the word by its deadline, wakes one in the queue
 *             - once a direction has had a second reader (shared), each looks at the descriptor (poll) after
 *               WAIT is published: the edge for what it did not see may have been used by another one
 *             - WAIT tells whose it is: one that was used up by an edge must not be mistaken for a later one
 *             - whoever was taken off the word or the queue counts as ready, whatever else woke it
 *
 * Checked     - no reader is left parked: all end; every byte is read
 *             - a reader is made runnable at most once per wait, and only when parked
 *
 * Mutants     1  no baton
 *             2  the commit callback stores G instead of a CAS
 *             3  an edge that finds WAIT is ignored
 *             4  nobody looks after WAIT is published
 *             5  neither an edge that finds nobody on the word nor who leaves it by its deadline wakes the queue
 *             6  one who queues does not look at the word again
 *             7  (CLOSE) the generation is not looked at when the wait begins
 *             8  (CLOSE) WAIT is the same for all: one reader commits on the WAIT of another
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef BYTES
#define BYTES 3
#endif
#ifndef N
#define N 2 /* readers */
#endif

#define NIL   0
#define READY 1
#define W     2 /* W + i: WAIT of reader i */
#define G     6 /* G + i */

#define W_IDLE   0
#define W_PREP   1
#define W_PARKED 2
#define W_WOKEN  3

#if MUTANT == 8
#define WAIT(i) W
#else
#define WAIT(i) (W + i)
#endif

#define NOG N

byte word = NIL;
byte gw[N];      /* g->wait */
bool expired[N]; /* the claim was the timer's */
bool runnable[N];

byte data, got;
bool eof, edge, source_done;

byte user = NOG;  /* pd->side.user, .shared */
bool shared;

/* under the pd lock */
chan q = [N] of { byte };
bool closing;    /* the generation has changed */

byte alive = N;
bool waiting0;   /* reader 0's timer is armed */

inline wake(k, by_timer, won)
{
	won = false;
	do
	:: atomic { gw[k] == W_PREP -> gw[k] = W_WOKEN; expired[k] = by_timer; won = true; break }
	:: atomic {
		gw[k] == W_PARKED ->
		gw[k] = W_WOKEN; expired[k] = by_timer; won = true;
		assert(!runnable[k]);
		runnable[k] = true;
		break
	   }
	:: atomic { gw[k] == W_IDLE || gw[k] == W_WOKEN -> break }
	od
}

/* wake_queued: takes one off the queue and wakes it, under the lock */
inline pass(n, won)
{
	atomic {
		if
		:: q?n ->
			if
			:: gw[n] == W_PREP -> gw[n] = W_WOKEN
			:: gw[n] == W_PARKED -> gw[n] = W_WOKEN; assert(!runnable[n]); runnable[n] = true
			:: else
			fi
		:: empty(q)
		fi;
		n = 0; won = false
	}
}

proctype Reader(byte i)
{
	byte n, v;
	bool won, ready, late, taken;

try:	atomic {
		if
		:: data > 0 -> data--; got++
		:: data == 0 && eof -> goto at_end
		:: else -> goto wait
		fi
	};
#if MUTANT != 1
	pass(n, won);
#endif
	if
	:: atomic { alive > 1 -> alive--; goto out }
	:: goto try
	fi;

wait:	atomic { ready = false; late = false };
#if MUTANT != 7
	if
	:: closing -> goto at_end
	:: else
	fi;
#endif
	if
	:: atomic { user == NOG -> user = i }
	:: atomic { user != NOG && user != i } -> shared = true
	:: user == i
	fi;
	if
	:: i == 0 -> waiting0 = true
	:: else
	fi;

again:	if
	:: atomic { word == READY -> word = NIL; ready = true; goto leave }
	:: atomic { word == NIL -> word = WAIT(i); goto own }
	:: word >= W -> skip
	fi;

	/* behind the holder of the word: wait_queued */
	gw[i] = W_PREP;
	atomic { q!i };
#if MUTANT != 6
	if
	:: word == NIL || word == READY -> atomic { gw[i] = W_IDLE; ready = true; goto dequeue }
	:: else
	fi;
#endif
	atomic {
		if
		:: gw[i] == W_PREP -> gw[i] = W_PARKED
		:: else -> goto qwoken
		fi
	};
	atomic { runnable[i] -> runnable[i] = false };
qwoken:	atomic { late = expired[i]; gw[i] = W_IDLE; expired[i] = false };
dequeue:
	atomic {
		if
		:: q??[eval(i)] -> q??eval(i)
		:: else -> ready = true
		fi
	};
	goto leave;

own:	gw[i] = W_PREP;
#if MUTANT != 4
	if
	:: shared && (data > 0 || eof) -> atomic { gw[i] = W_IDLE; ready = true; goto off }
	:: else
	fi;
#endif
#if MUTANT != 7
	if
	:: closing -> gw[i] = W_IDLE; goto off
	:: else
	fi;
#endif
	/* switched away; the commit callback, on another stack */
#if MUTANT == 2
	word = G + i;
#else
	atomic {
		if
		:: word == WAIT(i) -> word = G + i
		:: else -> goto resumed
		fi
	};
#endif
	atomic {
		if
		:: gw[i] == W_PREP -> gw[i] = W_PARKED
		:: else -> assert(gw[i] == W_WOKEN); goto resumed
		fi
	};
	atomic { runnable[i] -> runnable[i] = false };
resumed:
	atomic { late = (gw[i] == W_WOKEN && expired[i]); gw[i] = W_IDLE; expired[i] = false };
off:	if
	:: atomic { word == G + i -> word = NIL }
	:: atomic { word != G + i } ->
		if
		:: atomic { word == WAIT(i) -> word = NIL }
		:: atomic { word != WAIT(i) -> v = word; ready = true };
		   if
		   :: v == READY ->
			if
			:: atomic { word == READY -> word = NIL }
			:: word != READY
			fi
		   :: else
		   fi
		fi
	fi;
#if MUTANT != 5
	if
	:: !ready -> pass(n, won)
	:: else
	fi;
#endif

leave:	atomic {
		v = 0;
		if
		:: i == 0 -> waiting0 = false
		:: else
		fi
	};
	if
	:: closing -> goto at_end
	:: else
	fi;
	if
	:: late && !ready ->
		if
		:: atomic { alive > 1 -> alive--; goto out }
		:: alive == 1 -> goto try
		fi
	:: else -> goto try
	fi;

at_end:
#if MUTANT != 1
	pass(n, won);
#endif
	alive--;
out:	skip
}

proctype Poller()
{
	bool won;
	byte k;

	do
	:: atomic { source_done && !edge -> break }
	:: atomic { edge -> edge = false };
	   do
	   :: atomic { word == READY -> goto queued }
#if MUTANT == 3
	   :: atomic { word == NIL -> word = READY; goto queued }
	   :: atomic { word >= W && word < G -> goto queued }
#else
	   :: atomic { word == NIL || (word >= W && word < G) -> word = READY; goto queued }
#endif
	   :: atomic { word >= G -> k = word - G; word = NIL };
	      wake(k, false, won);
	      goto next
	   od;
queued:
#if MUTANT != 5
	   pass(k, won);
#else
	   skip;
#endif
next:	   atomic { k = 0; won = false }
	od
}

proctype Source()
{
	byte k;

	do
	:: k < BYTES -> data++; edge = true; k++
	:: k == BYTES -> break
	od;
#ifndef CLOSE
	eof = true;
	edge = true;
#endif
	source_done = true
}

#ifdef CLOSE
proctype Closer()
{
	bool won;
	byte n;

	closing = true;
	if
	:: atomic { word >= W && word < G -> word = READY }
	:: atomic { word >= G -> n = word - G; word = NIL }; wake(n, false, won)
	:: atomic { word == NIL || word == READY -> word = NIL }
	fi;
	n = 0;
	do
	:: nempty(q) -> pass(n, won)
	:: empty(q) -> break
	od
}
#else
proctype Timer()
{
	bool won;

	if
	:: waiting0 -> wake(0, true, won)
	:: skip
	fi
}
#endif

proctype Monitor()
{
	alive == 0;
#ifndef CLOSE
	assert(got == BYTES)
#endif
}

init {
	atomic {
		run Reader(0); run Reader(1);
#if N > 2
		run Reader(2);
#endif
		run Poller(); run Source(); run Monitor();
#ifdef CLOSE
		run Closer()
#else
		run Timer()
#endif
	}
}
