# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test bed's own tests: the machine is what devices.py says, each one is fresh, and the test variant obeys."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import devices

if TYPE_CHECKING:
    from .machine import Machine

pytestmark = pytest.mark.vm

SYSFS = "/sys/bus/pci/devices"
PARAMETERS = "/sys/module/test_vfio_pci/parameters"
VARIANT = "/usr/lib/flavourd-test/variant"


def bind(machine: "Machine", address: str, driver: str) -> tuple[int, str]:
    """Override, unbind and bind by hand; return the exit status of the write to bind and its words."""
    device = f"{SYSFS}/{address}"
    machine.run(
        f"echo {driver} > {device}/driver_override; [ ! -e {device}/driver ] || echo {address} > {device}/driver/unbind"
    )
    # Not the shell's own echo: /bin/echo names the errno.
    done = machine.run(f"/bin/echo {address} > /sys/bus/pci/drivers/{driver}/bind", check=False)
    return done.rc, done.err


def group(machine: "Machine", address: str) -> set[str]:
    return set(machine.run(f"ls {SYSFS}/{address}/iommu_group/devices").out.split())


def test_devices_are_as_documented(booted: "Machine") -> None:
    natives = {
        devices.E1000E: "e1000e",
        devices.E1000E_TWIN: "e1000e",
        devices.VIRTIO_NET: "virtio-pci",
        devices.PCI_BRIDGE: None,
        devices.E1000: "e1000",
        devices.E1000_TWIN: "e1000",
        devices.ROOT_PORT: "pcieport",
    }
    assert {address: booted.driver(address) for address in natives} == natives
    for alone in (devices.E1000E, devices.E1000E_TWIN, devices.VIRTIO_NET, devices.ROOT_PORT):
        assert group(booted, alone) == {alone}
    assert group(booted, devices.E1000) == {devices.PCI_BRIDGE, devices.E1000, devices.E1000_TWIN}


def test_host_starts_without_vfio_and_in_good_health(booted: "Machine") -> None:
    assert "vfio" not in booted.run("lsmod").out
    assert booted.run("systemctl is-system-running").out == "running\n"
    assert booted.run("systemctl --failed --no-legend").out == ""


@pytest.mark.parametrize("turn", ["first", "second"])
def test_each_machine_is_pristine(booted: "Machine", turn: str) -> None:
    booted.run("test ! -e /root/mark && test ! -e /sys/module/vfio_pci")
    booted.run("touch /root/mark && sync && modprobe vfio-pci")


def test_run_write_read(booted: "Machine") -> None:
    data = bytes(range(256)) * 10_000
    booted.write("/run/data", data, mode=0o640)
    assert booted.read("/run/data") == data
    assert booted.run(["stat", "-c", "%a %s", "/run/data"]).out == f"640 {len(data)}\n"
    assert booted.run(["cat"], input="told\n").out == "told\n"
    done = booted.run("echo out; echo err >&2; exit 3", check=False)
    assert (done.rc, done.out, done.err) == (3, "out\n", "err\n")
    with pytest.raises(AssertionError, match=r"rc 3: .*exit 3"):
        booted.run("exit 3")


def test_background_and_waiting(booted: "Machine") -> None:
    program = booted.start("until test -e /run/go; do sleep 0.1; done; echo gone")
    assert program.running
    with pytest.raises(AssertionError, match="did not end"):
        program.wait(timeout=0.2)
    with pytest.raises(AssertionError, match="looked"):
        booted.wait_for("echo looked; test -e /run/go", timeout=1)
    booted.run("touch /run/go")
    assert program.wait().out == "gone\n"
    assert not program.running
    assert booted.wait_for("echo seen && test -e /run/go").out == "seen"


def test_hot_plug_and_unplug(booted: "Machine") -> None:
    address = booted.plug("e1000e", romfile="", id="late")
    assert address == devices.FREE_PORTS["free0"]
    booted.wait_for(f"readlink {SYSFS}/{address}/driver | grep -q /e1000e")
    assert group(booted, address) == {address}
    booted.unplug("late")
    booted.run(f"test ! -e {SYSFS}/{address}")


def test_nvme_with_virtual_functions(booted: "Machine") -> None:
    address = booted.plug_nvme(vfs=4)
    assert booted.driver(address) == "nvme"
    functions = booted.virtual_functions(address)
    assert len(functions) == 4
    assert all(group(booted, function) == {function} for function in functions)
    booted.run("modprobe vfio-pci")
    assert bind(booted, functions[0], "vfio-pci") == (0, "")
    booted.run(f"ls {SYSFS}/{functions[0]}/vfio-dev/vfio*")


def test_virtio_variant_binds(booted: "Machine") -> None:
    booted.run("modprobe virtio_vfio_pci")
    assert bind(booted, devices.VIRTIO_NET, "virtio_vfio_pci") == (0, "")
    booted.run(f"ls {SYSFS}/{devices.VIRTIO_NET}/vfio-dev/vfio*")


