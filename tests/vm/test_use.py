# SPDX-License-Identifier: LGPL-2.1-or-later
"""The switched device is really usable: a program drives it through VFIO as QEMU or DPDK would."""

import pytest

from .asking import PCI, alive, answer, ask, send
from .devices import E1000, E1000_TWIN, E1000E, VIRTIO_NET
from .machine import CommandError, Machine

pytestmark = pytest.mark.vm

DEADLINE = "[Service]\nExecStart=\nExecStart=/usr/sbin/flavourd --deadline 2\n"

# include/uapi/linux/vfio.h: group into container, type 1 IOMMU, device from group, PCI configuration space as region 7.
_PROGRAM = """
import fcntl, os, signal, struct, sys
API_VERSION, CHECK_EXTENSION, SET_IOMMU, GROUP_STATUS, SET_CONTAINER, DEVICE_FD, REGION_INFO = (
    0x3B64 + number for number in (0, 1, 2, 3, 4, 6, 8))
address = sys.argv[1]
group_number = os.path.basename(os.readlink(f"/sys/bus/pci/devices/{address}/iommu_group"))
container = os.open("/dev/vfio/vfio", os.O_RDWR)
assert fcntl.ioctl(container, API_VERSION) == 0
assert fcntl.ioctl(container, CHECK_EXTENSION, 1) == 1
group = os.open(f"/dev/vfio/{group_number}", os.O_RDWR)
_, flags = struct.unpack("II", fcntl.ioctl(group, GROUP_STATUS, struct.pack("II", 8, 0)))
if not flags & 1:
    sys.exit("the group is not viable")
fcntl.ioctl(group, SET_CONTAINER, struct.pack("i", container))
fcntl.ioctl(container, SET_IOMMU, 1)
device = fcntl.ioctl(group, DEVICE_FD, bytearray(address.encode() + b"\\0"))  # mutable: the int comes back
info = fcntl.ioctl(device, REGION_INFO, struct.pack("IIIIQQ", 32, 0, 7, 0, 0, 0))
_, _, _, _, size, offset = struct.unpack("IIIIQQ", info)
vendor, = struct.unpack("<H", os.pread(device, 2, offset))
print(f"{vendor:04x} {size}", flush=True)
if "hold" in sys.argv:
    signal.pause()
"""


def use(vm: Machine, address: str) -> str:
    """Open the device through VFIO and return its vendor id as read through the VFIO region."""
    return vm.run(["python3", "-c", _PROGRAM, address]).out.split()[0]


@pytest.mark.parametrize(("address", "driver"), [(VIRTIO_NET, "virtio_vfio_pci"), (E1000E, "vfio-pci")])
def test_a_program_opens_the_device_and_reads_its_vendor(vm: Machine, address: str, driver: str) -> None:
    assert ask(vm, address, "vfio").driver == driver
    assert f"0x{use(vm, address)}" == vm.run(f"cat {PCI}/{address}/vendor").out.strip()


def test_a_shared_group_opens_when_all_its_devices_are_in_the_flavour_as_was_told(vm: Machine) -> None:
    assert "cannot be opened yet" in ask(vm, E1000, "vfio").message
    with pytest.raises(CommandError, match="not viable"):
        use(vm, E1000)
    assert "cannot be opened yet" not in ask(vm, E1000_TWIN, "vfio").message
    assert use(vm, E1000) == use(vm, E1000_TWIN) == "8086"


def test_a_device_that_is_held_open_is_told_as_stuck_and_heals_when_it_is_let_go(vm: Machine) -> None:
    vm.run("mkdir -p /etc/systemd/system/flavourd.service.d")
    vm.write("/etc/systemd/system/flavourd.service.d/deadline.conf", DEADLINE)
    vm.run("systemctl daemon-reload && systemctl restart flavourd")
    ask(vm, E1000E, "vfio")
    vm.write("/root/holder.py", _PROGRAM)
    holder = vm.start(f"exec python3 /root/holder.py {E1000E} hold > /run/held")
    vm.wait_for("grep -q 8086 /run/held")
    uuid = send(vm, E1000E, "default")
    (told,) = answer(vm, uuid)
    assert (told.kind, told.code) == ("stuck", "stuck")
    assert ask(vm, E1000E, "vfio").code == "stuck"
    assert ask(vm, VIRTIO_NET, "vfio").kind == "switched", "all others are served"
    assert alive(vm)
    assert holder.running
    vm.run(["pkill", "-f", "holder.py"])
    told = answer(vm, uuid, count=2)[-1]
    assert (told.kind, told.driver) == ("switched", "e1000e")
    assert vm.driver(E1000E) == "e1000e"
    assert ask(vm, E1000E, "vfio").kind == "switched"
