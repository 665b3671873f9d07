package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"castd.test/conformance/harness"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func session(t *testing.T, c *clientv3.Client) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(c, concurrency.WithTTL(30))
	harness.Fatal(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// retry repeats a step of a recipe that a change of leader may interrupt.
func retry(ctx context.Context, step func(context.Context) error) error {
	for {
		call, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := step(call)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// Holders of one lock, each with a client of its own, while leaders die: never
// two at once, and all get it again and again.
func TestMutexAcrossLeaderKills(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	const holders = 4
	var inside, entries atomic.Int64
	done := make(chan struct{})
	failures := make(chan error, holders)
	var all sync.WaitGroup
	for range holders {
		m := concurrency.NewMutex(session(t, c.Client(t)), "lock")
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := enter(ctx, m, &inside, &entries); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	more := func(n int64) {
		want := entries.Load() + n
		harness.Eventually(t, settle, "the lock goes round", func() error {
			if entries.Load() < want && len(failures) == 0 {
				return fmt.Errorf("%d entries, %d wanted", entries.Load(), want)
			}
			return nil
		})
	}
	for range 2 {
		more(20)
		leader := c.Leader(t)
		leader.Kill(t)
		more(20)
		leader.Restart(t)
	}
	close(done)
	all.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	wantSameHash(ctx, t, c.Members)
}

func enter(ctx context.Context, m *concurrency.Mutex, inside, entries *atomic.Int64) error {
	if err := retry(ctx, m.Lock); err != nil {
		return err
	}
	if n := inside.Add(1); n != 1 {
		return fmt.Errorf("%d holders at once", n)
	}
	entries.Add(1)
	inside.Add(-1)
	return retry(ctx, m.Unlock)
}

// Whoever was elected stays it when the cluster's own leader changes, and is
// followed by the next when it resigns.
func TestElectionAcrossLeaderChange(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	first := concurrency.NewElection(session(t, c.Client(t)), "office")
	second := concurrency.NewElection(session(t, c.Client(t)), "office")
	observed := concurrency.NewElection(session(t, c.Client(t)), "office").Observe(ctx)
	harness.Fatal(t, first.Campaign(ctx, "one"))
	harness.Equal(t, "observed", string((<-observed).Kvs[0].Value), "one")
	won := make(chan error, 1)
	go func() { won <- retry(ctx, func(call context.Context) error { return second.Campaign(call, "two") }) }()

	leader := c.Leader(t)
	leader.Kill(t)
	c.Leader(t)
	harness.Fatal(t, retry(ctx, func(call context.Context) error { return first.Proclaim(call, "one again") }))
	harness.Equal(t, "observed", string((<-observed).Kvs[0].Value), "one again")
	select {
	case err := <-won:
		t.Fatalf("two at once: %v", err)
	default:
	}
	leader.Restart(t)
	harness.Fatal(t, retry(ctx, first.Resign))
	select {
	case err := <-won:
		harness.Fatal(t, err)
	case <-time.After(settle):
		t.Fatal("nobody follows")
	}
	for {
		// A proclamation that was repeated is observed again.
		if value := string((<-observed).Kvs[0].Value); value != "one again" {
			harness.Equal(t, "observed", value, "two")
			return
		}
	}
}
