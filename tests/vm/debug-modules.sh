#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds our own module for the kernel that debug.sh has built (see chroot.sh).
set -eux
tar -xf /build/files.tar -C / --keep-directory-symlink ./usr
kernel=$(ls /lib/modules)
make -C /build/kernel KV="$kernel" modules
modules=/out/usr/lib/modules/$kernel
mkdir -p "$modules/updates"
cp "/lib/modules/$kernel"/modules.* "$modules/"
cp /build/kernel/driver_flavour.ko "$modules/updates/"
