/* SPDX-License-Identifier: MIT */
/*
 * PollDesc: readiness of one direction of a descriptor, several readers.
 *
 * Models      core/netpoll.c: pg_netpoll_wait with its commit callback, the edge from the poller,
 *             pg_netpoll_baton, deadlines, pg_fd_forget; the use they make of g->wait (core/park.c:
 *             pg_park_commit, pg_wake).
 * Command     tests/model/run quick polldesc   (with a deadline; -DCLOSE: with pg_fd_forget instead of the
 *             end of file; `all`: -DN=3, three readers)
 * Size        quick 2,498,129 and 1,196,414 states (CLOSE), 3 and 2 s; all (three readers) 16,679,820 and
 *             11,836,191 states, 24 and 15 s
 *
 * N readers (two), a source of BYTES bytes and an end of file, the poller (edges that came together are
 * one).  A reader tries first; on EAGAIN it waits, then tries again.  After a success it may leave for
 * good, unless it is the last.  Reader 0 may have a deadline. The word belongs to the *owner*, the one
 * reader that may wait on it; others queue under the lock.  Sections under the pd lock are one step.
 * All accesses to the word are locked instructions, so no store buffer is needed.
 *
 * Rules that the model showed to be needed
 *             - whoever succeeds, or stops trying for another reason than EAGAIN, passes the baton; when
 *               the one chosen was claimed by its deadline, to the next
 *             - an owner that leaves by its deadline makes a queued reader try, which becomes the next
 *               owner
 *             - an owner that was not also the previous owner looks at the descriptor (poll) after WAIT
 *               is published: the edge for what it did not see may have been consumed by the previous
 *               one
 *
 * Checked     - no reader is left parked: all end; every byte is read
 *             - a reader is made runnable at most once per wait, and only when parked
 *
 * Mutants     1  no baton
 *             2  the commit callback stores G instead of a CAS
 *             3  an edge that finds WAIT is ignored
 *             4  a new owner does not look after WAIT is published
 *             5  an owner that leaves by its deadline tells nobody
 *             6  (N=3) a baton whose receiver was claimed by its deadline is dropped
 *             7  (CLOSE) the flag is not looked at when the wait begins
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
#define WAIT  2
#define G     3 /* G + i */

#define W_IDLE   0
#define W_PREP   1
#define W_PARKED 2
#define W_WOKEN  3

#define NOG N

byte word = NIL;
byte gw[N];      /* g->wait */
bool expired[N]; /* the claim was the timer's */
bool runnable[N];

byte data, got;
bool eof, edge, source_done;

/* under the pd lock */
byte owner = NOG, last = NOG;
chan q = [N] of { byte };
bool closing;

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

/* wakes queued readers until one wake-up counts */
inline pass()
{
	do
	:: atomic {
		if
		:: q?n
		:: empty(q) -> n = NOG
		fi
	   };
	   if
	   :: n == NOG -> break
	   :: else
	   fi;
	   wake(n, false, won);
#if MUTANT == 6
	   break
#else
	   if
	   :: won -> break
	   :: else
	   fi
#endif
	od;
	atomic { n = 0; won = false }
}

proctype Reader(byte i)
{
	byte n, old;
	bool look, won, is_owner, late;

try:	atomic {
		if
		:: data > 0 -> data--; got++
		:: data == 0 && eof -> goto at_end
		:: else -> goto wait
		fi
	};
#if MUTANT != 1
	pass();
#endif
	if
	:: atomic { alive > 1 -> alive--; goto out }
	:: goto try
	fi;

wait:	atomic { /* lock */
		late = false;
		if
#if MUTANT != 7
		:: closing -> goto at_end
#endif
		:: else -> skip
		fi;
		gw[i] = W_PREP;
		if
		:: owner == NOG -> owner = i; is_owner = true; look = (last != i); last = i
		:: else -> q!i; is_owner = false
		fi
	};
	if
	:: i == 0 -> waiting0 = true
	:: else
	fi;
	if
	:: !is_owner -> goto park
	:: else
	fi;
	atomic {
		if
		:: word == READY -> word = NIL; gw[i] = W_IDLE; goto leave
		:: else -> assert(word == NIL); word = WAIT
		fi
	};
#if MUTANT != 4
	if
	:: look && (data > 0 || eof) ->
		atomic { old = word; word = NIL };
		atomic { gw[i] = W_IDLE; old = READY; goto leave }
	:: else
	fi;
#endif
	/* switched away; the commit callback, on another stack */
#if MUTANT == 2
	word = G + i;
#else
	atomic {
		if
		:: word == WAIT -> word = G + i
		:: else -> assert(word == READY); goto resumed
		fi
	};
#endif
park:	atomic {
		if
		:: gw[i] == W_PREP -> gw[i] = W_PARKED
		:: else -> assert(gw[i] == W_WOKEN); goto resumed
		fi
	};
	atomic { runnable[i] -> runnable[i] = false };
	assert(gw[i] == W_WOKEN);

resumed:
	atomic { late = (gw[i] == W_WOKEN && expired[i]); gw[i] = W_IDLE; expired[i] = false };
	if
	:: is_owner -> atomic { old = word; word = NIL }
	:: else ->
		atomic { /* lock: off the queue, if still on it */
			if
			:: q??[eval(i)] -> q??eval(i)
			:: else
			fi
		}
	fi;

leave:	if
	:: i == 0 -> waiting0 = false
	:: else
	fi;
	if
	:: is_owner ->
		atomic { owner = NOG; late = late && old != READY };
	:: else
	fi;
	atomic { old = 0; look = false };
	if
	:: closing -> goto at_end
	:: else
	fi;
	if
	:: late ->
#if MUTANT != 5
		if
		:: is_owner -> pass()
		:: else
		fi;
#endif
		if
		:: atomic { alive > 1 -> alive--; goto out }
		:: alive == 1 -> goto try
		fi
	:: else -> goto try
	fi;

at_end:
#if MUTANT != 1
	pass();
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
	   :: atomic { word == READY -> break }
#if MUTANT == 3
	   :: atomic { word == NIL -> word = READY; break }
	   :: atomic { word == WAIT -> break }
#else
	   :: atomic { word == NIL || word == WAIT -> word = READY; break }
#endif
	   :: atomic { word >= G -> k = word - G; word = READY };
	      wake(k, false, won);
	      break
	   od;
	   atomic { k = 0; won = false }
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

	atomic { closing = true; n = owner };
	if
	:: n != NOG -> wake(n, false, won)
	:: else
	fi;
	do
	:: atomic { q?n };
	   wake(n, false, won)
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
