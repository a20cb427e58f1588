# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control socket: every method as varlinkctl calls it, what is refused to whom, and callers who go away."""

import json
import re
import shlex
from typing import Any

import pytest

from .asking import PCI, alive, override, proof, universal_driver_waits, variant
from .devices import E1000, E1000_TWIN, E1000E, ROOT_PORT, VIRTIO_NET
from .machine import Machine
from .test_daemon import daemon, drop_in
from .varlink import INTERFACE, SOCKET, Reply, call, member, words

pytestmark = pytest.mark.vm

SERVICE = "org.varlink.service"
IDL = "/usr/lib/flavourd/python/flavourd/ipc/io.flavourd.Manager.varlink"


# --- what systemd's own client thinks of it


def test_varlinkctl_knows_the_service_and_its_interface(vm: Machine) -> None:
    info = vm.run(["varlinkctl", "info", SOCKET]).out
    assert re.search(r"Product: flavourd", info)
    assert INTERFACE in vm.run(["varlinkctl", "list-interfaces", SOCKET]).out.split()
    introspected = vm.run(["varlinkctl", "introspect", SOCKET, INTERFACE]).out
    assert "method Set(" in introspected
    assert "# What proves that: for flavour vfio the entries of its vfio-dev (vfio0)" in introspected


def test_varlinkctl_finds_the_interface_file_valid(vm: Machine) -> None:
    vm.run(["varlinkctl", "validate-idl", IDL])


# --- looking


def test_list_has_every_pci_device_with_what_stands_on_it(vm: Machine) -> None:
    devices = {device["id"]: device for device in call(vm, "List").last["devices"]}
    assert set(devices) == {f"pci/{address}" for address in vm.run(f"ls {PCI}").out.split()}
    e1000e, virtio = devices[f"pci/{E1000E}"], devices[f"pci/{VIRTIO_NET}"]
    assert (e1000e["driver"], e1000e["flavour"], e1000e["class_code"]) == ("e1000e", "default", "020000")
    assert (e1000e["vendor"], e1000e["class_name"]) == ("Intel Corporation", "Ethernet controller")
    assert e1000e["interfaces"] == vm.run(f"ls {PCI}/{E1000E}/net").out.split()
    assert e1000e["variants"] == []
    assert virtio["variants"] == [{"flavour": "vfio", "module": "virtio_vfio_pci"}]
    assert virtio["interfaces"] == vm.run(f"ls {PCI}/{VIRTIO_NET}/virtio*/net").out.split()
    assert "vda" in [disk for device in devices.values() for disk in device["disks"]]
    assert devices[f"pci/{ROOT_PORT}"]["bridge"]
    assert devices[f"pci/{E1000}"]["blocks_group"]
    assert devices[f"pci/{E1000}"]["iommu_group"] == devices[f"pci/{E1000_TWIN}"]["iommu_group"]


def test_list_knows_pf_vfs_and_disks(vm: Machine) -> None:
    disk = vm.plug_disk()
    pf = vm.plug_nvme(vfs=2)
    devices = {device["id"]: device for device in call(vm, "List").last["devices"]}
    assert devices[f"pci/{pf}"]["vfs"] == 2
    assert devices[f"pci/{disk}"]["disks"] == ["nvme0n1"]
    for vf in vm.virtual_functions(pf):
        assert devices[f"pci/{vf}"]["pf"] == f"pci/{pf}"


def test_describe_tells_the_record_and_the_last_outcome(vm: Machine) -> None:
    before = call(vm, "Describe", device=E1000E).last
    assert (before["override"], before["module"], before["record"], before["last"]) == (None, "e1000e", None, None)
    call(vm, "Set", devices=[E1000E], flavour="vfio")
    after = call(vm, "Describe", device=f"pci/{E1000E}").last
    assert (after["override"], after["device"]["driver"], after["device"]["flavour"]) == (
        "vfio-pci",
        "vfio-pci",
        "vfio",
    )
    assert after["device"]["proof"] == proof(vm, E1000E)
    assert after["record"]["driver"] == "e1000e"
    assert after["last"]["kind"] == "switched"
    shared = call(vm, "Describe", device=E1000).last
    assert {f"pci/{E1000}", f"pci/{E1000_TWIN}"} <= set(shared["members"])


