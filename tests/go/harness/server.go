// Package harness starts the server under test and gives tests their clients.
//
// Owns: the server processes, their ports and their temporary directories.
// Gives: ready servers, alone or as members of a cluster, clients on them, and
// the version gate.
// Never: looks inside the server; everything goes through its public ports.
//
// The server is any etcd-compatible binary, named by CASTD_BIN. A second one,
// named by CASTD_REFERENCE_ETCD, is started only by tests that compare. With
// CASTD_MEMBERS=3 what Start gives is one member of a cluster of three.
package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// BinaryEnv names the variable that holds the path of the server under test.
	BinaryEnv = "CASTD_BIN"
	// ReferenceEnv names the variable that holds the path of a real etcd to compare with.
	ReferenceEnv = "CASTD_REFERENCE_ETCD"
	// MembersEnv names the variable that says how many members a server has.
	MembersEnv = "CASTD_MEMBERS"

	// startAttempts is how often a first start is tried while ports are taken.
	startAttempts = 3

	readyTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second
)

// Server is one running member on loopback with a data directory of its own.
type Server struct {
	// Name is the member's name.
	Name string
	// Addr is host:port of the client listener (gRPC and HTTP).
	Addr string
	// MetricsAddr is host:port of the metrics listener.
	MetricsAddr string
	// PeerAddr is host:port of the peer listener.
	PeerAddr string

	binary string
	dir    string
	// bootstrap are the flags that say whom the member begins with.
	bootstrap []string
	extra     []string
	// fellows are the members that a client of this one fails over to.
	fellows []*Server
	// names is who it asks for names, when not the system's servers.
	names   *Names
	cmd     *exec.Cmd
	exited  chan struct{}
	version string
	// conn is for the harness's own questions.
	conn *grpc.ClientConn
}

// Start runs the server under test on a fresh directory and waits until it
// serves; it is stopped, and its directory removed, when the test ends. With
// CASTD_MEMBERS=N it is the first of N members: what is killed and restarted is
// this one, and its Client fails over to the others.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	if Members() > 1 {
		return StartCluster(t, Members(), flags...).Members[0]
	}
	return StartAlone(t, flags...)
}

// StartAlone is Start of a single member, whatever CASTD_MEMBERS says.
func StartAlone(t testing.TB, flags ...string) *Server {
	t.Helper()
	return startForTest(t, binary(), flags)
}

// Members is how many members what Start gives has.
func Members() int {
	n, err := strconv.Atoi(os.Getenv(MembersEnv))
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// StartReference runs the etcd named by CASTD_REFERENCE_ETCD. The test is
// skipped when the variable is unset: a comparison needs two servers.
func StartReference(t testing.TB, flags ...string) *Server {
	t.Helper()
	path := os.Getenv(ReferenceEnv)
	if path == "" {
		t.Skipf("%s is not set: nothing to compare with", ReferenceEnv)
	}
	return startForTest(t, path, flags)
}

// StartAt is Start on the ports of a server that was killed.
func StartAt(t testing.TB, killed *Server, flags ...string) *Server {
	t.Helper()
	s := StartAlone(t, flags...)
	s.moveTo(t, killed)
	return s
}

// moveTo starts a server anew, empty, on another one's ports.
func (s *Server) moveTo(t testing.TB, killed *Server) {
	t.Helper()
	s.Kill(t)
	Fatal(t, os.RemoveAll(s.DataDir()))
	Fatal(t, s.takeAddresses(killed.Addr, killed.MetricsAddr, killed.PeerAddr))
	s.beginAs("new", s)
	s.Restart(t)
}

// StartReferenceAt is StartReference on the ports of a server that was killed.
func StartReferenceAt(t testing.TB, killed *Server) *Server {
	t.Helper()
	s := StartReference(t)
	s.moveTo(t, killed)
	return s
}

// StartBinary runs another etcd-compatible binary in the same way.
func StartBinary(t testing.TB, path string, flags ...string) *Server {
	t.Helper()
	return startForTest(t, path, flags)
}

func startForTest(t testing.TB, path string, flags []string) *Server {
	t.Helper()
	s, err := start(path, flags)
	if err != nil {
		t.Fatal(err)
	}
	s.removeAfter(t)
	return s
}

// removeAfter ends the server with the test, and shows its log if that failed.
func (s *Server) removeAfter(t testing.TB) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("last lines of %s's log:\n%s", s.Name, s.logTail())
		}
		s.remove()
	})
}

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Shared gives the package's common server, started on first use. Tests that
// use it keep to keys of their own (see Prefix) and never count revisions.
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = startShared() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	if shared.server.Exited() {
		t.Fatalf("the shared server is gone; last lines of its log:\n%s", shared.server.logTail())
	}
	return shared.server
}

