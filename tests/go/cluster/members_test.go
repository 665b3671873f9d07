package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

const (
	textNotFound      = "etcdserver: member not found"
	textExists        = "etcdserver: Peer URLs already exists"
	textBadURLs       = "etcdserver: given member URLs are invalid"
	textNotLearner    = "etcdserver: can only promote a learner member"
	textNotReady      = "etcdserver: can only promote a learner member which is in sync with leader"
	textTooMany       = "etcdserver: too many learner members in cluster"
	textUnhealthy     = "etcdserver: unhealthy cluster"
	textNotStarted    = "etcdserver: re-configuration failed due to not enough started members"
	textForLearner    = "etcdserver: rpc not supported for learner"
	textNotLeader     = "etcdserver: not leader"
	textBadTransferee = "etcdserver: bad leader transferee"
	textStopped       = "etcdserver: server stopped"
	noSuchMember      = 0x1234
)

// onceHealthy repeats a change as long as strict-reconfig-check takes the
// cluster for unhealthy, as it does until all have been connected for 5 seconds.
func onceHealthy(t testing.TB, change func() error) error {
	t.Helper()
	var err error
	harness.Eventually(t, settle, "the cluster is healthy for long enough", func() error {
		err = change()
		if _, text := harness.ErrorParts(err); text == textUnhealthy {
			return err
		}
		return nil
	})
	return err
}

// add makes a member known.
func add(ctx context.Context, t testing.TB, through *harness.Server, url string, learner bool) (resp *pb.MemberAddResponse, err error) {
	t.Helper()
	stub := members(t, through)
	return resp, onceHealthy(t, func() error {
		resp, err = stub.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}, IsLearner: learner})
		return err
	})
}

// remove takes a member out.
func remove(ctx context.Context, t testing.TB, through *harness.Server, id uint64) (resp *pb.MemberRemoveResponse, err error) {
	t.Helper()
	stub := members(t, through)
	return resp, onceHealthy(t, func() error {
		resp, err = stub.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
		return err
	})
}

// joined adds a learner, starts it and waits until it has what was written.
func joined(ctx context.Context, t *testing.T, c *harness.Cluster) (*harness.Server, uint64) {
	t.Helper()
	through := c.Leader(t)
	learner := c.Join(t)
	resp, err := add(ctx, t, through, learner.PeerURL(), true)
	harness.Fatal(t, err)
	learner.Launch(t)
	wantToSee(ctx, t, learner, put(ctx, t, through, "seen by "+learner.Name, "v").Header.Revision)
	return learner, resp.Member.ID
}

// wantToSee waits until a member has reached a revision, learner or not.
func wantToSee(ctx context.Context, t *testing.T, s *harness.Server, revision int64) {
	t.Helper()
	stub := kv(t, s)
	harness.Eventually(t, settle, s.Name+" has what was written", func() error {
		if s.Exited() {
			t.Fatalf("%s has ended", s.Name)
		}
		resp, err := stub.Range(ctx, &pb.RangeRequest{Key: []byte("any"), Serializable: true})
		if err == nil && resp.Header.Revision < revision {
			err = fmt.Errorf("it is at %d of %d", resp.Header.Revision, revision)
		}
		return err
	})
}

// promote waits until a learner is in sync and makes it a voter.
func promote(ctx context.Context, t *testing.T, through *harness.Server, id uint64) *pb.MemberPromoteResponse {
	t.Helper()
	var promoted *pb.MemberPromoteResponse
	harness.Eventually(t, settle, "the learner is promoted", func() (err error) {
		promoted, err = members(t, through).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
		return err
	})
	return promoted
}

