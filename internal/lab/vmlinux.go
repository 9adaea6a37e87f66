//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// compressions are what a kernel's payload may be packed with, known by their first
// bytes, and the programs that unpack them.
var compressions = []struct {
	magic   string
	program string
	trailer int // bytes after the packed data: its unpacked size
}{
	{"\xfd7zXZ\x00", "xz", 4},
	{"\x28\xb5\x2f\xfd", "zstd", 4},
	{"\x02\x21\x4c\x18", "lz4", 4},
	{"\x1f\x8b", "gzip", 0},
}

// packers are the packages that the programs which unpack kernels and modules come in: a
// minimal system has none but gzip.
var packers = map[string]string{"xz": "xz-utils", "zstd": "zstd", "lz4": "lz4", "gzip": "gzip"}

// vmlinux returns the uncompressed kernel among the unpacked packages of one, nil if
// QEMU cannot boot that (it can if the kernel was built with CONFIG_PVH).
func (c *cache) vmlinux(ctx context.Context, parts []string) []byte {
	var pvh bool
	var image string
	for _, part := range parts {
		configs, _ := filepath.Glob(filepath.Join(part, "boot", "config-*"))
		for _, file := range configs {
			config, err := os.ReadFile(file)
			pvh = pvh || err == nil && bytes.Contains(config, []byte("\nCONFIG_PVH=y\n"))
		}
		if images, _ := filepath.Glob(filepath.Join(part, "boot", "vmlinuz-*")); len(images) > 0 {
			image = images[0]
		}
	}
	if !pvh {
		return nil
	}
	b, err := os.ReadFile(image)
	if err == nil {
		b, err = c.uncompress(ctx, b)
	}
	if err != nil {
		c.log("booting will be slower: %v", err)
		return nil
	}
	return b
}

// uncompress returns the ELF kernel within a bzImage. QEMU enters that directly; the
// image would spend half of the boot on unpacking itself in the emulator. The header
// is little endian (Documentation/arch/x86/boot.rst):
//
//	offset  length  what
//	0x1f1   1       sectors of 512 bytes before the main part, less one; 0 means 4
//	0x202   4       "HdrS"
//	0x248   4       where the packed kernel starts in the main part
//	0x24c   4       its length
func (c *cache) uncompress(ctx context.Context, image []byte) ([]byte, error) {
	if len(image) < 0x250 || string(image[0x202:0x206]) != "HdrS" {
		return nil, errors.New("no bzImage")
	}
	sectors := int64(image[0x1f1])
	if sectors == 0 {
		sectors = 4
	}
	start := (sectors+1)*512 + int64(binary.LittleEndian.Uint32(image[0x248:]))
	end := start + int64(binary.LittleEndian.Uint32(image[0x24c:]))
	if end > int64(len(image)) {
		return nil, fmt.Errorf("bzImage: its payload ends at %d, the image at %d", end, len(image))
	}
	payload := image[start:end]
	for _, packed := range compressions {
		if !bytes.HasPrefix(payload, []byte(packed.magic)) || len(payload) < packed.trailer {
			continue
		}
		unpack, err := c.tool(ctx, packed.program, packers[packed.program])
		if err != nil {
			return nil, err
		}
		cmd := unpack.command(ctx, "-dcq")
		cmd.Stdin = bytes.NewReader(payload[:len(payload)-packed.trailer])
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", packed.program, err)
		}
		if !bytes.HasPrefix(out, []byte("\x7fELF")) {
			return nil, errors.New("bzImage: its payload is no ELF file")
		}
		return out, nil
	}
	return nil, fmt.Errorf("bzImage: unknown compression % x", payload[:min(4, len(payload))])
}
