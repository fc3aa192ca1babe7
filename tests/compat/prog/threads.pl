# SPDX-License-Identifier: MIT
# Perl's threads: create, join, detach, shared data, locks, conditions, queues, semaphores, errors.
use strict;
use warnings;
use threads;
use threads::shared;
use Thread::Queue;
use Thread::Semaphore;

$| = 1;

my @t = map { my $n = $_; threads->create(sub { my $s = 0; $s += $_ for 1 .. 1000 * $n; return $s }) } 1 .. 20;
print "join: ", join(" ", map { $_->join } @t), "\n";

my $count : shared = 0;
$_->join for map { threads->create(sub { for (1 .. 500) { lock $count; $count++ } }) } 1 .. 10;
print "lock: $count\n";

my $turn : shared = 0;
my @order : shared;
my @players = map {
	my $me = $_;
	threads->create(sub {
		for my $round (0 .. 49) {
			lock $turn;
			cond_wait($turn) until $turn % 4 == $me;
			push @order, $me;
			$turn++;
			cond_broadcast($turn);
		}
	})
} 0 .. 3;
$_->join for @players;
print "cond: ", scalar(@order), " ", join("", @order[0 .. 11]), "\n";

{
	my $never : shared;
	lock $never;
	print "timed wait: ", (cond_timedwait($never, time + 1) ? "woken" : "over"), "\n";
}

my ($in, $out) = (Thread::Queue->new, Thread::Queue->new);
my @workers = map { threads->create(sub { while (defined(my $x = $in->dequeue)) { $out->enqueue($x * $x) } }) } 1 .. 8;
$in->enqueue(1 .. 2000);
$in->end;
$_->join for @workers;
$out->end;
my $sum = 0;
while (defined(my $x = $out->dequeue)) { $sum += $x }
print "queue: $sum\n";

my $limited = Thread::Queue->new;
$limited->limit = 3;
my $producer = threads->create(sub { $limited->enqueue($_) for 1 .. 200; $limited->end });
my $got = 0;
while (defined($limited->dequeue)) { $got++ }
$producer->join;
print "limited queue: $got\n";

my $sem = Thread::Semaphore->new(2);
my ($inside, $most) : shared = (0, 0);
$_->join for map {
	threads->create(sub {
		for (1 .. 20) {
			$sem->down;
			{ lock $inside; $inside++; $most = $inside if $inside > $most }
			threads->yield;
			{ lock $inside; $inside-- }
			$sem->up;
		}
	})
} 1 .. 8;
print "semaphore: ", ($most <= 2 ? "at most two" : "$most at once"), ", $inside left\n";

my $dies = threads->create(sub { local $SIG{__WARN__} = sub { }; die "as asked\n" });
$dies->join;
print "error: ", $dies->error;

my $ready : shared = 0;
my $killed = threads->create(sub {
	local $SIG{KILL} = sub { threads->exit };
	{ lock $ready; $ready = 1; cond_signal($ready) }
	select undef, undef, undef, 0.01 while 1;
});
{
	lock $ready;
	cond_wait($ready) until $ready;
}
$killed->kill("KILL")->join;
print "kill: ended\n";

my $done : shared = 0;
threads->create(sub { lock $done; $done = 1; cond_signal($done) })->detach;
{
	lock $done;
	cond_wait($done) until $done;
}
print "detach: done\n";

my $list = threads->create({ context => "list", stack_size => 1 << 20 }, sub { return (1, [2, 3], { a => 4 }) });
my @list = $list->join;
print "list: $list[0] $list[1][1] $list[2]{a}\n";

my $pid = fork // die "fork: $!";
if (!$pid) {
	my $x = threads->create(sub { 42 })->join;
	exit $x;
}
waitpid $pid, 0;
print "fork: ", $? >> 8, "\n";
print "command: ", threads->create(sub { my $o = `echo from a shell`; $o })->join;
print "threads left: ", scalar(threads->list), "\n";
