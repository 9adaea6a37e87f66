package plan

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"snag/internal/config"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
	"snag/usb/fastboot"
)

// maxSteps is what no plan comes near.
const maxSteps = 1000

// waitTime is how long the board may take to show what comes next: U-Boot may have its countdown before its gadget.
const waitTime = 60 * time.Second

// MaxFile bounds a file of steps, in bytes.
const MaxFile = 1 << 20

// Load reads a plan's file. The errors are *Errors, joined.
func Load(path string) (*Plan, error) {
	text, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Read reads a file of steps. Of one that is too long it returns more than [MaxFile] bytes, and not all.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// Parse parses a plan. name is its file's: paths in it are relative to where that is.
func Parse(name string, text []byte) (*Plan, error) {
	p := &parser{file: name, dir: filepath.Dir(name)}
	if len(text) > MaxFile {
		return nil, &Error{File: name, Err: fmt.Errorf("more than %d bytes", MaxFile)}
	}
	root, line, col, err := config.Document(text, "steps")
	if err != nil {
		return nil, &Error{name, line, col, err}
	}
	plan := p.plan(root)
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return plan, nil
}

func (p *parser) plan(root *yaml.Node) *Plan {
	plan := &Plan{Name: p.file}
	m := p.mapping(root, "a plan", "steps", "usb-path", "paths-relative-to")
	switch dir := m.text("paths-relative-to"); dir {
	case "", "THIS_FILE":
	case "CWD":
		p.dir = ""
	default:
		p.dir = dir
	}
	if s := m.text("usb-path"); s != "" {
		var err error
		if plan.Port, plan.ID, err = usb.ParseBoard(s); err != nil {
			p.fail(m.values["usb-path"], "usb-path: %v", err)
		}
	}
	steps := m.values["steps"]
	switch {
	case root.Kind != yaml.MappingNode:
	case steps == nil:
		p.fail(root, "a plan: steps are missing")
	case steps.Kind != yaml.SequenceNode:
		p.fail(steps, "steps: expected a list, found %s", describe(steps))
	case len(steps.Content) == 0:
		p.fail(steps, "steps: there is none")
	case len(steps.Content) > maxSteps:
		p.fail(steps, "steps: there are %d, expected at most %d", len(steps.Content), maxSteps)
	default:
		stdin := 0
		for _, n := range steps.Content {
			a := p.step(n)
			if src := source(a); src != nil && src.Image == "-" {
				if stdin++; stdin > 1 {
					p.fail(n, "image: standard input cannot be read twice")
				}
			}
			plan.Steps = append(plan.Steps, Step{n.Line, a})
		}
	}
	return plan
}

// source is the image that an action reads.
func source(a Action) *Source {
	switch a := a.(type) {
	case *Flash:
		return &a.Source
	case *Verify:
		return &a.Source
	}
	return nil
}

// stepKinds are the keys of steps.
var stepKinds = []string{"recover", "wait", "gpt", "flash", "verify", "uboot", "fastboot", "download", "reset", "note"}

// step parses one step; nil if it is none.
func (p *parser) step(n *yaml.Node) Action {
	kind, value := n, (*yaml.Node)(nil)
	if n.Kind == yaml.MappingNode {
		if len(n.Content) != 2 {
			p.fail(n, "a step has one of %s, found %d keys: is the one behind indented less than it should be?", strings.Join(stepKinds, ", "), len(n.Content)/2)
			return nil
		}
		kind, value = n.Content[0], n.Content[1]
		if value.Tag == "!!null" {
			value = nil
		}
	}
	if kind.Kind != yaml.ScalarNode {
		p.fail(n, "a step: expected one of %s, found %s", strings.Join(stepKinds, ", "), describe(n))
		return nil
	}
	parse := map[string]func(*yaml.Node) Action{
		"recover": p.recover, "wait": p.wait, "gpt": p.gpt, "flash": p.flash, "verify": p.verify, "uboot": p.uboot,
		"fastboot": p.command, "download": p.download, "note": p.note,
	}[kind.Value]
	switch {
	case kind.Value == "reset":
		return p.reset(value)
	case parse == nil:
		hint := "expected one of " + strings.Join(stepKinds, ", ")
		if near := socs.Nearest(kind.Value, stepKinds); len(near) > 0 {
			hint = "did you mean " + near[0] + "?"
		}
		p.fail(kind, "unknown step %q: %s", kind.Value, hint)
		return nil
	case value == nil:
		p.fail(kind, "%s: expected more behind it", kind.Value)
		return nil
	}
	return parse(value)
}

func (p *parser) recover(n *yaml.Node) Action {
	m := p.mapping(n, "recover", "soc", "firmware")
	a := &Recover{SoC: m.required("recover", "soc")}
	files := []*yaml.Node{m.values["firmware"]}
	if f := files[0]; f == nil {
		p.fail(n, "recover: firmware is missing: the file that snag recover -f takes")
		files = nil
	} else if f.Kind == yaml.SequenceNode {
		files = f.Content
	}
	for _, f := range files {
		if s, ok := scalar(f); ok && s != "" {
			a.Firmware = append(a.Firmware, p.path(s))
		} else {
			p.fail(f, "firmware: expected a file's name, or a list of them, found %s", describe(f))
		}
	}
	if a.SoC != "" {
		var err error
		if a.model, a.backend, err = recovery.Lookup(a.SoC); err != nil {
			p.fail(m.at("soc"), "soc: %v", err)
		}
	}
	return a
}

// short parses a step that may be a mere text, which is the value of a key.
func (p *parser) short(n *yaml.Node, what, key string, others ...string) *mapping {
	if n.Kind == yaml.ScalarNode {
		return &mapping{p, n, map[string]*yaml.Node{key: n}, map[string]*yaml.Node{key: n}}
	}
	m := p.mapping(n, what, append([]string{key}, others...)...)
	if n.Kind == yaml.MappingNode && !m.has(key) {
		p.fail(n, "%s: %s is missing", what, key)
	}
	return m
}

func (p *parser) wait(n *yaml.Node) Action {
	m := p.short(n, "wait", "for", "id", "timeout")
	a := &Wait{Timeout: m.duration("timeout", waitTime)}
	if s := m.text("for"); s != "" {
		for g, is := range gadgets {
			if is.name == s {
				a.For = g
			}
		}
		if a.For == None && s != None.String() {
			p.fail(m.values["for"], "wait for %q: expected fastboot, dfu, disk or anything", s)
		}
	}
	if s := m.text("id"); s != "" {
		var err error
		if a.ID, err = usb.ParseID(s); err != nil {
			p.fail(m.values["id"], "id: %v", err)
		}
	}
	return a
}

// imageKeys and targetKeys are those of flash and verify.
var (
	imageKeys  = []string{"image", "bmap", "no-bmap", "bmap-signature", "keyring", "as-is"}
	targetKeys = []string{
		string(ToFastboot), string(ToMMC), string(ToMTD), string(ToSF), string(ToDFU), string(ToDisk), string(ToFile),
		"offset", "address", "erase-block", "nor", "buffer", "buffer-size", "force",
	}
)

func (p *parser) image(m *mapping, what string) Source {
	src := Source{Image: p.path(m.required(what, "image"))}
	src.Bmap, src.NoBmap, src.AsIs = m.path("bmap"), m.bool("no-bmap"), m.bool("as-is")
	src.Signature, src.Keyring = m.path("bmap-signature"), m.path("keyring")
	return src
}

// Check finds options that do not go together. The errors begin with one of them.
func (src *Source) Check() error {
	switch {
	case src.NoBmap && (src.Bmap != "" || src.Keyring != ""):
		return errors.New("no-bmap, and something of a block map")
	case src.Signature != "" && src.Keyring == "":
		return errors.New("bmap-signature: without a keyring nothing is checked by it")
	}
	return nil
}

func (p *parser) target(m *mapping, what string) Target {
	var t Target
	for _, k := range Kinds {
		if !m.has(string(k)) {
			continue
		}
		if k == ToFile && t.Kind == ToDisk { // a file on it
			t.File = m.text(string(k))
			continue
		}
		if t.Kind != "" {
			p.fail(m.at(string(k)), "%s: %s and %s: one target", what, t.Kind, k)
			continue
		}
		name := m.text(string(k))
		if k == ToFile {
			name = p.path(name)
		}
		var err error
		if t, err = ParseTarget(k, name); err != nil && name != "" {
			p.fail(m.values[string(k)], "%v", err)
		}
		t.Kind = k
	}
	if t.Kind == "" {
		if m.node.Kind == yaml.MappingNode {
			p.fail(m.node, "%s: where? expected one of %s", what, kindNames())
		}
		return t
	}
	t.Offset, t.EraseBlock, t.BufferSize, t.Force = m.size("offset"), m.size("erase-block"), m.size("buffer-size"), m.bool("force")
	t.Address = m.size("address")
	t.Buffer, t.NOR = uint64(m.size("buffer")), m.bool("nor")
	return t
}

func (p *parser) flash(n *yaml.Node) Action {
	m := p.mapping(n, "flash", append(append([]string{}, imageKeys...), append(targetKeys, "verify")...)...)
	a := &Flash{Source: p.image(m, "flash"), To: p.target(m, "flash"), Verify: m.bool("verify")}
	if err := a.Check(); err != nil {
		p.fail(n, "flash: %v", err)
	}
	return a
}

func (p *parser) verify(n *yaml.Node) Action {
	m := p.mapping(n, "verify", append(append([]string{}, imageKeys...), targetKeys...)...)
	a := &Verify{Source: p.image(m, "verify"), On: p.target(m, "verify")}
	if err := errors.Join(a.Source.Check(), a.On.Check()); err != nil {
		p.fail(n, "verify: %v", err)
	} else if err := a.able(); err != nil {
		p.fail(m.at(string(a.On.Kind)), "verify: %v", err)
	}
	return a
}

func (p *parser) uboot(n *yaml.Node) Action {
	m := p.short(n, "uboot", "run", "timeout", "leave")
	a := &UBoot{Command: m.text("run"), Timeout: m.duration("timeout", 0), Leave: m.bool("leave")}
	if err := commandText(a.Command); err != nil {
		p.fail(m.at("run"), "run: %v", err)
	}
	if a.Leave && len(a.Command) > fastboot.MaxACmd {
		p.fail(m.at("run"), "run: a command of %d bytes that does not come back: U-Boot takes %d", len(a.Command), fastboot.MaxACmd)
	}
	if a.Leave && a.Timeout > 0 {
		p.fail(m.at("timeout"), "timeout: nobody waits for a command that does not come back; the step behind it has a wait of its own (wait:)")
	}
	return a
}

// maxCommand is what fastboot's USB gadget takes (U-Boot, drivers/usb/gadget/f_fastboot.c), without the word before it.
const maxCommand = 4000

func commandText(s string) error {
	if len(s) > maxCommand {
		return fmt.Errorf("a command of %d bytes, expected at most %d", len(s), maxCommand)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q: a command is one line, without control characters", s)
	}
	return nil
}

func (p *parser) command(n *yaml.Node) Action {
	m := p.short(n, "fastboot", "send", "timeout")
	a := &Command{Text: m.text("send"), Timeout: m.duration("timeout", 0)}
	if err := commandText(a.Text); err != nil {
		p.fail(m.at("send"), "send: %v", err)
	}
	if strings.HasPrefix(a.Text, "download:") {
		p.fail(m.at("send"), "send: %s: the step download does that", a.Text)
	}
	return a
}

func (p *parser) download(n *yaml.Node) Action {
	return &Download{File: p.short(n, "download", "file").path("file")}
}

func (p *parser) note(n *yaml.Node) Action {
	return &Note{Text: p.short(n, "note", "text").text("text")}
}

// resets are what a reset may lead to.
var resets = []string{"bootloader", "fastboot", "recovery", Continue, Detach}

func (p *parser) reset(n *yaml.Node) Action {
	a := &Reset{}
	if n == nil {
		return a
	}
	s, ok := scalar(n)
	for _, how := range resets {
		if s == how && ok {
			a.How = s
			return a
		}
	}
	p.fail(n, "reset: expected nothing more, or one of %s, found %s", strings.Join(resets, ", "), describe(n))
	return a
}
