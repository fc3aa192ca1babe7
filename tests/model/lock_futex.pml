/* SPDX-License-Identifier: MIT */
/*
 * Lock and note on futexes.
 *
 * Models      core/lock_futex.c: pg_lock, pg_trylock, pg_unlock, pg_noteclear, pg_notesleep,
 *             pg_notetsleep, pg_notewakeup.
 * Command     tests/model/run quick lock_futex   (-DNOTE: the note)
 * Size        423,629 states; note 854; under 1 s each
 *
 * Lock: 0 free, 1 held, 2 held and somebody may sleep.  Three threads, ROUNDS times each.  The fast path
 * is a CAS(0, 1); the model allows an xchg(1) too, which the code does not use.  A thread may spin any number of times; futex_wait may return early
 * (EINTR), futex_wake picks any sleeper. Note: a sleeper, a waker and a stray futex_wake, used
 * twice; sleeps may time out. The key is changed by locked instructions alone, so no store buffer is
 * needed; except for noteclear, a plain store, which is before the lock or the store by which wakers
 * find the note, and TSO keeps that order.
 *
 * Checked     - one holder at a time; a sleeper is woken; the wake-up before the sleep is not lost; all
 *               threads end
 *             - a sleep that says "woken" was
 *
 * Mutants     1  unlock does not wake when it finds 2
 *             2  after a sleep the lock is taken with 1 instead of 2
 *             3  futex_wait without comparing the key
 *             4  (NOTE) the waker does not call futex_wake
 *             5  (NOTE) the sleeper does not look at the key again after futex_wait
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#define N 3

byte key;
bool asleep[N];
byte inside, ended;
byte eintr = 2; /* early returns of futex_wait that are left */

inline futex_wait(val)
{
#if MUTANT == 3
	asleep[i] = true;
#else
	atomic {
		if
		:: key == val -> asleep[i] = true
		:: else
		fi
	};
#endif
	if
	:: !asleep[i]
	:: atomic { asleep[i] && eintr > 0 -> eintr--; asleep[i] = false }
	fi
}

inline futex_wake()
{
	atomic {
		if
		:: asleep[0] -> asleep[0] = false
		:: asleep[1] -> asleep[1] = false
		:: asleep[2] -> asleep[2] = false
		:: !asleep[0] && !asleep[1] && !asleep[2]
		fi
	}
}

#ifndef NOTE

proctype Thread(byte i)
{
	byte r, v, mine;

	do
	:: r == ROUNDS -> break
	:: r < ROUNDS ->
		mine = 1;
		if
		:: atomic { key == 0 -> key = 1; goto locked }	/* CAS, trylock */
		:: key != 0
		:: atomic { v = key; key = 1 };			/* xchg */
		   if
		   :: v == 0 -> goto locked
		   :: else -> mine = v
		   fi
		fi;
again:		if
		:: atomic { key == 0 -> key = mine; goto locked } /* spinning */
		:: skip
		fi;
#if MUTANT == 2
		atomic { v = key; if :: v == 0 -> key = 1 :: else -> key = 2 fi };
#else
		atomic { v = key; key = 2 };
#endif
		if
		:: v == 0 -> goto locked
		:: else
		fi;
		mine = 2;
		futex_wait(2);
#if MUTANT == 2
		mine = 1;
#endif
		goto again;

locked:		atomic { v = 0; mine = 0; inside++; assert(inside == 1) };
		inside--;
		atomic { v = key; key = 0; assert(v != 0) };
#if MUTANT != 1
		if
		:: v == 2 -> futex_wake()
		:: else
		fi;
#endif
		v = 0;
		r++
	od;
	ended++
}

init {
	atomic { run Thread(0); run Thread(1); run Thread(2) };
	ended == N
}

#else

bool fired;    /* in this round */
byte round;    /* wakers may look for the note of this round */

proctype Sleeper(byte i)
{
	byte r;
	bool woken;

	do
	:: r == ROUNDS -> break
	:: r < ROUNDS ->
		key = 0;
		r++;
		atomic { fired = false; round = r }; /* published, by a locked instruction */
again:		do
		:: key == 0 ->
			futex_wait(0);
#if MUTANT == 5
			woken = true; break
#endif
		:: key != 0 -> woken = true; break
		:: woken = (key != 0); break /* deadline */
		od;
		if
		:: woken -> assert(fired); woken = false
		:: else ->
			/* the owner of the note looks at its own state; it may sleep again */
			goto again
		fi
	od;
	ended++
}

proctype Waker()
{
	byte r, v;

	do
	:: r == ROUNDS -> break
	:: r < ROUNDS ->
		round == r + 1;
		fired = true;
		atomic { v = key; key = 1; assert(v == 0) };
#if MUTANT != 4
		futex_wake();
#endif
		r++
	od;
	ended++
}

/* wakes what it should not: the futex of a note that is used again */
proctype Stray()
{
	futex_wake()
}

init {
	atomic { run Sleeper(0); run Waker(); run Stray() };
	ended == 2
}

#endif
