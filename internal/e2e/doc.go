// Package e2e holds the end-to-end tests: the programs as they are built, virtual boards, and a real
// kernel around them. It has no code of its own.
//
// Two places: TestVM and its siblings run in a virtual machine (package lab), where boards are
// devices of a real USB stack and udevd, capabilities and several users are real; TestSandbox runs on
// this machine, where boards are interfaces in namespaces (package sandbox).
package e2e
