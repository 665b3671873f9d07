// Package lease drives the Lease service.
package lease

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

const (
	testTimeout = 60 * time.Second
	// minimumTTL is 1.5 election timeouts (1 s by default), rounded up.
	minimumTTL = 2
	// expiryMargin is how much later than its TTL a lease may be gone: etcd
	// looks every 500 ms and revokes through the log.
	expiryMargin = 5 * time.Second

	textNotFound = "etcdserver: requested lease not found"
	textExists   = "etcdserver: lease already exists"
	textTooLarge = "etcdserver: too large lease TTL"
)

func TestMain(m *testing.M) { harness.Main(m) }

type fixture struct {
	testing.TB
	ctx    context.Context
	server *harness.Server
	kv     pb.KVClient
	lease  pb.LeaseClient
}

func fresh(t testing.TB, flags ...string) *fixture { return on(t, harness.Start(t, flags...)) }

func on(t testing.TB, s *harness.Server) *fixture {
	conn := s.Conn(t)
	return &fixture{TB: t, ctx: harness.Context(t, testTimeout), server: s, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn)}
}

func (f *fixture) grant(id, ttl int64) *pb.LeaseGrantResponse {
	f.Helper()
	resp, err := f.lease.LeaseGrant(f.ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	harness.Fatal(f, err)
	return resp
}

func (f *fixture) put(key string, lease int64) {
	f.Helper()
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v"), Lease: lease})
	harness.Fatal(f, err)
}

func (f *fixture) all() *pb.RangeResponse {
	f.Helper()
	resp, err := f.kv.Range(f.ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	harness.Fatal(f, err)
	return resp
}

func (f *fixture) timeToLive(id int64, keys bool) *pb.LeaseTimeToLiveResponse {
	f.Helper()
	resp, err := f.lease.LeaseTimeToLive(f.ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys})
	harness.Fatal(f, err)
	return resp
}

func (f *fixture) listed() string {
	f.Helper()
	resp, err := f.lease.LeaseLeases(f.ctx, &pb.LeaseLeasesRequest{})
	harness.Fatal(f, err)
	ids := make([]string, len(resp.Leases))
	for i, lease := range resp.Leases {
		ids[i] = fmt.Sprint(lease.ID)
	}
	sort.Strings(ids)
	return strings.Join(ids, " ")
}

func printKeys(r *pb.LeaseTimeToLiveResponse) string {
	keys := make([]string, len(r.Keys))
	for i, k := range r.Keys {
		keys[i] = string(k)
	}
	sort.Strings(keys)
	return strings.Join(keys, " ")
}

func TestGrant(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	own := f.grant(42, 100)
	harness.Equal(t, "own id", own.ID, 42)
	harness.Equal(t, "ttl", own.TTL, 100)
	harness.Equal(t, "takes no revision", own.Header.Revision, 1)
	first, second := f.grant(0, 100), f.grant(0, 100)
	if first.ID <= 0 || second.ID <= 0 || first.ID == second.ID {
		t.Errorf("picked ids: %d and %d", first.ID, second.ID)
	}
	_, err := f.lease.LeaseGrant(f.ctx, &pb.LeaseGrantRequest{ID: 42, TTL: 100})
	harness.WantError(t, err, codes.FailedPrecondition, textExists)
	harness.Equal(t, "negative id", f.grant(-5, 100).ID, -5)
	harness.Equal(t, "largest id", f.grant(1<<63-1, 100).ID, 1<<63-1)
}

func TestTTLBounds(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	for i, c := range []struct{ asked, given int64 }{
		{0, minimumTTL}, {-10, minimumTTL}, {-1 << 63, minimumTTL}, {1, minimumTTL}, {2, 2}, {3, 3},
		{9_000_000_000, 9_000_000_000},
	} {
		id := int64(100 + i)
		harness.Equal(t, fmt.Sprintf("grant of TTL %d", c.asked), f.grant(id, c.asked).TTL, c.given)
		harness.Equal(t, fmt.Sprintf("granted TTL of %d", c.asked), f.timeToLive(id, false).GrantedTTL, c.given)
	}
	for _, ttl := range []int64{9_000_000_001, 1<<63 - 1} {
		_, err := f.lease.LeaseGrant(f.ctx, &pb.LeaseGrantRequest{TTL: ttl})
		harness.WantError(t, err, codes.OutOfRange, textTooLarge)
	}
}

func TestMinimumFollowsTheElectionTimeout(t *testing.T) {
	t.Parallel()
	f := fresh(t, "--heartbeat-interval=300", "--election-timeout=3000")
	harness.Equal(t, "ceil(1.5 x 3 s)", f.grant(1, 1).TTL, 5)
}

func TestTimeToLive(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.grant(7, 500)
	f.put("b", 7)
	f.put("a", 7)
	f.put("other", 0)
	plain := f.timeToLive(7, false)
	harness.Equal(t, "id", plain.ID, 7)
	harness.Equal(t, "granted", plain.GrantedTTL, 500)
	harness.Equal(t, "no keys unless asked", len(plain.Keys), 0)
	if plain.TTL > 500 || plain.TTL < 490 {
		t.Errorf("remaining TTL %d", plain.TTL)
	}
	harness.Equal(t, "keys", printKeys(f.timeToLive(7, true)), "a b")
	unknown := f.timeToLive(999, true)
	harness.Equal(t, "unknown lease", fmt.Sprint(unknown.ID, unknown.TTL, unknown.GrantedTTL, len(unknown.Keys)), "999 -1 0 0")
	if unknown.Header.GetClusterId() == 0 {
		t.Error("no header in the reply for an unknown lease")
	}
}

func TestAttachedKeysFollowTheirLease(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.grant(1, 500)
	f.grant(2, 500)
	f.put("a", 1)
	f.put("b", 1)
	f.put("a", 2)
	harness.Equal(t, "moved away", printKeys(f.timeToLive(1, true)), "b")
	harness.Equal(t, "moved here", printKeys(f.timeToLive(2, true)), "a")
	f.put("b", 0)
	harness.Equal(t, "a plain put detaches", printKeys(f.timeToLive(1, true)), "")
	_, err := f.kv.DeleteRange(f.ctx, &pb.DeleteRangeRequest{Key: []byte("a")})
	harness.Fatal(t, err)
	harness.Equal(t, "a delete detaches", printKeys(f.timeToLive(2, true)), "")
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.grant(7, 500)
	f.put("a", 7)
	f.put("b", 7)
	f.put("c", 0)
	resp, err := f.lease.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{ID: 7})
	harness.Fatal(t, err)
	harness.Equal(t, "one revision for all keys", resp.Header.Revision, 5)
	harness.Equal(t, "what stays", harness.Keys(f.all().Kvs), "c")
	_, err = f.lease.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{ID: 7})
	harness.WantError(t, err, codes.NotFound, textNotFound)
	_, err = f.lease.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{})
	harness.WantError(t, err, codes.NotFound, textNotFound)
	f.grant(8, 500)
	empty, err := f.lease.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{ID: 8})
	harness.Fatal(t, err)
	harness.Equal(t, "without keys it takes no revision", empty.Header.Revision, 5)
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Lease: 8})
	harness.WantError(t, err, codes.NotFound, textNotFound)
}

