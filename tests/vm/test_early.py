# SPDX-License-Identifier: LGPL-2.1-or-later
"""Before the native driver: devices under policy are parked before udev looks at them, in an initramfs too; and if
flavourd does not come for them, nothing stays in the way.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from .asking import PCI, override
from .conftest import FAILURES
from .devices import E1000E, E1000E_TWIN
from .image import Image
from .machine import Machine
from .policy import put
from .qemu import Qemu, State

pytestmark = pytest.mark.vm

_FIRST = f'- flavour: vfio\n  match: {{address: "{E1000E}"}}\n'
_ROOT = "0000:00:01.0"
_RULES = "/run/udev/rules.d/85-flavourd-policy.rules"


def bound(vm: Machine) -> dict[str, str | None]:
    return {address: vm.driver(address) for address in (E1000E, E1000E_TWIN)}


_NATIVE: dict[str, str | None] = {E1000E: "e1000e", E1000E_TWIN: "e1000e"}
_HELD = _NATIVE | {E1000E: "vfio-pci"}


def probed(vm: Machine) -> dict[str, float]:
    """When e1000e first had to do with each device in this boot, in seconds since the kernel's start."""
    said = vm.run("dmesg | grep '] e1000e 0000:'", check=False).out  # the journal has the time when it heard of it
    found: dict[str, float] = {}
    for line in said.splitlines():
        at, _, words = line.partition("] e1000e ")
        found.setdefault(words.split()[0].rstrip(":"), float(at.removeprefix("[")))
    return found


def nothing_is_left(vm: Machine) -> None:
    assert bound(vm) == _NATIVE
    assert [override(vm, address) for address in _NATIVE] == [None, None]
    assert vm.run("ls /run/udev/rules.d", check=False).out == ""


# --- at boot


def test_of_two_twins_that_with_the_serial_number_is_held(vm: Machine) -> None:
    serial = vm.run(f"lspci -vv -s {E1000E_TWIN} | sed -n 's/.*Device Serial Number //p'").out.strip()
    put(vm, f'- flavour: vfio\n  match: {{serial: "{serial}"}}\n')
    vm.reboot()
    assert bound(vm) == {E1000E: "e1000e", E1000E_TWIN: "vfio-pci"}
    assert probed(vm).keys() == {E1000E}


# --- nothing stays in the way


def test_if_flavourd_cannot_begin_what_was_parked_for_it_is_let_go(vm: Machine) -> None:
    put(vm, _FIRST)
    vm.run("systemctl mask flavourd")
    vm.reboot()
    assert vm.run("systemctl show -P Result flavourd-early").out.strip() == "success"
    vm.wait_for("systemctl show -P ActiveEnterTimestamp multi-user.target | grep -q .")
    vm.run("udevadm settle")
    nothing_is_left(vm)


def test_if_flavourd_fails_what_was_parked_for_it_is_let_go(vm: Machine) -> None:
    put(vm, _FIRST)
    vm.write("/etc/flavourd/flavourd.yaml", "no such key: 1\n")
    vm.reboot()
    assert vm.run("systemctl is-active flavourd", check=False).out.strip() == "failed"
    vm.run("udevadm settle")
    nothing_is_left(vm)


def test_when_it_stops_what_waits_for_it_is_let_go_and_what_is_in_a_flavour_stays(vm: Machine) -> None:
    put(vm, _FIRST)
    vm.reboot()
    assert vm.run(f"udevadm verify --no-style {_RULES}").rc == 0
    vm.run(f"echo {E1000E_TWIN} > {PCI}/{E1000E_TWIN}/driver/unbind")
    vm.run(f"echo flavourd-parked > {PCI}/{E1000E_TWIN}/driver_override")
    vm.run("systemctl stop flavourd", timeout=120)
    assert bound(vm) == _HELD
    assert [override(vm, address) for address in _NATIVE] == ["vfio-pci", None]
    assert vm.run("ls /run/udev/rules.d", check=False).out == ""


# --- in an initramfs


