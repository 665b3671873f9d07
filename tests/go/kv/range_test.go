package kv

import (
	"fmt"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

// history writes revisions 2 to 10 and leaves these pairs:
//
//	key  value  create  mod  version
//	k/a  0      2       9    2
//	k/b  2      3       5    2
//	k/c  9      8       8    1
//	k/d  1      6       6    1
//	l    x      10      10   1
func history(f *fixture) {
	f.put("k/a", "5")
	f.put("k/b", "4")
	f.put("k/c", "3")
	f.put("k/b", "2")
	f.put("k/d", "1")
	f.delete("k/c")
	f.put("k/c", "9")
	f.put("k/a", "0")
	f.put("l", "x")
}

type rangeCase struct {
	name string
	req  *pb.RangeRequest
	keys string // keys in the order they must come
	n    int64  // count
	more bool
}

func (c rangeCase) run(t *testing.T, f *fixture) {
	t.Helper()
	t.Run(c.name, func(t *testing.T) {
		resp, err := f.kv.Range(f.ctx, c.req)
		harness.Fatal(t, err)
		harness.Equal(t, "keys", harness.Keys(resp.Kvs), c.keys)
		harness.Equal(t, "count", resp.Count, c.n)
		harness.Equal(t, "more", resp.More, c.more)
		harness.Equal(t, "header revision", resp.Header.Revision, 10)
	})
}

func prefixK() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte("k/"), RangeEnd: []byte("k0")} }

func withK(change func(*pb.RangeRequest)) *pb.RangeRequest {
	r := prefixK()
	change(r)
	return r
}

func TestRangeKeysAndBounds(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	history(f)
	cases := []rangeCase{
		{"one key", &pb.RangeRequest{Key: []byte("k/b")}, "k/b", 1, false},
		{"absent key", &pb.RangeRequest{Key: []byte("k/x")}, "", 0, false},
		{"prefix", prefixK(), "k/a k/b k/c k/d", 4, false},
		{"half open", &pb.RangeRequest{Key: []byte("k/b"), RangeEnd: []byte("k/d")}, "k/b k/c", 2, false},
		{"from key", &pb.RangeRequest{Key: []byte("k/c"), RangeEnd: []byte{0}}, "k/c k/d l", 3, false},
		{"whole keyspace", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, "k/a k/b k/c k/d l", 5, false},
		{"end before key", &pb.RangeRequest{Key: []byte("k/d"), RangeEnd: []byte("k/a")}, "", 0, false},
		{"end equals key", &pb.RangeRequest{Key: []byte("k/a"), RangeEnd: []byte("k/a")}, "", 0, false},
		{"empty prefix range", &pb.RangeRequest{Key: []byte("m"), RangeEnd: []byte("n")}, "", 0, false},
		{"serializable", withK(func(r *pb.RangeRequest) { r.Serializable = true }), "k/a k/b k/c k/d", 4, false},
		{"limit 1", withK(func(r *pb.RangeRequest) { r.Limit = 1 }), "k/a", 4, true},
		{"limit 3", withK(func(r *pb.RangeRequest) { r.Limit = 3 }), "k/a k/b k/c", 4, true},
		{"limit equals count", withK(func(r *pb.RangeRequest) { r.Limit = 4 }), "k/a k/b k/c k/d", 4, false},
		{"limit above count", withK(func(r *pb.RangeRequest) { r.Limit = 5 }), "k/a k/b k/c k/d", 4, false},
		{"negative limit is none", withK(func(r *pb.RangeRequest) { r.Limit = -1 }), "k/a k/b k/c k/d", 4, false},
		{"largest limit", withK(func(r *pb.RangeRequest) { r.Limit = 1<<63 - 1 }), "k/a k/b k/c k/d", 4, false},
		{"count only", withK(func(r *pb.RangeRequest) { r.CountOnly = true }), "", 4, false},
		{"count only with limit", withK(func(r *pb.RangeRequest) { r.CountOnly, r.Limit = true, 1 }), "", 4, false},
		{"count only of one key", &pb.RangeRequest{Key: []byte("k/a"), CountOnly: true}, "", 1, false},
		{"count only of an absent key", &pb.RangeRequest{Key: []byte("k/x"), CountOnly: true}, "", 0, false},
	}
	for _, c := range cases {
		c.run(t, f)
	}
}

