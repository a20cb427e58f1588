# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host uses a device for, and the findings of it, on trees as the kernel makes them."""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.facts import Holder, Mount, Use
from flavourd.guards import findings
from flavourd.usage.ask import Processes
from flavourd.usage.look import Usage
from flavourd.usage.rtnetlink import Local, Route, Tables
from flavourd.usage.scan import OpenFile, Wanted
from flavourd.use import Process

from .conftest import Tree

_A, _B = DeviceId("pci", "0000:01:00.0"), DeviceId("pci", "0000:02:00.0")
_PCI = "sys/devices/pci0000:00"


def pci(device: DeviceId = _A, facts: Mapping[str, str] | None = None, driver: str | None = "native") -> dict[str, str]:
    """A PCI device. What must not be opened is a folder, which cannot be read."""
    place = f"{_PCI}/{device.name}"
    links = {
        f"sys/bus/pci/devices/{device.name}": f"-> ../../../devices/pci0000:00/{device.name}",
        f"{place}/subsystem": "-> ../../../bus/pci",
    }
    if driver:
        links[f"{place}/driver"] = f"-> ../../../bus/pci/drivers/{driver}"
    locked = {f"{place}/{name}/": "" for name in ("driver_override", "uevent", "sriov_numvfs", "config")}
    return links | locked | {f"{place}/{key}": value for key, value in (facts or {}).items()}


def node(kind: str, number: str, place: str, devname: str | None = None) -> dict[str, str]:
    """place: below sys/devices."""
    name = Path(place).name
    home = f"sys/devices/{place}"
    up = "../" * (place.count("/") + 2)
    return {
        f"{home}/dev": f"{number}\n",
        f"{home}/uevent": f"MAJOR={number.partition(':')[0]}\nDEVNAME={devname or name}\n",
        f"{home}/subsystem": f"-> {up}class/{kind}",
        f"sys/class/{kind}/{name}": f"-> ../../devices/{place}",
    }


def disk(name: str, number: str, device: DeviceId = _A, partitions: Mapping[str, str] | None = None) -> dict[str, str]:
    place = f"pci0000:00/{device.name}/ata1/host0/{name}x/block/{name}"
    made = node("block", number, place)
    for part, its in (partitions or {}).items():
        made |= node("block", its, f"{place}/{part}") | {f"sys/devices/{place}/{part}/partition": "1\n"}
    return made


def virtual(name: str, number: str, on: str, facts: Mapping[str, str] | None = None) -> dict[str, str]:
    """A block device that stands on others, separated by spaces."""
    made = node("block", number, f"virtual/block/{name}")
    made |= {f"sys/class/block/{foot}/holders/{name}": "-> x" for foot in on.split()}
    return made | {f"sys/devices/virtual/block/{name}/{key}": value for key, value in (facts or {}).items()}


def mapped(name: str, number: str, on: str, shown: str, uuid: str) -> dict[str, str]:
    return virtual(name, number, on, {"dm/name": f"{shown}\n", "dm/uuid": f"{uuid}\n"})


def process(
    pid: int, name: str = "x", unit: str = "", files: str = "", space: str = "1", mounts: str = ""
) -> dict[str, str]:
    """files: targets, separated by spaces. mounts: lines of `MAJOR:MINOR PATH KIND SOURCE`."""
    lines = [line.split() for line in mounts.split("\n") if line]
    return {
        f"proc/{pid}/comm": f"{name}\n",
        f"proc/{pid}/cgroup": f"0::/{unit}\n",
        f"proc/{pid}/ns/mnt": f"-> mnt:[{space}]",
        f"proc/{pid}/mountinfo": "".join(
            f"1 1 {n} / {path} rw - {kind} {source} rw\n" for n, path, kind, source in lines
        )
        or "1 1 0:5 / / rw - tmpfs none rw\n",
        **{f"proc/{pid}/fd/{number}": f"-> {file}" for number, file in enumerate(files.split())},
    }


def use(root: Path, device: DeviceId = _A, tables: Tables | None = None) -> Use:
    return Usage(root, lambda: tables or Tables()).of(device)


def told(root: Path, device: DeviceId = _A, tables: Tables | None = None) -> list[str]:
    """Findings as GUARD: SENTENCE by PROCESSES -> HINT."""
    return [
        f"{one.guard}: {one.sentence}"
        + (f" by {', '.join(map(str, one.processes))}" if one.processes else "")
        + f" -> {one.hint}"
        for one in findings(use(root, device, tables))
    ]


_HOST = process(1, "systemd", "init.scope")


# --- nothing


def test_a_device_that_is_not_there_is_used_for_nothing(tree: Tree) -> None:
    usage = Usage(tree(pci()))
    assert usage.of(_B) == Use()
    assert usage.holders(_B) == ()


def test_a_network_card_costs_neither_a_look_at_processes_nor_at_mounts(tree: Tree) -> None:
    """What must not be read cannot be: /proc is a file. (Its clock's node is harmless.)"""
    root = tree(
        pci(facts={"net/eth0/ifindex": "2\n"})
        | node("ptp", "248:0", f"pci0000:00/{_A.name}/ptp/ptp0")
        | {"sys/class/net/eth0": f"-> ../../devices/pci0000:00/{_A.name}/net/eth0", "proc": "", "run": ""}
    )
    found = use(root)
    assert [one.name for one in found.interfaces] == ["eth0"]
    assert found.unknown == ()
    assert findings(found) == ()


# --- disks


def test_a_mounted_partition_is_told_with_its_mount_points(tree: Tree) -> None:
    mounts = "8:1 /srv ext4 /dev/sda1\n8:1 /a\\040b ext4 /dev/sda1\n8:2 /other ext4 /dev/sdb"
    root = tree(pci() | disk("sda", "8:0", partitions={"sda1": "8:1"}) | process(1, mounts=mounts))
    assert told(root) == ["mounted: sda1 is mounted at /srv and /a b -> umount /srv '/a b'"]


def test_of_many_mount_points_the_first_are_told_and_the_rest_counted(tree: Tree) -> None:
    mounts = "\n".join(f"8:0 /{name} ext4 /dev/sda" for name in "abcde")
    root = tree(pci() | disk("sda", "8:0") | process(1, mounts=mounts))
    assert told(root) == ["mounted: sda is mounted at /a, /b, /c and 2 more -> umount /a /b /c"]


