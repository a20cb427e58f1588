# SPDX-License-Identifier: LGPL-2.1-or-later
"""flavourctl against the real daemon: every verb, what it says, how it ends, and how long it takes."""

import json
import re
import shlex

import pytest

from .asking import PCI, proof, universal_driver_waits, variant
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN, ROOT_PORT, VIRTIO_NET
from .flavourctl import BROKEN, DENIED, NOT_DONE, UNKNOWN, UNREACHABLE, ctl, lines
from .machine import Machine
from .test_control import call_until_step, wait_for_status
from .test_daemon import daemon, drop_in
from .varlink import member

pytestmark = pytest.mark.vm

# --- looking


def test_list_shows_every_device_and_finds_them_by_what_people_call_them(vm: Machine) -> None:
    header, *rows = lines(ctl(vm, "list"))
    assert header.split() == ["DEVICE", "FLAVOUR", "DRIVER", "GROUP", "VARIANT", "NAMES", "DESCRIPTION"]
    addresses = vm.run(f"ls {PCI}").out.split()
    assert [row.split()[0] for row in rows[: len(addresses)]] == sorted(addresses)
    assert rows[-1] == f"{len(addresses)} devices listed."
    (virtio,) = [row for row in rows if row.startswith(VIRTIO_NET)]
    assert virtio.split()[1:3] == ["default", "virtio-pci"]
    assert virtio.split()[4] == "virtio_vfio_pci"
    interface = vm.run(f"ls {PCI}/{E1000E}/net").out.strip()
    for name in (E1000E, E1000E[5:], f"pci/{E1000E}", interface, interface[:-1] + "?", "01:*"):
        assert [row.split()[0] for row in lines(ctl(vm, "list", "--no-legend", name))] == [E1000E], name
    (disk,) = lines(ctl(vm, "list", "--no-legend", "vda"))
    assert disk.split() in [row.split() for row in rows]
    assert disk.split()[5] == "vda"


def test_list_filters_and_speaks_json(vm: Machine) -> None:
    ctl(vm, "set", E1000E, VIRTIO_NET, "vfio")

    def found(*words: str) -> list[str]:
        return [row.split()[0] for row in lines(ctl(vm, "list", "--no-legend", *words))]

    assert found("--flavour", "vfio") == [E1000E, VIRTIO_NET]
    assert found("--driver", "virtio_vfio_pci") == [VIRTIO_NET]
    assert {E1000E, E1000E_TWIN, VIRTIO_NET, E1000} <= set(found("--class", "ethernet")) == set(found("--class", "02"))
    (group,) = {device["iommu_group"] for device in json.loads(ctl(vm, "list", "--json=short", E1000).out)}
    assert {E1000, E1000_TWIN} <= set(found("--group", group))


def test_tree_draws_the_groups_and_who_keeps_them_closed(vm: Machine) -> None:
    assert f"group {group_of(vm, E1000)} · host" in ctl(vm, "tree", E1000).out
    ctl(vm, "set", E1000, "vfio")
    picture = ctl(vm, "tree", E1000).out
    assert f"not viable for vfio: {E1000_TWIN} (e1000) keeps it from being opened" in picture
    assert re.search(rf"├─ {E1000} +vfio-pci +vfio", picture)
    assert re.search(rf"└─ {E1000_TWIN} +e1000 +default", picture)
    ctl(vm, "set", E1000_TWIN, "vfio")
    assert "viable for vfio\n" in ctl(vm, "tree", E1000).out


def group_of(vm: Machine, address: str) -> str:
    return vm.run(f"basename $(readlink {PCI}/{address}/iommu_group)").out.strip()


def test_show_tells_everything_that_is_known(vm: Machine) -> None:
    variant(vm, answer=-5)
    ctl(vm, "set", E1000E, "vfio")
    shown = ctl(vm, "show", E1000E).out
    for words in (
        f"pci/{E1000E} - 82574L Gigabit Network Connection, Intel Corporation",
        "Class: Ethernet controller (020000)",
        f"Flavour: vfio ({proof(vm, E1000E)[0]})",
        "Driver: vfio-pci (module vfio_pci)",
        "Override: vfio-pci",
        f"IOMMU group: {group_of(vm, E1000E)}, viable for vfio",
        "e1000e",
        "test_vfio_pci refused: EIO (Input/output error)",
        "kernel: test_vfio_pci",
    ):
        assert words in shown
    pf = vm.plug_nvme(vfs=2)
    assert "PF with 2 VFs" in ctl(vm, "show", pf).out
    assert f"VF of pci/{pf}" in ctl(vm, "show", vm.virtual_functions(pf)[0]).out