func startShared() (*Server, error) {
	if Members() == 1 {
		return start(binary(), nil)
	}
	cluster, err := startCluster(binary(), Members(), nil)
	if err != nil {
		return nil, err
	}
	return cluster.Members[0], nil
}

// Main is the body of a package's TestMain: it insists on CASTD_BIN, runs the
// tests and stops the shared server.
func Main(m *testing.M) {
	if os.Getenv(BinaryEnv) == "" {
		fmt.Fprintf(os.Stderr, "%s is not set: it must name the server binary to test\n", BinaryEnv)
		os.Exit(1)
	}
	if !filepath.IsAbs(binary()) {
		fmt.Fprintf(os.Stderr, "%s=%s must be an absolute path: each package runs in its own directory\n", BinaryEnv, binary())
		os.Exit(1)
	}
	code := m.Run()
	if shared.server != nil {
		for _, s := range append(shared.server.fellows, shared.server) {
			s.remove()
		}
	}
	os.Exit(code)
}

func binary() string { return os.Getenv(BinaryEnv) }

// prepare gives a server its ports and its directory; nothing runs yet.
func prepare(path, name string, flags []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return nil, err
	}
	s := &Server{
		Name:   name,
		binary: path,
		dir:    dir,
		extra:  flags,
	}
	return s, s.takeAddresses(FreeAddr(), FreeAddr(), FreeAddr())
}

// takeAddresses gives a server that does not run its addresses.
func (s *Server) takeAddresses(client, metrics, peer string) error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	s.Addr, s.MetricsAddr, s.PeerAddr = client, metrics, peer
	conn, err := grpc.NewClient(client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	s.conn = conn
	return err
}

func start(path string, flags []string) (*Server, error) {
	for attempt := 1; ; attempt++ {
		s, err := prepare(path, "m1", flags)
		if err != nil {
			return nil, err
		}
		s.beginAs("new", s)
		if err = s.launch(); err == nil {
			return s, nil
		}
		again := attempt < startAttempts && s.lacksPort()
		s.remove()
		if !again {
			return nil, err
		}
	}
}

// lacksPort says whether the process ended because somebody else, who is no test
// of ours, took one of its ports in the meantime.
func (s *Server) lacksPort() bool {
	return s.exited != nil && s.Exited() && strings.Contains(s.logTail(), "ddress already in use")
}

// beginAs sets the flags of a start without data: the members to begin with.
func (s *Server) beginAs(state string, members ...*Server) {
	pairs := make([]string, len(members))
	for i, m := range members {
		pairs[i] = m.Name + "=" + m.PeerURL()
	}
	s.bootstrap = []string{"--initial-cluster=" + strings.Join(pairs, ","), "--initial-cluster-state=" + state}
}

// launch starts the process and returns when it has answered a linearizable read.
func (s *Server) launch() error {
	if err := s.spawn(); err != nil {
		return err
	}
	return s.waitReady()
}