def test_what_is_mounted_on_another_controllers_disk_is_not_told(tree: Tree) -> None:
    root = tree(
        pci() | pci(_B) | disk("sda", "8:0") | disk("sdb", "8:16", _B) | process(1, mounts="8:16 /b ext4 /dev/sdb")
    )
    assert told(root) == []
    assert told(root, _B) == ["mounted: sdb is mounted at /b -> umount /b"]


def test_a_mount_in_another_namespace_only_is_told_with_a_process_of_it(tree: Tree) -> None:
    other = process(41, "postgres", "x.service", space="2", mounts="8:0 /data ext4 /dev/sda")
    root = tree(pci() | disk("sda", "8:0") | _HOST | other | process(42, space="3", mounts="8:0 /z ext4 /dev/sda"))
    assert told(root) == [
        "mounted: sda is mounted at /data in the mount namespace of postgres (pid 41, x.service) and 1 more"
        " -> stop x.service"
    ]


def test_copies_of_the_hosts_mounts_in_other_namespaces_are_not_told(tree: Tree) -> None:
    line = "8:0 /srv ext4 /dev/sda"
    root = tree(pci() | disk("sda", "8:0") | process(1, mounts=line) | process(41, space="2", mounts=line))
    assert [volume.mounts for volume in use(root).volumes] == [(Mount("/srv"),)]


def test_a_volume_of_lvm_is_told_with_the_partition_it_stands_on(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("nvme0n1", "259:0", partitions={"nvme0n1p1": "259:1"})
        | mapped("dm-0", "254:0", "nvme0n1p1", "vg-root", "LVM-abc")
        | mapped("dm-1", "254:1", "nvme0n1p1", "vg-a--b", "LVM-abd")
        | mapped("dm-2", "254:2", "nvme0n1p1", "other-x", "LVM-x")
        | process(1, mounts="254:0 /srv xfs /dev/mapper/vg-root")
    )
    assert told(root) == [
        "mounted: nvme0n1p1 (vg-root on it) is mounted at /srv -> umount /srv",
        "stacked: LVM volume vg-a--b stands on nvme0n1p1 -> vgchange -an vg",
        "stacked: LVM volume other-x stands on nvme0n1p1 -> vgchange -an other",
    ]


def test_volumes_of_one_group_are_told_together_with_who_has_them_open(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("sda", "8:0")
        | mapped("dm-0", "254:0", "sda", "v--g-a", "LVM-a")
        | mapped("dm-1", "254:1", "sda", "v--g-b", "LVM-b")
        | _HOST
        | process(9, "qemu", "vm.scope", "/dev/dm-1")
    )
    assert told(root) == [
        "stacked: LVM volumes v--g-a and v--g-b stand on sda by qemu (pid 9, vm.scope) -> vgchange -an v-g"
    ]


def test_of_a_chain_the_top_is_told(tree: Tree) -> None:
    chain = (
        pci()
        | disk("sda", "8:0")
        | mapped("dm-0", "254:0", "sda", "luks-1", "CRYPT-LUKS2-1")
        | mapped("dm-1", "254:1", "dm-0", "vg-data", "LVM-1")
    )
    root = tree(chain | _HOST)
    assert told(root) == ["stacked: LVM volume vg-data stands on sda -> vgchange -an vg"]
    (root / "proc/1/mountinfo").write_text("1 1 254:1 / /data rw - ext4 /dev/mapper/vg-data rw\n")
    assert told(root) == ["mounted: sda (vg-data on it) is mounted at /data -> umount /data"]
    shutil.rmtree(root / "sys/devices/virtual/block/dm-1")
    (root / "sys/devices/virtual/block/dm-0/holders/dm-1").unlink()
    assert told(root) == ["stacked: encrypted volume luks-1 stands on sda -> cryptsetup close luks-1"]


def test_a_raid_over_two_controllers_is_told_for_each(tree: Tree) -> None:
    root = tree(
        pci()
        | pci(_B)
        | disk("sda", "8:0")
        | disk("sdb", "8:16", _B)
        | virtual("md127", "9:127", "sda sdb", {"md/level": "raid1\n"})
        | _HOST
    )
    assert told(root) == ["stacked: RAID md127 stands on sda -> mdadm --stop /dev/md127"]
    assert told(root, _B) == ["stacked: RAID md127 stands on sdb -> mdadm --stop /dev/md127"]


def test_a_volume_on_two_disks_of_the_device_is_told_once(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("sda", "8:0")
        | disk("sdb", "8:16")
        | virtual("md0", "9:0", "sda sdb", {"md/level": "raid1\n"})
        | process(1, mounts="9:0 /m ext4 /dev/md0")
    )
    assert told(root) == ["mounted: sda and sdb (md0 on them) is mounted at /m -> umount /m"]


def test_a_partition_of_a_raid_counts_if_it_is_used(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("sda", "8:0")
        | virtual("md0", "9:0", "sda", {"md/level": "raid1\n"})
        | node("block", "259:0", "virtual/block/md0/md0p1")
        | {"sys/devices/virtual/block/md0/md0p1/partition": "1\n"}
        | _HOST
    )
    assert told(root) == ["stacked: RAID md0 stands on sda -> mdadm --stop /dev/md0"]
    (root / "proc/1/mountinfo").write_text("1 1 259:0 / /m rw - ext4 /dev/md0p1 rw\n")
    assert told(root) == ["mounted: sda (md0p1 on it) is mounted at /m -> umount /m"]


def test_a_cache_of_bcache_leads_to_the_volumes_that_it_caches(tree: Tree) -> None:
    """It has no holders; the set that it belongs to names them."""
    cache = {
        "sys/class/block/nvme0n1/bcache/set/bdev0/dev": "-> ../../../virtual/block/bcache0",
        "sys/class/block/nvme0n1/bcache/set/cache0/x": "",
    }
    root = tree(pci() | disk("nvme0n1", "259:0") | virtual("bcache0", "252:0", "sdz") | cache | _HOST)
    assert told(root) == ["stacked: bcache volume bcache0 stands on nvme0n1 -> echo 1 > /sys/block/bcache0/bcache/stop"]


def test_multipath_and_other_volumes_are_called_what_they_are(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("sda", "8:0")
        | disk("sdb", "8:16")
        | disk("cciss!c0d0", "104:0")
        | mapped("dm-0", "254:0", "sda", "mpatha", "mpath-36")
        | mapped("dm-1", "254:1", "sdb", "odd name", "")
        | virtual("drbd0", "147:0", "cciss!c0d0")
        | _HOST
    )
    assert told(root) == [
        "stacked: multipath volume mpatha stands on sda -> multipath -f mpatha",
        "stacked: device-mapper volume odd name stands on sdb -> dmsetup remove 'odd name'",
        "stacked: volume drbd0 stands on cciss/c0d0 -> take /dev/drbd0 down",
    ]