def test_explain_tells_what_would_be_done_and_every_code_at_length(vm: Machine) -> None:
    told = ctl(vm, "explain", VIRTIO_NET, "vfio").out
    assert f"pci/{VIRTIO_NET} -> vfio: would be switched, tried in this order:" in told
    assert re.search(r"1\. virtio_vfio_pci +alias +vfio_pci:\S+: its table lists the device", told)
    assert re.search(r"2\. vfio_pci +universal +takes every device", told)
    refused = ctl(vm, "explain", ROOT_PORT, "vfio", rc=NOT_DONE).out
    assert "would be refused" in refused
    assert "[bridge]" in refused
    assert vm.driver(VIRTIO_NET) == "virtio-pci"
    assert "PCI bridges are not for user space" in ctl(vm, "explain", "bridge").out.replace("\n", " ")
    for code in lines(ctl(vm, "complete", "codes")):
        assert len(ctl(vm, "explain", code).out) > 40


def test_status_history_and_monitor(vm: Machine) -> None:
    vm.run("systemd-run -q --unit=monitor -p StandardOutput=file:/run/monitor flavourctl monitor")
    wait_for_status(vm, '"clients":2,')  # itself and who asks
    ctl(vm, "set", E1000E, "vfio")
    ctl(vm, "set", ROOT_PORT, "vfio", rc=NOT_DONE)
    vm.wait_for("grep -q 'nothing was touched' /run/monitor")
    followed = vm.run("cat /run/monitor").out
    assert "unbinding from e1000e" in followed
    assert f"pci/{E1000E} is in flavour vfio now" in followed
    history = lines(ctl(vm, "history", "--no-legend"))
    assert [row.split()[2:6] for row in history] == [
        [E1000E, "vfio", "switched", "vfio-pci"],
        [ROOT_PORT, "vfio", "refused", "-"],
    ]
    assert "uid 0, pid" in history[0]
    status = ctl(vm, "status").out
    for words in ("0.1.0", "vfio", "Devices for user space and virtual machines", "1 switched"):
        assert words in status


# --- switching


def test_set_returns_when_the_device_is_verified_and_says_who_refused_before(vm: Machine) -> None:
    variant(vm, answer=-5, delay_ms=2000)
    state = f"readlink {PCI}/{E1000E}/driver; ls {PCI}/{E1000E}/vfio-dev"
    done = vm.run(f"flavourctl set {E1000E[5:]} vfio && {state}")
    headline, *story = done.out.splitlines()
    assert re.fullmatch(rf"pci/{E1000E} is in flavour vfio now: driver vfio-pci \(vfio\d+\), was e1000e", headline)
    assert story[0] == "  test_vfio_pci refused: EIO (Input/output error)"
    assert story[1].startswith("    kernel: test_vfio_pci")
    assert "  vfio_pci took it (universal)" in story
    assert story[-2].endswith("/vfio-pci")
    assert story[-1].startswith("vfio")
    assert done.err == ""
    assert "is in flavour default now: driver e1000e" in ctl(vm, "reset", E1000E).out
    assert vm.driver(E1000E) == "e1000e"


def test_devices_are_switched_by_interface_disk_and_glob(vm: Machine) -> None:
    interface = vm.run(f"ls {PCI}/{E1000E}/net").out.strip()
    nvme = vm.plug_disk()
    done = ctl(vm, "set", interface, "nvme0n1", "05:0?.0", "vfio")
    assert [vm.driver(device) for device in (E1000E, nvme, E1000, E1000_TWIN)] == ["vfio-pci"] * 4
    assert "note:" not in done.out, "what is asked for in the same breath is no obstacle"
    assert f"({interface})" in ctl(vm, "list", E1000E).out, "it is still called so"
    ctl(vm, "reset", "05:*", interface)
    assert [vm.driver(device) for device in (E1000E, E1000, E1000_TWIN)] == ["e1000e", "e1000", "e1000"]


def test_a_name_that_means_nothing_gets_near_misses_and_nothing_is_touched(vm: Machine) -> None:
    for words, near in (
        ((E1000E, "0000:01:00.1", "vfio"), E1000E),
        ((E1000E, "enp1s", "vfio"), vm.run(f"ls {PCI}/{E1000E}/net").out.strip()),
    ):
        done = ctl(vm, "set", *words, rc=UNKNOWN)
        assert "there is no device" in done.err
        assert near in done.err
    assert "did you mean" in ctl(vm, "explain", "all-refusd", rc=UNKNOWN).err
    assert vm.driver(E1000E) == "e1000e"


