# SPDX-License-Identifier: LGPL-2.1-or-later
"""The types of io.flavourd.Manager.varlink, which documents their fields, and how our own values become them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from flavourd import flavour, outcome, plan, record, step, stuck, use, verdict
from flavourd.device import Glance
from flavourd.errors import FlavourError
from flavourd.flavour import Flavours
from flavourd.inventory import blocks_group, flavour_of, proof_of, variants
from flavourd.iommu import blockers
from flavourd.module_index import ModuleIndex
from flavourd.policy import language, why
from flavourd.request import Request
from flavourd.traits import Seen


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Variant:
    flavour: str
    module: str


@dataclass
class Process:
    pid: int
    name: str
    unit: str | None

    @classmethod
    def all(cls, processes: Iterable[use.Process]) -> "list[Process]":
        return [cls(process.pid, process.name, process.unit) for process in processes]


@dataclass
class Finding:
    guard: str
    text: str
    hint: str
    processes: list[Process]

    @classmethod
    def all(cls, findings: Iterable[use.Finding]) -> "list[Finding]":
        return [cls(each.guard, each.sentence, each.hint, Process.all(each.processes)) for each in findings]


@dataclass
class Stuck:
    device: str
    flavour: str
    uuid: str | None
    since: str
    pid: int
    step: str
    wchan: str | None
    holders: list[Process]

    @classmethod
    def of(cls, found: stuck.Stuck) -> "Stuck":
        request = found.request
        return cls(
            device=str(request.device),
            flavour=request.wanted,
            uuid=request.uuid,
            since=found.since,
            pid=found.pid,
            step=found.step,
            wchan=found.wchan,
            holders=Process.all(found.holders),
        )


@dataclass
class Device:
    id: str
    vendor: str | None
    model: str | None
    class_name: str | None
    class_code: str | None
    driver: str | None
    flavour: str
    proof: list[str]
    iommu_group: str | None
    blocks_group: bool
    bridge: bool
    variants: list[Variant]
    interfaces: list[str]
    interfaces_before: list[str]
    disks: list[str]
    pf: str | None
    vfs: int
    state: str | None
    step: str | None
    stuck: Stuck | None

    @classmethod
    def of(cls, glance: Glance, flavours: Flavours, index: ModuleIndex, kept: record.Record | None) -> "Device":
        """Without state, step and stuck, which only the daemon itself knows. kept: the device's record."""
        return cls(
            id=str(glance.id),
            vendor=glance.vendor,
            model=glance.model,
            class_name=glance.class_name,
            class_code=glance.class_code,
            driver=glance.driver,
            flavour=flavour_of(glance, flavours),
            proof=list(proof_of(glance)),
            iommu_group=glance.iommu_group,
            blocks_group=blocks_group(glance),
            bridge=glance.bridge,
            variants=[Variant(*variant) for variant in variants(glance, flavours, index)],
            interfaces=list(glance.interfaces),
            interfaces_before=list(kept.interfaces) if kept else [],
            disks=list(glance.disks),
            pf=str(glance.pf) if glance.pf else None,
            vfs=glance.vfs,
            state=None,
            step=None,
            stuck=None,
        )


@dataclass
class Step:
    time: str
    device: str
    flavour: str
    uuid: str | None
    what: str
    text: str

    @classmethod
    def of(cls, request: Request, told: step.Step) -> "Step":
        return cls(now(), str(request.device), request.wanted, request.uuid, told.what, told.text)


@dataclass
class Candidate:
    module: str
    source: str
    detail: str

    @classmethod
    def of(cls, candidate: outcome.Candidate) -> "Candidate":
        return cls(candidate.module, candidate.source, candidate.detail)


@dataclass
class Skip:
    module: str
    reason: str
    missed: bool

    @classmethod
    def of(cls, skip: outcome.Skip) -> "Skip":
        return cls(skip.module, skip.reason, skip.missed)


@dataclass
class Refusal:
    who: str
    reason: str
    errno: int | None
    kernel: list[str]

    @classmethod
    def of(cls, refusal: outcome.Refusal) -> "Refusal":
        return cls(refusal.who, refusal.reason, refusal.errno, list(refusal.kernel))


