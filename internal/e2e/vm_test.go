package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/am335x"
)

// drivers are what a distribution loads by itself, by udev or by an earlier use.
const drivers = `modprobe -a vhci-hcd rndis_host cdc_ether nft_nat nft_masq nft_chain_nat nft_redir
`

// TestVM runs the TestWithUdev tests in one VM.
func TestVM(t *testing.T) {
	t.Parallel()
	inVM(t, "^TestWithUdev"+os.Getenv("SNAG_UDEV"), lab.Job{
		Script: drivers, Files: programs(t), Udev: true, Timeout: 12 * time.Minute,
		Packages: []string{"iproute2", "nftables"},
	})
}

// TestVMWithoutUdev runs the others in a VM that has none.
func TestVMWithoutUdev(t *testing.T) {
	t.Parallel()
	lab.GoTest(t, ".", "^TestNoUdev", lab.Job{Script: drivers, Files: programs(t)})
}

// setUp runs snag setup once in this VM.
func setUp(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/usr/local/libexec/snag/snag-netmove"); err == nil {
		return
	}
	t.Log(must(t, "snag", "setup"))
	must(t, "snag", "setup", "--check")
}

func TestWithUdevA_RootNeedsNoSetup(t *testing.T) {
	lab.Inside(t)
	before := leftovers(t)
	fw := generate(t, 1)
	p := start(t, nil, "recover", "-s", "am335x", "-f", fw.config, "--json")
	board, _ := plug(t, am335x.Config{}, "")
	if code := p.exit(t, 3*time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, p)
	}
	fw.booted(t, board)
	before.compare(t)
}

func TestWithUdevB_UserWithoutSetup(t *testing.T) {
	lab.Inside(t)
	must(t, "snag", "setup", "--remove")
	fw := generate(t, 1)
	p := start(t, user, "recover", "-s", "am335x", "-f", fw.config)
	plug(t, am335x.Config{}, "")
	if code := p.exit(t, time.Minute); code != 4 {
		t.Errorf("exit code %d, want 4\n%s", code, p)
	}
	if !strings.Contains(p.stdout.String(), "sudo snag setup") {
		t.Errorf("nothing says what to do\n%s", p)
	}
}

func TestWithUdevC_UserAfterSetup(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	before := leftovers(t)
	fw := generate(t, 2)
	p := start(t, user, "recover", "-s", "am335x", "-f", fw.config, "--json")
	board, port := plug(t, am335x.Config{}, "")
	if code := p.exit(t, 3*time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, p)
	}
	fw.booted(t, board)
	events := p.events(t)
	if last := events[len(events)-1]; last["event"] != "done" || last["port"] != string(port.Name()) || last["exit_code"] != 0.0 {
		t.Errorf("last event: %v", last)
	}
	before.compare(t)
}

func TestNoUdevRootRecovers(t *testing.T) {
	lab.Inside(t)
	fw := generate(t, 3)
	p := start(t, nil, "recover", "-s", "am335x", "-f", fw.config)
	board, _ := plug(t, am335x.Config{}, "")
	if code := p.exit(t, 3*time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, p)
	}
	fw.booted(t, board)
}

func TestNoUdevUserIsTold(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	fw := generate(t, 3)
	p := start(t, user, "recover", "-s", "am335x", "-f", fw.config)
	plug(t, am335x.Config{}, "")
	if code := p.exit(t, time.Minute); code != 4 {
		t.Errorf("exit code %d, want 4\n%s", code, p)
	}
	if out := p.stdout.String(); !strings.Contains(out, "/dev/bus/usb/") || !strings.Contains(out, "udev") {
		t.Errorf("the reason is missing\n%s", p)
	}
}
