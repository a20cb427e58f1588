# SPDX-License-Identifier: LGPL-2.1-or-later
"""The road of one request, from snapshot to record. Runs in a worker process, alone with the device."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flavourd.device import Device, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, Flavours
from flavourd.journal import Journal
from flavourd.kmod import Kmod, ModuleIndex
from flavourd.kmsg import Kmsg
from flavourd.outcome import Kind, Outcome, errno_text
from flavourd.plan import Plan, plan
from flavourd.record import Record
from flavourd.request import Request
from flavourd.switch import Switch
from flavourd.sysfs import Sysfs


@dataclass(frozen=True)
class Host:
    """The machine as a worker sees it."""

    sysfs: Sysfs
    kmod: Kmod
    journal: Journal
    kmsg: Callable[[DeviceId], Kmsg] = Kmsg


def answer(request: Request, host: Host, flavours: Flavours, index: ModuleIndex) -> Outcome:
    """Plan and switch; the record on disk says before the first write what is begun and after the last what became of
    it.
    """
    with host.journal.locked(request.device):
        try:
            device = _snapshot(request.device, host, flavours)
            record = host.journal.record(request.device)
            if record and record.instance != device.instance:  # other hardware stands there now
                record = None
            planned = plan(request, device, flavours, index, record)
        except FlavourError as error:
            return refused(request, error)
        if planned.already:
            outcome = _already(planned)
        else:
            host.journal.save(_begun(planned))
            outcome = Switch(planned, host.sysfs, host.kmod, host.kmsg(request.device)).run()
        _settle(planned, outcome, record, host)
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


def _snapshot(device: DeviceId, host: Host, flavours: Flavours) -> Device:
    try:
        return host.sysfs.device(device, flavours.proofs)
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


def _begun(planned: Plan) -> Record:
    return Record(
        device=planned.device.id,
        instance=planned.device.instance,
        original=planned.original,
        flavour=planned.flavour,
        override=planned.device.binding.override,
        unfinished=True,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        origin=planned.request.origin,
    )


def _settle(planned: Plan, outcome: Outcome, before: Record | None, host: Host) -> None:
    """Write down how it ended. A record stays exactly as long as there is something to give back."""
    device, journal = planned.device.id, host.journal
    match outcome.kind:
        case Kind.SWITCHED if planned.flavour != DEFAULT:
            journal.save(replace(_begun(planned), override=outcome.driver, unfinished=False))
        case Kind.ALREADY if before and planned.flavour != DEFAULT:
            if before.unfinished:
                journal.save(replace(before, override=planned.device.binding.override, unfinished=False))
        case Kind.BROKEN:  # `default` may still bring the original back, once the kernel lets it
            journal.save(replace(_begun(planned), override=host.sysfs.override(device), unfinished=False))
        case Kind.UNDONE | Kind.REFUSED if before and not before.unfinished and planned.original == before.original:
            journal.save(before)
        case _:
            journal.drop(device)
