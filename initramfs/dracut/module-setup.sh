#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# dracut.modules(7): what `flavourctl initramfs on` has put into each initramfs that is made from then on.

check() {
	[[ -e /etc/flavourd/initramfs ]]
}

depends() {
	return 0
}

install() {
	local lib=/usr/lib/flavourd
	"$lib/flavourd-initramfs" "${initdir:?}"
	inst_multiple readlink rm
	[[ ! -e $initdir/usr/lib/flavourd/pci-serial ]] || inst od
	inst_hook pre-udev 10 "${moddir:?}/flavourd-park.sh"
	inst_hook pre-pivot 90 "$moddir/flavourd-leave.sh"
}