def test_a_circle_of_holders_ends(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("sda", "8:0")
        | virtual("dm-0", "254:0", "sda", {"dm/name": "a"})
        | virtual("dm-1", "254:1", "dm-0", {"dm/name": "b", "holders/dm-0": "-> x"})
        | process(1, mounts="254:1 /m ext4 x")
    )
    assert told(root) == ["mounted: sda (b on it) is mounted at /m -> umount /m"]


def test_swap_is_told_wherever_its_path_leads(tree: Tree) -> None:
    head = "Filename Type Size Used Priority\n"
    root = tree(
        pci()
        | disk("sda", "8:0", partitions={"sda1": "8:1", "sda2": "8:2"})
        | mapped("dm-0", "254:0", "sda2", "vg-swap", "LVM-x")
        | {
            "proc/swaps": f"{head}/dev/disk/by-label/my\\040swap partition 1 0 -2\n"
            "/dev/mapper/vg-swap partition 1 0 -3\n"
        }
        | {
            "dev/disk/by-label/my swap": "-> ../../sda1",
            "dev/mapper/vg-swap": "-> ../dm-0",
            "dev/sda1": "",
            "dev/dm-0": "",
        }
        | _HOST
    )
    assert told(root) == [
        "swap: sda2 (vg-swap on it) is swap space -> swapoff /dev/mapper/vg-swap",
        "swap: sda1 is swap space -> swapoff /dev/sda1",
    ]


def test_a_mapped_source_is_found_by_its_name_where_its_node_is_no_link(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("sda", "8:0")
        | mapped("dm-0", "254:0", "sda", "vg-b", "LVM-x")
        | process(1, mounts="0:50 /b btrfs /dev/mapper/vg-b")
    )
    assert told(root) == ["mounted: sda (vg-b on it) is mounted at /b -> umount /b"]


def test_a_filesystem_of_several_disks_is_told_for_each_of_them(tree: Tree) -> None:
    """mountinfo names one disk of a btrfs, and its device number is no disk's."""
    shared = {f"sys/fs/btrfs/01-23/devices/{name}": "-> x" for name in ("sda", "sdb")} | {"sys/fs/btrfs/features/x": ""}
    root = tree(
        pci()
        | pci(_B)
        | disk("sda", "8:0")
        | disk("sdb", "8:16", _B)
        | shared
        | process(1, mounts="0:50 /pool btrfs /dev/sdb\n0:51 /t tmpfs tmpfs")
    )
    assert told(root) == ["mounted: sda is mounted at /pool -> umount /pool"]
    assert told(root, _B) == ["mounted: sdb is mounted at /pool -> umount /pool"]
    (root / "proc/1/mountinfo").write_text("1 1 0:51 / /t rw - tmpfs tmpfs rw\n")
    assert told(root) == ["mounted: sda is part of a filesystem that is mounted -> umount that filesystem; see findmnt"]


def test_a_log_on_another_disk_is_a_mount_of_that_disk(tree: Tree) -> None:
    root = tree(pci() | disk("sda", "8:0") | _HOST)
    (root / "proc/1/mountinfo").write_text("1 1 8:16 / /x rw - xfs /dev/sdb rw,logdev=/dev/sda,noquota\n")
    assert told(root) == ["mounted: sda is mounted at /x -> umount /x"]


def test_what_calls_itself_a_disk_is_none(tree: Tree) -> None:
    """Anybody may mount a tmpfs in a user namespace of his own, and say what its source is."""
    lines = "0:50 /a tmpfs /dev/sda\n0:51 /b fuse.x /dev/sda"
    assert told(tree(pci() | disk("sda", "8:0") | process(1, mounts=lines))) == []


def test_a_filesystem_on_a_loop_device_on_a_disk_is_told(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("sda", "8:0", partitions={"sda1": "8:1"})
        | virtual("loop3", "7:3", "", {"loop/backing_file": "/dev/sda1\n"})
        | virtual("loop4", "7:4", "", {"loop/backing_file": "/srv/image\n"})
        | _HOST
    )
    assert told(root) == ["stacked: loop device loop3 stands on sda1 -> losetup -d /dev/loop3"]
    (root / "proc/1/mountinfo").write_text("1 1 7:3 / /x rw - ext4 /dev/loop3 rw\n")
    assert told(root) == ["mounted: sda1 (loop3 on it) is mounted at /x -> umount /x"]


def test_what_the_kernel_exports_is_told(tree: Tree) -> None:
    config = "sys/kernel/config"
    root = tree(
        pci()
        | disk("sda", "8:0", partitions={"sda1": "8:1"})
        | {f"{config}/target/core/iblock_0/one/udev_path": "/dev/sda\n"}
        | {f"{config}/nvmet/subsystems/nqn.x/namespaces/{n}/device_path": "/dev/sda1\n" for n in (1, 2)}
        | {f"{config}/nvmet/subsystems/nqn.x/namespaces/{n}/enable": f"{n % 2}\n" for n in (1, 2)}
        | _HOST
    )
    hint = "-> end that export, with targetcli or nvmetcli"
    assert told(root) == [
        f"stacked: export iblock_0/one stands on sda {hint}",
        f"stacked: export nqn.x/1 stands on sda1 {hint}",
    ]


def test_a_journal_of_a_filesystem_on_another_disk_is_told(tree: Tree) -> None:
    root = tree(
        pci() | disk("sda", "8:0") | disk("sdb", "8:16") | _HOST | {"proc/fs/jbd2/sda/": "", "proc/fs/jbd2/sdb-8/": ""}
    )
    assert told(root) == ["stacked: journal of another filesystem stands on sda -> umount that filesystem; see findmnt"]


def test_the_disks_of_a_bcachefs_are_told_by_its_source(tree: Tree) -> None:
    root = tree(pci() | disk("sda", "8:0") | process(1, mounts="0:60 /p bcachefs /dev/sdz:/dev/sda"))
    assert told(root) == ["mounted: sda is mounted at /p -> umount /p"]


def test_an_imported_zfs_pool_is_told(tree: Tree) -> None:
    root = tree(
        pci()
        | disk("sda", "8:0", partitions={"sda1": "8:1", "sda2": "8:2"})
        | {"run/udev/data/b8:1": "S:x\nE:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n"}
        | {"run/udev/data/b8:2": "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=exported\n"}
        | {"proc/spl/kstat/zfs/tank/x": ""}
        | _HOST
    )
    assert told(root) == ["stacked: ZFS pool tank is imported from sda1 -> zpool export tank"]


