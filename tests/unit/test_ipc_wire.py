# SPDX-License-Identifier: LGPL-2.1-or-later
"""From our own values to what goes over the wire: every field, and as JSON."""

import errno
import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncvarlink.conversion import VarlinkType

from flavourd import flavour, outcome, plan, record, step, stuck
from flavourd.device import Binding, Device, DeviceId, Glance, GroupMember, Sriov
from flavourd.errors import Code, FlavourError
from flavourd.flavour import FlavourOnBus, Flavours, Universal
from flavourd.ipc import wire
from flavourd.module_index import Alias, ModuleIndex
from flavourd.outcome import Kind, Source
from flavourd.request import Origin, Request
from flavourd.use import Finding, Guard, Process

_ID, _PF = DeviceId("pci", "0000:01:00.0"), DeviceId("pci", "0000:01:00.7")
_REQUEST = Request(_ID, "vfio", Origin.VARLINK, uuid="u-1", asker="uid 7, pid 8")
_CANDIDATE = outcome.Candidate("variant", Source.ALIAS, "vfio_pci:v*")
_SKIP = outcome.Skip("banned", "is blacklisted", missed=True)
_PROCESS = Process(42, "qemu-system-x86", "vm1.scope")
_FINDING = Finding(Guard.HELD, "it is held through VFIO", "shut the machine down", (_PROCESS, Process(7, "x")))
_FINDING_SENT = {
    "guard": "held",
    "text": "it is held through VFIO",
    "hint": "shut the machine down",
    "processes": [
        {"pid": 42, "name": "qemu-system-x86", "unit": "vm1.scope"},
        {"pid": 7, "name": "x", "unit": None},
    ],
}
_ON_PCI = FlavourOnBus(Universal("vfio_pci", "vfio-pci"), "vfio_pci")
_FLAVOURS = Flavours({"vfio": flavour.Flavour("for machines", "vfio-dev", {"pci": _ON_PCI})})


def sent(value: Any) -> dict[str, Any]:
    """As JSON that comes back as the same value, but for the time, which is now."""
    kind = VarlinkType.from_type_annotation(type(value))
    words: dict[str, Any] = json.loads(json.dumps(kind.tojson(value)))
    assert kind.fromjson(words) == value
    assert list(words) == [field.name for field in fields(value)]
    if "time" in words:
        age = datetime.now(UTC) - datetime.fromisoformat(words.pop("time"))
        assert timedelta() <= age < timedelta(minutes=1)
    return words


def test_an_outcome_is_sent_with_all_it_knows() -> None:
    told = outcome.Outcome(
        _REQUEST,
        Kind.UNDONE,
        "vfio",
        "e1000e",
        before="igb",
        proof=("vfio0", "vfio1"),
        candidate=_CANDIDATE,
        refusals=(outcome.Refusal("variant", "refused: EIO", errno.EIO, ("one", "two")), outcome.Refusal("x", "no")),
        skips=(_SKIP,),
        notes=("a note",),
        findings=(_FINDING,),
        code=Code.ALL_REFUSED,
        sentence="nobody took it",
        hint="see above",
        errno=errno.EIO,
    )
    assert sent(wire.Outcome.of(told)) == {
        "device": "pci/0000:01:00.0",
        "flavour": "vfio",
        "origin": "varlink",
        "uuid": "u-1",
        "asker": "uid 7, pid 8",
        "kind": "undone",
        "code": "all-refused",
        "headline": told.headline,
        "message": str(told),
        "hint": "see above",
        "driver": "e1000e",
        "before": "igb",
        "proof": ["vfio0", "vfio1"],
        "candidate": {"module": "variant", "source": "alias", "detail": "vfio_pci:v*"},
        "refusals": [
            {"who": "variant", "reason": "refused: EIO", "errno": 5, "kernel": ["one", "two"]},
            {"who": "x", "reason": "no", "errno": None, "kernel": []},
        ],
        "skips": [{"module": "banned", "reason": "is blacklisted", "missed": True}],
        "notes": ["a note"],
        "findings": [_FINDING_SENT],
        "errno": 5,
    }


def test_an_outcome_tells_the_flavour_that_was_meant_not_the_word_that_was_asked() -> None:
    asked = Request(_ID, "vfio_pci:v00008086d*", Origin.MODALIAS)
    words = sent(wire.Outcome.of(outcome.Outcome(asked, Kind.SWITCHED, "vfio")))
    assert (words["flavour"], words["origin"], words["candidate"], words["uuid"]) == ("vfio", "modalias", None, None)


def test_a_step_is_sent_with_its_request() -> None:
    assert sent(wire.Step.of(_REQUEST, step.Step(step.What.BINDING, "binding to vfio-pci"))) == {
        "device": "pci/0000:01:00.0",
        "flavour": "vfio",
        "uuid": "u-1",
        "what": "binding",
        "text": "binding to vfio-pci",
    }


def planned(**more: Any) -> plan.Plan:
    members = (
        GroupMember(DeviceId("pci", "0000:01:00.1"), "e1000e", claimed=False),
        GroupMember(DeviceId("pci", "0000:01:00.2"), None, claimed=False),
    )
    device = Device(_ID, Binding("igb", "igb"), iommu_group="7", group_members=members)
    return plan.Plan(_REQUEST, "vfio", "vfio-dev", device, Binding("igb"), Binding("igb"), **more)


