package cluster

import (
	"context"
	"fmt"
	"testing"

	"castd.test/conformance/harness"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Watches through each member, and one that changes between them, across the
// deaths of three leaders: each event once, in order, none missing.
func TestWatchesAcrossLeaderKills(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	clients := map[string]*clientv3.Client{"all": c.Client(t)}
	for _, s := range c.Members {
		clients[s.Name] = s.ClientOfOne(t)
	}
	watches := map[string]clientv3.WatchChan{}
	for name, client := range clients {
		watches[name] = client.Watch(watching, "load/", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithCreatedNotify())
	}
	l := startLoad(t, c.Client(t), 4)
	for range 3 {
		l.more(t, 150)
		leader := c.Leader(t)
		leader.Kill(t)
		l.more(t, 150)
		leader.Restart(t)
	}
	l.check(ctx, t, c.Members)
	// Each key is put once: what is there is the whole history.
	want := map[string]int64{}
	for _, pair := range everything(ctx, t, c.Members[0], false).Kvs {
		want[string(pair.Key)] = pair.ModRevision
	}
	for name, watch := range watches {
		t.Run("through "+name, func(t *testing.T) { wantHistory(ctx, t, watch, want) })
	}
}

// wantHistory reads as many events as there are keys, insisting on rising
// revisions, and compares.
func wantHistory(ctx context.Context, t *testing.T, watch clientv3.WatchChan, want map[string]int64) {
	t.Helper()
	last, seen := int64(0), 0
	for seen < len(want) {
		select {
		case reply, open := <-watch:
			if !open || reply.Err() != nil {
				t.Fatalf("the watch ended after %d of %d events: %v", seen, len(want), reply.Err())
			}
			for _, e := range reply.Events {
				if e.Kv.ModRevision <= last {
					t.Fatalf("revision %d after %d: doubled or out of order", e.Kv.ModRevision, last)
				}
				last = e.Kv.ModRevision
				harness.Equal(t, "event of "+string(e.Kv.Key), last, want[string(e.Kv.Key)])
				seen++
			}
		case <-ctx.Done():
			t.Fatalf("%d of %d events came", seen, len(want))
		}
	}
}

// A watch through a follower sees what was written through any member, and its
// progress never runs ahead of its events.
func TestProgressThroughFollowers(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	for _, s := range c.Followers(t) {
		client := s.ClientOfOne(t)
		watch := client.Watch(ctx, "w/"+s.Name, clientv3.WithCreatedNotify(), clientv3.WithPrefix())
		<-watch
		revision := int64(0)
		for i := range 20 {
			revision = put(ctx, t, c.Members[i%3], fmt.Sprintf("w/%s/%d", s.Name, i), "v").Header.Revision
		}
		events := 0
		for events < 20 {
			reply, open := <-watch
			if !open || reply.Err() != nil {
				t.Fatalf("the watch ended: %v", reply.Err())
			}
			events += len(reply.Events)
		}
		harness.Equal(t, "events", events, 20)
		harness.Fatal(t, client.RequestProgress(ctx))
		reply := <-watch
		harness.Equal(t, "progress", reply.IsProgressNotify(), true)
		harness.Equal(t, "its revision", reply.Header.Revision, revision)
	}
}
