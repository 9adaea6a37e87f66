package hid

import (
	"errors"
	"fmt"
	"maps"
)

// Reports are the sizes of a device's reports by report ID, in bytes, without the byte of the ID.
type Reports struct {
	// Numbered says that the descriptor uses report IDs: every report begins with a byte that is its ID. Otherwise
	// there is one report of each kind, under ID 0, which is not sent.
	Numbered bool

	Input, Output, Feature map[uint8]int
}

// Item prefixes without the size (HID 1.11, sections 6.2.2.4 and 6.2.2.7).
const (
	itemInput       = 0x80
	itemOutput      = 0x90
	itemFeature     = 0xb0
	itemReportSize  = 0x74
	itemReportID    = 0x84
	itemReportCount = 0x94
	itemPush        = 0xa4
	itemPop         = 0xb4

	itemLong = 0xfe
)

const (
	maxReport = 0xffff // wLength of GET_REPORT and SET_REPORT has 16 bits
	maxPushed = 16     // Linux allows 4
)

// ParseReports reads the sizes of the reports from a report descriptor (HID 1.11, section 6.2.2), a list of items:
//
//	short: prefix, 0, 1, 2 or 4 bytes of data, little-endian. Bits 1-0 of the prefix: size (3: four bytes);
//	       bits 3-2: type (0 main, 1 global, 2 local); bits 7-4: tag
//	long:  fe, size of the data, tag, data (section 6.2.2.3; none is defined)
//
// An input, output or feature item adds as many fields as the last report count says, each of as many bits as the last
// report size says, to the report of the last report ID. What the fields mean is left out.
func ParseReports(desc []byte) (Reports, error) {
	type global struct {
		size, count uint32
		id          uint8
	}
	var now global
	var pushed []global
	r := Reports{Input: make(map[uint8]int), Output: make(map[uint8]int), Feature: make(map[uint8]int)}
	for at := 0; at < len(desc); {
		prefix := desc[at]
		head, n := 1, []int{0, 1, 2, 4}[prefix&3]
		if prefix == itemLong {
			if at+3 > len(desc) {
				return Reports{}, fmt.Errorf("HID report descriptor: long item cut at byte %d", at)
			}
			head, n = 3, int(desc[at+1])
		}
		if at+head+n > len(desc) {
			return Reports{}, fmt.Errorf("HID report descriptor: item %#02x cut at byte %d", prefix, at)
		}
		data := desc[at+head : at+head+n]
		var value uint32
		if prefix != itemLong {
			for i, b := range data {
				value |= uint32(b) << (8 * i)
			}
		}
		var err error
		switch prefix &^ 3 {
		case itemReportSize:
			now.size = value
		case itemReportCount:
			now.count = value
		case itemReportID:
			if value == 0 || value > 255 {
				err = fmt.Errorf("report ID %d", value)
			}
			now.id, r.Numbered = uint8(value), true
		case itemPush:
			if len(pushed) == maxPushed {
				err = fmt.Errorf("more than %d pushes", maxPushed)
			}
			pushed = append(pushed, now)
		case itemPop:
			if len(pushed) == 0 {
				err = errors.New("pop without a push")
				break
			}
			now, pushed = pushed[len(pushed)-1], pushed[:len(pushed)-1]
		case itemInput:
			err = add(r.Input, now.id, now.size, now.count)
		case itemOutput:
			err = add(r.Output, now.id, now.size, now.count)
		case itemFeature:
			err = add(r.Feature, now.id, now.size, now.count)
		}
		if err != nil {
			return Reports{}, fmt.Errorf("HID report descriptor: at byte %d: %w", at, err)
		}
		at += head + n
	}
	for _, kind := range []map[uint8]int{r.Input, r.Output, r.Feature} {
		for id, bits := range maps.All(kind) {
			kind[id] = (bits + 7) / 8
		}
	}
	return r, nil
}

// add adds fields to a report, in bits.
func add(kind map[uint8]int, id uint8, size, count uint32) error {
	bits := uint64(kind[id]) + uint64(size)*uint64(count)
	if bits > maxReport*8 {
		return fmt.Errorf("report %d is longer than %d bytes", id, maxReport)
	}
	kind[id] = int(bits)
	return nil
}
