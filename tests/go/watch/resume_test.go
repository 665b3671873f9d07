package watch

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// hotKeys is how many keys the writes of these tests share.
const hotKeys = 10

// hot puts one shared key and, now and then, deletes another: two or three
// events in one revision.
func hot(n int) []clientv3.Op {
	ops := []clientv3.Op{clientv3.OpPut(hotKey(n), fmt.Sprint(n))}
	if n%4 == 3 {
		ops = append(ops, clientv3.OpDelete(hotKey(n+hotKeys/2)))
	}
	return ops
}

func hotKey(n int) string { return fmt.Sprintf("hot/%d", n%hotKeys) }

// ways are watches of everything, a prefix, ranges and keys, from the beginning.
func ways() []*pb.WatchCreateRequest {
	all := []*pb.WatchCreateRequest{
		{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true},
		{Key: []byte("hot/"), RangeEnd: []byte("hot0"), Fragment: true},
		{Key: []byte("hot/2"), RangeEnd: []byte("hot/5"), ProgressNotify: true},
		{Key: []byte("hot/7"), RangeEnd: []byte{0}, PrevKv: true, Fragment: true},
		{Key: []byte(hotKey(3))},
		{Key: []byte(hotKey(3)), PrevKv: true},
		{Key: []byte("hot/"), RangeEnd: []byte("hot0"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}},
		{Key: []byte("hot/"), RangeEnd: []byte("hot0"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}},
	}
	for _, req := range all {
		req.StartRevision = 1
	}
	return all
}

// options say to the client what a request says to the server.
func options(req *pb.WatchCreateRequest) []clientv3.OpOption {
	opts := []clientv3.OpOption{clientv3.WithRev(req.StartRevision)}
	add := func(wanted bool, opt clientv3.OpOption) {
		if wanted {
			opts = append(opts, opt)
		}
	}
	add(len(req.RangeEnd) > 0, clientv3.WithRange(string(req.RangeEnd)))
	add(req.PrevKv, clientv3.WithPrevKV())
	add(req.Fragment, clientv3.WithFragment())
	add(req.ProgressNotify, clientv3.WithProgressNotify())
	for _, f := range req.Filters {
		add(f == pb.WatchCreateRequest_NOPUT, clientv3.WithFilterPut())
		add(f == pb.WatchCreateRequest_NODELETE, clientv3.WithFilterDelete())
	}
	return opts
}

// resumed is a watch of the official client, which resumes it when it breaks, and
// what came out of it.
type resumed struct {
	name string
	req  *pb.WatchCreateRequest

	mu     sync.Mutex
	events []*mvccpb.Event
	broken error
}

// resumeAll opens watches in every way, on a few streams of a client.
func resumeAll(ctx context.Context, c *clientv3.Client, through string) []*resumed {
	var all []*resumed
	for i, req := range ways() {
		r := &resumed{name: fmt.Sprintf("watch %d through %s", i, through), req: req}
		own := context.WithValue(ctx, streamKey(0), i%3)
		watch := c.Watch(own, string(req.Key), options(req)...)
		go r.read(watch)
		all = append(all, r)
	}
	return all
}

func (r *resumed) read(watch clientv3.WatchChan) {
	last := int64(0)
	for reply := range watch {
		r.mu.Lock()
		if err := reply.Err(); err != nil {
			r.broken = err
		}
		for i, e := range reply.Events {
			if e.Kv.ModRevision < last || i == 0 && e.Kv.ModRevision == last {
				r.broken = fmt.Errorf("%s after revision %d: doubled, torn or out of order", place((*mvccpb.Event)(e)), last)
			}
			last = e.Kv.ModRevision
			r.events = append(r.events, (*mvccpb.Event)(e))
		}
		r.mu.Unlock()
	}
}

// wantMore waits until the watch sees something new.
func (r *resumed) wantMore(t *testing.T) {
	t.Helper()
	count := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.events)
	}
	before := count()
	harness.Eventually(t, testTimeout, r.name+" goes on", func() error {
		if count() == before {
			return harness.ErrNotYet
		}
		return nil
	})
}

