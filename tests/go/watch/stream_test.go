package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const textCompacted = "etcdserver: mvcc: required revision has been compacted"

func TestEventsOfOneKey(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	id := f.created(key("a"))
	f.put("a", "1")
	f.put("b", "other")
	f.put("a", "2")
	f.delete("a", "")
	f.put("a", "3")
	harness.Equal(t, "events", f.events(id, 4),
		"PUT a=1 c2 m2 v1; PUT a=2 c2 m4 v2; DELETE a= c0 m5 v0; PUT a=3 c6 m6 v1")
	f.none()
}

func TestRanges(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		req  *pb.WatchCreateRequest
		want string
	}{
		{"one key", key("k/b"), "k/b"},
		{"prefix", between("k/", "k0"), "k/a k/b k/c"},
		{"half open", between("k/b", "l"), "k/b k/c"},
		{"from key", between("k/c", "\x00"), "k/c l"},
		{"whole keyspace", between("\x00", "\x00"), "j k/a k/b k/c l"},
		{"no key and open end is everything", between("", "\x00"), "j k/a k/b k/c l"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := fresh(t)
			f.created(c.req)
			for _, k := range []string{"j", "k/a", "k/b", "k/c", "l"} {
				f.put(k, "v")
			}
			var got []string
			for len(got) < len(strings.Fields(c.want)) {
				// Two of them may come in one reply.
				for _, e := range f.next().Events {
					got = append(got, string(e.Kv.Key))
				}
			}
			harness.Equal(t, "keys", strings.Join(got, " "), c.want)
			f.none()
		})
	}
}

func TestCreatedReply(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	reply := f.create(key("a"))
	harness.Equal(t, "first", describe(reply), `id=0 created=true canceled=false compact=0 reason="" events=0 rev=2`)
	if reply.Header.ClusterId == 0 || reply.Header.MemberId == 0 || reply.Header.RaftTerm == 0 {
		t.Errorf("header has zero fields: %v", reply.Header)
	}
	harness.Equal(t, "ids count up", f.created(key("a")), 1)
	harness.Equal(t, "and up", f.created(key("b")), 2)
	f.put("b", "1")
	event := f.next()
	harness.Equal(t, "header revision of an event", event.Header.Revision, 3)
	harness.Equal(t, "its watch", event.WatchId, 2)
}

func TestStartRevision(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1") // 2
	f.put("b", "1") // 3
	f.put("a", "2") // 4
	f.delete("a", "")
	from := func(rev int64) *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: rev}
	}
	id := f.created(from(1))
	harness.Equal(t, "from the beginning", f.events(id, 3), "PUT a=1 c2 m2 v1; PUT a=2 c2 m4 v2; DELETE a= c0 m5 v0")
	f.cancel(id)
	f.next()
	id = f.created(from(3))
	harness.Equal(t, "from the middle", f.events(id, 2), "PUT a=2 c2 m4 v2; DELETE a= c0 m5 v0")
	f.put("a", "3")
	harness.Equal(t, "and goes on", f.events(id, 1), "PUT a=3 c6 m6 v1")
	f.cancel(id)
	f.next()
	id = f.created(from(8))
	f.put("a", "not yet") // 7
	f.none()
	f.put("a", "now") // 8
	harness.Equal(t, "from the future", f.events(id, 1), "PUT a=now c6 m8 v3")
}

func TestPrevKv(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "0")
	id := f.created(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true})
	f.put("a", "1")
	f.delete("a", "")
	f.put("a", "2")
	want := "PUT a=1 c2 m3 v2 was a=0 c2 m2 v1; DELETE a= c0 m4 v0 was a=1 c2 m3 v2; PUT a=2 c5 m5 v1"
	harness.Equal(t, "live", f.events(id, 3), want)
	f.cancel(id)
	f.next()
	id = f.created(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true, StartRevision: 3})
	harness.Equal(t, "from history", f.events(id, 3), want)
	f.compact(4)
	f.cancel(id)
	f.next()
	id = f.created(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true, StartRevision: 5})
	harness.Equal(t, "after compaction", f.events(id, 1), "PUT a=2 c5 m5 v1")
}

