package kv

import (
	"fmt"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

const (
	textCompacted = "etcdserver: mvcc: required revision has been compacted"
	textFuture    = "etcdserver: mvcc: required revision is a future revision"
)

func (f *fixture) compact(rev int64, physical bool) (*pb.CompactionResponse, error) {
	return f.kv.Compact(f.ctx, &pb.CompactionRequest{Revision: rev, Physical: physical})
}

func TestCompact(t *testing.T) {
	t.Parallel()
	for _, physical := range []bool{false, true} {
		t.Run(fmt.Sprintf("physical=%v", physical), func(t *testing.T) {
			f := fresh(t)
			history(f)
			resp, err := f.compact(5, physical)
			harness.Fatal(t, err)
			harness.Equal(t, "header revision", resp.Header.Revision, 10)
			checkHistoryFrom5(t, f)
			_, err = f.compact(5, physical)
			harness.WantError(t, err, codes.OutOfRange, textCompacted)
			_, err = f.compact(4, physical)
			harness.WantError(t, err, codes.OutOfRange, textCompacted)
			_, err = f.compact(11, physical)
			harness.WantError(t, err, codes.OutOfRange, textFuture)
			_, err = f.compact(10, physical)
			harness.Fatal(t, err)
			harness.Equal(t, "after compacting everything", harness.KVs(f.read(prefixK()).Kvs),
				"k/a=0 c2 m9 v2; k/b=2 c3 m5 v2; k/c=9 c8 m8 v1; k/d=1 c6 m6 v1")
		})
	}
}

// checkHistoryFrom5 reads what must be left of history after compacting at 5.
func checkHistoryFrom5(t *testing.T, f *fixture) {
	t.Helper()
	_, err := f.kv.Range(f.ctx, withK(func(r *pb.RangeRequest) { r.Revision = 4 }))
	harness.WantError(t, err, codes.OutOfRange, textCompacted)
	at := f.read(withK(func(r *pb.RangeRequest) { r.Revision = 5 }))
	harness.Equal(t, "the compacted revision itself", harness.KVs(at.Kvs),
		"k/a=5 c2 m2 v1; k/b=2 c3 m5 v2; k/c=3 c4 m4 v1")
	later := f.read(withK(func(r *pb.RangeRequest) { r.Revision = 7 }))
	harness.Equal(t, "later ones", harness.Keys(later.Kvs), "k/a k/b k/d")
}

func TestCompactBounds(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	_, err := f.compact(2, false)
	harness.WantError(t, err, codes.OutOfRange, textFuture)
	f.put("a", "1")
	f.put("a", "2")
	_, err = f.compact(-1, false)
	harness.WantError(t, err, codes.OutOfRange, textCompacted)
	_, err = f.compact(3, true)
	harness.Fatal(t, err)
	harness.Equal(t, "takes no revision", f.get("a").Header.Revision, 3)
}

func TestCompactDropsDeletedKeys(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1") // 2
	f.delete("a")   // 3
	f.put("b", "1") // 4
	f.put("a", "2") // 5
	f.delete("b")   // 6
	_, err := f.compact(4, true)
	harness.Fatal(t, err)
	at := f.read(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: 4})
	harness.Equal(t, "at 4", harness.KVs(at.Kvs), "b=1 c4 m4 v1")
	_, err = f.compact(6, true)
	harness.Fatal(t, err)
	now := f.read(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	harness.Equal(t, "at 6", harness.KVs(now.Kvs), "a=2 c5 m5 v1")
}

func TestCompactSurvivesKill(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	history(f)
	_, err := f.compact(5, true)
	harness.Fatal(t, err)
	f.server.Kill(t)
	f.server.Restart(t)
	again := on(t, f.server)
	checkHistoryFrom5(t, again)
	harness.Equal(t, "now", harness.KVs(again.read(prefixK()).Kvs),
		"k/a=0 c2 m9 v2; k/b=2 c3 m5 v2; k/c=9 c8 m8 v1; k/d=1 c6 m6 v1")
	harness.Equal(t, "next revision", again.put("n", "1").Header.Revision, 11)
}

// Every acknowledged write is there after kill -9, with its revision.
func TestWritesSurviveKill(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	const rounds, perRound = 3, 40
	want := map[string]string{}
	for round := range rounds {
		for i := range perRound {
			key := fmt.Sprintf("r%d/%02d", round, i)
			resp := f.put(key, "v")
			rev := resp.Header.Revision
			want[key] = fmt.Sprintf("%s=v c%d m%d v1", key, rev, rev)
		}
		f.server.Kill(t)
		f.server.Restart(t)
		f = on(t, f.server)
		all := f.read(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		harness.Equal(t, "pairs", len(all.Kvs), len(want))
		for _, kv := range all.Kvs {
			harness.Equal(t, "pair", harness.KV(kv), want[string(kv.Key)])
		}
	}
}
