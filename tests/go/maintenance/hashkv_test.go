package maintenance

import (
	"fmt"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

func (f *fixture) hashKV(rev int64) *pb.HashKVResponse {
	f.Helper()
	resp, err := f.maintenance.HashKV(f.ctx, &pb.HashKVRequest{Revision: rev})
	harness.Fatal(f, err)
	return resp
}

func TestHashKV(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	f.put("a", "2")
	f.put("b", "1")
	now, at := f.hashKV(0), f.hashKV(4)
	harness.Equal(t, "0 is the current revision", now.Hash, at.Hash)
	harness.Equal(t, "nothing compacted", now.CompactRevision, -1)
	if f.hashKV(3).Hash == now.Hash {
		t.Error("the hash does not depend on the revision")
	}
	f.put("c", "1")
	harness.Equal(t, "the past does not change", f.hashKV(4).Hash, at.Hash)
	_, err := f.maintenance.HashKV(f.ctx, &pb.HashKVRequest{Revision: 6})
	harness.WantError(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	f.compact(3)
	harness.Equal(t, "compact revision", f.hashKV(0).CompactRevision, 3)
	if !f.server.Older("3.6") {
		f.hashKV(3) // the compacted revision itself is served
	}
	_, err = f.maintenance.HashKV(f.ctx, &pb.HashKVRequest{Revision: 2})
	harness.WantError(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
}

func TestHashKVRevision(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.server.Needs(t, "3.6")
	f.put("a", "1")
	f.put("a", "2")
	harness.Equal(t, "current", f.hashKV(0).HashRevision, 3)
	harness.Equal(t, "asked for", f.hashKV(2).HashRevision, 2)
}

// The same history gives the same hash on every server: what etcd's corruption
// check compares between members.
func TestHashKVEqualsTheReference(t *testing.T) {
	t.Parallel()
	reference := on(t, harness.StartReference(t))
	ours := fresh(t)
	both := []*fixture{ours, reference}
	for _, f := range both {
		writeHistory(f)
	}
	last := ours.status().Header.Revision
	harness.Equal(t, "revision", last, reference.status().Header.Revision)
	for rev := range last + 1 {
		harness.Equal(t, fmt.Sprintf("hash at revision %d", rev), ours.hashKV(rev).Hash, reference.hashKV(rev).Hash)
	}
	for _, at := range []int64{7, 20, last - 3} {
		compareAfterCompaction(t, both, at, last)
	}
	for _, f := range both {
		f.server.Kill(t)
		f.server.Restart(t)
	}
	harness.Equal(t, "after a restart", ours.hashKV(0).Hash, reference.hashKV(0).Hash)
}

func compareAfterCompaction(t *testing.T, both []*fixture, at, last int64) {
	t.Helper()
	for _, f := range both {
		f.compact(at)
	}
	// At the compacted revision itself etcd answers what it noted while it was
	// compacting (the state before it), and 3.5 refuses: compared after it.
	for rev := at + 1; rev <= last; rev++ {
		ours, theirs := both[0].hashKV(rev), both[1].hashKV(rev)
		what := fmt.Sprintf("compacted at %d, revision %d: ", at, rev)
		harness.Equal(t, what+"hash", ours.Hash, theirs.Hash)
		harness.Equal(t, what+"compact revision", ours.CompactRevision, theirs.CompactRevision)
	}
}

// writeHistory makes puts, overwrites, leases, deletes, range deletes and
// transactions that touch several keys.
func writeHistory(f *fixture) {
	f.Helper()
	_, err := f.lease.LeaseGrant(f.ctx, &pb.LeaseGrantRequest{ID: 4242, TTL: 3600})
	harness.Fatal(f, err)
	for i := range 20 {
		f.put(fmt.Sprintf("k%02d", i%7), fmt.Sprintf("value-%d", i))
		if i%6 == 5 {
			f.delete(fmt.Sprintf("k%02d", i%7), "")
		}
	}
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("leased"), Value: []byte{0, 255, 1}, Lease: 4242})
	harness.Fatal(f, err)
	f.put("empty", "")
	put := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte("txn")}}}
	}
	remove := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k03"), RangeEnd: []byte("k05")}}}
	_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{put("t2"), remove, put("t1")}})
	harness.Fatal(f, err)
	f.delete("k00", "k02")
	f.put("k00", "back")
	_, err = f.lease.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{ID: 4242})
	harness.Fatal(f, err)
	f.put("end", "x")
}
