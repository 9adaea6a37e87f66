package uuu

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// commands are all of uuu's: its table (libuuu/cmd.cpp, CmdMap), with a line of each. FASTBOOT is FB's other name.
var commands = []struct {
	proto string
	lines []string
}{
	{"", []string{"done", "delay 1", "sh ls", "shell ls", "< ls", "@ done", "error x", "if @CHIP@ == x then done", "if @CHIP@ != x then done"}},
	{"CFG", []string{"SDP -chip MX9 -compatible MX8MM -vid 0x1fc9 -pid 0x1234 -bcdmin 1 -bcdmax 2", "SDPS: -chip MX9 -compatible MX815 -vid 0x1fc9 -pid 0x1235 -bcdversion 1"}},
	{"SDPS", []string{"boot -f f -offset 1 -skipfhdr -scanterm -scanlimited 0x100"}},
	{"SDP", []string{"dcd -f f -dcdaddr 1", "jump -f f -ivt 0 -addr 1 -plugin -cleardcd", "rdmem -addr 0 -format 32", "wrmem -addr 0 -format 32 -value 1", "write -f f -addr 1 -offset 1", "write -f f -ivt 0",
		"status", "boot -f f -nojump -cleardcd -dcdaddr 1", "blog"}},
	{"SDPU", []string{"jump -addr 1", "write -f f -addr 1 -offset 1", "blog"}},
	{"SDPV", []string{"jump", "write -f f -skipspl", "blog"}},
	{"FB", []string{"getvar version", "ucmd x", "crc -f f -format x -blksz 512 -each 512 -seek 0 -skip 0 -nostop", "write -f f -format x -blksz 512 -each 512 -seek 0 -skip 0 -nostop", "acmd x",
		"download -f f", "flash -raw2sparse -no-bmap -S 0x100000 all f", "flash -raw2sparse -bmap f all f", "flash -scanterm -scanlimited 0x100 all f", "erase x", "reboot", "reboot bootloader", "oem x", "flashing unlock",
		"set_active:a", "boot", "continue", "update-super super wipe", "create-logical-partition x 1", "delete-logical-partition x", "resize-logical-partition x 1"}},
	{"FBK", []string{"ucmd x", "acmd x", "sync", "ucp f T:/x"}},
}

// refused are those that snag does not take, and what it says.
var refused = []struct{ line, says string }{
	{"FB: upload -f f", "docs/uuu.md"}, {"SDP: boot -f f -barebox", "-barebox"}, {"SDP: write -f f -barebox-bl33", "-barebox-bl33"},
}

// Every command of uuu's is taken, or refused by its name; and docs/uuu.md has it.
func TestEveryCommand(t *testing.T) {
	doc, err := os.ReadFile("../docs/uuu.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	documented := func(name string) {
		t.Helper()
		name, _, _ = strings.Cut(name, ":")
		base := strings.TrimSuffix(name, "-logical-partition")
		for line := range strings.Lines(string(doc)) {
			cells := strings.Split(line, "|")
			if len(cells) < 4 {
				continue
			}
			words := strings.FieldsFunc(cells[1], func(r rune) bool { return strings.ContainsRune(" `,", r) })
			if slices.Contains(words, name) || slices.ContainsFunc(words, func(w string) bool {
				return strings.TrimSuffix(strings.TrimSuffix(w, "logical-partition"), "-") == base
			}) {
				return
			}
		}
		t.Errorf("docs/uuu.md does not have %q", name)
	}
	for _, c := range commands {
		protocols := []string{c.proto}
		switch c.proto {
		case "":
			protocols = []string{"SDPS", "SDP", "SDPU", "SDPV", "FB", "FBK"}
		case "FB":
			protocols = append(protocols, "FASTBOOT")
		}
		for _, line := range c.lines {
			for _, p := range protocols {
				if _, err := parse("test", "uuu_version 1.5.0\n"+p+": "+line+"\nFB: done\n", nil, files{dir}); err != nil {
					t.Errorf("%s: %s: %v", p, line, err)
				}
			}
			words := strings.Fields(line)
			if c.proto != "CFG" {
				documented(words[0])
			}
			for _, w := range words {
				if len(w) > 1 && strings.HasPrefix(w, "-") {
					documented(w)
				}
			}
		}
	}
	for _, r := range refused {
		if _, err := parse("test", "uuu_version 1.5.0\n"+r.line+"\n", nil, files{dir}); err == nil || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v, want %q", r.line, err, r.says)
		}
		words := strings.Fields(r.line)
		documented(words[1])
		if strings.HasPrefix(words[len(words)-1], "-") {
			documented(words[len(words)-1])
		}
	}
}