def test_index_knows_the_variant_only_when_on(booted: "Machine") -> None:
    index = "/lib/modules/$(uname -r)/modules.alias"
    lookup = "modprobe -R vfio_pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00"
    assert booted.run(lookup).out.split() == ["vfio_pci"]
    booted.run(f"{VARIANT} on")
    assert set(booted.run(lookup).out.split()) == {"test_vfio_pci", "vfio_pci"}
    assert "vfio_pci:v00008086d000010D3sv*" in booted.run(f"grep test_vfio_pci {index}").out
    booted.run(f"{VARIANT} off")
    booted.run(f"! grep test_vfio_pci {index}")
    assert "not found" in booted.run("modprobe test_vfio_pci", check=False).err
    # The real variant is always known.
    booted.run(f"grep 'vfio_pci:v00001AF4d00001041.*virtio_vfio_pci' {index}")


def test_variant_accepts(booted: "Machine") -> None:
    booted.run(f"{VARIANT} on && modprobe test_vfio_pci")
    assert bind(booted, devices.E1000E, "test_vfio_pci") == (0, "")
    assert booted.driver(devices.E1000E) == "test_vfio_pci"
    booted.run(f"ls {SYSFS}/{devices.E1000E}/vfio-dev/vfio*")
    assert booted.read(f"{PARAMETERS}/probes") == b"1\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [(-22, "Invalid argument"), (-19, "No such device"), (-5, "Input/output error"), (-517, "Resource temporarily")],
)
def test_variant_refuses(booted: "Machine", answer: int, words: str) -> None:
    booted.run(f"{VARIANT} on && modprobe test_vfio_pci answer={answer}")
    rc, said = bind(booted, devices.E1000E, "test_vfio_pci")
    assert rc
    assert words in said
    line = booted.run("dmesg | grep 'test variant refuses'").out
    assert f"test_vfio_pci {devices.E1000E}: test variant refuses: {answer}" in line


def test_variant_refuses_so_many_times(booted: "Machine") -> None:
    booted.run(f"{VARIANT} on && modprobe test_vfio_pci answer=-22 times=2")
    assert [bind(booted, devices.E1000E, "test_vfio_pci")[0] for _ in range(3)] == [1, 1, 0]
    assert booted.read(f"{PARAMETERS}/probes") == b"3\n"
    assert booted.read(f"{PARAMETERS}/times") == b"0\n"


def test_variant_takes_its_time(booted: "Machine") -> None:
    booted.run(f"{VARIANT} on && modprobe test_vfio_pci")
    booted.run(f"echo 1500 > {PARAMETERS}/delay_ms")
    booted.run(f"echo test_vfio_pci > {SYSFS}/{devices.E1000E}/driver_override")
    booted.run(f"echo {devices.E1000E} > {SYSFS}/{devices.E1000E}/driver/unbind")
    writer = booted.start(f"echo {devices.E1000E} > /sys/bus/pci/drivers/test_vfio_pci/bind")
    assert writer.running
    assert writer.wait().rc == 0


def test_variant_takes_its_time_to_let_go(booted: "Machine") -> None:
    booted.run(f"{VARIANT} on && modprobe test_vfio_pci remove_delay_ms=1500")
    bind(booted, devices.E1000E, "test_vfio_pci")
    writer = booted.start(f"echo {devices.E1000E} > {SYSFS}/{devices.E1000E}/driver/unbind")
    assert writer.running
    assert writer.wait().rc == 0


def test_disk_that_keeps_what_is_written(booted: "Machine") -> None:
    booted.plug_disk(keeps=True)
    booted.run("mkfs.ext4 -q /dev/nvme0n1 && mount /dev/nvme0n1 /mnt && echo kept > /mnt/file && umount /mnt")
    booted.run("mount /dev/nvme0n1 /mnt && grep -qx kept /mnt/file")


def test_network_behind_a_nic(booted: "Machine") -> None:
    _, interface = booted.plug_nic()
    assert interface.startswith("en")
    echo = "import socket; s = socket.create_connection(('10.0.2.100', 7)); s.send(b'x'); assert s.recv(1) == b'x'"
    booted.run(["python3", "-c", echo])


def test_device_that_joins_a_shared_group(booted: "Machine") -> None:
    third = booted.plug_in_group()
    assert {devices.E1000, devices.E1000_TWIN, third} < group(booted, third)


def test_display_and_keyboard(booted: "Machine") -> None:
    assert booted.driver(booted.plug_display()) == "bochs-drm"
    assert booted.driver(booted.plug_keyboard()) == "xhci_hcd"


def test_installed_layer(tmp_path: Path, tell: Callable[[str], None]) -> None:
    from . import layers
    from .machine import Machine
    from .qemu import Qemu

    unit = tmp_path / "root/usr/lib/systemd/system/flavourd.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n")
    tar = tmp_path / "flavourd.tar"
    tar.write_bytes(layers.deterministic_tar(tmp_path / "root"))
    state = layers.installed_layer(tar, tell)
    assert layers.installed_layer(tar, tell) == state
    with Qemu(state.image, state.disk, state) as qemu:
        machine = Machine(qemu)
        assert machine.run("systemctl is-active flavourd; systemctl is-enabled flavourd").out == "active\nenabled\n"
        assert machine.run("pgrep -f 'sleep infinity'").out


def test_evidence(booted: "Machine", tmp_path: Path) -> None:
    booted.run("echo a word for the kernel > /dev/kmsg")
    booted.evidence(tmp_path)
    assert "a word for the kernel" in (tmp_path / "dmesg.txt").read_text()
    assert "a word for the kernel" in (tmp_path / "journal.txt").read_text()
    assert (tmp_path / "console.log").exists()
    assert "qemu-ga" in (tmp_path / "processes.txt").read_text()
