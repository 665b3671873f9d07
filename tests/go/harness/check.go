package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var quietLogger = zap.NewNop()

var prefixes atomic.Int64

// Prefix gives a key prefix that no other test of the package uses.
func Prefix(t testing.TB) string {
	return fmt.Sprintf("%s/%d/", t.Name(), prefixes.Add(1))
}

// Context bounds one test's calls.
func Context(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// Fatal ends the test when a call that must succeed did not.
func Fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// WantError checks the exact gRPC code and text of a failure, from the
// official client or from a plain connection alike.
func WantError(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	gotCode, gotText := ErrorParts(err)
	if gotCode != code || gotText != text {
		t.Errorf("error: got %s %q, want %s %q", gotCode, gotText, code, text)
	}
}

// ErrorParts splits a failure into its gRPC code and its text.
func ErrorParts(err error) (codes.Code, string) {
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return known.Code(), known.Error()
	}
	s, _ := status.FromError(err)
	return s.Code(), s.Message()
}

// Equal compares two printable values.
func Equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// KV prints every field of a pair, lease only when there is one.
func KV(kv *mvccpb.KeyValue) string {
	if kv == nil {
		return "<none>"
	}
	out := fmt.Sprintf("%s=%s c%d m%d v%d", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
	if kv.Lease != 0 {
		out += fmt.Sprintf(" l%d", kv.Lease)
	}
	return out
}

// KVs prints pairs one after another.
func KVs(kvs []*mvccpb.KeyValue) string {
	out := make([]string, len(kvs))
	for i, kv := range kvs {
		out[i] = KV(kv)
	}
	return strings.Join(out, "; ")
}

// Keys prints only the keys of pairs.
func Keys(kvs []*mvccpb.KeyValue) string {
	out := make([]string, len(kvs))
	for i, kv := range kvs {
		out[i] = string(kv.Key)
	}
	return strings.Join(out, " ")
}

// Event prints an event with its previous pair.
func Event(e *mvccpb.Event) string {
	out := fmt.Sprintf("%s %s", e.Type, KV(e.Kv))
	if e.PrevKv != nil {
		out += " was " + KV(e.PrevKv)
	}
	return out
}
