// Package clientpkg drives the packages that the official client builds on the
// plain API, as users run them: namespace, ordering, leasing, mirror,
// concurrency, kubernetes, naming and the recipes.
package clientpkg

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"castd.test/conformance/harness"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/ordering"
)

const testTimeout = 60 * time.Second

func TestMain(m *testing.M) { harness.Main(m) }

func client(t *testing.T) (*clientv3.Client, context.Context) {
	t.Helper()
	return harness.Shared(t).Client(t), harness.Context(t, testTimeout)
}

func value(t *testing.T, ctx context.Context, kv clientv3.KV, key string) string {
	t.Helper()
	resp, err := kv.Get(ctx, key)
	harness.Fatal(t, err)
	if len(resp.Kvs) == 0 {
		return "<absent>"
	}
	return string(resp.Kvs[0].Value)
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	c, ctx := client(t)
	prefix := harness.Prefix(t)
	kv := namespace.NewKV(c.KV, prefix)
	watcher := namespace.NewWatcher(c.Watcher, prefix)
	lease := namespace.NewLease(c.Lease, prefix)
	watch := watcher.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithPrevKV())
	<-watch
	grant, err := lease.Grant(ctx, 300)
	harness.Fatal(t, err)
	_, err = kv.Put(ctx, "a", "1", clientv3.WithLease(grant.ID))
	harness.Fatal(t, err)
	harness.Equal(t, "seen inside", value(t, ctx, kv, "a"), "1")
	harness.Equal(t, "seen outside", value(t, ctx, c, prefix+"a"), "1")
	ttl, err := lease.TimeToLive(ctx, grant.ID, clientv3.WithAttachedKeys())
	harness.Fatal(t, err)
	harness.Equal(t, "attached keys", fmt.Sprintf("%s", ttl.Keys), "[a]")
	txn, err := kv.Txn(ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).
		Then(clientv3.OpPut("b", "2"), clientv3.OpGet("", clientv3.WithPrefix())).Commit()
	harness.Fatal(t, err)
	harness.Equal(t, "succeeded", txn.Succeeded, true)
	harness.Equal(t, "keys in a txn", harness.Keys(txn.Responses[1].GetResponseRange().Kvs), "a b")
	deleted, err := kv.Delete(ctx, "", clientv3.WithFromKey(), clientv3.WithPrevKV())
	harness.Fatal(t, err)
	harness.Equal(t, "deleted", harness.Keys(deleted.PrevKvs), "a b")
	var seen []string
	for len(seen) < 4 {
		for _, e := range (<-watch).Events {
			seen = append(seen, fmt.Sprintf("%s %s", e.Type, e.Kv.Key))
		}
	}
	harness.Equal(t, "events", fmt.Sprint(seen), "[PUT a PUT b DELETE a DELETE b]")
}

func TestOrdering(t *testing.T) {
	t.Parallel()
	// One member alone never goes back; to another one that lags a client may
	// come at any time, which is what this wrapper is there to find out.
	c, ctx := harness.Shared(t).ClientOfOne(t), harness.Context(t, testTimeout)
	key := harness.Prefix(t)
	violated := errors.New("a read went back in time")
	kv := ordering.NewKV(c.KV, func(clientv3.Op, clientv3.OpResponse, int64) error { return violated })
	for i := range 200 {
		_, err := c.Put(ctx, key, fmt.Sprint(i))
		harness.Fatal(t, err)
		_, err = kv.Get(ctx, key, clientv3.WithSerializable())
		harness.Fatal(t, err)
		_, err = kv.Txn(ctx).Then(clientv3.OpGet(key)).Commit()
		harness.Fatal(t, err)
	}
}

func TestLeasing(t *testing.T) {
	t.Parallel()
	c, ctx := client(t)
	own, prefix := harness.Prefix(t), harness.Prefix(t)
	first, closeFirst, err := leasing.NewKV(c, own)
	harness.Fatal(t, err)
	defer closeFirst()
	second, closeSecond, err := leasing.NewKV(c, own)
	harness.Fatal(t, err)
	defer closeSecond()
	key := prefix + "k"
	_, err = c.Put(ctx, key, "0")
	harness.Fatal(t, err)
	harness.Equal(t, "read and cached", value(t, ctx, first, key), "0")
	leased, err := c.Get(ctx, own+key)
	harness.Fatal(t, err)
	harness.Equal(t, "the key's ownership is in the store", leased.Count, 1)
	for i := range 5 {
		want := fmt.Sprint("round ", i)
		_, err = second.Put(ctx, key, want)
		harness.Fatal(t, err)
		harness.Equal(t, "the first sees the second's write", value(t, ctx, first, key), want)
		_, err = first.Put(ctx, key, want+"!")
		harness.Fatal(t, err)
		harness.Equal(t, "and the other way round", value(t, ctx, second, key), want+"!")
	}
	txn, err := first.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), ">", 1)).
		Then(clientv3.OpPut(key, "txn"), clientv3.OpGet(key)).Commit()
	harness.Fatal(t, err)
	harness.Equal(t, "txn", txn.Succeeded, true)
	harness.Equal(t, "read after a txn", value(t, ctx, second, key), "txn")
	_, err = second.Delete(ctx, key)
	harness.Fatal(t, err)
	harness.Equal(t, "deleted", value(t, ctx, first, key), "<absent>")
}