def test_a_disk_with_several_paths_is_told_for_every_controller_that_leads_to_it(tree: Tree) -> None:
    subsystem = "virtual/nvme-subsystem/nvme-subsys0"
    root = tree(
        pci()
        | pci(_B)
        | node("nvme", "240:0", f"pci0000:00/{_A.name}/nvme/nvme0")
        | node("nvme", "240:1", f"pci0000:00/{_B.name}/nvme/nvme1")
        | {f"sys/devices/{subsystem}/nvme0": f"-> ../../../pci0000:00/{_A.name}/nvme/nvme0"}
        | node("block", "259:0", f"{subsystem}/nvme0n1")
        | node("block", "259:1", f"{subsystem}/nvme0n1/nvme0n1p1")
        | {f"sys/devices/{subsystem}/nvme0n1/nvme0n1p1/partition": "1\n"}
        | process(1, mounts="259:1 /m ext4 /dev/nvme0n1p1")
    )
    assert told(root) == ["mounted: nvme0n1p1 is mounted at /m -> umount /m"]
    assert told(root, _B) == []


def test_what_stands_below_a_device_with_an_override_of_its_own_goes_with_it(tree: Tree) -> None:
    """A VMD controller takes its drives away with it; behind a bridge they stay."""
    inner = f"pci0000:00/{_A.name}/pci10000:e0/10000:e0:01.0"
    root = tree(
        pci()
        | node("block", "259:0", f"{inner}/nvme/nvme0/nvme0n1")
        | {f"sys/devices/{inner}/driver_override/": ""}
        | process(1, mounts="259:0 /m ext4 x")
    )
    assert told(root) == ["mounted: nvme0n1 is mounted at /m -> umount /m"]
    (root / f"{_PCI}/{_A.name}/secondary_bus_number").write_text("1\n")
    assert told(root) == []


# --- nodes

_CARD = f"pci0000:00/{_A.name}/drm/card0"


def test_who_has_a_node_open_is_told(tree: Tree) -> None:
    root = tree(
        pci()
        | node("drm", "226:0", _CARD, "dri/card0")
        | node("drm", "226:128", f"pci0000:00/{_A.name}/drm/renderD128", "dri/renderD128")
        | _HOST
        | process(9, "Xorg", "display.service", "/dev/dri/card0 /dev/dri/renderD128")
        | process(10, "game", "", "/dev/dri/renderD128")
        | process(11, "other", "", "/dev/dri/card1")
        | process(12, "(udev-worker)", "", "/dev/dri/card0")
        | process(13, "blkid", "systemd-udevd.service/udev", "/dev/dri/card0")
        | process(os.getpid(), "own", "", "/dev/dri/card0")
    )
    assert told(root) == [
        "open: /dev/dri/card0 and /dev/dri/renderD128 are open by Xorg (pid 9, display.service), game (pid 10)"
        " -> stop display.service and game (pid 10)"
    ]
    assert [one.name for one in Usage(root).holders(_A)] == ["Xorg", "game"]


def test_who_only_waits_for_the_power_key_does_not_count(tree: Tree) -> None:
    root = tree(
        pci()
        | node("input", "13:64", f"pci0000:00/{_A.name}/usb1/input1/event1", "input/event1")
        | node("drm", "226:0", _CARD, "dri/card0")
        | _HOST
        | process(9, "systemd-logind", "systemd-logind.service", "/dev/input/event1 /dev/dri/card0")
    )
    assert [line.partition(" by ")[0] for line in told(root)] == ["open: /dev/dri/card0 is open"], "for a session"


def test_a_node_that_goes_by_another_name_is_told_by_its_number(tree: Tree) -> None:
    """/dev/full of this host stands for it."""
    root = tree(pci() | node("drm", "1:7", _CARD, "dri/card0") | _HOST | process(9, "Xorg", files="/dev/full"))
    assert told(root) == ["open: /dev/dri/card0 is open by Xorg (pid 9) -> stop Xorg (pid 9)"]


def test_a_character_device_with_the_number_of_a_disk_is_another_one(tree: Tree) -> None:
    assert told(tree(pci() | disk("sda", "1:7") | _HOST | process(9, "x", files="/dev/full"))) == []


NVIDIA = {
    f"proc/driver/nvidia/gpus/{_A.name}/information": "Model: \t NVIDIA X\nDevice Minor: \t 0\nGPU Excluded:\t No\n"
}


def test_the_node_of_a_nvidia_card_is_told_by_its_driver(tree: Tree) -> None:
    """It has no entry in sysfs."""
    daemon = process(9, "nvidia-persiste", "nvidia-persistenced.service", "/dev/nvidia0 /dev/nvidiactl")
    root = tree(pci(driver="nvidia") | NVIDIA | _HOST | daemon | process(10, "cuda", files="/dev/nvidia1"))
    assert told(root) == [
        "open: /dev/nvidia0 is open by nvidia-persiste (pid 9, nvidia-persistenced.service)"
        " -> stop nvidia-persistenced.service"
    ]
    assert [one.pid for one in Usage(root).holders(_A)] == [9]


@pytest.mark.parametrize("text", [None, "", "Model: X\n", "Device Minor: x\n"])
def test_a_nvidia_card_whose_node_is_not_told_may_be_open(tree: Tree, text: str | None) -> None:
    files = {} if text is None else dict.fromkeys(NVIDIA, text)
    assert told(tree(pci(driver="nvidia") | files | _HOST)) == [
        "open: it may be open: /proc/driver/nvidia/gpus does not tell its node in /dev"
        " -> end what uses NVIDIA cards, `systemctl stop nvidia-persistenced` first"
    ]
    assert told(tree(pci(_B, driver="nouveau")), _B) == []


def test_the_node_of_an_usb_device_is_told_without_its_lock(tree: Tree) -> None:
    place = f"pci0000:00/{_A.name}/usb1/1-2"
    made = node("usb", "189:1", place)
    del made[f"sys/devices/{place}/uevent"]
    made |= {
        f"sys/devices/{place}/{name}": text for name, text in (("busnum", "1\n"), ("devnum", "2\n"), ("uevent/", ""))
    }
    root = tree(pci() | made | _HOST | process(9, "scan", files="/dev/bus/usb/001/002"))
    assert told(root) == ["open: /dev/bus/usb/001/002 is open by scan (pid 9) -> stop scan (pid 9)"]


