// Package firmware reads the images that boot ROMs and boot loaders are given.
//
// Each format has a parser over a byte slice: [ParseUImage] (U-Boot's legacy image), [ParseFDT] and
// [ParseFIT] (flattened device trees, and the image tree that U-Boot builds on them), [ParseMLO] (the
// headers that TI's ROMs want on memory cards). A parser checks every offset against the slice it
// was given, allocates nothing in proportion to a number it read, and verifies the checksums that
// the format has. [Identify] says in words what a file is, for the message that tells a user that
// it is in the wrong place.
//
// The package knows no SoC model and no USB: what a model accepts is its backend's to decide.
package firmware
