//go:build linux

package netboot

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// A reader that is used to quick answers waits where it does not hear of deadlines that are moved, nor of its socket's
// end, but not for long.
func TestSocketBrief(t *testing.T) {
	for _, tc := range []struct {
		name  string
		do    func(s *Socket) error // while a reader waits
		ahead time.Duration         // its deadline, before that
		want  error
	}{
		{"deadline", nil, 20 * time.Millisecond, os.ErrDeadlineExceeded},
		{"deadline within the brief wait", nil, brief / 2, os.ErrDeadlineExceeded},
		{"deadline moved", func(s *Socket) error { return s.SetReadDeadline(time.Unix(1, 0)) }, time.Hour, os.ErrDeadlineExceeded},
		{"deadline set", func(s *Socket) error { return s.SetReadDeadline(time.Unix(1, 0)) }, 0, os.ErrDeadlineExceeded},
		{"closed", (*Socket).Close, 0, net.ErrClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			s, err := Detach(c)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			client, err := net.Dial("udp4", s.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			b := make([]byte, 10)
			for !s.short { // one that is there already is as quick as can be
				if _, err := client.Write(b[:1]); err != nil {
					t.Fatal(err)
				}
				if _, _, err := s.ReadFromUDPAddrPort(b); err != nil {
					t.Fatal(err)
				}
			}
			begin := time.Now()
			if tc.ahead != 0 {
				if err := s.SetReadDeadline(begin.Add(tc.ahead)); err != nil {
					t.Fatal(err)
				}
			}
			if tc.do != nil {
				tc.ahead = 0
				time.AfterFunc(brief/4, func() {
					if err := tc.do(s); err != nil {
						t.Error(err)
					}
				})
			}
			ended := make(chan error, 1)
			go func() {
				_, _, err := s.ReadFromUDPAddrPort(b)
				ended <- err
			}()
			select {
			case err := <-ended:
				if took := time.Since(begin); !errors.Is(err, tc.want) || took < tc.ahead {
					t.Errorf("%v after %v, expected %v", err, took, tc.want)
				}
			case <-time.After(5 * time.Second):
				t.Error("it waits for ever")
				_, _ = client.Write(b[:1]) // else so does Close
			}
		})
	}
}