def test_of_several_devices_each_is_told_and_the_exit_code_is_honest(vm: Machine) -> None:
    done = ctl(vm, "set", ROOT_PORT, E1000E, "vfio", rc=NOT_DONE)
    assert f"pci/{E1000E} is in flavour vfio now" in done.out
    assert f"pci/{ROOT_PORT} is a bridge; nothing was touched [bridge]" in done.out
    assert "1 of 2 devices were not switched as asked" in done.err
    outcomes = json.loads(ctl(vm, "set", ROOT_PORT, E1000E, "vfio", "--json=short", rc=NOT_DONE).out)
    assert {outcome["kind"] for outcome in outcomes} == {"refused", "already"}
    assert "did you mean 'vfio'? known flavours: default, vfio" in ctl(vm, "set", E1000E, "vfoi", rc=UNKNOWN).out


def test_candidates_can_be_named_and_a_dry_run_touches_nothing(vm: Machine) -> None:
    variant(vm)
    assert "1. vfio_pci" in ctl(vm, "set", E1000E, "vfio", "--candidate", "vfio-pci", "--dry-run").out
    assert vm.driver(E1000E) == "e1000e"
    ctl(vm, "set", E1000E, "vfio", "--candidate", "vfio-pci")
    assert vm.driver(E1000E) == "vfio-pci"
    done = ctl(vm, "set", E1000E_TWIN, "vfio", "--candidate", "virtio_vfio_pci", rc=NOT_DONE)
    assert "[not-a-candidate]" in done.out
    assert "unknown-guard" in ctl(vm, "set", E1000E_TWIN, "vfio", "--force", "all", rc=NOT_DONE).out


# --- who may, and who is not there


def test_who_is_not_in_the_group_is_told_so(vm: Machine) -> None:
    vm.run("useradd stranger")
    done = ctl(vm, "list", user="stranger", rc=DENIED)
    assert "you may not speak to flavourd: its socket is for root and the group flavourd" in done.err
    user = member(vm)
    ctl(vm, "list", user=user)
    done = ctl(vm, "set", E1000E, "vfio", user=user, rc=DENIED)
    assert "may not switch devices: that is for root and the groups that flavourd.yaml names" in done.err
    assert vm.driver(E1000E) == "e1000e"


def test_without_a_daemon_it_says_how_to_start_it(vm: Machine) -> None:
    vm.run("systemctl stop flavourd.socket flavourd.service")
    done = ctl(vm, "list", rc=UNREACHABLE)
    assert "flavourd does not run on this host" in done.err
    assert "systemctl enable --now flavourd" in done.err
    assert ctl(vm, "complete", "devices").out == ""
    vm.run("systemctl start flavourd.socket")
    ctl(vm, "list")


def test_a_daemon_that_cannot_start_says_why_to_who_asks(vm: Machine) -> None:
    vm.run("systemctl stop flavourd.service")
    vm.write("/etc/flavourd/flavours.yaml", "flavours: nonsense\n")
    done = ctl(vm, "list", rc=NOT_DONE)
    assert "/etc/flavourd/flavours.yaml:1:11: a mapping (key: value) is expected here" in done.err
    assert "[config]" in done.err
    vm.wait_for("systemctl show -P ExecMainStatus flavourd | grep -qx 78")  # it ends after it has answered
    vm.run("rm /etc/flavourd/flavours.yaml")
    ctl(vm, "list")


def test_over_ssh_another_hosts_devices_are_switched(vm: Machine) -> None:
    vm.run(
        "mkdir -p -m 700 /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519 && "
        "cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys && "
        "echo 'StrictHostKeyChecking accept-new' > /root/.ssh/config && systemctl start ssh"
    )
    assert ctl(vm, "-H", "root@localhost", "list", "--no-legend", timeout=120).out == ctl(vm, "list", "--no-legend").out
    assert "is in flavour vfio now" in ctl(vm, "-H", "localhost", "set", E1000E, "vfio", timeout=120).out
    assert vm.driver(E1000E) == "vfio-pci"
    user = member(vm)
    vm.run(
        f"mkdir -p /home/{user}/.ssh && cp /root/.ssh/authorized_keys /home/{user}/.ssh && chown -R {user} /home/{user}"
    )
    done = ctl(vm, "-H", f"{user}@localhost", "reset", E1000E, rc=DENIED, timeout=120)
    assert "may not switch devices" in done.err
    assert vm.driver(E1000E) == "vfio-pci"
    done = ctl(vm, "-H", "nobody-here@localhost", "list", rc=UNREACHABLE, timeout=120)
    assert "flavourd on nobody-here@localhost cannot be reached" in done.err


