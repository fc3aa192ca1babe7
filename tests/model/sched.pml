/* SPDX-License-Identifier: MIT */
/*
 * The scheduler: who looks for work, who sleeps.
 *
 * Models      core/sched.c: findrunnable, stealwork, pg_schedule, pg_yield, finish_prev; core/proc.c: startm, pg_wakep,
 *             pg_handoffp, pg_stopm, pg_pidleget, pg_pidleput; core/runq.c: pg_runqput, pg_runqget, pg_runqsteal, pg_globget;
 *             core/park.c: pg_ready; core/syscall.c: pg_lostp, pg_entersyscallblock; sysmon's stray.
 * Command     tests/model/run quick sched
 * Size        quick 0.65 M (-DOUTSIDE=0), 3.4 M (-DRETAKES=0), 0.68 M states (-DYIELDS), 1, 4 and 1 s; all 52 M states, 80 s each
 *
 * NM Ms (three), two Ps, three Gs, which together do ACTS things (make a parked one ready, park, are preempted, yield with
 * -DYIELDS, announce a blocking call) and then compute for ever.  A thread without a P makes OUTSIDE of them ready; sysmon
 * takes the P of RETAKES, whose call announced that it blocks or not.  Sections under the sched lock are one step, and so are the CASes on a ring
 * and on runnext; rings are sets.  A new M is one that comes late.  Timers and the poller are in timer.pml, attn in
 * retake.pml.  Everything here is a locked instruction or followed by one, so no store buffer is needed.
 *
 * Checked     - when nothing moves any more: no G is runnable while a P is idle; nobody counts as spinning
 *             - a P has one holder, a G is in one place, nmspinning does not go below 0
 *             - with -DYIELDS the first may need one look of sysmon: a yield has two Gs in its hands, on no queue
 *
 * Mutants     1  pg_wakep before the G is queued
 *             2  the last spinner does not look at the Ps' queues again
 *             3  nobody looks at the global queue before or after the P goes idle
 *             4  a spinner that found work does not wake another M
 *             5  pg_wakep does not look again when there was no idle P
 *             6  pg_lostp queues its G and does not wake an M
 *             7  pg_handoffp does not look at the queues after the P went idle
 *             8  an M that did not spin never looks
 *             9  a preempted G is queued and no M is woken
 *             10 (YIELDS) sysmon does not look
 *             11 the last spinner looks at the Ps' queues first, then at the global one
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef NM
#define NM 3
#endif
#ifndef NG
#define NG 3
#endif
#ifndef ACTS
#define ACTS 2    /* what all Gs together do before each computes for ever */
#endif
#ifndef OUTSIDE
#define OUTSIDE 1 /* Gs made runnable by a thread without a P */
#endif
#ifndef RETAKES
#define RETAKES 1
#endif
#define NP 2

#define NOP 7
#define NOG 7
#define NOM 7

/* gl[g]: where G g is */
#define PARKED 0
#define RUNS   1 /* on an M, or in the hands of who moves it */
#define GLOBAL 2
#define RING   3 /* RING + p */
#define NEXT   5 /* NEXT + p */

byte gl[NG];
byte nring[NP];      /* p->runqtail - p->runqhead */
byte next[NP] = NOG; /* p->runnext */
byte ngl;            /* sched.runq.n and runqsize */

/* under the sched lock; npidle is read without it */
bool pidle[NP], midle[NM];
byte npidle;
byte nspawn, spawnp[NP]; /* Ps for which an M is being made */
bool spawnspin[NP];

byte nmspinning;
bool spinning[NM], note[NM], taken[NM], inuser[NM];
byte nextp[NM] = NOP;
byte mp[NM] = NOP;   /* m->p */
byte holder[NP] = NOM;
byte acts = ACTS;
byte retakes = RETAKES;

inline count_down()
{
	atomic { assert(nmspinning > 0); nmspinning-- }
}

inline acquire(q)
{
	assert(holder[q] == NOM && mp[i] == NOP && !pidle[q]);
	holder[q] = i;
	mp[i] = q
}

/* inside atomic: pg_pidleget, pg_pidleput */
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
	assert(!pidle[q] && holder[q] == NOM);
	pidle[q] = true;
	npidle++
}

