package uuu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"snag/event"
	"snag/event/progress"
	"snag/usb"
	"snag/usb/fastboot"
)

// The commands of U-Boot's fastboot (libuuu/fastboot.cpp).

// commandTime is how long U-Boot may be silent over a command if the line does not say: uuu waits for 10 s, and once
// more.
const commandTime = 20 * time.Second

// fastbootCommand parses FB's commands; ok is false if there is none of that name.
func (s *Script) fastbootCommand(name string, w word, text string) (c command, ok bool, err error) {
	rest := tail(text, w)
	words := func(min, max int, what string) ([]word, error) {
		o, err := parseOptions(w, text, nil)
		if err == nil {
			err = o.words(min, max, what)
		}
		if err != nil {
			return nil, err
		}
		return o.rest, nil
	}
	whole := func(c command, what string) (command, bool, error) {
		if rest == "" {
			return nil, true, w.errorf("%s: expected %s", w.text, what)
		}
		return c, true, nil
	}
	switch name {
	case "ucmd":
		return whole(uboot(rest), "a command of U-Boot")
	case "acmd":
		if len(rest) > fastboot.MaxACmd && !strings.Contains(rest, "@") {
			return nil, true, w.errorf("acmd: a command of %d bytes, U-Boot takes %d", len(rest), fastboot.MaxACmd)
		}
		return whole(later(rest), "a command of U-Boot")
	case "getvar":
		v, err := words(1, 1, "a variable's name")
		if err != nil {
			return nil, true, err
		}
		return getvar(v[0].text), true, nil
	case "download":
		o, err := parseOptions(w, text, map[string]bool{"-f": true})
		if err == nil {
			err = o.words(0, 0, "-f FILE")
		}
		if err == nil && !o.has("-f") {
			err = w.errorf("download: expected -f FILE")
		}
		if err != nil {
			return nil, true, err
		}
		return download{o.value["-f"].text}, true, s.files.check(o.value["-f"])
	case "flash":
		c, err = s.flashCommand(w, text)
		return c, true, err
	case "write", "crc":
		c, err = s.piecesCommand(name == "crc", w, text)
		return c, true, err
	case "erase", "set_active", "delete-logical-partition":
		v, err := words(1, 1, "one name")
		if err != nil {
			return nil, true, err
		}
		c := plain{name + ":" + v[0].text, 0}
		if name == "erase" {
			c.patience = eraseTime
		}
		return c, true, nil
	case "oem", "flashing":
		return whole(plain{name + " " + rest, 0}, "a command")
	case "reboot", "boot", "continue":
		return s.leaveCommand(name, w, text)
	case "reboot-bootloader", "reboot-fastboot", "reboot-recovery":
		return leave(name), true, nil
	case "create-logical-partition", "resize-logical-partition":
		v, err := words(2, 2, "a partition and its size")
		if err != nil {
			return nil, true, err
		}
		n, err := v[1].number(32)
		return plain{fmt.Sprintf("%s:%s:%08x", name, v[0].text, n), 0}, true, err
	case "update-super":
		v, err := words(1, 2, "a partition, and wipe")
		if err != nil {
			return nil, true, err
		}
		option := ""
		if len(v) == 2 {
			option = v[1].text
		}
		return plain{"update-super:" + v[0].text + ":" + option, 0}, true, nil
	case "upload":
		return nil, true, w.errorf("upload: only NXP's U-Boot knows it, for 128 KiB at most: not taken (docs/uuu.md)")
	}
	if slot, found := strings.CutPrefix(name, "set_active:"); found && slot != "" {
		return plain{"set_active:" + slot, 0}, true, nil
	}
	return nil, false, nil
}

// eraseTime is how long erasing may take: U-Boot is silent meanwhile.
const eraseTime = 10 * time.Minute

// patience is how long the device may be silent over the line's command: what [-t] says, or def.
func (x *session) patience(def time.Duration) time.Duration {
	if x.line.Timeout > 0 {
		return x.line.Timeout
	}
	return def
}

// open takes the board's fastboot interface.
func (x *session) open(ctx context.Context) (*fastboot.Client, error) {
	if x.client != nil {
		return x.client, nil
	}
	short, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	// The table knows the device by its ID, so a class that is not quite fastboot's will do, as it does for uuu.
	wire, err := fastboot.OpenUSB(short, x.stage.USB, true)
	if err != nil {
		return nil, err
	}
	x.wire, x.client = wire, fastboot.New(wire)
	x.client.Info = func(s string) { x.emit(event.Note{Text: s}) }
	return x.client, nil
}

// do sends a command and returns the device's answer.
func (x *session) do(ctx context.Context, command string, patience time.Duration) (string, error) {
	c, err := x.open(ctx)
	if err != nil {
		return "", err
	}
	return c.Do(ctx, command, x.patience(patience))
}

// plain is a command that is sent as it is.
type plain struct {
	text     string
	patience time.Duration
}

