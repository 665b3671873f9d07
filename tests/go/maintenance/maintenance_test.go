package maintenance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	before := f.status()
	for i := range 20 {
		f.put(fmt.Sprint(i), "v")
	}
	s := f.status()
	harness.Equal(t, "header revision", s.Header.Revision, 21)
	if harness.Members() == 1 {
		harness.Equal(t, "leader is the member itself", s.Leader, s.Header.MemberId)
	}
	harness.Equal(t, "term", s.RaftTerm, s.Header.RaftTerm)
	harness.Equal(t, "no errors", len(s.Errors), 0)
	harness.Equal(t, "no learner", s.IsLearner, false)
	harness.Equal(t, "version has three numbers", strings.Count(s.Version, "."), 2)
	if s.RaftIndex < before.RaftIndex+20 || s.RaftAppliedIndex < before.RaftAppliedIndex+20 || s.RaftAppliedIndex > s.RaftIndex {
		t.Errorf("raft index %d, applied %d; before: %d, %d", s.RaftIndex, s.RaftAppliedIndex, before.RaftIndex, before.RaftAppliedIndex)
	}
	if s.RaftTerm == 0 || s.DbSize <= 0 || s.DbSizeInUse <= 0 || s.DbSizeInUse > s.DbSize {
		t.Errorf("term %d, size %d, in use %d", s.RaftTerm, s.DbSize, s.DbSizeInUse)
	}
}

func TestStatusOf36(t *testing.T) {
	t.Parallel()
	f := fresh(t, "--quota-backend-bytes=123456789")
	f.server.Needs(t, "3.6")
	s := f.status()
	harness.Equal(t, "quota", s.DbSizeQuota, 123456789)
	harness.Equal(t, "no downgrade", s.DowngradeInfo.GetEnabled(), false)
	harness.Equal(t, "no target", s.DowngradeInfo.GetTargetVersion(), "")
	minor := s.Version[:strings.LastIndex(s.Version, ".")]
	// It follows the cluster version, which is decided a moment after the start.
	for s.StorageVersion == "" && f.ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		s = f.status()
	}
	harness.Equal(t, "storage version", s.StorageVersion, minor+".0")
	plain := on(t, harness.Shared(t))
	harness.Equal(t, "default quota", plain.status().DbSizeQuota, 2<<30)
}

func TestAlarms(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	me := f.status().Header.MemberId
	const get, on, off = pb.AlarmRequest_GET, pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE
	noSpace := fmt.Sprintf("[%d NOSPACE]", me)
	harness.Equal(t, "none", f.alarm(get, 0, pb.AlarmType_NONE), "")
	harness.Equal(t, "activating none does nothing", f.alarm(on, me, pb.AlarmType_NONE), "")
	harness.Equal(t, "activate", f.alarm(on, me, pb.AlarmType_NOSPACE), noSpace)
	harness.Equal(t, "get all", f.alarm(get, 0, pb.AlarmType_NONE), noSpace)
	harness.Equal(t, "get one kind", f.alarm(get, 0, pb.AlarmType_NOSPACE), noSpace)
	harness.Equal(t, "get another kind", f.alarm(get, 0, pb.AlarmType_CORRUPT), "")
	harness.Equal(t, "errors in the status", len(f.status().Errors), 1)
	f.delete("x", "")
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("v")})
	harness.WantError(t, err, codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded")
	_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte("a")}}}}})
	harness.WantError(t, err, codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded")
	_, err = f.lease.LeaseGrant(f.ctx, &pb.LeaseGrantRequest{TTL: 100})
	harness.WantError(t, err, codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded")
	_, err = f.kv.Range(f.ctx, &pb.RangeRequest{Key: []byte("a")})
	harness.Fatal(t, err)
	f.server.Kill(t)
	f.server.Restart(t)
	harness.Equal(t, "survives a restart", f.alarm(get, 0, pb.AlarmType_NONE), noSpace)
	harness.Equal(t, "deactivate", f.alarm(off, me, pb.AlarmType_NOSPACE), noSpace)
	harness.Equal(t, "deactivate again", f.alarm(off, me, pb.AlarmType_NOSPACE), "")
	harness.Equal(t, "none left", f.alarm(get, 0, pb.AlarmType_NONE), "")
	f.put("a", "v")
}

func TestCorruptAlarmStopsWritesAndReads(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	me := f.status().Header.MemberId
	f.alarm(pb.AlarmRequest_ACTIVATE, me, pb.AlarmType_CORRUPT)
	_, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("v")})
	harness.WantError(t, err, codes.DataLoss, "etcdserver: corrupt cluster")
	_, err = f.kv.DeleteRange(f.ctx, &pb.DeleteRangeRequest{Key: []byte("a")})
	harness.WantError(t, err, codes.DataLoss, "etcdserver: corrupt cluster")
	_, err = f.kv.Txn(f.ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte("a")}}}}})
	harness.WantError(t, err, codes.DataLoss, "etcdserver: corrupt cluster")
	_, err = f.lease.LeaseGrant(f.ctx, &pb.LeaseGrantRequest{TTL: 100})
	harness.WantError(t, err, codes.DataLoss, "etcdserver: corrupt cluster")
	f.alarm(pb.AlarmRequest_DEACTIVATE, me, pb.AlarmType_CORRUPT)
	f.put("a", "v")
}

