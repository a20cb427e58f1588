#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes the root disk, the kernel and the initrd from the root file system, the modules and guest/ (see image.py).
# usage: disk.sh ROOT.TAR MODULES.TAR GUEST-DIRECTORY OUT-DIRECTORY
set -eux

root=$(mktemp -d "$4/root.XXXXXX")
cleanup() {
	# Lazily: in a user namespace the mounts below these may not be taken away one by one.
	umount -l "$root/dev" "$root/proc" 2>/dev/null || true
	rm -rf --one-file-system "$root"
}
trap cleanup EXIT
tar -xf "$1" -C "$root" --exclude './dev/*'
kernel=$(ls "$root/usr/lib/modules")
built=$(tar -tf "$2" | sed -n 's|^\./usr/lib/modules/\([^/]*\)/$|\1|p')
if [ "$kernel" != "$built" ]; then
	echo "The guest has kernel $kernel but the modules were built for $built:" >&2
	echo "the archive moved between the two stages. Remove both cached stages and build again." >&2
	exit 1
fi
tar -xf "$2" -C "$root" --no-same-owner --keep-directory-symlink
cp -r --no-preserve=ownership "$3/." "$root/"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"

# shellcheck disable=SC2016 # expanded inside the chroot
chroot "$root" sh -eux -c '
kernel=$1 modules=/lib/modules/$1 test=/usr/lib/flavourd-test
passwd -d root

# Two whole sets of module indices, one that knows the test variant and one that does not.
index() {
	depmod "$kernel"
	mkdir -p "$test/index/$1"
	for file in "$modules"/modules.*; do
		case $file in
		*/modules.builtin | */modules.builtin.modinfo | */modules.order) ;;
		*) cp "$file" "$test/index/$1/" ;;
		esac
	done
}
index with
mv "$modules/updates/test_vfio_pci.ko" "$test/"
index without

# Nothing may start by itself while a test runs.
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
	fstrim.timer man-db.timer systemd-tmpfiles-clean.timer systemd-firstboot.service systemd-networkd-wait-online.service
rm -f /etc/systemd/system/getty.target.wants/*
mkdir -p /etc/systemd/system-generators
ln -s /dev/null /etc/systemd/system-generators/systemd-getty-generator
systemctl set-default multi-user.target

python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.* >/dev/null || true
mkinitramfs -o /boot/initrd "$kernel"
' sh "$kernel"

umount -l "$root/dev" "$root/proc"
cp "$root/boot/vmlinuz-$kernel" "$4/vmlinuz"
mv "$root/boot/initrd" "$4/initrd"
rm -rf "$root"/boot/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -L root -d "$root" "$4/disk.ext4" 2G
qemu-img convert -O qcow2 "$4/disk.ext4" "$4/disk.qcow2"
rm "$4/disk.ext4"
echo "$kernel" >"$4/kernel"