def test_explain_tells_what_would_be_done_and_touches_nothing(vm: Machine) -> None:
    modules = vm.run("cat /proc/modules").out
    vfio, default = call(vm, "Explain", device=VIRTIO_NET).last["plans"]
    assert [(c["module"], c["source"]) for c in vfio["candidates"]] == [
        ("virtio_vfio_pci", "alias"),
        ("vfio_pci", "universal"),
    ]
    assert (vfio["kind"], default["kind"]) == ("switch", "already")
    (shared,) = call(vm, "Explain", device=E1000, flavour="vfio").last["plans"]
    assert shared["blockers"] == [f"pci/{E1000_TWIN} (e1000)"]
    (bridge,) = call(vm, "Explain", device=ROOT_PORT, flavour="vfio").last["plans"]
    assert (bridge["kind"], bridge["code"]) == ("refused", "bridge")
    assert vm.run("cat /proc/modules").out == modules
    assert vm.driver(VIRTIO_NET) == "virtio-pci"
    assert vm.run("ls /run/flavourd/records").out == ""


def test_status_and_history(vm: Machine) -> None:
    call(vm, "Set", devices=[E1000E, VIRTIO_NET], flavour="vfio")
    call(vm, "Reset", devices=[E1000E])
    status = call(vm, "Status").last
    assert (status["ready"], status["open"], status["stuck"], status["warnings"]) == (True, 0, [], [])
    assert status["counts"]["switched"] == 3
    assert [(one["name"], one["buses"]) for one in status["flavours"]] == [("vfio", {"pci": "vfio_pci"})]
    drop_in(vm, "")  # a restart
    assert call(vm, "Status").last["counts"]["switched"] == 0
    history = call(vm, "History", device=E1000E).last["outcomes"]
    assert [(o["flavour"], o["kind"], o["driver"]) for o in history] == [
        ("vfio", "switched", "vfio-pci"),
        ("default", "switched", "e1000e"),
    ]
    assert history[0]["asker"].startswith("uid 0, pid ")
    assert [o["flavour"] for o in call(vm, "History", limit=1).last["outcomes"]] == ["default"]
    assert len(call(vm, "History").last["outcomes"]) == 3


def test_monitor_tells_what_others_do(vm: Machine) -> None:
    follow = shlex.join(words("Monitor", "root", True, {}))
    vm.run(f"systemd-run -q --unit=monitor -p StandardOutput=file:/run/monitor {follow}")
    vm.wait_for("test -s /run/monitor")  # its first, empty reply
    call(vm, "Set", devices=[E1000E], flavour="vfio")
    vm.run(f"echo 'change {E1000E_UUID} FLAVOUR=default' > {PCI}/{E1000E}/uevent")
    vm.wait_for("grep -c '\"outcome\":{' /run/monitor | grep -qx 2")
    replies = Reply.of(vm.run("cat /run/monitor")).replies
    assert replies[0] == {"step": None, "outcome": None, "lost": None}
    outcomes = [reply["outcome"] for reply in replies if reply["outcome"]]
    assert [(o["origin"], o["flavour"], o["kind"]) for o in outcomes] == [
        ("varlink", "vfio", "switched"),
        ("uevent", "default", "switched"),
    ]
    assert outcomes[1]["uuid"] == E1000E_UUID
    assert "unbinding from vfio-pci" in [reply["step"]["text"] for reply in replies if reply["step"]]
    clients = call(vm, "Status").last["clients"]
    vm.run("systemctl stop monitor")
    wait_for_status(vm, f'"clients":{clients - 1},')


E1000E_UUID = "00000000-0000-4000-8000-000000000001"


# --- changing


def test_set_streams_its_steps_as_they_happen_and_ends_when_the_device_is_verified(vm: Machine) -> None:
    variant(vm, delay_ms=3000)
    asked = vm.start([*words("Set", "root", True, {"devices": [E1000E], "flavour": "vfio"})])
    step = call_until_step(vm, E1000E, "binding to test_vfio_pci")
    assert step["state"] == "switching"
    assert asked.running, "it is told while the probe is still at it"
    reply = Reply.of(asked.wait(60))
    assert vm.driver(E1000E) == "test_vfio_pci"
    told = [one["step"]["what"] for one in reply.replies if one["step"]]
    assert told == ["waiting", "begun", "loading", "unbinding", "binding"]
    (outcome,) = reply.last["outcomes"]
    assert (outcome["kind"], outcome["driver"], outcome["proof"]) == ("switched", "test_vfio_pci", proof(vm, E1000E))


