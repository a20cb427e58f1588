# SPDX-License-Identifier: LGPL-2.1-or-later
"""What somebody wants: one device in one flavour. Whatever its origin, every request goes the same way."""

from dataclasses import dataclass
from enum import StrEnum

from flavourd.device import DeviceId
from flavourd.use import Guard, Severity


class Origin(StrEnum):
    """Where a request came from; those that udev brings also stand in udev/90-flavourd.rules."""

    ATTRIBUTE = "attribute"  # a file driver_flavour: the kernel module's, DRIVER_FLAVOUR=, or that below /run/flavourd
    UEVENT = "uevent"  # a synthetic uevent: SYNTH_ARG_FLAVOUR=
    MODALIAS = "modalias"  # a modalias with a flavour's prefix
    RULE = "rule"  # an admin's own udev rule: ENV{FLAVOUR}=
    POLICY = "policy"  # a rule of /etc/flavourd/policy.d
    VARLINK = "varlink"  # somebody on the control socket, flavourctl for one
    RECOVERY = "recovery"  # what a daemon that died had begun
    PUT_BACK = "put-back"  # what a worker that died has left half done


# What flavourd asks for by itself: whether it still should is seen anew after a crash.
OWN = frozenset({Origin.POLICY, Origin.PUT_BACK})


@dataclass(frozen=True)
class Request:
    """wanted: the word that was asked for, a flavour's name or a modalias with a flavour's prefix.

    uuid: SYNTH_UUID of a synthetic uevent, told with the outcome so that whoever asked can find the answer. seqnum: of
    the uevent that brought the request, growing with time for each device; 0 for requests that no uevent brought.

    candidates: modules to be tried, in this order and no other: names, patterns (`vfio_pci*`), and `@alias`,
    `@softdep`, `@universal` for all that these sources give; empty: what the kernel's tables give. forced: those of
    the names that are tried whatever their tables say. deny: names and patterns of modules that are not tried.

    force: names of guards to be passed over. guards: what a finding means for this request, where it is not what the
    settings say. beside: other devices that are asked for in the same breath, and told of by outcomes of their own.

    vfs: how many VFs the device, a PF, shall have, too. rule: of the policy, that asks for it (its place). asker: who
    is at the other end of the control socket, or for whom that one asks. instance: of the device that is meant (see
    Device), 0 if it is not known; what stands at its address later is another one. begun: when a daemon before this one
    began it, in seconds since boot. ticket: by which the kernel module knows the writer who waits for the answer.
    """

    device: DeviceId
    wanted: str
    origin: Origin
    uuid: str | None = None
    seqnum: int = 0
    candidates: tuple[str, ...] = ()
    force: frozenset[str] = frozenset()
    beside: frozenset[DeviceId] = frozenset()
    asker: str | None = None
    instance: int = 0
    begun: float | None = None
    forced: frozenset[str] = frozenset()
    deny: tuple[str, ...] = ()
    guards: tuple[tuple[Guard, Severity], ...] = ()
    vfs: int | None = None
    rule: str | None = None
    ticket: int | None = None

    def __str__(self) -> str:
        return f"{self.device} -> {self.wanted} ({self.origin})"
