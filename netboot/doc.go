// Package netboot serves one file to one board that boots over a network: it answers BOOTP and DHCP,
// and sends the file by TFTP.
//
// The clients are boot ROMs and boot loaders: the AM335x ROM (plain BOOTP, then TFTP in blocks of 512
// bytes with one block in flight), U-Boot's SPL, which speaks BOOTP or DHCP by its age, and U-Boot itself.
// One [Link] carries one board, so there is one transfer at a time; [Serve] answers until one file was
// fetched whole. What the board is to get is decided by the caller's Config.Pick.
//
// Specified in: RFC 951 and RFC 1542 (BOOTP), RFC 2131 and RFC 2132 (DHCP), RFC 1350 (TFTP), RFC 2347
// (TFTP options), RFC 2348 (blksize), RFC 2349 (timeout, tsize), RFC 7440 (windowsize), RFC 6298 (the
// retransmission timer).
//
// The pieces: bootp.go reads requests and makes replies, packet.go reads and makes TFTP packets,
// transfer.go is the state of one transfer (no I/O, no clock), conn.go puts packets on the wire, and
// server.go joins them to the sockets.
//
// All that comes from the board is taken to be hostile: memory, replies and events are bounded, and no
// name that it sends ever reaches a file system.
package netboot
