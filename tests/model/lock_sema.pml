/* SPDX-License-Identifier: MIT */
/*
 * Lock and note on a semaphore per waiting thread.
 *
 * Models      core/lock_sema.c: pg_lock, pg_trylock, pg_unlock, pg_noteclear, pg_notesleep,
 *             pg_notetsleep, pg_notewakeup.
 * Command     tests/model/run quick lock_sema   (-DNOTE: the note, and a lock on the same semaphores)
 * Size        126,107 states; note 1,377; under 1 s each
 *
 * Lock: the key is 0, or LOCKED | the last waiter to come, whose `next` is the one before.  Unlock takes
 * the first of the list off and posts its semaphore; that thread tries again. Note: 0 clear, 1 woken,
 * else the sleeper.  A sleep that times out takes itself off by CAS(me, 0); when that fails a waker has
 * taken it off, and its post, made or about to be made, is consumed.  The waker's post of a note and the
 * post of a lock reach the same semaphore: a post too many would let a thread queue itself twice. The
 * keys are changed by locked instructions alone, so no store buffer is needed.  The code has a new semaphore, on the
 * stack, for each wait; here one serves all waits of a thread, so that a post left behind is seen.
 *
 * Checked     - one holder at a time; nobody is on the list twice; a semaphore is posted at most once
 *               and not left posted
 *             - a waiter is woken; the wake-up before the sleep is not lost; all threads end
 *
 * Mutants     1  unlock takes the waiter off but does not post
 *             2  the waiter is queued by a store, not a CAS
 *             3  unlock with nobody waiting is a store of 0 after a look, not a CAS
 *             4  (NOTE) a timed sleep forgets to take itself off
 *             5  (NOTE) a timed sleep whose CAS fails does not consume the post
 *             6  (NOTE) the sleep registers by a store, not a CAS: the wake-up before it is lost
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif

#define LOCKED 8
#define N 3 /* threads 1..N; 0 is no thread */

byte key;
byte link[N + 1];
bool onlist[N + 1];
byte sema[N + 1];
byte inside, ended;

inline post(k)
{
	atomic { sema[k]++; assert(sema[k] == 1) }
}

inline pend()
{
	atomic { sema[i] > 0 -> sema[i]-- }
}

inline lock_unlock()
{
	do
	:: atomic {
		v = key;
		if
		:: !(v & LOCKED) -> key = v | LOCKED; goto locked /* the CAS of the fast path */
		:: else
		fi
	   };
	   link[i] = v & 7;
#if MUTANT == 2
	   atomic { assert(!onlist[i]); onlist[i] = true; key = i | LOCKED; won = true };
#else
	   atomic {
		if
		:: key == v -> assert(!onlist[i]); onlist[i] = true; key = i | LOCKED; won = true
		:: else -> won = false
		fi
	   };
#endif
	   if
	   :: won -> won = false; pend()
	   :: else
	   fi
	od;
locked:	atomic { v = 0; inside++; assert(inside == 1) };
	inside--;
	do
	:: v = key;
	   assert(v & LOCKED);
	   if
	   :: v == LOCKED ->
#if MUTANT == 3
		key = 0; break
#else
		atomic {
			if
			:: key == v -> key = 0; break
			:: else
			fi
		}
#endif
	   :: else ->
		n = link[v & 7];
		atomic {
			if
			:: key == v -> key = n; onlist[v & 7] = false; won = true
			:: else -> won = false
			fi
		};
		if
		:: won ->
			n = v & 7;
#if MUTANT != 1
			post(n);
#endif
			break
		:: else
		fi
	   fi
	od;
	atomic { v = 0; n = 0; won = false }
}

#ifndef NOTE

proctype Thread(byte i)
{
	byte r, v, n;
	bool won;

	do
	:: r == ROUNDS -> break
	:: r < ROUNDS ->
		lock_unlock();
		r++
	od;
	assert(sema[i] == 0);
	ended++
}

init {
	atomic { run Thread(1); run Thread(2); run Thread(3) };
	ended == N
}

#else

byte note;
byte round;
bool fired;

proctype Sleeper(byte i)
{
	byte r, v, n;
	bool won, woken, timed;

	do
	:: r == ROUNDS -> break
	:: r < ROUNDS ->
		note = 0;
		r++;
		atomic { fired = false; round = r };
again:
#if MUTANT == 6
		atomic { won = (note == 0) };
		if
		:: won -> note = i
		:: else
		fi;
#else
		atomic {
			if
			:: note == 0 -> note = i; won = true
			:: else -> assert(note == 1); won = false
			fi
		};
#endif
		if
		:: !won -> woken = true
		:: won ->
			if
			:: timed = false
			:: timed = true
			fi;
			if
			:: pend(); woken = true
			:: timed -> /* deadline */
#if MUTANT == 4
			   woken = (note == 1)
#else
			   atomic {
				if
				:: note == i -> note = 0; woken = false
				:: else -> assert(note == 1); woken = true
				fi
			   };
#if MUTANT != 5
			   if
			   :: woken -> pend()
			   :: else
			   fi
#endif
#endif
			fi
		fi;
		atomic { won = false; timed = false };
		/* whatever came of it, the same semaphore now serves a lock */
		lock_unlock();
		if
		:: woken -> woken = false; assert(fired)
		:: else -> goto again
		fi
	od;
	assert(sema[i] == 0);
	ended++
}

proctype Waker(byte i)
{
	byte r, v, n;
	bool won;

	do
	:: r == ROUNDS -> break
	:: r < ROUNDS ->
		round == r + 1;
		fired = true;
		atomic { v = note; note = 1 };
		if
		:: v > 1 -> post(v) /* thread 2: 1 means woken */
		:: else
		fi;
		v = 0;
		lock_unlock();
		r++
	od;
	ended++
}

init {
	atomic { run Sleeper(2); run Waker(3) };
	ended == 2
}

#endif