def test_a_plan_is_sent_with_candidates_skips_and_who_stands_in_the_way() -> None:
    made = planned(candidates=(_CANDIDATE,), skips=(_SKIP,), notes=("a note",), findings=(_FINDING,))
    assert sent(wire.Plan.of(made)) == {
        "device": "pci/0000:01:00.0",
        "flavour": "vfio",
        "kind": "switch",
        "candidates": [{"module": "variant", "source": "alias", "detail": "vfio_pci:v*"}],
        "skips": [{"module": "banned", "reason": "is blacklisted", "missed": True}],
        "driver": "igb",
        "target": None,
        "iommu_group": "7",
        "blockers": ["pci/0000:01:00.1 (e1000e)"],
        "notes": ["a note"],
        "findings": [_FINDING_SENT],
        "code": None,
        "message": "",
        "hint": "",
    }


def test_a_plan_of_the_way_back_has_its_target_and_one_with_nothing_to_do_says_so() -> None:
    assert sent(wire.Plan.of(planned(target=Binding("e1000e"))))["target"] == "e1000e"
    assert sent(wire.Plan.of(planned(already=True)))["kind"] == "already"


def test_a_plan_that_would_be_refused_says_why() -> None:
    words = sent(wire.Plan.refused(_REQUEST, FlavourError(Code.BRIDGE, "it is a bridge", "ask for others")))
    assert {key: value for key, value in words.items() if value not in (None, [])} == {
        "device": "pci/0000:01:00.0",
        "flavour": "vfio",
        "kind": "refused",
        "code": "bridge",
        "message": "it is a bridge",
        "hint": "ask for others",
    }


def test_a_plan_that_would_be_refused_for_what_the_host_uses_says_that_too() -> None:
    error = FlavourError(Code.IN_USE, "it is in use", "free it", findings=(_FINDING,))
    words = sent(wire.Plan.refused(_REQUEST, error))
    assert (words["code"], words["hint"], words["findings"]) == ("in-use", "free it", [_FINDING_SENT])


def test_a_device_that_is_stuck_is_sent_with_all_that_is_known_of_it() -> None:
    found = stuck.Stuck(_REQUEST, 41, "2026-11-22", "unbinding from igb", "igb_remove", (_PROCESS,))
    assert sent(wire.Stuck.of(found)) == {
        "device": "pci/0000:01:00.0",
        "flavour": "vfio",
        "uuid": "u-1",
        "since": "2026-11-22",
        "pid": 41,
        "step": "unbinding from igb",
        "wchan": "igb_remove",
        "holders": [{"pid": 42, "name": "qemu-system-x86", "unit": "vm1.scope"}],
    }
    words = sent(wire.Stuck.of(stuck.Stuck(_REQUEST, 41, "2026-11-22", "unbinding from igb")))
    assert (words["wchan"], words["holders"]) == (None, [])


def test_a_device_is_sent_with_all_that_was_seen() -> None:
    glance = Glance(
        _ID,
        "vfio-pci",
        "pci:v00008086d000010D3sv*",
        "020000",
        bridge=False,
        iommu_group="7",
        proofs=(("vfio-dev", ("vfio0",)),),
        pf=_PF,
        vfs=3,
        interfaces=("eth0",),
        disks=("sda", "sdb"),
        vendor="Intel",
        model="82574L",
        class_name="Ethernet controller",
    )
    index = ModuleIndex((Alias("vfio_pci:v00008086d*", "variant"),))
    kept = record.Record(_ID, 5, Binding("igb"), "vfio", interfaces=("eth7",))
    assert sent(wire.Device.of(glance, _FLAVOURS, index, kept)) == {
        "id": "pci/0000:01:00.0",
        "vendor": "Intel",
        "model": "82574L",
        "class_name": "Ethernet controller",
        "class_code": "020000",
        "driver": "vfio-pci",
        "flavour": "vfio",
        "proof": ["vfio0"],
        "iommu_group": "7",
        "blocks_group": False,
        "bridge": False,
        "variants": [{"flavour": "vfio", "module": "variant"}],
        "interfaces": ["eth0"],
        "interfaces_before": ["eth7"],
        "disks": ["sda", "sdb"],
        "pf": "pci/0000:01:00.7",
        "vfs": 3,
        "state": None,
        "step": None,
        "stuck": None,
    }


def test_a_device_of_which_nothing_is_known_can_be_sent_too() -> None:
    words = sent(wire.Device.of(Glance(_ID), _FLAVOURS, ModuleIndex(), None))
    assert {key: value for key, value in words.items() if value not in (None, [], False, 0)} == {
        "id": "pci/0000:01:00.0",
        "flavour": "default",
    }


def test_a_record_is_sent_with_what_would_be_given_back() -> None:
    kept = record.Record(
        _ID,
        5,
        Binding("igb", "m", "mine"),
        "vfio",
        "vfio-pci",
        unfinished=True,
        since="2026-11-22",
        origin="uevent",
        sriov=Sriov(4, autoprobe=False),
    )
    assert sent(wire.Record.of(kept)) == {
        "flavour": "vfio",
        "since": "2026-11-22",
        "origin": "uevent",
        "driver": "igb",
        "override": "mine",
        "vfs": 4,
        "autoprobe": False,
        "unfinished": True,
    }
    words = sent(wire.Record.of(record.Record(_ID, 5, Binding(), "vfio")))
    assert (words["driver"], words["vfs"], words["autoprobe"]) == (None, None, None)


def test_flavours_are_sent_with_the_universal_module_of_each_bus() -> None:
    (one,) = wire.Flavour.all(_FLAVOURS.flavours)
    assert sent(one) == {
        "name": "vfio",
        "description": "for machines",
        "proof": "vfio-dev",
        "buses": {"pci": "vfio_pci"},
    }
