package watch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"castd.test/conformance/harness"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

func TestClientCompactedWatch(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t, testTimeout)
	for i := range 5 {
		_, err := c.Put(ctx, "a", fmt.Sprint(i))
		harness.Fatal(t, err)
	}
	_, err := c.Compact(ctx, 4)
	harness.Fatal(t, err)
	s.CatchUp(t) // a member that does not know of the compaction yet still has it all
	watch := c.Watch(ctx, "a", clientv3.WithRev(2))
	reply := <-watch
	harness.Equal(t, "canceled", reply.Canceled, true)
	harness.Equal(t, "compact revision", reply.CompactRevision, 4)
	harness.WantError(t, reply.Err(), codes.OutOfRange, textCompacted)
	if _, open := <-watch; open {
		t.Error("the channel stays open")
	}
}

func TestClientProgress(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t, testTimeout)
	watch := c.Watch(ctx, "a", clientv3.WithCreatedNotify())
	created := <-watch
	harness.Equal(t, "created", created.Created, true)
	put, err := c.Put(ctx, "b", "1")
	harness.Fatal(t, err)
	// The watch may be on another of several members, which says how far it is itself.
	for told := int64(0); told != put.Header.Revision; {
		harness.Fatal(t, c.RequestProgress(ctx))
		reply := <-watch
		harness.Equal(t, "progress", reply.IsProgressNotify(), true)
		if reply.Header.Revision < told || reply.Header.Revision > put.Header.Revision {
			t.Fatalf("progress at %d after %d", reply.Header.Revision, told)
		}
		told = reply.Header.Revision
	}
}

func TestClientManyStreams(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t, testTimeout)
	const streams, puts = 50, 20
	channels := make([]clientv3.WatchChan, streams)
	for i := range channels {
		// A context value of its own gives each watch a stream of its own.
		own := clientv3.WithRequireLeader(context.WithValue(ctx, streamKey(i), i))
		channels[i] = c.Watch(own, "k/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	}
	for _, watch := range channels {
		reply := <-watch
		harness.Equal(t, "created", reply.Created, true)
	}
	for i := range puts {
		_, err := c.Put(ctx, fmt.Sprintf("k/%02d", i), "v")
		harness.Fatal(t, err)
	}
	for _, watch := range channels {
		for seen := 0; seen < puts; {
			reply, open := <-watch
			if !open || reply.Err() != nil {
				t.Fatalf("the watch ended: %v", reply.Err())
			}
			for _, e := range reply.Events {
				harness.Equal(t, "key", string(e.Kv.Key), fmt.Sprintf("k/%02d", seen))
				seen++
			}
		}
	}
}

type streamKey int

// A watch that is open while the server is killed and started again, several
// times and under writes, sees each revision once, in order, and none missing.
func TestClientResumesAcrossKills(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c := s.Client(t)
	ctx := harness.Context(t, 2*time.Minute)
	watchCtx, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	watch := c.Watch(watchCtx, "w/", clientv3.WithPrefix(), clientv3.WithRev(1))

	var writer sync.WaitGroup
	acknowledged := map[string]int64{}
	var count atomic.Int64
	more := func(n int64) {
		want := count.Load() + n
		harness.Eventually(t, time.Minute, "writes are acknowledged", func() error {
			if count.Load() < want {
				return harness.ErrNotYet
			}
			return nil
		})
	}
	stop := make(chan struct{})
	writer.Go(func() { writeUntil(ctx, c, stop, acknowledged, &count) })
	for range 3 {
		more(30 + rand.Int64N(100))
		s.Kill(t)
		s.Restart(t)
	}
	more(30)
	close(stop)
	writer.Wait()

	all, err := c.Get(ctx, "w/", clientv3.WithPrefix())
	harness.Fatal(t, err)
	seen := collect(ctx, t, watch, len(all.Kvs))
	for _, kv := range all.Kvs {
		harness.Equal(t, "event of "+string(kv.Key), seen[string(kv.Key)], kv.ModRevision)
	}
	for key, revision := range acknowledged {
		harness.Equal(t, "acknowledged "+key, seen[key], revision)
	}
	t.Logf("%d writes acknowledged, %d in the store", len(acknowledged), len(all.Kvs))
}

// writeUntil puts keys w/0, w/1, … and notes those that were acknowledged. A
// failed put may or may not have happened; its key is not used again.
func writeUntil(ctx context.Context, c *clientv3.Client, stop chan struct{}, acknowledged map[string]int64, count *atomic.Int64) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		key := fmt.Sprintf("w/%06d", i)
		call, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		resp, err := c.Put(call, key, "v")
		cancel()
		if err == nil {
			acknowledged[key] = resp.Header.Revision
			count.Add(1)
		}
	}
}

// collect reads events until n keys were seen, insisting on rising revisions.
func collect(ctx context.Context, t *testing.T, watch clientv3.WatchChan, n int) map[string]int64 {
	t.Helper()
	seen := make(map[string]int64, n)
	last := int64(0)
	for len(seen) < n {
		select {
		case reply, open := <-watch:
			if !open || reply.Err() != nil {
				t.Fatalf("the watch ended after %d of %d events: %v", len(seen), n, reply.Err())
			}
			for _, e := range reply.Events {
				if e.Kv.ModRevision <= last {
					t.Fatalf("revision %d after %d: lost or doubled", e.Kv.ModRevision, last)
				}
				last = e.Kv.ModRevision
				seen[string(e.Kv.Key)] = last
			}
		case <-ctx.Done():
			t.Fatalf("%d of %d events came", len(seen), n)
		}
	}
	return seen
}

// History that was watched before a restart reads the same after it.
func TestHistorySurvivesRestart(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t, testTimeout)
	for i := range 20 {
		_, err := c.Put(ctx, fmt.Sprintf("k%d", i%5), fmt.Sprint(i))
		harness.Fatal(t, err)
		if i%4 == 3 {
			_, err = c.Delete(ctx, "k2")
			harness.Fatal(t, err)
		}
	}
	history := func() []string {
		own, cancel := context.WithCancel(ctx)
		defer cancel()
		watch := c.Watch(own, "k", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV())
		var events []string
		for len(events) < 24 {
			reply, open := <-watch
			if !open {
				t.Fatalf("the watch ended after %v", events)
			}
			for _, e := range reply.Events {
				events = append(events, harness.Event(e))
			}
		}
		return events
	}
	before := history()
	s.Stop(t)
	s.Restart(t)
	after := history()
	for i := range before {
		harness.Equal(t, "event", after[i], before[i])
	}
}

func TestRequireLeaderIsAccepted(t *testing.T) {
	t.Parallel()
	s := harness.Shared(t)
	c, ctx := s.Client(t), harness.Context(t, testTimeout)
	key := harness.Prefix(t)
	watch := c.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithCreatedNotify())
	created := <-watch
	harness.Equal(t, "created", created.Created, true)
	_, err := c.Put(clientv3.WithRequireLeader(ctx), key, "v")
	harness.Fatal(t, err)
	reply := <-watch
	harness.Fatal(t, reply.Err())
	harness.Equal(t, "events", len(reply.Events), 1)
}
