package watch

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// scribe writes in the background until it is stopped and notes what was
// acknowledged. Each write is a transaction that puts a key of its own and one or
// more others; one that failed may or may not have happened.
type scribe struct {
	testing.TB
	client *clientv3.Client
	name   string
	// others gives the further operations of the n-th write.
	others func(n int) []clientv3.Op
	stop   context.CancelFunc
	all    sync.WaitGroup

	mu sync.Mutex
	// noted holds the key of its own that each revision put.
	noted map[int64]string
	last  error
}

// write starts a scribe whose own keys are name/0, name/1, …
func write(t testing.TB, c *clientv3.Client, name string, others func(n int) []clientv3.Op) *scribe {
	return writeSome(t, c, name, math.MaxInt, others)
}

// writeSome starts a scribe that ends after some writes.
func writeSome(t testing.TB, c *clientv3.Client, name string, limit int, others func(n int) []clientv3.Op) *scribe {
	ctx, cancel := context.WithCancel(context.Background())
	s := &scribe{TB: t, client: c, name: name, others: others, stop: cancel, noted: map[int64]string{}}
	t.Cleanup(s.end)
	s.all.Go(func() {
		for n := 0; n < limit && ctx.Err() == nil; n++ {
			s.one(ctx, n)
		}
	})
	return s
}

func (s *scribe) one(ctx context.Context, n int) {
	key := fmt.Sprintf("%s/%06d", s.name, n)
	ops := append([]clientv3.Op{clientv3.OpPut(key, "v")}, s.others(n)...)
	call, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resp, err := s.client.Txn(call).Then(ops...).Commit()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.last = err
		return
	}
	s.noted[resp.Header.Revision] = key
}

func (s *scribe) end() {
	s.stop()
	s.all.Wait()
}

// more waits until n more writes are acknowledged.
func (s *scribe) more(n int) {
	s.Helper()
	count := func() (int, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.noted), s.last
	}
	have, _ := count()
	harness.Eventually(s, testTimeout, "writes are acknowledged", func() error {
		if now, err := count(); now < have+n {
			return fmt.Errorf("%d of %d, last failure: %v", now-have, n, err)
		}
		return nil
	})
}

// wantIn insists that history has what was acknowledged, where it was.
func (s *scribe) wantIn(h history) {
	s.Helper()
	missing := maps.Clone(s.noted)
	for _, e := range h {
		if missing[e.Kv.ModRevision] == string(e.Kv.Key) {
			delete(missing, e.Kv.ModRevision)
		}
	}
	if len(missing) > 0 {
		s.Errorf("%s: %d of %d acknowledged writes are not in history", s.name, len(missing), len(s.noted))
	}
}

// finish writes a last key and gives the history up to it, checked against what
// the scribes noted.
func finish(t testing.TB, s *harness.Server, scribes ...*scribe) history {
	t.Helper()
	for _, w := range scribes {
		w.end()
	}
	upTo := putLast(t, s)
	h := readHistory(t, s, upTo)
	for _, w := range scribes {
		w.wantIn(h)
	}
	return h
}

// putLast writes a key and gives its revision: the last one of a test, that
// every member has.
func putLast(t testing.TB, s *harness.Server) int64 {
	t.Helper()
	stub := pb.NewKVClient(s.Conn(t))
	resp, err := stub.Put(harness.Context(t, testTimeout), &pb.PutRequest{Key: []byte("~last"), Value: []byte("v")})
	harness.Fatal(t, err)
	s.CatchUp(t)
	return resp.Header.Revision
}
