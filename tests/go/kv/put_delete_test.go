package kv

import (
	"bytes"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

const (
	textEmptyKey      = "etcdserver: key is not provided"
	textKeyNotFound   = "etcdserver: key not found"
	textLeaseNotFound = "etcdserver: requested lease not found"
	textTooLarge      = "etcdserver: request is too large"
)

func (f *fixture) grant(id, ttl int64) int64 {
	f.Helper()
	resp, err := pb.NewLeaseClient(f.server.Conn(f)).LeaseGrant(f.ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	harness.Fatal(f, err)
	return resp.ID
}

func TestPutRevisionsAndVersions(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	harness.Equal(t, "first write", f.put("a", "1").Header.Revision, 2)
	harness.Equal(t, "second write", f.put("a", "2").Header.Revision, 3)
	harness.Equal(t, "pair", harness.KVs(f.get("a").Kvs), "a=2 c2 m3 v2")
	harness.Equal(t, "no previous pair unless asked", harness.KV(f.put("a", "3").PrevKv), "<none>")
	del := f.delete("a")
	harness.Equal(t, "delete takes a revision", del.Header.Revision, 5)
	harness.Equal(t, "delete of nothing takes none", f.delete("a").Header.Revision, 5)
	f.put("a", "again")
	harness.Equal(t, "version restarts", harness.KVs(f.get("a").Kvs), "a=again c6 m6 v1")
}

func TestPutPrevKv(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	put := func(value string) *pb.PutResponse {
		resp, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte(value), PrevKv: true})
		harness.Fatal(t, err)
		return resp
	}
	harness.Equal(t, "nothing before", harness.KV(put("1").PrevKv), "<none>")
	harness.Equal(t, "the pair before", harness.KV(put("2").PrevKv), "a=1 c2 m2 v1")
	harness.Equal(t, "and again", harness.KV(put("3").PrevKv), "a=2 c2 m3 v2")
	f.delete("a")
	harness.Equal(t, "nothing after a delete", harness.KV(put("4").PrevKv), "<none>")
}

func TestPutEmptyValue(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "")
	harness.Equal(t, "pair", harness.KVs(f.get("a").Kvs), "a= c2 m2 v1")
}

func TestPutIgnoreValue(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	lease := f.grant(77, 300)
	f.put("a", "kept")
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), IgnoreValue: true, Lease: lease})
	harness.Fatal(t, err)
	harness.Equal(t, "value stays, lease is set", harness.KVs(f.get("a").Kvs), "a=kept c2 m3 v2 l77")
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("absent"), IgnoreValue: true})
	harness.WantError(t, err, codes.InvalidArgument, textKeyNotFound)
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("v"), IgnoreValue: true})
	harness.WantError(t, err, codes.InvalidArgument, "etcdserver: value is provided")
}

func TestPutIgnoreLease(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	lease := f.grant(78, 300)
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1"), Lease: lease})
	harness.Fatal(t, err)
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("2"), IgnoreLease: true})
	harness.Fatal(t, err)
	harness.Equal(t, "lease stays", harness.KVs(f.get("a").Kvs), "a=2 c2 m3 v2 l78")
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), IgnoreLease: true, IgnoreValue: true, PrevKv: true})
	harness.Fatal(t, err)
	harness.Equal(t, "both stay", harness.KVs(f.get("a").Kvs), "a=2 c2 m4 v3 l78")
	f.put("a", "3")
	harness.Equal(t, "a plain put drops the lease", harness.KVs(f.get("a").Kvs), "a=3 c2 m5 v4")
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("absent"), IgnoreLease: true})
	harness.WantError(t, err, codes.InvalidArgument, textKeyNotFound)
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Lease: lease, IgnoreLease: true})
	harness.WantError(t, err, codes.InvalidArgument, "etcdserver: lease is provided")
}

