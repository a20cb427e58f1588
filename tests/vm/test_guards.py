# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host still needs is not taken from it: each guard with a real user behind it, the words that are told, the
device that is not touched, and what makes it go.
"""

import shlex

import pytest

from .asking import PCI, ask, override, untouched
from .devices import E1000, E1000_TWIN, E1000E
from .flavourctl import NOT_DONE, Found, ctl, findings
from .machine import Machine
from .userspace import hold, let_go

pytestmark = pytest.mark.vm


def refused(vm: Machine, device: str, *options: str, verb: str = "set", rc: int = NOT_DONE) -> dict[str, Found]:
    """Ask by flavourctl; it must be refused for what the guards find, and the device must not be touched."""
    flavour = ["vfio"] if verb == "set" else []
    with untouched(vm, device):
        done = ctl(vm, verb, device, *flavour, *options, rc=rc, timeout=120)
    assert f"pci/{device} is in use" in done.out
    assert "nothing was touched [in-use]" in done.out
    found = findings(done)
    assert {each.why for each in found.values()} == {"in use"}
    return found


def in_background(vm: Machine, unit: str, *command: str) -> int:
    """Run a program in a unit of its own, and return its pid when it has said `ready`."""
    vm.run(["systemd-run", "-q", f"--unit={unit}", "-p", f"StandardOutput=file:/run/{unit}", *command])
    vm.wait_for(f"grep -q ready /run/{unit}")
    return int(vm.run(f"systemctl show -P MainPID {unit}").out)


def python(program: str) -> list[str]:
    return ["python3", "-c", f"{program}\nimport signal\nprint('ready', flush=True)\nsignal.pause()"]


# --- disks


def lvm(vm: Machine) -> str:
    """A disk with a filesystem on a logical volume on a partition, mounted; returns its address."""
    disk = vm.plug_disk(keeps=True)
    vm.run("echo type=8e | sfdisk -q /dev/nvme0n1 && udevadm settle")
    vm.run("pvcreate -q /dev/nvme0n1p1 && vgcreate -q vg /dev/nvme0n1p1 && lvcreate -q -n data -l 100%FREE vg")
    vm.run("mkfs.ext4 -q /dev/vg/data && mkdir '/srv/some data' && mount /dev/vg/data '/srv/some data'")
    return disk


def test_a_disk_stays_as_long_as_a_filesystem_on_lvm_on_its_partition_is_mounted_anywhere(vm: Machine) -> None:
    disk = lvm(vm)
    (mounted,) = refused(vm, disk).values()
    assert mounted.guard == "mounted"
    for word in ("nvme0n1p1", "vg-data", "is mounted at /srv/some data"):
        assert word in mounted.text
    assert "umount" in mounted.hint
    told = ask(vm, disk, "vfio")
    assert (told.kind, told.code, told.guards) == ("refused", "in-use", ("mounted",)), "who asks by a uevent too"
    assert "is mounted at /srv/some data" in told.message

    away = "mount --make-rprivate /; umount '/srv/some data'; mount /dev/vg/data /mnt; echo ready; exec sleep inf"
    pid = in_background(vm, "keeper", "unshare", "-m", "sh", "-c", away)
    vm.run("umount '/srv/some data' && ! grep vg-data /proc/self/mountinfo")
    (mounted,) = refused(vm, disk).values()
    assert mounted.guard == "mounted"
    assert "is mounted at /mnt in the mount namespace of" in mounted.text
    assert f"sleep (pid {pid}, keeper.service)" in mounted.text + mounted.by

    vm.run("systemctl stop keeper")
    (stacked,) = refused(vm, disk).values()
    assert stacked.guard == "stacked"
    assert "vg-data" in stacked.text
    assert "vgchange -an vg" in stacked.hint
    vm.run("vgchange -q -an vg")
    ctl(vm, "set", disk, "vfio")
    assert vm.driver(disk) == "vfio-pci"
    ctl(vm, "reset", disk)
    vm.wait_for("test -e /dev/nvme0n1p1")


def test_with_force_for_just_what_was_found_a_mounted_disk_goes(vm: Machine) -> None:
    disk = lvm(vm)
    assert set(refused(vm, disk, "--force=swap")) == {"mounted"}, "another guard's name is no leave"
    done = ctl(vm, "set", "nvme0n1", "vfio", "--force=mounted", timeout=120)
    assert findings(done)["mounted"].why == "although"
    assert vm.driver(disk) == "vfio-pci"


def test_swap_and_who_has_the_raw_disk_open_keep_it(vm: Machine) -> None:
    disk = vm.plug_disk(keeps=True)
    vm.run("mkswap -q /dev/nvme0n1 && swapon /dev/nvme0n1")
    (swap,) = refused(vm, disk).values()
    assert (swap.guard, swap.text, swap.hint) == ("swap", "nvme0n1 is swap space", "swapoff /dev/nvme0n1")
    vm.run("swapoff /dev/nvme0n1")
    pid = in_background(vm, "reader", *python("disk = open('/dev/nvme0n1', 'rb')"))
    (opened,) = refused(vm, disk).values()
    assert opened.guard == "open"
    assert "/dev/nvme0n1" in opened.text
    assert f"python3 (pid {pid}, reader.service)" in opened.by
    vm.run("systemctl stop reader")
    ctl(vm, "set", disk, "vfio")
    assert vm.driver(disk) == "vfio-pci"


# --- networks


CONNECT = "import socket\nkept = socket.create_connection(('10.0.2.100', 7))\nkept.sendall(b'x')\nkept.recv(1)"
WITH_ITSELF = """import socket
server = socket.create_server(("10.0.2.15", 7777))
kept = socket.create_connection(("10.0.2.15", 7777)), server.accept()"""


def test_an_interface_stays_as_long_as_the_host_speaks_through_it(vm: Machine) -> None:
    nic, name = vm.plug_nic()
    vm.run("ip route add default via 10.0.2.2")
    (route,) = refused(vm, nic).values()
    assert route.guard == "route"
    assert "default route" in route.text
    assert name in route.text
    vm.run("ip route del default; ip route add default via 10.0.2.2 table 7")
    assert set(refused(vm, nic)) == {"route"}, "in whichever table"
    vm.run("ip route flush table 7")

    pid = in_background(vm, "talker", *python(CONNECT))
    in_background(vm, "itself", *python(WITH_ITSELF))
    (session,) = refused(vm, nic).values()
    assert session.guard == "session"
    assert name in session.text
    assert "10.0.2.100" in session.text
    assert f"python3 (pid {pid}, talker.service)" in session.by
    assert "itself.service" not in session.by, "who speaks with this host itself does not need the card for it"
    ctl(vm, "set", nic, "vfio", "--force=session", "--dry-run")
    vm.run("systemctl stop talker")
    ctl(vm, "set", nic, "vfio")
    assert vm.driver(nic) == "vfio-pci"


@pytest.mark.parametrize("kind", ["bridge", "bond"])
def test_an_interface_stays_as_long_as_another_one_stands_on_it(vm: Machine, kind: str) -> None:
    nic, name = vm.plug_nic()
    vm.run(f"ip link set {name} down && ip link add upper type {kind} && ip link set {name} master upper")
    (enslaved,) = refused(vm, nic).values()
    assert enslaved.guard == "enslaved"
    assert name in enslaved.text
    assert f"{kind} upper" in enslaved.text
    vm.run(f"ip link set upper up && ip link set {name} up && ip address flush {name}")
    vm.run("ip address add 10.0.2.15/24 dev upper && ip route add default via 10.0.2.2 dev upper")
    found = refused(vm, nic)
    assert set(found) == {"enslaved", "route"}, "what goes through upper goes through it"
    assert "upper" in found["route"].text
    assert set(refused(vm, nic, "--force=route")) == {"enslaved"}
    ctl(vm, "set", nic, "vfio", "--force=route", "--force=enslaved")
    assert vm.driver(nic) == "vfio-pci"


def test_an_interface_that_is_in_another_network_namespace_stays_there(vm: Machine) -> None:
    name = vm.run(f"ls {PCI}/{E1000E}/net").out.strip()
    vm.run(f"ip netns add away && ip link set {name} netns away")
    (netns,) = refused(vm, E1000E).values()
    assert netns.guard == "netns"
    vm.run("ip netns del away")
    vm.wait_for(f"test -e /sys/class/net/{name}")
    ctl(vm, "set", E1000E, "vfio")
    assert vm.driver(E1000E) == "vfio-pci"


# --- SR-IOV


def test_a_pf_with_vfs_goes_by_force_and_comes_back_with_its_vfs(vm: Machine) -> None:
    pf = vm.plug_nvme(vfs=2)
    vm.run(f"echo 0 > {PCI}/{pf}/sriov_drivers_autoprobe")
    (vfs,) = refused(vm, pf).values()
    assert vfs.guard == "vfs"
    assert "2 VFs" in vfs.text
    assert "sriov_numvfs" in vfs.hint
    ctl(vm, "set", pf, "vfio", "--force=vfs", timeout=120)
    assert vm.driver(pf) == "vfio-pci"
    assert vm.virtual_functions(pf) == []
    assert "VFs" in ctl(vm, "show", pf).out
    ctl(vm, "reset", pf, timeout=120)
    assert vm.driver(pf) == "nvme"
    assert override(vm, pf) is None
    assert len(vm.virtual_functions(pf)) == 2
    assert vm.run(f"cat {PCI}/{pf}/sriov_drivers_autoprobe").out == "0\n"
    assert vm.run("ls /run/flavourd/records").out == ""


def test_what_a_vf_is_used_for_keeps_its_pf(vm: Machine) -> None:
    pf = vm.plug_nvme(vfs=2)
    vf = vm.virtual_functions(pf)[1]
    ctl(vm, "set", vf, "vfio", timeout=120)
    pid = hold(vm, vf)
    found = refused(vm, pf)
    assert set(found) == {"vfs", "held"}
    assert found["held"].text.startswith(f"its VF pci/{vf}")
    assert f"python3 (pid {pid}, holder.service)" in found["held"].by
    with untouched(vm, vf):
        assert set(refused(vm, pf, "--force=vfs")) == {"held"}
    let_go(vm)
    ctl(vm, "set", pf, "vfio", "--force=vfs", timeout=120)
    ctl(vm, "reset", pf, timeout=120)
    assert vm.driver(pf) == "nvme"
    assert len(vm.virtual_functions(pf)) == 2
    assert vm.run("ls /run/flavourd/records").out == "", "the VF that was in the flavour is no more"


# --- user space and virtual machines


DOMAIN = """<domstatus state='running'><domain type='kvm' id='1'><name>web</name><devices>
<hostdev mode='subsystem' type='pci' managed='yes'><source>
<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev>
</devices></domain></domstatus>
"""


def test_who_holds_a_device_through_vfio_keeps_it_there(vm: Machine) -> None:
    ctl(vm, "set", E1000E, "vfio")
    pid = hold(vm, E1000E)
    (held,) = refused(vm, E1000E, verb="reset").values()
    assert held.guard == "held"
    assert f"python3 (pid {pid}, holder.service)" in held.by
    told = ask(vm, E1000E, "default")
    assert (told.code, told.guards) == ("in-use", ("held",))
    assert f"python3 (pid {pid}, holder.service)" in told.message
    let_go(vm)
    ctl(vm, "reset", E1000E)
    assert vm.driver(E1000E) == "e1000e"


def test_a_device_of_a_running_domain_of_libvirt_stays_with_it(vm: Machine) -> None:
    ctl(vm, "set", E1000E, "vfio")
    vm.run("mkdir -p -m 700 /run/libvirt/qemu")
    vm.write("/run/libvirt/qemu/web.xml", DOMAIN)
    (libvirt,) = refused(vm, E1000E, verb="reset").values()
    assert libvirt.guard == "libvirt"
    assert "web" in libvirt.text
    assert "virsh" in libvirt.hint
    vm.write("/run/libvirt/qemu/web.xml", DOMAIN.replace("bus='0x01'", "bus='0x02'"))
    vm.write("/run/libvirt/qemu/broken.xml", "<domstatus")
    ctl(vm, "reset", E1000E)
    assert vm.driver(E1000E) == "e1000e"


# --- what people sit at


def test_the_display_with_the_console_stays(vm: Machine) -> None:
    display = vm.plug_display()
    found = refused(vm, display)
    assert "display" in found
    assert "console" in found["display"].text
    vm.run("echo 0 > /sys/class/vtconsole/vtcon1/bind")
    ctl(vm, "set", display, "vfio")
    assert vm.driver(display) == "vfio-pci"


def test_the_only_keyboard_stays_and_one_of_two_may_go(vm: Machine) -> None:
    usb = vm.plug_keyboard()
    ctl(vm, "set", usb, "vfio", "--dry-run")
    vm.run("echo serio0 > /sys/bus/serio/drivers/atkbd/unbind")
    (keyboard,) = refused(vm, usb).values()
    assert keyboard.guard == "input"
    assert "keyboard" in keyboard.text
    ctl(vm, "set", usb, "vfio", "--force=input")
    assert vm.driver(usb) == "vfio-pci"


# --- what the settings make of it


def settings(vm: Machine, text: str) -> None:
    vm.write("/etc/flavourd/flavourd.yaml", text)
    vm.run("systemctl reload flavourd")


def test_the_settings_say_what_a_guard_means(vm: Machine) -> None:
    nic, _ = vm.plug_nic()
    vm.run("ip route add default via 10.0.2.2")
    with untouched(vm, nic):
        done = ctl(vm, "set", nic, "vfio", "--dry-run", rc=NOT_DONE)
        assert findings(done)["route"].why == "in use"
        settings(vm, "guards: {route: warning}\n")
        done = ctl(vm, "set", nic, "vfio", "--dry-run")
        assert findings(done)["route"].why == "although"
        settings(vm, "guards: {route: off}\n")
        assert findings(ctl(vm, "set", nic, "vfio", "--dry-run")) == {}
    settings(vm, "guards: {route: warning, group: error}\n")
    done = ctl(vm, "set", nic, "vfio")
    assert findings(done)["route"].why == "although"
    assert vm.driver(nic) == "vfio-pci"
    with untouched(vm, E1000_TWIN):
        found = refused(vm, E1000)
    assert set(found) == {"group"}
    assert f"pci/{E1000_TWIN} (e1000)" in found["group"].text
    both = (E1000, E1000_TWIN)
    ctl(vm, "set", *both, "vfio", "--dry-run", rc=NOT_DONE)
    ctl(vm, "set", *both, "vfio", rc=NOT_DONE)
    assert [vm.driver(one) for one in both] == ["e1000", "e1000"], "each is a switch of its own, and may go alone"
    ctl(vm, "set", "--group", E1000, "vfio", "--dry-run")
    ctl(vm, "set", "--group", E1000, "vfio")
    assert [vm.driver(one) for one in both] == ["vfio-pci", "vfio-pci"]


def test_force_passes_over_what_it_names_and_nothing_else(vm: Machine) -> None:
    done = ctl(vm, "set", E1000E, "vfio", "--force=everything", rc=NOT_DONE)
    assert "[unknown-guard]" in done.out
    for guard in shlex.split(ctl(vm, "complete", "guards").out):
        assert len(ctl(vm, "explain", guard).out) > 40
    assert vm.driver(E1000E) == "e1000e"
