# SPDX-License-Identifier: LGPL-2.1-or-later
"""Find the candidates of many devices that need not exist, and print as JSON how long it took.

ROOT has lib/modules/RELEASE with the module tables. The same is done with 300,000 lines made up from theirs. Beside it
stands the way in which libvirt looks for a variant: for each device the whole of modules.alias is read anew. To be run
with flavourd's modules on PYTHONPATH, in the guest or elsewhere.
"""

import json
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from flavourd.candidates import candidates
from flavourd.flavour import FlavourOnBus, Universal
from flavourd.kmod import Kmod

_PREFIX, _UNIVERSAL = "vfio_pci", "vfio_pci"
_FLAVOUR = FlavourOnBus(Universal(_UNIVERSAL, "vfio-pci"), _PREFIX, needs_iommu_group=True)
_MANY_LINES = 300_000
_TABLES = ("modules.alias", "modules.builtin", "modules.builtin.modinfo", "modules.dep", "modules.softdep")
# The fields of a PCI device's alias, with their lengths.
_FIELDS = {"v": 8, "d": 8, "sv": 8, "sd": 8, "bc": 2, "sc": 2, "i": 2}
_PATTERN = re.compile("".join(rf"{key}([0-9A-F]{{{length}}}|\*)" for key, length in _FIELDS.items()))
_VENDORS = ("8086", "10DE", "15B3", "14E4", "1AF4", "144D", "1002", "1022", "1DD8", "19E5")
_CLASSES = ("010802", "020000", "030000", "030200", "040300", "060400", "0C0330", "0B4000", "120000")
_random = random.Random(1)  # the same devices in each run


def main(root: str, release: str, devices: int, rounds: int, rivals: int) -> None:
    place = Path(root) / "lib/modules" / release
    lines = (place / "modules.alias").read_text(encoding="utf-8").splitlines()
    aliases = modaliases(lines, devices)
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder)
        more(many / "lib/modules" / release, place, lines)
        told = {
            name: [one(at, release, aliases, rivals) for _ in range(rounds)]
            for name, at in {"real": Path(root), "many": many}.items()
        }
    print(json.dumps({"devices": devices, "rivals": rivals, "lines": len(lines), "many_lines": _MANY_LINES} | told))


def one(root: Path, release: str, aliases: list[str], rivals: int) -> dict[str, float]:
    """One round, in seconds: the index is read; asked for again; all devices; and the other way, for a few of them."""
    kmod = Kmod(root, release)
    began = time.monotonic()
    index = kmod.index(frozenset((_PREFIX,)), frozenset((_UNIVERSAL,)))
    read = time.monotonic()
    assert kmod.index(frozenset((_PREFIX,)), frozenset((_UNIVERSAL,))) is index
    again = time.monotonic()
    found = [candidates(alias, "pci", _FLAVOUR, index)[0][0].module for alias in aliases]
    done = time.monotonic()
    assert not index.warnings, index.warnings
    # First those that a variant takes: both ways must find the same.
    pairs = sorted(zip(aliases, found, strict=True), key=lambda each: each[1] == _UNIVERSAL)
    some = pairs[: rivals // 2] + pairs[rivals // 2 - rivals :]
    start = time.monotonic()
    others = [as_libvirt(root / "lib/modules" / release / "modules.alias", alias) for alias, _ in some]
    end = time.monotonic()
    differ = [(alias, ours, other) for (alias, ours), other in zip(some, others, strict=True) if ours != other]
    assert not differ, differ
    return {
        "read": read - began,
        "again": again - read,
        "resolve": done - again,
        "rival": (end - start) / len(some),
        "variants": float(len(index.aliases)),
        "found": float(sum(module != _UNIVERSAL for module in found)),
    }


def as_libvirt(table: Path, alias: str) -> str:
    """The module of the alias with the fewest wildcards, as virPCIDeviceFindBestVFIOVariant() finds it."""
    text = table.read_text(encoding="utf-8")
    device = fields(alias)
    best, fewest = _UNIVERSAL, len(_FIELDS) + 1
    head = f"\nalias {_PREFIX}:"
    at = text.find(head)
    while at >= 0:
        end = text.find("\n", at + 1)
        pattern, _, module = text[at + len(head) : end].partition(" ")
        wanted = fields(pattern)
        if all(want in ("*", has) for want, has in zip(wanted, device, strict=True)):
            wildcards = wanted.count("*")
            if wildcards < fewest:
                best, fewest = module.replace("-", "_"), wildcards
        at = text.find(head, end)
    return best


def fields(alias: str) -> tuple[str, ...]:
    found = _PATTERN.search(alias)
    assert found, alias
    return found.groups()


def modaliases(lines: list[str], count: int) -> list[str]:
    """Devices of which one half is in some table of the kernel's, and the other half is of well-known vendors."""
    tables = [words[1] for words in map(str.split, lines) if re.match(rf"(pci|{_PREFIX}):v", words[1])]
    known = [pattern for pattern in tables if _PATTERN.search(pattern)]
    # Of what a variant lists, all; there are few.
    listed = [pattern for pattern in known if pattern.startswith(f"{_PREFIX}:v0")]
    half = (listed + [_random.choice(known) for _ in range(count)])[: count // 2]
    found = ["pci:" + "".join(map(concrete, _FIELDS, fields(pattern))) for pattern in half]
    found += [ordinary() for _ in range(count - len(found))]
    _random.shuffle(found)
    return found


def concrete(key: str, value: str) -> str:
    return key + (hexadecimal(_FIELDS[key]) if value == "*" else value)


def ordinary() -> str:
    vendor, kind = _random.choice(_VENDORS), _random.choice(_CLASSES)
    ids = f"v0000{vendor}d0000{hexadecimal(4)}sv0000{vendor}sd0000{hexadecimal(4)}"
    return f"pci:{ids}bc{kind[:2]}sc{kind[2:4]}i{kind[4:]}"


def hexadecimal(length: int) -> str:
    return f"{_random.getrandbits(4 * length):0{length}X}"


def more(place: Path, original: Path, lines: list[str]) -> None:
    """The same tables, but in modules.alias each line stands many times, with other ids."""
    place.mkdir(parents=True)
    for name in _TABLES[1:]:
        shutil.copy(original / name, place / name)
    head, *real = lines
    made = [real[number % len(real)] for number in range(_MANY_LINES - 1)]
    made[len(real) :] = [other(line) for line in made[len(real) :]]
    # As depmod writes them: a module's lines stand together.
    made.sort(key=lambda line: line.rpartition(" ")[2])
    (place / _TABLES[0]).write_text("\n".join([head, *made, ""]), encoding="utf-8")


def other(line: str) -> str:
    """PCI and USB devices, which most of the lines are for, get other ids."""
    return re.sub(r"(?<=d0000)[0-9A-F]{4}|(?<=p)[0-9A-F]{4}(?=d)", lambda _: hexadecimal(4), line, count=1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
