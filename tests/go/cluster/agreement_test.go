package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// What was acknowledged through one member is read through every other.
func TestEveryMemberWritesAndReads(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	stubs := make([]pb.KVClient, len(c.Members))
	for i, s := range c.Members {
		stubs[i] = kv(t, s)
	}
	for i := range 60 {
		value := fmt.Sprint(i)
		resp, err := stubs[i%3].Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte(value)})
		harness.Fatal(t, err)
		for _, stub := range stubs {
			got, err := stub.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
			harness.Fatal(t, err)
			harness.Equal(t, "read", harness.KVs(got.Kvs), fmt.Sprintf("k=%d c2 m%d v%d", i, resp.Header.Revision, i+1))
		}
	}
}

// Transactions through different members never both win.
func TestCompareAndSwapThroughEveryMember(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	const perWorker, workers = 30, 6
	put(ctx, t, c.Members[0], "counter", "0")
	failures := make(chan error, workers)
	var all sync.WaitGroup
	for w := range workers {
		stub := kv(t, c.Members[w%3])
		all.Go(func() {
			for range perWorker {
				if err := increment(ctx, stub); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	for _, s := range c.Members {
		resp := everything(ctx, t, s, false)
		harness.Equal(t, "counter", string(resp.Kvs[0].Value), strconv.Itoa(perWorker*workers))
	}
	wantSameHash(ctx, t, c.Members)
}

// increment reads a counter and writes it back, one more, if nobody else did.
func increment(ctx context.Context, stub pb.KVClient) error {
	for {
		read, err := stub.Range(ctx, &pb.RangeRequest{Key: []byte("counter")})
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(read.Kvs[0].Value))
		if err != nil {
			return err
		}
		txn, err := stub.Txn(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: []byte("counter"), Target: pb.Compare_MOD,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: read.Kvs[0].ModRevision}}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
				RequestPut: &pb.PutRequest{Key: []byte("counter"), Value: []byte(strconv.Itoa(n + 1))}}}},
		})
		if err != nil || txn.Succeeded {
			return err
		}
	}
}

func TestHeadersAndStatus(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	leader := c.Leader(t).ID(t)
	first := put(ctx, t, c.Members[0], "k", "v").Header
	seen := map[uint64]bool{}
	for _, s := range c.Members {
		header := everything(ctx, t, s, false).Header
		harness.Equal(t, "cluster", header.ClusterId, first.ClusterId)
		harness.Equal(t, "revision", header.Revision, first.Revision)
		harness.Equal(t, "term", header.RaftTerm, first.RaftTerm)
		seen[header.MemberId] = true
		status, err := s.Status()
		harness.Fatal(t, err)
		harness.Equal(t, "leader", status.Leader, leader)
		harness.Equal(t, "learner", status.IsLearner, false)
		harness.Equal(t, "errors", len(status.Errors), 0)
	}
	harness.Equal(t, "member ids", len(seen), 3)
}

// Ids come from the peer URLs and the token, the cluster's id from the members'.
func TestIDsEqualTheReference(t *testing.T) {
	t.Parallel()
	flags := []string{"--initial-cluster-token=a-token-of-its-own"}
	reference := harness.StartReferenceCluster(t, 3, flags...)
	c, ctx := three(t, flags...)
	want := listed(ctx, t, reference.Members[0])
	reference.KillAll(t)
	c.MoveTo(t, reference)
	harness.Equal(t, "members", listed(ctx, t, c.Members[0]), want)
}

// listed prints the member list that a member gives.
func listed(ctx context.Context, t testing.TB, s *harness.Server) string {
	t.Helper()
	var text string
	// A member that has just started may not be known by its name yet.
	harness.Eventually(t, settle, "all members have published themselves", func() error {
		resp, err := members(t, s).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			return err
		}
		text = fmt.Sprintf("cluster %x", resp.Header.ClusterId)
		for _, m := range resp.Members {
			if len(m.ClientURLs) == 0 {
				return fmt.Errorf("%x has not", m.ID)
			}
			text += fmt.Sprintf("; %x %s %v %v", m.ID, m.Name, m.PeerURLs, m.ClientURLs)
		}
		return nil
	})
	return text
}

// The same history has the same hash on every member, also on one that was
// away for a while.
func TestHashKVIsEqual(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	writeHistory(ctx, t, c, 0)
	wantSameHash(ctx, t, c.Members)
	away := c.Followers(t)[0]
	away.Kill(t)
	writeHistory(ctx, t, &harness.Cluster{Members: c.Running()}, 1)
	away.Restart(t)
	wantSameHash(ctx, t, c.Members)
	_, err := kv(t, away).Compact(ctx, &pb.CompactionRequest{Revision: 60, Physical: true})
	harness.Fatal(t, err)
	// A physical compaction is done where it was asked for; elsewhere soon.
	for _, s := range c.Members {
		harness.Eventually(t, settle, "compacted", func() error {
			resp, err := maintenance(t, s).HashKV(ctx, &pb.HashKVRequest{})
			if err == nil && resp.CompactRevision != 60 {
				err = fmt.Errorf("compacted at %d", resp.CompactRevision)
			}
			return err
		})
	}
	wantSameHash(ctx, t, c.Members)
}

// writeHistory puts, overwrites, leases, deletes and does transactions, each
// through another member than the one before.
func writeHistory(ctx context.Context, t testing.TB, c *harness.Cluster, round int) {
	t.Helper()
	stubs := make([]pb.KVClient, len(c.Members))
	for i, s := range c.Members {
		stubs[i] = kv(t, s)
	}
	lease, err := pb.NewLeaseClient(c.Members[0].Conn(t)).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 3600})
	harness.Fatal(t, err)
	for i := range 50 {
		stub := stubs[i%len(stubs)]
		key := []byte(fmt.Sprintf("k%02d", i%11))
		switch i % 10 {
		case 7:
			_, err = stub.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k02"), RangeEnd: []byte("k05")})
		case 8:
			_, err = stub.Put(ctx, &pb.PutRequest{Key: []byte("leased"), Value: key, Lease: lease.ID})
		case 9:
			_, err = stub.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
				{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: []byte("txn")}}},
				{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("other")}}},
			}})
		default:
			_, err = stub.Put(ctx, &pb.PutRequest{Key: key, Value: []byte(fmt.Sprint(round, "/", i))})
		}
		harness.Fatal(t, err)
	}
	_, err = pb.NewLeaseClient(c.Members[1].Conn(t)).LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease.ID})
	harness.Fatal(t, err)
}

// The cluster's version is the oldest member's, without its patch.
func TestClusterVersion(t *testing.T) {
	t.Parallel()
	c, _ := three(t)
	for _, s := range c.Members {
		parts := strings.SplitN(s.Version(), ".", 3)
		want := fmt.Sprintf("%s.%s.0", parts[0], parts[1])
		harness.Eventually(t, settle, "the cluster's version is decided", func() error {
			reply, err := s.Get("/version")
			if err != nil {
				return err
			}
			var version struct {
				Server  string `json:"etcdserver"`
				Cluster string `json:"etcdcluster"`
			}
			if err := json.Unmarshal([]byte(reply.Body), &version); err != nil {
				return err
			}
			if version.Server != s.Version() || version.Cluster != want {
				return fmt.Errorf("server %s, cluster %s", version.Server, version.Cluster)
			}
			return nil
		})
	}
}
