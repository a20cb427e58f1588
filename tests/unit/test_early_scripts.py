# SPDX-License-Identifier: LGPL-2.1-or-later
"""The small programs that keep devices from native drivers in an initramfs, and let them go where nobody comes."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Tree

_ROOT = Path(__file__).parents[2]
_PARKED = "flavourd-parked\n"
_FIRST, _TWIN = "0000:01:00.0", "0000:02:00.0"
_MODALIAS = "pci:v00008086d000010D3"


def device(name: str, override: str = "(null)\n") -> dict[str, str]:
    place = f"sys/devices/pci0000:00/{name}"
    return {
        f"sys/bus/pci/devices/{name}": f"-> ../../../devices/pci0000:00/{name}",
        f"{place}/driver_override": override,
        f"{place}/modalias": f"{_MODALIAS}\n",
    }


def override(root: Path, name: str = _FIRST) -> str:
    return (root / "sys/bus/pci/devices" / name / "driver_override").read_text()


def script(
    root: Path, name: str, places: tuple[str, ...] = ("/sys/bus", "/proc/cmdline", "/usr/lib/flavourd", "/run/udev")
) -> Path:
    """It, as it would be if this root were the host's."""
    text = (_ROOT / name).read_text(encoding="utf-8")
    for place in places:
        text = text.replace(place, f"{root}{place}")
    file = root / Path(name).name
    file.write_text(text, encoding="utf-8")
    return file


# --- in an initramfs


