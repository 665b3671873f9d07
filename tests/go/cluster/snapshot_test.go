package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// shortLog makes a leader forget its log soon.
func shortLog(t *testing.T) []string {
	t.Helper()
	harness.NeedsBinary(t, "3.6") // older ones always keep 5000 entries
	return []string{"--snapshot-count=100", "--snapshot-catchup-entries=50"}
}

// bulk writes keys from several clients, overwriting and deleting some.
func bulk(ctx context.Context, t *testing.T, s *harness.Server, round, puts int) {
	t.Helper()
	const writers = 16
	stub := kv(t, s)
	failures := make(chan error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < puts; i += writers {
				key := []byte(fmt.Sprintf("bulk/%05d", i*7%(puts/2)))
				_, err := stub.Put(ctx, &pb.PutRequest{Key: key, Value: []byte(fmt.Sprint(round, "/", i))})
				if err == nil && i%10 == 0 {
					_, err = stub.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: key})
				}
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failures)
	for err := range failures {
		harness.Fatal(t, err)
	}
}

// A member that was away for longer than the leader's log reaches back gets the
// state as a whole, and is a full member again: its watchers miss nothing, its
// leases are known, and it can lead.
func TestFarBehind(t *testing.T) {
	t.Parallel()
	c, ctx := three(t, shortLog(t)...)
	away := c.Followers(t)[0]
	first := put(ctx, t, away, "w", "before").Header.Revision
	watch := away.ClientOfOne(t).Watch(ctx, "w", clientv3.WithRev(first))
	harness.Equal(t, "event", string((<-watch).Events[0].Kv.Value), "before")
	away.Kill(t)

	leader := c.Leader(t)
	grant(ctx, t, leader, 77, 3600, "leased")
	put(ctx, t, leader, "w", "meanwhile")
	bulk(ctx, t, leader, 0, 3000)
	put(ctx, t, leader, "w", "at the end")
	away.Restart(t)
	if n := away.SnapshotsReceived(t); n < 1 {
		t.Errorf("it received %v snapshots: it was not far enough behind", n)
	}
	wantSameHash(ctx, t, c.Members)
	var seen []string
	for len(seen) < 2 {
		reply, open := <-watch
		if !open || reply.Err() != nil {
			t.Fatalf("the watch ended: %v", reply.Err())
		}
		for _, e := range reply.Events {
			seen = append(seen, string(e.Kv.Value))
		}
	}
	harness.Equal(t, "what the watch missed", strings.Join(seen, ", "), "meanwhile, at the end")
	harness.Equal(t, "keys of the lease", fmt.Sprintf("%s", timeToLive(ctx, t, away, 77).Keys), "[leased]")

	_, err := maintenance(t, leader).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: away.ID(t)})
	harness.Fatal(t, err)
	harness.Equal(t, "leader", c.Leader(t).Name, away.Name)
	put(ctx, t, leader, "w", "under the new leader")
	away.Kill(t)
	away.Restart(t)
	wantSameHash(ctx, t, c.Members)
}

// Two times in a row, and killed soon after the first, so that what it received
// is used from its own disk.
func TestFarBehindAgain(t *testing.T) {
	t.Parallel()
	c, ctx := three(t, shortLog(t)...)
	away := c.Followers(t)[0]
	for round := range 2 {
		away.Kill(t)
		bulk(ctx, t, c.Leader(t), round, 1500)
		away.Restart(t)
		// etcd keeps its log for half a minute after it sent a snapshot: the
		// second time the log may do.
		if n := away.SnapshotsReceived(t); round == 0 && n < 1 {
			t.Errorf("it received %v snapshots", n)
		}
		away.Kill(t)
		away.Restart(t)
		wantSameHash(ctx, t, c.Members)
	}
}

// A learner that begins with nothing gets all of a history that is long past
// the leader's log.
func TestLearnerFarBehind(t *testing.T) {
	t.Parallel()
	c, ctx := three(t, shortLog(t)...)
	bulk(ctx, t, c.Leader(t), 0, 2000)
	_, id := joined(ctx, t, c)
	promote(ctx, t, c.Leader(t), id)
	c.WaitHealthy(t)
	wantSameHash(ctx, t, c.Members)
}