// spawn starts the process and does not wait for it.
func (s *Server) spawn() error {
	args := []string{
		"--name=" + s.Name,
		"--data-dir=" + s.DataDir(),
		"--listen-client-urls=http://" + s.Addr,
		"--advertise-client-urls=http://" + s.Addr,
		"--listen-metrics-urls=http://" + s.MetricsAddr,
		"--listen-peer-urls=http://" + s.PeerAddr,
		"--initial-advertise-peer-urls=" + s.PeerURL(),
		"--logger=zap",
		"--log-level=info",
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command(slices.Concat(args, s.bootstrap, s.extra))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Env = withoutEtcdVariables(os.Environ())
	if err := startOnLockedThread(s.cmd); err != nil {
		return fmt.Errorf("starting %s: %w", s.binary, err)
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(s.cmd, s.exited)
	return nil
}

func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if err := answer(ctx, s.conn, s.exited); err != nil {
		return fmt.Errorf("%s (%s) is not ready: %w\n%s", s.Name, s.binary, err, s.logTail())
	}
	return s.readVersion(ctx, s.conn)
}

// answer returns when a linearizable read succeeds, or when the process ends.
func answer(ctx context.Context, conn *grpc.ClientConn, exited <-chan struct{}) error {
	kv := pb.NewKVClient(conn)
	for {
		call, done := context.WithTimeout(ctx, time.Second)
		_, err := kv.Range(call, &pb.RangeRequest{Key: []byte("ready")})
		done()
		if err == nil {
			return nil
		}
		conn.ResetConnectBackoff()
		select {
		case <-exited:
			return errors.New("the process ended")
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s: %w", readyTimeout, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) readVersion(ctx context.Context, conn *grpc.ClientConn) error {
	status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return fmt.Errorf("asking for the status: %w", err)
	}
	s.version = status.Version
	return nil
}

// DataDir is the server's data directory.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

func (s *Server) logPath() string { return filepath.Join(s.dir, "server.log") }

// PeerURL is the URL by which the other members know this one.
func (s *Server) PeerURL() string { return "http://" + s.PeerAddr }

// Version is what the server's Status reports, such as 3.7.1.
func (s *Server) Version() string { return s.version }

// Exited says whether the process has ended.
func (s *Server) Exited() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// Kill ends the process with SIGKILL, as a crash would.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-s.exited
}

// Stop asks the process to end (SIGTERM) and waits for it.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		t.Fatalf("the server did not stop within %s of SIGTERM", stopTimeout)
	}
}

// Restart starts the process again on the same ports and directory.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.launch(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) remove() {
	if s.cmd != nil && s.cmd.Process != nil && s.exited != nil {
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
	if s.conn != nil {
		_ = s.conn.Close()
	}
	_ = os.RemoveAll(s.dir)
}

func (s *Server) logTail() string {
	const tailBytes = 1500
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailBytes):])
}

// Client opens an official client on the server, closed when the test ends.
// Of a cluster it knows all members.
func (s *Server) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	return openClient(t, append([]*Server{s}, s.fellows...)...)
}

// ClientOfOne opens an official client that knows this member only.
func (s *Server) ClientOfOne(t testing.TB) *clientv3.Client {
	t.Helper()
	return openClient(t, s)
}

func openClient(t testing.TB, servers ...*Server) *clientv3.Client {
	t.Helper()
	endpoints := make([]string, len(servers))
	for i, s := range servers {
		endpoints[i] = s.Addr
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: 5 * time.Second,
		Logger:      quietLogger,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Conn opens a plain gRPC connection: no retries, no error conversion.
func (s *Server) Conn(t testing.TB, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(s.Addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// withoutEtcdVariables drops ETCD_* and ETCDCTL_*, which would configure the server.
func withoutEtcdVariables(env []string) []string {
	kept := make([]string, 0, len(env))
	for _, pair := range env {
		if !strings.HasPrefix(pair, "ETCD_") && !strings.HasPrefix(pair, "ETCDCTL_") {
			kept = append(kept, pair)
		}
	}
	return kept
}