// A learner from its addition to its removal as a voter.
func TestLearner(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	follower := c.Followers(t)[0]
	learner := c.Join(t)
	resp, err := add(ctx, t, follower, learner.PeerURL(), true)
	harness.Fatal(t, err)
	harness.Equal(t, "is a learner", resp.Member.IsLearner, true)
	harness.Equal(t, "peer URLs", fmt.Sprint(resp.Member.PeerURLs), fmt.Sprint([]string{learner.PeerURL()}))
	harness.Equal(t, "members in the reply", len(resp.Members), 4)
	id := resp.Member.ID

	checkLearnerErrors(ctx, t, follower, id)
	learner.Launch(t)
	wantToSee(ctx, t, learner, put(ctx, t, follower, "k", "v").Header.Revision)
	status, err := learner.Status()
	harness.Fatal(t, err)
	harness.Equal(t, "its id", status.Header.MemberId, id)
	harness.Equal(t, "learner in its status", status.IsLearner, true)
	checkCallsOnLearner(ctx, t, learner, follower.Older("3.6"))
	_, err = maintenance(t, c.Leader(t)).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: id})
	harness.WantError(t, err, codes.FailedPrecondition, textBadTransferee)

	// Through a follower, who has to ask the leader.
	promoted := promote(ctx, t, follower, id)
	for _, m := range promoted.Members {
		harness.Equal(t, fmt.Sprintf("%x is a learner", m.ID), m.IsLearner, false)
	}
	c.WaitHealthy(t)
	harness.Equal(t, "read through the new voter", string(everything(ctx, t, learner, false).Kvs[0].Value), "v")
	put(ctx, t, learner, "k", "through the new voter")
	wantSameHash(ctx, t, c.Members)
	_, err = members(t, follower).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	harness.WantError(t, err, codes.FailedPrecondition, textNotLearner)

	// Four voters go on without one of them, and the new one counts.
	c.Leader(t).Kill(t)
	persist(ctx, t, c.Client(t), "k", "without one")
	everything(ctx, t, learner, false)
}

func checkLearnerErrors(ctx context.Context, t *testing.T, through *harness.Server, id uint64) {
	t.Helper()
	stub := members(t, through)
	_, err := add(ctx, t, through, "http://"+harness.FreeAddr(), true)
	harness.WantError(t, err, codes.FailedPrecondition, textTooMany)
	_, err = stub.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	harness.WantError(t, err, codes.FailedPrecondition, textNotReady)
	_, err = stub.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: through.ID(t)})
	harness.WantError(t, err, codes.FailedPrecondition, textNotLearner)
	_, err = stub.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: noSuchMember})
	harness.WantError(t, err, codes.NotFound, textNotFound)
}

// What a learner serves and what it does not.
func checkCallsOnLearner(ctx context.Context, t *testing.T, learner *harness.Server, old bool) {
	t.Helper()
	refused := codes.FailedPrecondition
	if old {
		refused = codes.Unavailable
	}
	stub := kv(t, learner)
	_, err := stub.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	harness.WantError(t, err, refused, textForLearner)
	_, err = stub.Put(ctx, &pb.PutRequest{Key: []byte("k")})
	harness.WantError(t, err, refused, textForLearner)
	_, err = stub.Txn(ctx, &pb.TxnRequest{})
	harness.WantError(t, err, refused, textForLearner)
	_, err = stub.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k")})
	harness.WantError(t, err, refused, textForLearner)
	_, err = members(t, learner).MemberList(ctx, &pb.MemberListRequest{})
	harness.WantError(t, err, refused, textForLearner)
	_, err = pb.NewLeaseClient(learner.Conn(t)).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	harness.WantError(t, err, refused, textForLearner)
	_, err = maintenance(t, learner).HashKV(ctx, &pb.HashKVRequest{})
	harness.WantError(t, err, refused, textForLearner)
	watch, err := pb.NewWatchClient(learner.Conn(t)).Watch(ctx)
	harness.Fatal(t, err)
	_, err = watch.Recv()
	harness.WantError(t, err, refused, textForLearner)
	keepAlive, err := pb.NewLeaseClient(learner.Conn(t)).LeaseKeepAlive(ctx)
	harness.Fatal(t, err)
	_, err = keepAlive.Recv()
	harness.WantError(t, err, refused, textForLearner)
}

