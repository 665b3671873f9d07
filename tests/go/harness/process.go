package harness

import (
	"os/exec"
	"runtime"
)

var spawn = make(chan func())

func init() {
	go func() {
		// Pdeathsig fires when the *thread* that started the child ends, so all
		// children are started from one thread that lives as long as the tests.
		runtime.LockOSThread()
		for job := range spawn {
			job()
		}
	}()
}

func startOnLockedThread(cmd *exec.Cmd) error {
	done := make(chan error)
	spawn <- func() { done <- cmd.Start() }
	return <-done
}