/* inside atomic: one of the ring of q into x */
inline ringget(q, x)
{
	if
	:: nring[q] > 0 ->
		x = 0;
		do
		:: gl[x] == RING + q -> break
		:: else -> x++
		od;
		nring[q]--; gl[x] = RUNS
	:: else -> x = NOG
	fi
}

inline nextget(q, x)
{
	if
	:: next[q] != NOG -> x = next[q]; next[q] = NOG; assert(gl[x] == NEXT + q); gl[x] = RUNS
	:: else -> x = NOG
	fi
}

inline ringput(q, x)
{
	assert(gl[x] == RUNS);
	gl[x] = RING + q; nring[q]++
}

inline globput(x)
{
	assert(gl[x] == RUNS);
	gl[x] = GLOBAL; ngl++
}

/* pg_globget(q, 0), the sched lock is held: a share of the queue; what is not returned goes to the ring of q */
inline globget(q, x)
{
	if
	:: ngl == 0 -> x = NOG
	:: else ->
		k = ngl / NP + 1;
		if
		:: k > ngl -> k = ngl
		:: else
		fi;
		x = 0;
		do
		:: x < NG && k > 1 && gl[x] == GLOBAL -> k--; ngl--; gl[x] = RING + q; nring[q]++; x++
		:: x < NG && k == 1 && gl[x] == GLOBAL -> ngl--; gl[x] = RUNS; break
		:: else -> x++
		od;
		k = 0
	fi
}

/* pg_runqget: runnext first, mostly; both by one CAS */
inline runqget(q, x)
{
	atomic {
		nextget(q, x);
		if
		:: x == NOG -> ringget(q, x)
		:: else
		fi
	}
}

/* q, or NOP: an idle one */
inline startm(q, spin)
{
	atomic {
		if
		:: q == NOP -> pidleget(q)
		:: else
		fi;
		if
		:: q == NOP
		:: else ->
			k = 0;
			do
			:: k < NM && !midle[k] -> k++
			:: k < NM && midle[k] ->
				midle[k] = false;
				assert(!spinning[k] && nextp[k] == NOP);
				spinning[k] = spin; nextp[k] = q; note[k] = true;
				break
			:: k == NM -> /* one is made; it comes when it comes */
				spawnp[nspawn] = q; spawnspin[nspawn] = spin; nspawn++;
				break
			od
		fi
	};
	if
	:: q == NOP && spin -> count_down()
	:: else
	fi;
	k = 0
}

inline wakep()
{
	do
	:: npidle == 0 -> break
	:: else ->
		atomic {
			if
			:: nmspinning == 0 -> nmspinning = 1 /* the load and the CAS: a failure of either ends it */
			:: else -> break
			fi;
			n = NOP
		};
		startm(n, true);
#if MUTANT != 5
		if
		:: n != NOP -> break
		:: else /* there was none: one may be idle now, whose M counted on us */
		fi
#else
		break
#endif
	od;
	n = NOP
}

/* pg_handoffp(n) */
inline handoffp()
{
	if
	:: nring[n] > 0 || next[n] != NOG || ngl > 0 -> startm(n, false)
	:: else ->
		k = nmspinning;
		if
		:: k + npidle == 0 ->
			atomic {
				k = 0;
				if
				:: nmspinning == 0 -> nmspinning = 1; won = true
				:: else
				fi
			}
		:: else -> k = 0
		fi;
		if
		:: won -> won = false; startm(n, true)
		:: else ->
			atomic {
				if
				:: ngl > 0 -> won = true
				:: else -> pidleput(n)
				fi
			};
			if
			:: won -> won = false; startm(n, false)
			:: else ->
#if MUTANT != 7
				if
				:: nring[0] > 0 || next[0] != NOG -> wakep()
				:: else ->
					if
					:: nring[1] > 0 || next[1] != NOG -> wakep()
					:: else
					fi
				fi
#endif
				skip
			fi
		fi
	fi;
	n = NOP
}

inline look_global()
{
	if
	:: ngl > 0 ->
		atomic {
			pidleget(p);
			if
			:: p != NOP -> acquire(p)
			:: else
			fi
		};
		if
		:: p != NOP -> goto top
		:: else
		fi
	:: else
	fi;
}