func TestMirror(t *testing.T) {
	t.Parallel()
	c, ctx := client(t)
	prefix := harness.Prefix(t)
	const keys = 2500 // more than two of the syncer's pages
	for base := 0; base < keys; base += 100 {
		ops := make([]clientv3.Op, 100)
		for i := range ops {
			ops[i] = clientv3.OpPut(fmt.Sprintf("%s%05d", prefix, base+i), fmt.Sprint(base+i))
		}
		_, err := c.Txn(ctx).Then(ops...).Commit()
		harness.Fatal(t, err)
	}
	syncer := mirror.NewSyncer(c, prefix, 0)
	pages, errs := syncer.SyncBase(ctx)
	copied := map[string]string{}
	for page := range pages {
		for _, kv := range page.Kvs {
			copied[string(kv.Key)] = string(kv.Value)
		}
	}
	harness.Fatal(t, <-errs)
	harness.Equal(t, "copied", len(copied), keys)
	updates := syncer.SyncUpdates(ctx)
	_, err := c.Put(ctx, prefix+"new", "x")
	harness.Fatal(t, err)
	_, err = c.Delete(ctx, prefix+"00000")
	harness.Fatal(t, err)
	var seen []string
	for len(seen) < 2 {
		for _, e := range (<-updates).Events {
			seen = append(seen, fmt.Sprintf("%s %s", e.Type, e.Kv.Key[len(prefix):]))
		}
	}
	harness.Equal(t, "updates", fmt.Sprint(seen), "[PUT new DELETE 00000]")
}

