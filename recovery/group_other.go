//go:build !unix

package recovery

import "os/exec"

// inGroup does nothing: a command is killed when its context ends, and what it started is left.
func inGroup(*exec.Cmd) {}

func killGroup(*exec.Cmd) {}
