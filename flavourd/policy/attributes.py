# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose the files driver_flavour below /run/flavourd/bus, and those beside them, are, as flavourd.yaml says it."""

import grp
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.policy.kinds import Text
from flavourd.policy.language import Account, AddressGlob

_Mode = Annotated[str, Text(r"0?[0246]{3}", 'a mode of three octal digits for reading and writing, like "0664"')]
_GROUP = "flavourd"  # of those who may look; made by systemd-sysusers
_LAST_ID = (1 << 32) - 2  # the next one means none (chown(2))


@dataclass(frozen=True)
class FileOwner:
    """As chown(2) and chmod(2) have them. mode: of driver_flavour; what is beside it, owner and group may read."""

    uid: int
    gid: int
    mode: int


@dataclass(frozen=True)
class FileAccess:
    """devices: pairs of a pattern and what holds for the devices that it matches; others: for the rest."""

    others: FileOwner
    devices: tuple[tuple[str, FileOwner], ...] = ()

    def of(self, device: DeviceId) -> FileOwner:
        names = (device.name, str(device))
        found = (owner for pattern, owner in self.devices if any(fnmatchcase(name, pattern) for name in names))
        return next(found, self.others)


@dataclass(frozen=True)
class AttributeOf:
    """Of some devices; what is left out is as for all others."""

    owner: Account | None = None
    group: Account | None = None
    mode: _Mode | None = None

    def _access(self, place: str, others: FileOwner) -> FileOwner:
        return FileOwner(
            others.uid if self.owner is None else _account(self.owner, _user, f"{place}, owner"),
            others.gid if self.group is None else _account(self.group, _group, f"{place}, group"),
            others.mode if self.mode is None else int(self.mode, 8),
        )


@dataclass(frozen=True)
class Attributes:
    """devices: by address or BUS/NAME, or a pattern of these; the first that matches holds."""

    owner: Account = "root"
    group: Account = _GROUP
    mode: _Mode = "0644"
    devices: Mapping[AddressGlob, AttributeOf] = field(default_factory=dict)

    def access(self) -> FileAccess:
        """With numbers; FlavourError(CONFIG) for an account that does not exist.

        The names are looked up when the file is read, not when somebody asks: a directory service may be slow.
        """
        place, root = "attributes", FileOwner(0, 0, 0)
        others = AttributeOf(self.owner, self.group, self.mode)._access(place, root)
        devices = self.devices.items()
        return FileAccess(
            others, tuple((pattern, one._access(f"{place}, devices, {pattern}", others)) for pattern, one in devices)
        )


def _user(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name == _GROUP:  # nobody but root may look then, either
            return 0
        raise


def _account(name: str, look_up: Callable[[str], int], place: str) -> int:
    """Number of a user or group, which may be told by its number."""
    try:
        number = int(name) if name.isdecimal() else look_up(name)
        if number > _LAST_ID:
            raise ValueError(f"there is no account {name}")
    except (KeyError, ValueError) as error:
        raise FlavourError(
            Code.CONFIG,
            f"flavourd.yaml, {place}: {error.args[0]}",
            "make the account, or mend the file; then systemctl reload flavourd",
        ) from error
    return number
