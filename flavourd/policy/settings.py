# SPDX-License-Identifier: LGPL-2.1-or-later
"""Read the daemon's own settings from flavourd.yaml; without it the defaults hold."""

import grp
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from flavourd.errors import Code, FlavourError
from flavourd.flavour import check_kernel_name
from flavourd.policy.attributes import Attributes
from flavourd.policy.files import read_file
from flavourd.policy.kinds import Number
from flavourd.use import SEVERITIES, Guard, Severity


@dataclass(frozen=True)
class Access:
    """change: names of groups whose members may switch devices and reload, as root may."""

    change: tuple[str, ...] = ()


class Then(StrEnum):
    """What becomes of a switch that was stuck, when the kernel lets go."""

    FINISH = "finish"  # go on with it: somebody wanted it
    DROP = "drop"  # put the device back: whoever wanted it has long been told that it was stuck


@dataclass(frozen=True)
class WhenStuck:
    then: Then = Then.FINISH


@dataclass(frozen=True)
class Settings:
    """guards: what a finding of each means, where it is not what flavourd.use.SEVERITIES says. serial_drivers: names of
    drivers whose devices are switched one at a time. reconcile_seconds: so often all devices under policy are looked
    at, whatever has been heard of them; 0: never. attributes: who may write to driver_flavour.
    """

    access: Access = field(default_factory=Access)
    guards: Mapping[Guard, Severity] = field(default_factory=dict)
    stuck: WhenStuck = field(default_factory=WhenStuck)
    serial_drivers: tuple[str, ...] = ("ioatdma",)
    reconcile_seconds: Annotated[int, Number(0, 86400)] = 300
    attributes: Attributes = field(default_factory=Attributes)

    def __post_init__(self) -> None:
        if self.guards.get(Guard.TABLE, Severity.ERROR) is not Severity.ERROR:
            raise ValueError(
                "guards, table: it is always an error, for it keeps drivers from hardware that they were not made for; "
                "who knows better says --force=table"
            )
        for name in self.serial_drivers:
            check_kernel_name("driver name", name)

    def severities(self) -> dict[Guard, Severity]:
        """Of every guard there is."""
        return SEVERITIES | dict(self.guards)

    def changers(self) -> frozenset[int]:
        """Numbers of the groups in access.change; FlavourError(CONFIG) for one that does not exist.

        The names are looked up when the file is read, not when somebody asks: a directory service may be slow.
        """
        try:
            return frozenset(grp.getgrnam(name).gr_gid for name in self.access.change)
        except (KeyError, ValueError) as error:
            raise FlavourError(
                Code.CONFIG,
                f"flavourd.yaml, access, change: {error.args[0]}",
                "make the group (groupadd), or mend the file; then systemctl reload flavourd",
            ) from error


def read_settings(root: Path = Path("/")) -> Settings:
    """Settings of this host; FlavourError(CONFIG) tells what is wrong in which file."""
    return read_file("flavourd.yaml", Settings, root, Settings()) or Settings()