@dataclass
class Outcome:
    time: str
    device: str
    flavour: str
    origin: str
    uuid: str | None
    asker: str | None
    kind: str
    code: str | None
    headline: str
    message: str
    hint: str
    driver: str | None
    before: str | None
    proof: list[str]
    candidate: Candidate | None
    refusals: list[Refusal]
    skips: list[Skip]
    notes: list[str]
    findings: list[Finding]
    errno: int | None

    @classmethod
    def of(cls, told: outcome.Outcome) -> "Outcome":
        request = told.request
        return cls(
            time=now(),
            device=str(request.device),
            flavour=told.flavour,
            origin=request.origin,
            uuid=request.uuid,
            asker=request.asker,
            kind=told.kind,
            code=told.code,
            headline=told.headline,
            message=str(told),
            hint=told.hint,
            driver=told.driver,
            before=told.before,
            proof=list(told.proof),
            candidate=Candidate.of(told.candidate) if told.candidate else None,
            refusals=list(map(Refusal.of, told.refusals)),
            skips=list(map(Skip.of, told.skips)),
            notes=list(told.notes),
            findings=Finding.all(told.findings),
            errno=told.errno,
        )


@dataclass
class Plan:
    device: str
    flavour: str
    kind: str
    candidates: list[Candidate]
    skips: list[Skip]
    driver: str | None
    target: str | None
    iommu_group: str | None
    blockers: list[str]
    notes: list[str]
    findings: list[Finding]
    code: str | None
    message: str
    hint: str

    @classmethod
    def of(cls, planned: plan.Plan) -> "Plan":
        snapshot = planned.device
        return cls(
            device=str(snapshot.id),
            flavour=planned.flavour,
            kind="already" if planned.already else "switch",
            candidates=list(map(Candidate.of, planned.candidates)),
            skips=list(map(Skip.of, planned.skips)),
            driver=snapshot.binding.driver,
            target=planned.target.driver if planned.target else None,
            iommu_group=snapshot.iommu_group,
            blockers=[f"{member.id} ({member.driver})" for member in blockers(snapshot, planned.request.beside)],
            notes=list(planned.notes),
            findings=Finding.all(planned.findings),
            code=None,
            message="",
            hint="",
        )

    @classmethod
    def refused(cls, request: Request, error: FlavourError) -> "Plan":
        return cls(
            device=str(request.device),
            flavour=request.wanted,
            kind="refused",
            candidates=[],
            skips=[],
            driver=None,
            target=None,
            iommu_group=None,
            blockers=[],
            notes=[],
            findings=Finding.all(error.findings),
            code=error.code,
            message=error.sentence,
            hint=error.hint,
        )


@dataclass
class Record:
    flavour: str
    since: str
    origin: str
    driver: str | None
    override: str | None
    vfs: int | None
    autoprobe: bool | None
    unfinished: bool

    @classmethod
    def of(cls, kept: record.Record) -> "Record":
        return cls(
            flavour=kept.flavour,
            since=kept.since,
            origin=kept.origin,
            driver=kept.original.driver,
            override=kept.original.override,
            vfs=kept.sriov.vfs if kept.sriov else None,
            autoprobe=kept.sriov.autoprobe if kept.sriov else None,
            unfinished=kept.unfinished,
        )


@dataclass
class Flavour:
    name: str
    description: str
    proof: str
    buses: dict[str, str]

    @classmethod
    def all(cls, flavours: Mapping[str, flavour.Flavour]) -> "list[Flavour]":
        return [
            cls(name, one.description, one.proof, {bus: on_bus.universal.module for bus, on_bus in one.buses.items()})
            for name, one in flavours.items()
        ]


@dataclass
class Rule:
    number: int
    place: str
    name: str | None
    flavour: str
    mode: str

    @classmethod
    def of(cls, placed: language.PlacedRule) -> "Rule":
        return cls(placed.number, str(placed), placed.rule.name, placed.rule.flavour, placed.rule.mode)


@dataclass
class Why:
    rule: Rule
    matches: bool
    reason: str

    @classmethod
    def all(cls, whys: Iterable[why.Why]) -> "list[Why]":
        return [cls(Rule.of(each.rule), each.matches, each.reason) for each in whys]


@dataclass
class Verdict:
    device: str
    rule: Rule | None
    means: str
    text: str
    flavour: str
    driver: str | None

    @classmethod
    def of(cls, found: verdict.Verdict, seen: Seen, flavours: Flavours) -> "Verdict":
        placed = found.placed
        return cls(
            device=str(found.device),
            rule=Rule.of(placed) if placed else None,
            means=found.means,
            text=found.sentence,
            flavour=placed.rule.flavour if placed else verdict.held_by(seen, flavours),
            driver=seen.driver,
        )


@dataclass
class PolicyStanding:
    rules: int
    files: list[str]
    since: str | None
    error: str | None
    contested: list[str]
