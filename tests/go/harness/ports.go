package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

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