func TestMaxLearners(t *testing.T) {
	t.Parallel()
	harness.NeedsBinary(t, "3.6")
	c, ctx := three(t, "--max-learners=2")
	first, id := joined(ctx, t, c)
	second, _ := joined(ctx, t, c)
	_, err := add(ctx, t, c.Members[0], "http://"+harness.FreeAddr(), true)
	harness.WantError(t, err, codes.FailedPrecondition, textTooMany)
	revision := put(ctx, t, c.Members[0], "k", "v").Header.Revision
	wantToSee(ctx, t, first, revision)
	wantToSee(ctx, t, second, revision)
	promote(ctx, t, c.Members[0], id)
	joined(ctx, t, c)
}

func TestMemberAddRefusals(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	stub := members(t, c.Members[0])
	for _, learner := range []bool{false, true} {
		_, err := add(ctx, t, c.Members[0], "nonsense", learner)
		harness.WantError(t, err, codes.InvalidArgument, textBadURLs)
		_, err = stub.MemberAdd(ctx, &pb.MemberAddRequest{IsLearner: learner})
		harness.WantError(t, err, codes.InvalidArgument, textBadURLs)
		_, err = add(ctx, t, c.Members[0], c.Members[1].PeerURL(), learner)
		harness.WantError(t, err, codes.FailedPrecondition, textExists)
	}
	_, err := stub.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: noSuchMember, PeerURLs: []string{"http://" + harness.FreeAddr()}})
	harness.WantError(t, err, codes.NotFound, textNotFound)
	_, err = stub.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: c.Members[0].ID(t), PeerURLs: []string{c.Members[1].PeerURL()}})
	harness.WantError(t, err, codes.FailedPrecondition, textExists)
	_, err = stub.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: noSuchMember})
	harness.WantError(t, err, codes.NotFound, textNotFound)
}

// A removed member ends by itself, and again when it is started again; the
// others go on.
func TestMemberRemove(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	gone := c.Followers(t)[0]
	through := c.Leader(t)
	revision := put(ctx, t, through, "k", "v").Header.Revision
	wantToSee(ctx, t, gone, revision)
	id := gone.ID(t)
	resp, err := remove(ctx, t, through, id)
	harness.Fatal(t, err)
	harness.Equal(t, "members in the reply", len(resp.Members), 2)
	harness.Equal(t, "its end", gone.WaitExit(t).String(), "exit status 0")
	_, err = members(t, through).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
	harness.WantError(t, err, codes.NotFound, textNotFound)
	c.Forget(gone)
	c.WaitHealthy(t)
	put(ctx, t, through, "k", "without it")
	wantSameHash(ctx, t, c.Members)
	// Its data says that it was removed, or the others do.
	gone.Launch(t)
	gone.WaitExit(t)
	harness.Equal(t, "pair", string(everything(ctx, t, through, false).Kvs[0].Value), "without it")
}

// A member is asked for its own removal: it answers and ends, whether it leads or
// follows. What it answers depends on what it still hears of the others.
func TestMemberRemovesItself(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	for _, who := range []func() *harness.Server{
		func() *harness.Server { return c.Followers(t)[0] },
		func() *harness.Server { return c.Leader(t) },
	} {
		gone := who()
		_, err := remove(ctx, t, gone, gone.ID(t))
		if _, text := harness.ErrorParts(err); err != nil && text != textStopped {
			t.Errorf("got %v, want success or %q", err, textStopped)
		}
		harness.Equal(t, "its end", gone.WaitExit(t).String(), "exit status 0")
		c.Forget(gone)
		c.WaitHealthy(t)
		persist(ctx, t, c.Client(t), "k", "without it")
	}
}

func TestRemovedLeader(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	leader := c.Leader(t)
	put(ctx, t, leader, "k", "v")
	_, err := remove(ctx, t, c.Followers(t)[0], leader.ID(t))
	harness.Fatal(t, err)
	harness.Equal(t, "its end", leader.WaitExit(t).String(), "exit status 0")
	c.Forget(leader)
	c.WaitHealthy(t)
	persist(ctx, t, c.Client(t), "k", "without it")
	wantSameHash(ctx, t, c.Members)
}

