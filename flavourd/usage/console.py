# SPDX-License-Identifier: LGPL-2.1-or-later
"""How people reach the host by hand: its console on a graphics device, its keyboards."""

import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from flavourd.usage import peek
from flavourd.usage.below import Node
from flavourd.usage.procfs import Procfs

# The framebuffer that the firmware left, as it is called in /proc/iomem: by the platform device of it (BOOTFB,
# drivers/firmware/sysfb_simplefb.c), or by the driver that uses it. A native driver that takes the device over removes
# it (aperture_remove_conflicting_pci_devices()).
_FIRMWARE = re.compile(r"BOOTFB|simple-framebuffer|simplefb|simpledrm|efifb|efidrm|vesafb|vesadrm")
_DISPLAY = "0x03"
_LONG = struct.calcsize("l") * 8
# KEY_Q … KEY_P, KEY_A … KEY_L, KEY_Z … KEY_M of <linux/input-event-codes.h>
_LETTERS = sum(1 << key for keys in (range(16, 26), range(30, 39), range(44, 51)) for key in keys)


class Console:
    def __init__(self, root: Path, procfs: Procfs) -> None:
        self._sys = f"{os.path.realpath(root).rstrip('/')}/sys"
        self._procfs = procfs

    def on(self, name: str, place: str, nodes: Iterable[Node]) -> str | None:
        """The framebuffer of the console that is on this PCI device (name: its address); None if there is none."""
        if not (peek.text(f"{place}/class") or "").startswith(_DISPLAY):
            return None
        if left := self._left_by_firmware(name):
            return left
        shown = sorted(node.name for node in nodes if node.kind == "graphics" or node.name.startswith("card"))
        # Only VGA devices have boot_vga; the console of others is on the first framebuffer.
        its = peek.text(f"{place}/boot_vga") == "1" or "fb0" in shown
        return shown[-1] if shown and its and self._graphical() else None

    def only_keyboards(self, place: str) -> tuple[str, ...]:
        """Names of all the host's keyboards, if they stand below this directory; () if another one is elsewhere."""
        found = []
        for name in peek.names(f"{self._sys}/class/input"):
            home = os.path.realpath(f"{self._sys}/class/input/{name}")
            keys = peek.text(f"{home}/capabilities/key")
            if keys and f"{self._sys}/devices/virtual/" not in home and _types_letters(keys):
                if not peek.below(home, place):
                    return ()
                found.append(peek.text(f"{home}/name") or name)
        return tuple(found)

    def _left_by_firmware(self, name: str) -> str | None:
        """Lines of /proc/iomem are `START-END : NAME`, two spaces deeper below what contains them."""
        depth = None
        for line in self._procfs.lines("iomem") or ():
            here = len(line) - len(line.lstrip(" "))
            word = line.partition(" : ")[2]
            if depth is not None and here <= depth:
                depth = None
            if depth is None and word == name:
                depth = here
            elif depth is not None and _FIRMWARE.fullmatch(word):
                return word
        return None

    def _graphical(self) -> bool:
        """A framebuffer is the kernel's console."""
        consoles = f"{self._sys}/class/vtconsole"
        return any(
            "frame buffer" in (peek.text(f"{consoles}/{name}/name") or "")
            and peek.text(f"{consoles}/{name}/bind") == "1"
            for name in peek.names(consoles)
        )


def _types_letters(words: str) -> bool:
    """words: bits of the keys that it has, in hexadecimal longs, the lowest one last."""
    keys = 0
    for word in words.split():
        keys = keys << _LONG | int(word, 16)
    return keys & _LETTERS == _LETTERS
