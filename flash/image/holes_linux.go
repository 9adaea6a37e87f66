package image

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// seek finds the stretch of data at or behind from. Where holes are unknown, on devices and some file systems, all is
// data.
func (s *fileSource) seek(from int64) error {
	conn, err := s.f.SyscallConn()
	if err != nil {
		return err
	}
	s.data, s.end = from, s.size
	var short error
	err = conn.Control(func(fd uintptr) {
		data, err := unix.Seek(int(fd), from, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			s.data = s.size
			// Behind the end is no hole: somebody has cut the file.
			var st unix.Stat_t
			if unix.Fstat(int(fd), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size < s.size {
				short = io.ErrUnexpectedEOF
			}
		}
		if err != nil {
			return
		}
		end, err := unix.Seek(int(fd), data, unix.SEEK_HOLE)
		if err == nil && data >= from && end > data {
			s.data, s.end = min(data, s.size), min(end, s.size)
		}
	})
	if err == nil {
		err = short
	}
	return err
}
