package watch

import (
	"fmt"
	"testing"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// writeThroughAll starts a scribe on each member.
func writeThroughAll(t testing.TB, s *harness.Server) []*scribe {
	var all []*scribe
	for i, m := range s.All() {
		all = append(all, write(t, m.ClientOfOne(t), fmt.Sprintf("own%d", i), func(n int) []clientv3.Op { return hot(n + 3*i) }))
	}
	return all
}

// crowdOnHot opens many watches of few keys on a stream, in several ways.
func crowdOnHot(o *observer, watches int, change func(*pb.WatchCreateRequest)) {
	for i := range watches {
		req := key(hotKey(i))
		switch i % 4 {
		case 1:
			req = between("hot/", "hot0")
		case 2:
			req = between("own", "owo")
		}
		req.PrevKv, req.StartRevision = i%3 == 0, int64(i%5/4) // one in five from the beginning
		change(req)
		o.watch(req)
	}
}

// On every member a stream of many watches asks again and again how far it is,
// while all members write: what it is told is true of each of its watches. That
// no event comes after a progress reply that covers it is the observer's to see.
func TestProgressRequestsUnderLoad(t *testing.T) {
	t.Parallel()
	s := truthful(t)
	const watches, answers = 100, 40
	var observers []*observer
	for _, m := range s.All() {
		o := observe(t, m)
		crowdOnHot(o, watches, func(*pb.WatchCreateRequest) {})
		observers = append(observers, o)
	}
	scribes := writeThroughAll(t, s)
	for answered := 0; answered < answers; {
		for _, w := range scribes {
			w.more(1)
		}
		answered = answers
		for _, o := range observers {
			o.askProgress()
			o.check()
			o.mu.Lock()
			answered = min(answered, o.answers)
			o.mu.Unlock()
		}
		if observers[0].ctx.Err() != nil {
			t.Fatalf("%d answers", answered)
		}
	}
	h := finish(t, s, scribes...)
	for i, o := range observers {
		o.reach(h.last())
		o.wantExactly(h)
		t.Logf("member %d: %d answers", i+1, o.answers)
	}
}

// A client that asks for progress all the time, without waiting for answers, is
// answered all the time, though there is always something newer by then.
func TestProgressIsNotPutOff(t *testing.T) {
	t.Parallel()
	s := truthful(t)
	o := observe(t, s)
	crowdOnHot(o, 20, func(*pb.WatchCreateRequest) {})
	o.allCreated()
	scribes := writeThroughAll(t, s)
	asked := 0
	for answers := 0; answers < 100; asked++ {
		o.askProgress()
		o.check()
		o.mu.Lock()
		answers = o.answers
		o.mu.Unlock()
		if o.ctx.Err() != nil {
			t.Fatalf("%d answers to %d requests", answers, asked)
		}
	}
	h := finish(t, s, scribes...)
	o.reach(h.last())
	o.wantExactly(h)
	t.Logf("100 answers to %d requests", asked)
}

// A stream without watches, or with none left, is not told how far the member is.
func TestProgressWithoutWatches(t *testing.T) {
	t.Parallel()
	f := on(t, truthful(t))
	f.put("a", "1")
	f.progress()
	f.none()
	id := f.created(key("a"))
	f.cancel(id)
	f.next()
	f.progress()
	f.none()
	f.created(key("a"))
	harness.Equal(t, "with one again", describe(f.askProgress()), `id=-1 created=false canceled=false compact=0 reason="" events=0 rev=2`)
}

// Watches that ask to be told of their progress are told, idle ones and busy
// ones, nothing but the truth; and the idle ones get to the end.
func TestProgressNotifyUnderLoad(t *testing.T) {
	t.Parallel()
	s := truthful(t, progressFlag(t, "100ms"))
	o := observe(t, s)
	const busy, idle = 40, 10
	crowdOnHot(o, busy, func(req *pb.WatchCreateRequest) { req.ProgressNotify = true })
	var still []*watched
	for i := range idle {
		still = append(still, o.watch(&pb.WatchCreateRequest{Key: []byte(fmt.Sprint("idle/", i)), ProgressNotify: true}))
	}
	o.allCreated()
	scribes := writeThroughAll(t, s)
	told := func(what string, enough func(*watched) bool) {
		o.wait(what, func() error {
			for _, w := range still {
				if !enough(w) {
					return fmt.Errorf("watch %d was told %d times, the last at %d", w.id, w.notices, w.told)
				}
			}
			return nil
		})
	}
	told("idle watches are told several times", func(w *watched) bool { return w.notices >= 5 })
	h := finish(t, s, scribes...)
	told("idle watches are told of the end", func(w *watched) bool { return w.told >= h.last() })
	o.reach(h.last())
	o.wantExactly(h)
}

// progressFlag is the server's flag for the interval of progress replies; the
// test is skipped where there is none.
func progressFlag(t testing.TB, interval string) string {
	t.Helper()
	probe := harness.Shared(t)
	if probe.Older("3.5") {
		t.Skip("etcd 3.4 has no flag for the interval")
	}
	if probe.Older("3.6") {
		return "--experimental-watch-progress-notify-interval=" + interval
	}
	return "--watch-progress-notify-interval=" + interval
}
