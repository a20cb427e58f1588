# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon through storms, restarts, crashes and hangs: every request is answered, and the end state is right."""

import pytest

from .asking import PCI, alive, answer, ask, outcomes, override, proof, send, universal_driver_waits, variant
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN, VIRTIO_NET
from .machine import Machine

pytestmark = pytest.mark.vm

NATIVE = {
    E1000E: "e1000e",
    E1000E_TWIN: "e1000e",
    VIRTIO_NET: "virtio-pci",
    E1000: "e1000",
    E1000_TWIN: "e1000",
}
VFIO = {**dict.fromkeys(NATIVE, "vfio-pci"), VIRTIO_NET: "virtio_vfio_pci"}


def drop_in(vm: Machine, text: str) -> None:
    vm.run("mkdir -p /etc/systemd/system/flavourd.service.d")
    vm.write("/etc/systemd/system/flavourd.service.d/test.conf", f"[Service]\n{text}")
    vm.run("systemctl daemon-reload && systemctl restart flavourd")


def daemon(vm: Machine) -> int:
    return int(vm.run("systemctl show -P MainPID flavourd").out)


def cpu_ticks(vm: Machine, pid: int) -> int:
    """User and system time of a process in clock ticks (proc_pid_stat(5), fields 14 and 15)."""
    words = vm.run(f"cat /proc/{pid}/stat").out.rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


# --- storms


def test_fifty_requests_at_once_are_all_answered_and_the_last_of_each_device_counts(vm: Machine) -> None:
    vfs = vm.virtual_functions(vm.plug_nvme(vfs=5))
    devices = [*NATIVE, *vfs]
    lines = []
    for number in range(50):
        flavour = "default" if number // len(devices) % 2 else "vfio"
        uuid = f"00000000-0000-4000-8000-{number:012}"
        lines.append(f"echo 'change {uuid} FLAVOUR={flavour}' > {PCI}/{devices[number % len(devices)]}/uevent\n")
    vm.run("".join(lines))
    told = outcomes(vm, "SYSLOG_IDENTIFIER=flavourd", timeout=300, count=50)
    assert len(told) == 50
    assert {outcome.kind for outcome in told} <= {"switched", "already"}
    for device in devices:  # the last of five requests each was for vfio
        assert vm.driver(device) == VFIO.get(device, "vfio-pci")
        assert override(vm, device) == VFIO.get(device, "vfio-pci")
        assert len(proof(vm, device)) == 1
    assert "0 in work, 0 stuck" in vm.run("systemctl show -P StatusText flavourd").out


def test_an_overflow_of_uevents_is_survived_without_spinning_and_nothing_is_missed(vm: Machine) -> None:
    ask(vm, E1000_TWIN, "vfio")  # from now on its events carry our tag, so every one of them comes to the daemon
    pid = daemon(vm)
    vm.run("systemctl kill -s STOP flavourd")
    vm.run(f"for i in $(seq 1000); do echo change > {PCI}/{E1000_TWIN}/uevent; done; udevadm settle", timeout=300)
    sent = {device: send(vm, device, "vfio") for device in (E1000E, VIRTIO_NET)}
    vm.run("udevadm settle; systemctl kill -s CONT flavourd")
    vm.wait_for("journalctl -q -u flavourd FLAVOURD_CODE=uevents-lost | grep -q .", timeout=120)
    for device in sent:
        told = outcomes(vm, f"FLAVOURD_DEVICE=pci/{device}")
        assert [(t.kind, t.driver) for t in told] == [("switched", VFIO[device])]
    assert daemon(vm) == pid
    before = cpu_ticks(vm, pid)
    vm.run("sleep 5")  # the span that is measured
    spent = cpu_ticks(vm, pid) - before
    print(f"CPU time of the daemon in 5 s after the overflow: {spent} ticks of 500")
    assert spent <= 5
    assert ask(vm, E1000E, "default").kind == "switched", "it hears as before"


# --- starts and stops