func TestFilters(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	write := func() {
		f.put("a", "1")
		f.delete("a", "")
		f.put("a", "2")
	}
	write() // 2 3 4
	filtered := func(start int64, filters ...pb.WatchCreateRequest_FilterType) int64 {
		return f.created(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: start, Filters: filters})
	}
	id := filtered(1, pb.WatchCreateRequest_NOPUT)
	harness.Equal(t, "no puts, history", f.events(id, 1), "DELETE a= c0 m3 v0")
	f.cancel(id)
	f.next()
	id = filtered(1, pb.WatchCreateRequest_NODELETE)
	harness.Equal(t, "no deletes, history", f.events(id, 2), "PUT a=1 c2 m2 v1; PUT a=2 c4 m4 v1")
	f.cancel(id)
	f.next()
	id = filtered(0, pb.WatchCreateRequest_NOPUT)
	write() // 5 6 7
	harness.Equal(t, "no puts, live", f.events(id, 1), "DELETE a= c0 m6 v0")
	f.cancel(id)
	f.next()
	filtered(1, pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE)
	write()
	f.none()
}

func TestCancel(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	first, second := f.created(key("a")), f.created(key("a"))
	f.cancel(first)
	reply := f.next()
	harness.Equal(t, "reply", describe(reply), fmt.Sprintf(`id=%d created=false canceled=true compact=0 reason="" events=0 rev=1`, first))
	f.put("a", "1")
	harness.Equal(t, "only the other gets the event", f.events(second, 1), "PUT a=1 c2 m2 v1")
	f.cancel(1234)
	f.cancel(first)
	f.none()
	harness.Equal(t, "a new one gets a new id", f.created(key("a")), 2)
}

func TestOwnWatchIDs(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	own := func(id int64) *pb.WatchResponse {
		return f.create(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: id})
	}
	harness.Equal(t, "own id", own(7).WatchId, 7)
	harness.Equal(t, "picked id", own(0).WatchId, 0)
	harness.Equal(t, "next own id", own(1).WatchId, 1)
	harness.Equal(t, "picked ids step over own ones", own(0).WatchId, 2)
	duplicate := own(7)
	harness.Equal(t, "duplicate", describe(duplicate),
		`id=-1 created=true canceled=true compact=0 reason="mvcc: duplicate watch ID provided on the WatchStream" events=0 rev=1`)
	harness.Equal(t, "large", own(1<<62).WatchId, 1<<62)
	f.put("a", "1")
	seen := map[int64]bool{}
	for range 5 {
		seen[f.next().WatchId] = true
	}
	harness.Equal(t, "each watch once", fmt.Sprint(len(seen), seen[0], seen[1], seen[2], seen[7], seen[1<<62]), "5 true true true true true")
}

func TestEmptyRange(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	want := `id=-1 created=true canceled=true compact=0 reason="mvcc: watcher range is empty" events=0 rev=1`
	harness.Equal(t, "end before key", describe(f.create(between("b", "a"))), want)
	harness.Equal(t, "end equals key", describe(f.create(between("b", "b"))), want)
	id := f.created(key("b"))
	f.put("b", "1")
	harness.Equal(t, "the stream goes on", f.events(id, 1), "PUT b=1 c2 m2 v1")
}

func TestNegativeStartRevision(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.server.Needs(t, "3.6.6")
	reply := f.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1})
	harness.Equal(t, "reply", describe(reply), fmt.Sprintf(
		`id=-1 created=true canceled=true compact=0 reason=%q events=0 rev=1`, textCompacted))
}

