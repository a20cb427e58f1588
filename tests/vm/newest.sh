#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds our own module for another kernel than the guest's, to see that it can be (see chroot.sh).
set -eux
kernel=$(ls /lib/modules)
make -C /build/kernel KV="$kernel" W=1 KCFLAGS=-Werror modules
cp /build/kernel/driver_flavour.ko /out/
echo "$kernel" >/out/kernel
