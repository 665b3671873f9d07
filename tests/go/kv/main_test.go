// Package kv drives the KV service: Range, Put, DeleteRange, Txn, Compact.
package kv

import (
	"context"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const testTimeout = 30 * time.Second

func TestMain(m *testing.M) { harness.Main(m) }

// fixture is a server with the plain KV stub on it: no retries and no client
// side checks between the test and the wire.
type fixture struct {
	testing.TB
	ctx    context.Context
	server *harness.Server
	kv     pb.KVClient
}

// fresh starts a server of its own, for tests that count revisions.
func fresh(t testing.TB, flags ...string) *fixture { return on(t, harness.Start(t, flags...)) }

// common uses the package's shared server.
func common(t testing.TB) *fixture { return on(t, harness.Shared(t)) }

func on(t testing.TB, s *harness.Server) *fixture {
	return &fixture{TB: t, ctx: harness.Context(t, testTimeout), server: s, kv: pb.NewKVClient(s.Conn(t))}
}

func (f *fixture) put(key, value string) *pb.PutResponse {
	f.Helper()
	resp, err := f.kv.Put(f.ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	harness.Fatal(f, err)
	return resp
}

func (f *fixture) delete(key string) *pb.DeleteRangeResponse {
	f.Helper()
	resp, err := f.kv.DeleteRange(f.ctx, &pb.DeleteRangeRequest{Key: []byte(key)})
	harness.Fatal(f, err)
	return resp
}

func (f *fixture) get(key string) *pb.RangeResponse {
	f.Helper()
	return f.read(&pb.RangeRequest{Key: []byte(key)})
}

func (f *fixture) read(req *pb.RangeRequest) *pb.RangeResponse {
	f.Helper()
	resp, err := f.kv.Range(f.ctx, req)
	harness.Fatal(f, err)
	return resp
}

func (f *fixture) txn(req *pb.TxnRequest) *pb.TxnResponse {
	f.Helper()
	resp, err := f.kv.Txn(f.ctx, req)
	harness.Fatal(f, err)
	return resp
}

func opPut(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
}

func opGet(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func opDelete(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func opTxn(txn *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}