func TestCompactedStartRevision(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	for i := range 5 {
		f.put("a", fmt.Sprint(i)) // 2 to 6
	}
	f.compact(5)
	reply := f.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
	harness.Equal(t, "created", describe(reply), `id=0 created=true canceled=false compact=0 reason="" events=0 rev=6`)
	reply = f.next()
	// Not every field one would expect: the reason is empty and so is the revision.
	harness.Equal(t, "then canceled", describe(reply), `id=0 created=false canceled=true compact=5 reason="" events=0 rev=0`)
	id := f.created(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 5})
	harness.Equal(t, "the compacted revision itself is there", f.events(id, 2), "PUT a=3 c2 m5 v4; PUT a=4 c2 m6 v5")
	f.put("a", "5")
	harness.Equal(t, "the stream goes on", f.events(id, 1), "PUT a=5 c2 m7 v6")
}

// The events of one transaction come in one reply, in the order of its
// operations, with one revision.
func TestTransactionsAreWhole(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	id := f.created(between("\x00", "\x00"))
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{
		opPut("z", "1"), opPut("a", "1"),
		{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{opPut("m", "1")}}}},
		opPut("b", "1"),
	}}
	_, err := f.kv.Txn(f.ctx, txn)
	harness.Fatal(t, err)
	reply := f.next()
	harness.Equal(t, "events in one reply", len(reply.Events), 4)
	want := "PUT z=1 c2 m2 v1; PUT a=1 c2 m2 v1; PUT m=1 c2 m2 v1; PUT b=1 c2 m2 v1"
	harness.Equal(t, "order", printEvents(reply), want)
	_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opDelete("z"), opPut("c", "1"), opDelete("a")}})
	harness.Fatal(t, err)
	harness.Equal(t, "deletes", printEvents(f.next()), "DELETE z= c0 m3 v0; PUT c=1 c3 m3 v1; DELETE a= c0 m3 v0")
	f.delete("b", "n")
	harness.Equal(t, "a range's deletes", printEvents(f.next()), "DELETE b= c0 m4 v0; DELETE c= c0 m4 v0; DELETE m= c0 m4 v0")
	f.cancel(id)
	f.next()
	f.created(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1})
	harness.Equal(t, "from history", f.events(1, 10)[:len(want)], want)
}

// The keys of a lease go together, in their order, in one revision.
func TestRevokedLeaseIsWhole(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	leases := pb.NewLeaseClient(f.server.Conn(t))
	_, err := leases.LeaseGrant(f.ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 3600})
	harness.Fatal(t, err)
	for _, k := range []string{"c", "a", "b"} {
		_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte(k), Value: []byte("1"), Lease: 7})
		harness.Fatal(t, err)
	}
	f.created(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true})
	_, err = leases.LeaseRevoke(f.ctx, &pb.LeaseRevokeRequest{ID: 7})
	harness.Fatal(t, err)
	harness.Equal(t, "deletes", printEvents(f.next()), "DELETE a= c0 m5 v0 was a=1 c3 m3 v1 l7; "+
		"DELETE b= c0 m5 v0 was b=1 c4 m4 v1 l7; DELETE c= c0 m5 v0 was c=1 c2 m2 v1 l7")
	f.none()
}

func printEvents(r *pb.WatchResponse) string {
	out := make([]string, len(r.Events))
	for i, e := range r.Events {
		out[i] = harness.Event(e)
	}
	return strings.Join(out, "; ")
}

func TestProgressRequest(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.created(key("a"))
	f.put("b", "1")
	f.put("b", "2")
	progress := f.askProgress()
	harness.Equal(t, "progress", describe(progress), `id=-1 created=false canceled=false compact=0 reason="" events=0 rev=3`)
	f.put("a", "1")
	harness.Equal(t, "events go on", f.events(0, 1), "PUT a=1 c4 m4 v1")
	harness.Equal(t, "progress", f.askProgress().Header.Revision, 4)
}

// askProgress repeats the request until it is answered: a watcher that has just
// been made may not be synced yet, and then etcd stays silent. Answers to more
// than one of the requests may still come: next passes over them.
func (f *fixture) askProgress() *pb.WatchResponse {
	f.Helper()
	for asked := 0; ; asked++ {
		f.progress()
		select {
		case reply := <-f.replies:
			f.late += asked
			return reply
		case <-time.After(quiet):
		case <-f.ctx.Done():
			f.Fatal("no progress reply")
		}
	}
}

