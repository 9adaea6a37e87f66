// Package fastboot writes images to the storage of a device that speaks fastboot, with the client of usb/fastboot.
//
// [Partition], [MMC] and [MTD] are the targets: by "flash", of which [FlashSparse] is the part for images that are
// larger than the device's buffer, and by commands of U-Boot's that write from that buffer.
//
// Sources: U-Boot doc/android/fastboot.rst, drivers/fastboot, cmd/mmc.c, cmd/mtd.c, cmd/sf.c; Android's sparse images
// are package flash/sparse's.
package fastboot