def test_a_clock_that_is_open_is_no_use_of_a_card(tree: Tree) -> None:
    root = tree(pci() | node("ptp", "248:0", f"pci0000:00/{_A.name}/ptp/ptp0") | process(9, "ptp4l", files="/dev/ptp0"))
    assert told(root) == []


# --- interfaces


def interface(name: str, index: int, device: DeviceId = _A, facts: Mapping[str, str] | None = None) -> dict[str, str]:
    home = f"pci0000:00/{device.name}/net/{name}"
    files = {"ifindex": f"{index}\n", "uevent": f"INTERFACE={name}\n", **(facts or {})}
    return {f"sys/class/net/{name}": f"-> ../../devices/{home}"} | {
        f"sys/devices/{home}/{key}": text for key, text in files.items()
    }


def upper(name: str, index: int, kind: str = "", facts: Mapping[str, str] | None = None) -> dict[str, str]:
    home = f"sys/devices/virtual/net/{name}"
    uevent = f"DEVTYPE={kind}\n" if kind else ""
    files = {"ifindex": f"{index}\n", "uevent": f"{uevent}INTERFACE={name}\n", **(facts or {})}
    return {f"sys/class/net/{name}": f"-> ../../devices/virtual/net/{name}"} | {
        f"{home}/{key}": text for key, text in files.items()
    }


def on(name: str) -> str:
    return f"upper_{name}"


def test_a_default_route_through_an_interface_is_told_for_both_families(tree: Tree) -> None:
    root = tree(pci() | pci(_B) | interface("eth0", 2) | interface("eth1", 3, _B))
    tables = Tables((Route(4, 2), Route(6, 2)))
    assert told(root, tables=tables) == [
        "route: the IPv4 and IPv6 default routes lead through eth0"
        " -> give the host another way first, see `ip route show default`"
    ]
    assert told(root, _B, tables) == []


def test_a_default_route_through_what_stands_on_an_interface_is_told(tree: Tree) -> None:
    root = tree(
        pci()
        | interface("eth0", 2, facts={on("bond0"): "-> x", "master": "-> ../../x/bond0"})
        | upper("bond0", 5, "bond", {on("bond0.7"): "-> x"})
        | upper("bond0.7", 6, "vlan")
    )
    assert told(root, tables=Tables((Route(4, 6),))) == [
        "route: the IPv4 default route leads through bond0.7 (on eth0)"
        " -> give the host another way first, see `ip route show default`",
        "enslaved: eth0 is part of bond bond0 -> ip link set eth0 nomaster",
    ]


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (upper("b", 5, "bridge"), "eth0 is part of bridge b -> ip link set eth0 nomaster"),
        (upper("b", 5, facts={"bridge/x": ""}), "eth0 is part of bridge b -> ip link set eth0 nomaster"),
        (upper("b", 5, facts={"bonding/x": ""}), "eth0 is part of bond b -> ip link set eth0 nomaster"),
        (upper("b", 5, "vlan"), "eth0 carries VLAN b -> ip link delete b"),
        (upper("b", 5, "macvlan"), "eth0 carries macvlan b -> ip link delete b"),
        (upper("b", 5, "batadv"), "batadv b stands on eth0 -> see `ip -d link show b`"),
        (upper("b", 5), "b stands on eth0 -> see `ip -d link show b`"),
        ({}, "b stands on eth0 -> see `ip -d link show b`"),
    ],
)
def test_what_an_interface_is_part_of_or_carries_is_told(tree: Tree, made: dict[str, str], sentence: str) -> None:
    root = tree(pci() | interface("eth0", 2, facts={on("b"): "-> x"}) | made)
    assert told(root) == [f"enslaved: {sentence}"]


def test_a_port_of_open_vswitch_is_told_by_its_master(tree: Tree) -> None:
    root = tree(
        pci() | interface("eth0", 2, facts={"master": "-> ../../virtual/net/ovs-system"}) | upper("ovs-system", 5)
    )
    assert told(root) == ["enslaved: eth0 is part of Open vSwitch ovs-system -> ovs-vsctl del-port eth0"]


def test_an_interface_of_the_devices_virtio_or_usb_device_is_one_of_its_own(tree: Tree) -> None:
    root = tree(pci(facts={"virtio0/net/eth0/ifindex": "2", "usb1/1-1/1-1:1.0/net/eth1/ifindex": "3"}))
    assert sorted(one.name for one in use(root).interfaces) == ["eth0", "eth1"]


def test_interfaces_in_another_network_namespace_leave_an_empty_directory(tree: Tree) -> None:
    sentence = (
        "netns: its interface is in another network namespace"
        " -> see `ip netns` and lsns(8); `ip netns exec NAME ip link set INTERFACE netns 1` brings it back"
    )
    root = tree(pci(facts={"net/": ""}))
    assert told(root) == [sentence]
    (root / _PCI / _A.name / "driver").unlink()
    assert told(root) == []


def test_an_interface_in_another_network_namespace_is_counted_beside_one_that_is_here(tmp_path: Path) -> None:
    """On a real sysfs: each namespace has a loopback interface below devices/virtual."""
    code = f"from flavourd.usage.below import below; found = below('{tmp_path}/devices/virtual', '{tmp_path}/class')"
    look = f'{sys.executable} -c "{code}; print(found.networks, found.away)"'
    shell = f"mount -t sysfs none {tmp_path} && {look}"
    command = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c", shell]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "['lo'] True\n", done.stderr


def word(address: str) -> str:
    """An address as /proc/net/tcp writes it, whatever this machine's byte order."""
    packed = ip_address(address).packed
    order = "<" if sys.byteorder == "little" else ">"
    return "".join(f"{one:08X}" for one in struct.unpack(f"{order}{len(packed) // 4}I", packed))


def tcp(*connections: tuple[str, str, int], state: str = "01") -> str:
    lines = [
        f"   {row}: {word(local)}:0016 {word(remote)}:C350 {state} 00000000:00000000 00:00000000 "
        f"00000000     0        0 {inode} 1"
        for row, (local, remote, inode) in enumerate(connections)
    ]
    return "\n".join(["  sl  local_address rem_address   st tx_queue", *lines, ""])


def locals_(*pairs: tuple[int, str]) -> Tables:
    return Tables((), tuple(Local(index, ip_address(text)) for index, text in pairs))


