# SPDX-License-Identifier: LGPL-2.1-or-later
"""At boot, before udev: keep the devices that the policy puts into a flavour from their native drivers.

udev's rules, generated from the policy, park a device when its own "add" event is handled. That is too late for twins:
the first one's event loads the driver, which then takes the other. So whatever stands there already is parked at once,
here; the rules remain for what comes later. Which driver a device gets is for flavourd to decide, which starts later.

The same, as a rules file and a list of devices, goes into an initramfs (initramfs/flavourd-initramfs).
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from flavourd.device import PARKED, DeviceId
from flavourd.errors import FlavourError
from flavourd.flavour import Flavours
from flavourd.identity import Identities
from flavourd.policy.early import early_rules, park
from flavourd.policy.flavours import read_flavours
from flavourd.policy.language import Policy
from flavourd.policy.load import read_policy
from flavourd.policy.match import Matcher
from flavourd.sysfs import Sysfs
from flavourd.traits import Seen, Trait
from flavourd.udevrules import UdevRules

# PREFIX/lib, where flavourd's own programs are in a folder of their own, with this file below.
_LIB = Path(__file__).resolve().parents[3]
_SECONDS = 5


@dataclass(frozen=True)
class Early:
    root: Path
    flavours: Flavours
    policy: Policy

    @classmethod
    def of(cls, root: Path) -> "Early":
        """FlavourError(CONFIG or POLICY) if the configuration of this host cannot be used."""
        flavours = read_flavours(root)
        return cls(root, flavours, read_policy(root, flavours.names))

    def rules(self) -> str:
        return early_rules(self.policy, self.flavours, libdir=str(_LIB)).text

    def devices(self) -> Iterator[Seen]:
        """Those that are to be kept from their native drivers, as if no driver had them yet."""
        return (seen for seen, wanted in self._all() if wanted)

    def begin(self) -> Iterator[OSError]:
        """Write the rules, park what is there, and let go what an initramfs has parked by an older policy; what could
        not be done is told and need not keep anybody from booting.
        """
        UdevRules(self.root).write(self.rules(), "")
        sysfs = Sysfs(self.root)
        for seen, wanted in self._all():
            try:
                if wanted and not seen.driver and seen.override is None:
                    sysfs.write_override(seen.id, PARKED)
                elif seen.override == PARKED and not wanted:
                    sysfs.write_override(seen.id, None)
                    sysfs.probe(seen.id)
            except OSError as error:
                yield error

    def _all(self) -> Iterator[tuple[Seen, bool]]:
        matcher = Matcher(self.policy)
        buses = {bus for flavour in self.flavours.flavours.values() for bus in flavour.buses}
        for seen in Identities(self.root).all(buses, matcher.needs):
            # Whatever has it now: a selector `driver` cannot be answered before there is one, in an initramfs neither.
            traits = replace(seen.traits, driver=None)
            if Trait.SERIAL in matcher.needs and not traits.serial:
                traits = replace(traits, serial=self._serial(seen.id))
            yield seen, park(matcher, replace(seen, driver=None, override=None, traits=traits), self.flavours)

    def _serial(self, device: DeviceId) -> str | None:
        """udev's rules would ask for it only later, each device in its turn."""
        place = self.root / "sys/bus" / device.bus / "devices" / device.name
        if not (place / "config").exists():
            return None
        words = (str(_LIB / "flavourd/pci-serial"), str(place))
        with suppress(OSError, subprocess.TimeoutExpired):  # without it, it is as on a device that has none
            said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS).stdout
            return said.strip().partition("=")[2] or None
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="flavourd-early", description=__doc__.split("\n", maxsplit=1)[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print-rules", action="store_true", help="do nothing but print the udev rules")
    what.add_argument(
        "--print-devices",
        action="store_true",
        help="do nothing but print the devices that are to be kept, a line each: bus, name, modalias",
    )
    arguments = parser.parse_args()
    try:
        early = Early.of(Path("/"))
        if arguments.print_rules:
            print(early.rules(), end="")
        elif arguments.print_devices:
            for seen in early.devices():
                print(seen.id.bus, seen.id.name, seen.traits.modalias)
        else:
            for error in early.begin():
                _say("4", f"a device is left to its native driver: {error}")
    except FlavourError as error:
        _say("3", str(error))
        return os.EX_CONFIG
    return 0


def _say(priority: str, text: str) -> None:
    """priority: of the journal, where the service manager listens (sd-daemon(3))."""
    prefix = f"<{priority}>" if "JOURNAL_STREAM" in os.environ else "flavourd-early: "
    print(f"{prefix}{text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
