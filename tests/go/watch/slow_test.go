package watch

import (
	"fmt"
	"strings"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// bulky puts a big value: a few of them fill what a connection holds for a
// reader that does not read.
func bulky(n int) []clientv3.Op { return sized(n, 40_000) }

func sized(n, bytes int) []clientv3.Op {
	return []clientv3.Op{clientv3.OpPut(fmt.Sprintf("bulky/%02d", n%20), strings.Repeat(fmt.Sprint(n%10), bytes))}
}

// A stream that is not read at all, under load, and one whose whole connection
// stands still keep nobody from anything: other streams, on the same connection and
// on another, have all events before those go on, and then these have them too.
func TestStoppedReader(t *testing.T) {
	t.Parallel()
	s := truthful(t)
	conn := dial(t, s)
	stopped := observeStopped(t, s, conn)
	beside := observeStopped(t, s, conn)
	beside.read()
	apart := observe(t, s)
	proxy := harness.StartProxy(t, s)
	held := observeStopped(t, s, dialTo(t, proxy.Addr))
	held.read()
	for _, o := range []*observer{stopped, beside, apart, held} {
		for i := range 4 {
			o.watch(&pb.WatchCreateRequest{Key: []byte("bulky/"), RangeEnd: []byte("bulky0"), PrevKv: i%2 == 0, StartRevision: int64(i / 2)})
		}
		o.watch(between("own/", "own0"))
	}
	beside.allCreated()
	apart.allCreated()
	held.allCreated()
	proxy.Stall()
	writes := writeSome(t, s.Client(t), "own", 150, bulky)
	writes.all.Wait()
	h := finish(t, s, writes)
	for _, o := range []*observer{beside, apart} {
		o.reach(h.last())
		o.wantExactly(h)
	}
	stopped.read()
	proxy.Go()
	for _, o := range []*observer{stopped, held} {
		o.reach(h.last())
		o.wantExactly(h)
		harness.Equal(t, "watches", len(o.byID), 5)
	}
}

// History is compacted behind the back of a stream that is not read: its watches
// have what came before without a gap, and then either all the rest or the
// revision of the compaction, from which all the rest can be had.
func TestCompactionBehindAStoppedReader(t *testing.T) {
	t.Parallel()
	s := truthful(t)
	stopped := observeStopped(t, s, dial(t, s))
	for i := range 3 {
		stopped.watch(&pb.WatchCreateRequest{Key: []byte("bulky/"), RangeEnd: []byte("bulky0"), StartRevision: int64(i)})
	}
	stopped.watch(&pb.WatchCreateRequest{Key: []byte("own/000159"), StartRevision: 1})
	c := s.Client(t)
	// More than any server keeps at hand for those who lag a little.
	writes := writeSome(t, c, "own", 160, func(n int) []clientv3.Op { return sized(n, 150_000) })
	writes.all.Wait()
	// History is read before it is compacted.
	h := finish(t, s, writes)
	compacted := h.last() - 20
	_, err := c.Compact(harness.Context(t, testTimeout), compacted, clientv3.WithCompactPhysical())
	harness.Fatal(t, err)
	s.CatchUp(t)

	stopped.read()
	canceled := 0
	for id := range int64(4) {
		var w *watched
		stopped.wait("all that there is has come", func() error {
			if w = stopped.byID[id]; w == nil {
				return fmt.Errorf("watch %d is not created", id)
			}
			if !w.canceled && len(w.events) < len(h.of(w.req)) {
				return fmt.Errorf("watch %d has %d of %d events", id, len(w.events), len(h.of(w.req)))
			}
			return nil
		})
		if w.canceled {
			canceled++
			harness.Equal(t, "compact revision", w.compacted, compacted)
			if w.last >= compacted {
				t.Errorf("watch %d is canceled for a compaction at %d and has revision %d", id, compacted, w.last)
			}
		}
	}
	stopped.wantExactly(h)
	t.Logf("%d of 4 canceled", canceled)
	rest := observe(t, s)
	rest.watch(&pb.WatchCreateRequest{Key: []byte("bulky/"), RangeEnd: []byte("bulky0"), StartRevision: compacted})
	rest.allCreated()
	rest.reach(h.last())
	rest.wantExactly(h)
}

// A watch from a revision that is still to come is created at once and is told
// nothing of what comes before that.
func TestFutureStartRevision(t *testing.T) {
	t.Parallel()
	s := truthful(t)
	o := observe(t, s)
	var all []*watched
	for _, start := range []int64{2, 10, 60, 61, 200} {
		for range 2 {
			all = append(all, o.watch(&pb.WatchCreateRequest{Key: []byte("hot/"), RangeEnd: []byte("hot0"), StartRevision: start}))
		}
	}
	o.allCreated()
	o.cancel(all[5])
	writes := writeSome(t, s.Client(t), "own", 300, hot)
	writes.all.Wait()
	h := finish(t, s, writes)
	o.reach(h.last())
	o.wantExactly(h)
	harness.Equal(t, "events of the canceled one", len(all[5].events), 0)
	harness.Equal(t, "first event of one from 200", all[9].events[0].Kv.ModRevision, 200)
}
