package e2e

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.bug.st/serial"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/usb"
)

// TestUBoot is a boot client that nobody here wrote: Debian's U-Boot in a second QEMU. Its network card
// is the other end of a USB network device of QEMU's, which the VM's kernel enumerates. Its console is the
// VM's second serial port:
//
//	VM: snag - NAT - namespace - cdc_ether or rndis_host - xHCI - usb-net
//	                                                                 | net.sock
//	second QEMU:                        U-Boot - virtio-net ---------+
//
// With --net user snag is on the USB device itself, in the place of the first row up to the driver.
func TestUBoot(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"qemu-system-arm", "qemu-system-x86_64"} {
		backends, err := lab.Command(t, program, strings.TrimSuffix(program, "_64"), "-machine", "none", "-netdev", "help").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", program, err, backends)
		}
		if !strings.Contains(string(backends), "stream") {
			t.Skipf("this %s has no -netdev stream: QEMU 7.2 or newer is needed", program)
		}
	}

	dir := t.TempDir()
	network, console := filepath.Join(dir, "net.sock"), filepath.Join(dir, "console.sock")
	uboot := lab.Command(t, "qemu-system-arm", "qemu-system-arm",
		"-no-user-config", "-nodefaults", "-display", "none",
		"-machine", "virt", "-m", "256",
		"-bios", filepath.Join(lab.Packages(t, "u-boot-qemu")[0], "usr/lib/u-boot/qemu_arm/u-boot.bin"),
		"-serial", "stdio",
		"-netdev", "stream,id=n,server=off,addr.type=unix,addr.path="+network,
		"-device", "virtio-net-device,netdev=n,mac=52:54:00:12:34:57")
	switchedOn, err := net.ListenUnix("unix", &net.UnixAddr{Name: console})
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	uboot.Stderr = &complaints
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := power(switchedOn, uboot); err != nil && t.Context().Err() == nil {
			t.Errorf("U-Boot's QEMU: %v\n%s", err, &complaints)
		}
	}()
	t.Cleanup(func() {
		switchedOn.Close()
		<-ended
	})
	lab.GoTest(t, ".", "^TestWithUBoot", lab.Job{
		Script: "modprobe -a xhci-pci rndis_host cdc_ether nft_nat nft_masq nft_chain_nat nft_redir",
		Files:  programs(t), Udev: true, Timeout: 3 * time.Minute,
		QEMU: []string{
			"-device", "qemu-xhci,id=x",
			"-netdev", "stream,id=n,server=on,addr.type=unix,addr.path=" + network,
			"-device", "usb-net,bus=x.0,netdev=n,mac=52:54:00:12:34:56",
			"-chardev", "socket,id=uboot,path=" + console, "-serial", "chardev:uboot",
		},
	})
}

// powerOn is what the VM writes to the console to have U-Boot started: it would use up a whole
// processor while the VM boots.
const powerOn = '!'

// power starts U-Boot on the console that connects to l, when asked to, and returns when it has ended.
func power(l *net.UnixListener, uboot *exec.Cmd) error {
	conn, err := l.AcceptUnix()
	if err != nil {
		return nil // there is no VM
	}
	defer conn.Close()
	for b := []byte{0}; b[0] != powerOn; {
		if _, err := conn.Read(b); err != nil {
			return nil // the VM never asked
		}
	}
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close()
	uboot.Stdin, uboot.Stdout = file, file
	return lab.RunBound(uboot)
}

// usbNet is QEMU's network device; Linux's gadgets bear the same ID.
var usbNet = usb.ID{Vendor: 0x0525, Product: 0xa4a2}

