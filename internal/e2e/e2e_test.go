package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/sim/sandbox"
	"snag/sim/vhci"
	"snag/sim/virtual"
	"snag/usb"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // whoever started us may ignore it; what we start must not
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("24") // tests that run at once wait for boards, not for the processor
	}
	code := m.Run()
	for _, dir := range removeAtEnd.dirs {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// everyBoard names the variable by which all boards and cases of the VM tests are asked for (make test-vm), not a part
// that has each of their kinds (make test).
const everyBoard = "SNAG_EVERY"

func every() bool { return os.Getenv(everyBoard) != "" }

// part reports whether number i is to be tested, of which else one in so many is.
func part(i, of int) bool { return every() || i%of == 0 }

// inVM is lab.GoTest with this package's tests.
func inVM(t *testing.T, run string, job lab.Job) {
	t.Helper()
	if every() {
		job.Script = "export " + everyBoard + "=1\n" + job.Script
		job.Timeout *= 3
	}
	lab.GoTest(t, ".", run, job)
}

// images is firmware in a directory, with its configuration.
type images struct {
	dir, config string
	spl, uboot  []byte
}

// The sizes of Debian's firmware, as sent.
const splSize, ubootSize = 109_728, 755_576

// generate makes firmware that differs from seed to seed, in Debian's sizes.
func generate(t testing.TB, seed uint64) images {
	t.Helper()
	return write(t, am335x.GenerateSPL(splSize, seed), am335x.GenerateUBoot(ubootSize-64, seed))
}

// generateSized is generate for tests whose subject is not the transfer.
func generateSized(t testing.TB, seed uint64, spl, uboot int) images {
	t.Helper()
	return write(t, am335x.GenerateSPL(spl, seed), am335x.GenerateUBoot(uboot, seed))
}

// generateAM43xx makes firmware whose vectors lie where an AM43xx's ROM loads it.
func generateAM43xx(t testing.TB) images {
	t.Helper()
	spl := am335x.GenerateSPL(splSize, 1)
	for i := range 7 {
		binary.LittleEndian.PutUint32(spl[32+4*i:], 0x402f4040+uint32(4*i))
	}
	return write(t, bytes.ReplaceAll(spl, []byte("AM335x"), []byte("AM43xx")), am335x.GenerateUBoot(ubootSize-64, 1))
}

// write writes firmware into a directory that every user may read.
func write(t testing.TB, spl, uboot []byte) images {
	t.Helper()
	fw := images{dir: t.TempDir(), spl: spl, uboot: uboot}
	fw.config = filepath.Join(fw.dir, "board.yaml")
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(fw.dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("u-boot-spl.bin", fw.spl)
	write("u-boot.img", fw.uboot)
	write("board.yaml", []byte("paths-relative-to: THIS_FILE\nspl:\n  path: u-boot-spl.bin\nu-boot:\n  path: u-boot.img\n"))
	for dir := fw.dir; len(dir) > 5; dir = filepath.Dir(dir) { // for users other than root
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return fw
}

// asMLO puts the headers before the SPL's file that TI's ROMs want in front of it on a card (mkimage -T omapimage): a
// table of contents and a GP header. Over USB the SPL goes without.
func (fw images) asMLO(t testing.TB) {
	t.Helper()
	mlo := make([]byte, 512, 520+len(fw.spl))
	binary.LittleEndian.PutUint32(mlo, 0x40)
	binary.LittleEndian.PutUint32(mlo[4:], 0xc)
	copy(mlo[20:], "CHSETTINGS")
	copy(mlo[32:64], bytes.Repeat([]byte{0xff}, 32))
	mlo = binary.LittleEndian.AppendUint32(mlo, uint32(8+len(fw.spl)))
	mlo = binary.LittleEndian.AppendUint32(mlo, 0x402f0400)
	if err := os.WriteFile(filepath.Join(fw.dir, "u-boot-spl.bin"), append(mlo, fw.spl...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// program is a snag that was started.
type program struct {
	*exec.Cmd
	stdout, stderr output
}

// output is what a program has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// user is the VM's ordinary user, in group plugdev; stranger is one who is in no group of use.
var (
	user     = &syscall.Credential{Uid: 1001, Gid: 1001, Groups: []uint32{46}}
	stranger = &syscall.Credential{Uid: 1002, Gid: 1002}
)

// start starts snag as somebody; nil is root.
func start(t testing.TB, who *syscall.Credential, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command("snag", args...)}
	p.Dir = "/"
	p.Cmd.Stdout, p.Cmd.Stderr = &p.stdout, &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	return p
}

// exit waits for the program's end and returns its exit code, -1 for a signal.
func (p *program) exit(t testing.TB, within time.Duration) int {
	t.Helper()
	timer := time.AfterFunc(within, func() {
		_ = p.Process.Signal(syscall.SIGQUIT) // it says what it waits for
		time.AfterFunc(5*time.Second, func() { _ = p.Process.Kill() })
	})
	p.Wait()
	if !timer.Stop() {
		t.Errorf("snag did not end within %s\n%s", within, p)
	}
	return p.ProcessState.ExitCode()
}

func (p *program) String() string {
	return fmt.Sprintf("%s\n--- stdout\n%s--- stderr\n%s", strings.Join(p.Args, " "), &p.stdout, &p.stderr)
}

// events are the JSON lines.
func (p *program) events(t testing.TB) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(p.stdout.String()) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("not a JSON line: %q: %v", line, err)
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		t.Fatalf("no events\n%s", p)
	}
	return all
}

// plug powers a virtual board on a port of the kernel's virtual host controller, "" for any.
func plug(t testing.TB, cfg am335x.Config, at usb.Port) (*am335x.Board, *vhci.Port) {
	t.Helper()
	board, port, _ := plugged(t, cfg, at)
	return board, port
}

// plugged is plug with a way to unplug the board before the test ends.
func plugged(t testing.TB, cfg am335x.Config, at usb.Port) (board *am335x.Board, port *vhci.Port, unplug func()) {
	t.Helper()
	if cfg.ROMRetries == nil {
		cfg.ROMRetries = []time.Duration{time.Second}
	}
	port, err := vhci.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	board, err = am335x.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- board.Run(ctx, port) }()
	unplug = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("board on %s: %v", port.Name(), err)
		}
	})
	t.Cleanup(unplug)
	return board, port, unplug
}

