/* SPDX-License-Identifier: MIT */
/*
 * Entering the runtime by plain stores, and the thread that takes Ps away: g->rt, m->attn, m->switches.
 *
 * Models      core/g.h: pg_rt_enter, pg_rt_exit; core/syscall.c: pg_rt_enter_slow, pg_lostp,
 *             pg_entersyscallblock; core/syscall.c: pg_retake; the stores to m->cur and m->switches of a
 *             switch in core/sched.c.
 * Command     tests/model/run quick retake   (with one and with two Ps)
 * Size        quick 2,241,125 (one P) and 7,223,051 states (two), 5 and 12 s; all (sysmon tries twice)
 *             15,022,862 states, 27 s
 *
 * Each M has a TSO store buffer (FIFO) for rt, m->cur, m->switches and m->p.  It empties by itself at
 * any time, at once at a locked instruction, and at the membarrier, which reaches one M after the other.
 * Handing a P or a G from M to M goes through a lock, that is an atomic step that drains the buffer
 * first.  g0 of M i is G number NG+i, with rt == 1 always. The scheduler's decision to start an M for a
 * runnable G and an idle P is taken as given.
 *
 * Checked     - a P is taken only from an M that is outside the runtime, and it is the P which that M holds
 *             - an M inside the runtime holds its P, alone
 *             - no P and no G is lost: all Gs end, and then all Ps are idle
 *
 * Mutants     1  no membarrier between WANT and the look at rt
 *             2  m->switches not compared
 *             3  TAKEN by a store instead of a CAS
 *             4  a switch counts m->switches before it stores m->cur
 *             5  sysmon reads m->p only after it has won
 *             6  sysmon clears m->p after it has won
 *             7  rt_enter answers WANT with a store of 0 instead of a CAS
 *             8  entersyscallblock gives the P away without marking attn TAKEN
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef NM
#define NM 2
#endif
#ifndef NP
#define NP 2
#endif
#ifndef NG
#define NG 2
#endif
#ifndef ENTERS
#define ENTERS 2 /* times that each G enters the runtime before it ends there */
#endif
#ifndef TRIES
#define TRIES 2 /* of sysmon */
#endif

#define WANT  1
#define TAKEN 2
#define NOP   9
#define NOM   9
#define G0    (NG + i)

#define ST_RT  0
#define ST_CUR 1
#define ST_SW  2
#define ST_P   3

byte rt[NG + NM];
byte cur[NM], sw[NM], attn[NM], mp[NM];
chan sb[NM] = [4] of { byte, byte, byte }; /* what, index, value */

bool pidle[NP];
chan runq = [NG] of { byte };
byte left[NG];
byte dead;
bool sysmon_done;

/* ghosts */
byte holder[NP];
bool inrt[NM];

inline apply(m, a, x, v)
{
	if
	:: a == ST_RT -> rt[x] = v
	:: a == ST_CUR -> cur[m] = v
	:: a == ST_SW -> sw[m] = v
	:: a == ST_P -> mp[m] = v
	fi
}

/* inside atomic: empties the store buffer of M m; uses ta, tx, tv */
inline drain(m)
{
	do
	:: sb[m]?ta,tx,tv -> apply(m, ta, tx, tv)
	:: empty(sb[m]) -> break
	od;
	ta = 0; tx = 0; tv = 0
}

inline take_idle_p()
{
	n = 0;
	do
	:: n < NP && pidle[n] -> pidle[n] = false; p = n; holder[p] = i; break
	:: n < NP && !pidle[n] -> n++
	:: n >= NP -> break
	od;
	n = 0
}

/* the stores of a switch to x, in the order that counts */
inline switch_stores(x)
{
#if MUTANT == 4
	atomic { count++; sb[i]!ST_SW,0,count };
	sb[i]!ST_CUR,0,x
#else
	sb[i]!ST_CUR,0,x;
	atomic { count++; sb[i]!ST_SW,0,count }
#endif
}