func TestWithUBoot(t *testing.T) {
	lab.Inside(t)
	port := findUSBNet(t)
	t.Logf("port %s", port)
	console := openConsole(t, "/dev/ttyS1")
	console.send(t, string(powerOn))
	console.await(t, "Hit any key to stop autoboot", time.Minute)
	console.send(t, " ")
	console.await(t, "\n=> ", time.Minute)

	const address = "0x41000000"
	for i, test := range []struct {
		net           string
		configuration int      // bConfigurationValue
		driver        string   // the kernel's
		commands      []string // U-Boot's; the last one loads the file
	}{
		{"kernel", 1, "cdc_ether", []string{"dhcp " + address}},
		{"kernel", 1, "cdc_ether", []string{"setenv autoload no", "dhcp", "tftpboot " + address}},
		{"user", 1, "cdc_ether", []string{"setenv autoload yes", "dhcp " + address}},
		{"kernel", 2, "rndis_host", []string{"setenv autoload yes", "dhcp " + address}},
		{"user", 2, "rndis_host", []string{"dhcp " + address}},
		{"kernel", 2, "rndis_host", []string{"setenv autoload no", "dhcp", "tftpboot " + address}},
		{"kernel", 2, "rndis_host", []string{"tftpboot " + address + " another.name"}}, // U-Boot keeps its address
		{"user", 2, "rndis_host", []string{"tftpboot " + address + " another.name"}},
	} {
		ok := t.Run(test.net+" "+test.driver+" "+strings.Join(test.commands, "; "), func(t *testing.T) {
			configure(t, port, test.configuration, test.driver)
			before := leftovers(t)
			fw := generate(t, uint64(i))
			fw.uboot = am335x.GenerateUBoot(200_000, uint64(i)) // two emulated processors take turns for each block
			if err := os.WriteFile(filepath.Join(fw.dir, "u-boot.img"), fw.uboot, 0o644); err != nil {
				t.Fatal(err)
			}

			begin := time.Now()
			p := start(t, nil, "recover", "-s", "am335x", "-f", fw.config, "--usb-path", string(port), "--net", test.net, "--json")
			printed := ""
			for _, c := range test.commands {
				printed += console.run(t, c, time.Minute)
			}
			if code := p.exit(t, 30*time.Second); code != 0 {
				t.Errorf("exit code %d\n%s", code, p)
			}
			seconds := time.Since(begin).Seconds()
			printed += console.run(t, "crc32 "+address+" $filesize", time.Minute)
			t.Logf("%.1f s\n%s", seconds, printed)
			for _, want := range []string{
				"TFTP from server 192.168.0.100; our IP address is 192.168.0.101\n",
				fmt.Sprintf("Bytes transferred = %d (", len(fw.uboot)),
				fmt.Sprintf("==> %08x\n", crc32.ChecksumIEEE(fw.uboot)),
			} {
				if !strings.Contains(printed, want) {
					t.Errorf("U-Boot does not print %q", want)
				}
			}
			const other = "another.name"
			if asked := strings.Contains(printed, other); asked != strings.Contains(p.stdout.String(), other) {
				t.Errorf("U-Boot asked for %s: %v; snag says\n%s", other, asked, p)
			}
			awaitInterface(t, port, test.configuration, test.driver) // back again
			before.compare(t)
		})
		if !ok {
			return // the board is in no known state
		}
	}
}

// findUSBNet returns the port that QEMU's network device is on.
func findUSBNet(t *testing.T) usb.Port {
	t.Helper()
	var found usb.Port
	eventually(t, "QEMU's USB network device", func() bool {
		devices, err := usb.Sysfs{}.Devices()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(devices, func(d usb.Device) bool { return d.ID == usbNet })
		if i >= 0 {
			found = devices[i].Port
		}
		return i >= 0
	})
	return found
}

// configure selects a configuration of the device on a port, and waits for its network interface.
func configure(t *testing.T, port usb.Port, value int, driver string) {
	t.Helper()
	file := filepath.Join("/sys/bus/usb/devices", string(port), "bConfigurationValue")
	now, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.Itoa(value); strings.TrimSpace(string(now)) != want {
		if err := os.WriteFile(file, []byte(want), 0); err != nil {
			t.Fatal(err)
		}
	}
	awaitInterface(t, port, value, driver)
}

// awaitInterface waits until the driver's network interface is there, in this namespace.
func awaitInterface(t *testing.T, port usb.Port, configuration int, driver string) {
	t.Helper()
	usbInterface := fmt.Sprintf("/sys/bus/usb/devices/%s:%d.0", port, configuration)
	eventually(t, "an interface of "+driver, func() bool {
		bound, _ := os.Readlink(usbInterface + "/driver")
		net, _ := os.ReadDir(usbInterface + "/net")
		return filepath.Base(bound) == driver && len(net) == 1
	})
}

// eventually waits until something is there, a minute at most.
func eventually(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !there(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// ubootConsole is a serial line with U-Boot at the other end.
type ubootConsole struct {
	serial.Port
	text string // all that came
}

func openConsole(t *testing.T, tty string) *ubootConsole {
	t.Helper()
	port, err := serial.Open(tty, &serial.Mode{BaudRate: 115200, DataBits: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	if err := port.SetReadTimeout(100 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	return &ubootConsole{Port: port}
}

func (c *ubootConsole) send(t *testing.T, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

// await reads until want was printed since the call, and returns what was.
func (c *ubootConsole) await(t *testing.T, want string, within time.Duration) string {
	t.Helper()
	before := len(c.text)
	buf := make([]byte, 4096)
	for deadline := time.Now().Add(within); !strings.Contains(c.text[before:], want); {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		c.text += strings.ReplaceAll(string(buf[:n]), "\r", "")
		if time.Now().After(deadline) {
			t.Fatalf("U-Boot did not print %q within %s but\n%s", want, within, c.text)
		}
	}
	return c.text[before:]
}

// run runs a command of U-Boot's and returns what it printed.
func (c *ubootConsole) run(t *testing.T, command string, within time.Duration) string {
	t.Helper()
	c.send(t, command+"\r")
	return c.await(t, "\n=> ", within)
}
