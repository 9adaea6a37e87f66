package sim

import (
	"context"
	"io"
	"strings"
	"sync"

	"snag/sim/pty"
	"snag/sim/qemu"
)

// execute starts memory and processor of a board, with the UARTs of these names on pseudo-terminals, and says where
// they are. What it starts ends with ctx; running has the end of that.
func execute[M io.Closer](ctx context.Context, running *sync.WaitGroup, start func(context.Context, qemu.Config) (M, [2]*qemu.Console, error), uarts ...string) (m M, about string, err error) {
	var cfg qemu.Config
	var lines []*pty.Line
	closeLines := func() {
		for _, l := range lines {
			l.Close()
		}
	}
	for i := range uarts {
		l, err := pty.Open()
		if err != nil {
			closeLines()
			return m, "", err
		}
		lines, cfg.UART[i] = append(lines, l), l
	}
	m, consoles, err := start(ctx, cfg)
	if err != nil {
		closeLines()
		return m, "", err
	}
	var where []string
	for i, l := range lines {
		go io.Copy(consoles[i], l) // until one of them is closed
		where = append(where, uarts[i]+" on "+l.TTY)
	}
	running.Go(func() {
		<-ctx.Done()
		m.Close()
		closeLines()
	})
	return m, strings.Join(where, ", "), nil
}
