/* SPDX-License-Identifier: MIT */
/*
 * The queues on which Gs sleep: wait, wake and requeue against time-outs and signals.
 *
 * Models      core/sema.c: pg_sema_wait, pg_sema_wake, pg_sema_requeue, with append_node, take_node, unlink_node, remove_node and
 *             lock2; the use they make of g->wait (core/park.c: pg_wait_prepare, pg_wait_abort, pg_park, pg_wake).
 * Command     tests/model/run quick sema
 * Size        1,228,480 states, 2 s; all: -DBACK -DEARLY=0 4,607,197, 7 s; -DBACK 24,839,825, 42 s
 *
 * Two addresses, each with a bucket of its own.  Two Gs wait on the first until its word is FINAL.  A waker changes the word and wakes
 * all, WAKES times.  A signaller changes it, wakes one, moves the others to the second address and then wakes those there (a
 * condition variable and its mutex).  With -DBACK another moves from the second to the first, for the order of the locks.  A wait may
 * end early EARLY times, by deadline or signal (they end a wait alike).  A queue is a set: which G is woken first does
 * not matter here.  The locks are words of their own, so what looks without the lock (n, node->bucket) interleaves.
 * The mutants 1 and 2 stand for a store buffer: what is stored late is done in the other order.
 *
 * Checked     - no G is left parked: all end; then both queues are empty, and their counts 0
 *             - nobody touches a node that is gone (it lies on the waiter's stack), nor takes one off a queue that it is not on
 *             - who was taken off by a waker says woken
 *
 * Mutants     1  a waiter counts itself after it has compared the word
 *             2  the waker looks at the count before it has changed the word
 *             3  remove_node does not look at node->bucket again under the lock
 *             4  a waiter that has timed out does not ask whether it was taken
 *             5  (BACK) lock2 takes the locks in the order of its arguments
 *             6  the taker reads node->g after it has stored bucket = -1
 *             7  a waiter that finds the word changed stays on the queue
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef WAKES
#define WAKES 1
#endif
#ifndef EARLY
#define EARLY 1
#endif
#define N 2
#define FINAL (WAKES + 1)
#define NONE 2 /* bucket -1 */

mtype = { idle, prep, parked, ready, tmo };

byte word;
bool held[2];		/* bucket->lock */
byte n[2];		/* bucket->n */
byte bucket[N] = NONE;
bool alive[N];		/* the node is on its waiter's stack */
bool taken[N];		/* by a waker */
mtype wait[N] = idle;	/* g->wait; ready and tmo: woken, and why */
byte early = EARLY;
byte ended;

inline lock(b) { atomic { !held[b] -> held[b] = true } }
inline unlock(b) { atomic { assert(held[b]); held[b] = false } }

inline unlink(b, k)
{
	assert(held[b] && alive[k] && bucket[k] == b);
	n[b]--
}

inline wake(k)	/* pg_wake: one CAS wins; it may hit a later wait */
{
	atomic {
		if
		:: wait[k] == prep || wait[k] == parked -> wait[k] = ready
		:: else
		fi
	}
}

proctype Waiter(byte i)
{
	byte v, b;
	bool late, off;

	do
	:: atomic { v = word; if :: v == FINAL -> break :: else fi };
	   atomic { alive[i] = true; taken[i] = false; wait[i] = prep };
	   lock(0);
	   bucket[i] = 0;
#if MUTANT == 1
	   late = (word != v);
	   n[0]++;
#else
	   n[0]++;
	   late = (word != v);
#endif
	   if
	   :: late ->
#if MUTANT != 7
		atomic { unlink(0, i); bucket[i] = NONE };
#endif
		unlock(0);
		atomic { wait[i] = idle; alive[i] = false; late = false }
	   :: else ->
		unlock(0);
		atomic { if :: wait[i] == prep -> wait[i] = parked :: else fi };
		if
		:: wait[i] == ready
		:: atomic { wait[i] == parked && early > 0 -> early--; wait[i] = tmo }
		fi;
		atomic { late = (wait[i] == tmo); wait[i] = idle };
		/* remove_node */
		do
		:: b = bucket[i];
		   if
		   :: b == NONE -> off = false; break
		   :: else
		   fi;
		   lock(b);
		   if
#if MUTANT == 3
		   :: true ->
#else
		   :: bucket[i] == b ->
#endif
			atomic { unlink(b, i); bucket[i] = NONE };
			unlock(b);
			off = true;
			break
#if MUTANT != 3
		   :: else -> unlock(b)
#endif
		   fi
		od;
		atomic {
			/* r = 0 if it was taken, else what pg_park said */
#if MUTANT == 4
			assert(!taken[i] || !late);
#else
			assert(!taken[i] || !off);
#endif
			alive[i] = false; late = false; off = false; b = 0
		}
	   fi
	od;
	ended++
}

/* take_node under the lock of b; g is whom to wake, after the unlock for a wake */
inline take(b, k)
{
#if MUTANT == 6
	atomic { unlink(b, k); taken[k] = true };
	bucket[k] = NONE;
	assert(alive[k])
#else
	atomic { unlink(b, k); taken[k] = true };
	bucket[k] = NONE
#endif
}

/* pg_sema_wake(b, all), from the look at the count on */
inline wake_all(b)
{
	if
	:: c == 0
	:: else ->
		lock(b);
		k = 0;
		do
		:: k == N -> break
		:: k < N && bucket[k] == b -> take(b, k); who[k] = true; k++
		:: k < N && bucket[k] != b -> k++
		od;
		unlock(b);
		k = 0;
		do
		:: k == N -> break
		:: k < N ->
			if
			:: who[k] -> wake(k); who[k] = false
			:: else
			fi;
			k++
		od
	fi;
	atomic { k = 0; c = 0 }
}

/* pg_sema_requeue(from, nw, to, all) */
inline requeue(from, to, nw)
{
#if MUTANT == 5
	lock(from); lock(to);
#else
	lock(0); lock(1);
#endif
	k = 0; c = 0;
	do
	:: k == N -> break
	:: k < N && bucket[k] == from ->
		if
		:: c < nw -> take(from, k); wake(k); c++
		:: else ->
			atomic { unlink(from, k) };
			bucket[k] = to;
			n[to]++
		fi;
		k++
	:: k < N && bucket[k] != from -> k++
	od;
	unlock(0); unlock(1);
	atomic { k = 0; c = 0 }
}

proctype Waker()
{
	byte r, k, c;
	bool who[N];

	do
	:: r == WAKES -> break
	:: r < WAKES ->
#if MUTANT == 2
		c = n[0];
		word++;
#else
		word++;
		c = n[0];
#endif
		wake_all(0);
		r++
	od;
	ended++
}

proctype Signaller()
{
	byte k, c;
	bool who[N];

	word++;
	requeue(0, 1, 1);
	c = n[1];
	wake_all(1);
	ended++
}

proctype Back()
{
	byte k, c;
	bool who[N];

	requeue(1, 0, 0);
	c = n[0];
	wake_all(0);
	ended++
}

init {
	atomic {
		run Waiter(0); run Waiter(1); run Waker(); run Signaller();
#ifdef BACK
		run Back()
#else
		ended++
#endif
	};
	ended == N + 3;
	assert(n[0] == 0 && n[1] == 0)
}
