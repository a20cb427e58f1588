# SPDX-License-Identifier: LGPL-2.1-or-later
"""Carry out a plan: claim the device for a driver of the flavour and verify it, or put everything back.

The kernel never falls back from one driver to the next under a driver_override (only one name can match), so the order
of candidates is walked here.
"""

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from flavourd.device import Binding, DeviceId, Sriov
from flavourd.errors import Code, FlavourError
from flavourd.kmod import Kmod
from flavourd.kmsg import Kmsg
from flavourd.outcome import Candidate, Kind, Outcome, Refusal, errno_text
from flavourd.plan import Plan, without_parking
from flavourd.rebind import DEFERRED_PAUSES, Contested, Kept, NotWantedAnyMore, Rebind
from flavourd.step import Step, Tell, What, tell_nobody
from flavourd.sysfs import Sysfs

TOO_LATE = "the kernel let it go so late that the wish is dropped, as flavourd.yaml says"
_NO_NATIVE = "no native driver of this kernel takes it"


@dataclass(frozen=True)
class Checks:
    """What is asked on the way. wanted: after each unbind, which may have slept in the kernel for long, whether to go
    on. still_free: before the first write to the device; FlavourError if the host needs it by now. remember: gets the
    original binding, if that came to light only after the snapshot, before it is taken from the device. kept: whether
    the policy keeps a VF that is made from its native driver; None if there is no such policy.
    """

    wanted: Callable[[], bool] = lambda: True
    still_free: Callable[[], None] = lambda: None
    remember: Callable[[Binding], None] = lambda _original: None
    kept: Kept | None = None