func TestLeases(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	harness.Equal(t, "none", f.listed(), "")
	f.grant(11, 500)
	f.grant(13, 300)
	f.grant(12, 400)
	harness.Equal(t, "three", f.listed(), "11 12 13")
	resp, err := f.lease.LeaseLeases(f.ctx, &pb.LeaseLeasesRequest{})
	harness.Fatal(t, err)
	// Only the leader knows when they expire, and a member is asked what it knows.
	if harness.Members() == 1 {
		ids := fmt.Sprint(resp.Leases[0].ID, resp.Leases[1].ID, resp.Leases[2].ID)
		harness.Equal(t, "the first to expire comes first", ids, "13 12 11")
	}
	_, err = f.lease.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{ID: 12})
	harness.Fatal(t, err)
	harness.Equal(t, "two", f.listed(), "11 13")
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	c := f.server.Client(t)
	watch := c.Watch(f.ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
	<-watch
	f.grant(7, minimumTTL)
	f.put("a", 7)
	f.put("b", 7)
	f.put("c", 0)
	granted := time.Now()
	var events []string
	for len(events) < 2 {
		reply, open := <-watch
		if !open {
			t.Fatal("the watch ended")
		}
		for _, e := range reply.Events {
			events = append(events, harness.Event((*mvccpb.Event)(e)))
		}
	}
	harness.Equal(t, "events", strings.Join(events, "; "), "DELETE a= c0 m5 v0; DELETE b= c0 m5 v0")
	if took := time.Since(granted); took < minimumTTL*time.Second-200*time.Millisecond || took > minimumTTL*time.Second+expiryMargin {
		t.Errorf("expired after %s", took)
	}
	harness.Equal(t, "what stays", harness.Keys(f.all().Kvs), "c")
	harness.Equal(t, "the lease is gone", f.listed(), "")
	harness.Equal(t, "for time-to-live too", f.timeToLive(7, false).TTL, -1)
}

func (f *fixture) keepAliveStream() pb.Lease_LeaseKeepAliveClient {
	f.Helper()
	stream, err := f.lease.LeaseKeepAlive(f.ctx)
	harness.Fatal(f, err)
	return stream
}

func TestKeepAliveStream(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.grant(7, 3)
	f.grant(8, 300)
	stream := f.keepAliveStream()
	renew := func(id int64) *pb.LeaseKeepAliveResponse {
		harness.Fatal(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: id}))
		resp, err := stream.Recv()
		harness.Fatal(t, err)
		return resp
	}
	for _, want := range []struct{ id, ttl int64 }{{7, 3}, {8, 300}, {999, 0}, {0, 0}, {7, 3}} {
		resp := renew(want.id)
		harness.Equal(t, "id", resp.ID, want.id)
		harness.Equal(t, fmt.Sprintf("TTL of lease %d", want.id), resp.TTL, want.ttl)
		if resp.Header.GetRevision() != 1 || resp.Header.GetMemberId() == 0 {
			t.Errorf("header: %v", resp.Header)
		}
	}
	harness.Fatal(t, stream.CloseSend())
	_, err := stream.Recv()
	if !errors.Is(err, io.EOF) {
		t.Errorf("end of the stream: %v", err)
	}
}

