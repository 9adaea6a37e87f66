package socs

import (
	"errors"
	"fmt"
	"slices"
)

// Checked is what a [Backend]'s Check returns, in the making. Sent is to be made.
type Checked struct {
	Sent     Firmware
	Findings []Finding
	Errs     []error
}

// Note adds a finding.
func (c *Checked) Note(slot, format string, args ...any) {
	c.add(Finding{Slot: slot, Text: fmt.Sprintf(format, args...)})
}

// Warn adds a finding that is a warning.
func (c *Checked) Warn(slot, format string, args ...any) {
	c.add(Finding{Slot: slot, Warning: true, Text: fmt.Sprintf(format, args...)})
}

// add adds a finding, unless it is there already: of another part of the same file.
func (c *Checked) add(f Finding) {
	if !slices.Contains(c.Findings, f) {
		c.Findings = append(c.Findings, f)
	}
}

// Take has an image sent, or adds a *FirmwareError if err is why it cannot be. The hint is that of a [Refuse] in err.
func (c *Checked) Take(slot string, img Image, err error) {
	if err == nil {
		c.Sent[slot] = img
		return
	}
	e := &FirmwareError{Slot: slot, Path: img.Path, Err: err}
	if r, ok := errors.AsType[*refusal](err); ok {
		e.Hint = r.hint
	}
	c.Errs = append(c.Errs, e)
}

// refusal is why a file is refused, and what to use instead.
type refusal struct {
	error
	hint string
}

func (r *refusal) Unwrap() error { return r.error }

// Refuse is why a file is refused, with what to use instead.
func Refuse(hint, format string, args ...any) error {
	return &refusal{fmt.Errorf(format, args...), hint}
}