@dataclass(frozen=True)
class Off:
    """A machine that is turned off, with a policy, and an initramfs that was made while it was in force."""

    image: Image
    disk: Path
    initrd: Path

    @contextmanager
    def turned_on(self, test: str, words: str = "") -> Iterator[Machine]:
        """words: arguments for the kernel."""
        with Qemu(replace(self.image, other_initrd=self.initrd, words=words), self.disk) as qemu:
            vm = Machine(qemu, timeout=300)
            try:
                vm.run("systemctl is-system-running --wait", check=False, timeout=300)
                yield vm
            except BaseException:
                vm.evidence(FAILURES / test)
                raise


@pytest.fixture(scope="module")
def off(installed_state: State, tmp_path_factory: pytest.TempPathFactory) -> Off:
    folder = tmp_path_factory.mktemp("off")
    with Qemu(installed_state.image, installed_state.disk, installed_state) as qemu:
        vm = Machine(qemu)
        # The disk that the host stands on as well: a rule that is refused would take it at the next boot.
        put(vm, _FIRST + f'- flavour: vfio\n  match: {{address: "{_ROOT}"}}\n')
        vm.run("touch /etc/flavourd/initramfs; echo e1000e >> /etc/initramfs-tools/modules")
        made = vm.run("mkinitramfs -o /root/initrd $(uname -r)", timeout=300)
        assert f"pci/{_ROOT} is left to its native driver, for the host uses it now: " in made.err
        inside = vm.run("lsinitramfs /root/initrd").out.split()
        assert "usr/lib/flavourd/flavourd-park" in inside
        assert [name for name in inside if "python" in name or "flavourd-policy" in name] == []
        (folder / "initrd").write_bytes(vm.read("/root/initrd"))
        vm.start("systemctl poweroff")
        qemu.ended(120)
        shutil.copy(qemu.overlay, folder / "disk.qcow2")
    return Off(installed_state.image, folder / "disk.qcow2", folder / "initrd")


def in_initramfs(vm: Machine) -> float:
    """Until when, in seconds since the kernel's start."""
    return int(vm.run("systemctl show -P UserspaceTimestampMonotonic").out) / 1e6


def test_an_initramfs_that_loads_the_native_driver_holds_the_policy_too(off: Off) -> None:
    with off.turned_on("initramfs") as vm:
        assert bound(vm) == _HELD
        seen = probed(vm)
        assert seen.keys() == {E1000E_TWIN}
        assert seen[E1000E_TWIN] < in_initramfs(vm), "the driver was loaded in the initramfs"

        # The initramfs goes on to park: nobody has made it anew.
        vm.run("systemctl disable flavourd")
        vm.reboot()
        nothing_is_left(vm)
        seen = probed(vm)
        assert seen[E1000E_TWIN] < seen[E1000E]

        # And so it does when the policy is another one.
        vm.run("systemctl enable flavourd")
        put(vm, _FIRST.replace(E1000E, "0000:00:1f.0"))
        vm.reboot()
        assert bound(vm) == _NATIVE
        assert override(vm, E1000E) is None


def test_in_the_rescue_shell_nothing_is_kept_from_its_native_driver(off: Off) -> None:
    with off.turned_on("rescue", "systemd.unit=rescue.target") as vm:
        assert vm.run("systemctl is-active flavourd", check=False).out.strip() == "inactive"
        assert vm.run("systemctl show -P Result flavourd-early").out.strip() == "success"
        vm.wait_for(f"readlink {PCI}/{E1000E}/driver | grep -qx '.*/e1000e'", timeout=60)
        vm.run("udevadm settle")
        nothing_is_left(vm)
        seen = probed(vm)
        assert seen[E1000E_TWIN] < in_initramfs(vm) < seen[E1000E], "it was kept until then"


def test_who_has_locked_himself_out_comes_in_by_a_word_to_the_kernel(off: Off) -> None:
    with off.turned_on("word", "flavourd=off") as vm:
        nothing_is_left(vm)
        seen = probed(vm)
        assert seen.keys() == set(_NATIVE)
        assert max(seen.values()) < in_initramfs(vm)
        for unit in ("flavourd-early.service", "flavourd.service", "flavourd.socket"):
            assert vm.run(f"systemctl show -P ConditionResult {unit}").out.strip() == "no"
        assert vm.run("systemctl is-system-running", check=False).out.strip() == "running"
