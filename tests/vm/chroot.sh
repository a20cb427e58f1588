#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds in a chroot: sources stand in /build, and what INNER.sh leaves in /out is what comes of it (see image.py).
# usage: chroot.sh BUILDER.TAR OUT.TAR INNER.sh SOURCE...
set -eux
builder=$1 out=$2 inner=$3
shift 3

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
mkdir -p "$root/build" "$root/out"
cp -r "$@" "$root/build/"
cp "$inner" "$root/inner"
chroot "$root" sh -eux /inner
tar -cf "$out" -C "$root/out" .
