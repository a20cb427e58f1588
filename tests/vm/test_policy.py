# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the policy says is true after each boot, of what is plugged later, and stays true whoever else is at work."""

import pytest

from .asking import PCI, alive, ask, override, proof, untouched
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN, VIRTIO_NET
from .flavourctl import NOT_DONE, ctl
from .machine import Machine
from .policy import FOLDER, THIS_BOOT, by_policy, diff, enforce, put, troubles, until_driver
from .userspace import hold, let_go

pytestmark = pytest.mark.vm

ONE_TWIN = f"""
  - name: one of two twins
    match: {{address: "{E1000E}"}}
    expect: {{vendor: "8086", device: "10d3"}}
    flavour: vfio
"""
VFS = """
  - name: all VFs of NVMe controllers
    match: {class: nvme, vf: "*"}
    flavour: vfio
"""
MAKES_VFS = """
  - name: controllers have four of them
    match: {class: nvme, not: {vf: "*"}}
    flavour: default
    vfs: 4
"""
PLUGGED = """
  - name: whatever is plugged there
    match: {address: "0000:07:00.0"}
    flavour: vfio
"""


def kernel_says(vm: Machine, pattern: str) -> list[str]:
    return vm.run(f"dmesg | grep -E '{pattern}'", check=False).out.splitlines()


def microseconds(vm: Machine, unit: str) -> int:
    return int(vm.run(f"systemctl show -P ActiveEnterTimestampMonotonic {unit}").out)


# --- boots


def test_after_a_boot_the_right_devices_are_in_their_flavour_and_their_native_drivers_never_had_them(
    vm: Machine,
) -> None:
    controller = vm.plug_nvme()
    put(vm, ONE_TWIN + VFS + MAKES_VFS + PLUGGED)
    vm.reboot()

    assert vm.driver(E1000E) == "vfio-pci"
    assert kernel_says(vm, f"e1000e {E1000E}") == [], "the native driver never bound it"
    (told,) = by_policy(vm, E1000E)
    assert told.kind == "switched", told.message
    assert vm.driver(E1000E_TWIN) == "e1000e"
    assert kernel_says(vm, f"e1000e {E1000E_TWIN}"), "and of its twin the kernel tells that"
    assert override(vm, E1000E_TWIN) is None
    assert (vm.driver(VIRTIO_NET), override(vm, VIRTIO_NET)) == ("virtio-pci", None)
    assert (vm.driver(E1000), vm.driver(E1000_TWIN)) == ("e1000", "e1000")

    functions = vm.virtual_functions(controller)
    assert len(functions) == 4
    assert [vm.driver(function) for function in functions] == ["vfio-pci"] * 4
    assert vm.driver(controller) == "nvme"
    assert kernel_says(vm, r"nvme .*pci function 0000:06:00\.[1-7]") == [], "nvme never probed a VF"
    assert vm.run(f"cat {PCI}/{controller}/sriov_drivers_autoprobe").out.strip() == "1", "as it was"
    assert microseconds(vm, "flavourd.service") < microseconds(vm, "multi-user.target")
    assert "running" in vm.run("systemctl is-system-running", check=False).out

    plugged = vm.plug("e1000e", id="card", bus="free1", romfile="")
    until_driver(vm, plugged, "vfio-pci")
    vm.unplug("card")
    vm.plug("e1000e", id="card", bus="free1", romfile="")
    until_driver(vm, plugged, "vfio-pci")

    vm.run("systemctl disable flavourd")
    vm.reboot()
    assert vm.run("systemctl is-active flavourd", check=False).out.strip() == "inactive"
    vm.run("udevadm settle")  # nobody has waited for it
    for address, driver in {E1000E: "e1000e", E1000E_TWIN: "e1000e", controller: "nvme", plugged: "e1000e"}.items():
        assert (vm.driver(address), override(vm, address)) == (driver, None)
    assert vm.virtual_functions(controller) == []
    assert vm.run("ls /run/udev/rules.d /run/flavourd 2>/dev/null", check=False).out.split() in ([], ["io.flavourd"])


def test_an_explicit_request_wins_until_the_next_boot_and_one_that_is_to_persist_for_good(vm: Machine) -> None:
    enforce(vm, ONE_TWIN)
    until_driver(vm, E1000E, "vfio-pci")
    ctl(vm, "reset", E1000E)
    with untouched(vm, E1000E):
        assert vm.driver(E1000E) == "e1000e"
        ctl(vm, "reload")
        vm.run("systemctl restart flavourd", timeout=120)
        assert diff(vm) == {E1000E: "left"}
    done = ctl(vm, "set", VIRTIO_NET, "vfio", "--persist")
    assert "10-persist-pci:0000:03:00.0.yaml" in done.out
    ctl(vm, "set", E1000E_TWIN, "vfio")
    vm.reboot()
    assert vm.driver(E1000E) == "vfio-pci"
    assert vm.driver(VIRTIO_NET) == "virtio_vfio_pci"
    assert kernel_says(vm, f"virtio-pci {VIRTIO_NET}") == []
    assert vm.driver(E1000E_TWIN) == "e1000e", "nobody wrote it down"

    ctl(vm, "reset", VIRTIO_NET, "--persist")
    assert vm.driver(VIRTIO_NET) == "virtio-pci"
    assert vm.run(f"ls {FOLDER}").out.split() == ["50-test.yaml"]
    with untouched(vm, VIRTIO_NET):
        vm.run("systemctl restart flavourd", timeout=120)


