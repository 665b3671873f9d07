package ctl

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	stepTimeout = 20 * time.Second
	waitTimeout = 8 * time.Second
)

// result is what a command left behind.
type result struct {
	stdout, stderr string
	exit           string
	// vain names the wait that timed out, if one did.
	vain string
	took time.Duration
}

// runner runs steps against one server.
type runner struct {
	etcdctl string
	addr    string
	// given holds words that are the same on every server, captured those that
	// steps kept, by name.
	given, captured map[string]string
	// cluster says that there are several members.
	cluster bool
}

// screen collects a command's output and tells when more lines have come.
type screen struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{}
}

func newScreen() *screen { return &screen{grown: make(chan struct{}, 1)} }

// Write takes output from the command.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	select {
	case s.grown <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// wait returns when n lines are there, or false after waitTimeout.
func (s *screen) wait(n int) bool {
	late := time.After(waitTimeout)
	for strings.Count(s.String(), "\n") < n {
		select {
		case <-s.grown:
		case <-late:
			return false
		}
	}
	return true
}

func (r *runner) command(ctx context.Context, words []string) *exec.Cmd {
	args := make([]string, len(words))
	for i, word := range words {
		args[i] = r.expand(word)
	}
	cmd := exec.CommandContext(ctx, r.etcdctl, args...)
	cmd.Env = []string{
		"ETCDCTL_API=3",
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + os.Getenv("HOME"),
	}
	if !contains(words, "--endpoints") {
		cmd.Env = append(cmd.Env, "ETCDCTL_ENDPOINTS="+r.addr)
	}
	return cmd
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

// expand puts captured words in the place of $NAME.
func (r *runner) expand(text string) string {
	for _, words := range []map[string]string{r.given, r.captured} {
		for name, value := range words {
			text = strings.ReplaceAll(text, "$"+name, value)
		}
	}
	return text
}

// run does one step. An error means that the runner failed, not the command.
func (r *runner) run(s step) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	cmd := r.command(ctx, s.words)
	stdout, stderr := newScreen(), newScreen()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// What a command started, such as the command of a watch, may hold its
	// output open after its end.
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return result{}, err
	}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	vain, err := r.act(ctx, s, cmd, stdin, stdout)
	if err != nil {
		return result{}, err
	}
	if !s.stops() {
		_ = stdin.Close()
	}
	_ = cmd.Wait()
	out := result{stdout.String(), stderr.String(), cmd.ProcessState.String(), vain, time.Since(started)}
	return out, r.keep(s, out)
}

func (r *runner) act(ctx context.Context, s step, cmd *exec.Cmd, stdin io.Writer, stdout *screen) (string, error) {
	vain := ""
	for _, a := range s.actions {
		switch a.kind {
		case actInput:
			// A command that has already ended does not read: that shows in its output.
			_, _ = io.WriteString(stdin, r.expand(a.text)+"\n")
		case actWait:
			if !stdout.wait(a.lines) {
				vain = fmt.Sprintf("no %d lines within %s", a.lines, waitTimeout)
			}
		case actRun:
			if out, err := r.command(ctx, a.words).CombinedOutput(); err != nil {
				return "", fmt.Errorf("%v beside it: %w: %s", a.words, err, out)
			}
		case actStop:
			_ = cmd.Process.Signal(syscall.SIGINT)
		}
	}
	return vain, nil
}

// stops says that the step ends by a signal: its input must not end before.
func (s step) stops() bool {
	for _, a := range s.actions {
		if a.kind == actStop {
			return true
		}
	}
	return false
}

func (r *runner) keep(s step, out result) error {
	if s.capture == nil {
		return nil
	}
	found := s.capture.pattern.FindStringSubmatch(out.stdout)
	if found == nil {
		return fmt.Errorf("nothing in the output matches %s: %q", s.capture.pattern, out.stdout)
	}
	r.captured[s.capture.name] = found[1]
	return nil
}
