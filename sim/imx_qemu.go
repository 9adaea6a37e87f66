package sim

import (
	"context"
	"fmt"
	"io"
	"sync"

	"snag/sim/pty"
	"snag/sim/qemu"
)

// qemuModel is the one that QEMU has a machine for.
const qemuModel = "imx6q"

// executing is memory and processor of a board, with each UART on a pseudo-terminal.
type executing struct {
	*qemu.Machine
	lines [2]*pty.Line
}

// execute starts memory and processor of a board. They end with ctx; running has the end of that.
func execute(ctx context.Context, running *sync.WaitGroup) (*executing, error) {
	var e executing
	var cfg qemu.Config
	for i := range e.lines {
		var err error
		if e.lines[i], err = pty.Open(); err != nil {
			e.close()
			return nil, err
		}
		cfg.UART[i] = e.lines[i]
	}
	var err error
	if e.Machine, err = qemu.Start(ctx, cfg); err != nil {
		e.close()
		return nil, err
	}
	for i, l := range e.lines {
		go io.Copy(e.UART[i], l) // until one of them is closed
	}
	running.Go(func() {
		<-ctx.Done()
		e.close()
	})
	return &e, nil
}

func (e *executing) close() {
	if e.Machine != nil {
		e.Machine.Close()
	}
	for _, l := range e.lines {
		if l != nil {
			l.Close()
		}
	}
}

// String says where the serial lines are.
func (e *executing) String() string {
	return fmt.Sprintf("UART1 on %s, UART2 on %s", e.lines[0].TTY, e.lines[1].TTY)
}