def test_a_policy_that_is_wrong_at_boot_leaves_the_host_as_it_is_without_and_is_told(vm: Machine) -> None:
    put(vm, ONE_TWIN)
    put(vm, "  - match: {vendr: '8086'}\n    flavour: vfio\n", "60-wrong.yaml")
    vm.reboot()
    assert alive(vm)
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)
    assert vm.run("systemctl is-failed flavourd-early").out.strip() == "failed"
    assert "did you mean 'vendor'" in vm.run("journalctl -q -o cat -b -p err -u flavourd-early").out
    assert vm.run("ls /run/udev/rules.d", check=False).out == ""
    status = ctl(vm, "status").out
    assert "60-wrong.yaml:2:13" in status
    assert "did you mean 'vendor'" in status
    assert troubles(vm, "policy")
    assert ask(vm, E1000E_TWIN, "vfio").kind == "switched", "it serves"

    vm.run(f"rm {FOLDER}/60-wrong.yaml")
    ctl(vm, "reload")
    until_driver(vm, E1000E, "vfio-pci")


# --- reload


def test_a_broken_file_does_not_take_the_good_policy_away(vm: Machine) -> None:
    enforce(vm, ONE_TWIN)
    until_driver(vm, E1000E, "vfio-pci")
    put(vm, "  - match: {vendr: '8086'}\n    flavour: vfio\n", "60-wrong.yaml")
    for command in (["flavourctl", "reload"], ["systemctl", "reload", "flavourd"]):
        done = vm.run(command, check=False)
        assert done.rc != 0, command
    assert "60-wrong.yaml:2:13" in ctl(vm, "reload", rc=NOT_DONE).err
    assert "60-wrong.yaml" in ctl(vm, "status").out
    vm.run(f"echo > {PCI}/{E1000E}/driver_override; echo {E1000E} > /sys/bus/pci/drivers/vfio-pci/unbind")
    until_driver(vm, E1000E, "vfio-pci")  # the good one is still in force


def test_what_no_rule_mentions_any_more_is_left_and_a_rule_for_default_brings_it_back(vm: Machine) -> None:
    enforce(vm, ONE_TWIN)
    until_driver(vm, E1000E, "vfio-pci")
    with untouched(vm, E1000E):
        vm.run(f"rm {FOLDER}/50-test.yaml")
        ctl(vm, "reload")
    enforce(vm, ONE_TWIN.replace("vfio", "default"))
    until_driver(vm, E1000E, "e1000e")


def test_a_rule_whose_hardware_has_moved_does_nothing_and_tells(vm: Machine) -> None:
    moved = ONE_TWIN.replace("10d3", "10d4") + '  - match: {address: "*"}\n    flavour: vfio\n    mode: observe\n'
    with untouched(vm, E1000E, E1000E_TWIN):
        enforce(vm, moved)
        assert "10d3" in troubles(vm, "unexpected-hardware")[0]
    verdicts = diff(vm)
    assert (verdicts[E1000E], verdicts[E1000E_TWIN]) == ("stopped", "observed")


def test_more_changes_than_a_rule_may_make_are_not_made(vm: Machine) -> None:
    with untouched(vm, E1000E, E1000E_TWIN):
        enforce(vm, '  - match: {device: "10d3"}\n    flavour: vfio\n    max-changes: 1\n')
        assert troubles(vm, "max-changes")
    enforce(vm, '  - match: {device: "10d3"}\n    flavour: vfio\n    max-changes: 2\n')
    until_driver(vm, E1000E, "vfio-pci")
    until_driver(vm, E1000E_TWIN, "vfio-pci")


def test_a_whole_group_goes_by_a_rule_for_one_of_it_and_its_node_belongs_to_whom_the_policy_says(vm: Machine) -> None:
    vm.run("groupadd -r machines")
    node = "device-node: {group: machines, mode: '0660'}"
    enforce(vm, f'  - match: {{address: "{E1000}"}}\n    flavour: vfio\n    group: true\n    {node}\n')
    until_driver(vm, E1000, "vfio-pci")
    until_driver(vm, E1000_TWIN, "vfio-pci")
    group = vm.run(f"basename $(readlink {PCI}/{E1000}/iommu_group)").out.strip()
    vm.wait_for(f"[ \"$(stat -c '%U %G %a' /dev/vfio/{group})\" = 'root machines 660' ]")


# --- others at work


