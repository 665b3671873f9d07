package watch

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
)

// observer is a plain stream with any number of watches. It notes what each is
// told and checks, reply by reply, what a server promises whatever happens:
//
//   - created comes first, and nothing after canceled;
//   - the revisions of a watch rise, and all events of one come in one reply;
//   - the parts of a reply in fragments come one after the other, with nothing
//     of anyone else between them;
//   - after progress at a revision no event of it or of an earlier one comes.
type observer struct {
	testing.TB
	ctx    context.Context
	end    context.CancelFunc
	castd  bool
	stream pb.Watch_WatchClient

	sending sync.Mutex

	mu sync.Mutex
	// asked are the watches whose creation is not answered yet, the oldest first.
	asked []*watched
	byID  map[int64]*watched
	// part is the beginning of a reply in fragments, until its last one is there.
	part *pb.WatchResponse
	// parts counts fragments after which more came.
	parts int
	// progress is the revision of the last answer to a progress request, and
	// answers counts them.
	progress int64
	answers  int
	broken   error
}

// watched is one watch and what it was told.
type watched struct {
	req      *pb.WatchCreateRequest
	id       int64
	created  bool
	refused  bool
	canceled bool
	// compacted is the compact revision that it was canceled with.
	compacted int64
	// from is the header's revision in the reply that it is created.
	from   int64
	events []*mvccpb.Event
	// last is the revision of its last event, told the one that progress
	// replies have promised.
	last int64
	told int64
	// notices counts the progress replies of its own.
	notices int
}

// dial opens a connection for an observer: replies of any size, and a window
// that a stopped reader fills soon.
func dial(t testing.TB, s *harness.Server) *grpc.ClientConn { return dialTo(t, s.Addr) }

func dialTo(t testing.TB, addr string) *grpc.ClientConn {
	const window = 64 << 10
	return harness.Dial(t, addr, grpc.WithInitialWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
}

// observe opens a stream on a connection of its own and reads it.
func observe(t testing.TB, s *harness.Server) *observer {
	t.Helper()
	o := observeStopped(t, s, dial(t, s))
	o.read()
	return o
}

// observeStopped opens a stream of a connection and reads nothing until read is
// called.
func observeStopped(t testing.TB, s *harness.Server, conn *grpc.ClientConn) *observer {
	t.Helper()
	ctx, end := context.WithCancel(harness.Context(t, 2*testTimeout))
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	harness.Fatal(t, err)
	t.Cleanup(end)
	return &observer{TB: t, ctx: ctx, end: end, castd: s.IsCastd(), stream: stream, byID: map[int64]*watched{}}
}

func (o *observer) read() {
	go func() {
		for {
			reply, err := o.stream.Recv()
			o.mu.Lock()
			if err == nil {
				err = o.take(reply)
			}
			if err != nil && o.broken == nil {
				o.broken = err
			}
			o.mu.Unlock()
			if err != nil {
				o.end()
				return
			}
		}
	}()
}

func (o *observer) send(req *pb.WatchRequest) {
	o.Helper()
	o.sending.Lock()
	defer o.sending.Unlock()
	if err := o.stream.Send(req); err != nil {
		o.check()
		o.Fatal(err)
	}
}

// watch asks for a watch and does not wait for the answer.
func (o *observer) watch(req *pb.WatchCreateRequest) *watched {
	o.Helper()
	w := &watched{req: req, id: -1}
	o.mu.Lock()
	o.asked = append(o.asked, w)
	o.mu.Unlock()
	o.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}})
	return w
}

func (o *observer) cancel(w *watched) {
	o.Helper()
	o.cancelID(w.id)
}