def wait_for_status(vm: Machine, text: str, timeout: float = 60) -> None:
    vm.wait_for(f"varlinkctl --json=short call {SOCKET} {INTERFACE}.Status '{{}}' | grep -q '{text}'", timeout)


def call_until_step(vm: Machine, address: str, text: str) -> dict[str, str]:
    """Wait until the device is at this step, as List tells it."""
    wanted = f'"step":"{text}"'
    vm.wait_for(f"varlinkctl call {SOCKET} {INTERFACE}.List '{{}}' | grep -q '{wanted}'")
    devices = {device["id"]: device for device in call(vm, "List").last["devices"]}
    found: dict[str, str] = devices[f"pci/{address}"]
    return found


def test_without_more_set_gives_one_reply_with_everything(vm: Machine) -> None:
    variant(vm, answer=-5)
    reply = call(vm, "Set", devices=[E1000E, VIRTIO_NET, E1000E], flavour="vfio")
    assert reply.error is None
    assert len(reply.replies) == 1
    outcomes = {outcome["device"]: outcome for outcome in reply.last["outcomes"]}
    assert set(outcomes) == {f"pci/{E1000E}", f"pci/{VIRTIO_NET}"}
    (refusal,) = outcomes[f"pci/{E1000E}"]["refusals"]
    assert (refusal["who"], refusal["errno"]) == ("test_vfio_pci", 5)
    assert any("test variant refuses" in line for line in refusal["kernel"])
    assert outcomes[f"pci/{E1000E}"]["driver"] == "vfio-pci"


def test_if_one_device_fails_the_call_fails_and_tells_of_all(vm: Machine) -> None:
    reply = call(vm, "Set", devices=[ROOT_PORT, E1000E], flavour="vfio")
    assert reply.error == "NotDone"
    assert reply.last["code"] == "bridge"
    assert {o["device"]: o["kind"] for o in reply.last["outcomes"]} == {
        f"pci/{ROOT_PORT}": "refused",
        f"pci/{E1000E}": "switched",
    }
    assert vm.driver(E1000E) == "vfio-pci"


def test_a_name_that_is_wrong_keeps_the_whole_call_from_beginning(vm: Machine) -> None:
    reply = call(vm, "Set", devices=[E1000E, "0000:99:00.0"], flavour="vfio")
    assert (reply.error, reply.last["code"]) == ("Refused", "no-device")
    assert vm.driver(E1000E) == "e1000e"


@pytest.mark.parametrize(
    ("method", "parameters", "error", "code"),
    [
        ("Set", {"devices": ["../../etc"], "flavour": "vfio"}, "Refused", "bad-name"),
        ("Set", {"devices": ["a/" + "b" * 300], "flavour": "vfio"}, "Refused", "bad-name"),
        ("Set", {"devices": [E1000E], "flavour": "vfoi"}, "NotDone", "unknown-flavour"),
        ("Set", {"devices": [E1000E], "flavour": ""}, "NotDone", "empty-flavour"),
        ("Set", {"devices": [E1000E], "flavour": "vfio", "force": ["all"]}, "NotDone", "unknown-guard"),
        ("Describe", {"device": "pci/0000:99:00.0"}, "Refused", "no-device"),
        ("Explain", {"device": "0000:99:00.0"}, "Refused", "no-device"),
        ("Explain", {"device": ""}, "Refused", "bad-name"),
        (
            "Set",
            {"devices": [E1000E], "flavour": "vfio", "colour": "red"},
            "org.varlink.service.InvalidParameter",
            None,
        ),
        ("Set", {"devices": E1000E, "flavour": "vfio"}, "org.varlink.service.InvalidParameter", None),
        ("Set", {"devices": [E1000E]}, "org.varlink.service.InvalidParameter", None),
        ("Monitor", {}, "org.varlink.service.ExpectedMore", None),
        ("Paint", {}, "org.varlink.service.MethodNotFound", None),
    ],
)
def test_bad_calls_get_a_clear_error(
    vm: Machine, method: str, parameters: dict[str, Any], error: str, code: str | None
) -> None:
    pid = daemon(vm)
    reply = call(vm, method, **parameters)
    assert reply.error == error
    assert reply.replies[-1].get("code") == code if reply.replies else code is None
    assert vm.driver(E1000E) == "e1000e"
    assert daemon(vm) == pid


