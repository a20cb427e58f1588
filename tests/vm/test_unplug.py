# SPDX-License-Identifier: LGPL-2.1-or-later
"""Surprises in the middle of a switch, at each of its steps: the device is pulled, its module is unloaded, another
program takes it. Each is told, none is a crash, and nothing is remembered of what is gone.
"""

import shlex

import pytest

from .asking import PCI, alive, answer, ask, override, proof, send, variant
from .devices import E1000E, VIRTIO_NET
from .machine import Machine
from .test_daemon import daemon
from .varlink import INTERFACE, SOCKET, Reply, words

pytestmark = pytest.mark.vm

# In milliseconds: a busy machine takes a second to see what is going on.
DELAY = 5000


def plug(vm: Machine) -> str:
    """An e1000e that can be pulled by its id, `card`."""
    address = vm.plug("e1000e", id="card", romfile="")
    vm.wait_for(f"readlink {PCI}/{address}/driver | grep -q e1000e")
    return address


def until_step(vm: Machine, text: str) -> None:
    """Wait until flavourd is about to do this with a device."""
    wanted = shlex.quote(f'"step":"{text}"')
    vm.wait_for(f"varlinkctl --json=short call {SOCKET} {INTERFACE}.List '{{}}' | grep -q {wanted}")


def slow_module(vm: Machine, module: str) -> None:
    """Loading the module takes until /run/load is there."""
    waiting = f"until [ -e /run/load ]; do sleep 0.05; done; exec modprobe --ignore-install {module}"
    vm.write("/etc/modprobe.d/wait.conf", f'install {module} /bin/sh -c "{waiting}"\n')


def parameter(vm: Machine, name: str, value: int) -> None:
    vm.run(f"echo {value} > /sys/module/test_vfio_pci/parameters/{name}")


def is_gone(vm: Machine, uuid: str, pid: int) -> None:
    """The answer tells so, nothing is remembered, and this daemon goes on to serve."""
    (told,) = answer(vm, uuid)
    assert (told.kind, told.code) == ("gone", "no-device"), told.message
    vm.wait_for("! ls /run/flavourd/records /run/flavourd/begun | grep pci:")
    assert daemon(vm) == pid
    assert vm.run("journalctl -q -u flavourd -o cat FLAVOURD_CODE=internal").out == ""
    assert ask(vm, E1000E, "vfio").kind == "switched", "it serves as before"


# --- pulled


def test_pulled_while_the_module_is_loaded(vm: Machine) -> None:
    address, pid = plug(vm), daemon(vm)
    slow_module(vm, "vfio_pci")
    uuid = send(vm, address, "vfio")
    until_step(vm, "loading vfio_pci")
    vm.unplug("card")
    vm.run("touch /run/load")
    is_gone(vm, uuid, pid)


def test_pulled_while_it_is_unbound(vm: Machine) -> None:
    variant(vm, remove_delay_ms=DELAY)
    address, pid = plug(vm), daemon(vm)
    ask(vm, address, "vfio")
    uuid = send(vm, address, "default")
    until_step(vm, "unbinding from test_vfio_pci")
    vm.unplug("card")
    is_gone(vm, uuid, pid)


def test_pulled_while_a_driver_probes_it(vm: Machine) -> None:
    variant(vm, delay_ms=DELAY)
    address, pid = plug(vm), daemon(vm)
    uuid = send(vm, address, "vfio")
    until_step(vm, "binding to test_vfio_pci")
    vm.unplug("card")
    (told,) = answer(vm, uuid)
    if told.kind == "switched":  # the kernel has finished the probe first, and took the device away after the answer
        vm.wait_for(f"! test -e {PCI}/{address}")
        assert ask(vm, E1000E, "default").kind == "already"
    else:
        is_gone(vm, uuid, pid)


def test_pulled_after_one_candidate_has_refused(vm: Machine) -> None:
    variant(vm, answer=-5)
    address, pid = plug(vm), daemon(vm)
    slow_module(vm, "vfio_pci")
    uuid = send(vm, address, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    until_step(vm, "loading vfio_pci")
    vm.unplug("card")
    vm.run("touch /run/load")
    is_gone(vm, uuid, pid)


def test_pulled_while_it_is_put_back(vm: Machine) -> None:
    variant(vm)
    address, pid = plug(vm), daemon(vm)
    ask(vm, address, "vfio")
    ask(vm, E1000E, "vfio")
    vm.run("modprobe -r e1000e")
    vm.write("/etc/modprobe.d/gone.conf", "install e1000e /bin/false\n")
    parameter(vm, "delay_ms", DELAY)
    uuid = send(vm, address, "default")
    until_step(vm, "binding to test_vfio_pci")
    vm.unplug("card")
    (told,) = answer(vm, uuid)
    vm.run("rm /etc/modprobe.d/gone.conf")
    parameter(vm, "delay_ms", 0)
    ask(vm, E1000E, "default")
    if told.kind != "undone":  # the kernel has finished the probe first, and took the device away after the answer
        is_gone(vm, uuid, pid)


def test_pulled_while_it_waits_for_its_turn(vm: Machine) -> None:
    address, pid = plug(vm), daemon(vm)
    slow_module(vm, "vfio_pci")
    first = send(vm, address, "vfio")
    until_step(vm, "loading vfio_pci")
    waiting = vm.start(words("Reset", "root", False, {"devices": [address]}))
    vm.wait_for(f"varlinkctl --json=short call {SOCKET} {INTERFACE}.Status '{{}}' | grep -q '\"waiting\":1'")
    vm.unplug("card")
    vm.run("touch /run/load")
    answer(vm, first)
    reply = Reply.of(waiting.wait(60))
    assert reply.last["code"] == "no-device"
    vm.wait_for("! ls /run/flavourd/records /run/flavourd/begun | grep pci:")
    assert daemon(vm) == pid


def test_what_a_pulled_device_had_is_not_remembered_for_the_next_one(vm: Machine) -> None:
    address = plug(vm)
    vm.run(f"echo foreign > {PCI}/{address}/driver_override")
    ask(vm, address, "vfio")
    vm.unplug("card")
    vm.wait_for("! ls /run/flavourd/records | grep pci:")
    assert vm.plug("e1000e", id="next", romfile="") == address
    vm.wait_for(f"readlink {PCI}/{address}/driver")
    assert ask(vm, address, "default").kind == "already"
    assert override(vm, address) is None


# --- its module goes


def test_the_module_is_unloaded_under_a_probe(vm: Machine) -> None:
    variant(vm, delay_ms=DELAY)
    pid = daemon(vm)
    uuid = send(vm, E1000E, "vfio")
    until_step(vm, "binding to test_vfio_pci")
    unload = vm.start("rmmod test_vfio_pci")
    (told,) = answer(vm, uuid)
    assert unload.wait(30).rc in (0, 1)
    driver = vm.driver(E1000E)
    print(told.message, "| then:", driver)
    if told.kind == "switched":
        assert told.driver in ("test_vfio_pci", "vfio-pci")
    else:
        assert (told.kind, driver, override(vm, E1000E)) == ("undone", "e1000e", None)
    assert daemon(vm) == pid
    assert ask(vm, E1000E, "default").driver == "e1000e"
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)
    assert vm.run("ls /run/flavourd/records").out == ""