proctype M(byte i; byte g)
{
	byte p = NOP, n, k, x;
	bool won;

	if
	:: g != NOG -> p = 0; goto user
	:: else
	fi;

stopm:	atomic {
		assert(mp[i] == NOP && !spinning[i]);
		if
		:: nspawn > 0 -> /* stands for the new M */
			nspawn--;
			spinning[i] = spawnspin[nspawn]; nextp[i] = spawnp[nspawn]; note[i] = true;
			spawnp[nspawn] = 0; spawnspin[nspawn] = false
		:: else -> midle[i] = true
		fi
	};
end_stopm:
	atomic { note[i] -> note[i] = false; p = nextp[i]; nextp[i] = NOP; acquire(p) };

top:	runqget(p, g);
	if
	:: g != NOG -> goto found
	:: else
	fi;
	if
	:: ngl > 0 ->
		atomic { globget(p, g) };
		if
		:: g != NOG -> goto found
		:: else
		fi
	:: else
	fi;
	if
	:: spinning[i]
	:: else ->
		k = nmspinning;
		if
		:: 2 * k < NP - npidle -> atomic { k = 0; spinning[i] = true; nmspinning++ }
		:: else -> k = 0; goto giveup
		fi
	fi;
	/* stealwork */
	atomic { ringget(1 - p, g) };
	if
	:: g != NOG -> goto found
	:: else
	fi;
	if
	:: ngl > 0 -> goto giveup
	:: else
	fi;
	atomic {
		ringget(1 - p, g);
		if
		:: g == NOG -> nextget(1 - p, g)
		:: else
		fi
	};
	if
	:: g != NOG -> goto found
	:: else
	fi;

giveup:	atomic {
#if MUTANT != 3
		globget(p, g);
#endif
		if
		:: g != NOG -> goto found
		:: else
		fi;
		holder[p] = NOM; mp[i] = NOP;
		pidleput(p); p = NOP
	};
	x = spinning[i];
	if
	:: spinning[i] -> atomic { spinning[i] = false; count_down() }
	:: else
	fi;
#if MUTANT != 11 && MUTANT != 3
	/* from the global queue they go to a ring: this order */
	look_global();
#endif
	if
	:: x
#if MUTANT == 8
	:: else -> goto nolook
#else
	:: else ->
		if
		:: nmspinning > 0 -> goto nolook
		:: else
		fi
#endif
	fi;
#if MUTANT != 2
	x = 0;
	do
	:: x < NP && nring[x] == 0 && next[x] == NOG -> x++
	:: x < NP && (nring[x] > 0 || next[x] != NOG) ->
		atomic {
			x = 0;
			pidleget(p);
			if
			:: p != NOP -> acquire(p)
			:: else -> break
			fi
		};
		atomic { spinning[i] = true; nmspinning++; goto top }
	:: x == NP -> break
	od;
	x = 0;
#endif
nolook:
#if MUTANT == 11
	look_global();
#endif
	x = 0;
	goto stopm;

found:	/* pg_schedule */
	if
	:: spinning[i] ->
		atomic { spinning[i] = false; count_down() };
#if MUTANT != 4
		wakep()
#endif
	:: else
	fi;

user:	/* g runs, rt == 0 */
	atomic { assert(gl[g] == RUNS); inuser[i] = true };
	if
	:: atomic { acts > 0 -> acts--; inuser[i] = false }
	:: goto forever
	fi;
	if
	:: taken[i] -> atomic { taken[i] = false; mp[i] = NOP; goto lostp }
	:: else
	fi;
act:	assert(mp[i] == p && holder[p] == i);
	if
	:: /* pg_ready of a parked one */
		atomic {
			x = 0;
			do
			:: x < NG && gl[x] == PARKED -> gl[x] = RUNS; break
			:: x < NG && gl[x] != PARKED -> x++
			:: x == NG -> x = 0; goto user
			od
		};
#if MUTANT == 1
		wakep();
#endif
		atomic {
			k = next[p];
			next[p] = x; gl[x] = NEXT + p; x = k; k = 0;
			if
			:: x != NOG -> gl[x] = RUNS /* what it drives out, on its way to the ring */
			:: else
			fi
		};
		if
		:: x != NOG -> atomic { ringput(p, x) }
		:: else
		fi;
		x = 0;
#if MUTANT != 1
		wakep();
#endif
		goto user
#ifdef YIELDS
	:: true -> /* yield */
		if
		:: nring[p] == 0 && next[p] == NOG && ngl == 0 -> goto user
		:: else
		fi;
		runqget(p, n);
		atomic { ringput(p, g); g = n; n = 0 };
		if
		:: g == NOG -> goto top
		:: else -> goto user
		fi
#endif
	:: true -> /* preempted */
		if
		:: nring[p] == 0 && next[p] == NOG && ngl == 0 -> goto user
		:: else
		fi;
		runqget(p, x);
		atomic { globput(g); g = x; x = 0 };
#if MUTANT != 9
		wakep();
#endif
		if
		:: g == NOG -> goto top
		:: else -> goto user
		fi
	:: true -> /* park */
		runqget(p, n);
		atomic { gl[g] = PARKED; g = n; n = 0 };
		if
		:: g == NOG -> goto top
		:: else -> goto user
		fi
	:: atomic { retakes > 0 -> /* pg_entersyscallblock */
		retakes--; taken[i] = true; holder[p] = NOM; n = p; p = NOP };
		handoffp();
		goto user
	fi;

lostp:	/* its P is gone; rt > 0 */
	atomic {
		pidleget(p);
		if
		:: p != NOP -> acquire(p)
		:: else
		fi
	};
	if
	:: p != NOP -> goto act
	:: else
	fi;
	atomic { globput(g); g = NOG };
#if MUTANT != 6
	wakep();
#endif
	goto stopm;

forever:
end_forever:
	false
}