// wantAll waits until as much came as history has for the watch and compares.
func (r *resumed) wantAll(t *testing.T, h history, castd bool) {
	t.Helper()
	want := h.of(r.req)
	harness.Eventually(t, testTimeout, r.name+" has all events", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.broken != nil {
			t.Fatalf("%s: %v", r.name, r.broken)
		}
		if len(r.events) < len(want) {
			return sameEvents(r.events, want, r.req.PrevKv, castd)
		}
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := sameEvents(r.events, want, r.req.PrevKv, castd); err != nil {
		t.Errorf("%s: %v", r.name, err)
	}
}

// watchThroughAll opens watches in every way through a client of all members
// and, where there are several, through one of each.
func watchThroughAll(ctx context.Context, t *testing.T, s *harness.Server) []*resumed {
	all := resumeAll(ctx, s.Client(t), "all")
	if harness.Members() > 1 {
		for _, m := range s.All() {
			all = append(all, resumeAll(ctx, m.ClientOfOne(t), m.Name)...)
		}
	}
	return all
}

// Watches that are open while every member in turn is killed and stopped, under
// writes, see each revision once, whole, in order, and none missing.
func TestClientResumesAcrossRestarts(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	ctx := harness.Context(t, 2*testTimeout)
	watches := watchThroughAll(ctx, t, s)
	writes := write(t, s.Client(t), "own", hot)
	for _, m := range s.All() {
		for _, end := range []func(testing.TB){m.Kill, m.Stop} {
			writes.more(40)
			end(t)
			if harness.Members() > 1 {
				writes.more(20)
			}
			m.Restart(t)
		}
	}
	writes.more(40)
	h := finish(t, s, writes)
	for _, r := range watches {
		r.wantAll(t, h, s.IsCastd())
	}
	t.Logf("%d events in history", len(h))
}

// The same while connections are cut, held and slowed down.
func TestClientResumesAcrossCuts(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	ctx := harness.Context(t, 2*testTimeout)
	var proxies []*harness.Proxy
	for _, m := range s.All() {
		proxies = append(proxies, harness.StartProxy(t, m))
	}
	watches := resumeAll(ctx, harness.ClientThrough(t, proxies...), "proxies")
	writes := write(t, s.Client(t), "own", hot)
	each := func(do func(*harness.Proxy)) {
		for _, p := range proxies {
			do(p)
		}
		writes.more(10)
	}
	for range 3 {
		each((*harness.Proxy).Cut)
		each((*harness.Proxy).Stall)
		each((*harness.Proxy).Go)
		each(func(p *harness.Proxy) { p.Delay(3 * time.Millisecond) })
		each((*harness.Proxy).Stall)
		each((*harness.Proxy).Cut) // what was held is lost
		each((*harness.Proxy).Go)
		each(func(p *harness.Proxy) { p.Delay(0) })
		watches[0].wantMore(t) // so that there is something to break again
	}
	h := finish(t, s, writes)
	for _, r := range watches {
		r.wantAll(t, h, s.IsCastd())
	}
}

// Streams stay open on a member that stands still until the leader's log does not
// reach back to it: it gets the state as a whole, and its watches what they missed.
func TestWatchesAcrossASnapshot(t *testing.T) {
	t.Parallel()
	harness.NeedsBinary(t, "3.6") // older ones always keep 5000 entries
	c := harness.StartCluster(t, 3, "--snapshot-count=100", "--snapshot-catchup-entries=50")
	leader, followers := c.Leader(t), c.Followers(t)
	away, next := followers[0], followers[1]
	rest := &harness.Cluster{Members: []*harness.Server{leader, next}}
	o := observe(t, away)
	for _, start := range []int64{0, 1, 5000} {
		for _, req := range ways() {
			req.StartRevision = start
			o.watch(req)
		}
	}
	o.allCreated()
	writes := write(t, rest.Client(t), "own", hot)
	writes.more(100)
	away.Pause(t)
	// A new leader does not know how far the member is, and keeps nothing for it.
	_, err := pb.NewMaintenanceClient(leader.Conn(t)).MoveLeader(o.ctx, &pb.MoveLeaderRequest{TargetID: next.ID(t)})
	harness.Fatal(t, err)
	writes.more(400)
	away.Resume(t)
	away.CatchUp(t)
	writes.more(100)
	h := finish(t, next, writes)
	o.wait("the watches have caught up", func() error {
		for _, w := range o.byID {
			if err := o.compare(w, h); err != nil {
				return fmt.Errorf("watch %d: %w", w.id, err)
			}
		}
		return nil
	})
	if n := away.SnapshotsReceived(t); n < 1 {
		t.Errorf("it received %v snapshots: it was not far enough behind", n)
	}
}