// A lease that is renewed outlives its TTL; one that is not does not.
func TestKeepAliveKeeps(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	c := f.server.Client(t)
	kept, err := c.Grant(f.ctx, minimumTTL)
	harness.Fatal(t, err)
	left, err := c.Grant(f.ctx, minimumTTL)
	harness.Fatal(t, err)
	replies, err := c.KeepAlive(f.ctx, kept.ID)
	harness.Fatal(t, err)
	f.put("kept", int64(kept.ID))
	f.put("left", int64(left.ID))
	until := time.Now().Add(minimumTTL*time.Second + expiryMargin)
	for time.Now().Before(until) && len(f.all().Kvs) == 2 {
		reply, open := <-replies
		if !open || reply.TTL != minimumTTL {
			t.Fatalf("keep-alive: %v", reply)
		}
	}
	harness.Equal(t, "keys", harness.Keys(f.all().Kvs), "kept")
}

func TestKeepAliveOfAnUnknownLease(t *testing.T) {
	t.Parallel()
	f := on(t, harness.Shared(t))
	c := f.server.Client(t)
	_, err := c.KeepAliveOnce(f.ctx, 123456)
	harness.WantError(t, err, codes.NotFound, textNotFound)
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("not ErrLeaseNotFound: %v", err)
	}
	replies, err := c.KeepAlive(f.ctx, 123456)
	harness.Fatal(t, err)
	if reply, open := <-replies; open {
		t.Errorf("a keep-alive of nothing answered %v", reply)
	}
}

func TestManyKeepAlivesInFlight(t *testing.T) {
	t.Parallel()
	f := on(t, harness.Shared(t))
	const leases, rounds = 100, 5
	ids := make([]int64, leases)
	for i := range ids {
		ids[i] = f.grant(0, 300).ID
	}
	stream := f.keepAliveStream()
	go func() {
		for range rounds {
			for _, id := range ids {
				_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: id})
			}
		}
	}()
	for i := range leases * rounds {
		resp, err := stream.Recv()
		harness.Fatal(t, err)
		harness.Equal(t, "order of replies", resp.ID, ids[i%leases])
		harness.Equal(t, "TTL", resp.TTL, 300)
	}
}

func TestSurvivesRestart(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.grant(7, 500)
	f.grant(8, 4)
	f.put("long", 7)
	f.put("short", 8)
	f.put("free", 0)
	f.server.Kill(t)
	f.server.Restart(t)
	f = on(t, f.server)
	harness.Equal(t, "leases", f.listed(), "7 8")
	ttl := f.timeToLive(7, true)
	harness.Equal(t, "keys", printKeys(ttl), "long")
	harness.Equal(t, "granted", ttl.GrantedTTL, 500)
	harness.Equal(t, "pairs", harness.KVs(f.all().Kvs), "free=v c4 m4 v1; long=v c2 m2 v1 l7; short=v c3 m3 v1 l8")
	until := time.Now().Add(4*time.Second + expiryMargin)
	for time.Now().Before(until) && len(f.all().Kvs) == 3 {
		time.Sleep(50 * time.Millisecond)
	}
	harness.Equal(t, "the short one still expires", harness.Keys(f.all().Kvs), "free long")
	_, err := f.lease.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{ID: 7})
	harness.Fatal(t, err)
	harness.Equal(t, "the long one can be revoked", harness.Keys(f.all().Kvs), "free")
}

func TestRevokedStaysRevokedAfterRestart(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.grant(7, 500)
	f.put("a", 7)
	_, err := f.lease.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{ID: 7})
	harness.Fatal(t, err)
	f.server.Kill(t)
	f.server.Restart(t)
	f = on(t, f.server)
	harness.Equal(t, "leases", f.listed(), "")
	harness.Equal(t, "keys", harness.Keys(f.all().Kvs), "")
	harness.Equal(t, "revision", f.all().Header.Revision, 3)
}

// An expiry storm: all keys go, and writes go on meanwhile.
func TestManyExpireTogether(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	const leases = 300
	for i := range int64(leases) {
		f.grant(1000+i, minimumTTL)
		f.put(fmt.Sprintf("k%03d", i), 1000+i)
	}
	until := time.Now().Add(minimumTTL*time.Second + 2*expiryMargin)
	for time.Now().Before(until) && len(f.all().Kvs) > 0 {
		started := time.Now()
		_, err := f.kv.DeleteRange(f.ctx, &pb.DeleteRangeRequest{Key: []byte("absent")})
		harness.Fatal(t, err)
		if took := time.Since(started); took > 2*time.Second {
			t.Errorf("a write took %s during the storm", took)
		}
	}
	harness.Equal(t, "keys left", len(f.all().Kvs), 0)
	harness.Equal(t, "leases left", f.listed(), "")
}
