# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host as its daemon would tell of it: a bit of everything that flavourctl has words for."""

from .daemon import Json, Reply, Script, error, more, reply


def device(id: str, **facts: object) -> Json:
    """One whose vendor, class, group … are not known, where `facts` do not say them."""
    nothing = dict.fromkeys(
        ("vendor", "model", "class_name", "class_code", "driver", "iommu_group", "pf", "state", "step", "stuck")
    )
    empty: Json = {"flavour": "default", "proof": [], "variants": [], "interfaces": [], "disks": [], "vfs": 0}
    return {"id": id, **nothing, **empty, "blocks_group": False, "bridge": False, **facts}


_INTEL, _ETHERNET = {"vendor": "Intel Corporation"}, {"class_name": "Ethernet controller", "class_code": "020000"}
_NVME = {"class_name": "Non-Volatile memory controller", "class_code": "010802"}

BRIDGE = device(
    "pci/0000:00:1c.0",
    **_INTEL,
    model="PCI Express Root Port",
    class_name="PCI bridge",
    class_code="060400",
    driver="pcieport",
    iommu_group="4",
    bridge=True,
)
CLAIMED = device(
    "pci/0000:01:00.0",
    **_INTEL,
    **_ETHERNET,
    model="82574L Gigabit Network Connection",
    driver="vfio-pci",
    flavour="vfio",
    proof=["vfio0"],
    interfaces_before=["enp1s0"],
    iommu_group="15",
    variants=[{"flavour": "vfio", "module": "test_vfio_pci"}],
)
BLOCKER = device(
    "pci/0000:05:02.0",
    **_INTEL,
    **_ETHERNET,
    model="82540EM Gigabit Ethernet Controller",
    driver="e1000",
    iommu_group="15",
    blocks_group=True,
    variants=[],
    interfaces=["enp5s2"],
)
PF = device(
    "pci/0000:06:00.0",
    **_INTEL,
    **_ETHERNET,
    model="82576 Gigabit Network Connection",
    driver="igb",
    iommu_group="16",
    blocks_group=True,
    variants=[],
    interfaces=["enp6s0"],
    vfs=2,
)
VF = device(
    "pci/0000:06:10.0",
    **_INTEL,
    **_ETHERNET,
    model="82576 Virtual Function",
    driver="igb-vfio-pci",
    flavour="vfio",
    proof=["vfio1"],
    iommu_group="17",
    variants=[{"flavour": "vfio", "module": "igb_vfio_pci"}, {"flavour": "vfio", "module": "test_vfio_pci"}],
    pf="pci/0000:06:00.0",
)
DISK = device(
    "pci/0000:07:00.0",
    **_NVME,
    vendor="Samsung Electronics Co Ltd",
    model="NVMe SSD Controller PM9A1",
    driver="nvme",
    iommu_group="9",
    blocks_group=True,
    variants=[],
    disks=["nvme0n1", "nvme0n2"],
)
QEMU = {"pid": 4242, "name": "qemu-system-x86", "unit": "machine-vm1.scope"}
ASLEEP = {
    "device": "pci/0000:41:00.0",
    "flavour": "vfio",
    "uuid": "fe4d7c9d-b8c6-4a70-9ef1-3d8a58d18eed",
    "since": "2026-11-22T14:47:11.000+00:00",
    "pid": 4711,
    "step": "unbinding from nouveau",
    "wchan": "nouveau_drm_device_remove",
    "holders": [{"pid": 990, "name": "Xorg", "unit": None}, QEMU],
}
STUCK = device(
    "pci/0000:41:00.0",
    vendor="NVIDIA Corporation",
    model="GA102 [GeForce RTX 3090]",
    class_name="VGA compatible controller",
    class_code="030000",
    driver="nouveau",
    iommu_group="31",
    blocks_group=True,
    variants=[{"flavour": "vfio", "module": "nvgrace_gpu_vfio_pci"}],
    state="stuck",
    step="unbinding from nouveau",
    stuck=ASLEEP,
)
FAR = device("pci/0001:02:00.0", flavour="vfio", driver="vfio-pci", proof=["vfio2"], iommu_group="31")
MAC = device("platform/fe200000.ethernet", driver="dwmac", interfaces=["end0"])
TWINS = [device("platform/dma0", driver="pl330"), device("cdx/dma0")]
DEVICES = [*TWINS[1:], BRIDGE, CLAIMED, BLOCKER, PF, VF, DISK, STUCK, FAR, *TWINS[:1], MAC]