# --- interruptions


def begin_slowly(vm: Machine, *words: str) -> None:
    """Start flavourctl in a unit of its own and wait until its device's probe is under way."""
    variant(vm, delay_ms=4000)
    vm.run(f"systemd-run -q --unit=ctl -p StandardError=file:/run/ctl.err flavourctl {shlex.join(words)}")
    call_until_step(vm, E1000E, "binding to test_vfio_pci")


def test_after_ctrl_c_the_user_knows_what_goes_on_and_what_does_not(vm: Machine) -> None:
    begin_slowly(vm, "set", E1000E, "vfio")
    vm.run("systemctl kill -s INT ctl; systemd-run -q --wait true")
    vm.wait_for("systemctl show -P ExecMainStatus ctl | grep -qx 130")
    assert f"pci/{E1000E}: the switch goes on; flavourd finishes or undoes it" in vm.run("cat /run/ctl.err").out
    wait_for_status(vm, '"open":0,')
    assert vm.driver(E1000E) == "test_vfio_pci"
    assert "switched" in ctl(vm, "history", E1000E).out


def test_if_the_daemon_dies_in_the_middle_the_user_is_told_who_goes_on(vm: Machine) -> None:
    begin_slowly(vm, "set", E1000E, "vfio")
    vm.run(f"kill -9 {daemon(vm)}")
    vm.wait_for("systemctl show -P ExecMainStatus ctl | grep -qx 5")
    told = vm.run("cat /run/ctl.err").out
    assert f"pci/{E1000E}: the connection was lost; flavourd finishes or undoes this, at its next start" in told
    vm.wait_for("flavourctl history --json=short | grep -q recovery", timeout=60)
    assert vm.driver(E1000E) == "test_vfio_pci"


def test_a_device_that_vanishes_meanwhile_is_told(vm: Machine) -> None:
    variant(vm, answer=-5)
    address = vm.plug("e1000e", id="card", romfile="")
    vm.wait_for(f"readlink {PCI}/{address}/driver")
    universal_driver_waits(vm, address)
    asked = vm.start(["flavourctl", "set", address, "vfio"])
    call_until_step(vm, address, "loading vfio_pci")
    vm.unplug("card")
    done = asked.wait(60)
    assert done.rc == NOT_DONE
    assert f"pci/{address} went away on the way to flavour vfio [no-device]" in done.out


def test_a_stuck_device_ends_the_wait_at_the_deadline(vm: Machine) -> None:
    drop_in(vm, "ExecStart=\nExecStart=/usr/sbin/flavourd --deadline 5\n")
    variant(vm, delay_ms=15000)
    done = ctl(vm, "set", E1000E, "vfio", rc=BROKEN)
    assert "the kernel has not answered within 5 s" in done.out
    assert "[stuck]" in done.out
    assert "default (stuck)" in ctl(vm, "list", E1000E).out
    assert re.search(r"worker \d+ sleeps in \w+: binding to test_vfio_pci", ctl(vm, "show", E1000E).out)
    wait_for_status(vm, r'"stuck":\[\]')
    assert vm.driver(E1000E) == "test_vfio_pci"


# --- how long it takes

_TIMES = """
import json, subprocess, time
programs = {"python3 -c pass": ["python3", "-c", "pass"], "flavourctl list": ["flavourctl", "list"],
            "driverctl list-devices": ["driverctl", "list-devices"]}
times = {name: [] for name in programs}
for turn in range(8):
    for name, words in programs.items():
        began = time.monotonic()
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        if turn: times[name].append(time.monotonic() - began)
print(json.dumps({name: [min(all), sorted(all)[len(all) // 2], max(all)] for name, all in times.items()}))
"""


def test_a_plain_list_costs_little_more_than_python_itself(vm: Machine) -> None:
    times = json.loads(vm.run(["python3", "-c", _TIMES], timeout=300).out)
    for name, (least, median, most) in times.items():
        print(f"{name}: {median:.3f} s ({least:.3f} to {most:.3f})")
    medians = {name: median for name, (_, median, _) in times.items()}
    assert medians["flavourctl list"] < medians["driverctl list-devices"]
    assert medians["flavourctl list"] < 5 * medians["python3 -c pass"]
