#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds the out-of-tree modules inside the builder chroot (see image.py).
# usage: modules.sh BUILDER.TAR OUT.TAR SOURCE-DIRECTORY...
set -eux
builder=$1 out=$2
shift 2

root=$(mktemp -d "$out.XXXXXX")
cleanup() {
	# Lazily: in a user namespace the mounts below these may not be taken away one by one.
	umount -l "$root/dev" "$root/proc" 2>/dev/null || true
	rm -rf --one-file-system "$root"
}
trap cleanup EXIT
tar -xf "$builder" -C "$root" --exclude './dev/*'
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
cp -r "$@" "$root/build/"

# shellcheck disable=SC2016 # expanded inside the chroot
chroot "$root" sh -eux -c '
kernel=$(ls /lib/modules)
mkdir -p "/out/usr/lib/modules/$kernel/updates"
for source in /build/*/; do
	# Debian ships no pahole with the headers, hence no BTF.
	make -C "/lib/modules/$kernel/build" M="$source" CONFIG_VIRTIO_VFIO_PCI=m CONFIG_DEBUG_INFO_BTF_MODULES= modules
	for module in "$source"*.ko; do
		strip -g -o "/out/usr/lib/modules/$kernel/updates/$(basename "$module" | tr - _)" "$module"
	done
done
'
tar -cf "$out" -C "$root/out" .
