// Package wire sends what no well-behaved client sends: bytes that are no
// message, strings that are no UTF-8, methods that do not exist, streams that
// are abandoned. The server must answer with an error and go on serving.
package wire

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

const testTimeout = 30 * time.Second

func TestMain(m *testing.M) { harness.Main(m) }

// rawCodec passes bytes through, so that a test chooses every one of them.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func (rawCodec) Name() string { return "proto" }

type fixture struct {
	testing.TB
	ctx    context.Context
	server *harness.Server
	raw    *grpc.ClientConn
}

func common(t testing.TB) *fixture {
	s := harness.Shared(t)
	raw := s.Conn(t, grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	return &fixture{TB: t, ctx: harness.Context(t, testTimeout), server: s, raw: raw}
}

func (f *fixture) call(method string, request []byte) ([]byte, error) {
	var reply []byte
	err := f.raw.Invoke(f.ctx, method, &request, &reply)
	return reply, err
}

// serves checks that an ordinary call still works.
func (f *fixture) serves() {
	f.Helper()
	_, err := pb.NewKVClient(f.server.Conn(f)).Range(f.ctx, &pb.RangeRequest{Key: []byte("still there")})
	harness.Fatal(f, err)
}

// field makes a length-delimited protobuf field.
func field(number int, content string) []byte {
	return append([]byte{byte(number<<3 | 2), byte(len(content))}, content...)
}

func TestBrokenMessages(t *testing.T) {
	f := common(t)
	broken := map[string][]byte{
		"length past the end": {0x0a, 0x7f, 'k'},
		"endless varint":      bytes.Repeat([]byte{0xff}, 40),
		"cut varint":          {0x18, 0x80},
		"field number 0":      {0x02, 0x01, 'k'},
		"wire type 7":         {0x0f, 0x01},
		"huge length":         {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"end of group":        {0x0c},
		"text":                []byte("GET / HTTP/1.1\r\n\r\n"),
	}
	for _, method := range []string{"/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Maintenance/Status"} {
		for name, message := range broken {
			t.Run(method+" "+name, func(t *testing.T) {
				_, err := f.call(method, message)
				code, text := harness.ErrorParts(err)
				if err == nil || code == codes.Unavailable || code == codes.DeadlineExceeded {
					t.Errorf("got %s %q, an error about the message is due", code, text)
				}
				t.Logf("%s %q", code, text)
			})
		}
	}
	f.serves()
}

// Strings of a protobuf message must be UTF-8; keys and values are bytes.
func TestBadUTF8(t *testing.T) {
	f := common(t)
	f.server.Needs(t, "3.7") // older ones take gogo's word for strings
	reply, err := f.call("/etcdserverpb.Auth/AuthEnable", nil)
	t.Logf("AuthEnable without root: %q %v", reply, err)
	bad := field(1, "\xff\xfe bad")
	_, err = f.call("/etcdserverpb.Cluster/MemberAdd", bad)
	code, text := harness.ErrorParts(err)
	if err == nil || code == codes.Unavailable {
		t.Errorf("a string that is no UTF-8: %s %q", code, text)
	}
	t.Logf("%s %q", code, text)
	_, err = f.call("/etcdserverpb.KV/Range", bad)
	harness.Fatal(t, err)
	f.serves()
}

// Fields that the server does not know are skipped.
func TestUnknownFields(t *testing.T) {
	f := common(t)
	unknown := append(field(1, "k"), 0xf8, 0x3f, 0x2a)    // field 1023, varint
	unknown = append(unknown, 0xfa, 0x3f, 0x02, 'h', 'i') // field 1023, bytes
	_, err := f.call("/etcdserverpb.KV/Range", unknown)
	harness.Fatal(t, err)
}

// A repeated singular field: the last one counts.
func TestRepeatedSingularField(t *testing.T) {
	f := common(t)
	put := append(append(field(1, "first"), field(1, "last")...), field(2, "v")...)
	_, err := f.call("/etcdserverpb.KV/Put", put)
	harness.Fatal(t, err)
	resp, err := pb.NewKVClient(f.server.Conn(t)).Range(f.ctx, &pb.RangeRequest{Key: []byte("last")})
	harness.Fatal(t, err)
	harness.Equal(t, "count", resp.Count, 1)
}

func TestUnknownMethods(t *testing.T) {
	f := common(t)
	cases := map[string]string{
		"/etcdserverpb.KV/Nope": "unknown method Nope for service etcdserverpb.KV",
		"/nope.Service/Nope":    "unknown service nope.Service",
	}
	for method, text := range cases {
		_, err := f.call(method, nil)
		code, got := harness.ErrorParts(err)
		harness.Equal(t, method, code, codes.Unimplemented)
		if got != text {
			t.Logf("%s: text %q, etcd says %q", method, got, text)
		}
	}
	f.serves()
}

// A deeply nested txn: refused or answered, but the server lives.
func TestDeepTxn(t *testing.T) {
	f := common(t)
	for _, depth := range []int{40, 500, 5_000} {
		message := []byte{}
		for range depth {
			message = wrapTxn(message)
		}
		_, err := f.call("/etcdserverpb.KV/Txn", message)
		code, text := harness.ErrorParts(err)
		if code == codes.Unavailable || code == codes.DeadlineExceeded || (code == codes.OK) != (depth == 40) {
			t.Errorf("depth %d: %s %q", depth, code, text)
		}
		t.Logf("depth %d (%d bytes): %s %q", depth, len(message), code, text)
	}
	f.serves()
}

// wrapTxn puts a txn's bytes into success[0].request_txn of another.
func wrapTxn(inner []byte) []byte {
	op := append([]byte{4<<3 | 2}, append(varint(len(inner)), inner...)...)
	return append([]byte{2<<3 | 2}, append(varint(len(op)), op...)...)
}

func varint(n int) []byte {
	var out []byte
	for ; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

func TestUnknownEnums(t *testing.T) {
	f := common(t)
	conn := f.server.Conn(t)
	kv := pb.NewKVClient(conn)
	unknown := func(target pb.Compare_CompareTarget, result pb.Compare_CompareResult) *pb.TxnRequest {
		return &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("enum"), Target: target, Result: result}}}
	}
	// An unknown operator or target decides nothing, so the comparison holds.
	for _, req := range []*pb.TxnRequest{unknown(pb.Compare_VERSION, 77), unknown(77, pb.Compare_EQUAL), unknown(-1, -1)} {
		resp, err := kv.Txn(f.ctx, req)
		harness.Fatal(t, err)
		harness.Equal(t, "holds", resp.Succeeded, true)
	}
	stream, err := pb.NewWatchClient(conn).Watch(f.ctx)
	harness.Fatal(t, err)
	harness.Fatal(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte("enum"), Filters: []pb.WatchCreateRequest_FilterType{99}}}}))
	reply, err := stream.Recv()
	harness.Fatal(t, err)
	harness.Equal(t, "an unknown filter filters nothing", reply.Created && !reply.Canceled, true)
	f.serves()
}

