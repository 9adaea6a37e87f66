// Command snag-libusb is snag on libusb: it lists what is attached and recovers boards as the command snag does, for
// trying that transport. It has snag's exit codes, and few of its flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"snag/internal/config"
	"snag/internal/ui"
	"snag/netsetup"
	"snag/recovery"
	"snag/usb"
	"snag/usb/libusb"
)

const usage = `usage: snag-libusb list
       snag-libusb recover -soc MODEL -f FIRMWARE.yaml [-usb-path PORT] [-net auto|kernel|user] [-timeout TIME]`

func main() {
	if netsetup.WorkerMain() {
		return
	}
	log.SetOutput(io.Discard) // gousb's event loop writes there
	ctx, stop := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // the next one ends the process
		stop(recovery.ErrInterrupted)
	}()
	err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "snag-libusb: %v\n", err)
		if hint := recovery.Hint(err); hint != "" {
			fmt.Fprintf(os.Stderr, "hint: %s\n", hint)
		}
	}
	os.Exit(recovery.ExitCode(err))
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "list":
		return list()
	case len(args) > 1 && args[0] == "recover":
		return recoverBoard(ctx, args[1:])
	}
	return &recovery.UsageError{Err: errors.New("expected a command"), Hint: usage}
}

// list shows all devices, and of which family they are.
func list() error {
	devices, err := libusb.Host{}.Devices()
	if err != nil {
		return err
	}
	families := make(map[usb.Port]string)
	for _, b := range recovery.Boards(devices) {
		families[b.Port] = b.Family
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PORT\tID\tMBIT/S\tFAMILY\tPRODUCT")
	for _, d := range devices {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.Port, d.ID, d.Speed, families[d.Port], ui.Printable(d.Product))
	}
	return w.Flush()
}

func recoverBoard(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("snag-libusb recover", flag.ContinueOnError)
	soc := flags.String("soc", "", "SoC model, alias or family")
	file := flags.String("f", "", "firmware configuration, a YAML `file`")
	port := flags.String("usb-path", "", "the board's `port`")
	net := flags.String("net", "auto", "who drives a board that is a network adapter: kernel, user or auto")
	timeout := flags.Duration("timeout", recovery.DefaultTimeout, "give up after this `time` in all")
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	if err == nil && (flags.NArg() > 0 || *timeout <= 0) {
		err = errors.New("expected flags alone, and more than no time")
	}
	opt := recovery.Options{USB: libusb.Host{}, Timeout: *timeout}
	if err == nil {
		if opt.Net, err = recovery.ParseNet(*net); err != nil {
			err = fmt.Errorf("-net %w", err)
		}
	}
	if err != nil {
		return &recovery.UsageError{Err: err, Hint: usage}
	}
	if opt.Model, opt.Backend, err = recovery.Lookup(*soc); err != nil {
		return err
	}
	if *port != "" {
		if opt.Port, err = usb.ParsePort(*port); err != nil {
			return &recovery.UsageError{Err: fmt.Errorf("-usb-path: %w", err)}
		}
	}
	if opt.Firmware, err = config.Load([]config.Source{{File: *file}}, opt.Backend.Family().Slots); err != nil {
		return &recovery.UsageError{Err: err}
	}
	display := ui.NewPlain(os.Stdout)
	defer display.Close()
	opt.Emit = display.Sink
	return recovery.Run(ctx, opt)
}
