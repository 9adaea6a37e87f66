//go:build linux

package netsetup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// roleEnv makes the test binary the process that a test talks to by lines on its standard input and
// output: see serve.
const roleEnv = "NETSETUP_TEST_ROLE"

func TestMain(m *testing.M) {
	if WorkerMain() {
		return
	}
	if role := os.Getenv(roleEnv); role != "" {
		if err := serve(role); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve opens a namespace and does what it is told, a line each, until the end of its input:
//
//	adopt INDEX   -> adopted INDEX NAME CARRIER
//	configure     -> the same, for an interface that the test has moved in itself
//	gone          -> gone, when the last interface has vanished
//	done          -> done ERROR, when the namespace has ended
//	close         -> closed, after closing the namespace
//
// Its first line is "open PID NETNS-FD", or "error" and the text. Meanwhile it answers every datagram:
// to the sender, or if that has no address yet to the broadcast address.
func serve(role string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o := Options{noNAT: strings.Contains(role, "nonat"), Helper: os.Getenv("NETSETUP_TEST_HELPER"), Host: Host{NetNS: os.Getenv("NETSETUP_TEST_NETNS")}}
	ns, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer ns.Close()
	fmt.Println("open", os.Getpid(), ns.netns.Fd())

	answer := func(c net.PacketConn) {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if to := from.(*net.UDPAddr); to.IP.IsUnspecified() {
				to.IP = net.IPv4bcast
			}
			c.WriteTo([]byte("re: "+string(buf[:n])), from)
		}
	}
	go answer(ns.Link().BOOTP)
	go answer(ns.Link().TFTP)

	var a *Adopted
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		cmd, arg, _ := strings.Cut(lines.Text(), " ")
		switch cmd {
		case "adopt", "configure":
			index, _ := strconv.Atoi(arg)
			if cmd == "adopt" {
				a, err = ns.Adopt(ctx, index)
			} else {
				a = &Adopted{}
				err = ns.configure(ctx, "", a)
			}
			if err != nil {
				var setup *SetupError
				if errors.As(err, &setup) {
					fmt.Printf("error [%s] %v\n", setup.Reason, err)
				} else {
					fmt.Println("error", err)
				}
				continue
			}
			fmt.Println("adopted", a.Index, a.Name, a.Carrier)
		case "gone":
			<-a.Gone
			fmt.Println("gone")
		case "done":
			<-ns.Done()
			fmt.Println("done", ns.Err())
		case "close":
			ns.Close()
			fmt.Println("closed")
		default:
			return fmt.Errorf("unknown command %q", cmd)
		}
	}
	if err := lines.Err(); err != nil && err != io.EOF {
		return err
	}
	return nil
}
