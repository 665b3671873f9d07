package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// expiryMargin is how much later than its TTL a lease may be gone: a new leader
// gives every lease an election timeout more, and the machine may be busy.
const expiryMargin = 15 * time.Second

func leases(t testing.TB, s *harness.Server) pb.LeaseClient { return pb.NewLeaseClient(s.Conn(t)) }

func grant(ctx context.Context, t testing.TB, s *harness.Server, id, ttl int64, key string) {
	t.Helper()
	_, err := leases(t, s).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	harness.Fatal(t, err)
	_, err = kv(t, s).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v"), Lease: id})
	harness.Fatal(t, err)
}

func timeToLive(ctx context.Context, t testing.TB, s *harness.Server, id int64) *pb.LeaseTimeToLiveResponse {
	t.Helper()
	resp, err := leases(t, s).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
	harness.Fatal(t, err)
	return resp
}

func has(ctx context.Context, t testing.TB, c *clientv3.Client, key string) bool {
	t.Helper()
	found := false
	harness.Eventually(t, settle, "a read is answered", func() error {
		call, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		resp, err := c.Get(call, key)
		if err == nil {
			found = resp.Count > 0
		}
		return err
	})
	return found
}

// Every member grants, renews, tells and revokes every lease: those that do not
// lead ask the leader.
func TestLeasesThroughEveryMember(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	for i, s := range c.Members {
		id := int64(100 + i)
		grant(ctx, t, s, id, 300, fmt.Sprint("k", i))
		for _, other := range c.Members {
			everything(ctx, t, other, false) // it has applied the grant
			ttl := timeToLive(ctx, t, other, id)
			harness.Equal(t, "granted", ttl.GrantedTTL, 300)
			harness.Equal(t, "keys", fmt.Sprintf("%s", ttl.Keys), fmt.Sprintf("[k%d]", i))
			if ttl.TTL < 280 || ttl.TTL > 300 {
				t.Errorf("remaining: %d", ttl.TTL)
			}
			harness.Equal(t, "renewed", renew(ctx, t, other, id), 300)
			list, err := leases(t, other).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
			harness.Fatal(t, err)
			harness.Equal(t, "leases", len(list.Leases), i+1)
		}
	}
	harness.Equal(t, "an unknown one", renew(ctx, t, c.Followers(t)[0], 999), 0)
	harness.Equal(t, "an unknown one's TTL", timeToLive(ctx, t, c.Followers(t)[0], 999).TTL, -1)
	for i := range c.Members {
		_, err := leases(t, c.Members[(i+1)%3]).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: int64(100 + i)})
		harness.Fatal(t, err)
	}
	for _, s := range c.Members {
		harness.Equal(t, "keys left", len(everything(ctx, t, s, false).Kvs), 0)
	}
	wantSameHash(ctx, t, c.Members)
}

// renew renews once, by a stream of its own, and gives the TTL that came back.
func renew(ctx context.Context, t testing.TB, s *harness.Server, id int64) int64 {
	t.Helper()
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := leases(t, s).LeaseKeepAlive(own)
	harness.Fatal(t, err)
	harness.Fatal(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: id}))
	resp, err := stream.Recv()
	harness.Fatal(t, err)
	harness.Equal(t, "id", resp.ID, id)
	return resp.TTL
}

// A lease that is renewed through a follower outlives its TTL; one that is not
// goes, on every member.
func TestKeepAliveThroughAFollower(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	follower := c.Followers(t)[0]
	const ttl = 5
	client := follower.ClientOfOne(t)
	grant(ctx, t, follower, 1, ttl, "kept")
	replies, err := client.KeepAlive(ctx, 1)
	harness.Fatal(t, err)
	go func() {
		for range replies { // until the client closes
		}
	}()
	grant(ctx, t, follower, 2, ttl, "left")
	harness.Eventually(t, ttl*time.Second+expiryMargin, "the other one expires everywhere", func() error {
		for _, s := range c.Members {
			if resp := everything(ctx, t, s, true); len(resp.Kvs) != 1 {
				return fmt.Errorf("%s has %s", s.Name, harness.Keys(resp.Kvs))
			}
		}
		return nil
	})
	harness.Equal(t, "what is kept", harness.Keys(everything(ctx, t, c.Members[0], false).Kvs), "kept")
	wantSameHash(ctx, t, c.Members)
}

// A leader dies: leases live on, no shorter than granted, those that are
// renewed as long as they are, and the others do end.
func TestLeasesAcrossALeaderChange(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	client := c.Client(t)
	const ttl = 6
	kept, err := client.Grant(ctx, ttl)
	harness.Fatal(t, err)
	_, err = client.Put(ctx, "kept", "v", clientv3.WithLease(kept.ID))
	harness.Fatal(t, err)
	replies, err := client.KeepAlive(ctx, kept.ID)
	harness.Fatal(t, err)
	<-replies
	before := time.Now()
	grant(ctx, t, c.Members[0], 2, ttl, "left")
	grant(ctx, t, c.Members[0], 3, 3600, "long")

	leader := c.Leader(t)
	leader.Kill(t)
	harness.Eventually(t, ttl*time.Second+expiryMargin, "what is not renewed expires", func() error {
		if has(ctx, t, client, "left") {
			return harness.ErrNotYet
		}
		return nil
	})
	if took := time.Since(before); took < ttl*time.Second {
		t.Errorf("a lease of %d s was gone after %s", ttl, took)
	}
	harness.Equal(t, "kept", has(ctx, t, client, "kept"), true)
	harness.Equal(t, "long", has(ctx, t, client, "long"), true)
	if left := timeToLive(ctx, t, c.Running()[0], 3); left.TTL < 3000 || left.GrantedTTL != 3600 {
		t.Errorf("the long one: %v", left)
	}
	// The keep-alive goes on: more renewals come from the new leader.
	for range 3 {
		if reply, open := <-replies; !open || reply.TTL != ttl {
			t.Fatalf("keep-alive: %v", reply)
		}
	}
	leader.Restart(t)
	wantSameHash(ctx, t, c.Members)
}

// Many leases that end together end on every member at the same revision each.
func TestManyExpireEverywhere(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	const many, ttl = 100, 4 // enough to put a key in time
	for i := range int64(many) {
		grant(ctx, t, c.Members[i%3], 1000+i, ttl, fmt.Sprintf("k%03d", i))
	}
	harness.Eventually(t, ttl*time.Second+2*expiryMargin, "all are gone everywhere", func() error {
		left := make([]int, len(c.Members))
		for i, s := range c.Members {
			left[i] = len(everything(ctx, t, s, true).Kvs)
		}
		if slices.Max(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
	list, err := leases(t, c.Members[0]).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	harness.Fatal(t, err)
	harness.Equal(t, "leases left", len(list.Leases), 0)
	wantSameHash(ctx, t, c.Members)
}
