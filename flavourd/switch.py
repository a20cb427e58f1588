# SPDX-License-Identifier: LGPL-2.1-or-later
"""Carry out a plan: claim the device for a driver of the flavour and verify it, or put everything back.

The kernel never falls back from one driver to the next under a driver_override (only one name can match), so the
order of candidates is walked here: override, unbind, `bind` for probe's own errno, then the proof.
"""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from flavourd.device import Binding, DeviceId
from flavourd.errors import Code
from flavourd.iommu import viability_note
from flavourd.kmod import Kmod
from flavourd.kmsg import Kmsg
from flavourd.outcome import Candidate, Kind, Outcome, Refusal, errno_text
from flavourd.plan import Plan
from flavourd.sysfs import Sysfs

# A deferred probe waits for somebody else (a PF's driver, a clock); the kernel itself retries it whenever any driver
# binds.
_DEFERRED_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


@dataclass(frozen=True)
class _Stop(Exception):
    """A state that no other candidate would mend."""

    code: Code
    sentence: str
    hint: str
    refusal: Refusal


class Switch:
    """One run of one plan. `pause` waits between the retries of a deferred probe (seconds)."""

    def __init__(
        self, plan: Plan, sysfs: Sysfs, kmod: Kmod, kmsg: Kmsg, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._plan, self._sysfs, self._kmod, self._kmsg, self._pause = plan, sysfs, kmod, kmsg, pause
        self._device: DeviceId = plan.device.id
        self._refusals: list[Refusal] = []
        self._touched = False

    def run(self) -> Outcome:
        """Never raises for what the kernel answers: that is the outcome."""
        plan = self._plan
        try:
            done = self._claim() if plan.candidates else self._return()
        except _Stop as stop:
            self._refusals.append(stop.refusal)
            failed = self._outcome(
                Kind.UNDONE, code=stop.code, sentence=stop.sentence, hint=stop.hint, errno=stop.refusal.errno
            )
        except OSError as error:
            sentence = f"writing {error.filename} failed: {errno_text(error.errno or 0)}"
            failed = self._outcome(Kind.UNDONE, code=Code.HOST, sentence=sentence, errno=error.errno)
        else:
            if done:
                return done
            failed = self._all_refused()
        return self._undo(failed)

    # --- the way into a flavour

    def _claim(self) -> Outcome | None:
        for candidate in self._plan.candidates:
            driver, refusal = self._driver_of(candidate)
            if driver and not (refusal := self._try(driver, candidate.module)):
                note = viability_note(self._plan.device)
                return self._outcome(Kind.SWITCHED, candidate=candidate, notes=(note,) if note else ())
            if refusal:
                self._refusals.append(refusal)
        return None

    def _driver_of(self, candidate: Candidate) -> tuple[str | None, Refusal | None]:
        """Load the module, which touches no device, and read its driver's name: the kernel alone knows it."""
        bus, module = self._device.bus, candidate.module
        drivers = self._sysfs.module_drivers(module, bus)
        if not drivers:
            against = self._kmod.load(module)
            if against:
                return None, Refusal(module, f"could not be loaded: {against}", kernel=self._kmsg.lines())
            drivers = self._sysfs.module_drivers(module, bus)
        if not drivers and not self._sysfs.module_loaded(module):
            return None, Refusal(module, "may not be loaded: modprobe.d or the kernel's command line forbids it")
        if not drivers:
            return None, Refusal(module, f"has no driver for bus {bus}")
        return min(drivers, key=lambda name: (name.replace("-", "_") != module, name)), None

    def _try(self, driver: str, module: str) -> Refusal | None:
        self._kmsg.lines()  # what was said before is no answer to this
        self._touched = True
        self._sysfs.write_override(self._device, driver)
        self._unbind()
        number = self._bind(driver)
        if number == errno.EBUSY:
            refusal = Refusal(module, f"answered {errno_text(number)}", number, self._kmsg.lines())
            raise _Stop(
                Code.BUSY,
                f"the device is in a state that keeps {driver} from taking it",
                "mend what the kernel names (a PF with VFs: echo 0 > sriov_numvfs), then ask again",
                refusal,
            )
        if number == errno.EAGAIN:
            seconds = sum(_DEFERRED_PAUSES)
            return Refusal(
                module, f"deferred its answer for {seconds:.0f} s: {errno_text(number)}", number, self._kmsg.lines()
            )
        if number:
            return Refusal(module, f"refused: {errno_text(number)}", number, self._kmsg.lines())
        if not self._sysfs.proof(self._device, self._plan.proof):
            return Refusal(module, f"took the device but made no {self._plan.proof}", kernel=self._kmsg.lines())
        return None

    # --- the way back to the native universe

    def _return(self) -> Outcome | None:
        target = self._plan.target
        try:
            if target is None:
                self._let_bus_choose()
            else:
                self._restore(target)
        except OSError as error:
            who = target.driver if target and target.driver else "the bus"
            assert error.errno is not None
            self._refusals.append(Refusal(who, f"answered {errno_text(error.errno)}", error.errno, self._kmsg.lines()))
            return None
        return self._outcome(Kind.SWITCHED)

    def _let_bus_choose(self) -> None:
        self._touched = True
        self._sysfs.write_override(self._device, None)
        self._unbind()
        self._sysfs.probe(self._device)

    # --- undoing

    def _all_refused(self) -> Outcome:
        plan = self._plan
        last = next((r.errno for r in reversed(self._refusals) if r.errno is not None), None)
        if not plan.candidates:
            sentence, hint = (
                "its native driver does not take it back",
                "see what the kernel says about it: journalctl -k",
            )
            return self._outcome(Kind.UNDONE, code=Code.NATIVE_REFUSED, sentence=sentence, hint=hint, errno=last)
        if not self._touched:
            sentence = f"no driver of flavour {plan.flavour} could be loaded"
            hint = f"install the package that has {plan.candidates[-1].module} for this kernel, or lift its blacklist"
            return self._outcome(Kind.REFUSED, code=Code.NO_CANDIDATE, sentence=sentence, hint=hint)
        sentence = f"none of {len(self._refusals)} candidates took it"
        hint = "see what each one says above; journalctl -k has the rest"
        return self._outcome(Kind.UNDONE, code=Code.ALL_REFUSED, sentence=sentence, hint=hint, errno=last)

    def _undo(self, failed: Outcome) -> Outcome:
        """The outcome as it stands after everything was put back; BROKEN if that failed too."""
        if not self._touched:
            return failed
        if not self._sysfs.exists(self._device):
            return replace(failed, kind=Kind.GONE, code=Code.NO_DEVICE, sentence="", hint="", driver=None)
        undo = self._plan.undo
        try:
            self._restore(undo)
        except OSError as error:
            assert error.errno is not None
            refusal = Refusal(
                undo.driver or "the bus",
                f"answered {errno_text(error.errno)} when asked back",
                error.errno,
                self._kmsg.lines(),
            )
            self._refusals.append(refusal)
            bus, name = self._device.bus, self._device.name
            return replace(
                self._outcome(Kind.BROKEN, code=failed.code, errno=failed.errno),
                sentence=failed.sentence,
                hint=f"mend what the kernel names, then echo {name} > /sys/bus/{bus}/drivers/{undo.driver}/bind",
            )
        return replace(failed, driver=self._sysfs.driver(self._device), proof=self._proof())

    def _restore(self, binding: Binding) -> None:
        """Exactly this driver and this override; OSError with the errno of the step that failed."""
        self._touched = True
        # A foreign override may name another driver than the one that held the device: it would keep that one from
        # matching.
        passage = binding.driver if binding.driver and binding.override else binding.override
        if self._sysfs.override(self._device) != passage:
            self._sysfs.write_override(self._device, passage)
        if self._sysfs.driver(self._device) != binding.driver:
            self._unbind()
            if binding.driver:
                self._rebind(binding.driver, binding.module)
        if passage != binding.override:
            self._sysfs.write_override(self._device, binding.override)
        if (driver := self._sysfs.driver(self._device)) != binding.driver:
            raise OSError(errno.EBUSY, f"{driver} has taken the device meanwhile")

    def _rebind(self, driver: str, module: str | None) -> None:
        if module and not self._sysfs.driver_exists(self._device.bus, driver):
            self._kmod.load(module)
        if number := self._bind(driver):
            raise OSError(number, f"{driver} did not take the device back")

    # --- steps

    def _unbind(self) -> None:
        if driver := self._sysfs.driver(self._device):
            try:
                self._sysfs.unbind(self._device, driver)
            except OSError as error:
                if error.errno != errno.ENODEV:  # ENODEV: somebody was faster
                    raise

    def _bind(self, driver: str) -> int:
        """0, or the errno. EBUSY although `driver` has the device is success: the kernel's own retry of a deferred
        probe was faster.
        """
        for pause in (*_DEFERRED_PAUSES, None):
            try:
                self._sysfs.bind(self._device, driver)
            except OSError as error:
                assert error.errno is not None
                if self._sysfs.driver(self._device) == driver:
                    return 0
                if error.errno == errno.EAGAIN and pause is not None:
                    self._pause(pause)
                    continue
                # bind itself is missing if the driver was unloaded since: that is «no such driver» too.
                return errno.ENODEV if error.errno == errno.ENOENT else error.errno
            return 0 if self._sysfs.driver(self._device) == driver else errno.ENODEV
        raise AssertionError("the last pause ends the loop")

    def _proof(self) -> tuple[str, ...]:
        return self._sysfs.proof(self._device, self._plan.proof) if self._plan.proof else ()

    def _outcome(
        self,
        kind: Kind,
        *,
        candidate: Candidate | None = None,
        notes: tuple[str, ...] = (),
        code: Code | None = None,
        sentence: str = "",
        hint: str = "",
        errno: int | None = None,
    ) -> Outcome:
        plan = self._plan
        return Outcome(
            request=plan.request,
            kind=kind,
            flavour=plan.flavour,
            driver=self._sysfs.driver(self._device),
            before=plan.device.binding.driver,
            proof=self._proof(),
            candidate=candidate,
            refusals=tuple(self._refusals),
            skips=plan.skips,
            notes=(*plan.notes, *notes),
            code=code,
            sentence=sentence,
            hint=hint,
            errno=errno,
        )
