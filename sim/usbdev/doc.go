// Package usbdev models USB devices from the device's side, for virtual boards.
//
// The pieces:
//
//   - [Device] is what a carrier drives: descriptors, control transfers, bulk and interrupt
//     transfers. A carrier (vhci, USB/IP over TCP, an in-process host) implements [Port] and
//     translates its host's requests into calls of a Device.
//   - [Gadget] is the Device that most models use: it answers the standard requests of USB 2.0
//     chapter 9 from a [Descriptors] value, hands class and vendor requests to a [Function], and has
//     [InPipe] and [OutPipe] ends for the model to write to and read from, with USB's packet rules:
//     a transfer ends with a short packet or a full buffer.
//   - [Ethernet] is a Gadget whose function is a network adapter, RNDIS or CDC-ECM by
//     configuration. The model sees a [Link], a cable that carries whole Ethernet frames. A carrier
//     that has a network but no USB plugs into the other end of the Link and leaves USB out.
//
// A model of another kind of board (HID, DFU, mass storage, vendor bulk) writes its Descriptors and a
// Function; nothing else here needs to know of it.
package usbdev
