// Package process drives the program itself: its flags, variables and
// configuration file, its log, its signals, its data directory.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"castd.test/conformance/harness"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const testTimeout = 30 * time.Second

func TestMain(m *testing.M) { harness.Main(m) }

// ending is how a run of the binary ended.
type ending struct {
	output string
	exit   int
}

// run runs the binary until it ends by itself, in an empty directory.
func run(t *testing.T, env []string, args ...string) ending {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Getenv(harness.BinaryEnv), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	out, _ := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("%v %v goes on running", env, args)
	}
	return ending{string(out), cmd.ProcessState.ExitCode()}
}

func TestVersionFlag(t *testing.T) {
	s := harness.Shared(t)
	for _, flag := range []string{"--version", "-version"} {
		got := run(t, nil, flag)
		harness.Equal(t, "exit", got.exit, 0)
		want := "etcd Version: " + s.Version() + "\n"
		if !strings.HasPrefix(got.output, want) {
			t.Errorf("%s: got %q, want it to begin with %q", flag, got.output, want)
		}
	}
}

func TestHelp(t *testing.T) {
	got := run(t, nil, "--help")
	harness.Equal(t, "exit", got.exit, 0)
	for _, flag := range []string{"--name", "--data-dir", "--listen-client-urls", "--quota-backend-bytes", "--max-request-bytes", "--auto-compaction-retention"} {
		if !strings.Contains(got.output, flag) {
			t.Errorf("%s is not in the help", flag)
		}
	}
}

// What must not start, with etcd's exit code and a text that says why.
func TestRefusedStarts(t *testing.T) {
	listen := []string{"--listen-client-urls=http://127.0.0.1:1", "--advertise-client-urls=http://127.0.0.1:1"}
	cases := []struct {
		name string
		env  []string
		args []string
		exit int
		says string
	}{
		{"unknown flag", nil, []string{"--no-such-flag"}, 2, "flag provided but not defined: -no-such-flag"},
		{"bad number", nil, []string{"--max-request-bytes=many"}, 2, `invalid value "many" for flag -max-request-bytes`},
		{"bad duration", nil, []string{"--grpc-keepalive-min-time=soon"}, 2, `invalid value "soon" for flag -grpc-keepalive-min-time`},
		{"bad URL", nil, []string{"--listen-client-urls=nonsense"}, 2, `invalid value "nonsense" for flag -listen-client-urls`},
		{"bad number in the environment", []string{"ETCD_MAX_TXN_OPS=many"}, nil, 1, `invalid value \"many\" for ETCD_MAX_TXN_OPS`},
		{"flag and variable", []string{"ETCD_NAME=one"}, []string{"--name=two"}, 1, "conflicting environment variable is shadowed by corresponding command-line flag"},
		{"stray argument", nil, []string{"stray"}, 1, "is not a valid flag"},
		{"election too short for the heartbeat", nil, []string{"--heartbeat-interval=500", "--election-timeout=1000"}, 1, "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[500ms]"},
		{"election too long", nil, []string{"--election-timeout=60000"}, 1, "--election-timeout[60000ms] is too long, and should be set less than 50000ms"},
		{"listening without advertising", nil, listen[:1], 1, "--advertise-client-urls is required when --listen-client-urls is set explicitly"},
		{"no such file", nil, []string{"--config-file=/no/such/file.yaml"}, 1, "open /no/such/file.yaml: no such file or directory"},
		{"a port taken twice", nil, append(listen, "--listen-peer-urls=http://127.0.0.1:1", "--initial-advertise-peer-urls=http://127.0.0.1:1", "--initial-cluster=default=http://127.0.0.1:1"), 1, "address already in use"},
		{"not in the initial cluster", nil, []string{"--name=a", "--initial-cluster=b=http://127.0.0.1:2"}, 1, `couldn't find local name \"a\" in the initial cluster configuration`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := run(t, c.env, c.args...)
			harness.Equal(t, "exit", got.exit, c.exit)
			if !strings.Contains(strings.ToLower(got.output), strings.ToLower(c.says)) {
				t.Errorf("%q does not say %q", tail(got.output), c.says)
			}
		})
	}
}

func tail(text string) string { return text[max(0, len(text)-600):] }

// launched is a server started in a way of its own.
type launched struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

// launch starts the binary and waits until addr answers.
func launch(t *testing.T, addr string, env []string, args ...string) *launched {
	t.Helper()
	l := &launched{cmd: exec.Command(os.Getenv(harness.BinaryEnv), args...)}
	l.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	l.cmd.Stdout, l.cmd.Stderr = &l.log, &l.log
	harness.Fatal(t, l.cmd.Start())
	t.Cleanup(func() {
		_ = l.cmd.Process.Kill()
		_ = l.cmd.Wait()
	})
	harness.Fatal(t, harness.WaitReady(addr))
	return l
}

// member asks who answers at an address.
func member(t *testing.T, addr string) *pb.Member {
	t.Helper()
	resp, err := pb.NewClusterClient(harness.Dial(t, addr)).MemberList(harness.Context(t, testTimeout), &pb.MemberListRequest{})
	harness.Fatal(t, err)
	harness.Equal(t, "members", len(resp.Members), 1)
	return resp.Members[0]
}

