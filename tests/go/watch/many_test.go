package watch

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// crowdKeys is how many keys a crowd of watches looks at.
const crowdKeys = 1000

func crowdKey(n int) string { return fmt.Sprintf("k/%03d", n%crowdKeys) }

// crowd gives the n-th request of many: most watch one key, some ten of a prefix,
// some a few of a range, some a key that nobody writes.
func crowd(n int) *pb.WatchCreateRequest {
	k := crowdKey(n)
	switch n / crowdKeys % 10 {
	case 0:
		prefix := k[:len(k)-1]
		return between(prefix, prefix+":") // ':' follows '9'
	case 1:
		return between(k, crowdKey(n)+"\x00")
	case 2:
		return &pb.WatchCreateRequest{Key: []byte(k), PrevKv: true}
	case 3:
		return key("quiet/" + k)
	}
	return key(k)
}

// crowdPuts puts twenty keys: within fifty writes there is one of each.
func crowdPuts(n int) []clientv3.Op {
	var ops []clientv3.Op
	for i := range 20 {
		ops = append(ops, clientv3.OpPut(crowdKey(n*20+i), fmt.Sprint(n)))
	}
	return ops
}

// Ten thousand watches, on one stream and on many, while others write: each is
// told its events and no others.
func TestTenThousandWatches(t *testing.T) {
	t.Parallel()
	const watches = 10_000
	for _, streams := range []int{1, 100} {
		t.Run(fmt.Sprintf("streams=%d", streams), func(t *testing.T) {
			t.Parallel()
			s := truthful(t)
			conn := dial(t, s)
			c := s.Client(t)
			meanwhile := writeSome(t, c, "meanwhile", 100, crowdPuts)
			observers := make([]*observer, streams)
			for i := range observers {
				observers[i] = observeStopped(t, s, conn)
				observers[i].read()
			}
			for i := range watches {
				observers[i%streams].watch(crowd(i))
			}
			for _, o := range observers {
				o.allCreated()
			}
			after := writeSome(t, c, "after", 100, crowdPuts)
			meanwhile.all.Wait()
			after.all.Wait()
			h := finish(t, s, meanwhile, after)
			for _, o := range observers {
				o.reach(h.last())
				o.wantExactly(h)
			}
		})
	}
}

// Watches are canceled and made anew while events flow, with ids of the client's
// choice, from now and from the beginning: nothing comes after the answer to a
// cancel, and a new watch of an old id begins anew.
func TestCancelWhileEventsFlow(t *testing.T) {
	t.Parallel()
	s := truthful(t)
	writes := write(t, s.Client(t), "own", hot)
	o := observe(t, s)
	const watches, rounds = 60, 5
	own := func(i int) *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte("hot/"), RangeEnd: []byte("hot0"), WatchId: int64(i + 1), PrevKv: i%2 == 0, StartRevision: int64(i % 3 / 2)}
	}
	live := make([]*watched, watches)
	for i := range live {
		live[i] = o.watch(own(i))
	}
	o.allCreated()
	var gone []*watched
	for round := range rounds {
		writes.more(5)
		for i := round % 2; i < watches; i += 2 {
			o.cancel(live[i])
			o.cancelID(int64(watches + 1000 + i)) // nobody's: not answered
		}
		o.wait("the cancels are answered", func() error {
			for i := round % 2; i < watches; i += 2 {
				if !live[i].canceled {
					return fmt.Errorf("watch %d is not", live[i].id)
				}
			}
			return nil
		})
		refused := o.watch(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: live[(round+1)%2].id}) // in use
		o.allCreated()
		if !refused.refused || refused.id != -1 {
			t.Errorf("a second watch of one id: id %d, refused %v", refused.id, refused.refused)
		}
		for i := round % 2; i < watches; i += 2 {
			gone = append(gone, live[i])
			req := own(i)
			if !o.castd {
				req.WatchId = int64((round+1)*1000 + i) // what etcd has left for the old one would come
			}
			live[i] = o.watch(req)
		}
		o.allCreated()
	}
	writes.more(5)
	h := finish(t, s, writes)
	o.reach(h.last())
	o.wantExactly(h)
	for _, w := range gone {
		if err := o.compare(w, h); err != nil {
			t.Errorf("canceled watch %d: %v", w.id, err)
		}
	}
}

// largeRequests is a limit that a transaction of large just keeps to. With the
// pairs before, its events are twice as much, and more than a reply may hold, which
// is half a MiB more than a request.
const largeRequests = 600 << 10

// large overwrites a hundred big values at once; every fourth time they are deleted.
func large(n int) []clientv3.Op {
	const keys, size = 100, 5_900
	if n%4 == 3 {
		return []clientv3.Op{clientv3.OpDelete("large/", clientv3.WithPrefix())}
	}
	value := strings.Repeat(fmt.Sprint(n%10), size)
	ops := make([]clientv3.Op, keys)
	for i := range ops {
		ops[i] = clientv3.OpPut(fmt.Sprintf("large/%03d", i), value)
	}
	return ops
}

// One key and one prefix are watched in every way at once, on one stream, with
// replies that need fragments, while other watches come and go: each gets what it
// asked for, as it asked for it.
func TestEveryWayOnOneStream(t *testing.T) {
	t.Parallel()
	s := truthful(t, fmt.Sprintf("--max-request-bytes=%d", largeRequests))
	o := observe(t, s)
	filters := [][]pb.WatchCreateRequest_FilterType{
		nil,
		{pb.WatchCreateRequest_NOPUT},
		{pb.WatchCreateRequest_NODELETE},
		{pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE},
	}
	all := func(start int64) {
		for i := range 32 {
			req := between("large", "large0")
			if i/16 == 1 {
				req = key("large/007")
			}
			req.StartRevision, req.PrevKv, req.Fragment, req.Filters = start, i%2 == 1, i/2%2 == 1, filters[i/4%4]
			o.watch(req)
		}
		for range 10 { // replies in fragments, one after the other
			o.watch(&pb.WatchCreateRequest{Key: []byte("large"), RangeEnd: []byte("large0"), StartRevision: start, PrevKv: true, Fragment: true})
		}
		o.allCreated()
	}
	all(0)
	c := s.Client(t)
	small := write(t, c, "small", func(int) []clientv3.Op { return []clientv3.Op{clientv3.OpPut("small", "v")} })
	var passing sync.WaitGroup
	stop := make(chan struct{})
	passing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Answers to these may not come between fragments.
			o.cancelID(int64(1000 + i - 50))
			o.watch(&pb.WatchCreateRequest{Key: []byte("small"), WatchId: int64(1000 + i)})
			o.wait("the oldest are created", func() error {
				if len(o.asked) > 20 {
					return harness.ErrNotYet
				}
				return nil
			})
		}
	})
	before := writeSome(t, c, "before", 6, large)
	before.all.Wait()
	all(1)
	after := writeSome(t, c, "after", 4, large)
	after.all.Wait()
	close(stop)
	passing.Wait()
	h := finish(t, s, before, after, small)
	o.reach(h.last())
	o.wantExactly(h)
	if o.parts == 0 {
		t.Error("no reply was fragmented")
	}
	t.Logf("%d fragments, %d watches", o.parts, len(o.byID))
}
