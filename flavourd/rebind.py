# SPDX-License-Identifier: LGPL-2.1-or-later
"""Move one device from driver to driver and know what became of each step."""

import errno
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from flavourd.device import PARKED, Binding, DeviceId, Sriov
from flavourd.kmod import Kmod
from flavourd.step import Step, Tell, What, tell_nobody
from flavourd.sysfs import Sysfs

# A deferred probe waits for somebody else (a PF's driver, a clock); the kernel itself retries it whenever any driver
# binds. Seconds between our own retries.
DEFERRED_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_PROBES_AT_ONCE = 32

# Whether the policy keeps a device from its native driver.
Kept = Callable[[DeviceId], bool]


class NotWantedAnyMore(Exception):
    """The kernel has let go so late that what was asked for is to be dropped."""


class Contested(Exception):
    """Another program has written the device's override, so it is after the device, too."""

    def __init__(self, found: str | None) -> None:
        super().__init__(
            f"another program has {f'given its override to {found}' if found else 'cleared its override'} meanwhile"
        )


class Rebind:
    """One device. Methods raise OSError for failed writes, NotWantedAnyMore if `wanted` says so after an unbind, and
    Contested instead of writing over an override that is not the one last seen (`override`) or written.

    touched: whether anything was written to the device. met: the driver that had the device when it was first touched,
    or took it while it was being switched; it is news for who saw a driverless device before.
    """

    def __init__(
        self,
        device: DeviceId,
        sysfs: Sysfs,
        kmod: Kmod,
        override: str | None,
        tell: Tell = tell_nobody,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._device, self._sysfs, self._kmod, self._tell, self._pause = device, sysfs, kmod, tell, pause
        self._expected = override
        self.wanted: Callable[[], bool] = lambda: True
        self.before_first: Callable[[], None] = lambda: None
        self.before_taking: Callable[[], None] = lambda: None
        self.touched = False
        self.met: Binding | None = None

    def reserve(self, driver: str) -> None:
        """Free the device for `driver` alone: override first, lest somebody else takes it after the unbind."""
        if not self.touched and (found := self._sysfs.binding(self._device)).driver:
            self.met = found
            self.before_taking()
        self._override(driver)
        self._unbind()

    def bind(self, driver: str) -> int:
        """Give the device, reserved before, to `driver`; 0, or the errno of its probe."""
        number = self._bind(driver)
        other = self._sysfs.binding(self._device) if number == errno.EBUSY else Binding()
        # Under another override somebody else has bound it, and it is his.
        if other.driver not in (None, driver) and other.override == driver:
            self.met = other
            self.before_taking()
            self._unbind()
            number = self._bind(driver)
        return number

    def put(self, binding: Binding, modalias: str | None = None) -> None:
        """Exactly this driver and this override; OSError with the errno of the step that failed. modalias: of the
        device, for a binding that is parked: nobody has seen the driver that it was kept from, so the bus chooses.
        """
        if binding.parked and not binding.driver:
            self.let_bus_choose(modalias)
            return
        # The driver may have been bound under an override that is gone or names another one by now: only under its own
        # name does it surely match.
        passage = binding.driver or binding.override
        try:
            if self._sysfs.driver(self._device) != binding.driver:
                self._override(passage)
                self._unbind()
                if binding.driver and (number := self._return(binding.driver, binding.module)):
                    raise OSError(number, f"{binding.driver} did not take the device back")
        finally:
            self._override(None if binding.parked else binding.override)
        if (driver := self._sysfs.driver(self._device)) != binding.driver:
            raise OSError(errno.EBUSY, f"{driver} has taken the device meanwhile")

    def let_bus_choose(self, modalias: str | None) -> str | None:
        """No override, and the driver that the bus finds, or None.

        If none is there, the modules of the native modalias are loaded, as udev does for a device that appears.
        """
        self._override(None)
        self._unbind()
        self._tell(Step(What.BINDING, f"letting bus {self._device.bus} choose a driver"))
        self._sysfs.probe(self._device)
        if modalias and not self._sysfs.driver(self._device):
            self._tell(Step(What.LOADING, f"loading what fits {modalias}"))
            self._kmod.load(modalias)
            self._sysfs.probe(self._device)
        return self._sysfs.driver(self._device)

    def mend(self, driver: str) -> None:
        """The device has this driver, and its override names it again. Contested if it does not, read back."""
        self._override(driver)
        if (found := self._sysfs.override(self._device)) != driver:
            raise Contested(found)

    def remove_vfs(self, seen: Sriov | None) -> None:
        """Of a PF, which no vfio driver takes while it has any. seen: VFs that were there when guards looked at them;
        OSError(EBUSY) if there are others.
        """
        if (sriov := self._sysfs.sriov(self._device)) and sriov.vfs:
            if not seen or seen.vfs != sriov.vfs:
                raise OSError(errno.EBUSY, "other VFs were made meanwhile", "sriov_numvfs")
            self._touch()
            self._tell(Step(What.UNBINDING, f"removing its {sriov.vfs} VFs"))
            self._sysfs.enable_vfs(self._device, replace(sriov, vfs=0))

    def change_vfs(self, vfs: int, seen: Sriov, kept: Kept | None) -> None:
        """Of a PF that keeps its driver. seen: as for `remove_vfs`. kept: see `_number_vfs`. OSError if there are not
        as many afterwards, read back.
        """
        if (now := self._sysfs.sriov(self._device)) is None or now.vfs != seen.vfs:
            raise OSError(errno.EBUSY, "VFs were made or removed meanwhile", "sriov_numvfs")
        self._touch()
        doing = f"making {vfs} VFs instead of {seen.vfs}" if vfs else f"removing its {seen.vfs} VFs"
        self._tell(Step(What.BINDING if vfs else What.UNBINDING, doing))
        self._number_vfs(replace(seen, vfs=vfs), kept)
        if (made := len(self._sysfs.vfs(self._device))) != vfs:
            raise OSError(errno.EIO, f"the kernel made {made}", "sriov_numvfs")

    def restore_vfs(self, sriov: Sriov, kept: Kept | None = None) -> bool:
        """As many as the PF had, when its driver is back; whether there was something to do."""
        now = self._sysfs.sriov(self._device)
        if different := now is None or (now.vfs, now.autoprobe) != (sriov.vfs, sriov.autoprobe):
            doing = f"making its {sriov.vfs} VFs again" if sriov.vfs else "removing the VFs that it did not have"
            self._tell(Step(What.RESTORING, doing))
            self._number_vfs(sriov, kept)
        return different and sriov.vfs > 0

    def accept_override(self) -> None:
        """Whoever has written it: from now on it may be written over."""
        self._expected = self._sysfs.override(self._device)

    # ---

    def _touch(self) -> None:
        if not self.touched:
            self.before_first()
            self.touched = True

    def _override(self, driver: str | None) -> None:
        if (found := self._sysfs.override(self._device)) != self._expected:
            raise Contested(found)
        self._touch()
        if found != driver:
            self._sysfs.write_override(self._device, driver)
            self._expected = driver

    def _number_vfs(self, sriov: Sriov, kept: Kept | None) -> None:
        """So many VFs, and drivers probed for them or not. kept: which of them their native driver shall never have;
        None if there is no such rule: then the kernel probes, of some drivers many at a time.
        """
        sysfs, device = self._sysfs, self._device
        now = sysfs.sriov(device) or Sriov()
        if now.vfs not in (0, sriov.vfs):  # the kernel goes to another number only by way of none
            sysfs.enable_vfs(device, replace(sriov, vfs=0))
        if kept is None or not sriov.vfs or not sriov.autoprobe:
            sysfs.enable_vfs(device, sriov)
            return
        free = []
        try:
            sysfs.enable_vfs(device, replace(sriov, autoprobe=False))
            for vf in sysfs.vfs(device):
                if not kept(vf):
                    free.append(vf)
                elif not sysfs.driver(vf) and not sysfs.override(vf):
                    sysfs.write_override(vf, PARKED)
        finally:
            sysfs.write_autoprobe(device, sriov.autoprobe)
        self._probe_all([vf for vf in free if not sysfs.driver(vf)])

    def _probe_all(self, devices: Sequence[DeviceId]) -> None:
        """At the same time: a probe may take seconds, and there may be a hundred devices. What comes of it is no
        concern of who made them.
        """

        def probe(device: DeviceId) -> None:
            with suppress(OSError):
                self._sysfs.probe(device)

        with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:
            list(pool.map(probe, devices))

    def _return(self, driver: str, module: str | None) -> int:
        if module and not self._sysfs.driver_exists(self._device.bus, driver):
            self._tell(Step(What.LOADING, f"loading {module}"))
            self._kmod.load(module, blacklist=False)  # it was loaded before, whoever did it
        if self._sysfs.driver(self._device) == driver:  # loading it has bound it already
            return 0
        return self._bind(driver)

    def _unbind(self) -> None:
        if driver := self._sysfs.driver(self._device):
            self._tell(Step(What.UNBINDING, f"unbinding from {driver}"))
            try:
                self._sysfs.unbind(self._device, driver)
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ENOENT):  # unbound or unloaded by somebody who was faster
                    raise
            if not self.wanted():
                raise NotWantedAnyMore

    def _bind(self, driver: str) -> int:
        """0, or the errno.

        EBUSY although `driver` has the device is success: the kernel's own retry of a deferred probe was faster.
        """
        self._tell(Step(What.BINDING, f"binding to {driver}"))
        pauses = iter(DEFERRED_PAUSES)
        while True:
            try:
                self._sysfs.bind(self._device, driver)
            except OSError as error:
                if self._sysfs.driver(self._device) == driver:
                    return 0
                if error.errno == errno.EAGAIN and (pause := next(pauses, None)) is not None:
                    self._pause(pause)
                    continue
                if error.errno is None or not self._sysfs.driver_exists(self._device.bus, driver):
                    return errno.ENODEV  # unloaded since
                return error.errno
            return 0 if self._sysfs.driver(self._device) == driver else errno.ENODEV
