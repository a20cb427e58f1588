# SPDX-License-Identifier: LGPL-2.1-or-later
"""A device that is switched, and how it stands now."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SYSFS = Path("/sys/bus/pci/devices")
_MEMORIES = (Path("/run/flavourd/records"), Path("/etc/driverctl.d"))


@dataclass(frozen=True)
class Device:
    """flavoured: the driver that the flavour vfio means for it."""

    address: str
    native: str
    flavoured: str

    @property
    def sysfs(self) -> Path:
        return _SYSFS / self.address

    @property
    def driver(self) -> str | None:
        link = self.sysfs / "driver"
        return link.readlink().name if link.is_symlink() else None

    @property
    def override(self) -> str | None:
        text = (self.sysfs / "driver_override").read_text().strip()
        return None if text in ("", "(null)") else text

    def must_have(self, driver: str, after: str, said: str) -> None:
        """End the program, with what was said, if another driver has it."""
        if self.driver != driver:
            sys.exit(f"after {after} {self.address} has the driver {self.driver} and not {driver}; said was: {said}")

    def must_be_clean(self, after: str, said: str) -> None:
        """End the program if it is not as it was before anybody touched it: the next would find something else."""
        self.must_have(self.native, after, said)
        remembered = [str(path / name) for path in _MEMORIES if path.is_dir() for name in os.listdir(path)]
        if self.override or remembered:
            sys.exit(f"{after} leaves behind the override {self.override} and {remembered}; said was: {said}")


def settle() -> None:
    """Wait until udev is done with what happened: else it would work beside what is measured next."""
    subprocess.run(["udevadm", "settle"], check=True)
