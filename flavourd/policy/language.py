# SPDX-License-Identifier: LGPL-2.1-or-later
"""The language of policy files (flavourd.policy(5)), as the dataclasses that a file is decoded into.

Whatever a single value must look like stands in its type, so that the decoder and the JSON Schema say the same of it.
What needs more than one value, or the host, is checked by `flavourd.policy.sense`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from flavourd.policy.kinds import Number, Text, key
from flavourd.use import Guard, Severity

# As sysfs has it, `0x` or not: `8086`, `0x10de`. In quotes, for YAML would read most of them as numbers.
HexId = Annotated[str, Text(r"(0[xX])?[0-9a-fA-F]{1,4}", 'a PCI id of one to four hex digits, like "8086"')]
# One code or word, or `code/mask`.
ClassText = Annotated[
    str,
    Text(
        r"(0[xX])?[0-9a-fA-F]{2}([0-9a-fA-F]{2}){0,2}(/(0[xX])?[0-9a-fA-F]{1,6})?|[a-z][a-z0-9-]{1,31}",
        'a PCI class: two, four or six hex digits ("0108"), with a mask ("030000/ff0000"), or a name (ethernet)',
    ),
]
Ranges = Annotated[
    str,
    Text(r"\*|[0-9]{1,4}(-([0-9]{1,4})?)?(,[0-9]{1,4}(-([0-9]{1,4})?)?)*", 'numbers and ranges: "0-3,7", "8-", "*"'),
]
Serial = Annotated[
    str,
    Text(r"[0-9a-fA-F]{2}(-[0-9a-fA-F]{2}){7}", "a device serial number as lspci shows it, 00-80-ee-00-00-00-41-80"),
]
Glob = Annotated[str, Text(r"[^\0/\n]{1,200}", "a name, or a pattern with * and ?")]
AddressGlob = Annotated[str, Text(r"[^\0\n]{1,500}", 'an address ("0000:65:00.0"), BUS/NAME, or a pattern of these')]
PathGlob = Annotated[
    str,
    Text(
        r"[0-9a-fA-F?*]{1,8}:[0-9a-fA-F?*]{1,2}(/[0-9a-fA-F?*]{1,2}\.[0-7?*])*",
        'the bridges on the way, as DOMAIN:BUS/SLOT.FUNCTION/…: "0000:00/10.0/00.0"',
    ),
]
Word = Annotated[str, Text(r"[a-z][a-z0-9]{0,31}", "a flavour's name: lower-case letters and digits")]
CandidateText = Annotated[
    str,
    Text(
        r"@(alias|softdep|universal)|[A-Za-z0-9_*?][A-Za-z0-9_.*?\[\]-]{0,63}",
        "a module's name, a pattern (vfio_pci*), or @alias, @softdep, @universal",
    ),
]
ModuleGlob = Annotated[
    str, Text(r"[A-Za-z0-9_*?][A-Za-z0-9_.*?\[\]-]{0,63}", "a module's name, or a pattern (vfio_pci*)")
]
Account = Annotated[str, Text(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?|[0-9]{1,10}", "a user or group: its name or number")]
FileMode = Annotated[str, Text(r"0?[0-7]{3}", 'a mode of three octal digits in quotes, like "0660"')]
PropertyName = Annotated[str, Text(r"[A-Za-z_][A-Za-z0-9_]{0,63}", "a udev property's name, like ID_VENDOR_ID")]


@dataclass(frozen=True)
class Match:
    """Which devices: all selectors that are there must hold; of a list one entry must. Without any: every device.

    driver: the native one, also while a flavour has the device. pf: of a VF. vf: indexes of VFs. path: see PathGlob.
    slot: number or name of the physical slot, /sys/bus/pci/slots. serial: PCI Device Serial Number. property: of
    udev's, with patterns as values. all, any, not: of further selectors.
    """

    bus: Glob | tuple[Glob, ...] | None = None
    address: AddressGlob | tuple[AddressGlob, ...] | None = None
    vendor: HexId | tuple[HexId, ...] | None = None
    device: HexId | tuple[HexId, ...] | None = None
    subsystem_vendor: HexId | tuple[HexId, ...] | None = field(default=None, metadata=key("subsystem-vendor"))
    subsystem_device: HexId | tuple[HexId, ...] | None = field(default=None, metadata=key("subsystem-device"))
    class_: ClassText | tuple[ClassText, ...] | None = field(default=None, metadata=key("class"))
    modalias: AddressGlob | tuple[AddressGlob, ...] | None = None
    driver: Glob | tuple[Glob, ...] | None = None
    pf: AddressGlob | tuple[AddressGlob, ...] | None = None
    vf: Ranges | None = None
    path: PathGlob | tuple[PathGlob, ...] | None = None
    slot: Glob | tuple[Glob, ...] | None = None
    serial: Serial | tuple[Serial, ...] | None = None
    property: Mapping[PropertyName, Glob] | None = None
    all: "tuple[Match, ...] | None" = None
    any: "tuple[Match, ...] | None" = None
    not_: "Match | None" = field(default=None, metadata=key("not"))


@dataclass(frozen=True)
class Expect:
    """Ids that the device must have, or the rule does nothing with it and no later rule is asked: hardware moves."""

    vendor: HexId | None = None
    device: HexId | None = None
    subsystem_vendor: HexId | None = field(default=None, metadata=key("subsystem-vendor"))
    subsystem_device: HexId | None = field(default=None, metadata=key("subsystem-device"))
    serial: Serial | None = None


@dataclass(frozen=True)
class NamedCandidate:
    """force: whether or not the module's table lists the device."""

    module: ModuleGlob
    force: bool = False