func (o *observer) cancelID(id int64) {
	o.Helper()
	o.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (o *observer) askProgress() {
	o.Helper()
	o.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

// check ends the test when something was broken that must hold.
func (o *observer) check() {
	o.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		o.Fatal(o.broken)
	}
}

// wait returns when a condition holds; it is asked under the observer's lock.
func (o *observer) wait(what string, condition func() error) {
	o.Helper()
	harness.Eventually(o, 2*testTimeout, what, func() error {
		o.check()
		o.mu.Lock()
		defer o.mu.Unlock()
		return condition()
	})
}

// allCreated waits until every request to watch is answered.
func (o *observer) allCreated() {
	o.Helper()
	o.wait("all watches are created", func() error {
		if n := len(o.asked); n > 0 {
			return fmt.Errorf("%d are not", n)
		}
		return nil
	})
}

// reach waits until the server says of the whole stream that it is as far as a
// revision. etcd does not answer while one of its watches lags: so it is asked
// again.
func (o *observer) reach(revision int64) {
	o.Helper()
	for {
		o.mu.Lock()
		before := o.answers
		o.mu.Unlock()
		o.askProgress()
		deadline := time.Now().Add(quiet)
		for time.Now().Before(deadline) {
			o.check()
			o.mu.Lock()
			there, answered := o.progress >= revision, o.answers > before
			o.mu.Unlock()
			if there {
				return
			}
			if answered {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if o.ctx.Err() != nil {
			o.Fatalf("no progress to revision %d", revision)
		}
	}
}

// take notes a reply.
func (o *observer) take(r *pb.WatchResponse) error {
	if o.part != nil && (r.WatchId != o.part.WatchId || r.Created || r.Canceled || len(r.Events) == 0) {
		return fmt.Errorf("between the fragments of watch %d: %s", o.part.WatchId, describe(r))
	}
	switch {
	case r.Created:
		return o.takeCreated(r)
	case isProgress(r):
		return o.takeProgress(r)
	}
	w := o.byID[r.WatchId]
	if w == nil {
		return fmt.Errorf("of a watch that was not created: %s", describe(r))
	}
	switch {
	case w.canceled:
		return fmt.Errorf("after it was canceled: %s %s", describe(r), firstEvent(r))
	case r.Canceled:
		w.canceled, w.compacted = true, r.CompactRevision
		return nil
	case len(r.Events) == 0:
		w.notices++
		return w.promise(r.Header.Revision)
	}
	return o.takeEvents(w, r)
}

func firstEvent(r *pb.WatchResponse) string {
	if len(r.Events) == 0 {
		return ""
	}
	return "first " + place(r.Events[0])
}

func (o *observer) takeCreated(r *pb.WatchResponse) error {
	if len(o.asked) == 0 {
		return fmt.Errorf("nobody asked for it: %s", describe(r))
	}
	w := o.asked[0]
	o.asked = o.asked[1:]
	w.id, w.created, w.refused, w.from = r.WatchId, true, r.Canceled, r.Header.Revision
	if w.refused {
		return nil
	}
	if old := o.byID[w.id]; old != nil && !old.canceled {
		return fmt.Errorf("the id is in use: %s", describe(r))
	}
	o.byID[w.id] = w
	return nil
}

func (o *observer) takeProgress(r *pb.WatchResponse) error {
	o.answers++
	if r.Header.Revision < o.progress {
		return fmt.Errorf("progress at %d after %d", r.Header.Revision, o.progress)
	}
	o.progress = r.Header.Revision
	for _, w := range o.byID {
		if err := w.promise(o.progress); err != nil {
			return err
		}
	}
	return nil
}

// promise notes that a watch has all events up to a revision.
func (w *watched) promise(revision int64) error {
	if !w.canceled && w.last > revision {
		return fmt.Errorf("watch %d: progress at %d after an event at %d", w.id, revision, w.last)
	}
	w.told = max(w.told, revision)
	return nil
}

func (o *observer) takeEvents(w *watched, r *pb.WatchResponse) error {
	if o.part == nil {
		o.part = r
	} else {
		o.part.Events = append(o.part.Events, r.Events...)
	}
	if r.Fragment {
		if !w.req.Fragment {
			return fmt.Errorf("watch %d did not ask for fragments", w.id)
		}
		o.parts++
		return nil
	}
	whole := o.part
	o.part = nil
	first := whole.Events[0].Kv.ModRevision
	if first <= w.last {
		return fmt.Errorf("watch %d: a reply begins at revision %d after one that ended at %d", w.id, first, w.last)
	}
	if first <= w.told {
		return fmt.Errorf("watch %d: an event at %d after progress at %d", w.id, first, w.told)
	}
	for _, e := range whole.Events {
		if e.Kv.ModRevision < w.last {
			return fmt.Errorf("watch %d: revision %d after %d", w.id, e.Kv.ModRevision, w.last)
		}
		w.last = e.Kv.ModRevision
	}
	if r.Header.Revision < w.last {
		return fmt.Errorf("watch %d: an event at %d under a header at %d", w.id, w.last, r.Header.Revision)
	}
	w.events = append(w.events, whole.Events...)
	return nil
}

// wantExactly compares what every watch was told with what it should have been.
func (o *observer) wantExactly(h history) {
	o.Helper()
	o.check()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.byID {
		if err := o.compare(w, h); err != nil {
			o.Errorf("watch %d of %q %q: %v", w.id, w.req.Key, w.req.RangeEnd, err)
		}
	}
}

func (o *observer) compare(w *watched, h history) error {
	want := h.of(w.req)
	switch {
	case w.canceled:
		// What came before: the beginning, nothing left out.
		start := w.begin(want)
		if start+len(w.events) > len(want) {
			return fmt.Errorf("%d events, there are %d", len(w.events), len(want)-start)
		}
		want = want[start : start+len(w.events)]
	default:
		want = want[w.begin(want):]
	}
	// etcd forgets what a watch asked for when its cancel comes, before it has sent
	// the last events.
	prev := w.req.PrevKv && (o.castd || !w.canceled)
	return sameEvents(w.events, want, prev, o.castd)
}

// begin finds where a watch begins that was to begin now. The revision in the
// reply that it is created may be one or two further: the server was writing.
func (w *watched) begin(want []*mvccpb.Event) int {
	if w.req.StartRevision != 0 {
		return 0
	}
	after := func(revision int64) int {
		return slices.IndexFunc(append(slices.Clone(want), nil), func(e *mvccpb.Event) bool {
			return e == nil || e.Kv.ModRevision > revision
		})
	}
	if len(w.events) > 0 && w.events[0].Kv.ModRevision <= w.from {
		return after(w.events[0].Kv.ModRevision - 1)
	}
	return after(w.from)
}

// history is every event of a store, with the pairs before.
type history []*mvccpb.Event

// readHistory watches everything from the beginning, through a member, up to a
// revision.
func readHistory(t testing.TB, s *harness.Server, upTo int64) history {
	t.Helper()
	o := observe(t, s)
	defer o.end()
	w := o.watch(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1, PrevKv: true})
	o.wait(fmt.Sprintf("history reaches %d", upTo), func() error {
		if w.last < upTo {
			return fmt.Errorf("it is at %d", w.last)
		}
		return nil
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	return w.events
}

// of is what a watch from its start revision must be told.
func (h history) of(req *pb.WatchCreateRequest) []*mvccpb.Event {
	var of []*mvccpb.Event
	for _, e := range h {
		if e.Kv.ModRevision >= req.StartRevision && matches(req, e) {
			of = append(of, e)
		}
	}
	return of
}

func matches(req *pb.WatchCreateRequest, e *mvccpb.Event) bool {
	for _, f := range req.Filters {
		if f == pb.WatchCreateRequest_NOPUT && e.Type == mvccpb.PUT || f == pb.WatchCreateRequest_NODELETE && e.Type == mvccpb.DELETE {
			return false
		}
	}
	switch {
	case len(req.RangeEnd) == 0:
		return bytes.Equal(e.Kv.Key, req.Key)
	case bytes.Equal(req.RangeEnd, []byte{0}):
		return bytes.Compare(e.Kv.Key, req.Key) >= 0
	}
	return bytes.Compare(e.Kv.Key, req.Key) >= 0 && bytes.Compare(e.Kv.Key, req.RangeEnd) < 0
}

// sameEvents compares events; wanted ones always have the pair before. etcd lets
// that slip into events of those who did not ask for it, castd does not.
func sameEvents(got, want []*mvccpb.Event, prev, castd bool) error {
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("%d of %d events came, missing from %s on", i, len(want), place(want[i]))
		case i >= len(want):
			return fmt.Errorf("%d events are due, then came %s", len(want), place(got[i]))
		}
		g, w := got[i], want[i]
		if g.Type != w.Type || !samePair(g.Kv, w.Kv) {
			return fmt.Errorf("event %d of %d: got %s, want %s", i, len(want), place(g), place(w))
		}
		if prev && !samePair(g.PrevKv, w.PrevKv) || !prev && castd && g.PrevKv != nil {
			return fmt.Errorf("event %d of %d, %s: the pair before is wrong", i, len(want), place(g))
		}
	}
	return nil
}

// place says which event it is, without the value, which may be large.
func place(e *mvccpb.Event) string {
	return fmt.Sprintf("%s %s c%d m%d v%d", e.Type, e.Kv.Key, e.Kv.CreateRevision, e.Kv.ModRevision, e.Kv.Version)
}

func samePair(a, b *mvccpb.KeyValue) bool {
	if a == nil || b == nil {
		return a == b
	}
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.CreateRevision == b.CreateRevision &&
		a.ModRevision == b.ModRevision && a.Version == b.Version && a.Lease == b.Lease
}

// last is the revision of the last event.
func (h history) last() int64 { return h[len(h)-1].Kv.ModRevision }