UUID = "fe4d7c9d-b8c6-4a70-9ef1-3d8a58d18eed"
UNIVERSAL = {"module": "vfio_pci", "source": "universal", "detail": "universal driver vfio-pci"}
VARIANT = {
    "module": "test_vfio_pci",
    "source": "alias",
    "detail": "vfio_pci:v00008086d000010D3sv*sd*bc*sc*i*",
}
REFUSAL = {
    "who": "test_vfio_pci",
    "reason": "refused: EIO (Input/output error)",
    "errno": 5,
    "kernel": [
        "test_vfio_pci 0000:01:00.0: test variant refuses: -5",
        "test_vfio_pci 0000:01:00.0: probe with driver test_vfio_pci failed with error -5",
    ],
}


def outcome(id: str, kind: str, headline: str, **facts: object) -> Json:
    nothing = dict.fromkeys(("code", "driver", "before", "candidate", "errno"))
    empty: Json = {"proof": [], "refusals": [], "skips": [], "notes": [], "findings": [], "hint": ""}
    return {
        "time": "2026-11-22T14:46:00.123+00:00",
        "device": id,
        "flavour": "vfio",
        "origin": "varlink",
        "uuid": UUID,
        "asker": "root, pid 4711",
        "kind": kind,
        "headline": headline,
        "message": headline,
        **nothing,
        **empty,
        **facts,
    }