func (c plain) sends(*Script) []string { return []string{c.text} }

func (c plain) run(ctx context.Context, x *session) error {
	patience := c.patience
	if patience == 0 {
		patience = commandTime
	}
	_, err := x.do(ctx, c.text, patience)
	return err
}

// uboot is "ucmd".
type uboot string

func (c uboot) sends(*Script) []string { return []string{"UCmd:" + string(c)} }

func (c uboot) run(ctx context.Context, x *session) error {
	client, err := x.open(ctx)
	if err != nil {
		return err
	}
	return client.Run(ctx, string(c), x.patience(commandTime))
}

// later is "acmd": U-Boot answers, and then runs the command, which may never come back.
type later string

func (c later) sends(*Script) []string { return []string{"ACmd:" + string(c)} }

func (c later) run(ctx context.Context, x *session) error {
	if len(c) > fastboot.MaxACmd {
		return fmt.Errorf("a command of %d bytes, U-Boot takes %d", len(c), fastboot.MaxACmd)
	}
	_, err := x.do(ctx, "ACmd:"+string(c), commandTime)
	if ctx.Err() == nil && (errors.Is(err, usb.ErrGone) || errors.Is(err, usb.ErrProtocol)) {
		return nil // it was quick
	}
	return err
}

// getvar is "getvar": what it returns is @NAME@ of later ifs.
type getvar string

func (c getvar) sends(*Script) []string { return []string{"getvar:" + string(c)} }

func (c getvar) run(ctx context.Context, x *session) error {
	v, err := x.do(ctx, "getvar:"+string(c), 5*time.Second)
	if err != nil {
		return err
	}
	x.variables[strings.ToUpper(string(c))] = strings.ToUpper(v)
	x.emit(event.Note{Text: fmt.Sprintf("%s is %s", string(c), v)})
	return nil
}

// leave is a command after which the board does something else.
type leave string

func (s *Script) leaveCommand(name string, w word, text string) (command, bool, error) {
	o, err := parseOptions(w, text, nil)
	if err == nil {
		most := 0
		if name == "reboot" {
			most = 1
		}
		err = o.words(0, most, "bootloader, fastboot, recovery or nothing")
	}
	if err != nil {
		return nil, true, err
	}
	if len(o.rest) == 1 {
		switch t := o.rest[0].text; t {
		case "bootloader", "fastboot", "recovery":
			name += "-" + t
		default:
			return nil, true, o.rest[0].errorf("reboot %s: expected bootloader, fastboot, recovery or nothing", t)
		}
	}
	return leave(name), true, nil
}

func (c leave) sends(*Script) []string { return []string{string(c)} }

func (c leave) run(ctx context.Context, x *session) error {
	client, err := x.open(ctx)
	if err != nil {
		return err
	}
	switch c {
	case "boot":
		return client.Boot(ctx)
	case "continue":
		return client.Continue(ctx)
	}
	return client.Reboot(ctx, strings.TrimPrefix(strings.TrimPrefix(string(c), "reboot"), "-"))
}

// download is "download".
type download struct{ file string }

func (c download) sends(s *Script) []string {
	return []string{downloadText(s.size(c.file), c.file)}
}

// downloadText is what a download of so many bytes is shown as.
func downloadText(n int64, what string) string {
	if n < 0 {
		return "download: of " + what
	}
	return fmt.Sprintf("download:%08x and the bytes of %s", n, what)
}

// size is a file's; -1 if only its end will tell.
func (s *Script) size(name string) int64 {
	if info, err := os.Stat(s.files.path(name)); err == nil && !info.Mode().IsRegular() {
		return -1
	}
	c, err := s.files.open(name)
	if err != nil {
		return -1
	}
	defer c.Close()
	return c.size
}

func (c download) run(ctx context.Context, x *session) error {
	return x.download(ctx, c.file)
}

// download sends a file to U-Boot's buffer.
func (x *session) download(ctx context.Context, name string) error {
	client, err := x.open(ctx)
	if err != nil {
		return err
	}
	if client.Limit == 0 {
		if _, err := client.MaxDownload(ctx); err != nil {
			return err
		}
	}
	f, err := x.script.files.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	size := f.size
	if size < 0 {
		limit := client.Limit
		if limit <= 0 || limit > maxWhole {
			limit = maxWhole
		}
		b, err := x.script.files.read(name, limit)
		if err != nil {
			return err
		}
		r, size = bytes.NewReader(b), int64(len(b))
	}
	t := x.begin(name, size)
	if err := client.Download(ctx, r, size, t.At); err != nil {
		return err
	}
	t.Done()
	return nil
}

// begin begins to send a file.
func (x *session) begin(file string, total int64) *progress.Transfer[int64] {
	emit := func(_ string, body event.Body) { x.emit(body) }
	return progress.Begin(emit, x.device.proto.stage(), file, total)
}
