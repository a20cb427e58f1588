# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was measured, and where: files that are kept, from which the report can be written anew."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from tests.vm.hardware import MEMORY, accelerator
from tests.vm.machine import Machine

_HERE = Path(__file__).parent
_RAW = _HERE / "raw"


@dataclass(frozen=True)
class Place:
    """The machine and its software, in words. processors: the guest's."""

    emulation: str
    host: str
    processors: int
    memory: str
    debian: str
    kernel: str

    @classmethod
    def of(cls, vm: Machine) -> Self:
        version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"version (\S+)", version)
        way = "KVM" if accelerator() == "kvm" else "software emulation"
        return cls(
            emulation=f"QEMU {found[1] if found else 'of an unknown version'} with {way}",
            host=f"{os.cpu_count()} processors ({_processor()})",
            processors=int(vm.run("nproc").out),
            memory=MEMORY,
            debian=vm.run("cat /etc/debian_version").out.strip(),
            kernel=vm.run("uname -r").out.strip(),
        )


@dataclass(frozen=True)
class Record:
    """One figure's numbers. commit: flavourd's, with `-dirty` if the files were others than the commit's."""

    figure: str
    place: Place
    date: str
    commit: str
    measured: dict[str, Any]

    @classmethod
    def now(cls, figure: str, place: Place, measure: Callable[[], dict[str, Any]]) -> Self:
        commit = _commit()  # before: somebody may go on to work meanwhile
        return cls(figure, place, datetime.now(UTC).date().isoformat(), commit, measure())


def keep(record: Record) -> None:
    _RAW.mkdir(exist_ok=True)
    text = json.dumps(asdict(record), indent=1, ensure_ascii=False)
    # Thousands of numbers: one line for each list of them.
    text = re.sub(r"\[\s+([-\d.e+,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    _path(record.figure).write_text(f"{text}\n", encoding="utf-8")


def kept(figures: Iterable[str]) -> list[Record]:
    """Those of the figures that have been measured."""
    texts = (_path(name).read_text(encoding="utf-8") for name in figures if _path(name).exists())
    found = map(json.loads, texts)
    return [Record(**(each | {"place": Place(**each["place"])})) for each in found]


def _path(figure: str) -> Path:
    return _RAW / f"{figure}.json"


def _processor() -> str:
    found = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else "of an unknown kind"


def _commit() -> str:
    # The results themselves are written meanwhile, figure after figure.
    others = [":!/benchmarks/raw", ":!/benchmarks/plots", ":!/benchmarks/RESULTS.md", ":!/README.md"]
    changed = _git("status", "--porcelain", "--", ".", *others)
    return _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=_HERE.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()
