// Package watch drives the Watch service, with plain streams where the exact
// replies matter and with the official client where its resuming matters.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	testTimeout = 2 * time.Minute
	// quiet is how long "nothing arrives" is watched for.
	quiet = 300 * time.Millisecond
)

func TestMain(m *testing.M) { harness.Main(m) }

// fixture is a server, a KV stub and one plain watch stream.
type fixture struct {
	testing.TB
	ctx     context.Context
	server  *harness.Server
	kv      pb.KVClient
	stream  pb.Watch_WatchClient
	replies chan *pb.WatchResponse
	ended   chan error
	// late is how many answers to progress requests may still come unasked for.
	late int
}

func fresh(t testing.TB, flags ...string) *fixture { return on(t, harness.Start(t, flags...)) }

// truthful starts a server for a test that relies on progress replies, which said
// too much before etcd 3.5.8.
func truthful(t testing.TB, flags ...string) *harness.Server {
	t.Helper()
	s := harness.Start(t, flags...)
	s.Needs(t, "3.5.8")
	return s
}

func on(t testing.TB, s *harness.Server) *fixture {
	conn := s.Conn(t)
	f := &fixture{TB: t, ctx: harness.Context(t, testTimeout), server: s, kv: pb.NewKVClient(conn)}
	f.open(pb.NewWatchClient(conn))
	return f
}

// open starts the stream and a reader that hands its replies over in order.
func (f *fixture) open(client pb.WatchClient) {
	f.Helper()
	stream, err := client.Watch(f.ctx)
	harness.Fatal(f, err)
	f.stream, f.replies, f.ended = stream, make(chan *pb.WatchResponse, 4096), make(chan error, 1)
	go func(replies chan *pb.WatchResponse, ended chan error) {
		for {
			reply, err := stream.Recv()
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				ended <- err
				return
			}
			replies <- reply
		}
	}(f.replies, f.ended)
}

func (f *fixture) send(req *pb.WatchRequest) {
	f.Helper()
	harness.Fatal(f, f.stream.Send(req))
}

// create sends a create request and gives the first reply.
func (f *fixture) create(req *pb.WatchCreateRequest) *pb.WatchResponse {
	f.Helper()
	f.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}})
	return f.next()
}

// created is create for a request that must be accepted; it gives the watch id.
func (f *fixture) created(req *pb.WatchCreateRequest) int64 {
	f.Helper()
	reply := f.create(req)
	if !reply.Created || reply.Canceled {
		f.Fatalf("not created: %v", reply)
	}
	return reply.WatchId
}

func (f *fixture) cancel(id int64) {
	f.Helper()
	f.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (f *fixture) progress() {
	f.Helper()
	f.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (f *fixture) next() *pb.WatchResponse {
	f.Helper()
	for {
		select {
		case reply := <-f.replies:
			if f.late > 0 && isProgress(reply) {
				f.late--
				continue
			}
			return reply
		case err := <-f.ended:
			f.Fatalf("the stream ended: %v", err)
		case <-f.ctx.Done():
			f.Fatal("no reply came")
		}
	}
}

// isProgress says whether a reply answers a progress request.
func isProgress(r *pb.WatchResponse) bool {
	return r.WatchId == -1 && !r.Created && !r.Canceled && len(r.Events) == 0
}

// none checks that nothing arrives for a while.
func (f *fixture) none() {
	f.Helper()
	select {
	case reply := <-f.replies:
		f.Errorf("unexpected reply: %v", reply)
	case err := <-f.ended:
		f.Errorf("the stream ended: %v", err)
	case <-time.After(quiet):
	}
}

// events collects n events of one watch, checking that nothing else comes.
func (f *fixture) events(id int64, n int) string {
	f.Helper()
	var got []string
	for len(got) < n {
		reply := f.next()
		if reply.WatchId != id || reply.Created || reply.Canceled || len(reply.Events) == 0 {
			f.Fatalf("waiting for events of watch %d: %v", id, reply)
		}
		for _, e := range reply.Events {
			got = append(got, harness.Event(e))
		}
	}
	return strings.Join(got, "; ")
}

func (f *fixture) put(key, value string) int64 {
	f.Helper()
	resp, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	harness.Fatal(f, err)
	return resp.Header.Revision
}

func (f *fixture) delete(key, end string) {
	f.Helper()
	_, err := f.kv.DeleteRange(f.ctx, &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)})
	harness.Fatal(f, err)
}

func (f *fixture) compact(rev int64) {
	f.Helper()
	_, err := f.kv.Compact(f.ctx, &pb.CompactionRequest{Revision: rev, Physical: true})
	harness.Fatal(f, err)
}

func key(k string) *pb.WatchCreateRequest { return &pb.WatchCreateRequest{Key: []byte(k)} }

func between(k, end string) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte(k), RangeEnd: []byte(end)}
}

func opPut(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func opDelete(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

func describe(r *pb.WatchResponse) string {
	return fmt.Sprintf("id=%d created=%v canceled=%v compact=%d reason=%q events=%d rev=%d",
		r.WatchId, r.Created, r.Canceled, r.CompactRevision, r.CancelReason, len(r.Events), r.Header.GetRevision())
}