def test_who_takes_a_device_away_once_is_made_up_for_and_told(vm: Machine) -> None:
    enforce(vm, ONE_TWIN)
    until_driver(vm, E1000E, "vfio-pci")
    vm.run(f"echo e1000e > {PCI}/{E1000E}/driver_override; echo {E1000E} > /sys/bus/pci/drivers/vfio-pci/unbind")
    vm.run(f"echo {E1000E} > /sys/bus/pci/drivers_probe")
    by_policy(vm, E1000E, count=2)
    until_driver(vm, E1000E, "vfio-pci")
    assert override(vm, E1000E) == "vfio-pci"

    vm.run(["driverctl", "set-override", E1000E, "e1000e"], timeout=90)
    by_policy(vm, E1000E, count=3)
    until_driver(vm, E1000E, "vfio-pci")
    assert any("driverctl" in told for told in troubles(vm, "contested"))


def test_an_override_that_was_cleared_while_the_device_is_bound_is_written_again(vm: Machine) -> None:
    enforce(vm, ONE_TWIN)
    until_driver(vm, E1000E, "vfio-pci")
    vm.run(f"echo > {PCI}/{E1000E}/driver_override")
    ctl(vm, "reload")  # no event tells of it: the slow timer would find it
    vm.wait_for(f"grep -qx vfio-pci {PCI}/{E1000E}/driver_override")
    assert proof(vm, E1000E)


def test_a_fight_ends_with_contested_and_an_explicit_request_begins_anew(vm: Machine) -> None:
    enforce(vm, ONE_TWIN)
    until_driver(vm, E1000E, "vfio-pci")
    thief = (
        f"cd {PCI}/{E1000E}; while :; do "
        'if [ "$(readlink driver | sed s,.*/,,)" = vfio-pci ]; then '
        f"echo e1000e > driver_override; echo {E1000E} > driver/unbind; echo {E1000E} > /sys/bus/pci/drivers_probe; "
        "fi; sleep 0.2; done"
    )
    vm.run(["systemd-run", "-q", "--unit=thief", "sh", "-c", thief])
    vm.wait_for("flavourctl status | grep -i contested | grep -q 01:00.0", timeout=240)
    vm.run("systemctl stop thief", check=False)
    assert vm.driver(E1000E) == "e1000e", "it was left to the other one"
    with untouched(vm, E1000E):
        assert troubles(vm, "contested")
        assert "contested" in ctl(vm, "list", E1000E).out
    ctl(vm, "set", E1000E, "vfio")
    assert "contested" not in ctl(vm, "list", E1000E).out


def test_mode_prefer_leaves_what_somebody_changed_and_observe_only_tells(vm: Machine) -> None:
    prefer = ONE_TWIN + "    mode: prefer\n"
    observe = f'  - match: {{address: "{E1000E_TWIN}"}}\n    flavour: vfio\n    mode: observe\n'
    with untouched(vm, E1000E_TWIN):
        enforce(vm, prefer + observe)
        until_driver(vm, E1000E, "vfio-pci")
        vm.run(["driverctl", "--nosave", "set-override", E1000E, "e1000e"], timeout=90)
        vm.wait_for(f"journalctl -q -u flavourd -o cat | grep '{E1000E}' | grep -q 'mode: prefer'")
        ctl(vm, "reload")
        assert vm.driver(E1000E) == "e1000e"
        assert diff(vm) == {E1000E: "left", E1000E_TWIN: "observed"}


# --- SR-IOV


def test_vfs_follow_as_they_appear_and_their_number_never_changes_under_a_holder(vm: Machine) -> None:
    controller = vm.plug_nvme()
    enforce(vm, VFS)
    vm.run(f"echo 2 > {PCI}/{controller}/sriov_numvfs")
    functions = vm.virtual_functions(controller)
    for function in functions:
        until_driver(vm, function, "vfio-pci")

    hold(vm, functions[0])
    with untouched(vm, controller, *functions):
        enforce(vm, VFS + MAKES_VFS)
        (told,) = by_policy(vm, controller)
        assert (told.kind, told.code) == ("refused", "vfs-in-use"), told.message
    let_go(vm)
    ctl(vm, "reload")
    vm.wait_for(f"test -e {PCI}/{controller}/virtfn3")
    functions = vm.virtual_functions(controller)
    assert len(functions) == 4
    for function in functions:
        until_driver(vm, function, "vfio-pci")


# --- told without being done


def test_check_match_and_diff_tell_what_would_be_and_touch_nothing(vm: Machine) -> None:
    with untouched(vm, E1000E, E1000E_TWIN, VIRTIO_NET):
        put(vm, ONE_TWIN)
        assert ctl(vm, "policy", "check", user="daemon").rc == 0
        matched = ctl(vm, "policy", "match", E1000E, E1000E_TWIN).out
        assert "one of two twins" in matched
        assert diff(vm) == {E1000E: "change"}
        assert E1000E in ctl(vm, "policy", "diff").out
        put(vm, "  - match: {vendr: '8086'}\n    flavour: vfio\n")
        wrong = ctl(vm, "policy", "check", rc=NOT_DONE)
        assert "50-test.yaml:2:13" in wrong.out + wrong.err
    assert vm.run(f"journalctl -q -u flavourd FLAVOURD_ORIGIN=policy {THIS_BOOT}").out == ""
