package ctl

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"castd.test/conformance/harness"
)

//go:embed steps.txt
var stepsText string

const (
	// ctlEnv may name etcdctl 3.4; without it the one on the PATH is taken.
	ctlEnv = "CASTD_REFERENCE_ETCDCTL_34"
	// etcdEnv may name etcd 3.4; without it the one on the PATH is taken.
	etcdEnv = "CASTD_REFERENCE_ETCD_34"
)

func TestMain(m *testing.M) { harness.Main(m) }

// find gives the path of a program of version 3.4.
func find(t *testing.T, env, name string, versionArgs ...string) string {
	t.Helper()
	return findVersion(t, "3.4", env, name, versionArgs...)
}

// findVersion gives the path of a program of a version, or skips the test.
func findVersion(t *testing.T, version, env, name string, versionArgs ...string) string {
	t.Helper()
	path := os.Getenv(env)
	if path == "" {
		path = name
	}
	path, err := exec.LookPath(path)
	if err != nil {
		t.Skipf("no %s: install %s %s or name it in %s", name, name, version, env)
	}
	cmd := exec.Command(path, versionArgs...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	harness.Fatal(t, err)
	if !strings.Contains(strings.ToLower(string(out)), "version: "+version+".") {
		t.Skipf("%s is not of version %s: %s", path, version, out)
	}
	return path
}

// runAll runs every step against one server.
func runAll(t *testing.T, etcdctl string, s *harness.Server, steps []step) (*runner, []result) {
	t.Helper()
	r := &runner{etcdctl: etcdctl, addr: s.Addr, captured: map[string]string{}}
	return r, r.runAll(t, steps, s.Version())
}

func (r *runner) runAll(t *testing.T, steps []step, on string) []result {
	t.Helper()
	results := make([]result, len(steps))
	for i, step := range steps {
		out, err := r.run(step)
		if err != nil {
			t.Errorf("line %d [%s] on %s: %v", step.line, step.name, on, err)
		}
		results[i] = out
	}
	return results
}

func TestEqualToEtcd34(t *testing.T) {
	etcdctl, etcd := find(t, ctlEnv, "etcdctl", "version"), find(t, etcdEnv, "etcd", "--version")
	steps, err := parse(stepsText)
	harness.Fatal(t, err)
	reference := harness.StartBinary(t, etcd)
	theirs, want := runAll(t, etcdctl, reference, steps)
	reference.Kill(t)
	server := harness.StartAt(t, reference)
	ours, got := runAll(t, etcdctl, server, steps)
	comparison{t, "steps.txt", steps, !server.Older("3.5")}.check(ours, got, theirs, want)
}

// comparison goes through what two servers made of the same steps.
type comparison struct {
	*testing.T
	file  string
	steps []step
	// newer says that where a step has a newer answer, it is the right one.
	newer bool
}

func (c comparison) check(ours *runner, got []result, theirs *runner, want []result) {
	for i, s := range c.steps {
		c.Run(s.name, func(t *testing.T) {
			where := fmt.Sprintf("%s:%d: etcdctl %s: ", c.file, s.line, strings.Join(s.words, " "))
			if want[i].vain != "" {
				t.Errorf("%setcd itself gave %s: %s", where, want[i].vain, want[i].stdout)
			}
			if s.newer != nil && c.newer {
				if !s.newer.MatchString(got[i].stdout) {
					t.Errorf("%sstdout: got %q, want a match of %s", where, got[i].stdout, s.newer)
				}
			} else {
				harness.Equal(t, where+"stdout", fmt.Sprintf("%q", s.arranged(ours.normalise(got[i].stdout))), fmt.Sprintf("%q", s.arranged(theirs.normalise(want[i].stdout))))
			}
			harness.Equal(t, where+"stderr", s.arranged(ours.normalise(got[i].stderr)), s.arranged(theirs.normalise(want[i].stderr)))
			harness.Equal(t, where+"exit", got[i].exit, want[i].exit)
		})
	}
	c.Logf("%d commands compared", len(c.steps))
}

var (
	number   = regexp.MustCompile(`[0-9]+(\.[0-9]+)?`)
	progress = regexp.MustCompile(`[^\n]*\r`)
)

// check perf takes a minute of its own; both servers run it at the same time.
// Its figures are the machine's; its lines and verdicts must be the same.
func TestCheckPerf(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	etcdctl, etcd := find(t, ctlEnv, "etcdctl", "version"), find(t, etcdEnv, "etcd", "--version")
	servers := []*harness.Server{harness.StartBinary(t, etcd), harness.StartAlone(t)}
	outputs := make([]string, len(servers))
	var both sync.WaitGroup
	for i, s := range servers {
		both.Go(func() {
			cmd := exec.Command(etcdctl, "check", "perf", "--load=s")
			cmd.Env = []string{"ETCDCTL_API=3", "ETCDCTL_ENDPOINTS=" + s.Addr}
			out, err := cmd.Output()
			text := number.ReplaceAllString(progress.ReplaceAllString(string(out), ""), "<n>")
			outputs[i] = fmt.Sprintf("%s exit: %v", text, err)
		})
	}
	both.Wait()
	harness.Equal(t, "check perf", outputs[1], outputs[0])
	if !strings.Contains(outputs[1], "PASS: Throughput is <n> writes/s") || !strings.Contains(outputs[1], "PASS\n") {
		t.Errorf("did not pass: %q", outputs[1])
	}
}
