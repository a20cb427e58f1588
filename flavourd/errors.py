# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why a request was not carried out: stable codes, each with its meaning, and the error that carries one.

Codes are interface: scripts match them in the journal (`FLAVOURD_CODE=`), `docs/errors.md` explains every one of them.
"""

from dataclasses import dataclass
from enum import StrEnum

from flavourd.use import Finding


class Code(StrEnum):
    # The request itself makes no sense
    EMPTY_FLAVOUR = "empty-flavour"
    UNKNOWN_FLAVOUR = "unknown-flavour"
    FOREIGN_MODALIAS = "foreign-modalias"
    OVERTAKEN = "overtaken"
    NOT_A_CANDIDATE = "not-a-candidate"
    UNKNOWN_GUARD = "unknown-guard"
    NOT_PERMITTED = "not-permitted"
    WITHDRAWN = "withdrawn"
    STOPPING = "stopping"
    TOO_MANY = "too-many"
    # The device cannot take it
    NO_DEVICE = "no-device"
    BAD_NAME = "bad-name"
    NO_OVERRIDE = "no-override"
    FLAVOUR_NOT_ON_BUS = "flavour-not-on-bus"
    BRIDGE = "bridge"
    NO_IOMMU_GROUP = "no-iommu-group"
    RELEASING = "releasing"
    STUCK = "stuck"
    OTHER_DRIVER = "other-driver"
    IN_USE = "in-use"
    KIN_STUCK = "kin-stuck"
    CONTESTED = "contested"
    TOGETHER = "together"
    NO_SRIOV = "no-sriov"
    VFS_IN_USE = "vfs-in-use"
    # Nobody took the device
    NO_CANDIDATE = "no-candidate"
    ALL_REFUSED = "all-refused"
    NATIVE_REFUSED = "native-refused"
    BUSY = "busy"
    # Something around it failed
    HOST = "host"
    INTERNAL = "internal"
    # Configuration and sources of knowledge
    UEVENTS_LOST = "uevents-lost"
    INDEX_UNREADABLE = "index-unreadable"
    CONFIG = "config"
    POLICY = "policy"
    UNEXPECTED = "unexpected-hardware"
    MAX_CHANGES = "max-changes"
    RECORD = "record"


@dataclass(eq=False)
class FlavourError(Exception):
    """A refusal or failure in the user's words.

    sentence: what happened to which device; hint: what to do next ("" if nothing helps); errno: what the kernel said,
    if it did; findings: what keeps the host from giving the device away.
    """

    code: Code
    sentence: str
    hint: str = ""
    errno: int | None = None
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        return f"{self.sentence} [{self.code}]" + (f"; {self.hint}" if self.hint else "")
