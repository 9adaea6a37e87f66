#!/bin/sh
# make demo: recovers a virtual BeagleBone Black with the programs just built.
set -eu
go=${GO:-go}
dir=bin/demo

echo "== Firmware"
$go run ./internal/lab/labtool firmware $dir
echo
echo "== snag recover --soc am335x -f $dir/board.yaml"
echo "   (beside a virtual board: its boot ROM, then SPL, as interfaces in a network namespace)"
echo
status=0
bin/snag sim am335x --carrier veth --expect-spl $dir/u-boot-spl.bin --expect-uboot $dir/u-boot.img \
	-- bin/snag recover --soc am335x -f $dir/board.yaml || status=$?
if [ $status -ne 0 ]; then
	echo "The demo failed. It needs network namespaces: root, or user namespaces for ordinary users" >&2
	echo "(Ubuntu: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0 for this demo)." >&2
	exit $status
fi
cat <<EOF

The board received byte for byte what the files hold, by the kernel's own network. What this does
not show: there was no USB, so no rndis_host and no udev, and a virtual board does not execute what
it receives. 'make test' adds a real USB stack, in a virtual machine.

With a real board (USB port, S2 held at power-on):

    sudo bin/snag setup          # once
    bin/snag recover --soc am335x -f $dir/board.yaml
EOF