// A removed member's place is taken by a new one, until nobody is left of those
// who began.
func TestEveryMemberReplaced(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	l := startLoad(t, c.Client(t), 2)
	for _, old := range c.Members[:3:3] {
		l.more(t, 50)
		_, id := joined(ctx, t, c)
		promote(ctx, t, c.Leader(t), id)
		through := c.Members[len(c.Members)-1]
		through.WaitReady(t)
		_, err := remove(ctx, t, through, old.ID(t))
		harness.Fatal(t, err)
		old.WaitExit(t)
		c.Forget(old)
		c.WaitHealthy(t)
		harness.Fatal(t, l.client.Sync(ctx))
	}
	l.more(t, 50)
	l.check(ctx, t, c.Members)
	wantSameHash(ctx, t, c.Members)
}

// A member moves to another peer address: told first, then moved.
func TestMemberUpdate(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	moving := c.Followers(t)[0]
	id, through := moving.ID(t), c.Leader(t)
	moving.Stop(t)
	moving.PeerAddr = harness.FreeAddr()
	resp, err := members(t, through).MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{moving.PeerURL()}})
	harness.Fatal(t, err)
	harness.Equal(t, "members in the reply", len(resp.Members), 3)
	moving.Restart(t)
	c.WaitHealthy(t)
	put(ctx, t, moving, "k", "v")
	for _, s := range c.Members {
		if list := listed(ctx, t, s); !strings.Contains(list, fmt.Sprintf("%x %s [%s]", id, moving.Name, moving.PeerURL())) {
			t.Errorf("%s knows %s", s.Name, list)
		}
	}
	// It counts: with it and one other there is a quorum.
	for _, s := range c.Members {
		if s != moving && s != through {
			s.Kill(t)
		}
	}
	persist(ctx, t, through.ClientOfOne(t), "k", "with the moved one")
}

// With a member down, nothing is done that could cost the quorum; the one that
// is down may go.
func TestStrictReconfigCheck(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	follower := c.Followers(t)[0]
	down := follower.ID(t)
	follower.Kill(t)
	through := c.Running()[0]
	stub := members(t, through)
	_, err := stub.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + harness.FreeAddr()}})
	harness.WantError(t, err, codes.Unavailable, textUnhealthy)
	_, err = stub.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: c.Running()[1].ID(t)})
	harness.WantError(t, err, codes.Unavailable, textUnhealthy)
	_, err = remove(ctx, t, through, down)
	harness.Fatal(t, err)
	c.Forget(follower)
	put(ctx, t, through, "k", "v")
}

// Of five, one may be down when another is added; with two down none is added,
// and only those that are down are removed.
func TestStrictReconfigCheckOfFive(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 5), harness.Context(t, testTimeout)
	through, followers := c.Leader(t), c.Followers(t)
	down := followers[0].ID(t)
	// A URL that is taken: whether more than that is wrong shows in the answer.
	_, err := add(ctx, t, through, through.PeerURL(), false)
	harness.WantError(t, err, codes.FailedPrecondition, textExists)
	followers[0].Kill(t)
	_, err = add(ctx, t, through, through.PeerURL(), false)
	harness.WantError(t, err, codes.FailedPrecondition, textExists)
	stub := members(t, through)
	followers[1].Kill(t)
	for _, learner := range []bool{false, true} {
		harness.Eventually(t, settle, "it is noticed that two are down", func() error {
			_, err := stub.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{through.PeerURL()}, IsLearner: learner})
			if _, text := harness.ErrorParts(err); text != textUnhealthy {
				return err
			}
			return nil
		})
	}
	_, err = stub.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: followers[2].ID(t)})
	harness.WantError(t, err, codes.Unavailable, textUnhealthy)
	_, err = stub.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: down})
	harness.Fatal(t, err)
	put(ctx, t, through, "k", "v")
}

func TestStrictReconfigCheckOff(t *testing.T) {
	t.Parallel()
	c, ctx := three(t, "--strict-reconfig-check=false")
	c.Followers(t)[0].Kill(t)
	resp, err := members(t, c.Leader(t)).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + harness.FreeAddr()}})
	harness.Fatal(t, err)
	harness.Equal(t, "members", len(resp.Members), 4)
}

