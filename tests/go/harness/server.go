// Package harness starts the server under test and gives tests their clients.
//
// Owns: the server process, its ports and its temporary directory.
// Gives: ready servers, clients on them, and the version gate.
// Never: looks inside the server; everything goes through its public ports.
//
// The server is any etcd-compatible binary, named by CASTD_BIN. A second one,
// named by CASTD_REFERENCE_ETCD, is started only by tests that compare.
package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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

	readyTimeout = 30 * time.Second
	stopTimeout  = 15 * time.Second
)

// Server is one running member on loopback with a data directory of its own.
type Server struct {
	// Addr is host:port of the client listener (gRPC and HTTP).
	Addr string
	// MetricsAddr is host:port of the metrics listener.
	MetricsAddr string
	// PeerAddr is host:port of the peer listener.
	PeerAddr string

	binary  string
	dir     string
	extra   []string
	cmd     *exec.Cmd
	exited  chan struct{}
	version string
}

// Start runs the server under test on a fresh directory and waits until it
// serves; it is stopped, and its directory removed, when the test ends.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	return startForTest(t, binary(), flags)
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
	s := Start(t, flags...)
	s.moveTo(t, killed)
	return s
}

// moveTo starts a server anew, empty, on another one's ports.
func (s *Server) moveTo(t testing.TB, killed *Server) {
	t.Helper()
	s.Kill(t)
	Fatal(t, os.RemoveAll(s.DataDir()))
	s.Addr, s.MetricsAddr, s.PeerAddr = killed.Addr, killed.MetricsAddr, killed.PeerAddr
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
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("last lines of the server's log:\n%s", s.logTail())
		}
		s.remove()
	})
	return s
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
	shared.once.Do(func() { shared.server, shared.err = start(binary(), nil) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	if shared.server.Exited() {
		t.Fatalf("the shared server is gone; last lines of its log:\n%s", shared.server.logTail())
	}
	return shared.server
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
		shared.server.remove()
	}
	os.Exit(code)
}

func binary() string { return os.Getenv(BinaryEnv) }

func start(path string, flags []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return nil, err
	}
	s := &Server{
		Addr:        FreeAddr(),
		MetricsAddr: FreeAddr(),
		PeerAddr:    FreeAddr(),
		binary:      path,
		dir:         dir,
		extra:       flags,
	}
	if err := s.launch(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// launch starts the process and returns when it has answered a linearizable read.
func (s *Server) launch() error {
	args := []string{
		"--name=m1",
		"--data-dir=" + s.DataDir(),
		"--listen-client-urls=http://" + s.Addr,
		"--advertise-client-urls=http://" + s.Addr,
		"--listen-metrics-urls=http://" + s.MetricsAddr,
		"--listen-peer-urls=http://" + s.PeerAddr,
		"--initial-advertise-peer-urls=http://" + s.PeerAddr,
		"--initial-cluster=m1=http://" + s.PeerAddr,
		"--logger=zap",
		"--log-level=info",
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.binary, append(args, s.extra...)...)
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
	return s.waitReady()
}

func (s *Server) waitReady() error {
	conn, err := grpc.NewClient(s.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if err := answer(ctx, conn, s.exited); err != nil {
		return fmt.Errorf("%s is not ready: %w\n%s", s.binary, err, s.logTail())
	}
	return s.readVersion(ctx, conn)
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
func (s *Server) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{s.Addr},
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

// Needs skips the test on a real etcd older than major.minor. castd reports
// the version it is compatible with, so nothing is skipped on it: a binary
// that calls itself castd and reports less fails instead.
func (s *Server) Needs(t testing.TB, minimum string) {
	t.Helper()
	if !versionLess(s.version, minimum) {
		return
	}
	if s.IsCastd() {
		t.Fatalf("castd reports version %s, less than the %s this test needs", s.version, minimum)
	}
	t.Skipf("etcd %s: needs %s", s.version, minimum)
}

// Older says whether the server is a real etcd older than major.minor.
func (s *Server) Older(minimum string) bool { return versionLess(s.version, minimum) }

// IsCastd asks the binary itself (--version).
func (s *Server) IsCastd() bool {
	out, err := exec.Command(s.binary, "--version").CombinedOutput()
	return err == nil && strings.Contains(string(out), "castd Version:")
}

// versionLess compares the first numbers that both versions have.
func versionLess(have, want string) bool {
	var h, w [3]int
	_, _ = fmt.Sscanf(have, "%d.%d.%d", &h[0], &h[1], &h[2])
	_, _ = fmt.Sscanf(want, "%d.%d.%d", &w[0], &w[1], &w[2])
	for i := range h {
		if h[i] != w[i] {
			return h[i] < w[i]
		}
	}
	return false
}

// Ports come from below the range the kernel gives to outgoing connections, so
// that nobody takes one while its server is down in a restart test. Each test
// process walks on from a start of its own and hands out no port twice.
const portsFrom, portCount = 12000, 20000

var nextPort = func() *atomic.Int64 {
	var n atomic.Int64
	n.Store(rand.Int64N(portCount))
	return &n
}()

// FreeAddr gives a loopback address that nobody listens on.
func FreeAddr() string {
	for {
		addr := fmt.Sprintf("127.0.0.1:%d", portsFrom+nextPort.Add(1)%portCount)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		_ = l.Close()
		return addr
	}
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