class Switch:
    """One run of one plan. `original` and `undo` are the plan's, with what only came to light on the way."""

    def __init__(
        self,
        plan: Plan,
        sysfs: Sysfs,
        kmod: Kmod,
        kmsg: Kmsg,
        tell: Tell = tell_nobody,
        checks: Checks = Checks(),
    ) -> None:
        self._plan, self._sysfs, self._kmod, self._kmsg, self._tell = plan, sysfs, kmod, kmsg, tell
        self._device: DeviceId = plan.device.id
        self._rebind = Rebind(self._device, sysfs, kmod, plan.device.binding.override, tell)
        self._rebind.wanted, self._rebind.before_first = checks.wanted, checks.still_free
        self._rebind.before_taking = self._remember_original
        self._remember, self._kept = checks.remember, checks.kept
        self._tried: set[str] = set()
        self._refusals: list[Refusal] = []

    def run(self) -> Outcome:
        """Never raises for what the kernel answers: that is the outcome."""
        try:
            if self._plan.vfs is not None:
                outcome = self._make_vfs(self._plan.vfs)
            else:
                outcome = self._claim() if self._plan.candidates else self._return()
        except NotWantedAnyMore:
            hint = "ask again if you still want it"
            outcome = self._outcome(Kind.UNDONE, code=Code.STUCK, sentence=TOO_LATE, hint=hint)
        except Contested as contested:
            hint = "find out who it is (driverctl, libvirt, a script), and let one of the two have the device"
            outcome = self._outcome(Kind.UNDONE, code=Code.CONTESTED, sentence=str(contested), hint=hint)
        except FlavourError as error:  # before anything was touched
            refused = self._outcome(Kind.REFUSED, code=error.code, sentence=error.sentence, hint=error.hint)
            outcome = replace(refused, findings=error.findings)
        except OSError as error:
            sentence = f"{error.filename or 'a step'} failed: {errno_text(error.errno or 0)}"
            outcome = self._outcome(Kind.UNDONE, code=Code.HOST, sentence=sentence, errno=error.errno)
        return self._undo(outcome) if outcome.kind in (Kind.UNDONE, Kind.REFUSED) else outcome

    def mend(self, outcome: Outcome) -> Outcome:
        """Instead of `run`, for what is in the flavour already: its override names its driver again. outcome: that it
        is there.
        """
        if not (driver := self._plan.mend):
            return outcome
        override = self._plan.device.binding.override
        was = "was cleared" if override is None else f"was {override}"
        self._rebind.before_first = lambda: None  # nothing is taken from anybody
        try:
            self._tell(Step(What.RESTORING, f"writing {driver} to its driver_override again"))
            self._rebind.mend(driver)
        except Contested as contested:
            note = f"its driver_override {was}, and {contested}"
        except OSError as error:
            note = f"its driver_override {was} and could not be written again: {errno_text(error.errno or 0)}"
        else:
            note = f"its driver_override {was} and names {driver} again"
        return replace(outcome, notes=(*outcome.notes, note))

    def complete(self, outcome: Outcome) -> Outcome:
        """After `run`, when all of the transaction went well: a PF that has its driver back gets its VFs back."""
        if self._plan.candidates or self._plan.vfs is not None or not outcome.driver:
            return outcome
        return replace(outcome, notes=(*outcome.notes, *self._vfs_again(self._plan.sriov)))

    def leave(self, why: FlavourError) -> Outcome:
        """Instead of `run`, because another switch of the same transaction failed."""
        return self._undo(self._outcome(Kind.UNDONE, code=why.code, sentence=why.sentence, hint=why.hint))

    def take_back(self, outcome: Outcome, why: FlavourError) -> Outcome:
        """Undo a switch that went well, because another one of the same transaction did not."""
        return self._undo(
            replace(outcome, kind=Kind.UNDONE, code=why.code, sentence=why.sentence, hint=why.hint, candidate=None)
        )

    def _remember_original(self) -> None:
        if self.original != self._plan.original:
            self._remember(self.original)

    @property
    def original(self) -> Binding:
        return self._with_met(self._plan.original)

    @property
    def undo(self) -> Binding:
        return self._with_met(self._plan.undo)

    def _with_met(self, binding: Binding) -> Binding:
        """A device that has just been plugged in may get its native driver only after the snapshot was taken."""
        met, seen = self._rebind.met, self._plan.device.binding
        if met and not seen.driver and self._plan.original == seen:
            return without_parking(replace(binding, driver=met.driver, module=met.module))
        return binding

    # --- the way into a flavour

    def _claim(self) -> Outcome:
        for candidate in self._plan.candidates:
            driver, refusal = self._driver_of(candidate)
            if driver and not (refusal := self._try(driver, candidate)):
                claimed = self._outcome(Kind.SWITCHED, candidate=candidate, notes=self._notes_of_claim(driver))
                if claimed.driver == driver and claimed.proof:  # as it is told, so it was read back
                    return claimed
                refusal = Refusal(candidate.module, "took the device and was taken away from it at once")
            if driver:
                self._check_uncontested(driver)
            if refusal:
                self._refusals.append(refusal)
                self._tell(Step(What.REFUSED, str(refusal)))
                if refusal.errno == errno.EBUSY:
                    return self._outcome(
                        Kind.UNDONE,
                        code=Code.BUSY,
                        sentence=f"the device is in a state that keeps {driver} from taking it",
                        hint="mend what the kernel names (a PF with VFs: echo 0 > sriov_numvfs), then ask again",
                        errno=errno.EBUSY,
                    )
        return self._nobody_claimed()

    def _driver_of(self, candidate: Candidate) -> tuple[str | None, Refusal | None]:
        """Load the module, which touches no device, and read its driver's name: the kernel alone knows it."""
        bus, module = self._device.bus, candidate.module
        drivers = self._sysfs.module_drivers(module, bus)
        if not drivers:
            self._tell(Step(What.LOADING, f"loading {module}"))
            if against := self._kmod.load(module):
                return None, Refusal(module, f"could not be loaded: {against}")
            drivers = self._sysfs.module_drivers(module, bus)
        if not drivers and not self._sysfs.module_loaded(module):
            return None, Refusal(module, "may not be loaded: modprobe.d or the kernel's command line forbids it")
        if not drivers:
            return None, Refusal(module, f"has no driver for bus {bus}")
        return min(drivers, key=lambda name: (name.replace("-", "_") != module, name)), None

    def _try(self, driver: str, candidate: Candidate) -> Refusal | None:
        self._rebind.remove_vfs(self._plan.device.sriov)
        self._tried.add(driver)
        self._rebind.reserve(driver)
        self._kmsg.lines()  # what was said before the bind is no answer to it
        number = self._rebind.bind(driver)
        if number == errno.EAGAIN:
            said = f"deferred its answer for {sum(DEFERRED_PAUSES):.0f} s: {errno_text(number)}"
        elif number:
            said = f"refused: {errno_text(number)}"
        elif not self._sysfs.proof(self._device, self._plan.proof):
            said = f"took the device but made no {self._plan.proof}"
        else:
            return None
        return Refusal(candidate.module, said, number or None, self._kmsg.lines())

    def _check_uncontested(self, driver: str) -> None:
        """Contested if the override that was for `driver` is another one now."""
        if self._sysfs.exists(self._device) and (found := self._sysfs.override(self._device)) != driver:
            raise Contested(found)

    def _notes_of_claim(self, driver: str) -> tuple[str, ...]:
        try:
            self._check_uncontested(driver)
        except Contested as contested:
            return (*self._plan.notes, str(contested))
        return self._plan.notes

    def _nobody_claimed(self) -> Outcome:
        if not self._rebind.touched:
            sentence = f"no driver of flavour {self._plan.flavour} could be loaded"
            last = self._plan.candidates[-1].module
            hint = f"install the package that has {last} for this kernel, or lift what forbids it"
            return self._outcome(Kind.UNDONE, code=Code.NO_CANDIDATE, sentence=sentence, hint=hint)
        sentence = f"none of {len(self._refusals)} candidates took it"
        hint = "see what each one says above; journalctl -k has the rest"
        number = next((r.errno for r in reversed(self._refusals) if r.errno), None)
        return self._outcome(Kind.UNDONE, code=Code.ALL_REFUSED, sentence=sentence, hint=hint, errno=number)

    # --- the way back

    def _return(self) -> Outcome:
        target = self._plan.target
        try:
            if target and not target.parked:
                self._rebind.put(target)
                return self._outcome(Kind.SWITCHED)
            driver = self._rebind.let_bus_choose(self._plan.device.modalias)
        except OSError as error:
            self._refusals.append(self._not_taken_back(target, error))
            sentence, hint = "its native driver does not take it back", "see what the kernel says: journalctl -k"
            return self._outcome(Kind.UNDONE, code=Code.NATIVE_REFUSED, sentence=sentence, hint=hint, errno=error.errno)
        if self._plan.proof and self._sysfs.proof(self._device, self._plan.proof):
            sentence = f"without an override it goes to {driver} again"
            hint = f"take away what gives it to {driver}: ids= in modprobe.d or on the kernel's command line, or new_id"
            return self._outcome(Kind.UNDONE, code=Code.NATIVE_REFUSED, sentence=sentence, hint=hint)
        note = () if driver else (_NO_NATIVE,)
        return self._outcome(Kind.SWITCHED, notes=note)

    def _make_vfs(self, vfs: int) -> Outcome:
        had, driver = self._plan.device.sriov or Sriov(), self._plan.device.binding.driver
        self._kmsg.lines()  # what was said before is no answer to it
        try:
            self._rebind.change_vfs(vfs, had, self._kept)
        except OSError as error:
            said = f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
            self._refusals.append(Refusal(f"{driver}", f"made no {vfs} VFs: {said}", error.errno, self._kmsg.lines()))
            sentence = f"{vfs} VFs could not be made: {said}"
            hint = "see what the kernel says: journalctl -k"
            return self._outcome(Kind.UNDONE, code=Code.NO_SRIOV, sentence=sentence, hint=hint, errno=error.errno)
        made = f"{vfs} VFs were made (it had {had.vfs})" if vfs else f"its {had.vfs} VFs were removed"
        return self._outcome(Kind.SWITCHED, notes=(*self._plan.notes, made))

    def _vfs_again(self, sriov: Sriov | None) -> tuple[str, ...]:
        """Make the VFs that the PF had; what to tell if they do not come."""
        if sriov:
            try:
                if not self._rebind.restore_vfs(sriov, self._kept):
                    return ()
            except OSError as error:
                why = errno_text(error.errno or 0)
                return (f"its {sriov.vfs} VFs did not come back: {why}; try echo {sriov.vfs} > sriov_numvfs",)
            return (f"its {sriov.vfs} VFs were made anew: what was set on them (driver, MAC address, VLAN) is lost",)
        return ()

    def _undo(self, failed: Outcome) -> Outcome:
        """The outcome as it stands after everything was put back; BROKEN if that failed too."""
        # What an earlier, interrupted switch left half done is undone even if this one did not begin; and a device that
        # was kept for the flavour is not kept any longer. Who was refused because it is needed stays where it is.
        parked = self._plan.device.binding.parked
        if not parked and (failed.kind is Kind.REFUSED or not (self._rebind.touched or self._plan.half_done)):
            return replace(failed, kind=Kind.REFUSED)
        failed = replace(failed, kind=Kind.UNDONE)
        self._rebind.wanted, self._rebind.before_first = (lambda: True), (lambda: None)
        if self._sysfs.exists(self._device):
            try:
                if other := self._taken_over():
                    sentence = f"another program has bound it to {other} meanwhile, and it is left there"
                    hint = "it is that program's now (driverctl, libvirt, a script): let one of the two have the device"
                    return self._now(failed, kind=Kind.BROKEN, code=Code.CONTESTED, sentence=sentence, hint=hint)
                self._tell(Step(What.RESTORING, f"putting it back: {self.undo}"))
                self._rebind.accept_override()
                self._rebind.put(self.undo, self._plan.device.modalias)
            except Contested as contested:
                return self._now(failed, kind=Kind.BROKEN, code=Code.CONTESTED, sentence=str(contested))
            except OSError as error:
                self._refusals.append(self._not_taken_back(self.undo, error))
                if self._sysfs.exists(self._device):
                    hint = "mend what the kernel names, then ask for `default`"
                    return self._now(failed, kind=Kind.BROKEN, hint=hint)
            else:
                had = self._plan.sriov if self.undo == self.original else self._plan.device.sriov
                notes = self._vfs_again(had) if self.undo.driver else ()
                if self.undo.parked and not self._sysfs.driver(self._device):
                    notes = (_NO_NATIVE,)
                return self._now(failed, notes=(*failed.notes, *notes))
        return self._now(failed, kind=Kind.GONE, code=Code.NO_DEVICE, sentence="", hint="")

    def _taken_over(self) -> str | None:
        """The driver that another program wants for the device, by an override that is none of ours, and that it has.

        That program may just have begun, so it is helped: a driverless device serves nobody.
        """
        seen = self._plan.device.binding
        ours = (None, *self._tried, self.undo.override, self.undo.driver, seen.override, seen.driver)
        if (override := self._sysfs.override(self._device)) in ours:
            return None
        if not self._sysfs.driver(self._device):
            with suppress(OSError):
                self._sysfs.probe(self._device)
        return override if self._sysfs.driver(self._device) == override else None

    def _not_taken_back(self, binding: Binding | None, error: OSError) -> Refusal:
        who = (binding and binding.driver) or "the bus"
        return Refusal(who, f"did not take it back: {errno_text(error.errno or 0)}", error.errno, self._kmsg.lines())

    # --- telling

    def _now(self, outcome: Outcome, **changes: Any) -> Outcome:
        """`outcome` with what holds the device now, read back, and all that was refused until now."""
        return replace(
            outcome,
            driver=self._sysfs.driver(self._device),
            proof=self._sysfs.proof(self._device, self._plan.proof) if self._plan.proof else (),
            refusals=tuple(self._refusals),
            **changes,
        )

    def _outcome(self, kind: Kind, **fields: Any) -> Outcome:
        plan = self._plan
        before = plan.device.binding.driver
        outcome = Outcome(
            plan.request,
            kind,
            plan.flavour,
            before=before,
            parked=plan.device.binding.parked and not before,
            skips=plan.skips,
            findings=plan.findings,
            **{"notes": plan.notes, **fields},
        )
        return self._now(outcome)