func TestRangeAtRevision(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	history(f)
	at := func(rev int64) *pb.RangeRequest { return withK(func(r *pb.RangeRequest) { r.Revision = rev }) }
	cases := []rangeCase{
		{"first revision is empty", at(1), "", 0, false},
		{"revision 2", at(2), "k/a", 1, false},
		{"revision 4", at(4), "k/a k/b k/c", 3, false},
		{"revision 7 after the delete", at(7), "k/a k/b k/d", 3, false},
		{"revision 8 put again", at(8), "k/a k/b k/c k/d", 4, false},
		{"current revision", at(10), "k/a k/b k/c k/d", 4, false},
		{"zero is latest", at(0), "k/a k/b k/c k/d", 4, false},
		{"negative is latest", at(-7), "k/a k/b k/c k/d", 4, false},
		{"count only in the past", withK(func(r *pb.RangeRequest) { r.Revision, r.CountOnly = 7, true }), "", 3, false},
		{"limit in the past", withK(func(r *pb.RangeRequest) { r.Revision, r.Limit = 7, 2 }), "k/a k/b", 3, true},
	}
	for _, c := range cases {
		c.run(t, f)
	}
	past := f.read(at(5))
	harness.Equal(t, "pairs at revision 5", harness.KVs(past.Kvs),
		"k/a=5 c2 m2 v1; k/b=2 c3 m5 v2; k/c=3 c4 m4 v1")
	now := f.read(prefixK())
	harness.Equal(t, "pairs now", harness.KVs(now.Kvs),
		"k/a=0 c2 m9 v2; k/b=2 c3 m5 v2; k/c=9 c8 m8 v1; k/d=1 c6 m6 v1")
	_, err := f.kv.Range(f.ctx, at(11))
	harness.WantError(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
	_, err = f.kv.Range(f.ctx, &pb.RangeRequest{Key: []byte("absent"), Revision: 11, Serializable: true})
	harness.WantError(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision")
}

func TestRangeSort(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	history(f)
	orders := map[pb.RangeRequest_SortTarget]string{
		pb.RangeRequest_KEY:     "k/a k/b k/c k/d",
		pb.RangeRequest_VERSION: "k/c k/d k/a k/b", // 1 1 2 2: ties keep key order
		pb.RangeRequest_CREATE:  "k/a k/b k/d k/c",
		pb.RangeRequest_MOD:     "k/b k/d k/c k/a",
		pb.RangeRequest_VALUE:   "k/a k/d k/b k/c",
	}
	descending := map[pb.RangeRequest_SortTarget]string{
		pb.RangeRequest_KEY:    "k/d k/c k/b k/a",
		pb.RangeRequest_CREATE: "k/c k/d k/b k/a",
		pb.RangeRequest_MOD:    "k/a k/c k/d k/b",
		pb.RangeRequest_VALUE:  "k/c k/b k/d k/a",
	}
	for target, want := range orders {
		sorted := func(order pb.RangeRequest_SortOrder, limit int64) *pb.RangeRequest {
			return withK(func(r *pb.RangeRequest) { r.SortTarget, r.SortOrder, r.Limit = target, order, limit })
		}
		name := target.String()
		rangeCase{name + " ascending", sorted(pb.RangeRequest_ASCEND, 0), want, 4, false}.run(t, f)
		// A target other than the key sorts even when no order is given.
		rangeCase{name + " no order", sorted(pb.RangeRequest_NONE, 0), want, 4, false}.run(t, f)
		first := want[:len("k/a k/b")]
		rangeCase{name + " ascending, limit 2", sorted(pb.RangeRequest_ASCEND, 2), first, 4, true}.run(t, f)
		if want, ok := descending[target]; ok {
			rangeCase{name + " descending", sorted(pb.RangeRequest_DESCEND, 0), want, 4, false}.run(t, f)
			rangeCase{name + " descending, limit 3", sorted(pb.RangeRequest_DESCEND, 3), want[:len("k/a k/b k/c")], 4, true}.run(t, f)
		}
	}
	// Without an order the limit is taken in key order, before the sorting:
	// of k/a k/b k/c (limit 2 and one more to see) the two lowest values stay.
	rangeCase{"limit before a sort without order", withK(func(r *pb.RangeRequest) {
		r.SortTarget, r.Limit = pb.RangeRequest_VALUE, 2
	}), "k/a k/b", 4, true}.run(t, f)
	rangeCase{"limit before a sort by modification without order", withK(func(r *pb.RangeRequest) {
		r.SortTarget, r.Limit = pb.RangeRequest_MOD, 2
	}), "k/b k/c", 4, true}.run(t, f)
}

func TestRangeSortByVersionDescending(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	for i, key := range []string{"v/a", "v/b", "v/c"} {
		for range i + 1 {
			f.put(key, "x")
		}
	}
	resp := f.read(&pb.RangeRequest{Key: []byte("v/"), RangeEnd: []byte("v0"),
		SortTarget: pb.RangeRequest_VERSION, SortOrder: pb.RangeRequest_DESCEND})
	harness.Equal(t, "keys", harness.Keys(resp.Kvs), "v/c v/b v/a")
}

func TestRangeUnknownSortOption(t *testing.T) {
	t.Parallel()
	f := common(t)
	f.server.Needs(t, "3.6")
	cases := []*pb.RangeRequest{
		{Key: []byte("x"), SortOrder: 99},
		{Key: []byte("x"), SortTarget: 99},
		{Key: []byte("x"), SortOrder: -1},
		{Key: []byte("x"), SortTarget: -1},
	}
	for _, req := range cases {
		_, err := f.kv.Range(f.ctx, req)
		harness.WantError(t, err, codes.InvalidArgument, "etcdserver: invalid sort option")
		_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestRange{RequestRange: req}}}})
		harness.WantError(t, err, codes.InvalidArgument, "etcdserver: invalid sort option")
	}
}

