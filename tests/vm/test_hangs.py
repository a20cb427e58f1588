# SPDX-License-Identifier: LGPL-2.1-or-later
"""A device whose driver does not come back: at the deadline it is told who holds it and where the kernel sleeps; its
kin is left alone, all others are served, and it heals by itself.
"""

import json
import re
import statistics

import pytest

from .asking import ask, outcomes, override, proof, untouched
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN, VIRTIO_NET
from .flavourctl import BROKEN, UNKNOWN, ctl
from .machine import Machine
from .test_daemon import daemon, drop_in
from .userspace import hold, let_go, program
from .varlink import call

pytestmark = pytest.mark.vm

SLEEPS_IN = "vfio_unregister_group_dev"
OTHERS = (E1000E_TWIN, VIRTIO_NET, E1000, E1000_TWIN, E1000E_TWIN)


def short_deadline(vm: Machine, seconds: int = 6) -> None:
    drop_in(vm, f"ExecStart=\nExecStart=/usr/sbin/flavourd --deadline {seconds}\n")


def make_stuck(vm: Machine, address: str) -> int:
    """A program keeps the device open while it is taken away by force; returns its pid."""
    ctl(vm, "set", address, "vfio", timeout=120)
    pid = hold(vm, address)
    done = ctl(vm, "reset", address, "--force=held", rc=BROKEN)
    assert "the kernel has not answered within 6 s" in done.out
    assert "[stuck]" in done.out
    assert f"python3 (pid {pid}, holder.service)" in done.out
    assert SLEEPS_IN in done.out
    return pid


def no_longer_stuck(vm: Machine) -> None:
    vm.wait_for("flavourctl status --json=short | grep -q '\"stuck\": *\\[\\]'", timeout=60)


def ten_switches(vm: Machine) -> list[float]:
    done = vm.run(program(vm, "timing", *OTHERS), timeout=300)
    found: list[float] = json.loads(done.out)
    return found


def test_a_held_device_is_told_with_all_that_is_known_while_the_others_are_served_and_it_heals(vm: Machine) -> None:
    short_deadline(vm)
    ten_switches(vm)  # loads what has to be loaded
    before = ten_switches(vm)
    pid = make_stuck(vm, E1000E)

    meanwhile = ten_switches(vm)
    slowdown = statistics.median(after / first for first, after in zip(before, meanwhile, strict=True))
    print(f"seconds for ten switches: before {before}, meanwhile {meanwhile}; median of the ratios {slowdown:.2f}")
    assert slowdown < 1.5
    assert max(meanwhile) < 3 * max(before)

    (stuck,) = call(vm, "Status").last["stuck"]
    assert (stuck["device"], stuck["flavour"], stuck["wchan"]) == (f"pci/{E1000E}", "default", SLEEPS_IN)
    assert [(one["pid"], one["name"], one["unit"]) for one in stuck["holders"]] == [(pid, "python3", "holder.service")]
    assert vm.run(f"cat /proc/{stuck['pid']}/comm").out == "flavourd\n"
    assert "vfio (stuck)" in ctl(vm, "list", E1000E).out or "default (stuck)" in ctl(vm, "list", E1000E).out
    for told in (ctl(vm, "show", E1000E).out, ctl(vm, "status").out):
        assert SLEEPS_IN in told or E1000E in told
        assert f"python3 (pid {pid}, holder.service)" in told
    assert SLEEPS_IN in ctl(vm, "show", E1000E).out
    (journal,) = outcomes(vm, "FLAVOURD_KIND=stuck")
    assert SLEEPS_IN in journal.message
    assert f"python3 (pid {pid}, holder.service)" in journal.message
    assert "1 stuck" in vm.run("systemctl show -P StatusText flavourd").out

    for verb in (("reset", E1000E), ("set", E1000E, "vfio")):
        assert "[stuck]" in ctl(vm, *verb, rc=BROKEN).out
    let_go(vm)
    no_longer_stuck(vm)
    assert (vm.driver(E1000E), override(vm, E1000E), proof(vm, E1000E)) == ("e1000e", None, [])
    history = call(vm, "History", device=E1000E).last["outcomes"]
    assert [one["kind"] for one in history][-1] == "switched", "the wish was fulfilled after all"
    ctl(vm, "set", E1000E, "vfio")


def test_kin_of_a_stuck_device_is_refused_at_once_and_not_touched(vm: Machine) -> None:
    short_deadline(vm)
    ctl(vm, "set", "--group", E1000, "vfio")
    make_stuck(vm, E1000)
    with untouched(vm, E1000_TWIN):
        done = ctl(vm, "reset", E1000_TWIN, "--force=held", rc=BROKEN)
    assert "[kin-stuck]" in done.out
    assert f"pci/{E1000}" in done.out
    with untouched(vm, E1000_TWIN):
        assert "[stuck]" in ctl(vm, "reset", "--group", E1000_TWIN, rc=BROKEN).out
    let_go(vm)
    no_longer_stuck(vm)
    ctl(vm, "reset", "--group", E1000_TWIN)
    assert (vm.driver(E1000), vm.driver(E1000_TWIN)) == ("e1000", "e1000")


