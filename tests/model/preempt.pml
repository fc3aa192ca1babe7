/* SPDX-License-Identifier: MIT */
/*
 * A signal, a cancellation or a preemption that is queued on a G is seen, wherever the G is.
 *
 * Models      core/signal.c: pg_gkill, pg_interrupt, pg_sig_deliver, pg_sigtramp; core/kick.c: pg_kick with m->kicked, the
 *             handler, pg_libc_handler_begin; core/g.h: pg_rt_exit; core/park.c: the look at pending in pg_park_commit;
 *             core/fork.c: nudge_late (-DFORKS).
 * Command     tests/model/run quick preempt
 * Size        quick 0.1 to 0.5 M states, under 1 s each; all (FORKS=2) some seconds
 *
 * One G on two Ms: it enters the runtime ENTERS times, where it may go on, yield (and go on on the other M) or
 * park; then it computes for ever.  Senders queue on it and interrupt it; the kernel hands signals to its M.  A handler may come
 * between any two steps of the G.  The stores of a switch (M->cur, g->m) may be in a store buffer until the M's next locked
 * instruction or until the sender's membarrier.  All three bits of pending are one; what a handler does is not modelled.
 *
 * Checked     - when nothing moves any more, the G has nothing pending, and has all signals
 *
 * Mutants     1  the handler clears m->kicked when it has looked, not before
 *             2  no membarrier before the sender looks for the M of the G
 *             3  (FORKS) who puts a handler off does not look again whether the fork is over
 *             4  pg_sig_deliver does not look at pending after the rt of its last take is 0 again
 *             5  (FORKS) pg_sigtramp does not look again after it has queued what it put off
 *             6  pg_park does not look at pending
 *             7  pg_rt_exit does not look at pending
 *             8  (FORKS) prepare clears pg_handlers_put_off
 *             9  a handler that queues on its own G does not wake it
 */
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef ENTERS
#define ENTERS 2  /* times that the G enters the runtime before it computes for ever */
#endif
#ifndef SIGNALS
#define SIGNALS 2 /* sent to it by other threads */
#endif
#ifndef KSIGNALS
#define KSIGNALS 1 /* that the kernel hands to its M */
#endif
#ifndef FORKS
#define FORKS 0
#endif

#define W_IDLE   0
#define W_PREP   1
#define W_PARKED 2
#define W_WOKEN  3

byte wait = W_IDLE;
bool pending;     /* PG_PEND_SIGNAL */
byte sigq, got;
bool inrt;        /* g->rt > 0; only its own M looks */
byte m;           /* the M it is on */
bool runs = true; /* on that M */
byte seen_m;      /* g->m and M->cur as others see them: the stores may be in a store buffer */
bool seen_runs = true;
bool ready;       /* on a run queue */

bool kicked[2], sent[2]; /* m->kicked; signal 32 is under way */
bool inkick[2];   /* its handler runs: it is blocked */
byte ksig = KSIGNALS;

bool halted, put_off, nudging;
bool done;

/* what a locked instruction of the G's M does */
inline drain()
{
	seen_m = m; seen_runs = runs
}

/* pg_kick(x) */
inline kick(x)
{
	atomic {
		if
		:: !kicked[x] -> kicked[x] = true; sent[x] = true
		:: else
		fi
	}
}

/* pg_interrupt, by another thread */
inline interrupt()
{
	atomic {
		if
		:: wait == W_PREP -> wait = W_WOKEN; won = true
		:: wait == W_PARKED -> wait = W_WOKEN; ready = true; won = true
		:: else -> won = false
		fi
	};
	if
	:: won -> won = false
	:: else ->
#if MUTANT != 2
		atomic { drain() }; /* pg_membarrier */
#endif
		x = seen_m;
		if
		:: seen_runs && seen_m == x -> kick(x)
		:: else
		fi;
		x = 0
	fi
}

/* pg_libc_handler_begin when libc is interrupted: off, if the handler must be put off */
inline begin()
{
	off = false;
#if FORKS
	if
	:: halted ->
		put_off = true;
#if MUTANT == 3
		off = true
#else
		off = halted /* it may be over, and nobody look for us any more */
#endif
	:: else
	fi
#endif
}

/* pg_gkill to itself, by a handler */
inline queue()
{
	sigq++;
	pending = true;
#if MUTANT != 9
	if
	:: wait == W_PREP -> wait = W_WOKEN
	:: else
	fi
#endif
}

/* a signal from the kernel in a handler of ours, in the runtime */
inline intr0()
{
	if
	:: atomic { ksig > 0 && inrt -> ksig--; queue() }
	:: true
	fi
}

/* pg_sig_deliver, inside a handler; interrupted at each step */
inline deliver0()
{
	do
	:: pending = false;
	   intr0();
	   inrt = true;
	   intr0();
	   atomic { n = sigq; sigq = 0 };
	   intr0();
	   inrt = false;
	   intr0();
	   if
	   :: n > 0 -> atomic { got = got + n; n = 0 }
#if MUTANT == 4
	   :: else -> break
#else
	   :: else ->
		if
		:: pending
		:: else -> break
		fi
#endif
	   fi
	od
}

