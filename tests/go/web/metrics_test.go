package web

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"castd.test/conformance/harness"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// families are the metrics that dashboards and alerts read from one member,
// with their types. Those of peers, proxies and the Go runtime are left out.
const families = `
etcd_cluster_version gauge
etcd_debugging_lease_granted_total counter
etcd_debugging_lease_renewed_total counter
etcd_debugging_lease_revoked_total counter
etcd_debugging_lease_ttl_total histogram
etcd_debugging_mvcc_compact_revision gauge
etcd_debugging_mvcc_current_revision gauge
etcd_debugging_mvcc_db_compaction_keys_total counter
etcd_debugging_mvcc_db_compaction_last gauge
etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds histogram
etcd_debugging_mvcc_db_compaction_total_duration_milliseconds histogram
etcd_debugging_mvcc_events_total counter
etcd_debugging_mvcc_keys_total gauge
etcd_debugging_mvcc_pending_events_total gauge
etcd_debugging_mvcc_slow_watcher_total gauge
etcd_debugging_mvcc_total_put_size_in_bytes gauge
etcd_debugging_mvcc_watch_stream_total gauge
etcd_debugging_mvcc_watcher_total gauge
etcd_debugging_server_lease_expired_total counter
etcd_disk_backend_commit_duration_seconds histogram
etcd_disk_backend_defrag_duration_seconds histogram
etcd_disk_defrag_inflight gauge
etcd_disk_wal_fsync_duration_seconds histogram
etcd_disk_wal_write_bytes_total gauge
etcd_mvcc_db_total_size_in_bytes gauge
etcd_mvcc_db_total_size_in_use_in_bytes gauge
etcd_mvcc_delete_total counter
etcd_mvcc_hash_duration_seconds histogram
etcd_mvcc_hash_rev_duration_seconds histogram
etcd_mvcc_put_total counter
etcd_mvcc_range_total counter
etcd_mvcc_txn_total counter
etcd_network_client_grpc_received_bytes_total counter
etcd_network_client_grpc_sent_bytes_total counter
etcd_server_apply_duration_seconds histogram
etcd_server_client_requests_total counter
etcd_server_has_leader gauge
etcd_server_health_failures counter
etcd_server_health_success counter
etcd_server_id gauge
etcd_server_is_leader gauge
etcd_server_is_learner gauge
etcd_server_leader_changes_seen_total counter
etcd_server_proposals_applied_total gauge
etcd_server_proposals_committed_total gauge
etcd_server_proposals_failed_total counter
etcd_server_proposals_pending gauge
etcd_server_quota_backend_bytes gauge
etcd_server_read_indexes_failed_total counter
etcd_server_slow_apply_total counter
etcd_server_slow_read_indexes_total counter
etcd_server_version gauge
grpc_server_handled_total counter
grpc_server_msg_received_total counter
grpc_server_msg_sent_total counter
grpc_server_started_total counter
os_fd_limit gauge
os_fd_used gauge
process_cpu_seconds_total counter
process_max_fds gauge
process_open_fds gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
process_virtual_memory_bytes gauge`

const familiesOf36 = `
etcd_server_feature_enabled gauge
etcd_server_healthcheck gauge
etcd_server_healthchecks_total counter
etcd_server_range_duration_seconds histogram`

const familiesOf37 = `
etcd_server_request_duration_seconds histogram`

// metrics is one reading: types by family and values by sample.
type metrics struct {
	types  map[string]string
	values map[string]float64
}