func TestPutErrors(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Value: []byte("v")})
	harness.WantError(t, err, codes.InvalidArgument, textEmptyKey)
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Lease: 12345})
	harness.WantError(t, err, codes.NotFound, textLeaseNotFound)
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Lease: -1})
	harness.WantError(t, err, codes.NotFound, textLeaseNotFound)
	harness.Equal(t, "no revision was taken", f.get("a").Header.Revision, 1)
}

// A request above max-request-bytes is refused by the server; one that is also
// above the 512 KiB of overhead is refused by the transport.
func TestRequestSizes(t *testing.T) {
	t.Parallel()
	f := fresh(t, "--max-request-bytes=65536")
	sized := func(n int) error {
		_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Value: bytes.Repeat([]byte("v"), n)})
		return err
	}
	harness.Fatal(t, sized(60_000))
	harness.WantError(t, sized(65_537), codes.InvalidArgument, textTooLarge)
	harness.WantError(t, sized(500_000), codes.InvalidArgument, textTooLarge)
	code, text := harness.ErrorParts(sized(700_000))
	harness.Equal(t, "transport's code", code, codes.ResourceExhausted)
	t.Logf("transport's text: %s", text)
	ops := make([]*pb.RequestOp, 2)
	for i := range ops {
		ops[i] = opPut(string(rune('a'+i)), string(bytes.Repeat([]byte("v"), 40_000)))
	}
	_, err := f.kv.Txn(f.ctx, &pb.TxnRequest{Success: ops})
	harness.WantError(t, err, codes.InvalidArgument, textTooLarge)
	harness.Equal(t, "only the first was written", f.get("a").Header.Revision, 2)
}

func TestDefaultRequestSize(t *testing.T) {
	t.Parallel()
	f := common(t)
	key := []byte(harness.Prefix(t))
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: key, Value: make([]byte, 3<<19-1024)})
	harness.Fatal(t, err)
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: key, Value: make([]byte, 3<<19)})
	harness.WantError(t, err, codes.InvalidArgument, textTooLarge)
	_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: key, Value: make([]byte, 3<<20)})
	code, _ := harness.ErrorParts(err)
	harness.Equal(t, "transport's code", code, codes.ResourceExhausted)
}

func TestDeleteRange(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	remove := func(key, end string) *pb.DeleteRangeResponse {
		resp, err := f.kv.DeleteRange(f.ctx, &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end), PrevKv: true})
		harness.Fatal(t, err)
		return resp
	}
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		f.put(key, "v")
	}
	one := remove("a", "")
	harness.Equal(t, "one deleted", one.Deleted, 1)
	harness.Equal(t, "its pair", harness.KVs(one.PrevKvs), "a=v c2 m2 v1")
	some := remove("b", "d")
	harness.Equal(t, "two deleted", some.Deleted, 2)
	harness.Equal(t, "their pairs", harness.KVs(some.PrevKvs), "b=v c3 m3 v1; c=v c4 m4 v1")
	harness.Equal(t, "one revision for both", some.Header.Revision, one.Header.Revision+1)
	harness.Equal(t, "nothing in an empty range", remove("x", "y").Deleted, 0)
	harness.Equal(t, "nothing in a reversed range", remove("f", "d").Deleted, 0)
	rest := remove("e", "\x00")
	harness.Equal(t, "from key", rest.Deleted, 2)
	all := remove("\x00", "\x00")
	harness.Equal(t, "all", harness.Keys(all.PrevKvs), "d")
	harness.Equal(t, "revision", all.Header.Revision, 11)
	plain := f.put("z", "1")
	resp := f.delete("z")
	harness.Equal(t, "revision", resp.Header.Revision, plain.Header.Revision+1)
	harness.Equal(t, "no pairs unless asked", len(resp.PrevKvs), 0)
	_, err := f.kv.DeleteRange(f.ctx, &pb.DeleteRangeRequest{})
	harness.WantError(t, err, codes.InvalidArgument, textEmptyKey)
	_, err = f.kv.DeleteRange(f.ctx, &pb.DeleteRangeRequest{RangeEnd: []byte("z")})
	harness.WantError(t, err, codes.InvalidArgument, textEmptyKey)
}
