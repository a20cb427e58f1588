# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done before udev: devices under policy are parked, others let go, and a broken policy does nothing at all.

That it is in time, and what udev and an initramfs make of it, is for the virtual machine (tests/vm/test_early.py).
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flavourd import early
from flavourd.device import PARKED, DeviceId
from flavourd.early import Early
from flavourd.errors import Code, FlavourError
from flavourd.sysfs import Sysfs
from flavourd.udevrules import POLICY

from .conftest import Tree

_ROOT = Path(__file__).parents[2]
_FIRST, _TWIN, _OTHER = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"
_CARD = {"vendor": "0x8086\n", "device": "0x10d3\n", "class": "0x020000\n", "modalias": "pci:v00008086d000010D3\n"}

Made = Callable[..., Path]


def pci(name: str, override: str = "(null)", driver: str | None = None) -> dict[str, str]:
    place = f"sys/devices/pci0000:00/{name}"
    facts = _CARD | {"driver_override": f"{override}\n", "subsystem": "-> ../../../bus/pci"}
    if driver:
        facts["driver"] = f"-> ../../../bus/pci/drivers/{driver}"
    return {
        f"sys/bus/pci/devices/{name}": f"-> ../../../devices/pci0000:00/{name}",
        **{f"{place}/{key}": value for key, value in facts.items()},
    }


@pytest.fixture
def host(tree: Tree) -> Made:
    def make(rules: str, *devices: dict[str, str]) -> Path:
        files = {
            "sys/bus/pci/drivers_probe": "",
            "run/": "",
            "proc/1/fd/": "",
            "proc/1/ns/mnt": "-> mnt:[1]",
            "proc/1/mountinfo": "30 1 259:0 / /srv rw - ext4 /dev/nvme0n1 rw\n",
            "usr/lib/flavourd/flavours.yaml": (_ROOT / "config/flavours.yaml").read_text(encoding="utf-8"),
            "etc/flavourd/policy.d/50-test.yaml": rules,
        }
        for device in devices:
            files |= device
        return tree(files)

    return make


def override(root: Path, name: str) -> str:
    return (root / "sys/bus/pci/devices" / name / "driver_override").read_text()


def begin(root: Path) -> list[str]:
    return list(Early.of(root).begin())


_VFIO = f'rules:\n- flavour: vfio\n  match: {{address: "{_FIRST}"}}\n'


def test_the_device_of_a_rule_is_parked_and_its_twin_is_left_alone(host: Made) -> None:
    root = host(_VFIO, pci(_FIRST), pci(_TWIN))
    assert begin(root) == []
    assert override(root, _FIRST) == PARKED
    assert override(root, _TWIN) == "(null)\n"
    assert PARKED in (root / "run/udev/rules.d" / POLICY).read_text()


def test_what_has_a_driver_or_somebody_elses_override_is_left_alone(host: Made) -> None:
    rules = "rules:\n- flavour: vfio\n"
    root = host(rules, pci(_FIRST, driver="e1000e"), pci(_TWIN, override="vfio-pci"), pci(_OTHER))
    assert begin(root) == []
    assert [override(root, name) for name in (_FIRST, _TWIN, _OTHER)] == ["(null)\n", "vfio-pci\n", PARKED]


def test_what_an_initramfs_has_parked_by_an_older_policy_is_let_go(host: Made) -> None:
    root = host(_VFIO, pci(_FIRST, override=PARKED), pci(_TWIN, override=PARKED))
    assert begin(root) == []
    assert override(root, _FIRST) == f"{PARKED}\n", "it is as it shall be"
    assert override(root, _TWIN).startswith("\n")
    assert (root / "sys/bus/pci/drivers_probe").read_text() == _TWIN


def test_a_policy_without_rules_leaves_no_file(host: Made) -> None:
    root = host("rules: []\n", pci(_FIRST))
    assert begin(root) == []
    assert not (root / "run/udev").exists()
    assert override(root, _FIRST) == "(null)\n"


def test_a_broken_policy_does_nothing_at_all(host: Made) -> None:
    root = host(_VFIO + "- flavor: vfio\n", pci(_FIRST))
    with pytest.raises(FlavourError) as caught:
        Early.of(root)
    assert caught.value.code is Code.POLICY
    assert not (root / "run/udev").exists()
    assert override(root, _FIRST) == "(null)\n"