def test_the_pf_of_a_stuck_vf_is_refused_at_once_and_not_touched_and_another_vf_is_switched(vm: Machine) -> None:
    short_deadline(vm)
    pf = vm.plug_nvme(vfs=2)
    held, other = vm.virtual_functions(pf)
    make_stuck(vm, held)
    with untouched(vm, pf):
        done = ctl(vm, "set", pf, "vfio", "--force=vfs", "--force=held", rc=BROKEN)
    assert "[kin-stuck]" in done.out
    assert f"pci/{held}" in done.out
    told = ask(vm, other, "vfio", timeout=60)
    assert (told.kind, told.driver) == ("switched", "vfio-pci"), told.message
    assert call(vm, "List").error is None, "who looks is not held up"
    let_go(vm)
    no_longer_stuck(vm)


def test_a_restart_does_not_wait_for_a_stuck_worker_and_the_next_daemon_knows_of_it(vm: Machine) -> None:
    short_deadline(vm)
    pid = make_stuck(vm, E1000E)
    (stuck,) = call(vm, "Status").last["stuck"]
    before = daemon(vm)
    uptime = "cut -d' ' -f1 /proc/uptime"
    began, now = map(float, vm.run(f"{uptime}; systemctl restart flavourd; {uptime}").out.split())
    print(f"restart with a stuck worker: {now - began:.1f} s")
    assert now - began < 30
    assert daemon(vm) != before
    assert vm.run(f"cat /proc/{stuck['pid']}/wchan").out == SLEEPS_IN, "the worker has outlived its daemon"
    (again,) = call(vm, "Status").last["stuck"]
    assert (again["device"], again["pid"], again["wchan"]) == (f"pci/{E1000E}", stuck["pid"], SLEEPS_IN)
    assert again["since"] == stuck["since"]
    assert [one["pid"] for one in again["holders"]] == [pid]
    assert "[stuck]" in ctl(vm, "set", E1000E, "vfio", rc=BROKEN).out
    assert ask(vm, VIRTIO_NET, "vfio").kind == "switched"
    let_go(vm)
    no_longer_stuck(vm)
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)
    assert ask(vm, E1000E, "vfio").kind == "switched"


def test_a_killed_daemon_is_followed_by_one_that_knows_what_is_stuck(vm: Machine) -> None:
    short_deadline(vm)
    make_stuck(vm, E1000E)
    before = daemon(vm)
    vm.run("systemctl kill -s KILL --kill-whom=main flavourd")
    vm.wait_for(f"pid=$(systemctl show -P MainPID flavourd); [ $pid -gt 0 ] && [ $pid != {before} ]")
    vm.wait_for("systemctl is-active flavourd", timeout=60)
    (stuck,) = call(vm, "Status").last["stuck"]
    assert (stuck["device"], stuck["wchan"]) == (f"pci/{E1000E}", SLEEPS_IN)
    let_go(vm)
    no_longer_stuck(vm)
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)


def test_a_stop_ends_although_a_worker_sleeps_and_the_next_start_makes_up_for_it(vm: Machine) -> None:
    short_deadline(vm)
    make_stuck(vm, E1000E)
    vm.run("systemctl stop flavourd.socket flavourd.service", timeout=60)
    let_go(vm)
    vm.run("systemctl start flavourd")
    no_longer_stuck(vm)
    assert (vm.driver(E1000E), override(vm, E1000E), proof(vm, E1000E)) == ("e1000e", None, [])


def test_what_was_stuck_is_dropped_if_the_settings_say_so(vm: Machine) -> None:
    vm.write("/etc/flavourd/flavourd.yaml", "stuck: {then: drop}\n")
    short_deadline(vm)
    make_stuck(vm, E1000E)
    let_go(vm)
    no_longer_stuck(vm)
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("vfio-pci", "vfio-pci")
    assert proof(vm, E1000E)
    history = call(vm, "History", device=E1000E).last["outcomes"]
    assert [one["kind"] for one in history][-1] == "undone"
    ctl(vm, "reset", E1000E)
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)


def test_a_device_that_is_pulled_while_it_is_stuck_is_forgotten_when_the_kernel_lets_go(vm: Machine) -> None:
    short_deadline(vm)
    address = vm.plug("e1000e", id="card", romfile="")
    vm.wait_for(f"test -e /sys/bus/pci/devices/{address}/driver")
    make_stuck(vm, address)
    vm.qmp("device_del", id="card")
    assert re.search(r"stuck", ctl(vm, "status").out)
    let_go(vm)
    no_longer_stuck(vm)
    vm.qemu.wait_event("DEVICE_DELETED", device="card")
    vm.wait_for(f"! test -e /sys/bus/pci/devices/{address}")
    vm.wait_for("! ls /run/flavourd/records /run/flavourd/begun | grep pci:")
    assert "there is no device" in ctl(vm, "show", address, rc=UNKNOWN).err
    assert ask(vm, E1000E, "vfio").kind == "switched"
