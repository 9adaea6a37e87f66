//go:build linux

package lab

import (
	"regexp"
	"strings"
)

// shadow has the VM's accounts that one can become with su: those of the host are
// not for an ordinary user to read.
const shadow = "root:*:20000:0:99999:7:::\nlabuser:*:20000:0:99999:7:::\n"

// taken matches a line of passwd(5) or group(5) with labuser's name or number.
var taken = regexp.MustCompile(`(?m)^(labuser:|[^:\n]*:[^:\n]*:1001:).*\n?`)

// addAccount returns the host's passwd and group files with labuser in them, alone
// with its name and number, and in the group plugdev.
func addAccount(passwd, group string) (string, string) {
	passwd = taken.ReplaceAllString(endLine(passwd), "") + "labuser:x:1001:1001:lab:/home/labuser:/bin/sh\n"
	group = taken.ReplaceAllString(endLine(group), "") + "labuser:x:1001:\n"
	var out strings.Builder
	found := false
	for line := range strings.Lines(group) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "plugdev:") {
			found = true
			if !strings.HasSuffix(line, ":") {
				line += ","
			}
			line += "labuser"
		}
		out.WriteString(line + "\n")
	}
	if !found {
		out.WriteString("plugdev:x:46:labuser\n")
	}
	return passwd, out.String()
}

// endLine ends a last line that has no end.
func endLine(s string) string {
	if s == "" || strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}
