# SPDX-License-Identifier: LGPL-2.1-or-later
"""The udev rules that are made from the policy, kept as they are to be."""

import subprocess
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import flavourd
from flavourd import logs
from flavourd.device import DeviceId
from flavourd.errors import FlavourError
from flavourd.keeper.look import Eyes
from flavourd.policy.early import early_rules
from flavourd.policy.language import DeviceNode
from flavourd.policy.nodes import node_rules
from flavourd.traits import Trait
from flavourd.udevrules import UdevRules

# Where flavourd/pci-serial is, which the rules name by its path; flavourd.early makes the same text.
_LIBDIR = str(Path(flavourd.__file__).resolve().parents[3])
_SECONDS = 5


class Generated:
    """look: does work in a worker, for files are written and udevd is told by a program. What fails is told, and tried
    again with the next change: devices are switched all the same.
    """

    def __init__(self, root: Path, look: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._rules, self._look = UdevRules(root), look
        self._policy = ""
        self._notes: tuple[str, ...] = ()
        self._serials = False
        self._written: tuple[str, str] | None = None

    def of(self, eyes: Eyes) -> None:
        """Another policy is in force, from the next `have` on."""
        made = early_rules(eyes.policy, eyes.flavours, libdir=_LIBDIR)
        for note in made.notes if made.notes != self._notes else ():
            logs.tell_of(note, logs.INFO, {})
        self._policy, self._notes = made.text, made.notes
        self._serials = Trait.SERIAL in eyes.matcher.needs

    async def have(self, nodes: Mapping[DeviceId, DeviceNode]) -> None:
        """nodes: of the devices under policy whose nodes in /dev/vfio are to belong to somebody."""
        texts = self._policy, node_rules(nodes)
        if texts == self._written:
            return
        # Nodes that are there already; and before Linux 6.18 it is udev that finds serial numbers.
        again = ["vfio", "vfio-dev"] if texts[1] else []
        again += ["pci"] if self._serials else []
        try:
            await self._look(partial(_write, self._rules, texts, again))
            self._written = texts
        except FlavourError as error:
            logs.tell_trouble(error, logs.WARNING)


def _write(rules: UdevRules, texts: tuple[str, str], again: list[str]) -> None:
    if rules.write(*texts):
        rules.reload()
        if again:
            subsystems = [f"--subsystem-match={name}" for name in again]
            command = ["udevadm", "trigger", "--action=change", *subsystems]
            with suppress(OSError, subprocess.TimeoutExpired):  # at the next event of the device, then
                subprocess.run(command, check=False, capture_output=True, timeout=_SECONDS)
