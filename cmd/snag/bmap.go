package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"snag/flash/image"
	"snag/internal/ui"
	"snag/recovery"
)

func newBmap() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bmap",
		Short: "Create and verify block maps of disk images",
		Long: `A block map says which blocks of a disk image hold data, with checksums of them:
whoever writes the image writes only these. snag and bmaptool read each other's.
docs/flash.md has the formats of images that are read.`,
		Args: subcommands,
		RunE: showHelp,
	}
	cmd.AddCommand(newBmapCreate(), newBmapVerify())
	return cmd
}

func newBmapCreate() *cobra.Command {
	var output string
	var o image.MapOptions
	var asIs bool
	cmd := &cobra.Command{
		Use:   "create IMAGE",
		Short: "Write the block map of an image",
		Long: `Writes the block map of an image: what is no hole of a sparse file, and what an
Android sparse image says something of. A compressed image and one that was copied
without its holes have none; --zeros finds the blocks that are zeros instead.`,
		Example: `  snag bmap create -o disk.bmap disk.img
  snag bmap create --zeros -o disk.bmap disk.img.zst
  snag bmap create - < disk.img > disk.bmap`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := image.Open(cmd.Context(), args[0], image.Options{NoBmap: true, AsIs: asIs})
			if err != nil {
				return refused(err)
			}
			if st, err := os.Stat(output); err == nil && im.From(st) {
				im.Close()
				return usage(cmd, fmt.Errorf("--output %s: this is the image itself", output))
			}
			m, err := image.CreateMap(cmd.Context(), im, o)
			if err != nil {
				return refused(err)
			}
			b, err := m.Encode()
			if err != nil {
				return err
			}
			if m.Mapped() == m.ImageSize && !o.Zeros {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: all of %s is mapped: if it was a sparse file once, its holes got lost; --zeros finds blocks of zeros\n", ui.Printable(args[0]))
			}
			if output == "" {
				_, err = cmd.OutOrStdout().Write(b)
				return err
			}
			return os.WriteFile(output, b, 0o666)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&output, "output", "o", "", "`file` to write; standard output if none is given")
	fl.BoolVar(&o.NoChecksums, "no-checksum", false, "leave out all checksums")
	fl.BoolVar(&o.Zeros, "zeros", false, "leave out blocks that are zeros, though they may have to be so on the medium")
	fl.BoolVar(&asIs, "as-is", false, "map the file's own bytes, whatever its format")
	return cmd
}

func newBmapVerify() *cobra.Command {
	var o image.Options
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Check an image against its block map",
		Long: `Reads an image, a URL or a device, and compares every range of its block map with
the checksum there. The block map is the one beside the image (disk.img.zst.bmap,
disk.img.bmap, disk.bmap) or that of --bmap. With --keyring it must be signed, in
itself or by a file beside it (.asc, .sig), by one of the keyring's keys.

The exit code is 5 if anything is not as the map says.`,
		Example: `  snag bmap verify disk.img.zst
  snag bmap verify --bmap disk.bmap /dev/sdX     what a medium really holds
  snag bmap verify --keyring release.gpg https://host/disk.img.zst`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			im, err := image.Open(cmd.Context(), args[0], o)
			if err != nil {
				return refused(err)
			}
			if im.Map == nil {
				im.Close()
				return &exitError{recovery.ExitFirmware, fmt.Errorf("%s: there is no block map beside it (--bmap says where it is)", im.Name)}
			}
			if err := image.Verify(cmd.Context(), im, nil); err != nil {
				return refused(err)
			}
			checked := 0
			for _, r := range im.Map.Ranges {
				if r.Sum != nil {
					checked++
				}
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s: %d of %d bytes mapped by %s, %d of %d ranges have checksums, all right\n",
				ui.Printable(im.Name), im.Mapped(), im.Size, ui.Printable(im.MapName), checked, len(im.Map.Ranges))
			if im.Signer != "" {
				fmt.Fprintf(out, "signed by %s\n", im.Signer)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.Bmap, "bmap", "", "`file` or URL of the block map")
	fl.StringVar(&o.Keyring, "keyring", "", "`file` of OpenPGP keys (gpg --export), one of which must have signed the block map")
	fl.StringVar(&o.Signature, "signature", "", "`file` or URL of the block map's signature")
	return cmd
}
