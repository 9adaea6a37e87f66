package netboot

import (
	"bytes"
	"encoding/hex"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

var (
	testServer = netip.MustParsePrefix("192.168.0.100/24")
	testClient = netip.MustParseAddr("192.168.0.101")
)

// fixedPart makes the first 236 bytes of a request.
func fixedPart(xid [4]byte, mac [6]byte) []byte {
	b := make([]byte, 236)
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[4:], xid[:])
	copy(b[28:], mac[:])
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func option(code byte, value ...byte) []byte { return append([]byte{code, byte(len(value))}, value...) }

func pad(b []byte, n int) []byte { return append(b, make([]byte, max(n-len(b), 0))...) }

var magic = []byte{0x63, 0x82, 0x53, 0x63}

// romRequest is what the AM335x ROM sends: 364 bytes, plain BOOTP, with its class and an 81-byte ASIC ID.
func romRequest() []byte {
	asicID := make([]byte, 81)
	for i := range asicID {
		asicID[i] = byte(i)
	}
	return pad(join(fixedPart([4]byte{0, 0, 0, 1}, [6]byte{0x1c, 0xba, 0x8c, 0xa8, 1, 2}), magic,
		option(60, []byte("AM335x ROM")...), option(61, asicID...), []byte{255}), 364)
}

// oldSPLRequest is the plain BOOTP of an SPL of 2014.
func oldSPLRequest() []byte {
	return pad(join(fixedPart([4]byte{0xef, 0, 1, 7}, [6]byte{0xde, 0xad, 0xbe, 0xef, 0, 1}), magic,
		option(60, []byte("AM335x U-Boot SPL")...), []byte{255}), 300)
}

// dhcpRequest is what a new SPL sends.
func dhcpRequest(messageType byte, more ...[]byte) []byte {
	return pad(join(fixedPart([4]byte{0xef, 0, 1, 9}, [6]byte{0xde, 0xad, 0xbe, 0xef, 0, 1}), magic,
		option(53, messageType), option(57, 2, 64), join(more...), option(93, 0, 21), option(94, 1, 0, 0),
		option(60, []byte("AM335x U-Boot SPL")...), option(55, 1, 3, 6, 12, 17), []byte{255}), 300)
}

func TestReplies(t *testing.T) {
	broadcast := dhcpRequest(1)
	broadcast[10] = 0x80
	for name, req := range map[string][]byte{
		"rom":           romRequest(),
		"spl-bootp":     oldSPLRequest(),
		"spl-discover":  dhcpRequest(1),
		"spl-request":   dhcpRequest(3, option(50, 192, 168, 0, 101), option(54, 192, 168, 0, 100)),
		"broadcast-bit": broadcast,
		"no-cookie":     pad(fixedPart([4]byte{1, 2, 3, 4}, [6]byte{2, 0, 0, 0, 0, 1}), 300),
		"short":         fixedPart([4]byte{1, 2, 3, 4}, [6]byte{2, 0, 0, 0, 0, 1}),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := parseRequest(req)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.forServer(testServer.Addr()); err != nil {
				t.Fatal(err)
			}
			got := r.reply(testServer, testClient, "u-boot-spl.bin")
			golden := filepath.Join("testdata", "reply-"+name+".hex")
			if *update {
				if err := os.WriteFile(golden, []byte(hex.Dump(got)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if hex.Dump(got) != string(want) {
				t.Errorf("reply:\n%s\nexpected:\n%s", hex.Dump(got), want)
			}
			checkReply(t, req, got)
		})
	}
}

// checkReply looks at a reply as the clients do: U-Boot's checks, the ROM's table, and that nothing overloads.
func checkReply(t *testing.T, req, b []byte) {
	t.Helper()
	if len(b) < 300 {
		t.Errorf("reply of %d bytes", len(b))
	}
	if b[0] != 2 || b[1] != 1 || b[2] != 6 {
		t.Errorf("op, htype, hlen %v", b[:3])
	}
	for _, f := range []struct {
		name     string
		from, to int
	}{{"xid", 4, 8}, {"flags", 10, 12}, {"chaddr", 28, 44}} {
		if !bytes.Equal(b[f.from:f.to], req[f.from:f.to]) {
			t.Errorf("%s %x, request had %x", f.name, b[f.from:f.to], req[f.from:f.to])
		}
	}
	if !bytes.Equal(b[16:24], []byte{192, 168, 0, 101, 192, 168, 0, 100}) {
		t.Errorf("yiaddr, siaddr %v", b[16:24])
	}
	if b[108+127] != 0 {
		t.Error("file is not ended by NUL")
	}
	if len(req) < 240 || !bytes.Equal(req[236:240], magic) {
		if !bytes.Equal(b[236:], make([]byte, len(b)-236)) {
			t.Error("vendor area in the reply to a request without one")
		}
		return
	}
	options := map[byte][]byte{}
	for o := b[240:]; o[0] != 255; o = o[2+o[1]:] {
		options[o[0]] = o[2 : 2+o[1]]
	}
	for code, want := range map[byte][]byte{
		53: {5}, 54: {192, 168, 0, 100}, 1: {255, 255, 255, 0}, 3: {192, 168, 0, 100}, 51: {255, 255, 255, 255},
	} {
		if !bytes.Equal(options[code], want) {
			t.Errorf("option %d: %v, expected %v", code, options[code], want)
		}
	}
	if len(options) != 5 {
		t.Errorf("options %v", options)
	}
}

func TestLongFileName(t *testing.T) {
	r, err := parseRequest(romRequest())
	if err != nil {
		t.Fatal(err)
	}
	b := r.reply(testServer, testClient, strings.Repeat("n", 300))
	if !bytes.Equal(b[108:236], pad([]byte(strings.Repeat("n", 127)), 128)) {
		t.Errorf("file %q", b[108:236])
	}
}

func TestParseRequest(t *testing.T) {
	rom := romRequest()
	with := func(at int, v byte) []byte {
		b := bytes.Clone(rom)
		b[at] = v
		return b
	}
	fixed := fixedPart([4]byte{1, 2, 3, 4}, [6]byte{2, 0, 0, 0, 0, 1})
	for _, tt := range []struct {
		name  string
		b     []byte
		class string
		dhcp  bool
		ok    bool // parsed and ours
	}{
		{"rom", rom, "AM335x ROM", false, true},
		{"discover", dhcpRequest(1), "AM335x U-Boot SPL", true, true},
		{"request without server id", dhcpRequest(3), "AM335x U-Boot SPL", true, true},
		{"no END", join(fixed, magic, option(60, []byte("AM335x ROM")...)), "AM335x ROM", false, true},
		{"last option cut off", join(fixed, magic, option(60, []byte("AM335x ROM")...), []byte{61, 81, 1}), "AM335x ROM", false, true},
		{"code without length", join(fixed, magic, option(60, []byte("AM335x ROM")...), []byte{61}), "AM335x ROM", false, true},
		{"padding between", join(fixed, magic, []byte{0, 0, 0}, option(60, []byte("x")...)), "x", false, true},
		{"whitespace at both ends", join(fixed, magic, option(60, []byte("x ")...), []byte{255, 32, 10}), "x ", false, true},
		{"wrong cookie", join(fixed, []byte{1, 2, 3, 4}, option(60, []byte("x")...)), "", false, true},
		{"message type of two bytes", join(fixed, magic, option(53, 1, 1)), "", false, true},
		{"empty", nil, "", false, false},
		{"235 bytes", fixed[:235], "", false, false},
		{"reply", with(0, 2), "", false, false},
		{"htype", with(1, 6), "", false, false},
		{"hlen", with(2, 16), "", false, false},
		{"request to another", dhcpRequest(3, option(54, 10, 0, 0, 1)), "", false, false},
		{"offer", dhcpRequest(2), "", false, false},
		{"decline", dhcpRequest(4), "", false, false},
		{"release", dhcpRequest(7), "", false, false},
		{"inform", dhcpRequest(8), "", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := parseRequest(tt.b)
			if err == nil {
				err = r.forServer(testServer.Addr())
			}
			if ok := err == nil; ok != tt.ok {
				t.Fatalf("error %v, expected ok=%v", err, tt.ok)
			}
			if err != nil {
				return
			}
			if c := r.client(); c.VendorClass != tt.class || c.DHCP != tt.dhcp || len(c.MAC) != 6 {
				t.Errorf("client %+v", c)
			}
		})
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(romRequest())
	f.Add(oldSPLRequest())
	f.Add(dhcpRequest(1))
	f.Add(dhcpRequest(3, option(54, 192, 168, 0, 100), option(82, 1, 2, 3), option(52, 3)))
	f.Add(fixedPart([4]byte{}, [6]byte{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		_ = r.client()
		_ = r.forServer(testServer.Addr())
		got := r.reply(testServer, testClient, "spl")
		if len(got) != 300 {
			t.Errorf("reply of %d bytes", len(got))
		}
		checkReply(t, b, got)
	})
}
