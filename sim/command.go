package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"snag/sim/sandbox"
)

// CommandError says that the command ended with another status than 0.
type CommandError struct {
	Name   string
	Status int // as a shell has it: 128 plus the number of a signal
}

func (e *CommandError) Error() string { return fmt.Sprintf("%s: exit status %d", e.Name, e.Status) }

// run runs a command beside a board, in a sandbox if there is one, and returns its status. Its standard input is
// this process's.
func run(ctx context.Context, command []string, box *sandbox.Sandbox, stdout, stderr io.Writer) (int, error) {
	files, flush, err := outputs(stdout, stderr)
	if err != nil {
		return 0, err
	}
	defer flush()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM)
	if !term.IsTerminal(int(os.Stdin.Fd())) { // a terminal signals the command itself
		signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT)
	}
	defer signal.Stop(signals)
	runCtx, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	// Whoever ended ctx also signalled the command, or wants it gone.
	defer context.AfterFunc(ctx, func() {
		t := time.NewTimer(commandGrace)
		defer t.Stop()
		select {
		case <-t.C:
			kill()
		case <-runCtx.Done():
		}
	})()
	if box != nil {
		return box.Run(runCtx, sandbox.Command{Args: command, Stdin: os.Stdin, Stdout: files[0], Stderr: files[1], Signals: signals})
	}
	cmd := exec.CommandContext(runCtx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, files[0], files[1]
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				cmd.Process.Signal(s)
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// commandGrace is how long a command may take to end after the run was cancelled.
const commandGrace = 10 * time.Second

// outputs turns writers into files that a command can have. flush waits until all is written.
func outputs(writers ...io.Writer) (files []*os.File, flush func(), err error) {
	var copying sync.WaitGroup
	var ours []*os.File
	flush = func() {
		for _, f := range ours {
			f.Close()
		}
		copying.Wait()
	}
	for _, w := range writers {
		if f, ok := w.(*os.File); ok {
			files = append(files, f)
			continue
		}
		r, f, err := os.Pipe()
		if err != nil {
			flush()
			return nil, nil, err
		}
		ours = append(ours, f)
		files = append(files, f)
		copying.Go(func() {
			defer r.Close()
			io.Copy(w, r)
		})
	}
	return files, flush, nil
}
