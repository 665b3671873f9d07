package kv

import (
	"fmt"
	"strings"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

const (
	textTooManyOps   = "etcdserver: too many operations in txn request"
	textDuplicateKey = "etcdserver: duplicate key given in txn request"
)

func version(key string, result pb.Compare_CompareResult, n int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VERSION, Result: result, TargetUnion: &pb.Compare_Version{Version: n}}
}

func created(key string, result pb.Compare_CompareResult, n int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_CREATE, Result: result, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: n}}
}

func modified(key string, result pb.Compare_CompareResult, n int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: result, TargetUnion: &pb.Compare_ModRevision{ModRevision: n}}
}

func valued(key string, result pb.Compare_CompareResult, v string) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_VALUE, Result: result, TargetUnion: &pb.Compare_Value{Value: []byte(v)}}
}

func leased(key string, result pb.Compare_CompareResult, n int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_LEASE, Result: result, TargetUnion: &pb.Compare_Lease{Lease: n}}
}

func (f *fixture) holds(compares ...*pb.Compare) bool {
	f.Helper()
	return f.txn(&pb.TxnRequest{Compare: compares}).Succeeded
}

// Every target with every operator, on a key whose number is known.
func TestTxnCompareNumbers(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	lease := f.grant(50, 300)
	f.put("pad", "x")                                                                                // 2
	f.put("key", "m1")                                                                               // 3
	f.put("pad", "y")                                                                                // 4
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("key"), Value: []byte("m2"), Lease: lease}) // 5
	harness.Fatal(t, err)
	f.put("key2", "")
	targets := []struct {
		name   string
		make   func(string, pb.Compare_CompareResult, int64) *pb.Compare
		actual int64
	}{
		{"version", version, 2},
		{"create", created, 3},
		{"mod", modified, 5},
		{"lease", leased, 50},
	}
	for _, target := range targets {
		for _, offset := range []int64{-1, 0, 1} {
			against := target.actual + offset
			want := map[pb.Compare_CompareResult]bool{
				pb.Compare_EQUAL:     target.actual == against,
				pb.Compare_NOT_EQUAL: target.actual != against,
				pb.Compare_GREATER:   target.actual > against,
				pb.Compare_LESS:      target.actual < against,
			}
			for result, holds := range want {
				what := fmt.Sprintf("%s %d %s %d", target.name, target.actual, result, against)
				harness.Equal(t, what, f.holds(target.make("key", result, against)), holds)
			}
		}
	}
}

func TestTxnCompareValue(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("key", "m")
	f.put("empty", "")
	cases := []struct {
		result pb.Compare_CompareResult
		value  string
		want   bool
	}{
		{pb.Compare_EQUAL, "m", true}, {pb.Compare_EQUAL, "n", false},
		{pb.Compare_NOT_EQUAL, "m", false}, {pb.Compare_NOT_EQUAL, "", true},
		{pb.Compare_GREATER, "l", true}, {pb.Compare_GREATER, "m", false}, {pb.Compare_GREATER, "ma", false},
		{pb.Compare_LESS, "n", true}, {pb.Compare_LESS, "m", false}, {pb.Compare_LESS, "ma", true},
	}
	for _, c := range cases {
		harness.Equal(t, fmt.Sprintf("m %s %q", c.result, c.value), f.holds(valued("key", c.result, c.value)), c.want)
	}
	harness.Equal(t, "empty value equals none", f.holds(valued("empty", pb.Compare_EQUAL, "")), true)
}

// A key that is not there has zeros for numbers, and no value to compare.
func TestTxnCompareAbsentKey(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	for _, make := range []func(string, pb.Compare_CompareResult, int64) *pb.Compare{version, created, modified, leased} {
		harness.Equal(t, "equals 0", f.holds(make("absent", pb.Compare_EQUAL, 0)), true)
		harness.Equal(t, "less than 1", f.holds(make("absent", pb.Compare_LESS, 1)), true)
		harness.Equal(t, "not greater than 0", f.holds(make("absent", pb.Compare_GREATER, 0)), false)
		harness.Equal(t, "not equal to 1", f.holds(make("absent", pb.Compare_NOT_EQUAL, 1)), true)
	}
	for _, result := range []pb.Compare_CompareResult{pb.Compare_EQUAL, pb.Compare_NOT_EQUAL, pb.Compare_GREATER, pb.Compare_LESS} {
		harness.Equal(t, "value "+result.String(), f.holds(valued("absent", result, "")), false)
	}
}

