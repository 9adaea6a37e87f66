//go:build !linux

// Package netsetup makes network namespaces for boards, which only Linux has. Here are the errors that others look for.
package netsetup

// WorkerMain is false: this process is no network worker.
func WorkerMain() bool { return false }
