// Package firmware reads the images that boot ROMs and boot loaders are given.
//
// Each format has a parser over a byte slice. For all SoCs: [ParseUImage] (U-Boot's legacy image), [ParseFDT] and
// [ParseFIT] (flattened device trees, and the image tree that U-Boot builds on them). For TI's: [ParseMLO] (the headers
// that the ROMs want on memory cards). For NXP's i.MX: [FindIVT] with [ParseDCD] and [ParseCSF] (50 to 8M),
// [FindFlashHeader] (51 and before), [ParseContainers] and [FindContainers] (8Q, 8ULP, 9x), [ParseBootStream] (23, 28),
// [FlexSPIHeader] and [FindBurnTag] (what media have around them). For the families that boot over DFU and fastboot:
// [ParseSTM32] (STM32MP), [ParseFIP] (TF-A's package), [ParseTIImage] (the certificates of TI's K3), [ParseSPKG]
// (RZ/N1), [ParseZynqMP], which also takes the first stage out of a whole image, and [ParseELF]. For Allwinner's:
// [ParseEGON]. For Rockchip's maskroms: [ParseRockchipLoader] and [ParseRockchipIDBlock]. A parser checks every offset
// against the slice it was given, allocates nothing in proportion to a number it read, and verifies the checksums that
// the format has. [Identify] says in words what a file is, for the message that tells a user that it is in the wrong
// place.
//
// The package knows no SoC model and no USB: what a model accepts is its backend's to decide.
package firmware
