package inspect

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"snag/firmware/firmwaretest"
)

// TestSignedInFIT makes what sysfw.itb and the signed tispl.bin are: a FIT whose images have TI's certificates in
// front.
func TestSignedInFIT(t *testing.T) {
	for tool, pkg := range map[string]string{"mkimage": "u-boot-tools", "dtc": "device-tree-compiler"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s (Debian package %s)", tool, pkg)
		}
	}
	dir := t.TempDir()
	signed := firmwaretest.TISigned(firmwaretest.Pattern(700))
	for name, b := range map[string][]byte{
		"sysfw.bin": signed, "damaged.bin": firmwaretest.Damage(signed, len(signed)-1),
		"sysfw.its": []byte(`/dts-v1/;
/ {
	description = "SYSFW and Config fragments";
	#address-cells = <1>;
	images {
		sysfw.bin { description = "sysfw"; data = /incbin/("sysfw.bin"); type = "firmware"; arch = "arm"; compression = "none"; };
		board-cfg.bin { description = "board-cfg"; data = /incbin/("damaged.bin"); type = "firmware"; arch = "arm"; compression = "none"; };
	};
};
`)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "mkimage", "-f", "sysfw.its", "sysfw.itb")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r, err := File(filepath.Join(dir, "sysfw.itb"))
	if err != nil || len(r.Parts) != 1 || len(r.Parts[0].Parts) != 3 || len(r.Problems) != 1 {
		t.Fatalf("%v, %+v", err, r)
	}
	for n, want := range []Result{OK, Bad} {
		img := r.Parts[0].Parts[n+1]
		if len(img.Parts) != 1 || img.Parts[0].Kind != kindTI || img.Parts[0].Offset != img.Offset {
			t.Fatalf("%+v", img)
		}
		if c := img.Parts[0].Parts[1].Checks; len(c) != 1 || c[0] != (Check{"sha512", want}) {
			t.Errorf("%+v", c)
		}
	}
}
