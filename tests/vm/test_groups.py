# SPDX-License-Identifier: LGPL-2.1-or-later
"""IOMMU groups are switched as one or not at all, and devices that have something in common take turns."""

import errno
import shlex

import pytest

from .asking import PCI, ask, override, proof, send, untouched, variant
from .devices import E1000, E1000_TWIN, E1000E, VIRTIO_NET
from .flavourctl import NOT_DONE, ctl, findings
from .machine import CommandError, Machine
from .test_unplug import slow_module
from .userspace import use
from .varlink import INTERFACE, SOCKET, Reply, call, words

pytestmark = pytest.mark.vm


def is_native(vm: Machine, *addresses: str) -> bool:
    return all(
        (vm.driver(address), override(vm, address), proof(vm, address)) == ("e1000", None, []) for address in addresses
    )


# --- one transaction


def test_one_member_alone_cannot_be_opened_as_was_told_and_the_whole_group_can(vm: Machine) -> None:
    alone = ctl(vm, "set", E1000, "vfio")
    assert f"cannot be opened yet: it also holds pci/{E1000_TWIN} (e1000)" in alone.out
    with pytest.raises(CommandError, match="not viable"):
        use(vm, E1000)
    ctl(vm, "reset", E1000)
    assert is_native(vm, E1000, E1000_TWIN)

    with untouched(vm, E1000, E1000_TWIN):
        plans = ctl(vm, "set", "--group", "--dry-run", E1000, "vfio").out
    assert f"pci/{E1000} -> vfio: would be switched" in plans
    assert f"pci/{E1000_TWIN} -> vfio: would be switched" in plans
    done = ctl(vm, "set", "--group", E1000, "vfio")
    for address in (E1000, E1000_TWIN):
        assert f"pci/{address} is in flavour vfio now" in done.out
    assert "cannot be opened yet" not in done.out
    assert use(vm, E1000) == use(vm, E1000_TWIN) == "8086"
    assert "was in flavour vfio already" in ctl(vm, "set", "--group", E1000_TWIN, "vfio").out
    ctl(vm, "reset", "--group", E1000_TWIN)
    assert is_native(vm, E1000, E1000_TWIN)
    assert vm.run("ls /run/flavourd/records").out == ""


def test_what_keeps_one_member_keeps_the_whole_group_and_nothing_is_touched(vm: Machine) -> None:
    name = vm.run(f"ls {PCI}/{E1000_TWIN}/net").out.strip()
    vm.run(f"ip address add 10.9.0.2/24 dev {name} && ip link set {name} up && ip route add default via 10.9.0.1")
    with untouched(vm, E1000, E1000_TWIN):
        done = ctl(vm, "set", "--group", E1000, "vfio", rc=NOT_DONE)
    assert f"pci/{E1000_TWIN} is in use" in done.out
    assert set(findings(done)) == {"route"}
    assert "[in-use]" in done.out
    assert f"switched together with pci/{E1000_TWIN} or not at all" in done.out
    assert "[together]" in done.out
    ctl(vm, "set", "--group", E1000, "vfio", "--force=route")
    assert use(vm, E1000) == "8086"


def test_if_the_last_member_fails_those_before_are_put_back_exactly(vm: Machine) -> None:
    third = vm.plug_in_group()
    variant(vm, answer=-errno.EBUSY)
    vm.run(f"echo foreign > {PCI}/{E1000_TWIN}/driver_override")
    done = ctl(vm, "set", "--group", E1000, "vfio", rc=NOT_DONE)
    assert f"pci/{third} did not take flavour vfio and is as it was, driver e1000e" in done.out
    assert "[busy]" in done.out
    assert "test variant refuses: -16" in done.out
    for address in (E1000, E1000_TWIN):
        assert f"pci/{address} did not take flavour vfio and is as it was, driver e1000" in done.out
        assert f"switched together with pci/{third} or not at all" in done.out
    assert is_native(vm, E1000)
    assert (vm.driver(E1000_TWIN), override(vm, E1000_TWIN)) == ("e1000", "foreign")
    assert (vm.driver(third), override(vm, third)) == ("e1000e", None)
    assert vm.run("ls /run/flavourd/records").out == ""
    vm.run("echo 0 > /sys/module/test_vfio_pci/parameters/answer")
    ctl(vm, "set", "--group", E1000, "vfio")
    assert vm.driver(third) == "test_vfio_pci"
    assert use(vm, E1000) == "8086"
    ctl(vm, "reset", "--group", third)
    assert (vm.driver(E1000_TWIN), override(vm, E1000_TWIN)) == ("e1000", "foreign")


def test_daemon_and_worker_killed_in_the_middle_of_a_group_leave_it_whole(vm: Machine) -> None:
    third = vm.plug_in_group()
    variant(vm, delay_ms=3000, answer=-errno.EBUSY)
    asked = vm.start(words("Set", "root", True, {"devices": [E1000], "flavour": "vfio", "group": True}))
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    assert (vm.driver(E1000), vm.driver(E1000_TWIN)) == ("vfio-pci", "vfio-pci"), "half-way"
    vm.run("systemctl kill -s KILL --kill-whom=all flavourd")
    assert asked.wait(60).rc != 0
    left = "ls /run/flavourd/begun /run/flavourd/records | grep -q pci:"
    vm.wait_for(f"{left} && exit 1; systemctl is-active flavourd", timeout=120)
    assert is_native(vm, E1000, E1000_TWIN)
    assert (vm.driver(third), override(vm, third)) == ("e1000e", None)


