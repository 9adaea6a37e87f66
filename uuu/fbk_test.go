package uuu_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/usb"
	"snag/uuu"
)

// kernel is the gadget of a Linux made for flashing, as far as its commands go (NXP's imx-uuc, ufb.c).
type kernel struct {
	g        *usbdev.Gadget
	commands []string
	files    map[string]*bytes.Buffer
	pipe     int // bytes that the reader of "-" takes before it ends; 0: all
	open     string
}

func (*kernel) Configured(uint8)      {}
func (*kernel) Selected(uint8, uint8) {}
func (*kernel) Control(context.Context, usbdev.Setup, []byte) (int, error) {
	return 0, usbdev.ErrStall
}

func newKernel() *kernel {
	k := &kernel{files: map[string]*bytes.Buffer{"/etc/issue": bytes.NewBufferString(strings.Repeat("Linux\n", 10_000))}}
	k.g = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x066f, Product: 0x9afe}, Product: "uuc",
		Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{{Class: 0xff, SubClass: 0x42, Protocol: 0x03, Endpoints: []usbdev.Endpoint{
			{Address: 0x81, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 0x01, Type: usbdev.Bulk, MaxPacket: 512},
		}}}}},
	}, k)
	return k
}

// serve answers until the context ends.
func (k *kernel) serve(ctx context.Context) {
	say := func(s string) { k.g.InPipe(0x81).Write(ctx, []byte(s)) }
	buf := make([]byte, 4096)
	for {
		n, err := k.g.OutPipe(0x01).Read(ctx, buf)
		if err != nil {
			return
		}
		command := string(buf[:n])
		k.commands = append(k.commands, command)
		word, arg, _ := strings.Cut(command, ":")
		switch word {
		case "WOpen":
			if arg == "/tmp" {
				say("FAILDIR")
				continue
			}
			k.open, k.files[arg] = arg, new(bytes.Buffer)
			say("OKAY")
		case "donwload":
			var size int
			fmt.Sscanf(arg, "%X", &size)
			say("DATA" + arg)
			for f := k.files[k.open]; size > 0; {
				n, err := k.g.OutPipe(0x01).Read(ctx, buf)
				if err != nil {
					return
				}
				f.Write(buf[:n])
				size -= n
			}
			if k.pipe > 0 && k.files[k.open].Len() > k.pipe {
				say("FAILEPIPE")
				continue
			}
			say("OKAY")
		case "ROpen":
			if k.files[arg] == nil {
				say("FAILno such file")
				continue
			}
			k.open = arg
			say(fmt.Sprintf("OKAY%X", k.files[arg].Len()))
		case "upload":
			b := k.files[k.open].Next(0x4000)
			say(fmt.Sprintf("DATA%08X", len(b)))
			k.g.InPipe(0x81).Write(ctx, b)
			say("OKAY")
		case "UCmd", "ACmd", "Sync", "Close":
			if arg == "false" {
				say("FAILreturn 1")
				continue
			}
			say("OKAY")
		default:
			say("FAILunknown command")
		}
	}
}

func TestKernel(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		pipe       int
		want       []string // the first commands
		err        string
	}{
		{name: "commands", text: "FBK: ucmd mount /dev/mmcblk0p1 /mnt\nFBK: acmd tar x -C /mnt\nFBK: ucp image.wic T:-\nFBK: Sync\nFBK: done",
			want: []string{"UCmd:mount /dev/mmcblk0p1 /mnt", "ACmd:tar x -C /mnt", "WOpen:-", "donwload:00004000", "donwload:00004000"}},
		{name: "into a directory", text: "FBK: ucp image.wic t:/tmp\nFBK: done", want: []string{"WOpen:/tmp", "WOpen:/tmp/image.wic", "donwload:00004000"}},
		{name: "from the board", text: "FBK: ucp T:/etc/issue issue\nFBK: done", want: []string{"ROpen:/etc/issue", "upload", "upload", "upload", "upload", "Close"}},
		{name: "no such file", text: "FBK: ucp T:/etc/issues issue\nFBK: done", want: []string{"ROpen:/etc/issues"}, err: "no such file"},
		{name: "a command fails", text: "FBK: ucmd false\nFBK: done", want: []string{"UCmd:false"}, err: "return 1"},
		{name: "the reader ends", text: "FBK: ucp image.wic T:-\nFBK: done", pipe: 20_000, want: []string{"WOpen:-"}, err: "the board's command that reads - has ended"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := files(t, "", imx.Config{})
				host := inproc.New()
				k := newKernel()
				k.pipe = tc.pipe
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if err := host.Port(port).Attach(ctx, k.g); err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				wg.Go(func() { k.serve(ctx) })
				err := recovery.Run(ctx, recovery.Options{
					Backend: uuu.Backend{Script: load(t, dir, tc.text)}, USB: host, Port: port, Timeout: time.Minute,
				})
				cancel()
				wg.Wait()
				host.Port(port).Detach()
				k.g.Close()
				if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
					t.Fatalf("%v, want %q", err, tc.err)
				}
				for i, want := range tc.want {
					if i >= len(k.commands) || k.commands[i] != want {
						t.Fatalf("got  %q\nwant %q", k.commands[:min(len(k.commands), 8)], tc.want)
					}
				}
				image := read(t, filepath.Join(dir, "image.wic"))
				switch tc.name {
				case "commands":
					if !bytes.Equal(k.files["-"].Bytes(), image) {
						t.Errorf("%d bytes came, of %d", k.files["-"].Len(), len(image))
					}
				case "from the board":
					if got := read(t, filepath.Join(dir, "issue")); len(got) != 60_000 || !bytes.HasPrefix(got, []byte("Linux\nLinux")) {
						t.Errorf("%d bytes came", len(got))
					}
				}
			})
		})
	}
}
