package harness

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Dial opens a plain connection to any address, closed when the test ends.
func Dial(t testing.TB, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(addr, opts...)
	Fatal(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// WaitReady returns when a server that somebody else started answers.
func WaitReady(addr string) error { return tryFor(addr, readyTimeout) }

// Answers says whether a server answers at an address within a second.
func Answers(addr string) bool { return tryFor(addr, time.Second) == nil }

func tryFor(addr string, limit time.Duration) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return answer(ctx, conn, nil)
}
