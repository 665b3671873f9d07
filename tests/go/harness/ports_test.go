package harness

import "testing"

// No address is given out again soon, also when there is no block left to claim.
func TestFreeAddr(t *testing.T) {
	const many = blocksOfOne * portsInBlock
	given := map[string]int{}
	for i := range 3 * many {
		addr := FreeAddr()
		if before, again := given[addr]; again && i-before < many/2 {
			t.Fatalf("%s was given out as number %d and as %d", addr, before, i)
		}
		given[addr] = i
	}
	if len(ports.claims) > blocksOfOne {
		t.Errorf("%d blocks are claimed", len(ports.claims))
	}
}
