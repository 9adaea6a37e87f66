package inspect

import (
	"fmt"
	"strings"

	"snag/firmware"
)

// applet is an applet of SAM-BA, which is the whole file.
func (r *Report) applet() {
	a, err := firmware.ParseSAMBAApplet(r.data)
	r.problem(err)
	if a == nil {
		return
	}
	text := "SAM-BA applet"
	if a.Name != "" {
		text += fmt.Sprintf(" %q of softpack %s", a.Name, a.Version)
	}
	start := int(a.Entry - a.Load)
	body := program(start, r.data[start:])
	body.Text = "program"
	var presets []string
	for _, p := range a.Presets {
		presets = append(presets, fmt.Sprintf("%d (%s)", p.Number, p.Text))
	}
	if presets != nil {
		body.Text += ", presets " + strings.Join(presets, ", ")
	}
	body.Load, body.Entry = addr(a.Entry), addr(a.Entry)
	r.add(&Part{Kind: kindApplet, Text: text, Size: len(r.data), Load: addr(a.Load), Entry: addr(a.Load), Parts: []*Part{
		{Kind: kindMailbox, Text: "mailbox", Offset: 4, Size: 128}, body,
	}})
}