// With range_end every key of the range must satisfy the comparison.
func TestTxnCompareRange(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("r/a", "x")
	f.put("r/b", "x")
	f.put("r/c", "y")
	over := func(c *pb.Compare, end string) *pb.Compare { c.RangeEnd = []byte(end); return c }
	harness.Equal(t, "all x in [a,c)", f.holds(over(valued("r/a", pb.Compare_EQUAL, "x"), "r/c")), true)
	harness.Equal(t, "not all x in r/", f.holds(over(valued("r/", pb.Compare_EQUAL, "x"), "r0")), false)
	harness.Equal(t, "all version 1", f.holds(over(version("r/", pb.Compare_EQUAL, 1), "r0")), true)
	harness.Equal(t, "from key", f.holds(over(valued("r/c", pb.Compare_EQUAL, "y"), "\x00")), true)
	harness.Equal(t, "whole keyspace", f.holds(over(created("\x00", pb.Compare_GREATER, 1), "\x00")), true)
	harness.Equal(t, "empty range, absent numbers", f.holds(over(version("q", pb.Compare_EQUAL, 0), "r")), true)
	harness.Equal(t, "empty range, greater", f.holds(over(version("q", pb.Compare_GREATER, 0), "r")), false)
	harness.Equal(t, "empty range, value", f.holds(over(valued("q", pb.Compare_EQUAL, "x"), "r")), false)
}

func TestTxnComparesAreAnd(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	f.put("b", "2")
	yes, no := valued("a", pb.Compare_EQUAL, "1"), valued("b", pb.Compare_EQUAL, "1")
	harness.Equal(t, "none", f.holds(), true)
	harness.Equal(t, "yes yes", f.holds(yes, yes), true)
	harness.Equal(t, "yes no", f.holds(yes, no), false)
	harness.Equal(t, "no yes", f.holds(no, yes), false)
}

// printTxn shows a reply's tree: what each operation answered, in order.
func printTxn(r *pb.TxnResponse) string {
	parts := make([]string, len(r.Responses))
	for i, op := range r.Responses {
		switch {
		case op.GetResponseRange() != nil:
			parts[i] = "get(" + harness.KVs(op.GetResponseRange().Kvs) + ")"
		case op.GetResponsePut() != nil:
			parts[i] = "put(" + harness.KV(op.GetResponsePut().PrevKv) + ")"
		case op.GetResponseDeleteRange() != nil:
			parts[i] = fmt.Sprintf("del(%d)", op.GetResponseDeleteRange().Deleted)
		case op.GetResponseTxn() != nil:
			parts[i] = printTxn(op.GetResponseTxn())
		}
	}
	return fmt.Sprintf("%v[%s]", r.Succeeded, strings.Join(parts, " "))
}

func TestTxnBranches(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	request := func() *pb.TxnRequest {
		return &pb.TxnRequest{
			Compare: []*pb.Compare{created("a", pb.Compare_EQUAL, 0)},
			Success: []*pb.RequestOp{opPut("a", "new"), opGet("a", ""), opPut("b", "1")},
			Failure: []*pb.RequestOp{opGet("a", ""), opDelete("a", "c"), opGet("a", "c")},
		}
	}
	then := f.txn(request())
	harness.Equal(t, "then", printTxn(then), "true[put(<none>) get(a=new c2 m2 v1) put(<none>)]")
	harness.Equal(t, "one revision", then.Header.Revision, 2)
	otherwise := f.txn(request())
	harness.Equal(t, "else", printTxn(otherwise), "false[get(a=new c2 m2 v1) del(2) get()]")
	harness.Equal(t, "one more", otherwise.Header.Revision, 3)
	harness.Equal(t, "count of a read inside", otherwise.Responses[0].GetResponseRange().Count, 1)
}

// Headers inside a txn: the revision as each operation sees it.
func TestTxnInnerHeaders(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("x", "0") // 2
	resp := f.txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		opGet("x", ""), opPut("a", "1"), opGet("a", ""), opDelete("nothing", ""), opDelete("x", ""),
	}})
	harness.Equal(t, "outer", resp.Header.Revision, 3)
	got := make([]string, 0, len(resp.Responses))
	for _, op := range resp.Responses {
		var header *pb.ResponseHeader
		switch {
		case op.GetResponseRange() != nil:
			header = op.GetResponseRange().Header
		case op.GetResponsePut() != nil:
			header = op.GetResponsePut().Header
		default:
			header = op.GetResponseDeleteRange().Header
		}
		got = append(got, fmt.Sprintf("%d/%d", header.GetRevision(), header.GetClusterId()))
	}
	harness.Equal(t, "inner revisions and cluster ids", strings.Join(got, " "), "2/0 3/0 3/0 3/0 3/0")
}

