# SPDX-License-Identifier: LGPL-2.1-or-later
"""Read the daemon's own settings from flavourd.yaml; without it the defaults hold."""

import grp
from dataclasses import dataclass, field
from pathlib import Path

from flavourd.errors import Code, FlavourError
from flavourd.policy.files import read_file


@dataclass(frozen=True)
class Access:
    """change: names of groups whose members may switch devices and reload, as root may."""

    change: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    access: Access = field(default_factory=Access)

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
