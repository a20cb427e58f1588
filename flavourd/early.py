# SPDX-License-Identifier: LGPL-2.1-or-later
"""At boot, before udev: keep the devices that the policy puts into a flavour from their native drivers.

udev's rules, generated from the policy, park a device when its own "add" event is handled. That is too late for twins:
the first one's event loads the driver, which then takes the other. So whatever stands there already is parked at once,
here; the rules remain for what comes later. Which driver a device gets is for flavourd to decide, which starts later.

An initramfs holds a list of devices only (initramfs/flavourd-initramfs). It is made on the host as it runs, where
guards can still look: what the host needs now is not in it.
"""

import argparse
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from flavourd.device import PARKED, DeviceId
from flavourd.errors import FlavourError
from flavourd.flavour import Flavours
from flavourd.guards import findings
from flavourd.identity import Identities
from flavourd.policy.early import early_rules, parked_by
from flavourd.policy.flavours import read_flavours
from flavourd.policy.language import PlacedRule, Policy
from flavourd.policy.load import read_policy
from flavourd.policy.match import Matcher, needs
from flavourd.policy.settings import read_settings
from flavourd.sysfs import Sysfs
from flavourd.traits import Seen, Trait
from flavourd.udevrules import UdevRules
from flavourd.usage.look import Usage
from flavourd.use import Guard, Severity

# PREFIX/lib, where flavourd's own programs are in a folder of their own, with this file below.
_LIB = Path(__file__).resolve().parents[3]
_SECONDS = 5


@dataclass(frozen=True)
class Wanted:
    """A device as it is, and the rules by which it is to be parked (see parked_by()): none if it is not to be."""

    seen: Seen
    by: tuple[PlacedRule, ...]


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

    def begin(self) -> Iterator[str]:
        """Write the rules, park what is there, and let go what an initramfs has parked by an older policy. What was not
        done is told, a sentence each, and need not keep anybody from booting.
        """
        UdevRules(self.root).write(early_rules(self.policy, self.flavours, libdir=str(_LIB)).text, "")
        sysfs = Sysfs(self.root)
        found, told = self._all(Identities(self.root))
        yield from told
        for each in found:
            seen = each.seen
            try:
                if each.by and not seen.driver and seen.override is None:
                    sysfs.write_override(seen.id, PARKED)
                elif seen.override == PARKED and not each.by:
                    sysfs.write_override(seen.id, None)
                    sysfs.probe(seen.id)
            except OSError as error:
                yield f"{seen.id} is left to its native driver: {error}"

    def for_initramfs(self) -> tuple[list[str], list[str]]:
        """Of each device that is to be parked there a line: bus, name, modalias, directory, and its serial number if
        any rule asks for one. And a sentence for each that is left out, for the host uses it now.

        FlavourError(CONFIG) if the settings cannot be used.
        """
        severities = read_settings(self.root).severities()
        # An initramfs is also made while a driver sleeps in the kernel: nothing is read that would wait for it.
        found, told = self._all(Identities(self.root, self.flavours.proofs, wait=False))
        usage, lines = Usage(self.root), []
        for each in found:
            if why := self._use(each, usage, severities):
                told.append(f"{each.seen.id} is left to its native driver, for the host uses it now: {why}")
            elif each.by:
                lines.append(self._line(each.seen))
        return lines, told

    # ---

    def _all(self, identities: Identities) -> tuple[list[Wanted], list[str]]:
        """Every device, and what is to be told: rules with more devices than they may change, which park none."""
        matcher = Matcher(self.policy)
        buses = {bus for flavour in self.flavours.flavours.values() for bus in flavour.buses}
        found = []
        for seen in identities.all(buses, matcher.needs):
            # Whatever has it now: a selector `driver` cannot be answered before there is one, in an initramfs neither.
            traits = replace(seen.traits, driver=None)
            if Trait.SERIAL in matcher.needs and not traits.serial:
                traits = replace(traits, serial=self._serial(seen.id))
            free = replace(seen, driver=None, override=None, traits=traits)
            found.append(Wanted(replace(seen, traits=traits), parked_by(matcher, free, self.flavours)))
        over, told = set(), []
        counts = Counter(placed.number for each in found for placed in each.by)
        for placed in self.policy.rules:
            most, count = placed.rule.max_changes, counts[placed.number]
            if most is not None and count > most:
                over.add(placed.number)
                told.append(f"{placed} would have {count} devices, more than its max-changes {most}: none is parked")
        return [each if over.isdisjoint(by.number for by in each.by) else replace(each, by=()) for each in found], told

    def _use(self, wanted: Wanted, usage: Usage, severities: Mapping[Guard, Severity]) -> str:
        """Why a rule would be refused the device now; "" if it would not, or has it already."""
        proofs = dict(wanted.seen.proofs)
        if not wanted.by or any(proofs.get(self.flavours.flavours[by.rule.flavour].proof) for by in wanted.by):
            return ""
        use = usage.of(wanted.seen.id)
        own = [{**severities, **by.rule.guards} for by in wanted.by]
        found = [str(one) for one in findings(use) if any(each[one.guard] is Severity.ERROR for each in own)]
        return "; ".join((*found, *(f"not to be seen was {words}" for words in use.unknown)))

    def _line(self, seen: Seen) -> str:
        place = os.path.realpath(self.root / "sys/bus" / seen.id.bus / "devices" / seen.id.name)
        words = [seen.id.bus, seen.id.name, seen.traits.modalias or "-"]
        words.append(place.removeprefix(os.path.realpath(self.root).rstrip("/")))
        # A twin of the card may stand in its place.
        if any(Trait.SERIAL in needs(placed.rule) for placed in self.policy.rules):
            words.append(seen.traits.serial or "-")
        return " ".join(words)

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
    parser.add_argument(
        "--print-devices",
        action="store_true",
        help="do nothing but print, for an initramfs, the devices that are to be kept; those in use now are left out",
    )
    arguments = parser.parse_args()
    try:
        early = Early.of(Path("/"))
        told: Iterable[str]
        if arguments.print_devices:
            lines, told = early.for_initramfs()
            for line in lines:
                print(line)
        else:
            told = early.begin()
        for sentence in told:
            _say("4", sentence)
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
