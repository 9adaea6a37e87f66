// Bench compares the TFTP throughput of snag with that of tftpd-hpa, dnsmasq and atftpd, each seen by the same
// client.
//
// Every server stands in a network namespace of its own, joined by a veth pair to a namespace with the client.
// snag's has the NAT rules that netsetup makes; the others listen on port 69. In the rows
// with a round-trip time a process on the client's side relays the datagrams, and delays each by half of it. The
// client polls its socket, as boot loaders do, and gives way to whoever wants the processor.
// The runs of all servers are interleaved; the table has the medians.
//
// It needs root. The peers are Debian's packages, downloaded to -cache and unpacked there side by side.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"snag/netboot/netboottest"
)

// row is one line of the table.
type row struct {
	blksize, window int
	rtt             time.Duration
	size            int // of the file: for about half a second
}

const (
	lan  = 0
	far  = time.Millisecond
	kilo = 1 << 10
	mega = 1 << 20
)

var rows = []row{
	{512, 1, lan, 4 * mega},
	{1468, 1, lan, 12 * mega},
	{8192, 1, lan, 48 * mega},
	{1468, 8, lan, 32 * mega},
	{1468, 32, lan, 48 * mega},
	{512, 1, far, 192 * kilo},
	{1468, 1, far, 512 * kilo},
	{8192, 1, far, 3 * mega},
	{1468, 8, far, 3 * mega},
	{1468, 32, far, 12 * mega},
}

func (r row) name() string {
	return fmt.Sprintf("bench-%d-%d-%d", r.blksize, r.window, r.rtt.Microseconds())
}

func main() {
	log.SetFlags(0)
	runs := flag.Int("runs", 7, "how often each row is measured")
	cache := flag.String("cache", filepath.Join(os.TempDir(), "snag-bench"), "where the peers are downloaded to; empty: no peers")
	only := flag.String("row", "", "measure only rows whose BLKSIZE-WINDOW-RTT in µs contains this")
	flag.Parse()
	rows = slices.DeleteFunc(rows, func(r row) bool { return !strings.Contains(r.name(), *only) })
	var err error
	switch flag.Arg(0) {
	case "serve": // FILES on standard input
		err = serve(os.Stdin)
	case "relay": // DELAY
		err = relay(flag.Arg(1))
	default:
		err = bench(*runs, *cache)
	}
	if err != nil {
		log.Fatal("bench: ", err)
	}
}

func bench(runs int, cache string) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	dir, err := os.MkdirTemp("", "snag-bench-files")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The peers drop their privileges.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	want := map[string][]byte{}
	for _, r := range rows {
		b := make([]byte, r.size)
		rand.NewChaCha8([32]byte{byte(r.size)}).Read(b)
		want[r.name()] = b
		if err := os.WriteFile(filepath.Join(dir, r.name()), b, 0o644); err != nil {
			return err
		}
	}
	var arenas []*arena
	defer func() {
		for _, a := range arenas {
			a.close()
		}
	}()
	for _, s := range servers(cache) {
		a, err := newArena(s, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		arenas = append(arenas, a)
	}

	fmt.Printf("TFTP throughput, MB/s, median of %d interleaved runs; snag behind NAT\n\n", runs)
	fmt.Printf("%-6s %-8s %-7s", "rtt", "blksize", "window")
	for _, a := range arenas {
		fmt.Printf(" %10s", a.name)
	}
	fmt.Printf(" %10s\n", "snag/best")
	buf := make([]byte, 0, 64*mega)
	own := map[row]float64{}
	for _, r := range rows {
		rates := make([][]float64, len(arenas))
		lacks := make([]bool, len(arenas))
		for n := range runs + 1 {
			for i, a := range arenas {
				if lacks[i] {
					continue
				}
				rate, err := a.measure(r, want[r.name()], buf)
				if lacks[i] = errors.Is(err, errNotHad); lacks[i] {
					continue
				}
				if err != nil {
					return fmt.Errorf("%s, %s: %w", a.name, r.name(), err)
				}
				if n > 0 { // the first is for warming up
					rates[i] = append(rates[i], rate)
				}
			}
		}
		fmt.Printf("%-6v %-8d %-7d", r.rtt, r.blksize, r.window)
		best := 0.0
		for i := range arenas {
			if len(rates[i]) == 0 {
				fmt.Printf(" %10s", "-")
				continue
			}
			m := median(rates[i])
			if i > 0 {
				best = max(best, m)
			} else {
				own[row{r.blksize, r.window, r.rtt, 0}] = m
			}
			fmt.Printf(" %10.2f", m)
		}
		if best > 0 {
			fmt.Printf(" %10.2f", own[row{r.blksize, r.window, r.rtt, 0}]/best)
		} else {
			fmt.Printf(" %10s", "-")
		}
		fmt.Println()
	}
	w := own[row{1468, 32, far, 0}]
	fmt.Printf("\nsnag, windowsize 32 at %v: %.1f times its lock-step of the same blksize, %.1f times that of 512\n",
		far, w/own[row{1468, 1, far, 0}], w/own[row{512, 1, far, 0}])
	return nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

// errNotHad says that a server does not do what a row is about.
var errNotHad = errors.New("the server grants other options")

// measure fetches the row's file and returns the throughput in MB/s.
func (a *arena) measure(r row, want, buf []byte) (float64, error) {
	if err := a.offer(r.name()); err != nil {
		return 0, err
	}
	pc, err := a.socket()
	if err != nil {
		return 0, err
	}
	defer pc.Close()
	c := netboottest.Client{Timeout: 2 * time.Second}
	if r.blksize != 512 {
		c.Blksize = r.blksize
	}
	if r.window != 1 {
		c.Window = r.window
	}
	to := netip.AddrPortFrom(serverAddr, 69)
	if r.rtt != 0 {
		to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), relayPort)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	start := time.Now()
	got, err := c.Fetch(ctx, pc, to, r.name(), buf)
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	if c.Blksize != 0 && got.OACK["blksize"] != strconv.Itoa(c.Blksize) ||
		c.Window != 0 && got.OACK["windowsize"] != strconv.Itoa(c.Window) {
		return 0, errNotHad
	}
	if !bytes.Equal(got.Data, want) {
		return 0, fmt.Errorf("received %d bytes, not the file's %d", len(got.Data), len(want))
	}
	return float64(len(want)) / 1e6 / took.Seconds(), nil
}

// offer tells snag which file the next run is about; the others have them all.
func (a *arena) offer(name string) error {
	if a.files == nil || a.offered == name {
		return nil
	}
	a.offered = name
	if _, err := fmt.Fprintln(a.files, filepath.Join(a.dir, name)); err != nil {
		return err
	}
	_, err := io.ReadFull(a.ready, make([]byte, 1))
	return err
}