def park(tree: Tree, line: str, facts: dict[str, str] | None = None, words: str = "quiet") -> str:
    """What becomes of the override of the first device."""
    listed = {"usr/lib/flavourd/devices": line, "proc/cmdline": f"{words}\n"}
    root = tree(listed | device(_FIRST) | (facts or {}))
    (root / "usr/lib/flavourd/pci-serial").symlink_to(_ROOT / "udev/pci-serial")
    (root / "usr/lib/flavourd/devices").write_text(line.replace("@", str(root.resolve())), encoding="utf-8")
    done = subprocess.run(["sh", script(root, "initramfs/flavourd-park")], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    return override(root)


_AT = f"pci {_FIRST} {_MODALIAS} @/sys/devices/pci0000:00/{_FIRST}"
_SERIAL = {f"sys/devices/pci0000:00/{_FIRST}/serial_number": "00-80-ee-00-00-00-41-80\n"}


@pytest.mark.parametrize("line", [_AT, f"pci 0000:09:00.0 x y\n{_AT}", f"{_AT} -"], ids=range(3))
def test_a_device_that_is_listed_is_parked(tree: Tree, line: str) -> None:
    assert park(tree, f"{line}\n") == _PARKED


def test_of_twins_the_one_with_the_serial_number_is_parked(tree: Tree) -> None:
    assert park(tree, f"{_AT} 00-80-ee-00-00-00-41-80\n", _SERIAL) == _PARKED


@pytest.mark.parametrize(
    ("line", "facts", "words"),
    [
        (_AT, {}, "quiet flavourd=off"),
        (_AT.replace("10D3", "10D4"), {}, ""),
        # Another bridge leads to what has the address now.
        (_AT.replace("pci0000:00/", "pci0000:00/0000:00:10.0/"), {}, ""),
        (f"{_AT} 00-00-00-00-00-00-00-07", _SERIAL, ""),
        (f"{_AT} 00-00-00-00-00-00-00-07", {}, ""),
        (f"{_AT} -", _SERIAL, ""),
        (_AT, {f"sys/devices/pci0000:00/{_FIRST}/driver/": ""}, ""),
    ],
    ids=["off", "kind", "place", "serial", "no-serial", "a-serial", "driver"],
)
def test_what_is_not_what_was_listed_is_left_alone(tree: Tree, line: str, facts: dict[str, str], words: str) -> None:
    assert park(tree, f"{line}\n", facts, words) == "(null)\n"


def test_what_somebody_else_has_overridden_is_left_alone(tree: Tree) -> None:
    facts = {f"sys/devices/pci0000:00/{_FIRST}/driver_override": "vfio-pci\n"}
    assert park(tree, f"{_AT}\n", facts) == "vfio-pci\n"


@pytest.mark.parametrize(
    ("lines", "inside"),
    [
        ("pci a b /c", {"devices", "flavourd-park", "flavourd-leave", "flavourd-unpark"}),
        ("pci a b /c -", {"devices", "flavourd-park", "flavourd-leave", "flavourd-unpark", "pci-serial"}),
        (None, set()),
    ],
)
def test_what_goes_into_an_initramfs(tree: Tree, tmp_path: Path, lines: str | None, inside: set[str]) -> None:
    programs = ("flavourd-park", "flavourd-leave", "flavourd-unpark", "pci-serial")
    root = tree({"into/": "", **{f"usr/lib/flavourd/{name}": "" for name in programs}})
    early = root / "usr/lib/flavourd/flavourd-early"
    early.write_text(f"#!/bin/sh\n[ $* = --print-devices ] && echo '{lines}'\n" if lines else "#!/bin/sh\nexit 78\n")
    early.chmod(0o755)
    file = script(root, "initramfs/flavourd-initramfs")
    file.write_text(file.read_text().replace(f"$1{root}", "$1"), encoding="utf-8")
    done = subprocess.run(["sh", file, root / "into"], capture_output=True, text=True, check=True)
    assert {each.name for each in (root / "into").rglob("*") if each.is_file()} == inside
    assert ("nothing is kept" in done.stderr) == (lines is None)


# --- where nobody comes


def test_one_device_that_is_held_up_does_not_keep_the_others_parked(tree: Tree) -> None:
    """As in an older kernel, where a driver that sleeps holds the lock that the read wants."""
    root = tree(device(_FIRST) | device(_TWIN, _PARKED) | {"sys/bus/pci/drivers_probe": ""})
    held = root / "sys/bus/pci/devices" / _FIRST / "driver_override"
    held.unlink()
    os.mkfifo(held)
    probed, deadline = root / "sys/bus/pci/drivers_probe", time.monotonic() + 30
    with subprocess.Popen(["sh", script(root, "systemd/flavourd-unpark")]) as unpark:
        while not probed.read_text() and unpark.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        meanwhile, ended = probed.read_text(), unpark.poll() is not None
        with held.open("r+b", buffering=0) as wakes:
            wakes.write(b"x\n")
            assert unpark.wait(30) == 0
    assert (meanwhile, ended) == (f"{_TWIN}\n", False), "it waits for all"
    assert override(root, _TWIN) == "\n"


# --- before flavourd starts


@pytest.mark.parametrize(
    ("state", "files", "waits"),
    [
        ("running", {}, True),
        ("degraded", {}, True),
        ("starting", {}, False),
        ("initializing", {}, False),
        ("starting", {"etc/flavourd/policy.d/10-nvme.yaml": "rules: []\n"}, True),
        ("starting", {"usr/lib/flavourd/policy.d/10-nvme.yaml": "rules: []\n"}, True),
        ("starting", {"etc/flavourd/policy.d/10-nvme.yaml.old": "rules: []\n"}, False),
        ("starting", {"etc/flavourd/policy.d/10-nvme.yaml": ""}, False),
        ("starting", {"etc/udev/rules.d/50-gpu.rules": 'ATTR{class}=="0x030000", ENV{FLAVOUR}="vfio"\n'}, True),
        ("starting", {"usr/lib/udev/rules.d/50-net.rules": 'NAME="lan"\n'}, False),
        ("starting", {"usr/local/lib/udev/rules.d/90-flavourd.rules": 'ENV{FLAVOUR}=="?*"\n'}, False),
        ("starting", {"etc/flavourd/policy.d/10-nvme.yaml": "-> ../../../a", "a": "rules: []\n"}, True),
        ("starting", {"etc/udev/rules.d/50-gpu.rules": "-> ../../../a", "a": 'ENV{FLAVOUR}="vfio"\n'}, True),
        ("starting", {"etc/udev/rules.d/50-gpu.rules": "-> /dev/null"}, False),
        ("starting", {"etc/udev/rules.d/50-gpu.rules": "-> gone"}, True),
        ("starting", {"etc/udev/hwdb.d/50-gpu.hwdb": "pci:v000010DE*\n FLAVOUR=vfio\n"}, True),
        ("offline", {}, True),
    ],
    ids=range(17),
)
def test_at_boot_udev_is_waited_for_where_somebody_may_ask_by_it(
    tree: Tree, state: str, files: dict[str, str], waits: bool
) -> None:
    root = tree(files)
    for name, words in (("systemctl", f"echo {state}"), ("udevadm", 'echo "$@"')):
        (root / name).write_text(f"#!/bin/sh\n{words}\n", encoding="utf-8")
        (root / name).chmod(0o755)
    settle = script(root, "systemd/flavourd-settle", ("/etc", "/run", "/usr/l"))
    path = {"PATH": f"{root}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", settle], env=path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("settle --timeout=30\n" if waits else "", "")