// settings are the same ones in the three forms that they may be given in.
func settings(t *testing.T) (client string, flags, env []string, file string) {
	client, peer := harness.FreeAddr(), harness.FreeAddr()
	values := [][2]string{
		{"name", "chosen"}, {"data-dir", filepath.Join(t.TempDir(), "data")},
		{"listen-client-urls", "http://" + client}, {"advertise-client-urls", "http://" + client},
		{"listen-peer-urls", "http://" + peer}, {"initial-advertise-peer-urls", "http://" + peer},
		{"initial-cluster", "chosen=http://" + peer}, {"max-txn-ops", "2"},
	}
	for _, v := range values {
		flags = append(flags, "--"+v[0]+"="+v[1])
		env = append(env, "ETCD_"+strings.ToUpper(strings.ReplaceAll(v[0], "-", "_"))+"="+v[1])
		file += v[0] + ": " + v[1] + "\n"
	}
	return client, flags, env, file
}

func TestThreeFormsOfSettings(t *testing.T) {
	check := func(t *testing.T, addr string) {
		harness.Equal(t, "name", member(t, addr).Name, "chosen")
		put := func(key string) *pb.RequestOp {
			return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
		}
		_, err := pb.NewKVClient(harness.Dial(t, addr)).Txn(harness.Context(t, testTimeout),
			&pb.TxnRequest{Success: []*pb.RequestOp{put("a"), put("b"), put("c")}})
		if err == nil {
			t.Error("max-txn-ops is not in force")
		}
	}
	t.Run("flags", func(t *testing.T) {
		addr, flags, _, _ := settings(t)
		launch(t, addr, nil, flags...)
		check(t, addr)
	})
	t.Run("flags with one dash and values apart", func(t *testing.T) {
		addr, flags, _, _ := settings(t)
		var apart []string
		for _, flag := range flags {
			name, value, _ := strings.Cut(strings.TrimPrefix(flag, "-"), "=")
			apart = append(apart, name, value)
		}
		launch(t, addr, nil, apart...)
		check(t, addr)
	})
	t.Run("environment", func(t *testing.T) {
		addr, _, env, _ := settings(t)
		launch(t, addr, env)
		check(t, addr)
	})
	t.Run("file", func(t *testing.T) {
		addr, _, _, file := settings(t)
		path := filepath.Join(t.TempDir(), "etcd.yaml")
		harness.Fatal(t, os.WriteFile(path, []byte(file), 0o600))
		launch(t, addr, nil, "--config-file="+path)
		check(t, addr)
	})
	t.Run("file named by the environment", func(t *testing.T) {
		addr, _, _, file := settings(t)
		path := filepath.Join(t.TempDir(), "etcd.yaml")
		harness.Fatal(t, os.WriteFile(path, []byte(file), 0o600))
		launch(t, addr, []string{"ETCD_CONFIG_FILE=" + path})
		check(t, addr)
	})
}

func TestLog(t *testing.T) {
	harness.Shared(t).Needs(t, "3.6") // older ones mix plain lines in
	addr, flags, _, _ := settings(t)
	l := launch(t, addr, nil, flags...)
	harness.Fatal(t, l.cmd.Process.Signal(syscall.SIGTERM))
	_ = l.cmd.Wait()
	ready := false
	for line := range strings.Lines(l.log.String()) {
		var entry struct{ Level, TS, Caller, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("not JSON: %s", line)
			continue
		}
		if entry.Level == "" || entry.TS == "" || entry.Msg == "" || entry.Caller == "" {
			t.Errorf("level, ts, caller and msg are due: %s", line)
		}
		ready = ready || entry.Msg == "ready to serve client requests"
	}
	harness.Equal(t, `"ready to serve client requests"`, ready, true)
}

// After SIGTERM or SIGINT the process ends by that signal, as its parent expects.
func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			addr, flags, _, _ := settings(t)
			l := launch(t, addr, nil, flags...)
			harness.Fatal(t, l.cmd.Process.Signal(signal))
			_ = l.cmd.Wait()
			harness.Equal(t, "end", l.cmd.ProcessState.String(), fmt.Sprintf("signal: %s", signal))
		})
	}
}

func TestDataDirectory(t *testing.T) {
	s := harness.Start(t)
	for _, part := range []string{"member/wal", "member/snap"} {
		info, err := os.Stat(filepath.Join(s.DataDir(), part))
		harness.Fatal(t, err)
		harness.Equal(t, part+" is a directory", info.IsDir(), true)
	}
	info, err := os.Stat(s.DataDir())
	harness.Fatal(t, err)
	harness.Equal(t, "mode", info.Mode().Perm(), 0o700)
}

// A real etcd waits for the lock for ever; castd says what is wrong and ends.
// An old process that is about to end, and the new one in its place.
func TestSecondProcessOnTheSameDirectory(t *testing.T) {
	s := harness.StartAlone(t)
	addr, flags, _, _ := settings(t)
	second := exec.Command(os.Getenv(harness.BinaryEnv), append(flags, "--data-dir="+s.DataDir())...)
	harness.Fatal(t, second.Start())
	t.Cleanup(func() {
		_ = second.Process.Kill()
		_ = second.Wait()
	})
	_, err := pb.NewKVClient(s.Conn(t)).Put(harness.Context(t, testTimeout), &pb.PutRequest{Key: []byte("a")})
	harness.Fatal(t, err)
	if harness.Answers(addr) {
		t.Error("both have the directory")
	}
	s.Stop(t)
	harness.Fatal(t, harness.WaitReady(addr))
}

func TestUnwritableDirectory(t *testing.T) {
	addr, flags, _, _ := settings(t)
	file := filepath.Join(t.TempDir(), "a-file")
	harness.Fatal(t, os.WriteFile(file, nil, 0o600))
	got := run(t, nil, append(flags, "--data-dir="+filepath.Join(file, "data"))...)
	if got.exit == 0 || !strings.Contains(strings.ToLower(got.output), "not a directory") {
		t.Errorf("exit %d, %q", got.exit, tail(got.output))
	}
	if harness.Answers(addr) {
		t.Error("something serves")
	}
}