func TestTxnWithoutEffectTakesNoRevision(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	resp := f.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opDelete("absent", ""), opGet("a", "")}})
	harness.Equal(t, "revision", resp.Header.Revision, 2)
	empty := f.txn(&pb.TxnRequest{})
	harness.Equal(t, "empty txn", printTxn(empty), "true[]")
	harness.Equal(t, "revision", empty.Header.Revision, 2)
	failed := f.txn(&pb.TxnRequest{Compare: []*pb.Compare{version("a", pb.Compare_EQUAL, 9)}, Success: []*pb.RequestOp{opPut("a", "2")}})
	harness.Equal(t, "failed without else", printTxn(failed), "false[]")
	harness.Equal(t, "revision", failed.Header.Revision, 2)
}

func TestTxnReadOnly(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	history(f)
	for _, serializable := range []bool{false, true} {
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: withK(func(r *pb.RangeRequest) {
			r.Limit, r.Serializable = 1, serializable
		})}}
		past := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{
			Key: []byte("k/c"), Revision: 5, Serializable: serializable}}}
		resp := f.txn(&pb.TxnRequest{Success: []*pb.RequestOp{op, past}})
		harness.Equal(t, "answers", printTxn(resp), "true[get(k/a=0 c2 m9 v2) get(k/c=3 c4 m4 v1)]")
		harness.Equal(t, "count", resp.Responses[0].GetResponseRange().Count, 4)
		harness.Equal(t, "more", resp.Responses[0].GetResponseRange().More, true)
		harness.Equal(t, "revision", resp.Header.Revision, 10)
	}
}

func TestTxnPrevKvAndDeletedPairs(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a"), Value: []byte("2"), PrevKv: true}}}
	harness.Equal(t, "put", printTxn(f.txn(&pb.TxnRequest{Success: []*pb.RequestOp{put}})), "true[put(a=1 c2 m2 v1)]")
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true}}}
	resp := f.txn(&pb.TxnRequest{Success: []*pb.RequestOp{del}})
	harness.Equal(t, "deleted", harness.KVs(resp.Responses[0].GetResponseDeleteRange().PrevKvs), "a=2 c2 m3 v2")
}

func TestTxnNested(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	inner := &pb.TxnRequest{
		Compare: []*pb.Compare{valued("a", pb.Compare_EQUAL, "1")},
		Success: []*pb.RequestOp{opPut("in", "then"), opGet("out", "")},
		Failure: []*pb.RequestOp{opPut("in", "else")},
	}
	resp := f.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{version("a", pb.Compare_EQUAL, 1)},
		Success: []*pb.RequestOp{opPut("out", "x"), opTxn(inner), opGet("in", "")},
		Failure: []*pb.RequestOp{opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut("never", "")}})},
	})
	harness.Equal(t, "tree", printTxn(resp),
		"true[put(<none>) true[put(<none>) get(out=x c3 m3 v1)] get(in=then c3 m3 v1)]")
	harness.Equal(t, "one revision", resp.Header.Revision, 3)
	deep := &pb.TxnRequest{Success: []*pb.RequestOp{opPut("deep", "7")}}
	for range 6 {
		deep = &pb.TxnRequest{Success: []*pb.RequestOp{opTxn(deep)}}
	}
	harness.Equal(t, "depth", printTxn(f.txn(deep)), strings.Repeat("true[", 7)+"put(<none>)"+strings.Repeat("]", 7))
}

// All comparisons, nested ones too, see the state before the transaction.
func TestTxnNestedComparesSeeTheStateBefore(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	resp := f.txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		opPut("a", "written"),
		opTxn(&pb.TxnRequest{
			Compare: []*pb.Compare{created("a", pb.Compare_EQUAL, 0)},
			Success: []*pb.RequestOp{opGet("a", "")},
		}),
	}})
	harness.Equal(t, "tree", printTxn(resp), "true[put(<none>) true[get(a=written c2 m2 v1)]]")
}

func TestTxnNestedReadOnly(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	resp := f.txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		opTxn(&pb.TxnRequest{Compare: []*pb.Compare{valued("a", pb.Compare_EQUAL, "2")}, Failure: []*pb.RequestOp{opGet("a", "")}})}})
	harness.Equal(t, "tree", printTxn(resp), "true[false[get(a=1 c2 m2 v1)]]")
	harness.Equal(t, "revision", resp.Header.Revision, 2)
}