// booted checks that a board received exactly the images and saw nothing wrong.
func (fw images) booted(t testing.TB, board *am335x.Board) {
	t.Helper()
	select {
	case <-board.Settled():
	case <-time.After(30 * time.Second):
	}
	r := board.Report()
	var spl, uboot []byte
	for _, s := range r.Stages {
		switch s.Name {
		case am335x.StageROM:
			spl = s.Data
		case am335x.StageSPL:
			uboot = s.Data
		}
	}
	if r.Outcome != virtual.Booted || !bytes.Equal(spl, fw.spl) || !bytes.Equal(uboot, fw.uboot) {
		t.Errorf("board: %s %s: ROM received %d of %d bytes, SPL %d of %d", r.Outcome, r.Error, len(spl), len(fw.spl), len(uboot), len(fw.uboot))
	}
	for _, v := range r.Violations {
		t.Errorf("the board saw %d times: %s", v.N, v.Text)
	}
}

// must runs a command of the system's.
func must(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

var vmPrograms = map[string]func() (string, error){
	"/lab/bin/snag":         builds("snag/cmd/snag", false),
	"/lab/bin/snag-netmove": builds("snag/cmd/snag-netmove", false),
}

// programs are the built programs, for a VM's PATH.
func programs(t testing.TB) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for name, build := range vmPrograms {
		file, err := build()
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	return files
}