// A second voter is added to one that has not started yet: two of three would
// have to be started.
func TestNotEnoughStartedMembers(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 1), harness.Context(t, testTimeout)
	stub := members(t, c.Members[0])
	_, err := stub.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + harness.FreeAddr()}})
	harness.Fatal(t, err)
	_, err = stub.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://" + harness.FreeAddr()}})
	// etcd's own mapping loses the code of this one.
	if _, text := harness.ErrorParts(err); text != textNotStarted {
		t.Errorf("got %v, want %q", err, textNotStarted)
	}
}

// One grows to three, all of them voters from the start.
func TestGrowFromOne(t *testing.T) {
	t.Parallel()
	c, ctx := harness.StartCluster(t, 1), harness.Context(t, testTimeout)
	first := c.Members[0]
	put(ctx, t, first, "k", "v")
	for range 2 {
		joining := c.Join(t)
		_, err := add(ctx, t, first, joining.PeerURL(), false)
		harness.Fatal(t, err)
		joining.Launch(t)
		joining.WaitReady(t)
	}
	c.WaitHealthy(t)
	put(ctx, t, c.Members[2], "k", "three of us")
	wantSameHash(ctx, t, c.Members)
	c.Leader(t).Kill(t)
	persist(ctx, t, c.Client(t), "k", "two of us")
}

func TestMoveLeader(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	leader, next := c.Leader(t), c.Followers(t)[0]
	move := func(through *harness.Server, to uint64) error {
		_, err := maintenance(t, through).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to})
		return err
	}
	harness.WantError(t, move(next, next.ID(t)), codes.FailedPrecondition, textNotLeader)
	harness.WantError(t, move(leader, noSuchMember), codes.FailedPrecondition, textBadTransferee)
	harness.Fatal(t, move(leader, leader.ID(t)))
	harness.Fatal(t, move(leader, next.ID(t)))
	harness.Equal(t, "new leader", c.Leader(t).Name, next.Name)
	put(ctx, t, leader, "k", "v")
	wantSameHash(ctx, t, c.Members)
}

// A member that lost its data is not taken for the one it was.
func TestBootstrappedAlready(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	empty := c.Followers(t)[0]
	empty.Kill(t)
	harness.Fatal(t, os.RemoveAll(empty.DataDir()))
	empty.Launch(t)
	harness.Equal(t, "its end", empty.WaitExit(t).String(), "exit status 1")
	if log := empty.Log(t); !strings.Contains(log, "has already been bootstrapped") {
		t.Error("its log does not say why")
	}
	put(ctx, t, c.Leader(t), "k", "v")
}

// A member that nobody added does not join.
func TestNotAdded(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	stranger := c.Join(t)
	stranger.Launch(t)
	harness.Equal(t, "its end", stranger.WaitExit(t).String(), "exit status 1")
	if log := stranger.Log(t); !strings.Contains(log, "member count is unequal") {
		t.Error("its log does not say why")
	}
	c.Forget(stranger)
	put(ctx, t, c.Leader(t), "k", "v")
}

// A member of another cluster, by its token, is refused on every link.
func TestWrongCluster(t *testing.T) {
	t.Parallel()
	c, ctx := three(t)
	stranger := c.Join(t)
	c.Forget(stranger)
	all := stranger.Name + "=" + stranger.PeerURL()
	for _, s := range c.Members {
		all += "," + s.Name + "=" + s.PeerURL()
	}
	stranger.BeginAs("--initial-cluster="+all, "--initial-cluster-state=new", "--initial-cluster-token=another")
	stranger.Launch(t)
	harness.Eventually(t, settle, "a log says that the cluster is the wrong one", func() error {
		log := stranger.Log(t)
		for _, s := range c.Members {
			log += s.Log(t)
		}
		if !strings.Contains(strings.ToLower(log), "cluster id mismatch") {
			return harness.ErrNotYet
		}
		return nil
	})
	harness.Equal(t, "it has ended", stranger.Exited(), false)
	put(ctx, t, c.Leader(t), "k", "v")
	list, err := members(t, c.Members[0]).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	harness.Fatal(t, err)
	harness.Equal(t, "members", len(list.Members), 3)
	if status, err := stranger.Status(); err == nil && status.Leader != 0 {
		t.Errorf("the stranger follows %x", status.Leader)
	}
}
