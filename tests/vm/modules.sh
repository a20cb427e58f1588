#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds the out-of-tree modules for the guest's kernel, inside the builder chroot (see chroot.sh).
set -eux
kernel=$(ls /lib/modules)
updates=/out/usr/lib/modules/$kernel/updates
mkdir -p "$updates"

# Our own module: as a reviewer would have it, without a warning, and by the way that it takes to a host.
perl /source/scripts/checkpatch.pl --no-tree --strict -q -f /build/kernel/driver_flavour.c
make -C /build/kernel KV="$kernel" W=1 KCFLAGS=-Werror modules
make -C /build/kernel KV="$kernel" clean
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' /build/kernel/dkms.conf)
mv /build/kernel "/usr/src/driver-flavour-$version"
dkms install "driver-flavour/$version" -k "$kernel"
cp "/lib/modules/$kernel/updates/dkms"/driver_flavour.ko* "$updates/"

for source in /build/*/; do
	# Debian ships no pahole with the headers, hence no BTF.
	make -C "/lib/modules/$kernel/build" M="$source" CONFIG_VIRTIO_VFIO_PCI=m CONFIG_DEBUG_INFO_BTF_MODULES= modules
	for module in "$source"*.ko; do
		strip -g -o "$updates/$(basename "$module" | tr - _)" "$module"
	done
done
