package watch

import (
	"context"
	"fmt"
	"testing"

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