func TestTxnDuplicateKeys(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	nested := func(success, failure []*pb.RequestOp) *pb.RequestOp {
		return opTxn(&pb.TxnRequest{Success: success, Failure: failure})
	}
	ops := func(list ...*pb.RequestOp) []*pb.RequestOp { return list }
	refused := map[string][]*pb.RequestOp{
		"two puts":                         ops(opPut("a", "1"), opPut("a", "2")),
		"put and delete":                   ops(opPut("a", "1"), opDelete("a", "")),
		"delete and put":                   ops(opDelete("a", ""), opPut("a", "1")),
		"put inside a deleted range":       ops(opDelete("a", "c"), opPut("b", "1")),
		"put at the start of a range":      ops(opPut("a", "1"), opDelete("a", "c")),
		"nested put of the same key":       ops(opPut("a", "1"), nested(ops(opPut("a", "2")), nil)),
		"nested delete over a put":         ops(opPut("b", "1"), nested(nil, ops(opDelete("a", "c")))),
		"two nested txns with one put":     ops(nested(ops(opPut("a", "1")), nil), nested(ops(opPut("a", "2")), nil)),
		"nested put in a deleted range":    ops(opDelete("a", "c"), nested(nil, ops(opPut("b", "1")))),
		"duplicates in a nested branch":    ops(nested(ops(opPut("a", "1"), opPut("a", "2")), nil)),
		"nested delete, nested put beside": ops(nested(ops(opDelete("a", "c")), nil), nested(nil, ops(opPut("b", "1")))),
	}
	for name, list := range refused {
		t.Run(name, func(t *testing.T) {
			_, err := f.kv.Txn(f.ctx, &pb.TxnRequest{Success: list})
			harness.WantError(t, err, codes.InvalidArgument, textDuplicateKey)
			_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Failure: list})
			harness.WantError(t, err, codes.InvalidArgument, textDuplicateKey)
		})
	}
	harness.Equal(t, "nothing was written", f.get("a").Header.Revision, 1)
	allowed := map[string]*pb.TxnRequest{
		// etcd's check takes an open end ("\x00") literally, so it sees no overlap.
		"put after an open-ended delete": {Success: ops(opDelete("a", "\x00"), opPut("z", "1"))},
		"then and else":                  {Success: ops(opPut("a", "1")), Failure: ops(opPut("a", "2"))},
		"two deletes":                    {Success: ops(opDelete("a", "c"), opDelete("b", "d"))},
		"put at a range's end":           {Success: ops(opDelete("a", "c"), opPut("c", "1"))},
		"put and read":                   {Success: ops(opPut("a", "1"), opGet("a", ""))},
		"then and else, nested":          {Success: ops(nested(ops(opPut("a", "1")), ops(opPut("a", "2"))))},
		"delete and put, nested":         {Success: ops(nested(ops(opDelete("a", "c")), ops(opPut("b", "1"))))},
	}
	for name, req := range allowed {
		t.Run(name, func(t *testing.T) {
			_, err := f.kv.Txn(f.ctx, req)
			harness.Fatal(t, err)
		})
	}
}

func TestTxnOperationLimit(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	puts := func(n int, prefix string) []*pb.RequestOp {
		ops := make([]*pb.RequestOp, n)
		for i := range ops {
			ops[i] = opPut(fmt.Sprintf("%s%03d", prefix, i), "v")
		}
		return ops
	}
	compares := func(n int) []*pb.Compare {
		list := make([]*pb.Compare, n)
		for i := range list {
			list[i] = version("a", pb.Compare_EQUAL, 0)
		}
		return list
	}
	_, err := f.kv.Txn(f.ctx, &pb.TxnRequest{Compare: compares(128), Success: puts(128, "s"), Failure: puts(128, "f")})
	harness.Fatal(t, err)
	for _, req := range []*pb.TxnRequest{
		{Compare: compares(129)},
		{Success: puts(129, "a")},
		{Failure: puts(129, "a")},
		{Success: append(puts(100, "a"), opTxn(&pb.TxnRequest{Success: puts(28, "b")}))},
		{Success: append(puts(100, "a"), opTxn(&pb.TxnRequest{Compare: compares(28)}))},
	} {
		_, err := f.kv.Txn(f.ctx, req)
		harness.WantError(t, err, codes.InvalidArgument, textTooManyOps)
	}
	_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Success: append(puts(100, "c"), opTxn(&pb.TxnRequest{Success: puts(27, "d")}))})
	harness.Fatal(t, err)
	small := fresh(t, "--max-txn-ops=3")
	_, err = small.kv.Txn(small.ctx, &pb.TxnRequest{Success: puts(3, "a")})
	harness.Fatal(t, err)
	_, err = small.kv.Txn(small.ctx, &pb.TxnRequest{Success: puts(4, "b")})
	harness.WantError(t, err, codes.InvalidArgument, textTooManyOps)
}

