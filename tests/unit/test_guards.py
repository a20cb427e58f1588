# SPDX-License-Identifier: LGPL-2.1-or-later
"""Words of findings, from facts alone; how the facts are found is in test_usage.py."""

from dataclasses import fields

import pytest

from flavourd.device import DeviceId
from flavourd.facts import (
    DefaultRoute,
    Holder,
    Interface,
    Layer,
    Mount,
    Opened,
    Sessions,
    Unseen,
    Upper,
    Use,
    Volume,
)
from flavourd.guards import findings
from flavourd.use import Finding, Guard, Process
from flavourd.wording import listed, printable

_QEMU = Process(9, "qemu", "vm.scope")
_ELSEWHERE = {Guard.TABLE, Guard.GROUP}
_ALL = Use(
    driver="native",
    volumes=(
        Volume("sda1", mounted=True, mounts=(Mount("/srv"),)),
        Volume("sda2", swap=True),
        Volume("md0", Layer.MD, ("sda3",)),
    ),
    opened=(Opened("/dev/sda", (_QEMU,)),),
    interfaces=(Interface("eth0", (Upper("br0", "bridge"),)),),
    away=True,
    routes=(DefaultRoute("IPv4", "eth0", ("eth0",)),),
    sessions=(Sessions("eth0", ("eth0",), ("192.0.2.1",), 1),),
    console="fb0",
    keyboards=("Keyboard",),
    holders=(Holder(_QEMU),),
    domains=("vm",),
)
_VF = DeviceId("pci", "0000:06:00.1")


def one(use: Use) -> Finding:
    (found,) = findings(use)
    return found


def test_what_is_used_for_nothing_has_no_findings() -> None:
    assert findings(Use()) == ()
    assert findings(Use(driver="e1000e", interfaces=(Interface("eth0"),), volumes=(Volume("sda"),))) == ()


def test_what_else_could_not_be_looked_at_is_no_finding() -> None:
    assert findings(Use(unknown=("open files",))) == ()


@pytest.mark.parametrize(
    ("unseen", "sentence"),
    [
        (Unseen(Guard.HELD, (), "why"), "it may be held through VFIO: why"),
        (Unseen(Guard.OPEN, ("/dev/a", "/dev/b"), "why"), "/dev/a and /dev/b may be open: why"),
        (Unseen(Guard.MOUNTED, ("sda",), "why"), "a filesystem on sda may be mounted: why"),
        (Unseen(Guard.ROUTE, ("eth0",), "why"), "a default route may lead through eth0: why"),
    ],
)
def test_what_may_be_in_use_without_being_seen_is_a_finding(unseen: Unseen, sentence: str) -> None:
    found = one(Use(unseen=(unseen,)))
    assert (found.guard, found.sentence) == (unseen.guard, sentence)
    assert found.hint


def test_every_guard_that_is_told_here_has_a_sentence_and_a_hint() -> None:
    found = findings(Use(**{field.name: getattr(_ALL, field.name) for field in fields(Use)} | {"vfs": ((_VF, Use()),)}))
    assert {finding.guard for finding in found} == set(Guard) - _ELSEWHERE
    assert all(finding.sentence and finding.hint for finding in found)


def test_findings_of_vfs_come_after_the_devices_own_with_their_names() -> None:
    found = findings(Use(vfs=((_VF, Use(driver="vfio-pci", holders=(Holder(_QEMU),))),), domains=("vm",)))
    assert [(finding.guard, finding.sentence) for finding in found] == [
        (Guard.VFS, "it is a PF with 1 VF enabled (1 of them with driver vfio-pci)"),
        (Guard.LIBVIRT, "domain vm of libvirt has it"),
        (Guard.HELD, "its VF pci/0000:06:00.1: it is held through VFIO"),
    ]
    assert found[2].processes == (_QEMU,)


def test_vfs_without_drivers_are_only_counted() -> None:
    assert one(Use(vfs=((_VF, Use()), (_VF, Use())))).sentence == "it is a PF with 2 VFs enabled"


def test_a_holder_for_certain_hides_one_that_may_be() -> None:
    found = one(Use(holders=(Holder(Process(8, "x"), certain=False), Holder(_QEMU))))
    assert found.processes == (_QEMU,)


def test_a_volume_that_carries_something_is_told_by_that() -> None:
    volumes = (
        Volume("luks", Layer.CRYPT, ("sda",), carries=True),
        Volume("md0p1", Layer.PARTITION, ("sda",)),
        Volume("sda", carries=True),
    )
    assert findings(Use(volumes=volumes)) == ()


def test_a_volume_that_is_mounted_and_carries_something_is_told() -> None:
    volume = Volume("vg-a", Layer.LVM, ("sda",), carries=True, mounted=True, mounts=(Mount("/"),))
    assert one(Use(volumes=(volume,))).guard is Guard.MOUNTED


def test_names_are_made_fit_for_logs_and_hints_for_shells() -> None:
    found = one(Use(volumes=(Volume("sda", mounted=True, mounts=(Mount("/a\x1b[2J\nb; rm -rf"),)),)))
    assert found.sentence == "sda is mounted at /a�[2J�b; rm -rf"
    assert found.hint == "umount '/a�[2J�b; rm -rf'"
    assert one(Use(domains=("a b",))).hint.startswith("shut it down (`virsh shutdown 'a b'`)")
    assert printable("Ünï /x") == "Ünï /x"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        (["a", "a"], "a"),
    ],
)
def test_lists_are_short(words: list[str], text: str) -> None:
    assert listed(words) == text
