# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which running domain of libvirt has which PCI device, by the status files that libvirt keeps for itself.

libvirt is not asked: its daemon may be the one that waits for us.
"""

from collections import defaultdict
from pathlib import Path

from flavourd.usage import peek

_LARGEST = 4 << 20


class Libvirt:
    def __init__(self, root: Path = Path("/")) -> None:
        self._home = str(root / "run/libvirt/qemu")

    def domains(self) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
        """By PCI address the domains that have it; and the files that could not be read."""
        found: dict[str, list[str]] = defaultdict(list)
        unreadable = []
        for file in peek.names(self._home):
            if not file.endswith(".xml"):
                continue
            try:
                with open(f"{self._home}/{file}", "rb") as stream:
                    domain, addresses = _pci_devices(stream.read(_LARGEST))
            except FileNotFoundError:  # it has been shut down
                continue
            except (OSError, ValueError, SyntaxError):
                unreadable.append(f"{self._home}/{file}")
                continue
            for address in addresses:
                found[address].append(domain)
        return {address: tuple(dict.fromkeys(names)) for address, names in found.items()}, tuple(unreadable)


def _pci_devices(text: bytes) -> tuple[str, list[str]]:
    """Name of the domain, and addresses of the host's PCI devices in it, whether as hostdev, interface or NVMe disk:
    each has a <source> with an <address>. xml.etree's ParseError, a SyntaxError, or ValueError if it makes no sense.
    """
    from xml.etree import ElementTree  # hosts without libvirt do not pay for it

    domain = ElementTree.fromstring(text).find("domain")  # noqa: S314 - written by libvirt for root only
    name = domain.findtext("name") if domain is not None else None
    if domain is None or not name:
        raise ValueError("there is no domain in it")
    fields = ("domain", "bus", "slot", "function")
    found = [address.attrib for source in domain.iter("source") for address in source.findall("address")]
    numbers = [[int(one[field], 0) for field in fields] for one in found if all(field in one for field in fields)]
    return name, ["{:04x}:{:02x}:{:02x}.{:x}".format(*one) for one in numbers]
