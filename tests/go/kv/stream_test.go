package kv

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

// chunks reads a RangeStream to its end.
func (f *fixture) chunks(req *pb.RangeRequest) ([]*pb.RangeResponse, error) {
	f.Helper()
	stream, err := f.kv.RangeStream(f.ctx, req)
	if err != nil {
		return nil, err
	}
	var all []*pb.RangeResponse
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, chunk.RangeResponse)
	}
}

// The chunks together are what Range answers; header, count and more come with
// the last one only.
func TestRangeStream(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.server.Needs(t, "3.7")
	const keys = 1000
	for i := 0; i < keys; i += 100 {
		ops := make([]*pb.RequestOp, 100)
		for j := range ops {
			ops[j] = opPut(fmt.Sprintf("s/%04d", i+j), strings.Repeat("v", 100))
		}
		f.txn(&pb.TxnRequest{Success: ops})
	}
	f.put("t", "1")
	requests := map[string]*pb.RangeRequest{
		"all":          {Key: []byte("s/"), RangeEnd: []byte("s0")},
		"serializable": {Key: []byte("s/"), RangeEnd: []byte("s0"), Serializable: true},
		"limit":        {Key: []byte("s/"), RangeEnd: []byte("s0"), Limit: 333},
		"past":         {Key: []byte("s/"), RangeEnd: []byte("s0"), Revision: 5},
		"keys only":    {Key: []byte("s/"), RangeEnd: []byte("s0"), KeysOnly: true},
		"count only":   {Key: []byte("s/"), RangeEnd: []byte("s0"), CountOnly: true},
		"one key":      {Key: []byte("t")},
		"absent":       {Key: []byte("u")},
		"from key":     {Key: []byte("s/0990"), RangeEnd: []byte{0}},
		"key ascending": {Key: []byte("s/"), RangeEnd: []byte("s0"),
			SortTarget: pb.RangeRequest_KEY, SortOrder: pb.RangeRequest_ASCEND},
	}
	for name, req := range requests {
		t.Run(name, func(t *testing.T) {
			want := f.read(req)
			got, err := f.chunks(req)
			harness.Fatal(t, err)
			if len(got) == 0 {
				t.Fatal("no chunks")
			}
			last := got[len(got)-1]
			var printed []string
			for i, chunk := range got {
				if len(chunk.Kvs) > 0 {
					printed = append(printed, harness.KVs(chunk.Kvs))
				}
				if i < len(got)-1 && (chunk.Header != nil || chunk.Count != 0 || chunk.More) {
					t.Errorf("chunk %d of %d has what only the last should have", i, len(got))
				}
			}
			harness.Equal(t, "pairs", strings.Join(printed, "; "), harness.KVs(want.Kvs))
			harness.Equal(t, "count", last.Count, want.Count)
			harness.Equal(t, "more", last.More, want.More)
			harness.Equal(t, "revision", last.Header.GetRevision(), want.Header.Revision)
		})
	}
	// A sort target without an order is let through; no order is promised then.
	_, err := f.chunks(&pb.RangeRequest{Key: []byte("s/"), RangeEnd: []byte("s0"), SortTarget: pb.RangeRequest_VALUE})
	harness.Fatal(t, err)
	whole, err := f.chunks(requests["all"])
	harness.Fatal(t, err)
	if len(whole) < 2 {
		t.Errorf("%d pairs came in %d chunk", keys, len(whole))
	}
}

func TestRangeStreamRefusals(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.server.Needs(t, "3.7")
	f.put("a", "1")
	f.put("a", "2")
	_, err := f.compact(3, true)
	harness.Fatal(t, err)
	const noSort, noFilter = "RangeStream does not support custom sort orders", "RangeStream does not support revision filters"
	cases := []struct {
		name string
		req  *pb.RangeRequest
		code codes.Code
		text string
	}{
		{"no key", &pb.RangeRequest{}, codes.InvalidArgument, textEmptyKey},
		{"descending", &pb.RangeRequest{Key: []byte("a"), SortOrder: pb.RangeRequest_DESCEND}, codes.Unimplemented, noSort},
		{"by value", &pb.RangeRequest{Key: []byte("a"), SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_ASCEND}, codes.Unimplemented, noSort},
		{"min mod", &pb.RangeRequest{Key: []byte("a"), MinModRevision: 1}, codes.Unimplemented, noFilter},
		{"max mod", &pb.RangeRequest{Key: []byte("a"), MaxModRevision: 1}, codes.Unimplemented, noFilter},
		{"min create", &pb.RangeRequest{Key: []byte("a"), MinCreateRevision: 1}, codes.Unimplemented, noFilter},
		{"max create", &pb.RangeRequest{Key: []byte("a"), MaxCreateRevision: 1}, codes.Unimplemented, noFilter},
		{"future", &pb.RangeRequest{Key: []byte("a"), Revision: 9}, codes.OutOfRange, textFuture},
		{"compacted", &pb.RangeRequest{Key: []byte("a"), Revision: 2}, codes.OutOfRange, textCompacted},
		{"unknown order", &pb.RangeRequest{Key: []byte("a"), SortOrder: 9}, codes.InvalidArgument, "etcdserver: invalid sort option"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.chunks(c.req)
			harness.WantError(t, err, c.code, c.text)
		})
	}
}

func TestClientGetStream(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.server.Needs(t, "3.7")
	history(f)
	stream, err := f.server.Client(t).GetStream(f.ctx, "k/", clientv3.WithPrefix())
	harness.Fatal(t, err)
	resp, err := clientv3.GetStreamToGetResponse(stream)
	harness.Fatal(t, err)
	harness.Equal(t, "keys", harness.Keys(resp.Kvs), "k/a k/b k/c k/d")
	harness.Equal(t, "count", resp.Count, 4)
	harness.Equal(t, "revision", resp.Header.Revision, 10)
}