class When(StrEnum):
    """What a rule does with a device (compare usbguard's PresentDevicePolicy and InsertedDevicePolicy)."""

    APPLY = "apply"
    KEEP = "keep"  # leave it as it is


class Mode(StrEnum):
    ENFORCE = "enforce"  # and mend it when somebody else changes it
    PREFER = "prefer"  # once; what somebody changes afterwards is told and left
    OBSERVE = "observe"  # only tell


@dataclass(frozen=True)
class DeviceNode:
    """Whose /dev/vfio/GROUP and /dev/vfio/devices/vfioN become."""

    owner: Account | None = None
    group: Account | None = None
    mode: FileMode | None = None


@dataclass(frozen=True)
class Rule:
    """One rule; the first that matches a device holds for it.

    candidates: modules to be tried, in this order and no other. deny: modules that are never tried. guards: what a
    finding means for this rule. group: with all of its IOMMU group, or not at all. present: for devices that are there
    when flavourd starts; inserted: for those that come later. max_changes: if the rule would change more devices than
    these at once, it changes none. vfs: how many VFs a PF is to have.
    """

    flavour: Word
    match: Match = Match()
    name: Annotated[str, Text(r"[^\0\n]{1,100}", "a name of one line")] | None = None
    expect: Expect | None = None
    candidates: tuple[CandidateText | NamedCandidate, ...] = ()
    deny: tuple[ModuleGlob, ...] = ()
    guards: Mapping[Guard, Severity] = field(default_factory=dict)
    group: bool = False
    present: When = When.APPLY
    inserted: When = When.APPLY
    mode: Mode = Mode.ENFORCE
    device_node: DeviceNode | None = field(default=None, metadata=key("device-node"))
    max_changes: Annotated[int, Number(1, 65535)] | None = field(default=None, metadata=key("max-changes"))
    vfs: Annotated[int, Number(0, 65535)] | None = None


@dataclass(frozen=True)
class PolicyFile:
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class PlacedRule:
    """A rule and where it stands. number: from 0, over all files; file, line: of its first key."""

    number: int
    rule: Rule
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" ({self.rule.name})" if self.rule.name else "")


@dataclass(frozen=True)
class Policy:
    """All rules in force, in their order. files: that they were read from, in that order."""

    rules: tuple[PlacedRule, ...] = ()
    files: tuple[str, ...] = ()
