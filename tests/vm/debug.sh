#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds a kernel by debug.config from Debian's source (see chroot.sh), with what modules for it are built against.
set -eux
mkdir /source
tar -xf /usr/src/linux-source-*.tar.xz -C /source --strip-components=1
cd /source
make KCONFIG_ALLCONFIG=/build/debug.config allnoconfig
# What depends on something that is not asked for is dropped without a word.
grep '=[^n]' /build/debug.config | while read -r line; do
	grep -qxF "$line" .config || { echo "not to be had: $line" >&2; exit 1; }
done
nice -n 19 make -s -j"$(nproc)" bzImage modules
modules=/out/usr/lib/modules/$(make -s kernelrelease)
mkdir -p "$modules"
cp arch/x86/boot/bzImage /out/vmlinuz
cp modules.builtin modules.builtin.modinfo modules.order "$modules/"
# shellcheck disable=SC2016 # expanded by make
make run-command KBUILD_RUN_COMMAND='$(srctree)/scripts/package/install-extmod-build '"$modules/build"