func read(t testing.TB, addr string) metrics {
	t.Helper()
	got := get(t, addr, "/metrics")
	harness.Equal(t, "code", got.code, 200)
	if !strings.HasPrefix(got.contentType, "text/plain") {
		t.Errorf("type: %s", got.contentType)
	}
	m := metrics{map[string]string{}, map[string]float64{}}
	for line := range strings.Lines(got.body) {
		fields := strings.Fields(line)
		if len(fields) == 4 && fields[1] == "TYPE" {
			m.types[fields[2]] = fields[3]
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		// Label values may hold blanks; the value comes after the last one.
		at := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		harness.Fatal(t, err)
		m.values[line[:at]] = value
	}
	return m
}

func TestMetricFamilies(t *testing.T) {
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t, testTimeout)
	_, err := c.Put(ctx, "a", "1")
	harness.Fatal(t, err)
	get(t, s.Addr, "/readyz")
	want := families
	if !s.Older("3.6") {
		want += familiesOf36
	}
	if !s.Older("3.7") {
		want += familiesOf37
	}
	both(t, s, func(t *testing.T, addr string) {
		got := read(t, addr)
		for line := range strings.Lines(strings.TrimSpace(want)) {
			name, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
			harness.Equal(t, name, got.types[name], kind)
		}
	})
}

func TestMetricsMove(t *testing.T) {
	s := harness.StartAlone(t) // one member is counted, and nobody else does anything
	c, ctx := s.Client(t), harness.Context(t, testTimeout)
	before := read(t, s.Addr)
	for i := range 10 {
		_, err := c.Put(ctx, fmt.Sprint("k", i), "v")
		harness.Fatal(t, err)
	}
	for range 3 {
		_, err := c.Get(ctx, "k0")
		harness.Fatal(t, err)
	}
	_, err := c.Delete(ctx, "k0")
	harness.Fatal(t, err)
	_, err = c.Txn(ctx).Then(clientv3.OpPut("t1", ""), clientv3.OpPut("t2", "")).Commit()
	harness.Fatal(t, err)
	_, err = c.Grant(ctx, 100)
	harness.Fatal(t, err)
	<-c.Watch(ctx, "x", clientv3.WithCreatedNotify())
	after := read(t, s.Addr)
	rose := func(sample string, by float64) {
		harness.Equal(t, "rise of "+sample, after.values[sample]-before.values[sample], by)
	}
	rose("etcd_mvcc_put_total", 12)
	rose("etcd_mvcc_delete_total", 1)
	rose("etcd_mvcc_txn_total", 1)
	rose("etcd_mvcc_range_total", 3)
	rose("etcd_debugging_lease_granted_total", 1)
	rose("etcd_debugging_mvcc_watcher_total", 1)
	rose("etcd_debugging_mvcc_current_revision", 12)
	rose("etcd_debugging_mvcc_keys_total", 11)
	rose("etcd_server_proposals_applied_total", 13)
	handled := func(service, method, kind string) string {
		return fmt.Sprintf(`grpc_server_handled_total{grpc_code="OK",grpc_method=%q,grpc_service="etcdserverpb.%s",grpc_type=%q}`, method, service, kind)
	}
	rose(handled("KV", "Put", "unary"), 10)
	rose(handled("KV", "Range", "unary"), 3)
	rose(handled("KV", "Txn", "unary"), 1)
	rose(`grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`, 1)
	harness.Equal(t, "leader", after.values["etcd_server_has_leader"], 1)
	harness.Equal(t, "is leader", after.values["etcd_server_is_leader"], 1)
	harness.Equal(t, "quota", after.values["etcd_server_quota_backend_bytes"], 2<<30)
	harness.Equal(t, "version", after.values[fmt.Sprintf("etcd_server_version{server_version=%q}", s.Version())], 1)
	atLeast := func(sample string, least float64) {
		if after.values[sample] < least {
			t.Errorf("%s = %v, at least %v is due", sample, after.values[sample], least)
		}
	}
	// The committed index may be noted a moment after the last answer.
	atLeast("etcd_server_proposals_committed_total", before.values["etcd_server_proposals_committed_total"]+12)
	atLeast("etcd_disk_wal_fsync_duration_seconds_count", 12)
	atLeast("etcd_disk_wal_write_bytes_total", 500)
	atLeast("etcd_network_client_grpc_received_bytes_total", 100)
	atLeast("etcd_network_client_grpc_sent_bytes_total", 100)
	atLeast("etcd_mvcc_db_total_size_in_bytes", 1)
	atLeast("process_resident_memory_bytes", 1e6)
	atLeast(`etcd_disk_wal_fsync_duration_seconds_bucket{le="8.192"}`, 12)
	atLeast(`etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"}`, 12)
}
