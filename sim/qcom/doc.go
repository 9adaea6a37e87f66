// Package qcom is a virtual board with a Qualcomm SoC in Emergency Download mode (EDL): its boot ROM asks its host for
// images by Qualcomm's Sahara protocol, and starts them.
//
//	ROM: image 13 (xbl) --> xbl, on the same USB session: image 5 (u-boot) --> leaves the bus --> U-Boot's gadget, if asked for
//	ROM: image 13 (a programmer) --> the programmer, which speaks Firehose: with Config.Single
//
// A [Board] with a [Config] is plugged into a port ([Board.Run]). What it knows of Sahara is in sahara.go, of the
// images, which it reads as a loader does and never executes, in image.go, and of Firehose, just enough to end it, in
// firehose.go. [Report] says what came. It shares nothing with snag's own backend and parsers.
//
// Sources: linux-msm/qdl, src/sahara.c, src/usb.c and src/firehose.c; Snagboot 3.0,
// snagrecover/protocols/qcom_sahara.py and recoveries/qcom.py, by Qualcomm; bkerler/edl,
// edlclient/Library/sahara_defs.py for the modes and the status codes; Linux, drivers/soc/qcom/mdt_loader.c and
// coreboot, util/cbfstool/platform_fixups.c for the images.
package qcom