def test_requests_made_while_it_was_not_running_are_answered_before_it_is_ready(vm: Machine) -> None:
    vm.run("systemctl stop flavourd")
    send(vm, E1000E, "default")
    sent = {device: send(vm, device, "vfio") for device in (E1000E, VIRTIO_NET)}
    vm.run(f"udevadm settle; echo change > {PCI}/{E1000E}/uevent; udevadm settle")
    vm.run("systemctl start flavourd")
    assert (vm.driver(E1000E), vm.driver(VIRTIO_NET)) == ("vfio-pci", "virtio_vfio_pci")
    assert len(outcomes(vm, "SYSLOG_IDENTIFIER=flavourd", count=2)) == 2
    for device, uuid in sent.items():
        assert [(told.kind, told.driver) for told in answer(vm, uuid)] == [("switched", VFIO[device])]


def test_a_restart_does_not_repeat_what_was_answered(vm: Machine) -> None:
    ask(vm, E1000E, "vfio")
    vm.run(f"echo > {PCI}/{E1000E}/driver_override; echo {E1000E} > {PCI}/{E1000E}/driver/unbind")
    vm.run("systemctl restart flavourd")
    assert vm.driver(E1000E) is None
    assert len(outcomes(vm, "SYSLOG_IDENTIFIER=flavourd")) == 1


