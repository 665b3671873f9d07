package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// settleTimeout bounds every wait for a cluster to agree: many election
// timeouts, for a machine that has other things to do.
const settleTimeout = 60 * time.Second

// Cluster is several members on loopback.
type Cluster struct {
	// Members are those that were started or added, also when they are down.
	Members []*Server

	binary string
	flags  []string
	// joined counts the members that were ever prepared to join.
	joined int
}

// StartCluster runs n members of the server under test and waits until all of
// them serve; they are stopped when the test ends.
func StartCluster(t testing.TB, n int, flags ...string) *Cluster {
	t.Helper()
	return startClusterForTest(t, binary(), n, flags)
}

// PrepareCluster gives members of the server under test their ports and
// directories; nothing runs yet, and BeginAs can still say how they begin.
func PrepareCluster(t testing.TB, n int, flags ...string) *Cluster {
	t.Helper()
	c, err := prepareCluster(binary(), n, flags)
	for _, s := range c.Members {
		s.removeAfter(t)
	}
	Fatal(t, err)
	return c
}

// StartClusterOf is StartCluster of another etcd-compatible binary.
func StartClusterOf(t testing.TB, path string, n int, flags ...string) *Cluster {
	t.Helper()
	return startClusterForTest(t, path, n, flags)
}

// StartReferenceCluster is StartCluster of the etcd named by
// CASTD_REFERENCE_ETCD; the test is skipped when the variable is unset.
func StartReferenceCluster(t testing.TB, n int, flags ...string) *Cluster {
	t.Helper()
	path := os.Getenv(ReferenceEnv)
	if path == "" {
		t.Skipf("%s is not set: nothing to compare with", ReferenceEnv)
	}
	return startClusterForTest(t, path, n, flags)
}

func startClusterForTest(t testing.TB, path string, n int, flags []string) *Cluster {
	t.Helper()
	c, err := startCluster(path, n, flags)
	Fatal(t, err)
	for _, s := range c.Members {
		s.removeAfter(t)
	}
	return c
}

func startCluster(path string, n int, flags []string) (*Cluster, error) {
	for attempt := 1; ; attempt++ {
		c, err := prepareCluster(path, n, flags)
		if err == nil {
			err = c.spawnAll()
		}
		if err == nil {
			err = c.waitAllReady()
		}
		if err == nil {
			return c, nil
		}
		again := attempt < startAttempts && slices.ContainsFunc(c.Members, (*Server).lacksPort)
		for _, s := range c.Members {
			s.remove()
		}
		if !again {
			return nil, err
		}
	}
}

func prepareCluster(path string, n int, flags []string) (*Cluster, error) {
	c := &Cluster{binary: path, flags: flags}
	for i := range n {
		s, err := prepare(path, fmt.Sprintf("m%d", i+1), flags)
		if s != nil {
			c.Members = append(c.Members, s)
		}
		if err != nil {
			return c, err
		}
	}
	for i, s := range c.Members {
		s.beginAs("new", c.Members...)
		s.fellows = slices.Concat(c.Members[:i], c.Members[i+1:])
	}
	return c, nil
}