def test_connections_with_other_hosts_are_told_with_who_has_them(tree: Tree) -> None:
    root = tree(
        pci()
        | interface("eth0", 2)
        | {
            "proc/net/tcp": tcp(
                ("192.0.2.2", "198.51.100.9", 11), ("192.0.2.2", "198.51.100.9", 12), ("127.0.0.1", "127.0.0.1", 13)
            )
            + tcp(("192.0.2.2", "192.0.2.2", 14), ("192.0.2.3", "203.0.113.1", 15))
            + tcp(("192.0.2.2", "203.0.113.7", 16), state="06"),
            "proc/net/tcp6": tcp(("::ffff:192.0.2.2", "::ffff:198.51.100.8", 17)),
        }
        | process(9, "sshd", "ssh.service", "socket:[11] socket:[12]")
        | process(10, "x", files="socket:[15]")
    )
    tables = locals_((1, "127.0.0.1"), (2, "192.0.2.2"), (3, "192.0.2.3"))
    assert told(root, tables=tables) == [
        "session: 3 connections with 198.51.100.9 and 198.51.100.8 use eth0 by sshd (pid 9, ssh.service)"
        " -> end them, or come in by another way"
    ]


def test_a_connection_through_a_bridge_on_the_interface_is_told(tree: Tree) -> None:
    root = tree(
        pci()
        | interface("eth0", 2, facts={on("br0"): "-> x"})
        | upper("br0", 5, "bridge")
        | {"proc/net/tcp": tcp(("192.0.2.2", "198.51.100.9", 11))}
    )
    assert told(root, tables=locals_((5, "192.0.2.2")))[0] == (
        "session: 1 connection with 198.51.100.9 uses br0 (on eth0) -> end them, or come in by another way"
    )


def test_a_link_local_address_counts_if_no_other_interface_has_it(tree: Tree) -> None:
    root = tree(pci() | interface("eth0", 2) | {"proc/net/tcp": "", "proc/net/tcp6": tcp(("fe80::1", "fe80::2", 11))})
    assert len(told(root, tables=locals_((2, "fe80::1")))) == 1
    assert told(root, tables=locals_((2, "fe80::1"), (9, "fe80::1"))) == []


def test_what_cannot_be_asked_of_the_kernel_is_told(tree: Tree) -> None:
    def refused() -> Tables:
        raise PermissionError(1, "Operation not permitted")

    root = tree(pci() | interface("eth0", 2))
    (found,) = findings(Usage(root, refused).of(_A))
    assert (found.guard, found.sentence, found.hint) == (
        "route",
        "a default route may lead through eth0: routes and addresses: Operation not permitted",
        "see `ip route show default`, and ask again",
    )
    (root / "sys/class/net/eth0/flags").write_text("0x1002\n")
    down = Usage(root, refused).of(_A)
    assert (findings(down), down.unknown) == ((), ("routes and addresses: Operation not permitted",))
    assert use(root, tables=locals_((2, "192.0.2.2"))).unknown == ("TCP connections: /proc/net/tcp cannot be read",)
    assert use(root, tables=Tables((Route(4, None),))).unknown == (
        "where a default route leads that only a nexthop object tells",
    )


# --- console and keyboards

_IOMEM = """\
00000000-00000000 : PCI Bus 0000:00
  00000000-00000000 : PCI Bus 0000:01
    00000000-00000000 : 0000:01:00.0
      00000000-00000000 : BOOTFB
    00000000-00000000 : 0000:01:00.0
  00000000-00000000 : 0000:02:00.0
    00000000-00000000 : xhci-hcd
"""


def display(root: Path, device: DeviceId = _A) -> list[str]:
    return [one.partition(" -> ")[0] for one in told(root, device)]


def test_the_firmwares_framebuffer_is_the_hosts_console(tree: Tree) -> None:
    root = tree(
        pci(facts={"boot_vga": "1\n", "class": "0x030000\n"})
        | pci(_B, {"boot_vga": "1\n", "class": "0x030000\n"})
        | {"proc/iomem": _IOMEM}
    )
    assert display(root) == ["display: the host's console is on it (BOOTFB)"]
    assert display(root, _B) == []
    (root / _PCI / _A.name / "class").write_text("0x020000\n")
    assert display(root) == [], "it has no display"


@pytest.mark.parametrize(
    ("facts", "name", "shown"), [({}, "fb0", True), ({}, "fb1", False), ({"boot_vga": "1\n"}, "fb1", True)]
)
def test_of_several_framebuffers_the_first_is_the_consoles(
    tree: Tree, facts: dict[str, str], name: str, shown: bool
) -> None:
    root = tree(
        pci(facts={"class": "0x038000\n"} | facts)
        | node("graphics", "29:0", f"pci0000:00/{_A.name}/graphics/{name}")
        | {"sys/class/vtconsole/vtcon1/name": "(M) frame buffer device\n", "sys/class/vtconsole/vtcon1/bind": "1\n"}
        | _HOST
    )
    assert bool(display(root)) is shown


def test_a_framebuffer_of_the_driver_is_the_console_if_a_console_is_bound_to_one(tree: Tree) -> None:
    root = tree(
        pci(facts={"boot_vga": "1\n", "class": "0x030000\n"})
        | node("graphics", "29:0", f"pci0000:00/{_A.name}/graphics/fb0")
        | {"sys/class/vtconsole/vtcon0/name": "(S) dummy device\n", "sys/class/vtconsole/vtcon0/bind": "1\n"}
        | {"sys/class/vtconsole/vtcon1/name": "(M) frame buffer device\n", "sys/class/vtconsole/vtcon1/bind": "1\n"}
        | _HOST
    )
    assert display(root) == ["display: the host's console is on it (fb0)"]
    (root / "sys/class/vtconsole/vtcon1/bind").write_text("0\n")
    assert display(root) == []


_LETTERS = "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n"
_POWER = "10000000000000 0\n"


def keyboard(place: str, keys: str = _LETTERS) -> dict[str, str]:
    """With the node that its events come by."""
    home = f"sys/devices/{place}"
    name = Path(place).name
    return {
        f"{home}/capabilities/key": keys,
        f"{home}/name": f"Keyboard {name}\n",
        f"sys/class/input/{name}": f"-> ../../devices/{place}",
    } | node("input", "13:64", f"{place}/event{name[-1]}", f"input/event{name[-1]}")


def test_the_only_keyboard_is_told_wherever_else_letters_cannot_be_typed(tree: Tree) -> None:
    usb = f"pci0000:00/{_A.name}/usb1/1-2/1-2:1.0/0003:1/input/input3"
    root = tree(
        pci()
        | keyboard(usb)
        | keyboard("LNXSYSTM:00/LNXPWRBN:00/input/input0", _POWER)
        | keyboard("virtual/input/input5")
        | _HOST
    )
    assert told(root) == [
        "input: every keyboard of the host is behind it (Keyboard input3)"
        " -> plug a keyboard in elsewhere, or make sure that the host can be reached over the network"
    ]
    tree(keyboard("platform/i8042/serio0/input/input1"))
    assert told(root) == []