// One bad operation refuses the whole transaction, whichever branch it is in.
func TestTxnRefusals(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	op := func(p *pb.PutRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
	}
	cases := []struct {
		name string
		op   *pb.RequestOp
		code codes.Code
		text string
	}{
		{"put without key", opPut("", "v"), codes.InvalidArgument, textEmptyKey},
		{"get without key", opGet("", ""), codes.InvalidArgument, textEmptyKey},
		{"delete without key", opDelete("", ""), codes.InvalidArgument, textEmptyKey},
		{"empty operation", &pb.RequestOp{}, codes.InvalidArgument, textKeyNotFound},
		{"value with ignore_value", op(&pb.PutRequest{Key: []byte("a"), Value: []byte("v"), IgnoreValue: true}), codes.InvalidArgument, "etcdserver: value is provided"},
		{"lease with ignore_lease", op(&pb.PutRequest{Key: []byte("a"), Lease: 1, IgnoreLease: true}), codes.InvalidArgument, "etcdserver: lease is provided"},
		{"nested put without key", opTxn(&pb.TxnRequest{Failure: []*pb.RequestOp{opPut("", "v")}}), codes.InvalidArgument, textEmptyKey},
		{"nested compare without key", opTxn(&pb.TxnRequest{Compare: []*pb.Compare{version("", pb.Compare_EQUAL, 0)}}), codes.InvalidArgument, textEmptyKey},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.kv.Txn(f.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opPut("w", "1"), c.op}})
			harness.WantError(t, err, c.code, c.text)
			_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Failure: []*pb.RequestOp{c.op}})
			harness.WantError(t, err, c.code, c.text)
		})
	}
	_, err := f.kv.Txn(f.ctx, &pb.TxnRequest{Compare: []*pb.Compare{version("", pb.Compare_EQUAL, 0)}})
	harness.WantError(t, err, codes.InvalidArgument, textEmptyKey)
	harness.Equal(t, "nothing was written", f.get("w").Header.Revision, 2)
}

// Errors that are known only when the chosen branch is looked at.
func TestTxnRefusalsOfTheChosenBranch(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	op := func(p *pb.PutRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: p}}
	}
	past := func(rev int64) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), Revision: rev}}}
	}
	cases := []struct {
		name string
		op   *pb.RequestOp
		code codes.Code
		text string
	}{
		{"unknown lease", op(&pb.PutRequest{Key: []byte("b"), Lease: 99}), codes.NotFound, textLeaseNotFound},
		{"ignore_value of an absent key", op(&pb.PutRequest{Key: []byte("b"), IgnoreValue: true}), codes.InvalidArgument, textKeyNotFound},
		{"ignore_lease of an absent key", op(&pb.PutRequest{Key: []byte("b"), IgnoreLease: true}), codes.InvalidArgument, textKeyNotFound},
		{"future revision", past(100), codes.OutOfRange, textFuture},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.kv.Txn(f.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opPut("w", "1"), c.op}})
			harness.WantError(t, err, c.code, c.text)
			_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Failure: []*pb.RequestOp{c.op}, Success: []*pb.RequestOp{opGet("a", "")}})
			harness.Fatal(t, err)
		})
	}
	harness.Equal(t, "nothing was written", f.get("w").Header.Revision, 2)
	_, err := f.compact(2, true)
	harness.Fatal(t, err)
	_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{past(1), opPut("w", "1")}})
	harness.WantError(t, err, codes.OutOfRange, textCompacted)
}

// A put of a key and an ignore_value put of it cannot be in one transaction,
// but a nested read sees the write before it.
func TestTxnSequentialVisibility(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	for i := range 3 {
		f.put(fmt.Sprintf("s/%d", i), "old")
	}
	resp := f.txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		opPut("s/3", "new"), opGet("s/", "s0"), opDelete("s/0", "s/3"), opGet("s/", "s0"),
	}})
	harness.Equal(t, "before the delete", resp.Responses[1].GetResponseRange().Count, 4)
	harness.Equal(t, "deleted", resp.Responses[2].GetResponseDeleteRange().Deleted, 3)
	harness.Equal(t, "after", harness.KVs(resp.Responses[3].GetResponseRange().Kvs), "s/3=new c5 m5 v1")
}
