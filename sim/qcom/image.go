package qcom

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
)

// What a loader here keeps or takes at most, in bytes; of program headers in number.
const (
	maxHeaders = 64
	maxImage   = 256 << 20
	headSize   = 64
)

// load reads the image as a loader does: an ELF file's header, program headers, hash segment, segments; a header of 40
// or 80 bytes and what it announces. It ends with an image that can be started, or has told the host what is wrong.
func (s *session) load(ctx context.Context) error {
	head, err := s.ask(ctx, 0, headSize)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if string(head[:4]) == "\x7fELF" {
		return s.elf(ctx, head)
	}
	size, at := headSize-24, 16 // of an MBN header, and where its lengths are
	if le.Uint32(head) == 0x844bdcd1 && le.Uint32(head[4:]) == 0x73d71034 {
		size, at = 80, 28
	}
	whole, sum := uint64(le.Uint32(head[at:])), uint64(le.Uint32(head[at+4:]))+uint64(le.Uint32(head[at+12:]))+uint64(le.Uint32(head[at+20:]))
	if whole == 0 || whole != sum || whole > maxImage {
		return s.refuse(ctx, statusELF)
	}
	return s.skip(ctx, uint64(size), whole)
}

// skip reads bytes that nobody here looks at.
func (s *session) skip(ctx context.Context, offset, length uint64) error {
	_, err := s.digest(ctx, offset, length, sha256.New())
	return err
}

// digest reads bytes, in pieces, and digests them.
func (s *session) digest(ctx context.Context, offset, length uint64, sum hash.Hash) ([]byte, error) {
	for length > 0 {
		n := min(length, uint64(s.b.cfg.Piece))
		b, err := s.ask(ctx, offset, int(n))
		if err != nil {
			return nil, err
		}
		sum.Write(b)
		offset, length = offset+n, length-n
	}
	return sum.Sum(nil), nil
}

// header is a program header.
type header struct {
	kind, flags  uint32
	offset, size uint64
}

// elf loads an ELF file of 32 or 64 bits (System V gABI, chapters 4 and 5), little-endian.
func (s *session) elf(ctx context.Context, head []byte) error {
	le := binary.LittleEndian
	wide := head[4] == 2
	machine := le.Uint16(head[18:])
	if machine != 40 && machine != 183 { // ARM, 64-bit ARM
		return s.refuse(ctx, statusType)
	}
	table, each, count := uint64(le.Uint32(head[28:])), int(le.Uint16(head[42:])), int(le.Uint16(head[44:]))
	least := 32
	if wide {
		table, each, count = le.Uint64(head[32:]), int(le.Uint16(head[54:])), int(le.Uint16(head[56:]))
		least = 56
	}
	switch {
	case count == 0 || count > maxHeaders:
		return s.refuse(ctx, statusHeaders)
	case each != least:
		return s.refuse(ctx, statusHeaderSize)
	}
	raw, err := s.ask(ctx, table, each*count)
	if err != nil {
		return err
	}
	headers := make([]header, count)
	var all uint64
	for i := range headers {
		b := raw[i*each:]
		h := header{le.Uint32(b), le.Uint32(b[24:]), uint64(le.Uint32(b[4:])), uint64(le.Uint32(b[16:]))}
		if wide {
			h = header{le.Uint32(b), le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[32:])}
		}
		if h.size > maxImage || h.offset > maxImage {
			return s.refuse(ctx, statusHeaderSize)
		}
		all += h.size
		headers[i] = h
	}
	if all > maxImage {
		return s.refuse(ctx, statusHeaderSize)
	}
	digests, err := s.hashes(ctx, headers)
	if err != nil {
		return err
	}
	for i, h := range headers {
		if h.kind != 1 || h.size == 0 { // PT_LOAD
			continue
		}
		sum := sha256.New()
		if digests != nil && len(digests[i]) == sha512.Size384 {
			sum = sha512.New384()
		}
		got, err := s.digest(ctx, h.offset, h.size, sum)
		if err != nil {
			return err
		}
		if digests != nil && !bytes.Equal(got, digests[i]) {
			return s.refuse(ctx, statusHash)
		}
	}
	return nil
}

// hashes reads the hash segment, which bits 24 to 26 of a program header's flags give away, and returns a digest of
// each header's bytes; nil if there is no hash segment, or none that is known here. The words of its header are: 1
// version, 5 length of the table; in version 6 words 10 and 11, in version 7 words 2 to 4 are lengths of what is in
// front of the table, behind a header of 12 and 10 words.
func (s *session) hashes(ctx context.Context, headers []header) ([][]byte, error) {
	for _, h := range headers {
		if h.flags>>24&7 != 2 {
			continue
		}
		if h.size < 48 || h.size > 1<<20 {
			return nil, s.refuse(ctx, statusHashSize)
		}
		b, err := s.ask(ctx, h.offset, int(h.size))
		if err != nil {
			return nil, err
		}
		word := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(b[4*i:])) }
		at, size := uint64(40), word(5)
		switch word(1) {
		case 6:
			at = 48 + word(10) + word(11)
		case 7:
			at += word(2) + word(3) + word(4)
		}
		each := size / uint64(len(headers))
		switch {
		case at+size > uint64(len(b)):
			return nil, s.refuse(ctx, statusHashSize)
		case each != sha256.Size && each != sha512.Size384:
			return nil, nil
		}
		var digests [][]byte
		for i := range headers {
			digests = append(digests, b[at+uint64(i)*each:][:each])
		}
		return digests, nil
	}
	if s.b.cfg.Signed {
		return nil, s.refuse(ctx, statusNoHash)
	}
	return nil, nil
}
