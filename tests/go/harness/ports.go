package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// Ports come from below the range the kernel gives to outgoing connections, so
// that nobody takes one while its server is down in a restart test. Several test
// processes run side by side: each claims blocks of ports for as long as it lives.
// It hands out no port twice before it has used two thousand others.
const portsFrom, portsInBlock, portBlocks, blocksOfOne = 12000, 50, 400, 40

var ports struct {
	sync.Mutex
	next, end int
	// block is the one that was looked at last.
	block int
	// claims are the blocks of this process, with their locked files.
	claims []claim
	// turn is the claim that is used again next, once there are enough.
	turn int
}

type claim struct {
	block int
	file  *os.File // locked as long as it is open
}

// FreeAddr gives a loopback address that nobody listens on.
func FreeAddr() string {
	ports.Lock()
	defer ports.Unlock()
	for {
		if ports.next == ports.end {
			ports.next = portsFrom + nextBlock()*portsInBlock
			ports.end = ports.next + portsInBlock
		}
		addr := fmt.Sprintf("127.0.0.1:%d", ports.next)
		ports.next++
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		_ = l.Close()
		return addr
	}
}

// nextBlock claims one more block or goes round those that are claimed.
func nextBlock() int {
	if len(ports.claims) < blocksOfOne {
		for range portBlocks {
			if claimNext() {
				return ports.block
			}
		}
	}
	if len(ports.claims) == 0 {
		panic("other test processes have all the ports")
	}
	ports.turn = (ports.turn + 1) % len(ports.claims)
	return ports.claims[ports.turn].block
}

// claimNext locks the file of the next block, unless another process has. The
// kernel unlocks it when this process ends, however it ends.
func claimNext() bool {
	if len(ports.claims) == 0 && ports.block == 0 {
		ports.block = rand.IntN(portBlocks)
	}
	ports.block = (ports.block + 1) % portBlocks
	dir := filepath.Join(os.TempDir(), "conformance-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		panic(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(ports.block)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		panic(err)
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		_ = file.Close()
		return false
	}
	ports.claims = append(ports.claims, claim{ports.block, file})
	return true
}