# --- turns


MONITOR = shlex.join(words("Monitor", "root", True, {}))


def follow(vm: Machine) -> None:
    vm.run(f"systemd-run -q --unit=monitor -p StandardOutput=file:/run/monitor {MONITOR}")
    vm.wait_for("test -s /run/monitor")


def at_work_together(vm: Machine) -> set[frozenset[str]]:
    """The sets of devices that were in work at the same time, as Monitor has told it."""
    told = Reply.of(vm.run("cat /run/monitor")).replies
    together: set[frozenset[str]] = set()
    working: set[str] = set()
    for one in told:
        if (step := one["step"]) and step["what"] == "begun":
            working.add(step["device"].removeprefix("pci/"))
        elif outcome := one["outcome"]:
            working.discard(outcome["device"].removeprefix("pci/"))
        together.add(frozenset(working))
    return together


def outcomes_told(vm: Machine, count: int) -> None:
    vm.wait_for(f"[ $(grep -c '\"outcome\":{{' /run/monitor) -ge {count} ]", timeout=120)


def test_those_of_a_group_take_turns_and_the_others_do_not_wait_for_them(vm: Machine) -> None:
    family = vm.virtual_functions(vm.plug_nvme(vfs=3))
    variant(vm, delay_ms=8000)
    follow(vm)
    send(vm, E1000E, "vfio")  # at work all the while
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    group = (E1000, E1000_TWIN)
    for address in (*family, *group, VIRTIO_NET):
        send(vm, address, "vfio")
    outcomes_told(vm, 7)
    together = at_work_together(vm)
    assert all(len(working & set(group)) <= 1 for working in together), together
    for address in (*family, *group, VIRTIO_NET):
        assert any({E1000E, address} <= working for working in together), f"{address} has waited for a stranger"
    assert {vm.driver(address) for address in (*family, *group)} == {"vfio-pci"}


def test_the_vfs_of_a_pf_are_at_work_together_and_the_pf_when_they_are_done(vm: Machine) -> None:
    pf = vm.plug_nvme(vfs=3)
    family = vm.virtual_functions(pf)
    slow_module(vm, "vfio_pci")
    follow(vm)
    for address in family:
        send(vm, address, "vfio")
    listed = f"varlinkctl --json=short call {SOCKET} {INTERFACE}.List '{{}}'"
    vm.wait_for(f'[ $({listed} | grep -o \'"step":"loading vfio_pci"\' | wc -l) = 3 ]')
    send(vm, pf, "vfio")  # only now: udev hands on what comes at once in any order
    vm.wait_for(f'{listed} | grep \'"step":"waiting for its turn"\'')
    vm.run("touch /run/load")
    outcomes_told(vm, 4)
    together = at_work_together(vm)
    assert frozenset(family) in together
    assert frozenset({pf}) in together
    assert not any(pf in working and working & set(family) for working in together), together
    assert {vm.driver(address) for address in family} == {"vfio-pci"}


def test_a_group_and_a_single_wish_for_one_of_its_members_are_both_answered_one_after_the_other(vm: Machine) -> None:
    third = vm.plug_in_group()
    variant(vm, delay_ms=2000)
    follow(vm)
    whole = vm.start(words("Set", "root", True, {"devices": [E1000], "flavour": "vfio", "group": True}))
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    told = ask(vm, E1000_TWIN, "default")
    assert (told.kind, told.driver) == ("switched", "e1000")
    reply = Reply.of(whole.wait(60))
    assert reply.error is None
    assert {(o["device"], o["kind"]) for o in reply.last["outcomes"]} == {
        (f"pci/{address}", "switched") for address in (E1000, E1000_TWIN, third)
    }
    after = [one["outcome"] for one in Reply.of(vm.run("cat /run/monitor")).replies if one["outcome"]]
    assert [o["flavour"] for o in after] == ["vfio", "vfio", "vfio", "default"]
    assert (vm.driver(E1000), vm.driver(E1000_TWIN), vm.driver(third)) == ("vfio-pci", "e1000", "test_vfio_pci")


def test_who_waits_for_his_turn_can_be_withdrawn_and_who_has_begun_cannot(vm: Machine) -> None:
    variant(vm, delay_ms=8000)
    begun = vm.start(["flavourctl", "set", E1000E, "vfio"])
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    waiting = vm.start(["flavourctl", "reset", E1000E])
    vm.wait_for("flavourctl status | grep -E 'Waiting: +1'")
    assert call(vm, "Cancel", devices=[E1000E, VIRTIO_NET]).last == {"withdrawn": 1}
    assert "[withdrawn]" in waiting.wait(30).out
    assert begun.running
    assert begun.wait(30).rc == 0
    assert vm.driver(E1000E) == "test_vfio_pci"
    assert call(vm, "Cancel", devices=[E1000E]).last == {"withdrawn": 0}
    ctl(vm, "cancel", E1000E)
