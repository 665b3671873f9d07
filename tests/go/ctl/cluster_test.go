package ctl

import (
	_ "embed"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

//go:embed steps_cluster.txt
var clusterStepsText string

const (
	// ctl37Env names etcdctl 3.7; etcd 3.7 is harness.ReferenceEnv's.
	ctl37Env = "CASTD_REFERENCE_ETCDCTL_37"
	settle   = 60 * time.Second
)

func TestClusterEqualToEtcd34(t *testing.T) {
	compareClusters(t, find(t, ctlEnv, "etcdctl", "version"), find(t, etcdEnv, "etcd", "--version"))
}

func TestClusterEqualToEtcd37(t *testing.T) {
	if os.Getenv(ctl37Env) == "" {
		t.Skipf("%s is not set", ctl37Env)
	}
	compareClusters(t, findVersion(t, "3.7", ctl37Env, "etcdctl", "version"),
		findVersion(t, "3.7", harness.ReferenceEnv, "etcd", "--version"))
}

func compareClusters(t *testing.T, etcdctl, etcd string) {
	t.Helper()
	steps, err := parse(clusterStepsText)
	harness.Fatal(t, err)
	// Two, because an id is made of the URL and the second: one that was removed
	// does not come back.
	given := map[string]string{"NEW": "http://" + harness.FreeAddr(), "OTHER": "http://" + harness.FreeAddr()}
	reference := harness.StartClusterOf(t, etcd, 3)
	theirs, want := runOnCluster(t, etcdctl, reference, given, steps)
	reference.KillAll(t)
	server := harness.StartCluster(t, 3)
	server.MoveTo(t, reference)
	ours, got := runOnCluster(t, etcdctl, server, given, steps)
	comparison{t, "steps_cluster.txt", steps, !server.Members[0].Older("3.5")}.check(ours, got, theirs, want)
}

func runOnCluster(t *testing.T, etcdctl string, c *harness.Cluster, given map[string]string, steps []step) (*runner, []result) {
	t.Helper()
	settleOn(t, c, c.Members[0])
	r := &runner{etcdctl: etcdctl, captured: map[string]string{}, cluster: true, given: maps.Clone(given)}
	for i, s := range c.Members {
		if i > 0 {
			r.addr += ","
		}
		r.addr += s.Addr
		r.given[fmt.Sprint("E", i+1)] = s.Addr
		r.given[fmt.Sprint("P", i+1)] = s.PeerURL()
		r.given[fmt.Sprint("M", i+1)] = fmt.Sprintf("%x", s.ID(t))
	}
	return r, r.runAll(t, steps, c.Members[0].Version())
}

// settleOn waits until the cluster takes changes of its members and all know
// each other's names, and has one of them lead.
func settleOn(t *testing.T, c *harness.Cluster, first *harness.Server) {
	t.Helper()
	ctx := harness.Context(t, 2*settle)
	stub := pb.NewClusterClient(first.Conn(t))
	harness.Eventually(t, settle, "the cluster is healthy for long enough", func() error {
		_, err := stub.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{first.PeerURL()}})
		if _, text := harness.ErrorParts(err); text == "etcdserver: unhealthy cluster" {
			return err
		}
		return nil
	})
	if leader := c.Leader(t); leader != first {
		_, err := pb.NewMaintenanceClient(leader.Conn(t)).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: first.ID(t)})
		harness.Fatal(t, err)
		c.Leader(t)
	}
}
