# SPDX-License-Identifier: LGPL-2.1-or-later
"""PCI classes by name, and what else a policy may write for a class (PCI Code and ID Assignment Specification)."""

import re
from collections.abc import Mapping

_BASE, _SUB, _WHOLE = 0xFF0000, 0xFFFF00, 0xFFFFFF
_CODE = re.compile(r"(?:0x)?([0-9a-f]{2}(?:[0-9a-f]{2}){0,2})(?:/(?:0x)?([0-9a-f]{1,6}))?", re.IGNORECASE)

# Base class, subclass and programming interface, and which of their bits count.
CLASSES: Mapping[str, tuple[int, int]] = {
    "storage": (0x010000, _BASE),
    "scsi": (0x010000, _SUB),
    "ide": (0x010100, _SUB),
    "raid": (0x010400, _SUB),
    "sata": (0x010600, _SUB),
    "ahci": (0x010601, _WHOLE),
    "sas": (0x010700, _SUB),
    "nvm": (0x010800, _SUB),
    "nvme": (0x010802, _WHOLE),
    "network": (0x020000, _BASE),
    "ethernet": (0x020000, _SUB),
    "infiniband": (0x020700, _SUB),
    "display": (0x030000, _BASE),
    "vga": (0x030000, _SUB),
    "3d": (0x030200, _SUB),  # two hex digits, too, but no class 3d was ever given out
    "multimedia": (0x040000, _BASE),
    "video": (0x040000, _SUB),
    "audio": (0x040300, _SUB),
    "memory": (0x050000, _BASE),
    "cxl": (0x050200, _SUB),
    "bridge": (0x060000, _BASE),
    "pci-bridge": (0x060400, _SUB),
    "communication": (0x070000, _BASE),
    "serial": (0x070000, _SUB),
    "system": (0x080000, _BASE),
    "input": (0x090000, _BASE),
    "serial-bus": (0x0C0000, _BASE),
    "firewire": (0x0C0000, _SUB),
    "usb": (0x0C0300, _SUB),
    "uhci": (0x0C0300, _WHOLE),
    "ohci": (0x0C0310, _WHOLE),
    "ehci": (0x0C0320, _WHOLE),
    "xhci": (0x0C0330, _WHOLE),
    "fibre-channel": (0x0C0400, _SUB),
    "smbus": (0x0C0500, _SUB),
    "wireless": (0x0D0000, _BASE),
    "wifi": (0x028000, _SUB),  # Linux and the makers of the cards agree on "other network controller"
    "encryption": (0x100000, _BASE),
    "signal-processing": (0x110000, _BASE),
    "accelerator": (0x120000, _BASE),
}


def class_of(text: str) -> tuple[int, int]:
    """(code, mask) of a name or a code; a device is of the class if its own code has the same bits under the mask.

    A code stands for all below it: `01` for storage, `0108` for NVM, `010802` for that alone. A mask is written from
    the left, as the code is: `030000/ff0000`, `03/ff`. ValueError for a word that is neither.
    """
    if text in CLASSES:
        return CLASSES[text]
    if not (match := _CODE.fullmatch(text)):
        raise ValueError(f"{text!r} is no PCI class")
    code, mask = match[1], match[2] or "f" * len(match[1])
    bits = int(mask.ljust(6, "0"), 16)
    return int(code.ljust(6, "0"), 16) & bits, bits