func session(t *testing.T, c *clientv3.Client, ttl int) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(c, concurrency.WithTTL(ttl))
	harness.Fatal(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestMutex(t *testing.T) {
	t.Parallel()
	c, ctx := client(t)
	name := harness.Prefix(t)
	const holders, rounds = 5, 8
	inside, entries := 0, 0
	var all sync.WaitGroup
	failures := make(chan error, holders*rounds)
	for range holders {
		m := concurrency.NewMutex(session(t, c, 30), name)
		all.Go(func() {
			for range rounds {
				if err := m.Lock(ctx); err != nil {
					failures <- err
					return
				}
				inside++
				if inside != 1 {
					failures <- fmt.Errorf("%d holders at once", inside)
				}
				entries++
				inside--
				if err := m.Unlock(ctx); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	harness.Equal(t, "entries", entries, holders*rounds)
}

func TestMutexPassesOnWhenTheSessionEnds(t *testing.T) {
	t.Parallel()
	c, ctx := client(t)
	name := harness.Prefix(t)
	dying, waiting := session(t, c, 2), session(t, c, 30)
	held := concurrency.NewMutex(dying, name)
	harness.Fatal(t, held.Lock(ctx))
	next := concurrency.NewMutex(waiting, name)
	if err := next.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Errorf("TryLock of a held mutex: %v", err)
	}
	owned, err := c.Txn(ctx).If(held.IsOwner()).Commit()
	harness.Fatal(t, err)
	harness.Equal(t, "is owner", owned.Succeeded, true)
	dying.Orphan() // keep-alives stop; the lease runs out
	harness.Fatal(t, next.Lock(ctx))
	harness.Fatal(t, next.Unlock(ctx))
}

func TestElection(t *testing.T) {
	t.Parallel()
	c, ctx := client(t)
	name := harness.Prefix(t)
	first := concurrency.NewElection(session(t, c, 30), name)
	second := concurrency.NewElection(session(t, c, 30), name)
	if _, err := first.Leader(ctx); !errors.Is(err, concurrency.ErrElectionNoLeader) {
		t.Errorf("leader of nothing: %v", err)
	}
	harness.Fatal(t, first.Campaign(ctx, "one"))
	observed := second.Observe(ctx)
	harness.Equal(t, "observed", string((<-observed).Kvs[0].Value), "one")
	harness.Fatal(t, first.Proclaim(ctx, "one again"))
	harness.Equal(t, "observed", string((<-observed).Kvs[0].Value), "one again")
	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "two") }()
	select {
	case err := <-won:
		t.Fatalf("two leaders: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	harness.Fatal(t, first.Resign(ctx))
	harness.Fatal(t, <-won)
	leader, err := second.Leader(ctx)
	harness.Fatal(t, err)
	harness.Equal(t, "leader", string(leader.Kvs[0].Value), "two")
}

func TestSTM(t *testing.T) {
	t.Parallel()
	// After its first read an STM reads at that revision, serializably: from
	// another member that may lag it is refused.
	c, ctx := harness.Shared(t).ClientOfOne(t), harness.Context(t, testTimeout)
	prefix := harness.Prefix(t)
	const accounts, workers, transfers = 4, 4, 25
	for i := range accounts {
		_, err := c.Put(ctx, fmt.Sprint(prefix, i), "100")
		harness.Fatal(t, err)
	}
	for _, isolation := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads} {
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				for i := range transfers {
					from, to := fmt.Sprint(prefix, (w+i)%accounts), fmt.Sprint(prefix, (w+i+1)%accounts)
					_, err := concurrency.NewSTM(c, transfer(from, to), concurrency.WithIsolation(isolation), concurrency.WithAbortContext(ctx))
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		total := 0
		resp, err := c.Get(ctx, prefix, clientv3.WithPrefix())
		harness.Fatal(t, err)
		for _, kv := range resp.Kvs {
			var amount int
			_, err := fmt.Sscan(string(kv.Value), &amount)
			harness.Fatal(t, err)
			total += amount
		}
		harness.Equal(t, fmt.Sprint("money in all with isolation ", isolation), total, 100*accounts)
	}
}

func transfer(from, to string) func(concurrency.STM) error {
	return func(stm concurrency.STM) error {
		var a, b int
		if _, err := fmt.Sscan(stm.Get(from), &a); err != nil {
			return err
		}
		if _, err := fmt.Sscan(stm.Get(to), &b); err != nil {
			return err
		}
		stm.Put(from, fmt.Sprint(a-1))
		stm.Put(to, fmt.Sprint(b+1))
		return nil
	}
}

func TestRecipes(t *testing.T) {
	t.Parallel()
	c, _ := client(t)
	queue := recipe.NewQueue(c, harness.Prefix(t))
	for i := range 5 {
		harness.Fatal(t, queue.Enqueue(fmt.Sprint(i)))
	}
	for i := range 5 {
		got, err := queue.Dequeue()
		harness.Fatal(t, err)
		harness.Equal(t, "queue", got, fmt.Sprint(i))
	}
	priority := recipe.NewPriorityQueue(c, harness.Prefix(t))
	for _, p := range []uint16{3, 1, 2} {
		harness.Fatal(t, priority.Enqueue(fmt.Sprint("p", p), p))
	}
	for _, want := range []string{"p1", "p2", "p3"} {
		got, err := priority.Dequeue()
		harness.Fatal(t, err)
		harness.Equal(t, "priority queue", got, want)
	}
	barrier := recipe.NewBarrier(c, harness.Prefix(t))
	harness.Fatal(t, barrier.Hold())
	through := make(chan error, 1)
	go func() { through <- barrier.Wait() }()
	select {
	case <-through:
		t.Error("through a held barrier")
	case <-time.After(200 * time.Millisecond):
	}
	harness.Fatal(t, barrier.Release())
	harness.Fatal(t, <-through)
}

func TestNamingEndpoints(t *testing.T) {
	t.Parallel()
	c, ctx := client(t)
	target := harness.Prefix(t) + "svc"
	manager, err := endpoints.NewManager(c, target)
	harness.Fatal(t, err)
	harness.Fatal(t, manager.AddEndpoint(ctx, target+"/one", endpoints.Endpoint{Addr: "10.0.0.1:80"}))
	harness.Shared(t).CatchUp(t) // what is there is read from any member, as it is there
	updates, err := manager.NewWatchChannel(ctx)
	harness.Fatal(t, err)
	first := <-updates
	harness.Equal(t, "first", first[0].Endpoint.Addr, "10.0.0.1:80")
	harness.Fatal(t, manager.AddEndpoint(ctx, target+"/two", endpoints.Endpoint{Addr: "10.0.0.2:80"}))
	second := <-updates
	harness.Equal(t, "second", second[0].Endpoint.Addr, "10.0.0.2:80")
	harness.Fatal(t, manager.DeleteEndpoint(ctx, target+"/one"))
	third := <-updates
	harness.Equal(t, "deleted", fmt.Sprintf("%d %s", third[0].Op, third[0].Key), fmt.Sprintf("%d %s/one", endpoints.Delete, target))
	harness.Shared(t).CatchUp(t)
	list, err := manager.List(ctx)
	harness.Fatal(t, err)
	harness.Equal(t, "left", len(list), 1)
}
