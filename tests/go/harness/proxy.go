package harness

import (
	"net"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Proxy stands between clients and a server and spoils their connections. It
// copies bytes and knows nothing of what they mean.
type Proxy struct {
	// Addr is where clients connect.
	Addr   string
	target string
	door   net.Listener

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	// open is closed while bytes go on, and new while they are held.
	open    chan struct{}
	shut    bool
	delay   time.Duration
	carried int64
}

// StartProxy puts a proxy in front of a server; it ends with the test.
func StartProxy(t testing.TB, s *Server) *Proxy { return startProxy(t, s.Addr) }

// StartPeerProxy puts a proxy in front of the listener for the other members.
func StartPeerProxy(t testing.TB, s *Server) *Proxy { return startProxy(t, s.PeerAddr) }

func startProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	Fatal(t, err)
	p := &Proxy{Addr: door.Addr().String(), target: target, door: door, conns: map[net.Conn]struct{}{}, open: make(chan struct{})}
	close(p.open)
	t.Cleanup(func() {
		_ = door.Close()
		p.Go()
		p.Cut()
	})
	go p.accept()
	return p
}

// ClientThrough opens an official client that reaches servers through proxies
// only.
func ClientThrough(t testing.TB, proxies ...*Proxy) *clientv3.Client {
	t.Helper()
	through := make([]*Server, len(proxies))
	for i, p := range proxies {
		through[i] = &Server{Addr: p.Addr}
	}
	return openClient(t, through...)
}

// Cut breaks all connections; what is on its way is lost. New ones are welcome.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not a farewell
		}
		_ = c.Close()
	}
	clear(p.conns)
}

// Stall holds every byte, both ways, until Go.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Shut is Cut, and there are no new connections until Go.
func (p *Proxy) Shut() {
	p.mu.Lock()
	p.shut = true
	p.mu.Unlock()
	p.Cut()
}

// Go ends a stall, and lets connections in again.
func (p *Proxy) Go() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = false
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// Delay makes every piece of bytes wait, from now on.
func (p *Proxy) Delay(each time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = each
}

// Carried counts the bytes that the server was sent through the proxy.
func (p *Proxy) Carried() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.carried
}

func (p *Proxy) accept() {
	for {
		client, err := p.door.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.keep(client, server) {
			_, _ = client.Close(), server.Close()
			continue
		}
		go p.copy(client, server, &p.carried)
		go p.copy(server, client, new(int64))
	}
}

// keep notes a connection, unless there are to be none.
func (p *Proxy) keep(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut {
		return false
	}
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	return true
}

// copy carries bytes one way, and counts them, until either side ends, and then
// ends both.
func (p *Proxy) copy(from, to net.Conn, count *int64) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, _ = from.Close(), to.Close()
		delete(p.conns, from)
		delete(p.conns, to)
	}()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		p.hold()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
			p.mu.Lock()
			*count += int64(n)
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) hold() {
	p.mu.Lock()
	open, delay := p.open, p.delay
	p.mu.Unlock()
	<-open
	time.Sleep(delay)
}
