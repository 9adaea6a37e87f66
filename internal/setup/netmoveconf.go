package setup

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"snag/netsetup"
	"snag/usb"
)

// netmoveConf is the list of further USB IDs whose interfaces the helper moves.
const netmoveConf = netsetup.HelperConf

const netmoveConfHead = `# USB network devices that snag-netmove may move besides the boards that snag knows.
# One VID:PID a line, in hexadecimal. "sudo snag setup --usb VID:PID" adds a line here and the udev rules.
# Must belong to root and be writable by nobody else.
`

// parseNetmoveConf returns the IDs of a netmove.conf as the helper reads it: one VID:PID a line, four
// hexadecimal digits each; # begins a comment. The helper takes no list with a line that is
// anything else; such lines are returned as messages, numbered from 1.
func parseNetmoveConf(data []byte) (ids []usb.ID, bad []string) {
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		line = strings.Trim(line, " \t\r\n")
		if line == "" {
			continue
		}
		id, err := usb.ParseID(line)
		if err != nil || len(line) != len("0451:6141") {
			bad = append(bad, fmt.Sprintf("line %d: expected VID:PID, four hexadecimal digits each", n))
			continue
		}
		ids = append(ids, id)
	}
	return ids, bad
}

// mergeNetmoveConf returns old with the IDs that it lacks appended; every line of old stays as it is.
// Without an old file it is the head and the IDs.
func mergeNetmoveConf(old []byte, add []usb.ID) []byte {
	have, _ := parseNetmoveConf(old)
	var b bytes.Buffer
	if old == nil {
		b.WriteString(netmoveConfHead)
	}
	b.Write(old)
	if len(old) > 0 && old[len(old)-1] != '\n' {
		b.WriteByte('\n')
	}
	for _, id := range sortedIDs(add) {
		if !slices.Contains(have, id) {
			fmt.Fprintln(&b, id)
		}
	}
	return b.Bytes()
}

// untouchedNetmoveConf tells whether the file holds only what setup writes: its head and IDs.
func untouchedNetmoveConf(data []byte) bool {
	body, ok := strings.CutPrefix(string(data), netmoveConfHead)
	ids, bad := parseNetmoveConf([]byte(body))
	return ok && len(bad) == 0 && strings.Count(body, "\n") == len(ids)
}