def test_a_mouse_behind_the_device_is_no_keyboard(tree: Tree) -> None:
    root = tree(pci() | keyboard(f"pci0000:00/{_A.name}/usb1/input/input3", "70000 0 0 0 0\n") | _HOST)
    assert told(root) == []


# --- VFIO


def vfio(device: DeviceId = _A, group: str = "12", refcnt: str | None = "1\n") -> dict[str, str]:
    facts = {"iommu_group": f"-> ../../../kernel/iommu_groups/{group}", "vfio-dev/vfio3/": ""}
    module = (
        {}
        if refcnt is None
        else {
            "sys/module/vfio_pci/refcnt": refcnt,
            "sys/bus/pci/drivers/vfio-pci/module": "-> ../../../../module/vfio_pci",
        }
    )
    return pci(device, facts, "vfio-pci") | {"sys/bus/pci/drivers/vfio-pci/bind": ""} | module


_HELD = "held: it is held through VFIO by qemu (pid 9, vm.scope) -> stop vm.scope"
_OTHERS = {"/sys/devices/pci0000:00/0000:01:00.0": True, "/sys/devices/pci0000:00/0000:02:00.0": False}


@pytest.mark.parametrize("file", ["/dev/vfio/12", "/dev/vfio/noiommu-12", "/dev/vfio/devices/vfio3"])
def test_who_has_the_group_or_the_node_open_holds_it(tree: Tree, file: str) -> None:
    root = tree(vfio() | _HOST | process(9, "qemu", "vm.scope", f"/dev/vfio/vfio {file} anon_inode:[vfio-device]"))
    assert told(root) == [_HELD]
    assert Usage(root).holders(_A) == (Process(9, "qemu", "vm.scope"),)


def test_another_group_or_node_is_not_its_own(tree: Tree) -> None:
    files = "/dev/vfio/vfio /dev/vfio/1 /dev/vfio/devices/vfio33 anon_inode:[vfio-device] anon_inode:kvm-vcpu:0"
    assert told(tree(vfio() | _HOST | process(9, "qemu", files=files))) == []


@pytest.mark.parametrize(("place", "held"), _OTHERS.items())
@pytest.mark.parametrize("file", ["anon_inode:[vfio-device]", "/dev/vfio/devices/vfio3"])
def test_the_name_that_the_kernel_tells_of_an_open_device_wins(tree: Tree, place: str, held: bool, file: str) -> None:
    root = tree(
        vfio() | _HOST | process(9, "qemu", "vm.scope") | {"proc/9/fdinfo/0": f"vfio-device-syspath: {place}\n"}
    )
    (root / "proc/9/fd").mkdir()
    (root / "proc/9/fd/0").symlink_to(file)
    assert told(root) == ([_HELD] if held else [])


def test_a_nameless_device_without_a_group_may_be_this_one(tree: Tree) -> None:
    root = tree(vfio() | _HOST | process(9, "passed", files="/dev/vfio/vfio anon_inode:[vfio-device]"))
    assert use(root).holders == (Holder(Process(9, "passed"), certain=False),)
    assert told(root) == [
        "held: a device is held through VFIO that may be this one (before Linux 6.18 the kernel does not say which)"
        " by passed (pid 9) -> stop passed (pid 9)"
    ]


def test_processes_are_not_looked_at_if_nothing_pins_the_driver(tree: Tree) -> None:
    root = tree(vfio(refcnt="0\n") | {"proc": ""})
    assert use(root) == Use(driver="vfio-pci")


def test_a_driver_without_a_counter_is_looked_at(tree: Tree) -> None:
    root = tree(vfio(refcnt=None) | _HOST | process(9, "qemu", "vm.scope", "/dev/vfio/12"))
    assert told(root) == [_HELD]


def test_who_holds_a_device_is_told_while_the_kernel_releases_it(tree: Tree) -> None:
    """The driver's link and vfio-dev have gone, and the node is deleted."""
    facts = {"iommu_group": "-> ../../../kernel/iommu_groups/12"}
    root = tree(pci(facts=facts, driver=None) | _HOST | process(9, "qemu", files="/dev/vfio/12") | process(10, "cdev"))
    (root / "proc/10/fd").mkdir()
    (root / "proc/10/fd/4").symlink_to("/dev/vfio/devices/vfio3 (deleted)")
    assert [one.pid for one in Usage(root).holders(_A)] == [9, 10]


def test_a_driver_that_is_in_use_may_be_held_by_who_cannot_be_seen(tree: Tree) -> None:
    """Without process 1 in /proc others cannot be seen (proc(5), hidepid)."""
    root = tree(vfio())
    (found,) = findings(use(root))
    assert (found.guard, found.sentence) == (
        "held",
        "it may be held through VFIO: open files of other users' processes could not be looked at",
    )
    assert "flavourd-processes" in found.hint
    assert use(root).unknown == (), "it is told once"
    assert told(tree(process(9, "qemu", "vm.scope", "/dev/vfio/12"))) == [_HELD], "whoever else holds it"
    assert told(tree(_HOST)) == [_HELD]


def test_nodes_may_be_open_and_disks_mounted_by_who_cannot_be_seen(tree: Tree) -> None:
    hint = "-> see `systemctl status flavourd-processes.socket flavourd-processes.service`"
    assert told(tree(pci() | disk("sda", "8:0"))) == [
        f"open: /dev/sda may be open: open files of other users' processes could not be looked at {hint}",
        f"mounted: a filesystem on sda may be mounted: mounts of the host itself could not be looked at {hint}",
    ]


