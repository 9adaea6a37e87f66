package netboot

import (
	"fmt"

	"snag/event"
)

// kind is a kind of remark. Each is made a bounded number of times a server, whatever the board sends.
type kind int

const (
	kindIgnored kind = iota
	kindRequest
	kindName
	kindMode
	kindError
	kindRestart
	kindSilence
	kindSend
	kinds // how many there are

	maxSaid = 16 // remarks of one kind, unless said otherwise
)

// say reports whether a remark of this kind is still to be made, of so many.
func (s *server) say(k kind, most int) bool {
	s.said[k]++
	return s.said[k] <= most
}

// warn emits a warning that concerns a file's stage; f may be nil.
func (s *server) warn(f *File, k kind, format string, args ...any) {
	if !s.say(k, maxSaid) {
		return
	}
	text := fmt.Sprintf(format, args...)
	if s.said[k] == maxSaid {
		text += " (no more warnings of this kind)"
	}
	s.emit(f, event.Warning{Text: text})
}

func (s *server) debug(k kind, msg string, args ...any) {
	if s.say(k, maxSaid) {
		s.log.Debug(msg, args...)
	}
}

// ignore counts a datagram that is not acted upon.
func (s *server) ignore(protocol, why string, args ...any) {
	s.res.Ignored++
	s.debug(kindIgnored, protocol+": ignored: "+why, args...)
}

// lost counts a packet that a passing error kept from being sent.
func (s *server) lost(err error) {
	s.res.SendErrors++
	f := s.file
	if f == nil {
		f = s.offered
	}
	s.warn(f, kindSend, "a packet could not be sent, it will be repeated: %v", err)
}