SWITCHED = outcome(
    VF["id"],
    "switched",
    "pci/0000:06:10.0 is in flavour vfio now: driver igb-vfio-pci (vfio1), was igbvf",
    driver="igb-vfio-pci",
    before="igbvf",
    proof=["vfio1"],
    candidate=VARIANT | {"module": "igb_vfio_pci"},
)
SECOND_TRY = outcome(
    CLAIMED["id"],
    "switched",
    "pci/0000:01:00.0 is in flavour vfio now: driver vfio-pci (vfio0), was e1000e",
    time="2026-11-22T14:47:11.000+00:00",
    driver="vfio-pci",
    before="e1000e",
    proof=["vfio0"],
    candidate=UNIVERSAL,
    refusals=[REFUSAL],
    skips=[
        {"module": "foo_vfio_pci", "reason": "is blacklisted in modprobe.d", "missed": True},
        {"module": "bar_vfio_pci", "reason": "has a table that does not list this device", "missed": False},
    ],
    notes=[
        "IOMMU group 15 cannot be opened yet: it also holds pci/0000:05:02.0 (e1000); put them into the flavour too"
    ],
)
UNDONE = outcome(
    BLOCKER["id"],
    "undone",
    "pci/0000:05:02.0 did not take flavour vfio and is as it was, driver e1000: none of 1 candidates took it "
    "[all-refused]",
    code="all-refused",
    driver="e1000",
    before="e1000",
    refusals=[REFUSAL | {"who": "vfio_pci", "reason": "refused: EINVAL (Invalid argument)", "errno": 22, "kernel": []}],
    hint="see what each one says above; journalctl -k has the rest",
    asker=None,
    origin="uevent",
)
BROKEN = outcome(
    DISK["id"],
    "broken",
    "pci/0000:07:00.0 took neither flavour vfio nor its way back: no driver: nvme did not take the device back "
    "[native-refused]",
    code="native-refused",
    hint="see journalctl -k",
)
BACK = outcome(
    CLAIMED["id"],
    "switched",
    "pci/0000:01:00.0 is in flavour default now: driver e1000e, was vfio-pci",
    flavour="default",
    driver="e1000e",
    before="vfio-pci",
)
MOUNTED = {
    "guard": "mounted",
    "text": "nvme0n1p1 (vg-root on it) is mounted at /srv",
    "hint": "umount /srv",
    "processes": [],
}
HELD = {"guard": "held", "text": "it is held through VFIO", "hint": "shut the machine down", "processes": [QEMU]}
OPEN = {
    "guard": "open",
    "text": "/dev/nvme0n1 is open",
    "hint": "",
    "processes": [{"pid": 77, "name": "dd", "unit": None}, {"pid": 78, "name": "smartd", "unit": "smartd.service"}],
}
IN_USE = outcome(
    DISK["id"],
    "refused",
    "pci/0000:07:00.0 is in use; nothing was touched [in-use]",
    code="in-use",
    findings=[MOUNTED, OPEN],
    hint="or pass over it, if you know better: --force=mounted --force=open",
)
ALTHOUGH = outcome(
    DISK["id"],
    "switched",
    "pci/0000:07:00.0 is in flavour vfio now: driver vfio-pci (vfio3), was nvme",
    driver="vfio-pci",
    before="nvme",
    proof=["vfio3"],
    findings=[OPEN],
    notes=["IOMMU group 9 can be opened"],
)
TOGETHER = outcome(
    CLAIMED["id"],
    "undone",
    "pci/0000:01:00.0 did not take flavour vfio and is as it was, driver e1000e: pci/0000:05:02.0 of its group did not "
    "go [together]",
    code="together",
    driver="e1000e",
)
OUTCOMES = [SWITCHED, SECOND_TRY, UNDONE, BROKEN, BACK]
PERSISTED = SWITCHED | {"notes": ["/etc/flavourd/policy.d/10-persist-pci:0000:06:10.0.yaml keeps it so"]}
PERSISTED_TOO = SECOND_TRY | {
    "notes": [*SECOND_TRY["notes"], "/etc/flavourd/policy.d/10-persist-pci:0000:01:00.0.yaml keeps it so"]
}
NOT_PERSISTED = BACK | {"notes": ["10-persist-pci:0000:01:00.0.yaml is gone"]}


def plan(id: str, flavour: str, kind: str, **facts: object) -> Json:
    nothing = dict.fromkeys(("driver", "target", "iommu_group", "code"))
    empty: Json = {
        "candidates": [],
        "skips": [],
        "blockers": [],
        "notes": [],
        "findings": [],
        "message": "",
        "hint": "",
    }
    return {"device": id, "flavour": flavour, "kind": kind, **nothing, **empty, **facts}


PLANS = {
    "vfio": plan(
        CLAIMED["id"],
        "vfio",
        "switch",
        candidates=[
            VARIANT,
            VARIANT | {"module": "x", "source": "softdep", "detail": "softdep vfio_pci pre: x"},
            UNIVERSAL,
        ],
        skips=SECOND_TRY["skips"],
        driver="e1000e",
        iommu_group="15",
        blockers=["pci/0000:05:02.0 (e1000)"],
        notes=["modules.builtin.modinfo cannot be read: variants may be missed"],
    ),
    "default": plan(CLAIMED["id"], "default", "switch", driver="vfio-pci", target="e1000e", iommu_group="15"),
}
PLAN_REFUSED = plan(
    BRIDGE["id"],
    "vfio",
    "refused",
    code="bridge",
    message="pci/0000:00:1c.0 is a bridge",
    hint="ask for the devices behind it: bridges stay with the host",
)
PLAN_ALREADY = plan(VF["id"], "vfio", "already", driver="igb-vfio-pci", iommu_group="17")

PLAN_IN_USE = plan(
    DISK["id"],
    "vfio",
    "refused",
    findings=[MOUNTED, HELD],
    code="in-use",
    message="pci/0000:07:00.0 is in use",
    hint="or pass over it, if you know better: --force=mounted --force=held",
)
PLAN_ALTHOUGH = plan(DISK["id"], "vfio", "switch", candidates=[UNIVERSAL], driver="nvme", findings=[MOUNTED])

