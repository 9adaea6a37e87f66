package inspect

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"snag/socs"
)

// Use is what a SoC model's backend makes of a file in one of its slots.
type Use struct {
	Slot     string   `json:"slot"`
	Doc      string   `json:"doc"` // what the slot is for
	Takes    bool     `json:"takes"`
	Bytes    int      `json:"bytes,omitempty"` // how many are sent, if it takes it and the rest is known
	Errors   []string `json:"errors"`          // why it does not
	Hints    []string `json:"hints"`           // what to give instead
	Findings []string `json:"findings"`        // what should be known if it does
}

// For asks a backend what it would do with the file in each of its slots, and puts that into the report. Whatever else
// a slot's firmware needs beside it is taken to be there: the file stands in for it, and what is wrong with it in that
// place does not count.
func (r *Report) For(backend socs.Backend, model socs.Model) {
	r.SoC, r.Uses = model.Name, nil
	slots := backend.Family().Slots
	for _, slot := range slots {
		u := Use{Slot: slot.Name, Doc: slot.Doc, Errors: []string{}, Hints: []string{}, Findings: []string{}}
		img := socs.Image{Path: r.File, Data: r.data}
		fw := socs.Firmware{slot.Name: img}
		for range slots {
			checked, findings, err := backend.Check(model, fw)
			own, missing := sift(err, slot.Name, fw)
			if missing != "" && own == nil && slices.ContainsFunc(slots, func(s socs.Slot) bool { return s.Name == missing }) {
				fw[missing] = img
				continue
			}
			for _, e := range own {
				u.Errors = append(u.Errors, e.Err.Error())
				if e.Hint != "" && !slices.Contains(u.Hints, e.Hint) {
					u.Hints = append(u.Hints, e.Hint)
				}
			}
			for _, f := range findings {
				if f.Slot == slot.Name {
					u.Findings = append(u.Findings, f.Text)
				}
			}
			if u.Takes = own == nil; u.Takes {
				u.Bytes = len(checked[slot.Name].Data)
			}
			break
		}
		r.Uses = append(r.Uses, u)
	}
}

// sift takes from an error of a check what concerns a slot, and one slot that has no image.
func sift(err error, slot string, fw socs.Firmware) (own []*socs.FirmwareError, missing string) {
	if err == nil {
		return nil, ""
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			o, m := sift(e, slot, fw)
			own = append(own, o...)
			if m != "" {
				missing = m
			}
		}
		return own, missing
	}
	fe, ok := errors.AsType[*socs.FirmwareError](err)
	switch {
	case !ok:
		return []*socs.FirmwareError{{Slot: slot, Err: err}}, ""
	case fe.Slot == slot:
		return []*socs.FirmwareError{fe}, ""
	}
	if _, has := fw[fe.Slot]; !has {
		return nil, fe.Slot
	}
	return nil, ""
}

// writeUses writes what [Report.For] found, for people.
func (r *Report) writeUses(w io.Writer) error {
	fmt.Fprintf(w, "\nfor %s:\n", r.SoC)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, u := range r.Uses {
		switch {
		case u.Takes && u.Bytes > 0:
			fmt.Fprintf(t, "  as %s\tyes: %d bytes are sent\n", u.Slot, u.Bytes)
		case u.Takes:
			fmt.Fprintf(t, "  as %s\tyes\n", u.Slot)
		}
		for _, e := range u.Errors {
			fmt.Fprintf(t, "  as %s\tno: %s\n", u.Slot, e)
		}
		for _, s := range u.Findings {
			fmt.Fprintf(t, "  \t%s\n", s)
		}
		for _, s := range u.Hints {
			fmt.Fprintf(t, "  \thint: %s\n", s)
		}
	}
	return t.Flush()
}

// Usable tells whether [Report.For] found a slot that takes the file.
func (r *Report) Usable() bool {
	return slices.ContainsFunc(r.Uses, func(u Use) bool { return u.Takes })
}
