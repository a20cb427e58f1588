# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourctl tells, verb by verb, as transcripts in golden/*.txt.

Below each command stand its stdout, its stderr behind `! `, and its exit code if that is not 0.
"""

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flavourd import __version__
from flavourd.cli import codes
from flavourd.cli.__main__ import main
from flavourd.cli.exits import Exit

from .golden import host
from .golden.daemon import HANG_UP, Daemon, Script, error, more, reply

_FOLDER = Path(__file__).with_name("golden")
_REGENERATE = "FLAVOURD_REGENERATE"

# Transcript -> commands, each with the answers that differ from those of `host.ANSWERS`.
_TRANSCRIPTS: Mapping[str, list[tuple[str, dict[str, Script]]]] = {
    "list": [
        ("list", {}),
        ("list --no-legend --class ethernet", {}),
        ("list --class 0x01 --no-legend", {}),
        ("list --flavour vfio '06:*' 01:00.0", {}),
        ("list --driver -", {}),
        ("list --group 15 --json=short", {}),
        ("list --group 99", {}),
        ("list --json=pretty dma0", {"List": [reply(devices=host.TWINS[:1])]}),
    ],
    "tree": [
        ("tree", {}),
        ("tree --all", {"List": [reply(devices=[host.BRIDGE, host.MAC])]}),
        ("tree 00:1c.0", {}),
        ("tree 01:00.0", {}),
        ("tree --json=short 01:00.0", {"List": [reply(devices=[{"id": "pci/0000:01:00.0"}])]}),
    ],
    "show": [
        ("show 01:00.0", {}),
        ("show 41:00.0 enp6s0 06:10.0", {}),
        ("show platform/fe200000.ethernet --json=short", {}),
        ("show 01:00.1", {}),
    ],
    "set": [
        ("set 06:10.0 vfio", {"Set": host.switching(host.SWITCHED)}),
        ("set 06:10.0 0000:01:00.0 vfio", {"Set": host.switching(host.SWITCHED, host.SECOND_TRY)}),
        ("set 06:10.0 05:02.0 07:00.0 vfio", {"Set": host.switching(host.SWITCHED, host.UNDONE, host.BROKEN)}),
        ("set 05:02.0 vfio", {"Set": host.switching(host.UNDONE)}),
        ("set 05:02.0 vfio --json=short", {"Set": host.switching(host.UNDONE)}),
        ("set 01:00.0 vfio --dry-run", {"Set": [reply(plans=[host.PLANS["vfio"]])]}),
        ("set 06:10.0 00:1c.0 vfio --dry-run", {"Set": [reply(plans=[host.PLAN_ALREADY, host.PLAN_REFUSED])]}),
        (
            "set 06:10.0 vfoi",
            {
                "Set": [
                    error("Refused", code="unknown-flavour", message="no flavour vfoi", hint="did you mean vfio?"),
                ]
            },
        ),
        ("set 01:00.1 vfio", {"Set": [host.NO_DEVICE]}),
        ("set 06:10.0 vfio", {"Set": [error("NotPermitted", message="you may not switch devices", hint="use sudo")]}),
        (
            "set 06:10.0 05:02.0 07:00.0 vfio",
            {"Set": [*host.switching(host.SWITCHED, host.UNDONE, host.BROKEN)[:6], HANG_UP]},
        ),
        ("set 06:10.0 01:00.0 vfio --json=short", {"Set": [*host.switching(host.SWITCHED)[:3], HANG_UP]}),
        ("set 07:00.0 vfio", {"Set": host.switching(host.IN_USE)}),
        ("set 07:00.0 vfio --force open", {"Set": host.switching(host.ALTHOUGH)}),
        (
            "set 07:00.0 vfio --dry-run",
            {"Set": [reply(plans=[host.PLAN_IN_USE, host.PLAN_ALTHOUGH])]},
        ),
        # Others of the group are told of, too.
        ("set 05:02.0 vfio --group", {"Set": host.switching(host.TOGETHER, host.UNDONE)}),
        ("set 05:02.0 vfio --group", {"Set": [*host.switching(host.TOGETHER, host.UNDONE)[:4], HANG_UP]}),
        ("set 06:10.0 vfio", {"Set": [HANG_UP]}),
        ("set 06:10.0 vfio", {"Set": [reply(outcomes=[])]}),
    ],
    "reset": [
        ("reset 01:00.0", {"Reset": host.switching(host.BACK)}),
        ("reset 01:00.0 --dry-run", {"Reset": [reply(plans=[host.PLANS["default"]])]}),
        (
            "reset 01:00.0 --dry-run",
            {"Reset": [reply(plans=[host.PLANS["default"] | {"target": None}])]},
        ),
    ],
    "cancel": [
        ("cancel 06:10.0", {"Cancel": [reply(withdrawn=1)]}),
        ("cancel '06:*' 07:00.0", {"Cancel": [reply(withdrawn=12)]}),
        ("cancel 07:00.0", {"Cancel": [reply(withdrawn=0)]}),
        ("cancel '06:*' 07:00.0", {"Cancel": [reply(withdrawn=0)]}),
        ("cancel 07:00.0 --json=short", {"Cancel": [reply(withdrawn=3)]}),
        ("cancel 01:00.1", {"Cancel": [host.NO_DEVICE]}),
        ("cancel 07:00.0", {"Cancel": [error("NotPermitted", message="you may not switch devices", hint="use sudo")]}),
    ],
    "explain": [
        ("explain 01:00.0 vfio", {}),
        ("explain 01:00.0", {}),
        ("explain 01:00.0 default --json=short", {}),
        ("explain '05:*' vfio", {"Explain": [reply(plans=[host.PLAN_REFUSED])]}),
        ("explain 00:1c.0", {"Explain": [reply(plans=[host.PLAN_REFUSED])]}),
        ("explain native-refused", {}),
        ("explain undone", {}),
        ("explain mounted", {}),
        ("explain 07:00.0 vfio --force table", {"Explain": [reply(plans=[host.PLAN_IN_USE])]}),
        ("explain all-refusd", {}),
    ],
    "monitor": [("monitor", {}), ("monitor --json=short", {})],
    "history": [
        ("history", {}),
        ("history -n 1 01:00.0 --no-legend", {}),
        ("history --full -n 3", {}),
        ("history --json=short enp5s2 -n 1", {"History": [reply(outcomes=[])]}),
    ],
    "status": [
        ("status", {}),
        ("status", {"Status": [reply(**host.STATUS_IN_TROUBLE)]}),
        ("status --json=short", {"Status": [reply(version="0.1.0", ready=True)]}),
    ],
    "complete": [
        ("complete devices", {"List": [reply(devices=[host.PF, host.DISK])]}),
        ("complete flavours", {}),
        ("complete flavours", {"Status": [HANG_UP]}),
        ("complete codes", {}),
        ("complete guards", {}),
    ],
    "errors": [
        ("show nvme0n1p2", {}),
        ("show enp5s3", {}),
        ("list 05:02.1", {}),
        ("show dma0", {}),
        ("show 'zz*'", {}),
        ("show zz", {}),
        ("status", {"Status": [HANG_UP]}),
        ("status", {"Status": [b"no json"]}),
        ("status", {"Status": [b"[]"]}),
        ("status", {"Status": [b'{"parameters": 5}']}),
        ("status", {"Status": [error("org.varlink.service.MethodNotFound", method="io.flavourd.Manager.Status")]}),
        ("status", {"Status": [error("org.varlink.service.InvalidParameter", parameter="colour")]}),
        ("status", {"Status": [error("com.example.Strange", x=1)]}),
        ("status", {"Status": [error("Refused", code="host", message="/run is full [host]", hint="")]}),
        # Of a newer daemon: a kind, a step and fields that nobody here knows; of an older one: fields that are missing
        (
            "set 06:10.0 vfio",
            {"Set": [more(step={"what": "x", "y": 1}), reply(outcomes=[host.SWITCHED | {"kind": "half"}])]},
        ),
        ("set 06:10.0 vfio", {"Set": [reply(outcomes=[{"device": "pci/0000:06:10.0", "kind": "already"}])]}),
        ("explain 06:10.0 vfio", {"Explain": [reply(plans=[{"device": "pci/x", "kind": "half", "message": "so"}])]}),
        ("list", {"List": [reply(devices=[{"id": "pci/0000:06:10.0", "colour": "red"}])]}),
        # What would move a terminal
        ("list", {"List": [reply(devices=[host.device("pci/\x1b[2J", vendor="a\x9bb\n\u202ec")])]}),
        ("list --json=short", {"List": [reply(devices=[{"id": "pci/\x1b[2J\x9b\u202e"}])]}),
        ("status", {"Status": [error("Refused", code="host", message="a\x1b[2Jb\nc", hint="d\r")]}),
    ],
}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times are those of Greenwich, and codes those of golden/errors.md."""
    monkeypatch.setattr(codes, "_PLACES", ("../tests/unit/golden/errors.md",))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", _TRANSCRIPTS)
def test_what_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ""
    for number, (words, answers) in enumerate(_TRANSCRIPTS[name]):
        path = tmp_path / f"{number}"
        monkeypatch.setenv("FLAVOURD_SOCKET", str(path))
        with Daemon(path, host.ANSWERS | answers):
            code = main(shlex.split(words))
        said = capsys.readouterr()
        told += f"$ flavourctl {words}\n{said.out}"
        told += "".join(f"! {line}\n" for line in said.err.splitlines())
        told += f"→ {code} {Exit(code).name}\n\n" if code else "\n"
    told = told.replace(f"({__version__})", "(VERSION)")
    golden = _FOLDER / f"{name}.txt"
    if os.environ.get(_REGENERATE):
        golden.write_text(told, encoding="utf-8")
    assert told == golden.read_text(encoding="utf-8"), (
        f"if this is meant: {_REGENERATE}=1 pytest {Path(__file__).name}, and read the difference"
    )


def test_every_transcript_is_told() -> None:
    assert {path.stem for path in _FOLDER.glob("*.txt")} == set(_TRANSCRIPTS)
