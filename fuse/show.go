package fuse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"snag/event"
	"snag/recovery"
	"snag/usb"
)

// Write writes a table of what the addresses are in fuses, and how U-Boot would burn them.
func (p *Plan) Write(out io.Writer) error {
	for _, w := range p.Warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "WORD\tBANK\tWORD\tVALUE\tOF BITS\tCOMMAND")
	for _, f := range p.Words {
		fmt.Fprintf(w, "%s\t%d\t%d\t0x%08x\t0x%08x\t%s\n", f.Name, f.Bank, f.Word, f.Value, f.Mask, f.Command())
	}
	return w.Flush()
}

// Emit emits the same as events.
func (p *Plan) Emit(emit func(event.Body)) {
	for _, w := range p.Warnings {
		emit(event.Warning{Text: w})
	}
	for _, w := range p.Words {
		emit(w.event(0, Unknown))
	}
}

// event is what is told of a word.
func (w Word) event(found uint32, s State) event.Fuse {
	return event.Fuse{Bank: w.Bank, Word: w.Word, Name: w.Name, Value: w.Value, Mask: w.Mask, Found: found, State: string(s)}
}

// Confirm asks a person to type the first address. The error, a [recovery.UsageError] or the context's, says that they
// did not.
func (p *Plan) Confirm(ctx context.Context, port usb.Port, in io.Reader, out io.Writer) error {
	fmt.Fprintf(out, "This burns fuses of the board on port %s for ever.\nType its first MAC address, %s, to go on: ", port, p.Addresses[0])
	typed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n')
		typed <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(out)
		return context.Cause(ctx)
	case line := <-typed:
		if a, err := Address(line); err != nil || !slices.Equal(a, p.Addresses[0]) {
			return &recovery.UsageError{Err: errors.New("not confirmed: nothing was burnt"), Hint: "type the MAC address, or give --yes"}
		}
		return nil
	}
}
