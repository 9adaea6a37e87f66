package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"snag/sim/am335x"
	"snag/sim/virtual"
	"snag/usb"
)

// expectation is a file that a stage must have received.
type expectation struct {
	stage, path string
	data        []byte
}

func (o AM335x) expected() ([]expectation, error) {
	var want []expectation
	for _, e := range []expectation{{stage: am335x.StageROM, path: o.ExpectSPL}, {stage: am335x.StageSPL, path: o.ExpectUBoot}} {
		if e.path == "" {
			continue
		}
		var err error
		if e.data, err = os.ReadFile(e.path); err != nil {
			return nil, err
		}
		want = append(want, e)
	}
	return want, nil
}

// check returns what is wrong with what a stage received, "" if nothing is.
func (e expectation) check(r *am335x.Report) string {
	s := r.Last(e.stage)
	switch {
	case s == nil:
		return fmt.Sprintf("%s: never got so far; expected %s", e.stage, e.path)
	case bytes.Equal(s.Data, e.data) && s.Complete:
		return ""
	case bytes.HasPrefix(e.data, s.Data):
		return fmt.Sprintf("%s: received %d bytes, expected the %d of %s", e.stage, len(s.Data), len(e.data), e.path)
	}
	i := 0
	for i < len(s.Data) && i < len(e.data) && s.Data[i] == e.data[i] {
		i++
	}
	return fmt.Sprintf("%s: received %d bytes that differ from %s (%d bytes) at %#x", e.stage, len(s.Data), e.path, len(e.data), i)
}

// save writes what each board received last at each stage.
func (o AM335x) save(boards []boardJSON) error {
	if o.Save == "" {
		return nil
	}
	if err := os.MkdirAll(o.Save, 0o755); err != nil {
		return err
	}
	var errs []error
	for _, b := range boards {
		for stage, name := range map[string]string{am335x.StageROM: "spl.bin", am335x.StageSPL: "u-boot.img"} {
			if s := b.Last(stage); s != nil {
				errs = append(errs, os.WriteFile(filepath.Join(o.Save, string(b.Port)+"-"+name), s.Data, 0o644))
			}
		}
	}
	return errors.Join(errs...)
}

// boardJSON is a board in the JSON report.
type boardJSON struct {
	Port usb.Port `json:"port"`
	am335x.Report
	Mismatches []string `json:"mismatches,omitempty"`
}

// print writes the report and returns errDiffers if an expectation was not met.
func (o AM335x) print(w io.Writer, carrier Carrier, list []boardJSON, want []expectation) error {
	var result error
	for i := range list {
		for _, e := range want {
			if s := e.check(&list[i].Report); s != "" {
				list[i].Mismatches = append(list[i].Mismatches, s)
				result = errDiffers
			}
		}
	}
	if o.JSON {
		if err := json.NewEncoder(w).Encode(struct {
			Event   string      `json:"event"`
			SoC     string      `json:"soc"`
			Carrier Carrier     `json:"carrier"`
			Boards  []boardJSON `json:"boards"`
		}{"sim", "am335x", carrier, list}); err != nil {
			return err
		}
		return result
	}
	for _, b := range list {
		fmt.Fprintf(w, "board on port %s: %s\n", b.Port, describe(&b.Report))
		for _, s := range b.Stages {
			printStage(w, s)
		}
		for _, v := range b.Violations {
			fmt.Fprintf(w, "  host mistake, %d times: %s\n", v.N, v.Text)
		}
		if b.LostIn+b.LostOut+b.Doubled > 0 {
			fmt.Fprintf(w, "  frames lost on purpose: %d to the board, %d from it; doubled: %d\n", b.LostIn, b.LostOut, b.Doubled)
		}
		for _, m := range b.Mismatches {
			fmt.Fprintf(w, "  NOT AS EXPECTED: %s\n", m)
		}
	}
	return result
}

func describe(r *am335x.Report) string {
	s := map[virtual.Outcome]string{
		virtual.Running:   "still on its way",
		virtual.Booted:    "it has its U-Boot",
		virtual.Stuck:     "stuck, " + r.Error,
		virtual.Unplugged: "unplugged before it had its U-Boot",
	}[r.Outcome]
	if r.Resets > 0 {
		s += fmt.Sprintf(" (%d power cycles)", r.Resets)
	}
	return s
}

func printStage(w io.Writer, s *am335x.Stage) {
	if s.Name == am335x.StageGadget {
		fmt.Fprintf(w, "  %-6s %s on the bus\n", s.Name, s.ID)
		return
	}
	if len(s.Data) == 0 {
		fmt.Fprintf(w, "  %-6s %s received nothing", s.Name, s.ID)
	} else {
		fmt.Fprintf(w, "  %-6s %s received %d bytes, SHA-256 %s\n", s.Name, s.ID, len(s.Data), s.SHA256())
		fmt.Fprintf(w, "         blocks of %d, window %d", s.BlockSize, s.Window)
	}
	fmt.Fprintf(w, "; link up %s, answered %s, last byte %s\n", after(s, s.LinkUp), after(s, s.Answered), after(s, s.LastByte))
	fmt.Fprintf(w, "         BOOTP requests: %d before the link was up, %d after it, %d of these unanswered; TFTP: %d repeated, %d received twice; begun again %d times\n",
		s.BOOTPBefore, s.BOOTPSent, s.BOOTPLost, s.Retries, s.Duplicates, s.Restarts)
	if s.Error != "" {
		fmt.Fprintf(w, "         %s\n", s.Error)
	}
}

// after is a time since the stage was plugged.
func after(s *am335x.Stage, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return fmt.Sprintf("after %.3f s", t.Sub(s.Plugged).Seconds())
}
