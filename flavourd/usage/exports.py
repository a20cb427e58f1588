# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of the kernel uses a block device and tells neither by `holders` in sysfs nor by an open file of a process."""

from collections.abc import Iterator
from pathlib import Path

from flavourd.usage import peek


def loops(root: str) -> Iterator[tuple[str, str]]:
    """(name, path of what is below it) of each loop device."""
    blocks = f"{root}/sys/class/block"
    for name in peek.names(blocks):
        if name.startswith("loop") and (path := peek.text(f"{blocks}/{name}/loop/backing_file")):
            yield name, path


def exports(root: str) -> Iterator[tuple[str, str]]:
    """(name, path of what is exported) of LIO (iSCSI, vhost-scsi and so on) and of NVMe over fabrics."""
    config = Path(f"{root}/sys/kernel/config")
    for place in config.glob("target/core/iblock_*/*/udev_path"):
        if path := peek.text(str(place)):
            yield f"{place.parts[-3]}/{place.parts[-2]}", path
    for place in config.glob("nvmet/subsystems/*/namespaces/*/device_path"):
        if (path := peek.text(str(place))) and peek.text(str(place.parent / "enable")) == "1":
            yield f"{place.parts[-4]}/{place.parts[-2]}", path


def journals(root: str) -> tuple[str, ...]:
    """Names in /sys/class/block of journals of ext4. One within a filesystem is called by its inode too: `sda1-8`
    (jbd2_journal_init_dev(), jbd2_journal_init_inode()).
    """
    return peek.names(f"{root}/proc/fs/jbd2")