def test_named_candidates_are_tried_and_no_others(vm: Machine) -> None:
    variant(vm)
    (plan,) = call(vm, "Explain", device=E1000E, flavour="vfio", candidates=["vfio-pci"]).last["plans"]
    assert [(c["module"], c["source"]) for c in plan["candidates"]] == [("vfio_pci", "named")]
    reply = call(vm, "Set", devices=[E1000E], flavour="vfio", candidates=["vfio-pci"])
    assert [o["driver"] for o in reply.last["outcomes"]] == ["vfio-pci"]
    other = call(vm, "Set", devices=[E1000E], flavour="vfio", candidates=["test_vfio_pci"])
    assert (other.error, other.last["code"]) == ("NotDone", "other-driver")
    assert vm.driver(E1000E) == "vfio-pci"


def test_a_module_whose_table_does_not_list_the_device_is_taken_by_force_only(vm: Machine) -> None:
    refused = call(vm, "Set", devices=[E1000E], flavour="vfio", candidates=["virtio_vfio_pci"])
    assert (refused.error, refused.last["code"]) == ("NotDone", "not-a-candidate")
    assert vm.driver(E1000E) == "e1000e"
    forced = call(vm, "Set", devices=[E1000E], flavour="vfio", candidates=["virtio_vfio_pci"], force=["table"])
    (outcome,) = forced.last["outcomes"]
    # Whatever the driver makes of it, it was asked; the device is in the flavour or as it was.
    asked = [refusal["who"] for refusal in outcome["refusals"]] + [outcome["driver"]]
    assert "virtio_vfio_pci" in asked
    assert (vm.driver(E1000E) == "virtio_vfio_pci") == (outcome["kind"] == "switched")


def test_a_dry_run_touches_nothing(vm: Machine) -> None:
    reply = call(vm, "Set", devices=[E1000E, ROOT_PORT], flavour="vfio", dry_run=True)
    assert [plan["kind"] for plan in reply.last["plans"]] == ["switch", "refused"]
    assert vm.driver(E1000E) == "e1000e"
    assert override(vm, E1000E) is None


def test_reload_takes_the_new_configuration_or_says_what_is_wrong_with_it(vm: Machine) -> None:
    vm.write("/etc/flavourd/flavourd.yaml", "access:\n  changes: [x]\n")
    refused = call(vm, "Reload")
    assert (refused.error, refused.last["code"]) == ("Refused", "config")
    assert "/etc/flavourd/flavourd.yaml:2:3" in refused.last["message"]
    assert "did you mean 'change'?" in refused.last["message"]
    vm.write("/etc/flavourd/flavourd.yaml", "access:\n  change: [nobodys-group]\n")
    assert "nobodys-group" in call(vm, "Reload").last["message"]
    vm.run("rm /etc/flavourd/flavourd.yaml")
    assert call(vm, "Reload").error is None


# --- who may


def test_who_is_not_in_the_group_is_not_let_in(vm: Machine) -> None:
    vm.run("useradd stranger")
    done = vm.run(words("List", "stranger", False, {}), check=False)
    assert done.rc != 0
    assert "Permission denied" in done.err


def test_a_member_of_the_group_may_look_but_not_switch(vm: Machine) -> None:
    user = member(vm)
    assert call(vm, "List", user).last["devices"]
    assert call(vm, "Explain", user, device=E1000E).last["plans"]
    assert call(vm, "Set", user, devices=[E1000E], flavour="vfio", dry_run=True).last["plans"]
    for method, parameters in (
        ("Set", {"devices": [E1000E], "flavour": "vfio"}),
        ("Reset", {"devices": [E1000E]}),
        ("Reload", {}),
    ):
        refused = call(vm, method, user, **parameters)
        assert refused.error == "NotPermitted"
        assert "that is for root and the groups that flavourd.yaml names" in refused.last["message"]
    assert vm.driver(E1000E) == "e1000e"


