package usb

import "testing"

func TestParsePort(t *testing.T) {
	for _, s := range []string{"1-1", "1-2.3", "12-1.2.3.4.5.6", "255-255"} {
		if p, err := ParsePort(s); err != nil || string(p) != s {
			t.Errorf("ParsePort(%q) = %q, %v", s, p, err)
		}
	}
	for _, s := range []string{"", "1", "1-", "-1", "0-1", "1-0", "1-256", "1-01", "1-+1", "1-1.", "1-1..2", "1-a", "1-1/..", "1-1.2.3.4.5.6.7", " 1-1", "1-1:1.0"} {
		if p, err := ParsePort(s); err == nil {
			t.Errorf("ParsePort(%q) = %q, want an error", s, p)
		}
	}
}

func TestParseID(t *testing.T) {
	for s, want := range map[string]string{"0451:6141": "0451:6141", "451:D022": "0451:d022", "0:1": "0000:0001"} {
		if id, err := ParseID(s); err != nil || id.String() != want {
			t.Errorf("ParseID(%q) = %v, %v, want %s", s, id, err, want)
		}
	}
	for _, s := range []string{"", ":", "0451", "0451:", ":6141", "0451:16141", "0x451:6141", "+451:6141", "0451:6141:1", "04 1:6141", "0:0", "0000:0000"} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %v, want an error", s, id)
		}
	}
}