// An unknown alarm action ends every etcd up to 3.7 with a nil dereference, so
// only castd is asked.
func TestUnknownAlarmAction(t *testing.T) {
	f := common(t)
	if !f.server.IsCastd() {
		t.Skip("it would end a real etcd")
	}
	reply, err := pb.NewMaintenanceClient(f.server.Conn(t)).Alarm(f.ctx, &pb.AlarmRequest{Action: 77})
	code, text := harness.ErrorParts(err)
	if code == codes.Unavailable || code == codes.DeadlineExceeded || len(reply.GetAlarms()) != 0 {
		t.Errorf("%v, %s %q", reply, code, text)
	}
	f.serves()
}

// A compare whose value is of another kind than its target is against zero.
func TestCompareOfMixedKinds(t *testing.T) {
	f := common(t)
	kv := pb.NewKVClient(f.server.Conn(t))
	key := []byte(harness.Prefix(t))
	_, err := kv.Put(f.ctx, &pb.PutRequest{Key: key, Value: []byte("v")})
	harness.Fatal(t, err)
	for target, want := range map[pb.Compare_CompareTarget]bool{pb.Compare_VERSION: false, pb.Compare_LEASE: true} {
		resp, err := kv.Txn(f.ctx, &pb.TxnRequest{Compare: []*pb.Compare{{
			Key: key, Target: target, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_Value{Value: []byte("1")}}}})
		harness.Fatal(t, err)
		harness.Equal(t, target.String(), resp.Succeeded, want)
	}
}

