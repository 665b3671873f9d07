package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

// Leaders are killed under load, one after another, and come back: clients go
// on within some elections, and nothing that was acknowledged is lost.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	const election = time.Second // the default
	c, ctx := three(t)
	l := startLoad(t, c.Client(t), 8)
	var pauses []time.Duration
	for range 3 {
		l.more(t, 200)
		leader := c.Leader(t)
		l.pause()
		leader.Kill(t)
		l.more(t, 200)
		pauses = append(pauses, l.pause())
		leader.Restart(t)
	}
	wantPause(t, pauses, 5*election)
	l.check(ctx, t, c.Members)
	wantSameHash(ctx, t, c.Members)
}

// Every member is stopped and started, one after another, under load.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	l := startLoad(t, c.Client(t), 8)
	for _, s := range c.Members {
		l.more(t, 100)
		s.Stop(t)
		l.more(t, 100)
		s.Restart(t)
	}
	l.check(ctx, t, c.Members)
	wantSameHash(ctx, t, c.Members)
}

// A leader that is asked to stop hands its office over: the pause is far below
// an election timeout, which is made long here to tell the two apart.
func TestPlannedStopOfTheLeader(t *testing.T) {
	t.Parallel()
	const election = 8 * time.Second
	c, ctx := three(t, "--heartbeat-interval=100", fmt.Sprintf("--election-timeout=%d", election.Milliseconds()))
	l := startLoad(t, c.Client(t), 8)
	var pauses []time.Duration
	for range 5 {
		l.more(t, 200)
		leader := c.Leader(t)
		l.pause()
		leader.Stop(t)
		l.more(t, 200)
		pauses = append(pauses, l.pause())
		harness.Equal(t, "end", leader.WaitExit(t).String(), "signal: terminated")
		leader.Restart(t)
	}
	wantPause(t, pauses, time.Second)
	l.check(ctx, t, c.Members)
	wantSameHash(ctx, t, c.Members)
}

// Two of three are down: the third says so, in etcd's words, and reads what it
// has; when they are back, all goes on.
func TestMinority(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	put(ctx, t, c.Members[0], "k", "v")
	left := c.Followers(t)[0]
	everything(ctx, t, left, false)
	watch := left.ClientOfOne(t).Watch(clientv3.WithRequireLeader(ctx), "k", clientv3.WithCreatedNotify())
	<-watch
	var down []*harness.Server
	for _, s := range c.Members {
		if s != left {
			s.Kill(t)
			down = append(down, s)
		}
	}
	harness.Eventually(t, settle, "the member sees no leader", func() error {
		status, err := left.Status()
		if err == nil && status.Leader != 0 {
			err = fmt.Errorf("leader %x", status.Leader)
		}
		return err
	})
	checkMinority(ctx, t, left)
	wantNoLeader(t, watch)
	for _, s := range down {
		s.Launch(t)
	}
	c.WaitHealthy(t)
	put(ctx, t, left, "k", "again")
	for _, s := range c.Members {
		harness.Equal(t, "pair", harness.KVs(everything(ctx, t, s, false).Kvs[:1]), harness.KVs(everything(ctx, t, left, false).Kvs[:1]))
	}
	wantSameHash(ctx, t, c.Members)
}

// wantNoLeader insists that a watch that requires a leader ends for want of one.
func wantNoLeader(t testing.TB, watch clientv3.WatchChan) {
	t.Helper()
	select {
	case reply := <-watch:
		code, text := harness.ErrorParts(reply.Err())
		if code != codes.Unavailable || text != textNoLeader {
			t.Errorf("the watch: got %v, want %q", reply, textNoLeader)
		}
	case <-time.After(settle):
		t.Error("a watch that requires a leader goes on without one")
	}
}

