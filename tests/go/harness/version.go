package harness

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// Needs skips the test on a real etcd older than major.minor. castd reports
// the version it is compatible with, so nothing is skipped on it: a binary
// that calls itself castd and reports less fails instead.
func (s *Server) Needs(t testing.TB, minimum string) {
	t.Helper()
	if !versionLess(s.version, minimum) {
		return
	}
	if s.IsCastd() {
		t.Fatalf("castd reports version %s, less than the %s this test needs", s.version, minimum)
	}
	t.Skipf("etcd %s: needs %s", s.version, minimum)
}

// Older says whether the server is a real etcd older than major.minor.
func (s *Server) Older(minimum string) bool { return versionLess(s.version, minimum) }

// IsCastd asks the binary itself (--version).
func (s *Server) IsCastd() bool {
	out, err := exec.Command(s.binary, "--version").CombinedOutput()
	return err == nil && strings.Contains(string(out), "castd Version:")
}

// versionLess compares the first numbers that both versions have.
func versionLess(have, want string) bool {
	var h, w [3]int
	_, _ = fmt.Sscanf(have, "%d.%d.%d", &h[0], &h[1], &h[2])
	_, _ = fmt.Sscanf(want, "%d.%d.%d", &w[0], &w[1], &w[2])
	for i := range h {
		if h[i] != w[i] {
			return h[i] < w[i]
		}
	}
	return false
}

// NeedsBinary is Needs before a server of the binary under test has started.
func NeedsBinary(t testing.TB, minimum string) {
	t.Helper()
	(&Server{binary: binary(), version: binaryVersion(t)}).Needs(t, minimum)
}

// binaryVersion asks the binary under test for the version it is compatible with.
func binaryVersion(t testing.TB) string {
	t.Helper()
	out, err := exec.Command(binary(), "--version").Output()
	Fatal(t, err)
	for line := range strings.Lines(string(out)) {
		if version, found := strings.CutPrefix(line, "etcd Version: "); found {
			return strings.TrimSpace(version)
		}
	}
	t.Fatalf("%s --version does not say what it is: %s", binary(), out)
	return ""
}