func TestRangeRevisionFilters(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	history(f)
	filter := func(change func(*pb.RangeRequest)) *pb.RangeRequest { return withK(change) }
	cases := []rangeCase{
		{"min mod", filter(func(r *pb.RangeRequest) { r.MinModRevision = 6 }), "k/a k/c k/d", 4, false},
		{"max mod", filter(func(r *pb.RangeRequest) { r.MaxModRevision = 6 }), "k/b k/d", 4, false},
		{"min and max mod", filter(func(r *pb.RangeRequest) { r.MinModRevision, r.MaxModRevision = 6, 8 }), "k/c k/d", 4, false},
		{"min create", filter(func(r *pb.RangeRequest) { r.MinCreateRevision = 3 }), "k/b k/c k/d", 4, false},
		{"max create", filter(func(r *pb.RangeRequest) { r.MaxCreateRevision = 3 }), "k/a k/b", 4, false},
		{"min and max create", filter(func(r *pb.RangeRequest) { r.MinCreateRevision, r.MaxCreateRevision = 3, 6 }), "k/b k/d", 4, false},
		{"all four", filter(func(r *pb.RangeRequest) {
			r.MinModRevision, r.MaxModRevision, r.MinCreateRevision, r.MaxCreateRevision = 5, 8, 3, 6
		}), "k/b k/d", 4, false},
		{"nothing passes", filter(func(r *pb.RangeRequest) { r.MinModRevision = 100 }), "", 4, false},
		{"limit after the filter", filter(func(r *pb.RangeRequest) { r.MinModRevision, r.Limit = 6, 2 }), "k/a k/c", 4, true},
		{"limit that the filter just meets", filter(func(r *pb.RangeRequest) { r.MinModRevision, r.Limit = 6, 3 }), "k/a k/c k/d", 4, false},
		{"filter, sort and limit", filter(func(r *pb.RangeRequest) {
			r.MinModRevision, r.Limit = 6, 2
			r.SortOrder, r.SortTarget = pb.RangeRequest_DESCEND, pb.RangeRequest_MOD
		}), "k/a k/c", 4, true},
		{"negative filter passes all", filter(func(r *pb.RangeRequest) { r.MinModRevision = -5 }), "k/a k/b k/c k/d", 4, false},
		{"filter in the past", filter(func(r *pb.RangeRequest) { r.Revision, r.MinModRevision = 5, 4 }), "k/b k/c", 3, false},
		{"count only ignores filters", filter(func(r *pb.RangeRequest) { r.CountOnly, r.MinModRevision = true, 9 }), "", 4, false},
	}
	for _, c := range cases {
		c.run(t, f)
	}
}