/* A signal interrupts the M the G is on, or none does. */
inline intr1()
{
	if
	:: atomic { sent[m] && !inkick[m] -> sent[m] = false; inkick[m] = true; drain() };
#if MUTANT != 1
	   kicked[m] = false;
#endif
	   if
	   :: inrt                /* at rt_exit */
	   :: !inrt && pending ->
		begin();
		if
		:: off -> off = false
		:: else -> deliver0()
		fi
	   :: else
	   fi;
#if MUTANT == 1
	   kicked[m] = false;
#endif
	   inkick[m] = false
	:: atomic { ksig > 0 -> ksig--; drain() };
	   if
	   :: inrt -> atomic { queue() }
	   :: else ->
		begin();
		if
		:: off ->
			atomic { off = false; queue() };
#if FORKS && MUTANT != 5
			/* who ended the fork may have looked before that */
			begin();
			if
			:: off -> off = false
			:: else -> deliver0()
			fi
#endif
		:: else -> got++
		fi
	   fi
	:: true
	fi
}

/* the same, from pg_rt_exit */
inline deliver1()
{
	do
	:: pending = false;
	   intr1();
	   inrt = true;
	   intr1();
	   atomic { n = sigq; sigq = 0 };
	   intr1();
	   inrt = false;
	   intr1();
	   if
	   :: n > 0 -> atomic { got = got + n; n = 0 }
#if MUTANT == 4
	   :: else -> break
#else
	   :: else ->
		if
		:: pending
		:: else -> break
		fi
#endif
	   fi
	od
}

proctype G()
{
	byte k, n, to;
	bool off;

	do
	:: k == ENTERS -> break
	:: k < ENTERS ->
		k++;
		intr1();
		inrt = true;
		intr1();
		if
		:: true /* a short call */
		:: true -> /* yields: to another M, with no locked instruction on the way out */
			atomic { runs = false; drain() };
			atomic { m = 1 - m; runs = true }
		:: true -> /* parks */
			atomic { wait = W_PREP; drain() };
			intr1();
#if MUTANT != 6
			if
			:: pending -> atomic { wait = W_IDLE; goto leave }
			:: else
			fi;
#endif
			intr1();
			atomic { runs = false; drain();
				if
				:: wait == W_PREP -> wait = W_PARKED
				:: else -> ready = true
				fi
			};
end_parked:		atomic { ready -> ready = false; select(to : 0 .. 1); m = to; to = 0; runs = true };
			atomic { wait = W_IDLE; drain() }
		fi;
leave:		intr1();
		inrt = false;
		intr1();
#if MUTANT != 7
		if
		:: pending -> deliver1()
		:: else
		fi
#else
		skip
#endif
	od;
	/* computes for ever */
	done = true;
end:	do
	:: (sent[m] && !inkick[m]) || ksig > 0 -> intr1()
	od
}

/* what else runs on the Ms */
proctype Others()
{
end:	do
	:: atomic { sent[0] && !(seen_runs && runs && m == 0) -> sent[0] = false; kicked[0] = false }
	:: atomic { sent[1] && !(seen_runs && runs && m == 1) -> sent[1] = false; kicked[1] = false }
	od
}

proctype Sender()
{
	byte k, x;
	bool won;

	do
	:: k == SIGNALS -> break
	:: k < SIGNALS ->
		k++;
		sigq++;
		pending = true;
		interrupt()
	od
}

/* whatever else ends its waits */
proctype Waker()
{
end:	do
	:: atomic { wait == W_PREP -> wait = W_WOKEN }
	:: atomic { wait == W_PARKED && done == false -> wait = W_WOKEN; ready = true }
	od
}

/* store buffers empty themselves some time */
proctype Drain()
{
end:	do
	:: atomic { seen_m != m || seen_runs != runs -> drain() }
	od
}

#if FORKS
/* prepare and parent of fork, as far as they touch signals */
proctype Forker()
{
	byte k, x;
	bool won, late;

	do
	:: k == FORKS -> break
	:: k < FORKS ->
		k++;
#if MUTANT == 8
		put_off = false;
#endif
		halted = true;
		halted = false;
		atomic { late = put_off; put_off = false };
		if
		:: late && pending -> interrupt()
		:: else
		fi;
		late = false
	od
}
#endif

/* when nothing moves any more */
proctype Monitor()
{
end:	timeout ->
	assert(done || wait == W_PARKED);
	assert(!pending && sigq == 0)
}

init {
	atomic {
		run G(); run Others(); run Sender(); run Drain(); run Monitor();
#ifdef WAKER
		run Waker();
#endif
#if FORKS
		run Forker()
#endif
	}
}
