package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// slowLink makes a proxy carry about 8 MB/s: long enough to be in the middle.
const slowLink = 2 * time.Millisecond

// far is a cluster one of whose members is down and so far behind that it needs a
// snapshot of tens of megabytes.
type far struct {
	*harness.Cluster

	away *harness.Server
	// link is how the others reach it.
	link *harness.Proxy
	load *load
}

const (
	farPuts  = 200 // more than the leader keeps of its log
	farBytes = 160 << 10
)

func farBehind(t *testing.T) (far, context.Context) {
	t.Helper()
	c, proxies, ctx := behindProxies(t, shortLog(t)...)
	away := c.Followers(t)[0]
	f := far{Cluster: c, away: away, link: proxies[slices.Index(c.Members, away)]}
	f.load = startLoad(t, c.Client(t), 2)
	f.load.more(t, 100)
	away.Kill(t)
	f.grow(ctx, t)
	f.link.Delay(slowLink)
	return f, ctx
}

// grow writes what no compression makes smaller.
func (f far) grow(ctx context.Context, t *testing.T) {
	t.Helper()
	const writers = 4
	stub := kv(t, f.Leader(t))
	failures := make(chan error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			value := make([]byte, farBytes)
			for i := w; i < farPuts; i += writers {
				_, _ = rand.Read(value) // never fails
				_, err := stub.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "far/%03d", i), Value: value})
				if err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failures)
	for err := range failures {
		harness.Fatal(t, err)
	}
}

// sent waits until the member was sent so much of the state, from now on.
func (f far) sent(t *testing.T, share float64) {
	t.Helper()
	least := f.link.Carried() + int64(share*farPuts*farBytes)
	harness.Eventually(t, settle, "a part of the snapshot is sent", func() error {
		if carried := f.link.Carried(); carried < least {
			return fmt.Errorf("%d bytes are missing", least-carried)
		}
		return nil
	})
}

// installing waits until the member begins to install a snapshot, and looks often:
// installing may not take long.
func (f far) installing(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(settle); ; {
		if begun, _ := installs(t, f.away); begun > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it installs no snapshot")
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// check lets all members run and agree.
func (f far) check(ctx context.Context, t *testing.T) {
	t.Helper()
	f.link.Delay(0)
	f.WaitHealthy(t)
	f.load.more(t, 20)
	f.load.check(ctx, t, f.Members)
	for _, s := range f.Members {
		resp, err := kv(t, s).Range(ctx, &pb.RangeRequest{
			Key: []byte("far/"), RangeEnd: []byte("far0"), CountOnly: true, Serializable: true,
		})
		harness.Fatal(t, err)
		harness.Equal(t, "large values of "+s.Name, resp.Count, farPuts)
	}
	wantSameHash(ctx, t, f.Members)
}

// The leader is killed in the middle of sending a large snapshot: the next one
// sends its own, from the start.
func TestLeaderKilledWhileItSendsASnapshot(t *testing.T) {
	t.Parallel()
	f, ctx := farBehind(t)
	leader := f.Leader(t)
	f.away.Launch(t)
	f.sent(t, 0.25)
	leader.Kill(t)
	f.sent(t, 0.75) // together no more than one: what came of the first was of no use
	f.away.WaitReady(t)
	if n := f.away.SnapshotsReceived(t); n < 1 {
		t.Errorf("it received %v snapshots", n)
	}
	f.load.more(t, 20)
	leader.Restart(t)
	f.check(ctx, t)
}

// The receiver is killed while a large snapshot comes, and again when all of it
// is there and takes the place of what it has.
func TestReceiverKilledWhileItInstallsASnapshot(t *testing.T) {
	t.Parallel()
	f, ctx := farBehind(t)
	for _, share := range []float64{0.1, 0.75} {
		f.away.Launch(t)
		f.sent(t, share)
		f.away.Kill(t)
	}
	f.load.more(t, 100) // and goes on while it is away
	f.away.Launch(t)
	f.installing(t)
	f.away.Kill(t)
	begun, ended := installs(t, f.away)
	t.Logf("when it was killed it had begun to install %d, and installed %d", begun, ended)
	f.away.Restart(t)
	f.check(ctx, t)
}

// installs counts the snapshots that a member began to install, and those that it
// has installed, by its log.
func installs(t *testing.T, s *harness.Server) (begun, ended int) {
	t.Helper()
	for line := range strings.Lines(s.Log(t)) {
		switch {
		case strings.Contains(line, `"installing a snapshot"`), strings.Contains(line, `"applying snapshot"`):
			begun++
		case strings.Contains(line, `"installed a snapshot"`), strings.Contains(line, `"applied snapshot"`):
			ended++
		}
	}
	return begun, ended
}
