package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// RequireNamesEnv set to 1 makes a test that needs a name server of its own fail
// where none is possible, instead of being skipped.
const RequireNamesEnv = "CASTD_REQUIRE_DNS"

const nameServerPort = 53

// Names is a DNS server on loopback for the servers that UseNames gives it to; it
// knows nothing but what it was told, and every host is 127.0.0.1.
type Names struct {
	// Addr is the server's host:port.
	Addr string
	// Both makes every host ::1 as well; set it before anybody asks.
	Both bool

	conn    net.PacketConn
	dir     string
	mu      sync.Mutex
	hosts   map[string]bool
	records map[string][]dnsmessage.SRVResource
}

// StartNames runs a name server until the test ends. It needs root: the port is
// privileged, and so is giving a process another resolv.conf. Without it the test
// is skipped, unless CASTD_REQUIRE_DNS is 1. Search are the domains in which
// names that are not absolute are looked up.
func StartNames(t testing.TB, search ...string) *Names {
	t.Helper()
	conn, err := listenForNames()
	if err != nil {
		if os.Getenv(RequireNamesEnv) == "1" {
			t.Fatalf("%s=1, and no name server is possible here: %v", RequireNamesEnv, err)
		}
		t.Skipf("no name server is possible here: %v", err)
	}
	n := &Names{
		Addr:    conn.LocalAddr().String(),
		conn:    conn,
		dir:     t.TempDir(),
		hosts:   map[string]bool{},
		records: map[string][]dnsmessage.SRVResource{},
	}
	t.Cleanup(func() { _ = conn.Close() })
	host, _, _ := net.SplitHostPort(n.Addr)
	text := fmt.Sprintf("nameserver %s\noptions timeout:2 attempts:3\n", host)
	if len(search) > 0 {
		text += "search " + strings.Join(search, " ") + "\n"
	}
	Fatal(t, os.WriteFile(filepath.Join(n.dir, "resolv.conf"), []byte(text), 0o644))
	Fatal(t, os.WriteFile(filepath.Join(n.dir, "nsswitch.conf"), []byte("hosts: files dns\n"), 0o644))
	go n.serve()
	return n
}

func listenForNames() (net.PacketConn, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("it takes root")
	}
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("no mount namespace: %w: %s", err, out)
	}
	// Any 127/8 address is there; other tests have others.
	at := fmt.Sprintf("127.%d.%d.%d:%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254), nameServerPort)
	return net.ListenPacket("udp4", at)
}

// Host makes names known.
func (n *Names) Host(names ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		n.hosts[absolute(name)] = true
	}
}

// Serve adds an SRV record: service such as _etcd-server._tcp.example, and where
// it is. The target is a name of its own, which Host makes known.
func (n *Names) Serve(service, target string, port uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	record := dnsmessage.SRVResource{Weight: 10, Port: port, Target: dnsmessage.MustNewName(absolute(target))}
	n.records[absolute(service)] = append(n.records[absolute(service)], record)
}

// Forget takes a service's records away.
func (n *Names) Forget(service string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.records, absolute(service))
}

func absolute(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, ".")) + "."
}

func (n *Names) serve() {
	question := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(question)
		if err != nil {
			return // closed
		}
		if answer, err := n.answer(question[:size]); err == nil {
			_, _ = n.conn.WriteTo(answer, from)
		}
	}
}

func (n *Names) answer(question []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(question)
	if err != nil {
		return nil, err
	}
	asked, err := parser.Question()
	if err != nil {
		return nil, err
	}
	name := absolute(asked.Name.String())
	n.mu.Lock()
	known, records := n.hosts[name], n.records[name]
	n.mu.Unlock()

	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true,
			RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{asked},
	}
	if !known && len(records) == 0 {
		reply.RCode = dnsmessage.RCodeNameError
	}
	add := func(body dnsmessage.ResourceBody) {
		about := dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET, TTL: 1}
		reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: about, Body: body})
	}
	if known && asked.Type == dnsmessage.TypeA {
		add(&dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}})
	}
	if known && n.Both && asked.Type == dnsmessage.TypeAAAA {
		add(&dnsmessage.AAAAResource{AAAA: [16]byte(net.IPv6loopback)})
	}
	if asked.Type == dnsmessage.TypeSRV {
		for i := range records {
			add(&records[i])
		}
	}
	return reply.Pack()
}

// UseNames makes the server's process ask this name server and no other, from its
// next start on: it gets a mount namespace with a resolv.conf of its own.
func (s *Server) UseNames(n *Names) { s.names = n }

// command is how the server's process is started.
func (s *Server) command(args []string) *exec.Cmd {
	if s.names == nil {
		return exec.Command(s.binary, args...)
	}
	// Each step replaces the process, so that it is the server that is killed. A
	// system without an nsswitch.conf does by itself what ours says.
	const script = `mount --bind "$0/resolv.conf" /etc/resolv.conf || exit 125
[ ! -e /etc/nsswitch.conf ] || mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf || exit 125
exec "$@"`
	wrapped := []string{"--mount", "sh", "-c", script, s.names.dir, s.binary}
	return exec.Command("unshare", append(wrapped, args...)...)
}
