# SPDX-License-Identifier: LGPL-2.1-or-later
"""Carry out plans as one transaction: all devices are switched, or each is as it was.

What is meant to be done is on disk before the first write to any device, each step before it is done, and what became
of it after the last.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial

from flavourd.device import Binding, DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT
from flavourd.host import Host
from flavourd.journal import Journal
from flavourd.kmsg import Kmsg
from flavourd.outcome import Kind, Outcome, errno_text, refused
from flavourd.plan import Plan
from flavourd.rebind import Kept
from flavourd.record import Record
from flavourd.request import Request
from flavourd.step import Step
from flavourd.switch import Checks, Switch

# Number of the plan, and its step.
TellOf = Callable[[int, Step], None]


def carry_out(
    plans: Sequence[Plan],
    records: Sequence[Record | None],
    host: Host,
    tell: TellOf,
    wanted: Callable[[], bool] = lambda: True,
    look_again: Callable[[Plan], None] = lambda _planned: None,
    kept: Kept | None = None,
) -> list[Outcome]:
    """Outcomes in the order of the plans. records: what was remembered before. wanted, kept: see Checks. look_again: at
    what the host uses a device for; FlavourError if that is against the plan by now.
    """
    if error := _write_down(plans, records, host):
        return [refused(planned.request, error) for planned in plans]

    def switch_of(number: int, planned: Plan, kmsg: Kmsg) -> Switch:
        remember = partial(_remember, host.journal, planned.device.id)
        checks = Checks(wanted, partial(look_again, planned), remember, kept)
        return Switch(planned, host.sysfs, host.kmod, kmsg, partial(_mark, number, planned, host, tell), checks)

    with ExitStack() as stack:
        logs = [stack.enter_context(closing(host.kmsg(planned.device.id))) for planned in plans]
        switches = list(map(switch_of, range(len(plans)), plans, logs))
        outcomes = _all_or_none(plans, switches)
    return [
        _settled(planned, switch.original, outcome, record, host)
        for planned, switch, outcome, record in zip(plans, switches, outcomes, records, strict=True)
    ]


def left_out(request: Request, failed: Outcome) -> FlavourError:
    """Why a request was not carried out that is well in itself."""
    sentence = (
        f"{request.device} is switched together with {failed.request.device} or not at all, and that one did not go"
    )
    return FlavourError(Code.TOGETHER, sentence, "mend what keeps the other one, then ask again")


def not_written(device: DeviceId, error: OSError) -> FlavourError:
    """Nothing is begun that could not be undone after a crash."""
    sentence = f"what was to be done with {device} could not be written down: {errno_text(error.errno or 0)}"
    return FlavourError(Code.HOST, sentence, "make room in /run", errno=error.errno)


# ---


def _all_or_none(plans: Sequence[Plan], switches: Sequence[Switch]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    failed: Outcome | None = None
    for planned, switch in zip(plans, switches, strict=True):
        if planned.already:
            outcomes.append(switch.mend(_already(planned)))
        elif failed:
            outcomes.append(switch.leave(left_out(planned.request, failed)))
        else:
            outcomes.append(switch.run())
            failed = None if outcomes[-1].kind is Kind.SWITCHED else outcomes[-1]
    if not failed:
        outcomes = [
            switch.complete(outcome) if outcome.kind is Kind.SWITCHED else outcome
            for switch, outcome in zip(switches, outcomes, strict=True)
        ]
    else:
        for number in reversed(range(len(plans))):
            why = left_out(plans[number].request, failed)
            if outcomes[number].kind is Kind.SWITCHED:
                outcomes[number] = switches[number].take_back(outcomes[number], why)
            elif outcomes[number].kind is Kind.ALREADY and plans[number].half_done:
                # An earlier worker of this very transaction has switched it, and died before the others were.
                outcomes[number] = switches[number].leave(why)
    return outcomes


def _write_down(plans: Sequence[Plan], records: Sequence[Record | None], host: Host) -> FlavourError | None:
    """The intent, for whoever comes after a crash; all of it before the first write to a device."""
    written: list[tuple[DeviceId, Record | None]] = []
    for planned, record in zip(plans, records, strict=True):
        if planned.already:
            continue
        try:
            host.journal.save(_intent(planned, record))
        except OSError as error:
            for device, before in written:
                with suppress(OSError):
                    host.journal.restore(before) if before else host.journal.drop(device)
            return not_written(planned.device.id, error)
        written.append((planned.device.id, record))
    return None


def _intent(planned: Plan, before: Record | None) -> Record:
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
        sriov=planned.sriov,
        intent=planned.intent,
    )


def _remember(journal: Journal, device: DeviceId, original: Binding) -> None:
    """What only came to light on the way, before it is taken from the device."""
    journal.change(device, original=asdict(original))


def _mark(number: int, planned: Plan, host: Host, tell: TellOf, step: Step) -> None:
    with suppress(OSError):  # the intent is written down, and says enough
        host.journal.mark(planned.device.id, step.text)
    tell(number, step)


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


def _settled(planned: Plan, original: Binding, outcome: Outcome, before: Record | None, host: Host) -> Outcome:
    """The outcome, when it is written down. A record stays exactly as long as there is something to give back."""
    try:
        _settle(planned, original, outcome, before, host)
    except OSError as error:
        note = f"this could not be written down: {errno_text(error.errno or 0)}; make room in /run, then ask again"
        return replace(outcome, notes=(*outcome.notes, note))
    return outcome


def _settle(planned: Plan, original: Binding, outcome: Outcome, before: Record | None, host: Host) -> None:
    device, journal = planned.device.id, host.journal
    match outcome.kind:
        case Kind.SWITCHED if planned.flavour != DEFAULT:
            journal.change(device, original=asdict(original), override=outcome.driver, unfinished=False)
        case Kind.ALREADY if before and planned.flavour != DEFAULT:
            override = planned.mend or planned.device.binding.override
            if before.unfinished or before.flavour != planned.flavour or (planned.mend and before.override != override):
                journal.change(device, flavour=planned.flavour, override=override, unfinished=False)
        case Kind.BROKEN if outcome.code is not Code.CONTESTED or not outcome.driver:
            # `default` may still bring the original back, once the kernel lets it.
            override = host.sysfs.override(device)
            journal.change(device, original=asdict(original), override=override, unfinished=False)
        case Kind.REFUSED if before and planned.half_done:  # and so it stays, for now
            journal.restore(before)
        case Kind.UNDONE | Kind.REFUSED if before and not before.unfinished and planned.original == before.original:
            journal.restore(before)
        case _:
            journal.drop(device)