func (c *Cluster) spawnAll() error {
	for _, s := range c.Members {
		if err := s.spawn(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) waitAllReady() error {
	for _, s := range c.Members {
		if err := s.waitReady(); err != nil {
			return err
		}
	}
	return nil
}

// MoveTo starts the cluster anew, empty, on the ports of another one of the
// same size, all of whose members are down.
func (c *Cluster) MoveTo(t testing.TB, from *Cluster) {
	t.Helper()
	for i, s := range c.Members {
		s.Kill(t)
		Fatal(t, os.RemoveAll(s.DataDir()))
		old := from.Members[i]
		Fatal(t, s.takeAddresses(old.Addr, old.MetricsAddr, old.PeerAddr))
	}
	for _, s := range c.Members {
		s.beginAs("new", c.Members...)
	}
	c.StartAll(t)
}

// StartAll starts every member, all at once, and waits until they serve.
func (c *Cluster) StartAll(t testing.TB) {
	t.Helper()
	Fatal(t, c.spawnAll())
	Fatal(t, c.waitAllReady())
}

// KillAll ends every member with SIGKILL.
func (c *Cluster) KillAll(t testing.TB) {
	t.Helper()
	for _, s := range c.Members {
		s.Kill(t)
	}
}

// Join prepares a member that is to join; Launch starts it. Its start names
// the members that the cluster knows: add it there first. Flags come after the
// cluster's own.
func (c *Cluster) Join(t testing.TB, flags ...string) *Server {
	t.Helper()
	c.joined++
	s, err := prepare(c.binary, fmt.Sprintf("joined%d", c.joined), slices.Concat(c.flags, flags))
	Fatal(t, err)
	s.removeAfter(t)
	c.Members = append(c.Members, s)
	s.beginAs("existing", c.Members...)
	return s
}

// Forget takes a member out of the harness's list, after its removal.
func (c *Cluster) Forget(gone *Server) {
	c.Members = slices.DeleteFunc(c.Members, func(s *Server) bool { return s == gone })
}

// Client opens an official client that knows all members.
func (c *Cluster) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	return openClient(t, c.Members...)
}

// Running are the members whose process runs.
func (c *Cluster) Running() []*Server {
	var running []*Server
	for _, s := range c.Members {
		if s.exited != nil && !s.Exited() {
			running = append(running, s)
		}
	}
	return running
}

// Leader waits until the running members agree on one of them and gives it.
func (c *Cluster) Leader(t testing.TB) *Server {
	t.Helper()
	var leader *Server
	Eventually(t, settleTimeout, "the members agree on a leader", func() (err error) {
		leader, err = c.agreed()
		return err
	})
	return leader
}

func (c *Cluster) agreed() (*Server, error) {
	var leader *Server
	var id uint64
	for i, s := range c.Running() {
		status, err := s.Status()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		if i > 0 && status.Leader != id {
			return nil, fmt.Errorf("%s follows %x, another %x", s.Name, status.Leader, id)
		}
		id = status.Leader
		if status.Header.MemberId == id {
			leader = s
		}
	}
	if leader == nil {
		return nil, fmt.Errorf("the leader %x does not run", id)
	}
	return leader, nil
}

// Followers are the running members that do not lead.
func (c *Cluster) Followers(t testing.TB) []*Server {
	t.Helper()
	leader := c.Leader(t)
	return slices.DeleteFunc(c.Running(), func(s *Server) bool { return s == leader })
}

// WaitHealthy returns when the running members agree on a leader and each
// answers a linearizable read.
func (c *Cluster) WaitHealthy(t testing.TB) {
	t.Helper()
	c.Leader(t)
	for _, s := range c.Running() {
		s.WaitReady(t)
	}
}

// CatchUp returns when every running member of the server's cluster has what was
// acknowledged before the call, through whichever of them: what a test does next
// may go to a member that is otherwise a moment behind. A test needs it between a
// step through a client of all members and one that does not wait by itself, as
// serializable reads, watches from a revision and the like do not.
func (s *Server) CatchUp(t testing.TB) {
	t.Helper()
	for _, m := range s.All() {
		if !m.Exited() {
			m.WaitReady(t)
		}
	}
}

// All are the server and the other members of its cluster.
func (s *Server) All() []*Server { return append([]*Server{s}, s.fellows...) }

// Launch starts the process and does not wait until it serves.
func (s *Server) Launch(t testing.TB) {
	t.Helper()
	Fatal(t, s.spawn())
}

// WaitReady returns when the server answers a linearizable read.
func (s *Server) WaitReady(t testing.TB) {
	t.Helper()
	Fatal(t, s.waitReady())
}

// RestartWith is Restart with more flags, from now on.
func (s *Server) RestartWith(t testing.TB, flags ...string) {
	t.Helper()
	s.extra = slices.Concat(s.extra, flags)
	s.Restart(t)
}

// RestartWithout is Restart without some flags that it had, from now on.
func (s *Server) RestartWithout(t testing.TB, flags ...string) {
	t.Helper()
	s.extra = slices.DeleteFunc(slices.Clone(s.extra), func(f string) bool { return slices.Contains(flags, f) })
	s.Restart(t)
}

// WaitExit waits until the process has ended by itself and gives its status.
func (s *Server) WaitExit(t testing.TB) *os.ProcessState {
	t.Helper()
	select {
	case <-s.exited:
	case <-time.After(settleTimeout):
		t.Fatalf("%s goes on running; last lines of its log:\n%s", s.Name, s.logTail())
	}
	return s.cmd.ProcessState
}

// BeginAs replaces the flags that say whom the member begins with.
func (s *Server) BeginAs(flags ...string) { s.bootstrap = flags }

// Pause stops the process where it is (SIGSTOP), until Resume or its end. It
// returns when no thread runs any more, which on a busy machine takes its time.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	Fatal(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	Eventually(t, settleTimeout, s.Name+" stops", s.stopped)
}