NO_DEVICE = error(
    "Refused",
    code="no-device",
    message="there is no device pci/0000:01:00.1",
    hint="flavourctl list has those that there are",
)


def step(id: str, what: str, text: str, uuid: str = UUID) -> Json:
    time = "2026-11-22T14:46:01.000+00:00"
    return {"time": time, "device": id, "flavour": "vfio", "uuid": uuid, "what": what, "text": text}


def switching(*outcomes: Json) -> list[Reply]:
    """What Set sends: steps and outcomes as they come, in the end all outcomes."""
    devices = [outcome["device"] for outcome in outcomes]
    replies: list[Reply] = [more(step=step(device, "waiting", "waiting for its turn")) for device in devices]
    for outcome in outcomes:
        replies.append(more(step=step(outcome["device"], "binding", "binding to vfio-pci")))
        replies.append(more(outcomes=[outcome]))
    if failed := [outcome for outcome in outcomes if outcome["kind"] not in ("switched", "already")]:
        code, headline, hint = failed[0]["code"], failed[0]["headline"], failed[0]["hint"]
        return [*replies, error("NotDone", code=code, message=headline, hint=hint, outcomes=list(outcomes))]
    return [*replies, reply(outcomes=list(outcomes))]


def describe(asked: Json) -> list[Reply]:
    found = next((device for device in DEVICES if device["id"] == asked["device"]), None)
    if found is None:
        return [NO_DEVICE]
    group = found["iommu_group"]
    known: Json = {"modalias": None, "module": None, "override": None, "record": None, "last": None}
    if found is CLAIMED:
        record = {"flavour": "vfio", "since": "2026-11-22T14:47:11+00:00", "origin": "varlink", "unfinished": False}
        known = {
            "modalias": "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
            "module": "vfio_pci",
            "override": "vfio-pci",
            "record": record | {"driver": "e1000e", "override": None},
            "last": SECOND_TRY,
        }
    if found is PF:
        record = {"flavour": "default", "since": "2026-11-22T14:47:11+00:00", "origin": "varlink", "unfinished": True}
        known |= {"record": record | {"driver": "igb", "override": None, "vfs": 2, "autoprobe": False}}
    if found is STUCK:
        record = {"flavour": "vfio", "since": "2026-11-22T14:47:11+00:00", "origin": "rule", "unfinished": True}
        known |= {"record": record | {"driver": "nouveau", "override": "nouveau"}}
    members = [device["id"] for device in DEVICES if group and device["iommu_group"] == group]
    return [reply(device=found, members=members, **known)]


def explain(asked: Json) -> list[Reply]:
    if asked["device"] != CLAIMED["id"]:
        return [NO_DEVICE]
    return [reply(plans=[plan for name, plan in PLANS.items() if asked.get("flavour") in (None, name)])]


def history(asked: Json) -> list[Reply]:
    found = [outcome for outcome in OUTCOMES if asked.get("device") in (None, outcome["device"])]
    return [reply(outcomes=found[-asked.get("limit", 100) :])]


POLICY = {
    "rules": 3,
    "files": ["/etc/flavourd/policy.d/50-nics.yaml", "/usr/lib/flavourd/policy.d/90-site.yaml"],
    "since": "2026-11-22T13:00:00.000+00:00",
    "error": None,
    "contested": [],
}
NO_POLICY = {"rules": 0, "files": [], "since": None, "error": None, "contested": []}
BAD_POLICY = (
    "/etc/flavourd/policy.d/50-nics.yaml:4:5: 'flavor' is not known here; did you mean 'flavour'?; "
    '/etc/flavourd/policy.d/50-nics.yaml:9:13: write it in quotes: "8086"'
)


def rule(number: int, place: str, name: str | None = None, **facts: object) -> Json:
    return {"number": number, "place": place, "name": name, "flavour": "vfio", "mode": "enforce", **facts}