def test_a_group_that_the_settings_name_may_switch(vm: Machine) -> None:
    user = member(vm)
    vm.run(f"groupadd virt; usermod -aG virt {user}")
    vm.write("/etc/flavourd/flavourd.yaml", "access:\n  change: [virt]\n")
    assert call(vm, "Reload").error is None
    reply = call(vm, "Set", user, devices=[E1000E], flavour="vfio")
    assert reply.error is None
    uid = vm.run(f"id -u {user}").out.strip()
    assert reply.last["outcomes"][0]["asker"].startswith(f"uid {uid}, ")
    assert f"uid {uid}, pid " in vm.run("journalctl -q -u flavourd -o json FLAVOURD_ORIGIN=varlink").out


# --- callers who go, devices that go, daemons that go


def test_what_a_caller_who_goes_away_has_begun_is_finished_and_the_rest_withdrawn(vm: Machine) -> None:
    variant(vm, delay_ms=8000)
    first = vm.start(words("Set", "root", True, {"devices": [E1000E], "flavour": "vfio"}))
    call_until_step(vm, E1000E, "binding to test_vfio_pci")
    # The second one waits for its turn behind the first.
    vm.run("systemd-run -q --unit=second " + shlex.join(words("Reset", "root", True, {"devices": [E1000E]})))
    wait_for_status(vm, '"open":2,')
    vm.run("systemctl stop second")
    wait_for_status(vm, '"open":1,')
    vm.run(f"kill {first.pid}")
    wait_for_status(vm, '"open":0,')
    history = call(vm, "History").last["outcomes"]
    assert [(o["flavour"], o["kind"], o["code"]) for o in history] == [
        ("default", "refused", "withdrawn"),
        ("vfio", "switched", None),
    ]
    assert vm.driver(E1000E) == "test_vfio_pci"


def test_a_device_that_vanishes_in_the_middle_is_told(vm: Machine) -> None:
    variant(vm, answer=-5)
    address = vm.plug("e1000e", id="card", romfile="")
    vm.wait_for(f"readlink {PCI}/{address}/driver")
    universal_driver_waits(vm, address)
    asked = vm.start(words("Set", "root", True, {"devices": [address], "flavour": "vfio"}))
    call_until_step(vm, address, "loading vfio_pci")
    vm.unplug("card")
    reply = Reply.of(asked.wait(60))
    assert reply.error == "NotDone"
    assert [o["kind"] for o in reply.last["outcomes"]] == ["gone"]
    assert call(vm, "Describe", device=address).last["code"] == "no-device"


def test_a_call_during_a_restart_waits_for_the_new_daemon(vm: Machine) -> None:
    vm.run("systemctl stop flavourd")
    assert not alive(vm)
    assert call(vm, "Set", devices=[E1000E], flavour="vfio").error is None, "the socket starts it"
    vm.wait_for("systemctl is-active flavourd")  # it answers before systemd has seen to all that follows a start
    assert vm.driver(E1000E) == "vfio-pci"


def test_a_stop_answers_those_whose_turn_has_not_come(vm: Machine) -> None:
    variant(vm, delay_ms=4000)
    first = vm.start(words("Set", "root", True, {"devices": [E1000E], "flavour": "vfio"}))
    call_until_step(vm, E1000E, "binding to test_vfio_pci")
    second = vm.start(words("Reset", "root", True, {"devices": [E1000E]}))
    wait_for_status(vm, '"open":2,')
    vm.run("systemctl stop flavourd.socket flavourd.service", timeout=120)
    begun, waiting = Reply.of(first.wait(60)), Reply.of(second.wait(60))
    assert (begun.error, begun.last["outcomes"][0]["driver"]) == (None, "test_vfio_pci")
    assert (waiting.error, waiting.last["code"]) == ("NotDone", "stopping")


