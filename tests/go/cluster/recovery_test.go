package cluster

import (
	"fmt"
	"strings"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// One member's data is enough to go on alone with everything in it, and to grow
// from there.
func TestForceNewCluster(t *testing.T) {
	t.Parallel()
	const force = "--force-new-cluster"
	c, ctx := three(t)
	for i := range 30 {
		put(ctx, t, c.Members[i%3], fmt.Sprint("k", i), "v")
	}
	kept := c.Members[1]
	before := everything(ctx, t, kept, false)
	id := kept.ID(t)
	// That an entry is committed is on disk with the entries after it, at the
	// latest: what comes last may be dropped when the others are given up.
	for range 3 {
		put(ctx, t, kept, "last", "v")
	}
	c.KillAll(t)
	c.Forget(c.Members[0])
	c.Forget(c.Members[1])

	kept.RestartWith(t, force)
	after, err := kv(t, kept).Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	harness.Fatal(t, err)
	harness.Equal(t, "pairs", harness.KVs(after.Kvs), harness.KVs(before.Kvs))
	harness.Equal(t, "member id", after.Header.MemberId, id)
	kept.Stop(t)
	kept.RestartWithout(t, force)
	list, err := members(t, kept).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	harness.Fatal(t, err)
	harness.Equal(t, "members", len(list.Members), 1)
	harness.Equal(t, "next revision", put(ctx, t, kept, "k", "alone").Header.Revision, after.Header.Revision+1)

	_, learner := joined(ctx, t, c)
	promote(ctx, t, kept, learner)
	c.WaitHealthy(t)
	wantSameHash(ctx, t, c.Members)
}

// Members that know only a registry find each other; one too many is refused.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	harness.NeedsBinary(t, "3.6")
	registry := harness.StartAlone(t)
	ctx := harness.Context(t, testTimeout)
	const token = "a-token"
	put(ctx, t, registry, "/_etcd/registry/"+token+"/_config/size", "3")
	flags := []string{"--discovery-token=" + token, "--discovery-endpoints=http://" + registry.Addr}
	c := harness.PrepareCluster(t, 4)
	for _, s := range c.Members {
		s.BeginAs(flags...)
	}
	late := c.Members[3]
	c.Forget(late)
	c.StartAll(t)
	c.WaitHealthy(t)
	put(ctx, t, c.Members[2], "k", "v")
	list, err := members(t, c.Members[0]).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	harness.Fatal(t, err)
	harness.Equal(t, "members", len(list.Members), 3)
	wantSameHash(ctx, t, c.Members)

	late.Launch(t)
	harness.Equal(t, "its end", late.WaitExit(t).String(), "exit status 1")
	if log := late.Log(t); !strings.Contains(log, "cluster is full") {
		t.Error("its log does not say why")
	}
	// What is found out once is kept: no registry is needed any more.
	registry.Kill(t)
	c.KillAll(t)
	c.StartAll(t)
	put(ctx, t, c.Members[0], "k", "again")
}