def test_the_native_module_is_unloaded_while_the_variant_is_loaded(vm: Machine) -> None:
    slow_module(vm, "vfio_pci")
    uuid = send(vm, E1000E, "vfio")
    until_step(vm, "loading vfio_pci")
    vm.run("modprobe -r e1000e && touch /run/load")
    (told,) = answer(vm, uuid)
    assert told.kind == "switched", told.message
    assert ask(vm, E1000E, "default").kind == "switched"
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)


# --- others take it


def test_unbound_by_hand_meanwhile(vm: Machine) -> None:
    slow_module(vm, "vfio_pci")
    uuid = send(vm, E1000E, "vfio")
    until_step(vm, "loading vfio_pci")
    vm.run(f"echo {E1000E} > {PCI}/{E1000E}/driver/unbind; touch /run/load")
    (told,) = answer(vm, uuid)
    assert told.kind == "switched", told.message
    assert proof(vm, E1000E)
    assert ask(vm, E1000E, "default").driver == "e1000e"
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)


def test_what_another_program_finishes_meanwhile_is_left_alone_and_told(vm: Machine) -> None:
    variant(vm, remove_delay_ms=DELAY)
    vm.run("modprobe pci-stub || test -d /sys/bus/pci/drivers/pci-stub")
    ask(vm, E1000E, "vfio")
    uuid = send(vm, E1000E, "default")
    until_step(vm, "unbinding from test_vfio_pci")
    other = vm.start(["driverctl", "--nosave", "set-override", E1000E, "pci-stub"])
    told = answer(vm, uuid, timeout=90)[-1]
    other.wait(60)
    print(told.message, "| then:", vm.driver(E1000E), override(vm, E1000E))
    assert alive(vm)
    assert (told.code == "contested") == (told.kind != "switched"), told.message
    now = vm.driver(E1000E), override(vm, E1000E)
    assert now in (("pci-stub", "pci-stub"), ("e1000e", None), ("e1000e", "pci-stub"))
    if now == ("pci-stub", "pci-stub"):
        assert ask(vm, E1000E, "vfio").kind == "switched"
        assert ask(vm, E1000E, "default").driver == "pci-stub", "it is the other one's now"
        assert (vm.driver(E1000E), override(vm, E1000E)) == now


def test_an_override_that_another_program_writes_meanwhile_is_told(vm: Machine) -> None:
    variant(vm, delay_ms=DELAY)
    pid = daemon(vm)
    uuid = send(vm, E1000E, "vfio")
    until_step(vm, "binding to test_vfio_pci")
    writer = vm.start(f"echo foreign > {PCI}/{E1000E}/driver_override")
    (told,) = answer(vm, uuid)
    writer.wait(30)
    print(told.message, "| then:", vm.driver(E1000E), override(vm, E1000E))
    assert told.kind == "switched" or told.code == "contested", told.message
    assert override(vm, E1000E) in ("foreign", None), "who writes last is not overruled"
    assert daemon(vm) == pid
    assert ask(vm, VIRTIO_NET, "vfio").kind == "switched"


def test_bound_by_another_program_between_two_candidates(vm: Machine) -> None:
    variant(vm, answer=-5)
    vm.run("modprobe pci-stub || test -d /sys/bus/pci/drivers/pci-stub")
    slow_module(vm, "vfio_pci")
    uuid = send(vm, E1000E, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    until_step(vm, "loading vfio_pci")
    vm.run(f"echo pci-stub > {PCI}/{E1000E}/driver_override; echo {E1000E} > /sys/bus/pci/drivers_probe")
    assert vm.driver(E1000E) == "pci-stub"
    vm.run("touch /run/load")
    (told,) = answer(vm, uuid)
    assert told.code == "contested", told.message
    assert "pci-stub" in told.message
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("pci-stub", "pci-stub"), "what it finished is left alone"
    assert vm.run("ls /run/flavourd/records").out == ""
    assert ask(vm, E1000E, "default").kind == "already"
