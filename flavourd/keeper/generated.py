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
from flavourd.keeper.look import Eyes, present
from flavourd.policy.language import DeviceNode
from flavourd.policy.nodes import node_rules
from flavourd.traits import Trait
from flavourd.udevdb import UdevDatabase
from flavourd.udevrules import NODES, POLICY, UdevRules

# Where flavourd/pci-serial is, which the rules name by its path; flavourd.early makes the same text.
_LIBDIR = str(Path(flavourd.__file__).resolve().parents[3])
_SECONDS = 5


class Generated:
    """look: does work in a worker, for files are written and udevd is told by a program. What fails is told, and tried
    again with the next change: devices are switched all the same.
    """

    def __init__(self, root: Path, look: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._root, self._look = root, look
        self._policy = ""
        self._notes: tuple[str, ...] = ()
        self._serials = False
        self._written: tuple[str, str] | None = None

    def of(self, eyes: Eyes) -> None:
        """Another policy is in force, from the next `have` on."""
        policy, notes = _early_rules(eyes) if eyes.policy.rules else ("", ())
        for note in notes if notes != self._notes else ():
            logs.tell_of(note, logs.INFO, {})
        self._policy, self._notes = policy, notes
        self._serials = Trait.SERIAL in eyes.matcher.needs

    async def have(self, nodes: Mapping[DeviceId, DeviceNode]) -> None:
        """nodes: of the devices under policy whose nodes in /dev/vfio are to belong to somebody."""
        texts = self._policy, node_rules(nodes)
        # Most hosts have neither, and need no process to see that.
        if texts == self._written:
            return
        if not (any(texts) or UdevRules(self._root).exist()):
            self._written = texts
            return
        try:
            await self._look(partial(_write, self._root, texts, self._serials))
            self._written = texts
        except FlavourError as error:
            logs.tell_trouble(error, logs.WARNING)


def _early_rules(eyes: Eyes) -> tuple[str, tuple[str, ...]]:
    from flavourd.policy.early import early_rules  # who has no rules need not learn how udev is told them

    made = early_rules(eyes.policy, eyes.flavours, libdir=_LIBDIR)
    return made.text, made.notes


def _write(root: Path, texts: tuple[str, str], serials: bool) -> None:
    rules = UdevRules(root)
    changed = rules.write(*texts)
    if not changed:
        return
    rules.reload()
    if NODES in changed and texts[1]:  # nodes that are there already
        _trigger(["--subsystem-match=vfio", "--subsystem-match=vfio-dev"])
    if POLICY in changed and serials and (unknown := _without_serial(root)):
        _trigger(["--subsystem-match=pci", *(f"--sysname-match={name}" for name in unknown)])


def _without_serial(root: Path) -> list[str]:
    """Names of the PCI devices whose serial number is not known. Before Linux 6.18 it is udev that finds it.

    To the others nothing is told: to an admin's own rules another event is another request.
    """
    database, folder = UdevDatabase(root), root / "sys/bus/pci/devices"
    return [
        device.name
        for device in present(root, {"pci"})
        if not (folder / device.name / "serial_number").exists() and not database.properties(device)["FLAVOUR_SERIAL"]
    ]


def _trigger(which: list[str]) -> None:
    with suppress(OSError, subprocess.TimeoutExpired):  # at the next event of the device, then
        command = ["udevadm", "trigger", "--action=change", *which]
        subprocess.run(command, check=False, capture_output=True, timeout=_SECONDS)
