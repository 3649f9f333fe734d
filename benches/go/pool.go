// Go's worker pool: so many goroutines read items from a channel, and send their results into another one.
//
// It prints the nanoseconds of processor time of an item, for each number of items among the arguments.
package main

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// As in src/pipe.rs.
const limit = 64

var errNoSuchItem = errors.New("no such item")

//go:noinline
func work(item int) error {
	if item == -1 {
		return errNoSuchItem
	}
	return nil
}

func run(items int) {
	queue := make(chan int, limit)
	results := make(chan error, limit)
	var workers sync.WaitGroup
	for i := 0; i < limit; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for item := range queue {
				results <- attempt(item)
			}
		}()
	}
	go func() {
		for item := 0; item < items; item++ {
			queue <- item
		}
		close(queue)
		workers.Wait()
		close(results)
	}()
	done := 0
	for err := range results {
		if err != nil {
			panic(err)
		}
		done++
	}
	if done != items {
		panic("an item is missing")
	}
}

// A panic of one item is its error.
func attempt(item int) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panicked: %v", panicked)
		}
	}()
	return work(item)
}

func onCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func main() {
	for _, argument := range os.Args[1:] {
		items, err := strconv.Atoi(argument)
		if err != nil {
			panic(err)
		}
		var times []float64
		for round := 0; round < 5; round++ {
			begin := onCPU()
			run(items)
			times = append(times, float64(onCPU()-begin)/float64(items))
		}
		sort.Float64s(times)
		fmt.Println(items, times[len(times)/2])
	}
}
