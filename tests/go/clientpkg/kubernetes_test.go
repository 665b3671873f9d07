package clientpkg

import (
	"fmt"
	"testing"

	"castd.test/conformance/harness"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"google.golang.org/grpc/codes"
)

// What the Kubernetes API server does, through the package it uses.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	s, ctx := harness.Start(t), harness.Context(t, testTimeout)
	k, err := kubernetes.New(clientv3.Config{Endpoints: []string{s.Addr}})
	harness.Fatal(t, err)
	defer k.Close()
	const prefix = "/registry/pods/"
	created, err := k.OptimisticPut(ctx, prefix+"a", []byte("1"), 0, kubernetes.PutOptions{})
	harness.Fatal(t, err)
	harness.Equal(t, "created", fmt.Sprint(created.Succeeded, created.Revision), "true 2")
	again, err := k.OptimisticPut(ctx, prefix+"a", []byte("x"), 0, kubernetes.PutOptions{GetOnFailure: true})
	harness.Fatal(t, err)
	harness.Equal(t, "not created twice", fmt.Sprint(again.Succeeded, ": ", harness.KV(again.KV)), "false: "+prefix+"a=1 c2 m2 v1")
	updated, err := k.OptimisticPut(ctx, prefix+"a", []byte("2"), 2, kubernetes.PutOptions{})
	harness.Fatal(t, err)
	harness.Equal(t, "updated", fmt.Sprint(updated.Succeeded, updated.Revision), "true 3")
	for i := range 25 {
		_, err := k.OptimisticPut(ctx, fmt.Sprintf("%sp%02d", prefix, i), []byte("v"), 0, kubernetes.PutOptions{})
		harness.Fatal(t, err)
	}
	count, err := k.Count(ctx, prefix, kubernetes.CountOptions{})
	harness.Fatal(t, err)
	harness.Equal(t, "count", count, 26)
	first, err := k.List(ctx, prefix, kubernetes.ListOptions{Limit: 10})
	harness.Fatal(t, err)
	harness.Equal(t, "first page", fmt.Sprint(len(first.Kvs), first.Count), "10 26")
	_, err = k.OptimisticPut(ctx, prefix+"later", []byte("v"), 0, kubernetes.PutOptions{})
	harness.Fatal(t, err)
	next := string(first.Kvs[9].Key) + "\x00"
	second, err := k.List(ctx, prefix, kubernetes.ListOptions{Limit: 10, Continue: next, Revision: first.Revision})
	harness.Fatal(t, err)
	harness.Equal(t, "second page at the first one's revision", fmt.Sprint(len(second.Kvs), second.Count, string(second.Kvs[0].Key)), fmt.Sprint(10, 16, prefix+"p09"))
	stale, err := k.OptimisticDelete(ctx, prefix+"a", 2, kubernetes.DeleteOptions{GetOnFailure: true})
	harness.Fatal(t, err)
	harness.Equal(t, "stale delete", fmt.Sprint(stale.Succeeded, ": ", harness.KV(stale.KV)), "false: "+prefix+"a=2 c2 m3 v2")
	gone, err := k.OptimisticDelete(ctx, prefix+"a", 3, kubernetes.DeleteOptions{})
	harness.Fatal(t, err)
	harness.Equal(t, "delete", gone.Succeeded, true)
	_, err = k.Compact(ctx, gone.Revision)
	harness.Fatal(t, err)
	_, err = k.List(ctx, prefix, kubernetes.ListOptions{Limit: 10, Continue: next, Revision: first.Revision})
	harness.WantError(t, err, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
}