/* sysmon, for a G in a system call or asleep */
proctype Retaker()
{
	byte n, k;
	bool won;

	do
	:: retakes == 0 || acts == 0 -> break
	:: atomic { retakes > 0 ->
		retakes--;
		k = 0;
		do
		:: k < NM && inuser[k] && !taken[k] && mp[k] != NOP && holder[mp[k]] == k ->
			taken[k] = true; n = mp[k]; holder[n] = NOM; k = 0; break
		:: k < NM -> k++
		:: k == NM -> k = 0; n = NOP; break
		od
	   };
	   if
	   :: n != NOP -> handoffp()
	   :: else
	   fi
	od
}

/* a native thread, sysmon, the poller when it got no P */
proctype Outside()
{
	byte n, k, r, x;
	bool won;

	do
	:: r == OUTSIDE -> break
	:: r < OUTSIDE ->
		r++;
		atomic {
			x = 0;
			do
			:: x < NG && gl[x] == PARKED -> gl[x] = RUNS; break
			:: x < NG && gl[x] != PARKED -> x++
			:: x == NG -> goto out
			od
		};
		atomic { globput(x) };
		wakep()
	od;
out:	skip
}

#define WORK (ngl > 0 || nring[0] > 0 || nring[1] > 0 || next[0] != NOG || next[1] != NOG)

/* When nothing moves any more: no G is runnable while a P is idle. */
proctype Monitor()
{
	byte n, k;

end:	do
	:: timeout ->
		assert(nmspinning == 0);
		assert(nspawn == 0);
		assert(npidle == pidle[0] + pidle[1]);
#if defined(YIELDS) && MUTANT != 10
		if
		:: npidle > 0 && WORK -> wakep(); goto again /* sysmon looks */
		:: else
		fi;
#endif
		break
	od;
	goto look;
again:
end1:	timeout;
look:	assert(npidle == 0 || !WORK)
}

init {
	byte k;

	atomic {
		k = 1;
		do
		:: k < NP -> pidle[k] = true; npidle++; k++
		:: else -> break
		od;
		gl[0] = RUNS;
		holder[0] = 0; mp[0] = 0;
		run M(0, 0);
		k = 1;
		do
		:: k < NM -> run M(k, NOG); k++
		:: else -> break
		od;
		k = 0;
		run Retaker(); run Outside(); run Monitor()
	}
}