func TestQuotaRaisesTheAlarm(t *testing.T) {
	t.Parallel()
	f := fresh(t, "--quota-backend-bytes=1000000")
	value := strings.Repeat("v", 20_000)
	var err error
	for i := 0; i < 500 && err == nil; i++ {
		_, err = f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte(fmt.Sprint(i)), Value: []byte(value)})
	}
	harness.WantError(t, err, codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded")
	raised := f.alarm(pb.AlarmRequest_GET, 0, pb.AlarmType_NONE)
	if harness.Members() == 1 {
		harness.Equal(t, "alarm", raised, fmt.Sprintf("[%d NOSPACE]", f.status().Header.MemberId))
	} else if !strings.Contains(raised, " NOSPACE]") { // by each member that found it out
		t.Errorf("alarm: %q", raised)
	}
}

func TestDefragment(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	for i := range 200 {
		f.put(fmt.Sprintf("k%03d", i), strings.Repeat("v", 1000))
	}
	f.delete("k000", "k190")
	f.compact(202)
	resp, err := f.maintenance.Defragment(f.ctx, &pb.DefragmentRequest{})
	harness.Fatal(t, err)
	if resp.Header != nil {
		t.Errorf("a header that etcd does not send: %v", resp.Header)
	}
	all, err := f.kv.Range(f.ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true})
	harness.Fatal(t, err)
	harness.Equal(t, "keys", all.Count, 10)
	harness.Equal(t, "revision", all.Header.Revision, 202)
	f.put("after", "v")
}

func TestHash(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	f.put("a", "1")
	resp, err := f.maintenance.Hash(f.ctx, &pb.HashRequest{})
	harness.Fatal(t, err)
	if resp.Hash == 0 {
		t.Error("hash is 0")
	}
	harness.Equal(t, "revision", resp.Header.Revision, 2)
}

func TestMemberList(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	for _, linearizable := range []bool{false, true} {
		resp, err := pb.NewClusterClient(f.conn).MemberList(f.ctx, &pb.MemberListRequest{Linearizable: linearizable})
		harness.Fatal(t, err)
		harness.Equal(t, "members", len(resp.Members), harness.Members())
		at := slices.IndexFunc(resp.Members, func(m *pb.Member) bool { return m.ID == resp.Header.MemberId })
		if at < 0 {
			t.Fatalf("the member that answers is not in its list: %v", resp)
		}
		m := resp.Members[at]
		harness.Equal(t, "name", m.Name, "m1")
		harness.Equal(t, "client URLs", fmt.Sprint(m.ClientURLs), fmt.Sprintf("[http://%s]", f.server.Addr))
		harness.Equal(t, "peer URLs", fmt.Sprint(m.PeerURLs), fmt.Sprintf("[http://%s]", f.server.PeerAddr))
		harness.Equal(t, "learner", m.IsLearner, false)
		harness.Equal(t, "no revision in the header", resp.Header.Revision, 0)
		harness.Equal(t, "cluster", resp.Header.ClusterId, f.status().Header.ClusterId)
	}
}

