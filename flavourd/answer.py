# SPDX-License-Identifier: LGPL-2.1-or-later
"""The road of requests that are carried out together, from snapshot to outcome. Runs in a worker process, alone with
the devices.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from flavourd import iommu
from flavourd.device import Device, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavours
from flavourd.guards import findings
from flavourd.host import Host
from flavourd.journal import since_boot
from flavourd.keys import Keys
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind, Outcome, errno_text, refused
from flavourd.plan import Plan, by_policy, guarded, plan
from flavourd.rebind import Kept
from flavourd.record import Record
from flavourd.request import Origin, Request
from flavourd.step import Step, What
from flavourd.switch import TOO_LATE
from flavourd.together import TellOf, carry_out, left_out, not_written
from flavourd.use import Guard, Severity

# The event of a new device comes before the kernel lets drivers bind it, and some are probed asynchronously.
_ARRIVAL_SECONDS = 1.0
# After that long the guards look again: meanwhile modules were loaded, or other devices of a group switched.
_FRESH_SECONDS = 0.5


@dataclass(frozen=True)
class Rules:
    """What decides, apart from the devices themselves.

    kept: whether the policy keeps a device, a VF that has just been made, from its native driver; None where no rule
    could.
    """

    flavours: Flavours
    index: ModuleIndex
    severities: Mapping[Guard, Severity]
    kept: Kept | None = None

    def severities_for(self, request: Request) -> dict[Guard, Severity]:
        """What findings mean for this request. Guard.TABLE is no matter of opinion."""
        own = {guard: severity for guard, severity in request.guards if guard is not Guard.TABLE}
        return dict(self.severities) | own


@dataclass(frozen=True)
class _Prospect:
    """A request with what is remembered of its device, and the plan for it; or why there is none."""

    request: Request
    device: Device | None = None
    record: Record | None = None
    planned: Plan | None = None
    refusal: Outcome | None = None


@dataclass(frozen=True)
class Job:
    """Requests that are carried out together. keys: what the devices have in common with others (see kin.py). until:
    seconds since boot after which they are not wanted any more, should the kernel let go only then; None if they are.
    """

    requests: tuple[Request, ...]
    keys: Keys
    until: float | None = None

    def wanted(self) -> bool:
        return self.until is None or since_boot() <= self.until


@dataclass(frozen=True)
class Answerer:
    """What a worker does, one job after the other."""

    host: Host
    rules: Rules

    def __call__(self, job: Job, tell: Callable[[tuple[int, Step]], None]) -> list[Outcome]:
        def tell_of(number: int, step: Step) -> None:
            tell((number, step))

        return answer(job.requests, job.keys, self.host, self.rules, tell_of, job.wanted)


def answer(
    requests: Sequence[Request],
    keys: Keys,
    host: Host,
    rules: Rules,
    tell: TellOf,
    wanted: Callable[[], bool] = lambda: True,
) -> list[Outcome]:
    """Outcomes in the order of the requests. keys: what the devices have in common with others (see kin.py). wanted:
    see Switch.
    """

    def wait(pid: int) -> None:
        who = f"worker {pid} of an earlier flavourd" if pid else "workers of an earlier flavourd, which lslocks names"
        for number in range(len(requests)):
            tell(number, Step(What.BEGUN, f"waiting for {who}", pid))

    with ExitStack() as stack:
        try:
            stack.enter_context(host.journal.locked(keys, wait))
        except OSError as error:
            return [refused(request, not_written(request.device, error)) for request in requests]
        began = time.monotonic()
        prospects = [_prospect(request, host, rules, wanted) for request in requests]
        if not all(each.planned and each.planned.already for each in prospects):
            prospects = [_guarded_too(each, prospects, host, rules) for each in prospects]
        if not (first := next((each.refusal for each in prospects if each.refusal), None)):
            return _carry_out(prospects, began, host, rules, tell, wanted)
        return [
            _put_back(
                each, number, each.refusal or refused(each.request, left_out(each.request, first)), host, rules, tell
            )
            for number, each in enumerate(prospects)
        ]


def explain(request: Request, host: Host, rules: Rules, together: Collection[DeviceId] = ()) -> Plan:
    """What `answer` would do if it began now; FlavourError if it would be refused. Nothing is touched.

    together: devices of the same transaction.
    """
    device = _snapshot(request, host, rules)
    record = host.journal.record(request.device, set_aside=False)
    if record and record.instance != device.instance:
        record = None
    planned = plan(request, device, rules.flavours, rules.index, record)
    return planned if planned.already else _guarded(planned, host, rules, together)


# ---


def _prospect(request: Request, host: Host, rules: Rules, wanted: Callable[[], bool]) -> _Prospect:
    device: Device | None = None
    record: Record | None = None
    try:
        device = _snapshot(request, host, rules)
        if request.instance not in (0, device.instance):
            sentence = f"{request.device} went away before its turn came, and another device stands there now"
            raise FlavourError(Code.NO_DEVICE, sentence, "ask again if that one is meant")
        record = host.journal.record(request.device)
        if record and record.instance != device.instance:  # other hardware stands there now
            host.journal.drop(request.device)
            record = None
        planned = plan(request, device, rules.flavours, rules.index, record)
        _check_still_wanted(planned, record, wanted)
        return _Prospect(request, device, record, planned)
    except FlavourError as error:
        return _Prospect(request, device, record, refusal=refused(request, error))


def _guarded_too(prospect: _Prospect, together: Sequence[_Prospect], host: Host, rules: Rules) -> _Prospect:
    """Looked at by the guards, unless it stays as it is, whatever becomes of the others."""
    planned = prospect.planned
    if not planned or (planned.already and not planned.half_done):
        return prospect
    try:
        return replace(prospect, planned=_guarded(planned, host, rules, {each.request.device for each in together}))
    except FlavourError as error:
        return replace(prospect, planned=None, refusal=refused(prospect.request, error))


def _carry_out(
    prospects: Sequence[_Prospect], began: float, host: Host, rules: Rules, tell: TellOf, wanted: Callable[[], bool]
) -> list[Outcome]:
    """began: when the guards began to look."""
    plans = [each.planned for each in prospects if each.planned]
    together = {planned.device.id for planned in plans}

    def look_again(planned: Plan) -> None:
        if time.monotonic() - began > _FRESH_SECONDS:
            _guarded(planned, host, rules, together)

    outcomes = carry_out(plans, [each.record for each in prospects], host, tell, wanted, look_again, rules.kept)
    return [_with_group(outcome, planned, rules) for outcome, planned in zip(outcomes, plans, strict=True)]


def _with_group(outcome: Outcome, planned: Plan, rules: Rules) -> Outcome:
    told = rules.severities_for(planned.request)[Guard.GROUP] is not Severity.OFF
    if told and outcome.kind is Kind.SWITCHED and planned.flavour != DEFAULT:
        note = iommu.viability_note(planned.device, planned.request.beside)
        return replace(outcome, notes=(*outcome.notes, *filter(None, (note,))))
    return outcome


def _put_back(prospect: _Prospect, number: int, outcome: Outcome, host: Host, rules: Rules, tell: TellOf) -> Outcome:
    """What a worker that died left half done is put back, even if its wish cannot be fulfilled any more; and what was
    parked for the rule that asks gets its native driver.
    """
    record, device = prospect.record, prospect.device
    if not device:
        return outcome
    parked = device.binding.parked and by_policy(prospect.request)
    if not parked and not (record and record.unfinished):
        return outcome
    request = Request(device.id, DEFAULT, prospect.request.origin, rule=prospect.request.rule)
    try:
        planned = _guarded(plan(request, device, rules.flavours, rules.index, record), host, rules, ())
    except FlavourError:
        return outcome
    (back,) = carry_out([planned], [record], host, lambda _, step: tell(number, step), kept=rules.kept)
    kind = Kind.UNDONE if back.kind is Kind.SWITCHED else back.kind
    notes = (*outcome.notes, *back.notes)
    done = replace(outcome, kind=kind, driver=back.driver, before=back.before, refusals=back.refusals)
    return replace(done, notes=notes, parked=back.parked)


def _guarded(planned: Plan, host: Host, rules: Rules, together: Collection[DeviceId]) -> Plan:
    """together: devices that are switched too, or none of them; FlavourError(IN_USE) if a guard is against it."""
    held_by, severities = planned.device.binding.driver, rules.severities_for(planned.request)
    if planned.drops_vfs:
        planned = _with_free_vfs(planned, host)
    if planned.vfs is not None:
        return planned
    back = planned.target.driver if planned.target else None
    if planned.flavour == DEFAULT and held_by in (None, back):  # nothing is taken away from anybody
        return planned
    use = host.usage.of(planned.device.id)
    planned = replace(planned, notes=(*planned.notes, *(f"not to be seen was {words}" for words in use.unknown)))
    found = findings(use)
    if planned.flavour != DEFAULT and severities[Guard.GROUP] is Severity.ERROR:
        found += iommu.findings(planned.device, together)
    return guarded(planned, found, severities)


def _with_free_vfs(planned: Plan, host: Host) -> Plan:
    """Of a PF whose VFs would be removed; FlavourError(VFS_IN_USE) if anything is found on one of them. That is passed
    over by nobody: removing a VF that a program holds stops every change of PCI devices until it lets go
    (drivers/pci/iov.c: sriov_numvfs_store() holds pci_lock_rescan_remove()).
    """
    use = host.usage.of(planned.device.id)
    found = tuple(
        replace(finding, sentence=f"its VF {vf}: {finding.sentence}") for vf, of in use.vfs for finding in findings(of)
    )
    if found:
        sentence = f"VFs of {planned.device.id} are in use, and their number is changed only by removing all first"
        hint = "free them; until then it keeps those that it has"
        raise FlavourError(Code.VFS_IN_USE, sentence, hint, findings=found)
    return replace(planned, notes=(*planned.notes, *(f"not to be seen was {words}" for words in use.unknown)))


def _check_still_wanted(planned: Plan, record: Record | None, wanted: Callable[[], bool]) -> None:
    """What an earlier run of the daemon left open may have been ended since, by its worker or by somebody else."""
    if not planned.already and not wanted():
        raise FlavourError(Code.STUCK, f"{planned.device.id}: {TOO_LATE}", "ask again if you still want it")
    origin = planned.request.origin
    half_done = record is not None and record.unfinished
    if origin is Origin.PUT_BACK:
        open_still = half_done
    elif origin is Origin.RECOVERY:
        # Without a record the switch never began, except for `default`, whose end is that there is no record.
        never_begun = record is None and (planned.flavour != DEFAULT or planned.vfs is not None)
        open_still = half_done or never_begun or planned.already
    else:
        open_still = True
    if not open_still:
        sentence = f"what was begun with {planned.device.id} has ended meanwhile"
        raise FlavourError(Code.OVERTAKEN, sentence, "ask again if you still want it")


def _snapshot(request: Request, host: Host, rules: Rules) -> Device:
    """The device as it is; one that has just appeared as it is when its native driver has arrived, or did not come."""
    device = request.device
    patience = _ARRIVAL_SECONDS if request.origin in (Origin.RULE, Origin.POLICY) else 0
    deadline = time.monotonic() + patience
    try:
        while True:
            snapshot = host.sysfs.device(device, rules.flavours.proofs)
            settled = snapshot.binding.driver or snapshot.binding.override or not snapshot.overridable
            if settled or time.monotonic() >= deadline:
                return snapshot
            time.sleep(_ARRIVAL_SECONDS / 10)
    except OSError as error:
        if not host.sysfs.exists(device):
            raise FlavourError(Code.NO_DEVICE, f"{device} went away") from error
        sentence = f"{device} cannot be read: {error.filename or 'an attribute'}: {errno_text(error.errno or 0)}"
        raise FlavourError(Code.HOST, sentence, errno=error.errno) from error