func TestRangeKeysOnly(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	history(f)
	resp := f.read(withK(func(r *pb.RangeRequest) { r.KeysOnly = true }))
	harness.Equal(t, "pairs", harness.KVs(resp.Kvs),
		"k/a= c2 m9 v2; k/b= c3 m5 v2; k/c= c8 m8 v1; k/d= c6 m6 v1")
	sorted := f.read(withK(func(r *pb.RangeRequest) {
		r.KeysOnly, r.SortTarget, r.SortOrder = true, pb.RangeRequest_VALUE, pb.RangeRequest_ASCEND
	}))
	harness.Equal(t, "sorted by the value that is not sent", harness.Keys(sorted.Kvs), "k/a k/d k/b k/c")
	harness.Equal(t, "and blank", string(sorted.Kvs[0].Value), "")
}

func TestRangeEmptyKey(t *testing.T) {
	t.Parallel()
	f := common(t)
	_, err := f.kv.Range(f.ctx, &pb.RangeRequest{})
	harness.WantError(t, err, codes.InvalidArgument, "etcdserver: key is not provided")
	_, err = f.kv.Range(f.ctx, &pb.RangeRequest{RangeEnd: []byte("z"), Serializable: true})
	harness.WantError(t, err, codes.InvalidArgument, "etcdserver: key is not provided")
}

func TestRangePages(t *testing.T) {
	t.Parallel()
	f := common(t)
	prefix := harness.Prefix(t)
	const total, page = 57, 10
	for i := range total {
		f.put(fmt.Sprintf("%s%03d", prefix, i), "v")
	}
	key, end := []byte(prefix), []byte(prefix[:len(prefix)-1]+"0")
	seen, pages := 0, 0
	for more := true; more; pages++ {
		resp := f.read(&pb.RangeRequest{Key: key, RangeEnd: end, Limit: page})
		harness.Equal(t, "count is what is left", resp.Count, int64(total-seen))
		for _, kv := range resp.Kvs {
			harness.Equal(t, "next key", string(kv.Key), fmt.Sprintf("%s%03d", prefix, seen))
			seen++
		}
		key = append(append([]byte{}, resp.Kvs[len(resp.Kvs)-1].Key...), 0)
		more = resp.More
	}
	harness.Equal(t, "seen", seen, total)
	harness.Equal(t, "pages", pages, 6)
}

func TestRangeHeader(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	resp := f.get("absent")
	harness.Equal(t, "revision of an empty store", resp.Header.Revision, 1)
	if resp.Header.ClusterId == 0 || resp.Header.MemberId == 0 || resp.Header.RaftTerm == 0 {
		t.Errorf("header has zero fields: %v", resp.Header)
	}
	put := f.put("x", "1")
	harness.Equal(t, "cluster", put.Header.ClusterId, resp.Header.ClusterId)
	harness.Equal(t, "member", put.Header.MemberId, resp.Header.MemberId)
	harness.Equal(t, "term", put.Header.RaftTerm, resp.Header.RaftTerm)
}

func TestRangeBinaryKeys(t *testing.T) {
	t.Parallel()
	f := common(t)
	prefix := harness.Prefix(t)
	keys := []string{prefix + "\x00", prefix + "\x00\x00", prefix + "\x01", prefix + "\x7f", prefix + "\x80", prefix + "\xff", prefix + "\xff\xff"}
	for i := len(keys) - 1; i >= 0; i-- {
		f.put(keys[i], "\x00\xfe"+keys[i])
	}
	resp := f.read(&pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(prefix[:len(prefix)-1] + "0")})
	harness.Equal(t, "count", resp.Count, int64(len(keys)))
	for i, kv := range resp.Kvs {
		harness.Equal(t, "key in byte order", string(kv.Key), keys[i])
		harness.Equal(t, "value", string(kv.Value), "\x00\xfe"+keys[i])
	}
}