RULES = [
    rule(0, "/etc/flavourd/policy.d/50-nics.yaml:3", "one of two twins"),
    rule(1, "/etc/flavourd/policy.d/50-nics.yaml:9", mode="observe"),
    rule(2, "/usr/lib/flavourd/policy.d/90-site.yaml:2", "the rest", flavour="default"),
]


def verdict(id: str, rule: Json | None, means: str, text: str, driver: str | None) -> Json:
    flavour = rule["flavour"] if rule else "default"
    return {"device": id, "rule": rule, "means": means, "text": text, "flavour": flavour, "driver": driver}


VERDICTS = [
    verdict(BLOCKER["id"], RULES[0], "change", "its driver is e1000", "e1000"),
    verdict(CLAIMED["id"], RULES[0], "satisfied", "it is in flavour vfio as the rule says", "vfio-pci"),
    verdict(DISK["id"], RULES[1], "observed", "its driver is nvme; the rule only observes (mode: observe)", "nvme"),
    verdict(
        FAR["id"],
        RULES[0],
        "stopped",
        "other hardware stands there than the rule expects: vendor is 8086, the rule expects 10de",
        None,
    ),
]
REFUSED_POLICY = error("Refused", code="policy", message=BAD_POLICY, hint="mend it: flavourctl policy check")


def match_policy(asked: Json) -> list[Reply]:
    if asked["device"] == DISK["id"]:
        reasons = ["vendor is 144d, not 8086", "every selector holds", "comes later: first match wins; it would match"]
        whys = [
            {"rule": rule, "matches": number == 1, "reason": reason}
            for number, (rule, reason) in enumerate(zip(RULES, reasons, strict=True))
        ]
        return [reply(verdict=VERDICTS[2], rules=whys, loaded=True)]
    if asked["device"] == MAC["id"]:
        whys = [{"rule": rule, "matches": False, "reason": "bus is platform, not pci"} for rule in RULES]
        return [
            reply(verdict=verdict(MAC["id"], None, "none", "no rule matches it", "dwmac"), rules=whys, loaded=False)
        ]
    return [NO_DEVICE]


STATUS = {
    "version": "0.1.0",
    "since": "2026-11-22T13:00:00.000+00:00",
    "ready": True,
    "deadline_seconds": 60.0,
    "open": 0,
    "waiting": 0,
    "stuck": [],
    "counts": {"switched": 3, "already": 0, "undone": 1, "broken": 1},
    "clients": 1,
    "flavours": [
        {"name": "vfio", "description": "for user space and virtual machines", "buses": {"pci": "vfio_pci"}},
        {"name": "twin", "description": "", "buses": {}},
    ],
    "warnings": [],
    "policy": POLICY,
}
STATUS_IN_TROUBLE = STATUS | {
    "version": "9.9.9",
    "ready": False,
    "open": 12,
    "waiting": 9,
    "stuck": [ASLEEP, ASLEEP | {"device": "pci/0000:42:00.0", "holders": []}],
    "warnings": ["modules.builtin.modinfo cannot be read: variants may be missed"],
    "policy": POLICY | {"error": BAD_POLICY, "contested": [CLAIMED["id"], BLOCKER["id"]]},
}

EVENTS: list[Reply] = [
    more(step=None, outcome=None, lost=None),
    more(step=step(VF["id"], "begun", "begun"), outcome=None, lost=None),
    more(step=step(VF["id"], "binding", "binding to igb-vfio-pci"), outcome=None, lost=3),
    more(step=None, outcome=SWITCHED, lost=None),
    reply(step=None, outcome=SECOND_TRY, lost=None),
]

ANSWERS: dict[str, Script] = {
    "List": [reply(devices=DEVICES)],
    "Describe": describe,
    "Explain": explain,
    "History": history,
    "Status": [reply(**STATUS)],
    "Monitor": EVENTS,
    "MatchPolicy": match_policy,
    "DiffPolicy": [reply(verdicts=VERDICTS, unseen=[], loaded=True)],
    "Reload": [reply()],
}