def test_a_device_that_cannot_be_parked_keeps_nobody_from_booting(host: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    root = host("rules:\n- flavour: vfio\n", pci(_FIRST), pci(_TWIN))
    attribute = root / "sys/bus/pci/devices" / _FIRST / "driver_override"
    write = Sysfs.write_override

    def gone(self: Sysfs, device: DeviceId, driver: str | None) -> None:
        if device.name == _FIRST:
            raise OSError(19, "No such device", str(attribute))
        write(self, device, driver)

    monkeypatch.setattr(Sysfs, "write_override", gone)
    (told,) = begin(root)
    assert told.startswith(f"pci/{_FIRST} is left to its native driver: [Errno 19] No such device")
    assert override(root, _TWIN) == PARKED


@pytest.mark.parametrize(("most", "parked"), [(1, False), (2, True)])
def test_a_rule_with_more_devices_than_it_may_change_parks_none(host: Made, most: int, parked: bool) -> None:
    rules = f'rules:\n- {{match: {{address: "0000:0[12]:*"}}, flavour: vfio, max-changes: {most}}}\n- flavour: vfio\n'
    root = host(rules, pci(_FIRST, driver="e1000e"), pci(_TWIN), pci(_OTHER))
    told = begin(root)
    assert override(root, _TWIN) == (PARKED if parked else "(null)\n"), "what has a driver now counts, too"
    assert override(root, _OTHER) == PARKED
    assert [sentence.partition(" would have ")[2] for sentence in told] == (
        [] if parked else ["2 devices, more than its max-changes 1: none is parked"]
    )


def test_of_two_rules_that_may_be_a_devices_both_count(host: Made) -> None:
    """Which one it is nobody knows before the native driver comes, and it never comes for what is parked."""
    rules = "rules:\n- {match: {driver: e1000e}, flavour: vfio, max-changes: 1}\n- flavour: vfio\n"
    root = host(rules, pci(_FIRST), pci(_TWIN))
    assert len(begin(root)) == 1
    assert override(root, _FIRST) == "(null)\n"


def test_beyond_max_changes_what_an_initramfs_has_parked_is_let_go(host: Made) -> None:
    root = host(
        "rules:\n- {flavour: vfio, max-changes: 1}\n", pci(_FIRST, override=PARKED), pci(_TWIN, override=PARKED)
    )
    begin(root)
    assert override(root, _FIRST).startswith("\n")


# --- for an initramfs


def listed(root: Path) -> list[str]:
    lines, told = Early.of(root).for_initramfs()
    assert told == []
    return lines


def test_for_an_initramfs_it_does_not_matter_who_has_the_device_now(host: Made) -> None:
    root = host(_VFIO, pci(_FIRST, override="vfio-pci", driver="vfio-pci"), pci(_TWIN, driver="e1000e"))
    assert listed(root) == [f"pci {_FIRST} pci:v00008086d000010D3 /sys/devices/pci0000:00/{_FIRST}"]
    assert override(root, _FIRST) == "vfio-pci\n"


def disk(name: str) -> dict[str, str]:
    """An NVMe disk; its filesystem is mounted."""
    place = f"sys/devices/pci0000:00/{name}/nvme/nvme0/nvme0n1"
    return {
        **pci(name, driver="nvme"),
        f"{place}/subsystem": "-> ../../../../../../class/block",
        f"{place}/dev": "259:0\n",
        f"{place}/uevent": "DEVNAME=nvme0n1\n",
        "sys/class/block/nvme0n1": f"-> ../../devices/pci0000:00/{name}/nvme/nvme0/nvme0n1",
    }


def test_what_the_host_uses_now_is_left_out_of_an_initramfs_and_told(host: Made) -> None:
    root = host("rules:\n- flavour: vfio\n", disk(_FIRST), pci(_TWIN, driver="e1000e"))
    lines, told = Early.of(root).for_initramfs()
    assert [line.split()[1] for line in lines] == [_TWIN]
    (sentence,) = told
    assert sentence.startswith(f"pci/{_FIRST} is left to its native driver, for the host uses it now: ")
    assert "is mounted at /srv" in sentence


def test_what_cannot_be_seen_counts_as_in_use(host: Made) -> None:
    root = host("rules:\n- flavour: vfio\n", disk(_FIRST))
    (root / "proc/1/mountinfo").unlink()
    lines, (sentence,) = Early.of(root).for_initramfs()
    assert lines == []
    assert "a filesystem on nvme0n1 may be mounted" in sentence


def test_what_a_guard_may_find_without_being_an_error_goes_into_an_initramfs(host: Made) -> None:
    lax = dict.fromkeys(("mounted", "open", "stacked", "swap"), "warning")
    rules = f"rules:\n- {{flavour: vfio, guards: {lax}}}\n".replace("'", "")
    root = host(rules, disk(_FIRST))
    assert [line.split()[1] for line in listed(root)] == [_FIRST]


def test_what_is_in_the_flavour_already_goes_into_an_initramfs_whoever_uses_it(host: Made) -> None:
    root = host("rules:\n- flavour: vfio\n", disk(_FIRST), {f"sys/devices/pci0000:00/{_FIRST}/vfio-dev/vfio0/": ""})
    assert [line.split()[1] for line in listed(root)] == [_FIRST]


def test_for_an_initramfs_nothing_is_read_that_a_sleeping_driver_may_hold_up(host: Made) -> None:
    """As with a FIFO that nobody writes to, before Linux 6.18."""
    root = host('rules:\n- {flavour: vfio, match: {property: {ID_X: "*"}}}\n- flavour: vfio\n', pci(_FIRST))
    for name in ("driver_override", "uevent"):
        attribute = root / "sys/bus/pci/devices" / _FIRST / name
        attribute.unlink(missing_ok=True)
        os.mkfifo(attribute)
    assert [line.split()[1] for line in listed(root)] == [_FIRST]


# --- the serial number


def config(*capabilities: tuple[int, bytes]) -> bytes:
    """A config space with these extended capabilities."""
    space = bytearray(4096)
    at = 256
    for number, (identity, body) in enumerate(capabilities):
        following = at + 64 if number + 1 < len(capabilities) else 0
        space[at : at + 4] = (identity | 1 << 16 | following << 20).to_bytes(4, "little")
        space[at + 4 : at + 4 + len(body)] = body
        at = following
    return bytes(space)


_SERIAL = 3, bytes.fromhex("80410000 00ee8000")  # two words, the lower one first, each of them little-endian


def serial(folder: Path) -> str:
    done = subprocess.run([_ROOT / "udev/pci-serial", folder], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    "before", [(), ((1, bytes(60)),), ((1, bytes(60)), (0x10, bytes(60)), (0x1E, b"\xff" * 8))], ids=len
)
def test_the_serial_number_is_found_among_the_capabilities(
    tmp_path: Path, before: tuple[tuple[int, bytes], ...]
) -> None:
    (tmp_path / "config").write_bytes(config(*before, _SERIAL))
    assert serial(tmp_path) == "FLAVOUR_SERIAL=00-80-ee-00-00-00-41-80\n"


@pytest.mark.parametrize(
    "space",
    [
        b"",
        bytes(256),  # of conventional PCI, or what somebody without rights may read
        config((1, bytes(60))),
        config(_SERIAL)[:260],  # cut off
        b"\xff" * 4096,  # a device that has gone
        bytes(256) + (1 | 1 << 16 | 256 << 20).to_bytes(4, "little") * 960,  # a circle
    ],
    ids=range(6),
)
def test_without_a_serial_number_nothing_is_said(tmp_path: Path, space: bytes) -> None:
    (tmp_path / "config").write_bytes(space)
    assert serial(tmp_path) == ""


def test_what_the_kernel_tells_is_preferred(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(config(_SERIAL))
    (tmp_path / "serial_number").write_text("00-00-00-00-00-00-00-07\n")
    assert serial(tmp_path) == "FLAVOUR_SERIAL=00-00-00-00-00-00-00-07\n"


def test_a_rule_by_serial_number_is_held_for_the_one_of_two_twins(
    host: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = 'rules:\n- flavour: vfio\n  match: {serial: "00-80-ee-00-00-00-41-80"}\n'
    root = host(rule, pci(_FIRST), pci(_TWIN))
    for name, said in ((_FIRST, config(_SERIAL)), (_TWIN, config((3, bytes(8))))):
        (root / "sys/bus/pci/devices" / name / "config").write_bytes(said)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/flavourd").symlink_to(_ROOT / "udev")
    monkeypatch.setattr(early, "_LIB", tmp_path / "lib")
    assert begin(root) == []
    assert override(root, _FIRST) == PARKED
    assert override(root, _TWIN) == "(null)\n"
    assert listed(root) == [
        f"pci {_FIRST} pci:v00008086d000010D3 /sys/devices/pci0000:00/{_FIRST} 00-80-ee-00-00-00-41-80"
    ]