func (s *Server) stopped() error {
	states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for _, path := range states {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// The state comes after the name, which is in parentheses.
		if _, state, _ := strings.Cut(string(text), ") "); !strings.HasPrefix(state, "T") {
			return fmt.Errorf("a thread is in state %.1s", state)
		}
	}
	return nil
}

// Resume lets a paused process go on.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	Fatal(t, s.cmd.Process.Signal(syscall.SIGCONT))
}

// Log is what the server has logged.
func (s *Server) Log(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(s.logPath())
	Fatal(t, err)
	return string(text)
}

// Status asks the member itself, within a few seconds.
func (s *Server) Status() (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	status, err := pb.NewMaintenanceClient(s.conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		s.conn.ResetConnectBackoff()
	}
	return status, err
}

// ID is the member's id.
func (s *Server) ID(t testing.TB) uint64 {
	t.Helper()
	var id uint64
	Eventually(t, settleTimeout, s.Name+" answers", func() error {
		status, err := s.Status()
		if err == nil {
			id = status.Header.MemberId
		}
		return err
	})
	return id
}

// Reply is an HTTP answer.
type Reply struct {
	Code int
	Body string
}

// Get asks the client listener by HTTP.
func (s *Server) Get(path string) (Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr+path, nil)
	if err != nil {
		return Reply{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return Reply{resp.StatusCode, string(body)}, err
}

// Metric reads one sample of the server's metrics, such as a gauge without labels.
func (s *Server) Metric(t testing.TB, sample string) float64 {
	t.Helper()
	reply, err := s.Get("/metrics")
	Fatal(t, err)
	for line := range strings.Lines(reply.Body) {
		if value, found := strings.CutPrefix(line, sample+" "); found {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			Fatal(t, err)
			return n
		}
	}
	t.Fatalf("%s has no metric %s", s.Name, sample)
	return 0
}

// SnapshotsReceived counts the snapshots that came since the process started.
func (s *Server) SnapshotsReceived(t testing.TB) float64 {
	t.Helper()
	reply, err := s.Get("/metrics")
	Fatal(t, err)
	total := 0.0
	for line := range strings.Lines(reply.Body) {
		if !strings.HasPrefix(line, "etcd_network_snapshot_receive_success{") {
			continue
		}
		_, value, _ := strings.Cut(line, "} ")
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		Fatal(t, err)
		total += n
	}
	return total
}

// ErrNotYet is for a condition of Eventually that has nothing more to say.
var ErrNotYet = errors.New("not yet")

// Eventually asks until a condition gives nil, and fails the test with its last
// error when that takes longer than the limit.
func Eventually(t testing.TB, limit time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
