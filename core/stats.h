/* SPDX-License-Identifier: MIT */
/* Reports on stderr that the knobs ask for. */
#ifndef PG_STATS_H
#define PG_STATS_H

/* At the end of the process: one line of counters if PGREEN_STATS is set.  Blocks: nothing. */
void pg_stats_exit(void);
/* From sysmon, with everything idle: one line, once, if PGREEN_DEADLOCK is set and no thread can go on but by a signal. */
void pg_deadlock_check(void);

#endif
