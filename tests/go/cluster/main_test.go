// Package cluster drives several members: what a client sees through each of
// them, when some of them fail, and while their number changes.
package cluster

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const (
	testTimeout = 4 * time.Minute
	// settle bounds a wait for what a cluster does within a few elections.
	settle = 60 * time.Second

	textNoLeader = "etcdserver: no leader"
)

func TestMain(m *testing.M) { harness.Main(m) }

// three starts three members.
func three(t *testing.T, flags ...string) (*harness.Cluster, context.Context) {
	t.Helper()
	return harness.StartCluster(t, 3, flags...), harness.Context(t, testTimeout)
}

// behindProxies starts three members that reach each other through proxies only.
func behindProxies(t *testing.T, flags ...string) (*harness.Cluster, []*harness.Proxy, context.Context) {
	t.Helper()
	c := harness.PrepareCluster(t, 3, flags...)
	var pairs []string
	var proxies []*harness.Proxy
	for _, s := range c.Members {
		p := harness.StartPeerProxy(t, s)
		proxies = append(proxies, p)
		pairs = append(pairs, s.Name+"=http://"+p.Addr)
	}
	for i, s := range c.Members {
		s.BeginAs("--initial-cluster="+strings.Join(pairs, ","), "--initial-advertise-peer-urls=http://"+proxies[i].Addr)
	}
	c.StartAll(t)
	return c, proxies, harness.Context(t, testTimeout)
}

// kv is the plain stub on one member: no retries, no failover, answers of any size.
func kv(t testing.TB, s *harness.Server) pb.KVClient {
	any := grpc.MaxCallRecvMsgSize(math.MaxInt32)
	return pb.NewKVClient(s.Conn(t, grpc.WithDefaultCallOptions(any)))
}

func members(t testing.TB, s *harness.Server) pb.ClusterClient {
	return pb.NewClusterClient(s.Conn(t))
}

func maintenance(t testing.TB, s *harness.Server) pb.MaintenanceClient {
	return pb.NewMaintenanceClient(s.Conn(t))
}

func put(ctx context.Context, t testing.TB, s *harness.Server, key, value string) *pb.PutResponse {
	t.Helper()
	resp, err := kv(t, s).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	harness.Fatal(t, err)
	return resp
}

// persist puts until it succeeds: while a leader is looked for it may fail.
func persist(ctx context.Context, t testing.TB, c *clientv3.Client, key, value string) int64 {
	t.Helper()
	var revision int64
	harness.Eventually(t, settle, "a put succeeds", func() error {
		call, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		resp, err := c.Put(call, key, value)
		if err == nil {
			revision = resp.Header.Revision
		}
		return err
	})
	return revision
}

// everything reads all pairs through one member.
func everything(ctx context.Context, t testing.TB, s *harness.Server, serializable bool) *pb.RangeResponse {
	t.Helper()
	resp, err := kv(t, s).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: serializable})
	harness.Fatal(t, err)
	return resp
}

// wantSameHash waits until the members have the same revision and insists that
// the hash of their history is the same, too.
func wantSameHash(ctx context.Context, t testing.TB, servers []*harness.Server) {
	t.Helper()
	// A linearizable read brings each of them to at least the same revision.
	revision := int64(0)
	for _, s := range servers {
		revision = max(revision, everything(ctx, t, s, false).Header.Revision)
	}
	for _, s := range servers {
		everything(ctx, t, s, false)
	}
	hashes := make([]string, len(servers))
	for i, s := range servers {
		resp, err := maintenance(t, s).HashKV(ctx, &pb.HashKVRequest{Revision: revision})
		harness.Fatal(t, err)
		hashes[i] = fmt.Sprintf("%08x since %d", resp.Hash, resp.CompactRevision)
	}
	for i := range hashes {
		harness.Equal(t, fmt.Sprintf("hash of %s at %d", servers[i].Name, revision), hashes[i], hashes[0])
	}
}

// requireLeader marks plain calls as clientv3.WithRequireLeader marks its own.
func requireLeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
}