def test_what_a_killed_daemon_had_begun_for_a_caller_is_finished_by_the_next(vm: Machine) -> None:
    variant(vm, delay_ms=4000)
    asked = vm.start(words("Set", "root", True, {"devices": [E1000E], "flavour": "vfio"}))
    call_until_step(vm, E1000E, "binding to test_vfio_pci")
    vm.run(f"kill -9 {daemon(vm)}")
    assert asked.wait(60).rc != 0
    vm.wait_for(f"varlinkctl call {SOCKET} {INTERFACE}.History '{{}}' | grep -q recovery", timeout=120)
    (outcome,) = call(vm, "History").last["outcomes"]
    assert (outcome["origin"], outcome["kind"]) == ("recovery", "already")
    assert vm.driver(E1000E) == "test_vfio_pci"


def test_of_a_stuck_device_everything_that_can_be_known_is_still_told(vm: Machine) -> None:
    drop_in(vm, "ExecStart=\nExecStart=/usr/sbin/flavourd --deadline 5\n")
    variant(vm, delay_ms=15000)
    reply = call(vm, "Set", devices=[E1000E], flavour="vfio")
    assert (reply.error, reply.last["code"]) == ("NotDone", "stuck")
    assert "binding to test_vfio_pci" in reply.last["message"]
    (stuck,) = call(vm, "Status").last["stuck"]
    assert (stuck["device"], stuck["flavour"], stuck["step"]) == (
        f"pci/{E1000E}",
        "vfio",
        "binding to test_vfio_pci",
    )
    described = call(vm, "Describe", device=E1000E).last
    assert (described["device"]["state"], described["device"]["step"]) == ("stuck", "binding to test_vfio_pci")
    assert described["device"]["stuck"] == stuck
    assert described["last"]["kind"] == "stuck"
    (plan,) = call(vm, "Explain", device=E1000E, flavour="vfio").last["plans"]
    assert (plan["kind"], plan["code"]) == ("refused", "stuck")
    wait_for_status(vm, r'"stuck":\[\]')
    assert vm.driver(E1000E) == "test_vfio_pci"


# --- crowds and vandals


_CROWD = """
import concurrent.futures, json, socket, threading, time
def ask(method):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("/run/flavourd/io.flavourd")
        s.sendall(json.dumps({"method": "io.flavourd.Manager." + method}).encode() + b"\\0")
        got = b""
        while not got.endswith(b"\\0"):
            part = s.recv(65536)
            if not part: return None
            got += part
        return json.loads(got[:-1])
def timed(method="Status"):
    began = time.monotonic(); assert "parameters" in ask(method); return time.monotonic() - began
def median(values): return sorted(values)[len(values) // 2]
alone = [timed() for _ in range(20)]
closed = []
def vandal():
    while len(closed) < 20:
        with socket.socket(socket.AF_UNIX) as garbage:
            garbage.connect("/run/flavourd/io.flavourd")
            try:
                for _ in range(160): garbage.sendall(b"x" * 65536)
            except OSError: closed.append(True)
thread = threading.Thread(target=vandal); thread.start()
during_garbage = []
while thread.is_alive(): during_garbage.append(timed())
with concurrent.futures.ThreadPoolExecutor(200) as pool:
    crowd = [pool.submit(ask, ("List", "History")[n % 2]) for n in range(200)]
    meanwhile = []
    while not all(c.done() for c in crowd): meanwhile.append(timed())
answered = sum(bool(c.result() and "parameters" in c.result()) for c in crowd)
print(json.dumps({"alone": median(alone), "garbage": median(during_garbage), "meanwhile": median(meanwhile),
                  "worst": max(meanwhile), "closed": len(closed), "answered": answered}))
"""


def test_two_hundred_callers_and_ten_megabytes_of_garbage_leave_it_responsive(vm: Machine) -> None:
    pid = daemon(vm)
    told = json.loads(vm.run(["python3", "-c", _CROWD], timeout=300).out)
    print(f"latency of another caller's Status, in seconds: {told}")
    assert told["closed"] == 20, "who sends garbage is shown out"
    assert told["answered"] == 200
    assert told["worst"] < 5
    assert daemon(vm) == pid
    wait_for_status(vm, '"clients":1,')
    assert int(vm.run(f"ls /proc/{pid}/fd | wc -l").out) < 30, "no descriptor is left behind"