def test_all_that_a_pf_and_its_vfs_have_is_looked_for_at_once(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(busy())
    looks: list[Wanted] = []

    def counted(self: Processes, wanted: Wanted) -> tuple[tuple[OpenFile, ...], str]:
        looks.append(wanted)
        return real(self, wanted)

    real = Processes.files
    monkeypatch.setattr(Processes, "files", counted)
    findings(use(root, tables=_BUSY))
    (wanted,) = looks
    assert {"/dev/vfio/12", "/dev/sda", "/dev/dri/card0", "/dev/md0"} <= set(wanted.nodes)
    assert wanted.sockets == ["11"]


# --- libvirt


def domain(name: str, bus: int, what: str = "hostdev mode='subsystem' type='pci'") -> str:
    return (
        "<domstatus state='running'><devices><device alias='x'/></devices>"
        f"<domain type='kvm'><name>{name}</name><devices>"
        f"<{what}><source><address domain='0x0000' bus='0x{bus:02x}' slot='0x00' function='0x0'/></source>"
        f"<address type='pci' domain='0x0000' bus='0x09' slot='0x00' function='0x0'/></{what.split()[0]}>"
        "<hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>"
        "</devices></domain></domstatus>"
    )


def test_a_running_domain_that_has_the_device_is_told(tree: Tree) -> None:
    files = {
        "run/libvirt/qemu/vm 1.xml": domain("vm 1", 1),
        "run/libvirt/qemu/vm2.xml": domain("vm2", 1, "interface type='hostdev'"),
        "run/libvirt/qemu/vm3.xml": domain("vm3", 9),
        "run/libvirt/qemu/vm4.pid": "7",
        "run/libvirt/qemu/autostart/": "",
    }
    root = tree(vfio(refcnt="0\n") | files)
    assert use(root).domains == ("vm 1", "vm2")
    assert told(root)[0] == (
        "libvirt: domain vm 1 of libvirt has it"
        " -> shut it down (`virsh shutdown 'vm 1'`) or take the device from it with `virsh detach-device`"
    )
    assert use(root).unknown == ()


@pytest.mark.parametrize(
    "text", ["<domstatus", "", "<domstatus/>", domain("", 1), domain("x", 1).replace("0x01", "one")]
)
def test_a_status_that_cannot_be_read_is_told(tree: Tree, text: str) -> None:
    root = tree(vfio(refcnt="0\n") | {"run/libvirt/qemu/a.xml": text, "run/libvirt/qemu/b.xml": domain("b", 1)})
    assert use(root).domains == ("b",)
    assert use(root).unknown == (f"which domain of libvirt {root}/run/libvirt/qemu/a.xml is about",)


def test_a_device_of_a_native_driver_is_in_no_domain(tree: Tree) -> None:
    assert use(tree(pci() | {"run/libvirt/qemu/vm1.xml": domain("vm1", 1)})).domains == ()


# --- VFs


def functions(count: int) -> dict[str, str]:
    made = pci(facts={f"virtfn{number}": f"-> ../0000:06:00.{number}" for number in range(count)})
    for number in range(count):
        made |= pci(
            DeviceId("pci", f"0000:06:00.{number}"), {"physfn": f"-> ../{_A.name}"}, "vfio-pci" if number else None
        )
    return made


def test_the_vfs_of_a_pf_are_told_and_what_each_is_used_for(tree: Tree) -> None:
    facts = f"{_PCI}/0000:06:00.1/iommu_group"
    root = tree(functions(3) | {facts: "-> ../x/5"} | _HOST | process(9, "qemu", files="/dev/vfio/5"))
    assert told(root) == [
        "vfs: it is a PF with 3 VFs enabled (2 of them with driver vfio-pci)"
        " -> when nobody uses them any more, echo 0 > /sys/bus/pci/devices/0000:06:00.0/physfn/sriov_numvfs",
        "held: its VF pci/0000:06:00.1: it is held through VFIO by qemu (pid 9) -> stop qemu (pid 9)",
    ]
    assert [vf.name for vf, _ in use(root).vfs] == ["0000:06:00.0", "0000:06:00.1", "0000:06:00.2"]


# --- what vanishes


def busy() -> dict[str, str]:
    """A device with everything."""
    return (
        functions(2)
        | vfio()
        | disk("sda", "8:0", partitions={"sda1": "8:1"})
        | mapped("dm-0", "254:0", "sda1", "vg-root", "LVM-a")
        | virtual("md0", "9:0", "sda", {"md/level": "raid1\n"})
        | interface("eth0", 2, facts={on("br0"): "-> x"})
        | upper("br0", 5, "bridge")
        | node("drm", "226:0", _CARD, "dri/card0")
        | keyboard(f"pci0000:00/{_A.name}/usb1/input/input3")
        | {
            f"{_PCI}/{_A.name}/boot_vga": "1\n",
            f"{_PCI}/{_A.name}/class": "0x030000\n",
            "proc/iomem": _IOMEM,
            "proc/swaps": "F T\n/dev/md0 partition 1 0 -2\n",
        }
        | {"proc/net/tcp": tcp(("192.0.2.2", "198.51.100.9", 11)), "run/libvirt/qemu/a.xml": domain("a", 1)}
        | {"sys/fs/btrfs/0-1/devices/sda": "-> x", "dev/md0": ""}
        | process(1, mounts="254:0 / ext4 /dev/dm-0")
        | process(9, "qemu", "vm.scope", "/dev/vfio/12 anon_inode:x /dev/dri/card0 socket:[11]")
    )


_BUSY = Tables((Route(4, 5),), (Local(5, ip_address("192.0.2.2")),))


def test_everything_at_once_is_told(tree: Tree) -> None:
    kinds = [one.partition(":")[0] for one in told(tree(busy()), tables=_BUSY)]
    assert set(kinds) >= {
        "mounted",
        "swap",
        "open",
        "route",
        "session",
        "enslaved",
        "vfs",
        "display",
        "input",
        "held",
        "libvirt",
    }


def test_whatever_vanishes_nothing_is_raised(tree: Tree) -> None:
    root = tree(busy())
    before = told(root, tables=_BUSY)
    aside = root / "aside"
    paths = sorted(path for path in root.rglob("*"))
    assert len(paths) > 120
    for path in paths:
        path.rename(aside)
        findings(use(root, tables=_BUSY))
        Usage(root).holders(_A)
        aside.rename(path)
    assert told(root, tables=_BUSY) == before


def test_whatever_cannot_be_read_nothing_is_raised(tree: Tree) -> None:
    """A folder in the place of a file answers with another error than that it is not there."""
    root = tree(busy())
    before = told(root, tables=_BUSY)
    aside = root / "aside"
    for path in [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]:
        path.rename(aside)
        path.mkdir()
        findings(use(root, tables=_BUSY))
        Usage(root).holders(_A)
        path.rmdir()
        aside.rename(path)
    assert told(root, tables=_BUSY) == before


def test_this_hosts_own_devices_can_be_looked_at() -> None:
    usage = Usage()
    for name in os.listdir("/sys/bus/pci/devices") if Path("/sys/bus/pci/devices").exists() else ():
        device = DeviceId("pci", name)
        findings(usage.of(device))
        usage.holders(device)