func TestMetadata(t *testing.T) {
	f := common(t)
	kv := pb.NewKVClient(f.server.Conn(t))
	with := func(pairs ...string) error {
		_, err := kv.Range(metadata.AppendToOutgoingContext(f.ctx, pairs...), &pb.RangeRequest{Key: []byte("a")})
		return err
	}
	harness.Fatal(t, with("hasleader", "true"))
	harness.Fatal(t, with("hasleader", "nonsense"))
	harness.Fatal(t, with("client-api-version", "3.7.1"))
	if !f.server.Older("3.6") { // older ones look at a token even without auth
		harness.Fatal(t, with("token", "no-auth-so-nobody-looks"))
		harness.Fatal(t, with("authorization", "Bearer nothing"))
	}
	harness.Fatal(t, with("x-anything", strings.Repeat("y", 4000)))
}

// The 3.4 client puts the endpoint as it was written, scheme and all, into
// :authority when it asks one member (endpoint status, hashkv, defrag).
func TestAuthorityWithScheme(t *testing.T) {
	f := common(t)
	for _, authority := range []string{"http://" + f.server.Addr, "https://" + f.server.Addr, "unix:/some/socket", "#initially=[" + f.server.Addr + ";" + f.server.Addr + "]", ""} {
		conn := f.server.Conn(t, grpc.WithAuthority(authority))
		_, err := pb.NewMaintenanceClient(conn).Status(f.ctx, &pb.StatusRequest{})
		if err != nil {
			t.Errorf("authority %q: %v", authority, err)
		}
	}
}

// Bytes that are no HTTP at all on the shared port.
func TestGarbageConnections(t *testing.T) {
	f := common(t)
	for _, garbage := range []string{"\x00\x01\x02\x03", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 200), "GET\r\n\r\n", strings.Repeat("A", 100_000)} {
		conn, err := net.DialTimeout("tcp", f.server.Addr, time.Second)
		harness.Fatal(t, err)
		_, _ = conn.Write([]byte(garbage))
		_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		buffer := make([]byte, 256)
		n, _ := conn.Read(buffer)
		t.Logf("%.12q: %d bytes back", garbage, n)
		_ = conn.Close()
	}
	f.serves()
}

// Many connections that say nothing do not stop others.
func TestIdleConnections(t *testing.T) {
	f := common(t)
	for range 200 {
		conn, err := net.DialTimeout("tcp", f.server.Addr, 5*time.Second)
		harness.Fatal(t, err)
		defer conn.Close()
	}
	f.serves()
}

// Calls that are canceled and streams that are dropped leave nothing behind.
func TestAbandonedCalls(t *testing.T) {
	f := common(t)
	conn := f.server.Conn(t)
	kv, watch := pb.NewKVClient(conn), pb.NewWatchClient(conn)
	for i := range 200 {
		ctx, cancel := context.WithTimeout(f.ctx, time.Duration(i)*20*time.Microsecond)
		_, _ = kv.Put(ctx, &pb.PutRequest{Key: []byte("abandoned"), Value: []byte("v")})
		cancel()
		ctx, cancel = context.WithCancel(f.ctx)
		stream, err := watch.Watch(ctx)
		harness.Fatal(t, err)
		_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
			CreateRequest: &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}}}})
		if i%2 == 0 {
			_, _ = stream.Recv()
		}
		cancel()
	}
	f.serves()
}

// A watcher that does not read: others get their events, and the server stays.
func TestStalledWatcher(t *testing.T) {
	f := common(t)
	large := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20))
	slow, err := pb.NewWatchClient(f.server.Conn(t, large)).Watch(f.ctx)
	harness.Fatal(t, err)
	prefix := harness.Prefix(t)
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: []byte(prefix[:len(prefix)-1] + "0")}}}
	harness.Fatal(t, slow.Send(create))
	_, err = slow.Recv()
	harness.Fatal(t, err)
	quick, err := pb.NewWatchClient(f.server.Conn(t, large)).Watch(f.ctx)
	harness.Fatal(t, err)
	harness.Fatal(t, quick.Send(create))
	_, err = quick.Recv()
	harness.Fatal(t, err)
	const puts = 300
	kv := pb.NewKVClient(f.server.Conn(t))
	go func() {
		for i := range puts {
			_, _ = kv.Put(f.ctx, &pb.PutRequest{Key: []byte(fmt.Sprint(prefix, i)), Value: make([]byte, 30_000)})
		}
	}()
	count := func(stream pb.Watch_WatchClient) {
		for seen := 0; seen < puts; {
			reply, err := stream.Recv()
			harness.Fatal(t, err)
			for _, e := range reply.Events {
				harness.Equal(t, "order", string(e.Kv.Key), fmt.Sprint(prefix, seen))
				seen++
			}
		}
	}
	count(quick)
	count(slow) // the late one still gets every event, in order
}
