package uuu

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// parseIn parses a script in a directory that has the files boot.bin and image.wic.
func parseIn(t testing.TB, text string, args *arguments) (*Script, error) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"boot.bin", "image.wic", "image.wic.bmap", "with space.bin"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("contents of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return parse("test.uuu", text, args, files{dir})
}

// Every mistake is told with the place where it is.
func TestMistakes(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "uuu_version 1.0.1\n# FB: done\n\n", `test.uuu:3:1: no command in it`},
		{"no protocol", "uuu_version 1.0.1\nflash.bin", `test.uuu:2:1: "flash.bin": expected a protocol and a colon`},
		{"unknown protocol", "  SPD: boot -f boot.bin", `test.uuu:1:3: protocol "SPD": expected one of CFG, SDP`},
		{"unknown command", "FB: done\nFB: flsh all image.wic", `test.uuu:2:5: FB has no command "flsh"`},
		{"command of another protocol", "SDPU: boot -f boot.bin", `test.uuu:1:7: SDPU has no command "boot"`},
		{"no command", "FB:  ", `test.uuu:1:6: expected a command behind FB:`},
		{"too new", "uuu_version 1.6.0\nFB: done", `test.uuu:1:13: the script is for uuu 1.6.0`},
		{"no version", "uuu_version one\nFB: done", `test.uuu:1:13: version "one": expected up to three numbers`},
		{"a version of four numbers", "uuu_version 1.0.1.1\nFB: done", `test.uuu:1:13: version "1.0.1.1": expected up to three numbers`},
		{"too new, of one number", "uuu_version 2\nFB: done", `test.uuu:1:13: the script is for uuu 2:`},
		{"time", "FB[-t soon]: done", `test.uuu:1:3: [-t soon]: expected [-t MILLISECONDS]`},
		{"time without end", "FB[-t 12: done", `test.uuu:1:3: [-t 12: expected`},
		{"quotation mark", `FB: download -f "boot.bin`, `test.uuu:1:17: the quotation mark has no second one`},
		{"no release", "CFG: FB: -vid 1 -pid 2 -bcdmin 0x100 -bcdmax 0x50\nFB: done", `test.uuu:1:24: -bcdmin 0x0100 is above -bcdmax 0x0050`},
		{"unknown option", "SDP: boot -f boot.bin -force", `test.uuu:1:23: -force: no option of boot`},
		{"no value", "SDP: boot -f", `test.uuu:1:11: -f: expected a value behind it`},
		{"no file option", "SDPS: boot boot.bin", `test.uuu:1:12: "boot.bin": nothing more is expected`},
		{"missing file", "SDPS: boot -f missing.bin", `test.uuu:1:15: stat `},
		{"missing image", "FB: flash all missing.wic", `test.uuu:1:15: stat `},
		{"missing bmap", "FB: flash -raw2sparse -bmap missing.bmap all image.wic", `test.uuu:1:29: stat `},
		{"bmap alone", "FB: flash -bmap image.wic.bmap all image.wic", `test.uuu:1:11: -bmap: expected -raw2sparse too`},
		{"no partition", "FB: flash image.wic", `test.uuu:1:5: flash: expected a partition and a file`},
		{"number", "SDP: write -f boot.bin -addr 0X877ff400", `test.uuu:1:30: number "0X877ff400": expected digits, or 0x`},
		{"number too large", "SDP: write -f boot.bin -addr 0x100000000", `test.uuu:1:30: number "0x100000000"`},
		{"skipspl of an old SPL", "SDPU: write -f boot.bin -skipspl", `test.uuu:1:25: -skipspl is SDPV's`},
		{"jump to nowhere", "SDP: jump", `test.uuu:1:6: jump: expected -f FILE or -addr ADDRESS`},
		{"width", "SDP: rdmem -addr 0x10 -format 7", `test.uuu:1:31: -format 7: expected 8, 16 or 32 bits`},
		{"barebox", "SDP: boot -f boot.bin -barebox", `test.uuu:1:23: -barebox: barebox in two steps is not taken`},
		{"long acmd", "FB: acmd " + strings.Repeat("x", 64), `test.uuu:1:5: acmd: a command of 64 bytes, U-Boot takes 63`},
		{"empty ucmd", "FB: ucmd", `test.uuu:1:5: ucmd: expected a command of U-Boot`},
		{"reboot", "FB: reboot edl", `test.uuu:1:12: reboot edl: expected bootloader`},
		{"upload", "FB: upload -f x", `test.uuu:1:5: upload: only NXP's U-Boot knows it`},
		{"if", "FB: if @CHIP@ = MX8MM then done", `test.uuu:1:15: if: "=", expected == or !=`},
		{"if without then", "FB: if a == b done", `test.uuu:1:15: if: "done", expected then`},
		{"if without a command", "FB: if a == b then", `test.uuu:1:19: expected a command behind FB:`},
		{"if if", "FB: if a == b then if a == b then done", `test.uuu:1:20: an if within an if`},
		{"delay", "FB: delay soon", `test.uuu:1:11: number "soon"`},
		{"cfg", "CFG: XDP -vid 1 -pid 2", `test.uuu:1:6: protocol "XDP"`},
		{"cfg without id", "CFG: SDP -chip MX8MM -vid 0x1fc9", `test.uuu:1:6: expected -pid NUMBER`},
		{"cfg of an unknown chip", "CFG: SDP -chip MX9 -compatible MX8 -vid 0x1fc9 -pid 1", `test.uuu:1:32: no chip is known that "MX9" is`},
		{"cfg of another protocol", "CFG: SDP -chip MX865 -vid 0x1fc9 -pid 1", `test.uuu:1:6: the boot ROM of imx865 does not speak SDP`},
		{"ucp between files", "FBK: ucp boot.bin other", `test.uuu:1:10: ucp: expected one path of the board's`},
		{"each", "FB: write -f boot.bin -each 1000", `test.uuu:1:5: -each 0x3e8: expected whole blocks`},
		{"a NUL", "FB: done\x00", `test.uuu:1:9: a NUL: this is no script`},
		{"a long line", "FB: ucmd " + strings.Repeat("x", maxLine), `test.uuu:1:4097: more than 4096 bytes in a line`},
		{"many lines", strings.Repeat("FB: done\n", maxLines+1), `test.uuu:10001:1: more than 10000 lines`},
		{"long", strings.Repeat("# \n", maxScript), `test.uuu:1:1: 3145728 bytes, more than`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parseIn(t, tc.text, nil)
			var where *Error
			if !errors.As(err, &where) || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

// Lines are what uuu takes, and somewhat more.
func TestLines(t *testing.T) {
	s, err := parseIn(t, strings.Join([]string{
		"UUU_version 1.4\r",
		"# a comment", "  # another", "\t", "x",
		"sdps: BOOT -f boot.bin\r",
		"FASTBOOT: ucmd  setenv  x  \"a  b\" ",
		"fb[-t 60000]: flash all image.wic",
		"FB[ -t 5 ]: flash -S 0x100000 -raw2sparse -bmap image.wic.bmap all image.wic", // in another order
		`SDP: boot -f "with space.bin"`,
		"FB: crc -f image.wic -skip 9 -each 512",
		"FB: Done",
	}, "\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range s.Lines {
		got = append(got, string(l.Proto)+" "+l.Timeout.String()+" "+strings.Join(l.cmd.sends(s), "; "))
	}
	want := []string{
		"SDPS 0s stream of 20 bytes",
		`FB 0s UCmd:setenv  x  "a  b"`,
		"FB 1m0s getvar:max-download-size; download:00000015 and the bytes of image.wic; flash:all",
		"FB 5ms getvar:max-download-size; for each piece: download: of Android sparse images of image.wic, of what image.wic.bmap maps, 1048576 bytes at most; flash:all",
		"SDP 0s nothing: it has no IVT (no IVT (d1 00 20 40 or 41) in 26 bytes from 0x0 on)",
		fmt.Sprintf("FB 0s UCmd:mmc read $loadaddr 0x0 0x1; UCmd:crc32 -v $loadaddr 0xc %08x", crc32.ChecksumIEEE([]byte("of image.wic"))),
		"FB 0s nothing: the script ends here",
	}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d\ngot  %s\nwant %s", s.Lines[i].N, got[i], want[i])
		}
	}
	if s.Lines[2].N != 8 || s.Lines[2].Timeout != time.Minute {
		t.Errorf("%+v", s.Lines[2])
	}
}

