// SPDX-License-Identifier: MIT

// What b_micro.c measures, with goroutines in place of threads and what package sync has in place of the pthread objects:
// the runtime that pgreen is modelled on, at its own language's work.  GOMAXPROCS says how many Ps.
//
//	b_micro create|pingpong|yield [N]|contend [N]|mutex|rwlock|wrlock|once|read|burst N|parked N|sleepers N
package main

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	rounds  = 7
	roundNS = 30000000
)

func die(what ...any) {
	fmt.Fprintln(os.Stderr, append([]any{"b_micro.go:"}, what...)...)
	os.Exit(1)
}

func median(f func(n int) time.Duration) float64 {
	n := 64
	for n < 1<<30 {
		t := f(n)
		if t >= roundNS/2 {
			break
		}
		if t < roundNS/32 {
			n *= 8
		} else {
			n *= 2
		}
	}
	var ns []float64
	for i := 0; i < rounds; i++ {
		ns = append(ns, float64(f(n))/float64(n))
	}
	sort.Float64s(ns)
	return ns[rounds/2]
}

// n goroutines in f together; the time from their start to the last one's end.
func together(n int, f func(me int)) time.Duration {
	var ready, done sync.WaitGroup
	gate := make(chan bool)
	ready.Add(n)
	done.Add(n)
	for i := 0; i < n; i++ {
		go func(me int) {
			ready.Done()
			<-gate
			f(me)
			done.Done()
		}(i)
	}
	ready.Wait()
	start := time.Now()
	close(gate)
	done.Wait()
	return time.Since(start)
}

// round times a whole round, of which the loop is inside f so that no call through a pointer is in it.
func round(f func(n int)) func(n int) time.Duration {
	return func(n int) time.Duration {
		start := time.Now()
		f(n)
		return time.Since(start)
	}
}

func create(n int) {
	done := make(chan bool)
	for i := 0; i < n; i++ {
		go func() { done <- true }()
		<-done
	}
}

func pingpong(n int) time.Duration {
	var lock sync.Mutex
	mine := [2]*sync.Cond{sync.NewCond(&lock), sync.NewCond(&lock)}
	turn := 0
	return together(2, func(me int) {
		lock.Lock()
		for i := 0; i < n/2; i++ {
			for turn != me {
				mine[me].Wait()
			}
			turn = 1 - me
			mine[1-me].Signal()
		}
		lock.Unlock()
	})
}

func burst(n int) {
	var done sync.WaitGroup
	done.Add(n)
	for i := 0; i < n; i++ {
		go done.Done()
	}
	done.Wait()
}

func procBytes(path, name string) float64 {
	f, err := os.Open(path)
	if err != nil {
		die(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), name) {
			kb, _ := strconv.ParseFloat(strings.Fields(s.Text())[1], 64)
			return kb * 1024
		}
	}
	die("no", name, "in", path)
	return 0
}

func ownMemory() float64 {
	return procBytes("/proc/self/smaps_rollup", "Rss:") + procBytes("/proc/self/status", "VmPTE:")
}

func parked(n int) {
	var lock sync.Mutex
	open := sync.NewCond(&lock)
	isOpen := false
	var ready, done sync.WaitGroup
	ready.Add(n)
	done.Add(n)
	own, stacks := ownMemory(), procBytes("/proc/meminfo", "KernelStack:")
	available := procBytes("/proc/meminfo", "MemAvailable:")
	for i := 0; i < n; i++ {
		go func() {
			lock.Lock()
			ready.Done()
			for !isOpen {
				open.Wait()
			}
			lock.Unlock()
			done.Done()
		}()
	}
	ready.Wait()
	own, stacks = ownMemory()-own, procBytes("/proc/meminfo", "KernelStack:")-stacks
	available -= procBytes("/proc/meminfo", "MemAvailable:")
	fmt.Printf("%.0f %.0f %.0f\n", own/float64(n), (own+stacks)/float64(n), available/float64(n))
	lock.Lock()
	isOpen = true
	open.Broadcast()
	lock.Unlock()
	done.Wait()
}

func sleepers(n int) float64 {
	late := make([]float64, n)
	random := rand.New(rand.NewSource(1))
	for i := range late {
		late[i] = random.Float64()
	}
	start := time.Now()
	together(n, func(me int) {
		due := start.Add(time.Second + time.Duration(late[me]*float64(time.Second)))
		time.Sleep(time.Until(due))
		late[me] = float64(time.Since(due)) / 1000
	})
	sort.Float64s(late)
	return late[n*99/100]
}

func main() {
	what, n := "", 0
	if len(os.Args) > 1 {
		what = os.Args[1]
	}
	if len(os.Args) > 2 {
		n, _ = strconv.Atoi(os.Args[2])
	}
	threads := func(usual int) int {
		if n > 0 {
			return n
		}
		return usual
	}
	ns := 0.0
	switch what {
	case "create":
		ns = median(round(create))
	case "pingpong":
		ns = median(pingpong)
	case "yield":
		t := threads(2)
		ns = median(func(n int) time.Duration {
			return together(t, func(int) {
				for i := 0; i < n/t; i++ {
					runtime.Gosched()
				}
			})
		})
	case "contend":
		t := threads(8)
		var lock sync.Mutex
		count := 0
		ns = median(func(n int) time.Duration {
			count = 0
			took := together(t, func(int) {
				for i := 0; i < n/t; i++ {
					lock.Lock()
					count++
					lock.Unlock()
				}
			})
			if count != n/t*t {
				die("the mutex let two in")
			}
			return took
		})
	case "mutex":
		var lock sync.Mutex
		ns = median(round(func(n int) {
			for i := 0; i < n; i++ {
				lock.Lock()
				lock.Unlock() //lint:ignore SA2001 that is what is measured
			}
		}))
	case "rwlock", "wrlock":
		var lock sync.RWMutex
		ns = median(round(func(n int) {
			for i := 0; i < n; i++ {
				if what == "rwlock" {
					lock.RLock()
					lock.RUnlock()
				} else {
					lock.Lock()
					lock.Unlock() //lint:ignore SA2001 that is what is measured
				}
			}
		}))
	case "once":
		var once sync.Once
		ns = median(round(func(n int) {
			for i := 0; i < n; i++ {
				once.Do(func() {})
			}
		}))
	case "read":
		f, err := os.CreateTemp("", "b_micro")
		if err != nil {
			die(err)
		}
		os.Remove(f.Name())
		f.WriteString("x")
		fd, c := int(f.Fd()), make([]byte, 1)
		ns = median(round(func(n int) {
			for i := 0; i < n; i++ {
				if got, err := syscall.Pread(fd, c, 0); got != 1 {
					die("pread", err)
				}
			}
		}))
	case "burst":
		if n < 1 {
			die("burst N")
		}
		var all []float64
		for i := 0; i < 3; i++ {
			start := time.Now()
			burst(n)
			all = append(all, float64(time.Since(start))/float64(n))
		}
		sort.Float64s(all)
		ns = all[1]
	case "parked":
		if n < 1 {
			die("parked N")
		}
		parked(n)
		return
	case "sleepers":
		if n < 1 {
			die("sleepers N")
		}
		ns = sleepers(n)
	default:
		die("no such measurement; see the head of its source")
	}
	fmt.Printf("%.2f\n", ns)
}
