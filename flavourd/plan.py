# SPDX-License-Identifier: LGPL-2.1-or-later
"""From a request and a snapshot to a plan. Pure: no file is read here and nothing is touched. Printing a plan is the
dry run.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from flavourd.candidates import Choice, candidates, check_named, chosen, fits
from flavourd.device import Binding, Device, Sriov
from flavourd.errors import Code, FlavourError
from flavourd.flavour import DEFAULT, FlavourOnBus, Flavours, clip
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Candidate, Skip
from flavourd.record import Record
from flavourd.request import Origin, Request
from flavourd.use import Finding, Guard, Severity


@dataclass(frozen=True)
class Plan:
    """What would be done to one device.

    already: the device is in the flavour; nothing is to be done. candidates: to be tried in this order (none on the
    way to `default`). target: for `default`, the binding to go back to; None, or one that is parked, there means that
    the bus shall choose a driver itself. original: the device's binding before flavourd first touched it. undo: where
    it returns to if this fails. sriov: of a PF, before flavourd first touched it. findings: what the host uses the
    device for, and yet it would be switched. mend: of a device that is in the flavour already the driver that its
    override is to name again. vfs: how many VFs are to be made of a PF that keeps its driver.
    """

    request: Request
    flavour: str
    proof: str
    device: Device
    original: Binding
    undo: Binding
    already: bool = False
    candidates: tuple[Candidate, ...] = ()
    skips: tuple[Skip, ...] = ()
    target: Binding | None = None
    notes: tuple[str, ...] = ()
    sriov: Sriov | None = None
    findings: tuple[Finding, ...] = ()
    mend: str | None = None
    vfs: int | None = None

    @property
    def half_done(self) -> bool:
        """An earlier switch was interrupted: going back means more than leaving it as it is."""
        return self.undo != without_parking(self.device.binding)

    @property
    def drops_vfs(self) -> bool:
        """Whether VFs of a PF that keeps its driver would be removed, to have as many as there shall be."""
        now = self.device.sriov.vfs if self.device.sriov else 0
        if self.vfs is not None:
            return now not in (0, self.vfs)
        stays = self.target is not None and self.target.driver == self.device.binding.driver
        return stays and self.sriov is not None and now not in (0, self.sriov.vfs)

    @property
    def intent(self) -> tuple[str, ...]:
        """What would be tried, in this order: modules, or on the way to `default` a driver."""
        if self.vfs is not None:
            return (f"{self.vfs} VFs",)
        back = (self.target and self.target.driver) or "what the bus chooses"
        return tuple(candidate.module for candidate in self.candidates) or (back,)


def by_policy(request: Request) -> bool:
    """Whether a rule of the policy asks, which is for many devices; also if an earlier daemon had begun with it."""
    return request.origin is Origin.POLICY or request.rule is not None


def without_parking(binding: Binding) -> Binding:
    """If a driver was faster than the one that the device was parked for, then that one is its own."""
    return replace(binding, override=None) if binding.parked and binding.driver else binding


def flavour_of(request: Request, flavours: Flavours, device: Device) -> str:
    """Name of the flavour that a request asks for. A modalias names it by its prefix, and the device by the rest."""
    prefix, colon, rest = request.wanted.partition(":")
    if colon:
        name = flavours.of_alias_prefix(prefix)
        if device.modalias is None or device.modalias.partition(":")[2] != rest:
            raise FlavourError(
                Code.FOREIGN_MODALIAS,
                f"{device.id} was asked for under the modalias of other hardware, {request.wanted[:80]!r}",
                f"its own modalias is {device.modalias}"
                if device.modalias
                else "it has no modalias: ask by the flavour's name",
            )
        return name
    if not request.wanted:
        raise FlavourError(
            Code.EMPTY_FLAVOUR,
            "no flavour was named, or one too long for udev",
            f"known flavours: {', '.join(flavours.names)}",
        )
    if request.wanted != DEFAULT:
        flavours.named(request.wanted)
    return request.wanted


def guarded(planned: Plan, found: Iterable[Finding], severities: Mapping[Guard, Severity]) -> Plan:
    """The plan with what the host uses the device for; FlavourError(IN_USE) if it would not be switched for that."""
    device, force = planned.device.id, planned.request.force
    told = tuple(finding for finding in found if severities[finding.guard] is not Severity.OFF)
    against = [each for each in told if severities[each.guard] is Severity.ERROR and each.guard not in force]
    if against:
        guards = list(dict.fromkeys(finding.guard for finding in against))
        hint = f"free it, or pass over it if you know better: {' '.join(f'--force={guard}' for guard in guards)}"
        if by_policy(planned.request):
            hint = f"free it, or change the rule ({planned.request.rule or 'policy.d'})"
            if planned.flavour != DEFAULT and set(guards) - {Guard.GROUP}:
                # What parks it then looks at no guards, for nobody uses anything yet.
                hint += ": at the next boot it may have the device before anybody uses it, also if the host needs it"
        raise FlavourError(Code.IN_USE, f"{device} is in use ({', '.join(guards)})", hint, findings=tuple(against))
    return replace(planned, findings=told)


def plan(request: Request, device: Device, flavours: Flavours, index: ModuleIndex, record: Record | None) -> Plan:
    """Decide what a request means for a device as it is; FlavourError if nothing can be done."""
    if not device.overridable:
        hint = (
            f"ask for {device.parent}, the device below it"
            if device.parent
            else "only buses with driver_override have flavours"
        )
        raise FlavourError(Code.NO_OVERRIDE, f"{device.id} has no driver_override", hint)
    name = flavour_of(request, flavours, device)
    _check_options(request, name)
    if device.releasing:
        raise FlavourError(
            Code.RELEASING,
            f"a driver is still letting {device.id} go",
            "whoever holds the device open must close it; then ask again",
        )
    if name == DEFAULT:
        planned = _plan_default(request, device, flavours, record)
        return planned if request.vfs is None or not planned.already else _plan_vfs(planned, request.vfs)
    if request.vfs is not None:
        sentence = f"{device.id} cannot have VFs in flavour {name}: its native driver makes them"
        raise FlavourError(Code.NO_SRIOV, sentence, f"`vfs` goes with `flavour: {DEFAULT}`")
    flavour = flavours.named(name)
    on_bus = flavour.buses.get(device.id.bus)
    if on_bus is None:
        raise FlavourError(
            Code.FLAVOUR_NOT_ON_BUS,
            f"flavour {name} says nothing about bus {device.id.bus}",
            f"it knows {', '.join(flavour.buses) or 'no bus'}; see flavours.yaml",
        )
    held = bool(device.proof(flavour.proof))
    original, undo = _roots(device, record, held)
    # Of a device that somebody else has taken over since, what the record says is not its past any more.
    ours = record is not None and (held or _still_ours(device, record))
    sriov = record.sriov if record and ours else device.sriov
    if held and (record is None or record.flavour in (name, DEFAULT)):  # DEFAULT: the way back was begun, not gone
        notes = _about_holder(request, name, device, on_bus, index)
        driver, override = device.binding.driver, device.binding.override
        mend = driver if by_policy(request) and driver != override else None
        return Plan(
            request, name, flavour.proof, device, original, undo, already=True, notes=notes, sriov=sriov, mend=mend
        )
    _check_takeable(device, on_bus, index)
    found, skips = _candidates(request, device, on_bus, index)
    if not found:
        reasons = "; ".join(map(str, skips)) or "the rule leaves none over"
        hint = "lift the blacklist for one of them (modprobe.d, modprobe.blacklist=)"
        if by_policy(request):
            hint = f"mend the rule ({request.rule or 'policy.d'}), or {hint}"
        sentence = f"there is no driver of flavour {name} to try for {device.id}: {reasons}"
        raise FlavourError(Code.NO_CANDIDATE, sentence, hint)
    notes = tuple(f"{warning}: variants may be missed" for warning in index.warnings)
    return Plan(
        request, name, flavour.proof, device, original, undo, candidates=found, skips=skips, notes=notes, sriov=sriov
    )


def _candidates(
    request: Request, device: Device, on_bus: FlavourOnBus, index: ModuleIndex
) -> tuple[tuple[Candidate, ...], tuple[Skip, ...]]:
    choice = Choice(
        named=request.candidates,
        forced=request.forced,
        all_forced=Guard.TABLE in request.force,
        denied=request.deny,
        tolerant=by_policy(request),
    )
    found, skips = candidates(device.modalias, device.id.bus, on_bus, index)
    try:
        return chosen(choice, device.id.bus, on_bus, index, found, skips)
    except ValueError as error:
        known = ", ".join(c.module for c in found) or "none"
        hint = f"candidates are: {known}; --force=table takes one whatever its table says"
        raise FlavourError(Code.NOT_A_CANDIDATE, f"{device.id}: {error}", hint) from error


def _plan_vfs(planned: Plan, vfs: int) -> Plan:
    """planned: for a PF that is in flavour `default` already."""
    device = planned.device
    sriov = device.sriov
    if sriov is None:
        sentence = f"{device.id} is no PF: it cannot have VFs"
        raise FlavourError(Code.NO_SRIOV, sentence, "SR-IOV may have to be switched on in the firmware")
    if vfs > sriov.total:
        sentence = f"{device.id} can have {sriov.total} VFs at most, not {vfs}"
        raise FlavourError(Code.NO_SRIOV, sentence, "some cards can be told to have more by their maker's tools")
    if vfs == sriov.vfs:
        return planned
    if device.binding.driver is None:
        sentence = f"{device.id} has no driver that could make VFs"
        raise FlavourError(Code.NO_SRIOV, sentence, "load its native driver")
    return replace(planned, already=False, vfs=vfs, sriov=sriov)


def _plan_default(request: Request, device: Device, flavours: Flavours, record: Record | None) -> Plan:
    held = next((name for name in sorted(flavours.proofs) if device.proof(name)), "")
    original, undo = _roots(device, record, bool(held))
    if held or _still_ours(device, record):
        # Without a record somebody else brought the device here (by hand, libvirt, driverctl): then the bus knows best.
        target = original if record is not None else None
        sriov = record.sriov if record else device.sriov
        return Plan(request, DEFAULT, held, device, original, undo, target=target, sriov=sriov)
    if device.binding.parked:
        target = original if original.driver else None
        return Plan(request, DEFAULT, held, device, original, undo, target=target, sriov=device.sriov)
    notes: tuple[str, ...] = ()
    if device.binding.driver is None:
        bus, name = device.id.bus, device.id.name
        notes = (f"it has no driver; echo {name} > /sys/bus/{bus}/drivers_probe lets the kernel choose one",)
    return Plan(request, DEFAULT, held, device, original, undo, already=True, notes=notes)


def _still_ours(device: Device, record: Record | None) -> bool:
    """Whether what flavourd did is still in force; if not, somebody has taken the device over and it is his now."""
    if record is None or record.unfinished:
        return record is not None
    # No override is what a device has that was never touched: that alone says nothing about one with a driver.
    telling = record.override is not None or device.binding.driver is None
    return telling and device.binding.override == record.override


def _roots(device: Device, record: Record | None, held: bool) -> tuple[Binding, Binding]:
    """(original, undo) of a device. After an interrupted switch the binding is half-way, so undoing means going back
    to the original.
    """
    now = without_parking(device.binding)
    if record is None or not (held or _still_ours(device, record)):
        return now, now
    return record.original, record.original if record.unfinished else now


def _check_options(request: Request, flavour: str) -> None:
    if unknown := sorted(request.force - set(Guard)):
        sentence = f"there is no guard {clip(unknown[0])!r} to pass over"
        raise FlavourError(Code.UNKNOWN_GUARD, sentence, f"known guards: {', '.join(Guard)}")
    for name in request.candidates:
        try:
            check_named(name)
        except ValueError as error:
            raise FlavourError(Code.NOT_A_CANDIDATE, str(error), "see flavourctl explain for its candidates") from error
    if request.candidates and flavour == DEFAULT:
        sentence = f"flavour {DEFAULT} has no candidates: it is the driver that the device had before"
        raise FlavourError(Code.NOT_A_CANDIDATE, sentence, "ask without naming candidates")


def _about_holder(
    request: Request, flavour: str, device: Device, on_bus: FlavourOnBus, index: ModuleIndex
) -> tuple[str, ...]:
    """A device that is in the flavour is left alone, so a wish for another driver of it cannot be fulfilled: what to
    tell of it, or FlavourError if it was asked for by name.
    """
    holder = device.binding.module or device.binding.driver or ""
    if not request.candidates or any(fits(holder, name) for name in request.candidates):
        return ()
    with suppress(FlavourError):
        found, _ = _candidates(request, device, on_bus, index)
        if any(fits(holder, candidate.module) for candidate in found):
            return ()
    sentence = f"in flavour {flavour} already, with driver {device.binding.driver}"
    hint = f"if nobody uses it: ask for `{DEFAULT}` first, then again"
    if by_policy(request):
        return (f"it was {sentence}, which the rule does not name; {hint}",)
    raise FlavourError(Code.OTHER_DRIVER, f"{device.id} is {sentence}", hint)


def _check_takeable(device: Device, on_bus: FlavourOnBus, index: ModuleIndex) -> None:
    if device.bridge:
        raise FlavourError(
            Code.BRIDGE, f"{device.id} is a bridge", "ask for the devices behind it: bridges stay with the host"
        )
    if on_bus.needs_iommu_group and device.iommu_group is None and not (device.noiommu or index.noiommu):
        raise FlavourError(
            Code.NO_IOMMU_GROUP,
            f"{device.id} has no IOMMU group",
            "switch the IOMMU on in the firmware and on the kernel's command line (intel_iommu=on)",
        )