proctype M(byte i; byte g; byte p)
{
	byte a, n, count;
	byte ta, tx, tv;

	if
	:: g < NG -> goto user
	:: else
	fi;

idle:	/* on g0, without a P */
	assert(p == NOP);
end_idle:
	atomic {
		nempty(runq) && (pidle[0] || pidle[NP - 1]) ->
		drain(i);
		take_idle_p();
		inrt[i] = true;
		sb[i]!ST_P,0,p
	};
find:	/* on g0, with a P */
	if
	:: atomic { nempty(runq) -> drain(i); runq?g };
	   switch_stores(g);
	   goto leave
	:: empty(runq) ->
	   goto release
	fi;

user:	/* user code of g; with or without its P */
	sb[i]!ST_RT,g,1;
	atomic {
		a = attn[i];
		if
		:: a == 0 -> inrt[i] = true
		:: else
		fi
	};
	do
	:: a == 0 -> break
	:: a == WANT ->
#if MUTANT == 7
		atomic { attn[i] = 0; a = 0; inrt[i] = true }
#else
		atomic {
			drain(i);
			if
			:: attn[i] == WANT -> attn[i] = 0
			:: else
			fi;
			a = attn[i];
			if
			:: a == 0 -> inrt[i] = true
			:: else
			fi
		}
#endif
	:: a == TAKEN -> a = 0; goto lost
	od;

	/* inside the runtime */
	assert(p != NOP && holder[p] == i);
	if
	:: left[g] == 0 -> goto g_exit
	:: else
	fi;
	left[g]--;
	if
	:: goto leave
	:: /* yield straight to another G */
	   atomic { nempty(runq) -> drain(i); runq?n };
	   switch_stores(n);
	   atomic { drain(i); runq!g; g = n; n = 0 };
	   goto leave
	:: /* yield to g0 */
	   switch_stores(G0);
	   atomic { drain(i); runq!g; g = G0 };
	   goto find
	:: /* entersyscallblock */
	   sb[i]!ST_P,0,NOP;
	   atomic {
		drain(i);
		assert(holder[p] == i);
#if MUTANT != 8
		attn[i] = TAKEN;
#endif
		holder[p] = NOM; pidle[p] = true; p = NOP
	   };
	   atomic { inrt[i] = false; sb[i]!ST_RT,g,0 };
	   goto user
	fi;

leave:	assert(p != NOP && holder[p] == i);
	atomic { inrt[i] = false; sb[i]!ST_RT,g,0 };
	goto user;

lost:	/* rt == 1, attn TAKEN: the P is gone, g stays */
	p = NOP;
	sb[i]!ST_P,0,NOP;
	atomic {
		drain(i);
		assert(attn[i] == TAKEN);
		attn[i] = 0
	};
	atomic {
		drain(i);
		take_idle_p();
		if
		:: p != NOP -> inrt[i] = true; sb[i]!ST_P,0,p
		:: else
		fi
	};
	if
	:: p != NOP -> goto leave
	:: else
	fi;
	switch_stores(G0);
	atomic { drain(i); runq!g; g = G0 };
	goto idle;

g_exit:	switch_stores(G0);
	atomic { drain(i); dead++; g = G0 };
	goto find;

release:
	assert(p != NOP && holder[p] == i);
	sb[i]!ST_P,0,NOP;
	atomic { drain(i); inrt[i] = false; holder[p] = NOM; pidle[p] = true; p = NOP };
	goto idle
}

proctype Sysmon()
{
	byte m, t, s1, s2, c, r, p, k;
	byte ta, tx, tv;
	bool won;

	do
	:: t == TRIES -> break
	:: t < TRIES ->
		t++;
		select(m : 0 .. NM - 1);
		atomic {
			if
			:: attn[m] == 0 -> attn[m] = WANT; won = true
			:: else -> won = false
			fi
		};
		if
		:: !won -> goto next
		:: else
		fi;
		won = false;
#if MUTANT != 1
		k = 0;
		do
		:: k < NM -> atomic { drain(k); k++ }
		:: k == NM -> break
		od;
		k = 0;
#endif
		s1 = sw[m];
		c = cur[m];
		r = rt[c];
		s2 = sw[m];
		p = mp[m];
#if MUTANT == 2
		s2 = s1;
#endif
		if
		:: r == 0 && s1 == s2 && p != NOP ->
			atomic {
				if
#if MUTANT == 3
				:: true ->
#else
				:: attn[m] == WANT ->
#endif
					attn[m] = TAKEN;
					won = true;
					assert(!inrt[m])
#if MUTANT != 5
					;
					assert(holder[p] == m);
					holder[p] = NOM
#endif
				:: else
				fi
			};
			if
			:: won ->
#if MUTANT == 5
				p = mp[m];
				atomic { assert(p != NOP && holder[p] == m); holder[p] = NOM };
#endif
#if MUTANT == 6
				mp[m] = NOP;
				assert(holder[0] != m && holder[NP - 1] != m);
#endif
				pidle[p] = true
			:: else
			fi
		:: else ->
			atomic {
				if
				:: attn[m] == WANT -> attn[m] = 0
				:: else
				fi
			}
		fi;
next:		atomic { s1 = 0; s2 = 0; c = 0; r = 0; p = 0; won = false; m = 0 }
	od;
	sysmon_done = true
}

/* store buffers empty themselves some time */
proctype Drain()
{
	byte ta, tx, tv;

end:	do
	:: atomic { sb[0]?ta,tx,tv -> apply(0, ta, tx, tv); ta = 0; tx = 0; tv = 0 }
	:: atomic { sb[1]?ta,tx,tv -> apply(1, ta, tx, tv); ta = 0; tx = 0; tv = 0 }
#if NM > 2
	:: atomic { sb[2]?ta,tx,tv -> apply(2, ta, tx, tv); ta = 0; tx = 0; tv = 0 }
#endif
	od
}

proctype Monitor()
{
	dead == NG && sysmon_done;
	pidle[0] && pidle[NP - 1]
}

init {
	byte k;

	atomic {
		k = 0;
		do
		:: k < NG + NM -> rt[k] = (k < NP -> 0 : 1); k++
		:: else -> break
		od;
		k = 0;
		do
		:: k < NG ->
			left[k] = ENTERS;
			if
			:: k >= NP -> runq!k
			:: else
			fi;
			k++
		:: else -> break
		od;
		k = 0;
		do
		:: k < NP -> holder[k] = k; k++
		:: else -> break
		od;
		k = 0;
		do
		:: k < NM && k < NP -> cur[k] = k; mp[k] = k; run M(k, k, k); k++
		:: k < NM && k >= NP -> cur[k] = NG + k; mp[k] = NOP; run M(k, NG + k, NOP); k++
		:: else -> break
		od;
		k = 0;
		run Sysmon(); run Drain(); run Monitor()
	}
}
