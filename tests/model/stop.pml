/* SPDX-License-Identifier: MIT */
/*
 * Stopping the world: fork against threads that enter the runtime, wake up in it and make new Ms.
 *
 * Models      core/fork.c: prepare from `stopped` on, quiet, start_world; core/syscall.c: the STOP part of pg_rt_enter_slow;
 *             core/proc.c: newm, as far as it publishes an M that is inside from its first moment on.
 * Command     tests/model/run quick stop
 * Size        1,182,874 states, 1 s
 *
 * Two Ms enter the runtime ENTERS times each, the first may make a third; FORKS forks one after the other.  pg_rt_enter's store
 * and load are in order (the membarrier of prepare, see retake.pml).  Ms that sleep are Ms outside.  Left out: rt belongs to a G and
 * moves between Ms (quiet compares m->switches, as pg_retake does); sections under pg_rt_raise, which do not look at attn, and
 * native Gs that wake up in pg_park, which do not either: the child resets what these touch.
 *
 * Checked     - when prepare returns, nobody is inside, nor gets inside before parent
 *             - all threads and forks end; no STOP is left when they have
 *
 * Mutants     1  quiet does not look whether STOP is still set
 *             2  prepare does not look for Ms made since it set STOP
 *             3  start_world does not wake those who wait
 *             4  quiet looks at STOP first, then at rt
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef ENTERS
#define ENTERS 2
#endif
#ifndef FORKS
#define FORKS 2
#endif
#define N 3

bool rt[N], inside[N], stop[N], asleep[N];
byte nms = 2;     /* sched.allm */
bool halted;      /* sched.stopped */
bool frozen;      /* between prepare and parent */
byte ended;

proctype M(byte i; bool in)
{
	byte k;

	if
	:: in -> atomic { inside[i] = true; k = 1; goto leave }
	:: else
	fi;
again:	if
	:: k == ENTERS -> goto out
	:: else -> k++
	fi;
	rt[i] = true;
	do
	:: atomic { !stop[i] -> inside[i] = true; assert(!frozen); break }
	:: stop[i] ->
		rt[i] = false;
		do
		:: atomic { halted -> asleep[i] = true }; /* futex_wait */
		   !asleep[i]
		:: !halted -> break
		od;
		rt[i] = true;
		if
		:: !halted -> stop[i] = false
		:: else
		fi
	od;
	if
	:: atomic { i == 0 && nms == 2 -> rt[2] = true; nms = 3; run M(2, true) }
	:: true
	fi;
leave:	inside[i] = false;
	rt[i] = false;
	goto again;
out:	ended++
}

proctype Forker()
{
	byte f, k, first;
	bool ok, s;

	do
	:: f == FORKS -> break
	:: f < FORKS ->
		f++;
		halted = true;
again:		atomic { first = nms; k = 0; ok = true };
		do
		:: k < first -> stop[k] = true; k++
		:: k == first -> break
		od;
		k = 0;
		do
		:: k < first && ok ->
#if MUTANT == 4
			s = stop[k];
			ok = !rt[k];
			ok = ok && s;
#else
			ok = !rt[k];
#if MUTANT != 1
			ok = ok && stop[k];
#endif
#endif
			k++
		:: else -> break
		od;
#if MUTANT != 2
		ok = ok && nms == first;
#endif
		if
		:: !ok -> goto again
		:: else
		fi;
		atomic { frozen = true; assert(!inside[0] && !inside[1] && !inside[2]) };
		atomic { frozen = false; k = 0 };
		do
		:: k < nms -> stop[k] = false; k++
		:: else -> break
		od;
		halted = false;
#if MUTANT != 3
		atomic { asleep[0] = false; asleep[1] = false; asleep[2] = false };
#endif
		k = 0
	od;
	ended++
}

proctype Monitor()
{
	ended == nms + 1;
	assert(!stop[0] && !stop[1] && !stop[2])
}

init {
	atomic { run M(0, false); run M(1, false); run Forker(); run Monitor() }
}
