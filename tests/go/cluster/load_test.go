package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"castd.test/conformance/harness"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// load is writers that put new keys until they are stopped.
type load struct {
	client *clientv3.Client
	stop   context.CancelFunc
	all    sync.WaitGroup

	mu sync.Mutex
	// acknowledged holds the revision of each key whose put succeeded. A put
	// that failed may or may not have happened: its key is not used again.
	acknowledged map[string]int64
	failures     map[string]int
	// last is when a put last succeeded, longest the longest time between two
	// since pause was asked.
	last    time.Time
	longest time.Duration
}

// startLoad lets several writers put through a client of all members.
func startLoad(t testing.TB, c *clientv3.Client, writers int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{client: c, stop: cancel, acknowledged: map[string]int64{}, failures: map[string]int{}, last: time.Now()}
	t.Cleanup(func() { l.end() })
	for w := range writers {
		l.all.Go(func() { l.write(ctx, w) })
	}
	return l
}

func (l *load) write(ctx context.Context, writer int) {
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprintf("load/%d/%06d", writer, i)
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		resp, err := l.client.Put(call, key, "v")
		cancel()
		l.note(key, resp, err)
	}
}

func (l *load) note(key string, resp *clientv3.PutResponse, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures[err.Error()]++
		return
	}
	now := time.Now()
	l.longest = max(l.longest, now.Sub(l.last))
	l.last = now
	l.acknowledged[key] = resp.Header.Revision
}

// end stops the writers.
func (l *load) end() {
	l.stop()
	l.all.Wait()
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged)
}

// more waits until n more puts have succeeded.
func (l *load) more(t testing.TB, n int) {
	t.Helper()
	want := l.count() + n
	harness.Eventually(t, settle, fmt.Sprintf("%d more puts succeed", n), func() error {
		if got := l.count(); got < want {
			return fmt.Errorf("%d are missing; failures: %v", want-got, l.failed())
		}
		return nil
	})
}

// pause gives the longest time without a success since it was last asked.
func (l *load) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	longest := l.longest
	l.longest = 0
	return longest
}

// wantPause insists that half of the pauses are no longer than they may be: a
// machine that has other things to do may stretch one.
func wantPause(t testing.TB, pauses []time.Duration, limit time.Duration) {
	t.Helper()
	t.Logf("pauses: %v", pauses)
	if median := slices.Sorted(slices.Values(pauses))[len(pauses)/2]; median > limit {
		t.Errorf("no put succeeded for %s, of %v; at most %s is good", median, pauses, limit)
	}
}

func (l *load) failed() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := map[string]int{}
	for text, n := range l.failures {
		copied[text] = n
	}
	return copied
}

// check ends the load and insists that every member has every acknowledged
// put, with the revision that was acknowledged.
func (l *load) check(ctx context.Context, t testing.TB, servers []*harness.Server) {
	t.Helper()
	l.end()
	for _, s := range servers {
		resp := everything(ctx, t, s, false)
		have := make(map[string]int64, len(resp.Kvs))
		for _, pair := range resp.Kvs {
			have[string(pair.Key)] = pair.ModRevision
		}
		lost := 0
		for key, revision := range l.acknowledged {
			if have[key] != revision {
				if lost++; lost > 5 {
					continue // enough to look at
				}
				t.Logf("%s: %s was acknowledged at %d, is at %d", s.Name, key, revision, have[key])
			}
		}
		harness.Equal(t, "acknowledged and lost, through "+s.Name, lost, 0)
	}
	t.Logf("%d puts acknowledged, failures %v", len(l.acknowledged), l.failures)
}
