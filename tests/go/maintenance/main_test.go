// Package maintenance drives the Maintenance, Cluster and Health services.
package maintenance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

const testTimeout = 60 * time.Second

func TestMain(m *testing.M) { harness.Main(m) }

type fixture struct {
	testing.TB
	ctx         context.Context
	server      *harness.Server
	conn        *grpc.ClientConn
	kv          pb.KVClient
	lease       pb.LeaseClient
	maintenance pb.MaintenanceClient
}

func fresh(t testing.TB, flags ...string) *fixture { return on(t, harness.Start(t, flags...)) }

func on(t testing.TB, s *harness.Server) *fixture {
	conn := s.Conn(t)
	return &fixture{TB: t, ctx: harness.Context(t, testTimeout), server: s, conn: conn,
		kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), maintenance: pb.NewMaintenanceClient(conn)}
}

func (f *fixture) put(key, value string) {
	f.Helper()
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	harness.Fatal(f, err)
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

func (f *fixture) status() *pb.StatusResponse {
	f.Helper()
	s, err := f.maintenance.Status(f.ctx, &pb.StatusRequest{})
	harness.Fatal(f, err)
	return s
}

func (f *fixture) alarm(action pb.AlarmRequest_AlarmAction, member uint64, kind pb.AlarmType) string {
	f.Helper()
	resp, err := f.maintenance.Alarm(f.ctx, &pb.AlarmRequest{Action: action, MemberID: member, Alarm: kind})
	harness.Fatal(f, err)
	out := ""
	for _, a := range resp.Alarms {
		out += fmt.Sprintf("[%d %s]", a.MemberID, a.Alarm)
	}
	return out
}
