//go:build linux

package usbfs

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"testing"
)

// TestNumbers compares the requests' numbers with those that a C compiler makes of the kernel's header, on machines
// with pointers of 8 bytes and of 4.
func TestNumbers(t *testing.T) {
	want := map[string][2]uint64{
		"reqSetInterface":     {0x80085504, 0x80085504},
		"reqSetConfiguration": {0x80045505, 0x80045505},
		"reqGetDriver":        {0x41045508, 0x41045508},
		"reqSubmitURB":        {0x8038550a, 0x802c550a},
		"reqDiscardURB":       {0x550b, 0x550b},
		"reqReapURB":          {0x4008550c, 0x4004550c},
		"reqReapURBNoDelay":   {0x4008550d, 0x4004550d},
		"reqClaim":            {0x8004550f, 0x8004550f},
		"reqRelease":          {0x80045510, 0x80045510},
		"reqDriver":           {0xc0105512, 0xc00c5512},
		"reqReset":            {0x5514, 0x5514},
		"reqClearHalt":        {0x80045515, 0x80045515},
		"reqDisconnect":       {0x5516, 0x5516},
		"reqConnect":          {0x5517, 0x5517},
		"reqCapabilities":     {0x8004551a, 0x8004551a},
		"reqDisconnectClaim":  {0x8108551b, 0x8108551b},
	}
	// Of struct usbdevfs_urb, by C's offsetof.
	offsets := [2][]int64{
		{0, 1, 4, 8, 16, 24, 28, 32, 36, 40, 44, 48},
		{0, 1, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40},
	}
	for arch, column := range map[string]int{"amd64": 0, "arm64": 0, "riscv64": 0, "arm": 1, "386": 1} {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, "ioctl.go", nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		sizes := types.SizesFor("gc", arch)
		pkg, err := (&types.Config{Sizes: sizes, Importer: noImports{}}).Check("usbfs", fset, []*ast.File{file}, nil)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, name := range pkg.Scope().Names() {
			c, ok := pkg.Scope().Lookup(name).(*types.Const)
			if !ok || len(name) < 4 || name[:3] != "req" {
				continue
			}
			found++
			if got, _ := constant.Uint64Val(c.Val()); got != want[name][column] {
				t.Errorf("%s: %s is %#x, expected %#x", arch, name, got, want[name][column])
			}
		}
		if found != len(want) {
			t.Errorf("%s: %d requests, expected %d", arch, found, len(want))
		}
		s := pkg.Scope().Lookup("urb").Type().Underlying().(*types.Struct)
		var fields []*types.Var
		for i := range s.NumFields() {
			fields = append(fields, s.Field(i))
		}
		for i, off := range sizes.Offsetsof(fields) {
			if off != offsets[column][i] {
				t.Errorf("%s: %s at %d, expected %d", arch, fields[i].Name(), off, offsets[column][i])
			}
		}
	}
}

// noImports has package unsafe only.
type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) {
	if path != "unsafe" {
		return nil, fmt.Errorf("ioctl.go imports %s", path)
	}
	return types.Unsafe, nil
}
