# SPDX-License-Identifier: LGPL-2.1-or-later
"""The road of one request, from snapshot to record. Runs in a worker process, alone with the device."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flavourd.device import Binding, Device, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavours
from flavourd.journal import Journal
from flavourd.kmod import Kmod
from flavourd.kmsg import Kmsg
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Kind, Outcome, errno_text
from flavourd.plan import Plan, plan
from flavourd.record import Record
from flavourd.request import Origin, Request
from flavourd.step import Step, Tell, What, tell_nobody
from flavourd.switch import Switch
from flavourd.sysfs import Sysfs

# The event of a new device comes before the kernel lets drivers bind it, and some are probed asynchronously.
_ARRIVAL_SECONDS = 1.0


@dataclass(frozen=True)
class Host:
    """The machine as a worker sees it."""

    sysfs: Sysfs
    kmod: Kmod
    journal: Journal
    kmsg: Callable[[DeviceId], Kmsg] = Kmsg


def answer(request: Request, host: Host, flavours: Flavours, index: ModuleIndex, tell: Tell = tell_nobody) -> Outcome:
    """Plan and switch; the record on disk says before the first write what is begun and after the last what became of
    it.
    """

    def wait(pid: int) -> None:
        tell(Step(What.BEGUN, f"waiting for worker {pid} of an earlier flavourd"))

    with host.journal.locked(request.device, wait):
        record: Record | None = None
        try:
            device = _snapshot(request, host, flavours)
            record = host.journal.record(request.device)
            if record and record.instance != device.instance:  # other hardware stands there now
                host.journal.drop(request.device)
                record = None
            planned = plan(request, device, flavours, index, record)
            _check_still_wanted(planned, record)
        except FlavourError as error:
            outcome = refused(request, error)
            if not (record and record.unfinished):
                return outcome
            # What a worker that died left half done is put back, even if its wish cannot be fulfilled any more.
            try:
                planned = plan(
                    replace(request, wanted=DEFAULT, candidates=(), force=frozenset()), device, flavours, index, record
                )
            except FlavourError:
                return outcome
            back = _carry_out(planned, record, host, tell)
            kind = Kind.UNDONE if back.kind is Kind.SWITCHED else back.kind
            return replace(outcome, kind=kind, driver=back.driver, before=back.before, refusals=back.refusals)
        return _carry_out(planned, record, host, tell)


def explain(request: Request, host: Host, flavours: Flavours, index: ModuleIndex) -> Plan:
    """What `answer` would do if it began now; FlavourError if it would be refused. Nothing is touched."""
    device = _snapshot(request, host, flavours)
    record = host.journal.record(request.device, set_aside=False)
    if record and record.instance != device.instance:
        record = None
    return plan(request, device, flavours, index, record)


def _check_still_wanted(planned: Plan, record: Record | None) -> None:
    """What an earlier run of the daemon left open may have been ended since, by its worker or by somebody else."""
    origin = planned.request.origin
    half_done = record is not None and record.unfinished
    if origin is Origin.PUT_BACK:
        wanted = half_done
    elif origin is Origin.RECOVERY:
        # Without a record the switch never began, except for `default`, whose end is that there is no record.
        never_begun = record is None and planned.flavour != DEFAULT
        wanted = half_done or never_begun or planned.already
    else:
        wanted = True
    if not wanted:
        sentence = f"what was begun with {planned.device.id} has ended meanwhile"
        raise FlavourError(Code.OVERTAKEN, sentence, "ask again if you still want it")


def _carry_out(planned: Plan, record: Record | None, host: Host, tell: Tell) -> Outcome:
    if planned.already:
        _settle(planned, planned.original, outcome := _already(planned), record, host)
        return outcome
    host.journal.save(_begun(planned, record))
    switch = Switch(planned, host.sysfs, host.kmod, host.kmsg(planned.device.id), tell)
    outcome = switch.run()
    _settle(planned, switch.original, outcome, record, host)
    return outcome


def refused(request: Request, error: FlavourError) -> Outcome:
    """The outcome of a request that could not even be planned."""
    return Outcome(
        request,
        Kind.REFUSED,
        request.wanted,
        code=error.code,
        sentence=error.sentence,
        hint=error.hint,
        errno=error.errno,
    )


def _snapshot(request: Request, host: Host, flavours: Flavours) -> Device:
    """The device as it is; one that has just appeared as it is when its native driver has arrived, or did not come."""
    device = request.device
    patience = _ARRIVAL_SECONDS if request.origin is Origin.RULE else 0
    deadline = time.monotonic() + patience
    try:
        while True:
            snapshot = host.sysfs.device(device, flavours.proofs)
            settled = snapshot.binding.driver or snapshot.binding.override or not snapshot.overridable
            if settled or time.monotonic() >= deadline:
                return snapshot
            time.sleep(_ARRIVAL_SECONDS / 10)
    except OSError as error:
        if not host.sysfs.exists(device):
            raise FlavourError(Code.NO_DEVICE, f"{device} went away") from error
        sentence = f"{device} cannot be read: {error.filename or 'an attribute'}: {errno_text(error.errno or 0)}"
        raise FlavourError(Code.HOST, sentence, errno=error.errno) from error


def _already(planned: Plan) -> Outcome:
    device = planned.device
    driver, proof = device.binding.driver, device.proof(planned.proof)
    return Outcome(
        planned.request,
        Kind.ALREADY,
        planned.flavour,
        driver,
        before=driver,
        proof=proof,
        skips=planned.skips,
        notes=planned.notes,
    )


def _begun(planned: Plan, before: Record | None) -> Record:
    return Record(
        device=planned.device.id,
        instance=planned.device.instance,
        original=planned.original,
        flavour=planned.flavour,
        override=planned.device.binding.override,
        unfinished=True,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        origin=planned.request.origin,
        interfaces=before.interfaces if before else planned.device.interfaces,
    )


def _settle(planned: Plan, original: Binding, outcome: Outcome, before: Record | None, host: Host) -> None:
    """Write down how it ended. A record stays exactly as long as there is something to give back."""
    device, journal = planned.device.id, host.journal
    match outcome.kind:
        case Kind.SWITCHED if planned.flavour != DEFAULT:
            done = _begun(planned, before)
            journal.save(replace(done, original=original, override=outcome.driver, unfinished=False))
        case Kind.ALREADY if before and planned.flavour != DEFAULT:
            if before.unfinished or before.flavour != planned.flavour:
                override = planned.device.binding.override
                journal.save(replace(before, flavour=planned.flavour, override=override, unfinished=False))
        case Kind.BROKEN:  # `default` may still bring the original back, once the kernel lets it
            override = host.sysfs.override(device)
            done = _begun(planned, before)
            journal.save(replace(done, original=original, override=override, unfinished=False))
        case Kind.UNDONE | Kind.REFUSED if before and not before.unfinished and planned.original == before.original:
            journal.save(before)
        case _:
            journal.drop(device)
