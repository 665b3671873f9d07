package watch

import (
	"fmt"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// crush is a stream of a great many watches of one key that only counts.
type crush struct {
	stream  pb.Watch_WatchClient
	created chan error
	// done gives nil when each watch has had its events, in order.
	done chan error
}

// startCrush opens watches of a key, which is going to be put so many times.
func startCrush(t testing.TB, s *harness.Server, key string, watches, puts int) *crush {
	t.Helper()
	stream, err := pb.NewWatchClient(dial(t, s)).Watch(harness.Context(t, 2*testTimeout))
	harness.Fatal(t, err)
	c := &crush{stream: stream, created: make(chan error, 1), done: make(chan error, 1)}
	go func() { c.done <- c.count(watches, puts) }()
	for range watches {
		req := &pb.WatchCreateRequest{Key: []byte(key)}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}); err != nil {
			break // the reader says why
		}
	}
	harness.Fatal(t, <-c.created)
	return c
}

func (c *crush) count(watches, puts int) error {
	created, seen, all := 0, make([]int, watches), 0
	for all < watches*puts {
		reply, err := c.stream.Recv()
		if err != nil {
			c.created <- err
			return fmt.Errorf("%d of %d created, %d events: %w", created, watches, all, err)
		}
		if reply.Created {
			if created++; created == watches {
				c.created <- nil
			}
			continue
		}
		for _, e := range reply.Events {
			if e.Kv.Version != int64(seen[reply.WatchId]+1) {
				return fmt.Errorf("watch %d: put %d after put %d", reply.WatchId, e.Kv.Version, seen[reply.WatchId])
			}
			seen[reply.WatchId]++
			all++
		}
	}
	return nil
}

// While one client makes and cancels watches as fast as it can and another has a
// hundred thousand of one key that is being put, a third sees the events of its
// only watch: the first goes on until it has. In the end all have theirs.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := truthful(t)
	const watches, puts = 100_000, 4
	hot := startCrush(t, s, "hot", watches, puts)
	f := on(t, s)
	id := f.created(key("quiet"))
	flood, stop, ended := observe(t, s), make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { ended <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			flood.watch(&pb.WatchCreateRequest{Key: []byte("hot"), WatchId: int64(n + 1)})
			flood.cancelID(int64(n + 1))
		}
	}()
	for i := range puts {
		f.put("hot", fmt.Sprint(i))
		f.put("quiet", fmt.Sprint(i))
		f.events(id, 1)
	}
	close(stop)
	t.Logf("%d watches came and went", <-ended)
	select {
	case err := <-hot.done:
		harness.Fatal(t, err)
	case <-f.ctx.Done():
		t.Fatal("not all of the hundred thousand have their events")
	}
	flood.wait("all cancels are answered", func() error {
		for _, w := range flood.byID {
			if !w.canceled {
				return fmt.Errorf("watch %d is not", w.id)
			}
		}
		return nil
	})
	flood.watch(key("hot")) // there is no progress without a watch
	flood.reach(2*puts + 1)
}
