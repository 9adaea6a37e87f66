package plan

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"snag/flash"
	"snag/flash/block"
	"snag/flash/gpt"
	"snag/flash/image"
	"snag/recovery"
)

// GPT writes a partition table.
type GPT struct {
	On         Target // mmc, or a disk
	Partitions []Partition
}

// Partition is an entry of the table.
type Partition struct {
	Name     string
	Start    int64  // bytes; 0: behind the one before
	Size     int64  // bytes; -1: what is left
	Type     string // a GUID, or a word that U-Boot knows (linux, system, ...)
	UUID     string
	Bootable bool
}

func (a *GPT) String() string {
	var names []string
	for _, p := range a.Partitions {
		names = append(names, p.Name)
	}
	return fmt.Sprintf("gpt on %s: %s", a.On, strings.Join(names, ", "))
}

func (a *GPT) run(ctx context.Context, x *session) error {
	if a.On.Kind == ToDisk {
		return a.toDisk(ctx, x)
	}
	c, err := x.fastboot(ctx)
	if err != nil {
		return err
	}
	return c.WriteGPT(ctx, a.On.Device, a.uboot())
}

// toDisk lays the table out for the disk as large as it is, and writes it.
func (a *GPT) toDisk(ctx context.Context, x *session) error {
	d, err := block.Open(ctx, x.disk(a.On))
	if err != nil {
		return err
	}
	defer d.Close()
	var parts []gpt.Partition
	for _, p := range a.Partitions {
		parts = append(parts, gpt.Partition{Name: p.Name, Start: p.Start, Size: p.Size, Type: p.guid(), UUID: parseGUID(p.UUID), Bootable: p.Bootable})
	}
	table, err := gpt.New(d.Size, d.Block(), parts, rand.Reader)
	if err != nil {
		return &recovery.UsageError{Err: fmt.Errorf("%s: %w", d, err)}
	}
	b, err := table.Sparse()
	if err != nil {
		return err
	}
	im, err := image.New(ctx, "the partition table", bytes.NewReader(b), image.Options{})
	if err != nil {
		return err
	}
	return d.Write(ctx, im, flash.Options{})
}

// guid is the partition's type; zero: none was named.
func (p *Partition) guid() gpt.GUID {
	if g, ok := gpt.Types[p.Type]; ok {
		return g
	}
	return parseGUID(p.Type)
}

// parseGUID is a GUID whose form was looked at before; zero if there is none.
func parseGUID(s string) gpt.GUID {
	g, _ := gpt.ParseGUID(s)
	return g
}

func (a *GPT) gadget() Gadget              { return a.On.gadget() }
func (a *GPT) check(context.Context) error { return nil }

// isTypeWord reports whether U-Boot may know a word as a type.
func isTypeWord(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, lowerCase+digits+"-") == ""
}

// isGUID reports whether a text is one.
func isGUID(s string) bool { _, err := gpt.ParseGUID(s); return err == nil }

func (p *parser) gpt(n *yaml.Node) Action {
	m := p.mapping(n, "gpt", string(ToMMC), string(ToDisk), "partitions", "force")
	a := &GPT{On: p.target(m, "gpt")}
	if k := a.On.Kind; k != "" && k != ToMMC && k != ToDisk { // which m has refused as a key
		return a
	}
	if a.On.Partition != "" || a.On.Hardware != 0 {
		p.fail(m.at(string(a.On.Kind)), "gpt: %s: a table is of a whole device", a.On)
	}
	list := m.values["partitions"]
	switch {
	case list == nil:
		p.fail(n, "gpt: partitions are missing")
		return a
	case list.Kind != yaml.SequenceNode || len(list.Content) == 0 || len(list.Content) > gpt.Entries:
		p.fail(list, "partitions: expected a list of 1 to %d, found %s", gpt.Entries, describe(list))
		return a
	}
	var names []string
	end := int64(0) // of the partition before
	for i, entry := range list.Content {
		e := p.mapping(entry, "a partition", "name", "start", "size", "type", "uuid", "bootable")
		part := Partition{Name: e.required("a partition", "name"), Start: e.size("start"), Type: e.text("type"), UUID: e.text("uuid"), Bootable: e.bool("bootable")}
		switch s := e.required("a partition", "size"); {
		case s == "-":
			if part.Size = -1; i != len(list.Content)-1 {
				p.fail(e.values["size"], "size: only the last partition has what is left")
			}
		case s != "":
			if part.Size = e.size("size"); part.Size == 0 {
				p.fail(e.values["size"], "size: expected more than nothing")
			}
		}
		if part.Name != "" && (!isUName(part.Name) || len(part.Name) > 36) {
			p.fail(e.values["name"], "name %q: expected up to 36 letters, digits and _.+-", part.Name)
		}
		if slices.Contains(names, part.Name) {
			p.fail(e.at("name"), "name %q: there is one of that name already", part.Name)
		}
		names = append(names, part.Name)
		if part.UUID != "" && !isGUID(part.UUID) {
			p.fail(e.values["uuid"], "uuid %q: expected a GUID", part.UUID)
		}
		if part.Type != "" && !isGUID(part.Type) && !isTypeWord(part.Type) {
			p.fail(e.values["type"], "type %q: expected a GUID, or a word that U-Boot knows, such as linux", part.Type)
		}
		if _, known := gpt.Types[part.Type]; a.On.Kind == ToDisk && part.Type != "" && !known && !isGUID(part.Type) {
			p.fail(e.values["type"], "type %q: expected a GUID, linux, efi, swap or data", part.Type)
		}
		if part.Start%512 != 0 || part.Size > 0 && part.Size%512 != 0 {
			p.fail(entry, "partition %s: start and size are whole blocks of 512 bytes", part.Name)
		}
		if part.Start > 0 && part.Start < end {
			p.fail(e.values["start"], "start: the partition before goes up to %#x", end)
		}
		end = max(part.Start, end) + max(part.Size, 0)
		a.Partitions = append(a.Partitions, part)
	}
	return a
}

// uboot is the table as U-Boot's command gpt takes it (doc/README.gpt; cmd/gpt.c).
func (a *GPT) uboot() string {
	var b strings.Builder
	for _, p := range a.Partitions {
		fmt.Fprintf(&b, "name=%s", p.Name)
		if p.Start > 0 {
			fmt.Fprintf(&b, ",start=%#x", p.Start)
		}
		if p.Size < 0 {
			b.WriteString(",size=-")
		} else {
			fmt.Fprintf(&b, ",size=%#x", p.Size)
		}
		if p.Bootable {
			b.WriteString(",bootable")
		}
		if p.UUID != "" {
			b.WriteString(",uuid=" + p.UUID)
		}
		if p.Type != "" {
			b.WriteString(",type=" + p.Type)
		}
		b.WriteByte(';')
	}
	return b.String()
}