func TestProgressNotify(t *testing.T) {
	t.Parallel()
	f := fresh(t, progressFlag(t, "200ms"))
	idle := f.created(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
	f.created(key("a")) // does not want any
	f.put("b", "1")
	// Some of those that have come by now may be from before the put.
	for told, replies := int64(0), 0; replies < 4 || told < 2; replies++ {
		reply := f.next()
		harness.Equal(t, "watch", reply.WatchId, idle)
		harness.Equal(t, "no events", len(reply.Events), 0)
		if reply.Created || reply.Canceled {
			t.Fatalf("not a progress reply: %v", reply)
		}
		if reply.Header.Revision < told || reply.Header.Revision > 2 {
			t.Fatalf("progress at %d after %d", reply.Header.Revision, told)
		}
		told = reply.Header.Revision
	}
}

// The events of one revision that are more than a reply may hold come in several,
// each but the last saying that more follows.
func TestFragments(t *testing.T) {
	t.Parallel()
	f := fresh(t, "--max-request-bytes=65536")
	const keys, valueBytes = 60, 60_000
	value := strings.Repeat("v", valueBytes)
	for i := range keys {
		f.put(fmt.Sprintf("k/%02d", i), value)
	}
	f.created(&pb.WatchCreateRequest{Key: []byte("k/"), RangeEnd: []byte("k0"), PrevKv: true, Fragment: true})
	f.delete("k/", "k0")
	limit := 65536 + 512*1024
	seen, fragments := 0, 0
	for seen < keys {
		reply := f.next()
		if reply.Fragment {
			fragments++
		}
		size := 0
		for _, e := range reply.Events {
			harness.Equal(t, "order", string(e.Kv.Key), fmt.Sprintf("k/%02d", seen))
			harness.Equal(t, "revision", e.Kv.ModRevision, keys+2)
			seen++
			size += len(e.PrevKv.Value)
		}
		if size > limit {
			t.Errorf("a fragment of %d bytes, limit %d", size, limit)
		}
		if reply.Fragment != (seen < keys) {
			t.Errorf("%d of %d events have come and fragment is %v", seen, keys, reply.Fragment)
		}
	}
	if fragments == 0 {
		t.Error("no reply was fragmented")
	}
	f.none()
}

func TestManyWatchersOnOneStream(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	const watchers, keys, puts = 500, 10, 5
	for i := range watchers {
		id := f.created(key(fmt.Sprintf("k%d", i%keys)))
		harness.Equal(t, "id", id, int64(i))
	}
	for p := range puts {
		for k := range keys {
			f.put(fmt.Sprintf("k%d", k), fmt.Sprint(p))
		}
	}
	lastMod := map[int64]int64{}
	count := map[int64]int{}
	for total := 0; total < watchers*puts; {
		reply := f.next()
		for _, e := range reply.Events {
			harness.Equal(t, "key", string(e.Kv.Key), fmt.Sprintf("k%d", reply.WatchId%keys))
			if e.Kv.ModRevision <= lastMod[reply.WatchId] {
				t.Fatalf("watch %d went from revision %d to %d", reply.WatchId, lastMod[reply.WatchId], e.Kv.ModRevision)
			}
			lastMod[reply.WatchId] = e.Kv.ModRevision
			count[reply.WatchId]++
			total++
		}
	}
	for id := range int64(watchers) {
		harness.Equal(t, fmt.Sprintf("events of watch %d", id), count[id], puts)
	}
	f.none()
}

// A client that closes its half of the stream goes on receiving.
func TestCloseSend(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	id := f.created(key("a"))
	harness.Fatal(t, f.stream.CloseSend())
	f.none()
	f.put("a", "1")
	harness.Equal(t, "event after the close", f.events(id, 1), "PUT a=1 c2 m2 v1")
}

func TestEmptyRequestIsIgnored(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.send(&pb.WatchRequest{})
	f.none()
	id := f.created(key("a"))
	f.put("a", "1")
	harness.Equal(t, "the stream goes on", f.events(id, 1), "PUT a=1 c2 m2 v1")
}
