package imx

import (
	"bytes"
	"testing"
)

func TestMemory(t *testing.T) {
	var m Memory
	ctx := t.Context()
	data := bytes.Repeat([]byte{1, 2, 3}, 5000)
	if err := m.WriteMemory(ctx, 0x10000ffe, data); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data)+4)
	if err := m.ReadMemory(ctx, 0x10000ffc, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[2:len(got)-2], data) || got[0] != 0 || got[len(got)-1] != 0 {
		t.Error("read something else than was written")
	}
	m.Settle(0x10000ffe, 0xff0000ff, 0xaabbccdd)
	if err := m.ReadMemory(ctx, 0x10000ffe, got[:4]); err != nil || !bytes.Equal(got[:4], []byte{0xdd, 2, 3, 0xaa}) {
		t.Errorf("settled: % x, %v", got[:4], err)
	}
	if err := m.WriteMemory(ctx, 0xffffffff, []byte{1, 2}); err == nil {
		t.Error("wrote beyond 4 GiB")
	}
	if err := m.WriteMemory(ctx, 0xffffffff, []byte{1}); err != nil {
		t.Error(err)
	}
}