func TestArguments(t *testing.T) {
	const text = `# @_boot.bin | boot loader
# @_image [_boot.bin] | what is written
SDPS: boot -f _boot.bin
FB: ucmd echo _image a_image "_image" _image/x _images
FB: flash x _image
`
	takes := declared(text)
	if got := describe(takes); got != "_boot.bin (boot loader), [_image] (what is written), _images" {
		t.Fatal(got)
	}
	for _, tc := range []struct {
		args []string
		want string // of the fourth line
		err  string
	}{
		{[]string{"a", "b", "c"}, `FB: ucmd echo b a_image "b" b/x c`, ""},
		{[]string{"a", "b.gz", "c d"}, `FB: ucmd echo b.gz/* a_image "b.gz/*" b.gz/*/x "c d"`, ""},
		{[]string{"a", "b"}, "", "the script needs arguments: _boot.bin"},
		{[]string{"a", "b", "c", "d"}, "", "4 arguments, of which the script takes 3"},
	} {
		a, err := bind(takes, tc.args)
		if tc.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("%q: %v, want %s", tc.args, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if got := a.fill(strings.Split(text, "\n")[3]).text; got != tc.want {
			t.Errorf("%q:\ngot  %s\nwant %s", tc.args, got, tc.want)
		}
	}
	// An argument that is left out is the one that it falls back to.
	a, err := bind(takes[:2], []string{"x"})
	if err != nil || a.value["_image"] != "x" {
		t.Errorf("%v, %v", a, err)
	}
	// Mistakes are told by where they are in the script as it is written.
	_, err = parseIn(t, "FB: flash all _i now", &arguments{map[string]string{"_i": "image.wic"}})
	if err == nil || !strings.HasPrefix(err.Error(), `test.uuu:1:18: "now"`) {
		t.Error(err)
	}
	_, err = parseIn(t, "FB: flash _p _i", &arguments{map[string]string{"_i": "missing", "_p": "bootloader"}})
	if err == nil || !strings.HasPrefix(err.Error(), `test.uuu:1:14: stat `) {
		t.Error(err)
	}
	_, err = parseIn(t, "FB: flash all _i", &arguments{map[string]string{"_i": "missing image.wic"}})
	if err == nil || !strings.HasPrefix(err.Error(), `test.uuu:1:15: stat `) {
		t.Error(err)
	}
}

func TestSubstitute(t *testing.T) {
	value := func(name string) string { return map[string]string{"A": "1", "B_C": "two"}[name] }
	for text, want := range map[string]string{
		"fuse prog @A@ @B_C@": "fuse prog 1 two", "@D@x": "x", "a@b": "a@b", "x @ y @ z": "x @ y @ z", "@A@@A@": "11", "@": "@",
	} {
		if got := substitute(text, value); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzParse parses whatever comes: it does not fail but by an error at a place that is in the script.
func FuzzParse(f *testing.F) {
	for _, name := range Builtins() {
		text, _ := Builtin(name)
		f.Add(text, "boot.bin")
	}
	f.Add("FB[-t 10]: flash -raw2sparse -bmap x.bmap all _i\nCFG: FB -vid 1 -pid 2\nSDP: if @A@ == B then wrmem -addr 1 -format 8 -value 3\n", "a b.bz2")
	f.Add("FB: write -f _i -format \"nvme write @off @size\" -each 0x1000\nFBK: ucp _i T:/tmp/x\n", "z.zip/x")
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "boot.bin"), []byte("x"), 0o644); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, arg string) {
		takes := declared(text)
		args, err := bind(takes, make([]string, len(takes)))
		if err != nil {
			t.Fatal(err)
		}
		for name := range args.value {
			args.value[name] = arg
		}
		s, err := parse("fuzz", text, args, files{dir})
		if err != nil {
			var where *Error
			if !errors.As(err, &where) {
				t.Fatalf("%v is no *Error", err)
			}
			lines := strings.SplitAfter(text, "\n")
			if where.Line < 1 || where.Line > len(lines) || where.Col < 1 || where.Col > len(lines[where.Line-1])+1 {
				t.Fatalf("%v: no such place", err)
			}
			return
		}
		for _, l := range s.Lines {
			l.cmd.sends(s)
		}
	})
}
