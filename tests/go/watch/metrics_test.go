package watch

import (
	"fmt"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The gauges of streams, watches and slow watches follow what clients do, and go
// back to nothing when those are gone, in whatever way they go.
func TestGaugesReturnToZero(t *testing.T) {
	t.Parallel()
	s := truthful(t)
	want := func(streams, watches float64) {
		t.Helper()
		harness.Eventually(t, testTimeout, "the gauges are right", func() error {
			got := [2]float64{s.Metric(t, "etcd_debugging_mvcc_watch_stream_total"), s.Metric(t, "etcd_debugging_mvcc_watcher_total")}
			if got != [2]float64{streams, watches} {
				return fmt.Errorf("%v streams and %v watches, want %v and %v", got[0], got[1], streams, watches)
			}
			return nil
		})
	}
	slow := func(what string, enough func(float64) bool) {
		t.Helper()
		harness.Eventually(t, testTimeout, what, func() error {
			if n := s.Metric(t, "etcd_debugging_mvcc_slow_watcher_total"); !enough(n) {
				return fmt.Errorf("%v are slow", n)
			}
			return nil
		})
	}
	want(0, 0)
	conn := dial(t, s)
	stopped, ended, left := observeStopped(t, s, conn), observe(t, s), observe(t, s)
	for _, o := range []*observer{stopped, ended, left} {
		for range 10 {
			o.watch(&pb.WatchCreateRequest{Key: []byte("bulky/"), RangeEnd: []byte("bulky0"), StartRevision: 1})
		}
	}
	ended.allCreated()
	left.allCreated()
	want(3, 30)
	writes := writeSome(t, s.Client(t), "own", 100, bulky)
	writes.all.Wait()
	slow("the watches of a stopped reader are slow", func(n float64) bool { return n > 0 && n <= 10 })
	left.reach(int64(len(writes.noted)))
	for id := range int64(4) {
		left.cancelID(id)
	}
	want(3, 26)
	ended.end() // resets its stream
	want(2, 16)
	harness.Fatal(t, conn.Close()) // with what waits for the stopped reader
	want(1, 6)
	slow("no watch is slow", func(n float64) bool { return n == 0 })
	left.end()
	want(0, 0)
}
