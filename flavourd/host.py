# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine as a worker sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.journal import Journal
from flavourd.kin import Kin
from flavourd.kmod import Kmod
from flavourd.kmsg import Kmsg
from flavourd.sysfs import Sysfs
from flavourd.usage.look import Usage


@dataclass(frozen=True)
class Host:
    sysfs: Sysfs
    kmod: Kmod
    journal: Journal
    kin: Kin
    usage: Usage
    kmsg: Callable[[DeviceId], Kmsg]

    @classmethod
    def at(cls, root: Path) -> "Host":
        kmsg = partial(Kmsg, path=root / "dev/kmsg")
        return cls(Sysfs(root), Kmod(root), Journal(root), Kin(root), Usage(root), kmsg)