def test_a_stop_waits_for_the_switch_that_is_under_way(vm: Machine) -> None:
    variant(vm, delay_ms=3000)
    uuid = send(vm, E1000E, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    vm.run("systemctl stop flavourd")
    assert vm.driver(E1000E) == "test_vfio_pci"
    assert answer(vm, uuid)[0].kind == "switched"


def test_after_the_daemon_was_killed_its_worker_finishes_and_the_next_daemon_answers(vm: Machine) -> None:
    variant(vm, delay_ms=3000)
    uuid = send(vm, E1000E, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    vm.run("systemctl kill -s KILL --kill-whom=main flavourd")
    (told,) = answer(vm, uuid)
    assert (told.kind, told.driver, told.origin) == ("already", "test_vfio_pci", "recovery")
    assert ask(vm, E1000E, "default").driver == "e1000e"
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)


@pytest.mark.parametrize("answer_of_probe", [0, -5])
def test_daemon_and_worker_killed_in_the_middle_are_made_up_for(vm: Machine, answer_of_probe: int) -> None:
    variant(vm, delay_ms=3000, answer=answer_of_probe)
    vm.run(f"echo foreign > {PCI}/{E1000E}/driver_override")
    uuid = send(vm, E1000E, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    vm.run("systemctl kill -s KILL --kill-whom=all flavourd")
    (told,) = answer(vm, uuid)
    driver = "vfio-pci" if answer_of_probe else "test_vfio_pci"
    assert told.driver == vm.driver(E1000E) == driver
    assert ask(vm, E1000E, "default").driver == "e1000e"
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", "foreign")


def kill_in_the_middle(vm: Machine, device: str) -> str:
    """Kill daemon and worker while the test variant's probe is running, and let nobody start the daemon again."""
    drop_in(vm, "Restart=no\n")
    uuid = send(vm, device, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    vm.run("systemctl kill -s KILL --kill-whom=all flavourd")
    vm.wait_for("! pgrep -x flavourd")
    return uuid


def test_a_wish_that_cannot_be_fulfilled_any_more_after_a_crash_is_undone(vm: Machine) -> None:
    variant(vm, delay_ms=2000, answer=-5)
    vm.run(f"echo foreign > {PCI}/{E1000E}/driver_override")
    uuid = kill_in_the_middle(vm, E1000E)
    assert (vm.driver(E1000E), override(vm, E1000E)) == (None, "test_vfio_pci"), "half-way"
    vm.run("rmmod test_vfio_pci; printf 'install %s /bin/false\n' test_vfio_pci vfio_pci > /etc/modprobe.d/none.conf")
    vm.run("systemctl start flavourd")
    (told,) = answer(vm, uuid)
    assert (told.kind, told.code, told.driver) == ("undone", "no-candidate", "e1000e"), told.message
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", "foreign")


def test_a_request_from_before_a_crash_is_not_carried_out_on_other_hardware(vm: Machine) -> None:
    variant(vm, delay_ms=2000)
    address = vm.plug("e1000e", id="first", romfile="")
    vm.wait_for(f"test -e {PCI}/{address}/driver")
    uuid = kill_in_the_middle(vm, address)
    vm.unplug("first")
    assert vm.plug("virtio-net-pci", id="second", romfile="", **{"disable-legacy": "on"}) == address
    vm.wait_for(f"test -e {PCI}/{address}/driver")
    vm.run("systemctl start flavourd")
    (told,) = answer(vm, uuid)
    assert (told.kind, told.code) == ("refused", "no-device")
    assert (vm.driver(address), override(vm, address)) == ("virtio-pci", None)
    vm.run(f"echo vfio-pci > {PCI}/{address}/driver_override; modprobe vfio-pci")
    vm.run(f"echo {address} > {PCI}/{address}/driver/unbind; echo {address} > /sys/bus/pci/drivers_probe")
    vm.run("systemctl restart flavourd")
    assert vm.driver(address) == "vfio-pci", "what others do with the new hardware is left alone at later starts too"


def test_if_only_the_worker_dies_that_is_told_and_the_device_is_put_back(vm: Machine) -> None:
    variant(vm, delay_ms=2000)
    uuid = send(vm, E1000E, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    vm.run(f"pkill -KILL -P {daemon(vm)}")
    (told,) = answer(vm, uuid)
    assert (told.kind, told.code) == ("lost", "internal")
    (told,) = outcomes(vm, "FLAVOURD_ORIGIN=put-back")
    assert (told.kind, told.driver) == ("switched", "e1000e")
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)
    assert alive(vm)


def test_a_request_that_waits_behind_a_worker_that_dies_has_the_last_word(vm: Machine) -> None:
    variant(vm, delay_ms=2000)
    lost = send(vm, E1000E, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    waiting = send(vm, E1000E, "vfio")
    vm.run(f"udevadm settle; pkill -KILL -P {daemon(vm)}")
    assert answer(vm, lost)[0].kind == "lost"
    assert answer(vm, waiting)[0].kind == "switched"
    told = outcomes(vm, f"FLAVOURD_DEVICE=pci/{E1000E}")
    assert [t.origin for t in told] == ["uevent", "put-back", "uevent"]
    assert vm.driver(E1000E) == "test_vfio_pci"
    assert ask(vm, E1000E, "default").driver == "e1000e"


def test_what_has_ended_while_the_daemon_was_away_is_not_begun_again(vm: Machine) -> None:
    variant(vm, delay_ms=2000)
    uuid = kill_in_the_middle(vm, E1000E)
    assert vm.driver(E1000E) == "test_vfio_pci", "the kernel had finished the bind"
    vm.run('sed -i \'s/"unfinished": true/"unfinished": false/\' /run/flavourd/records/*')  # a worker that lived on
    vm.run(f"echo > {PCI}/{E1000E}/driver_override; echo {E1000E} > {PCI}/{E1000E}/driver/unbind")
    vm.run(f"echo {E1000E} > /sys/bus/pci/drivers_probe")
    vm.run("systemctl start flavourd")
    (told,) = answer(vm, uuid)
    assert (told.kind, told.code) == ("refused", "overtaken")
    assert (vm.driver(E1000E), override(vm, E1000E)) == ("e1000e", None)


def test_a_device_that_is_unplugged_in_the_middle_is_told_and_forgotten(vm: Machine) -> None:
    variant(vm, answer=-5)
    address = vm.plug("e1000e", id="late", romfile="")
    vm.wait_for(f"test -e {PCI}/{address}/driver")
    universal_driver_waits(vm, address)
    uuid = send(vm, address, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    vm.unplug("late")
    (told,) = answer(vm, uuid)
    assert (told.kind, told.code) == ("gone", "no-device"), told.message
    assert vm.run("ls /run/flavourd/records /run/flavourd/begun").out.split() == [
        "/run/flavourd/begun:",
        "/run/flavourd/records:",
    ]
    assert ask(vm, E1000E, "vfio").kind == "switched"


# --- hangs


def test_past_the_deadline_the_answer_comes_others_are_served_and_the_end_is_told(vm: Machine) -> None:
    drop_in(vm, "ExecStart=\nExecStart=/usr/sbin/flavourd --deadline 2\n")
    variant(vm, delay_ms=15000)
    uuid = send(vm, E1000E, "vfio")
    (told,) = answer(vm, uuid)
    assert (told.kind, told.code) == ("stuck", "stuck")
    assert "1 stuck" in vm.run("systemctl show -P StatusText flavourd").out
    refused = ask(vm, E1000E, "default")
    assert (refused.kind, refused.code) == ("refused", "stuck")
    assert ask(vm, VIRTIO_NET, "vfio").kind == "switched"
    told = answer(vm, uuid, count=2)[-1]
    assert (told.kind, told.driver) == ("switched", "test_vfio_pci")
    assert "0 stuck" in vm.run("systemctl show -P StatusText flavourd").out


def test_a_daemon_whose_loop_stands_still_is_replaced_by_systemd(vm: Machine) -> None:
    drop_in(vm, "WatchdogSec=4\nTimeoutAbortSec=1\n")
    pid = daemon(vm)
    vm.run("systemctl kill -s STOP flavourd")
    uuid = send(vm, E1000E, "vfio")
    vm.wait_for(f"[ $(systemctl show -P MainPID flavourd) != {pid} ] && systemctl is-active flavourd", timeout=60)
    assert answer(vm, uuid)[0].kind == "switched"


# --- configuration and the unit


def test_a_reload_takes_new_flavours_and_keeps_the_old_ones_if_the_new_are_wrong(vm: Machine) -> None:
    shipped = vm.run("cat /usr/lib/flavourd/flavours.yaml").out
    vm.write("/etc/flavourd/flavours.yaml", shipped.replace("  vfio:", "  guest:"))
    vm.run("systemctl reload flavourd")
    assert ask(vm, E1000E, "vfio").code == "unknown-flavour"
    assert ask(vm, E1000E, "guest").driver == "vfio-pci"
    vm.write("/etc/flavourd/flavours.yaml", shipped.replace("proof:", "prof:"))
    assert vm.run("systemctl reload flavourd", check=False).rc != 0
    vm.run("systemctl kill -s HUP flavourd")  # who asks so gets no answer, but the journal does
    vm.wait_for("[ $(journalctl -q -o cat -u flavourd FLAVOURD_CODE=config | wc -l) -ge 1 ]")
    trouble = vm.run("journalctl -q -o cat -u flavourd FLAVOURD_CODE=config").out
    assert "/etc/flavourd/flavours.yaml:" in trouble
    assert "did you mean 'proof'?" in trouble
    assert ask(vm, E1000E, "default").kind == "switched"
    assert alive(vm)


def test_with_wrong_flavours_it_does_not_start_and_says_why(vm: Machine) -> None:
    vm.write("/etc/flavourd/flavours.yaml", "flavours: {default: }\n")
    assert vm.run("systemctl restart flavourd", check=False).rc
    assert "/etc/flavourd/flavours.yaml:1:" in vm.run("journalctl -q -o cat -u flavourd FLAVOURD_CODE=config").out
    assert vm.run("systemctl show -P NRestarts flavourd").out.strip() == "0"


def test_unit_and_rules_are_clean_to_systemd_and_udev_themselves(vm: Machine) -> None:
    units = "flavourd.service flavourd.socket flavourd-processes.service flavourd-processes.socket"
    assert vm.run(f"systemd-analyze verify --man=no {units} 2>&1").out == ""
    assert "Fail:    0" in vm.run("udevadm verify /usr/lib/udev/rules.d/90-flavourd.rules").out


@pytest.mark.parametrize("unit", ["flavourd", "flavourd-processes"])
def test_little_is_left_to_who_breaks_in(vm: Machine, unit: str) -> None:
    told = vm.run(f"systemd-analyze security {unit}.service --no-pager | tail -1").out
    print(told)
    assert float(told.partition(": ")[2].split()[0]) <= 2.5


def test_daemon_and_workers_have_no_capability_that_they_do_not_need(vm: Machine) -> None:
    variant(vm, delay_ms=3000)
    send(vm, E1000E, "vfio")
    vm.wait_for("[ $(cat /sys/module/test_vfio_pci/parameters/probes) = 1 ]")
    pid = daemon(vm)
    for process in (pid, int(vm.run(f"pgrep -P {pid}").out)):
        bits = int(vm.run(f"grep CapEff /proc/{process}/status").out.split()[1], 16)
        assert {number for number in range(64) if bits >> number & 1} == {16, 34}  # SYS_MODULE, SYSLOG


def test_the_journal_explains_the_messages(vm: Machine) -> None:
    vm.run("journalctl --update-catalog")
    ask(vm, E1000E, "vfio")
    explained = vm.run("journalctl -q -x -o short -u flavourd FLAVOURD_KIND=switched").out
    assert f"Subject: Device pci/{E1000E} is in flavour vfio" in explained
