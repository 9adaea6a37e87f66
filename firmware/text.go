package firmware

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrTruncated is part of an error about a file that ends before what its headers announce.
var ErrTruncated = errors.New("truncated")

// maxText is how much of a string from a file goes into a message.
const maxText = 128

// printable makes a string from a file fit for a terminal: no control characters, bounded.
func printable(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