func checkMinority(ctx context.Context, t *testing.T, left *harness.Server) {
	t.Helper()
	stub := kv(t, left)
	_, err := stub.Put(requireLeader(ctx), &pb.PutRequest{Key: []byte("k")})
	harness.WantError(t, err, codes.Unavailable, textNoLeader)
	_, err = stub.Range(requireLeader(ctx), &pb.RangeRequest{Key: []byte("k"), Serializable: true})
	harness.WantError(t, err, codes.Unavailable, textNoLeader)
	harness.Equal(t, "serializable", harness.KVs(everything(ctx, t, left, true).Kvs), "k=v c2 m2 v1")
	list, err := members(t, left).MemberList(ctx, &pb.MemberListRequest{})
	harness.Fatal(t, err)
	harness.Equal(t, "members", len(list.Members), 3)
	status, err := left.Status()
	harness.Fatal(t, err)
	harness.Equal(t, "errors in the status", fmt.Sprint(status.Errors), "["+textNoLeader+"]")

	// Those that need a quorum wait for one, each as long as a request may. What
	// would change something never met a leader.
	calls := map[string]struct {
		call func() error
		want ending
	}{
		"put": {func() error {
			_, err := stub.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("lost?")})
			return err
		}, neverProposed},
		"linearizable range": {func() error {
			_, err := stub.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
			return err
		}, timedOut},
		"linearizable member list": {func() error {
			_, err := members(t, left).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			return err
		}, timedOut},
		"lease grant": {func() error {
			_, err := pb.NewLeaseClient(left.Conn(t)).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
			return err
		}, neverProposed},
	}
	var all sync.WaitGroup
	for what, test := range calls {
		all.Go(func() { wantEnding(t, what, test.call(), test.want) })
	}
	all.Go(func() { wantUnhealthy(t, left) })
	all.Wait()
}

func wantUnhealthy(t *testing.T, s *harness.Server) {
	t.Helper()
	health, err := s.Get("/health")
	harness.Equal(t, "/health", fmt.Sprint(health.Code, " ", strings.TrimSpace(health.Body), " ", err),
		`503 {"health":"false","reason":"RAFT NO LEADER"} <nil>`)
	if s.Older("3.6") {
		return
	}
	ready, err := s.Get("/readyz")
	harness.Equal(t, "/readyz", fmt.Sprint(ready.Code, " ", err), "503 <nil>")
	live, err := s.Get("/livez")
	harness.Equal(t, "/livez", fmt.Sprint(live.Code, " ", err), "200 <nil>")
}

// All members are killed at once, under load, and started again.
func TestAllKilled(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	l := startLoad(t, c.Client(t), 8)
	for range 2 {
		l.more(t, 200)
		c.KillAll(t)
		c.StartAll(t)
	}
	l.more(t, 50)
	l.check(ctx, t, c.Members)
	wantSameHash(ctx, t, c.Members)
}

// A leader that is paused is a leader no more when it goes on, though it does
// not know: what it answers then is not what it had.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	leader := c.Leader(t)
	put(ctx, t, leader, "k", "old")
	grant(ctx, t, leader, 1, 4, "kept")
	others := c.Followers(t)
	stub := kv(t, leader)
	_, err := stub.Range(ctx, &pb.RangeRequest{Key: []byte("k")}) // the connection is there
	harness.Fatal(t, err)
	leader.Pause(t)

	rest := harness.Cluster{Members: others}
	client := rest.Client(t)
	persist(ctx, t, client, "k", "new")
	_, err = client.KeepAlive(ctx, 1)
	harness.Fatal(t, err)
	asked := make(chan error, 1)
	go func() { // waits in the paused one's socket
		resp, err := stub.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		if err == nil && string(resp.Kvs[0].Value) != "new" {
			err = fmt.Errorf("a stale read: %s", harness.KVs(resp.Kvs))
		}
		asked <- err
	}()
	// Longer than the lease has, which is renewed through the others.
	persistFor(ctx, t, client, 5*time.Second)
	leader.Resume(t)
	if err := <-asked; err != nil {
		if code, _ := harness.ErrorParts(err); code != codes.Unavailable {
			t.Error(err)
		}
	}
	c.WaitHealthy(t)
	harness.Equal(t, "kept", has(ctx, t, client, "kept"), true)
	wantSameHash(ctx, t, c.Members)
}

// persistFor goes on writing for a while.
func persistFor(ctx context.Context, t testing.TB, c *clientv3.Client, duration time.Duration) {
	t.Helper()
	for until := time.Now().Add(duration); time.Now().Before(until); {
		persist(ctx, t, c, "meanwhile", "v")
	}
}

// Members that know each other by name, not by address.
func TestPeersByName(t *testing.T) {
	t.Parallel()
	c, ctx := harness.PrepareCluster(t, 3), harness.Context(t, testTimeout)
	url := func(s *harness.Server) string { return strings.Replace(s.PeerURL(), "127.0.0.1", "localhost", 1) }
	var all []string
	for _, s := range c.Members {
		all = append(all, s.Name+"="+url(s))
	}
	for _, s := range c.Members {
		s.BeginAs("--initial-advertise-peer-urls="+url(s), "--initial-cluster="+strings.Join(all, ","))
	}
	c.StartAll(t)
	c.WaitHealthy(t)
	put(ctx, t, c.Members[0], "k", "v")
	c.Leader(t).Kill(t)
	persist(ctx, t, c.Client(t), "k", "v")
}
