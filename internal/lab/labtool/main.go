//go:build linux

// Labtool fetches what the VM tests need (see package lab), so that they run without
// a network. It needs no root and installs nothing; what is at hand already it leaves
// alone. Arguments are more packages to fetch:
//
//	go run ./internal/lab/labtool u-boot-imx:armhf
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"snag/internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	log := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...) }
	if err := lab.Prepare(ctx, log, os.Args[1:]...); err != nil {
		log("%v", err)
		os.Exit(1)
	}
}