// Ids are made from the peer URLs, the name and the token, as in etcd.
func TestIDsEqualTheReference(t *testing.T) {
	t.Parallel()
	s := harness.StartAlone(t)
	me := on(t, s).status().Header
	s.Kill(t)
	other := harness.StartReferenceAt(t, s)
	theirs := on(t, other).status().Header
	harness.Equal(t, "member id", me.MemberId, theirs.MemberId)
	harness.Equal(t, "cluster id", me.ClusterId, theirs.ClusterId)
}

func TestIDsAndTermAfterRestart(t *testing.T) {
	t.Parallel()
	f := fresh(t)
	before := f.status()
	f.server.Stop(t)
	f.server.Restart(t)
	after := on(t, f.server).status()
	harness.Equal(t, "member", after.Header.MemberId, before.Header.MemberId)
	harness.Equal(t, "cluster", after.Header.ClusterId, before.Header.ClusterId)
	if harness.Members() == 1 && after.RaftTerm <= before.RaftTerm {
		t.Errorf("term %d before, %d after: a restart elects again", before.RaftTerm, after.RaftTerm)
	}
}

func TestHealthService(t *testing.T) {
	t.Parallel()
	f := on(t, harness.Shared(t))
	health := grpc_health_v1.NewHealthClient(f.conn)
	resp, err := health.Check(f.ctx, &grpc_health_v1.HealthCheckRequest{})
	harness.Fatal(t, err)
	harness.Equal(t, "status", resp.Status, grpc_health_v1.HealthCheckResponse_SERVING)
	_, err = health.Check(f.ctx, &grpc_health_v1.HealthCheckRequest{Service: "no.such.Service"})
	harness.WantError(t, err, codes.NotFound, "unknown service")
	stream, err := health.Watch(f.ctx, &grpc_health_v1.HealthCheckRequest{})
	harness.Fatal(t, err)
	first, err := stream.Recv()
	harness.Fatal(t, err)
	harness.Equal(t, "watched status", first.Status, grpc_health_v1.HealthCheckResponse_SERVING)
	stream, err = health.Watch(f.ctx, &grpc_health_v1.HealthCheckRequest{Service: "no.such.Service"})
	harness.Fatal(t, err)
	first, err = stream.Recv()
	harness.Fatal(t, err)
	harness.Equal(t, "watched status of an unknown service", first.Status, grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN)
}

func TestClientMaintenance(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t, testTimeout)
	var m clientv3.Maintenance = c
	_, err := c.Put(ctx, "a", "1")
	harness.Fatal(t, err)
	hash, err := m.HashKV(ctx, s.Addr, 0)
	harness.Fatal(t, err)
	harness.Equal(t, "hash revision in the header", hash.Header.Revision, 2)
	_, err = m.Defragment(ctx, s.Addr)
	harness.Fatal(t, err)
	alarms, err := m.AlarmList(ctx)
	harness.Fatal(t, err)
	harness.Equal(t, "alarms", len(alarms.Alarms), 0)
	_, err = m.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	harness.Fatal(t, err)
	members, err := c.MemberList(ctx)
	harness.Fatal(t, err)
	harness.Equal(t, "members", len(members.Members), harness.Members())
	harness.Fatal(t, c.Sync(ctx))
	harness.Equal(t, "endpoints after a sync", len(c.Endpoints()), harness.Members())
	if own := "http://" + s.Addr; !slices.Contains(c.Endpoints(), own) {
		t.Errorf("%s is not among the endpoints after a sync: %v", own, c.Endpoints())
	}
	started := time.Now()
	_, err = c.Get(ctx, "a")
	harness.Fatal(t, err)
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("a read after the sync took %s", took)
	}
}
