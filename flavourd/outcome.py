# SPDX-License-Identifier: LGPL-2.1-or-later
"""What became of a request, as values and in words. Outcomes never flatter: SWITCHED was read back from the kernel."""

import errno
import os
from dataclasses import dataclass
from enum import StrEnum

from flavourd.errors import Code, FlavourError
from flavourd.request import Origin, Request
from flavourd.use import Finding


class Source(StrEnum):
    """Where a candidate came from, in the order in which candidates are tried."""

    NAMED = "named"  # by who asked
    ALIAS = "alias"
    SOFTDEP = "softdep"
    WILDCARD = "wildcard"  # a pattern of who asked, and it has no table
    UNIVERSAL = "universal"


@dataclass(frozen=True)
class Candidate:
    """A module that may take the device. detail: the alias that matched, or who named the module."""

    module: str
    source: Source
    detail: str

    def __str__(self) -> str:
        return f"{self.module} ({self.source})"


@dataclass(frozen=True)
class Skip:
    """A module that is not tried, and why. missed: it fits the device, so somebody may have counted on it."""

    module: str
    reason: str
    missed: bool = False

    def __str__(self) -> str:
        return f"{self.module} {self.reason}"


@dataclass(frozen=True)
class Refusal:
    """What a candidate (or the native driver) answered. errno: of the failed step, None where no step of the kernel
    failed.

    kernel: the kernel's own log lines for this device since the step began.
    """

    who: str
    reason: str
    errno: int | None = None
    kernel: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = f"; kernel: {' | '.join(self.kernel)}" if self.kernel else ""
        return f"{self.who} {self.reason}{said}"


class Kind(StrEnum):
    """How a request ended."""

    SWITCHED = "switched"  # done and read back
    ALREADY = "already"  # it was so; nothing was touched
    REFUSED = "refused"  # nothing was touched
    UNDONE = "undone"  # tried; the device is exactly as it was
    BROKEN = "broken"  # tried; and it could not be put back
    LOST = "lost"  # the worker died; what became of the device is not known yet
    GONE = "gone"  # the device went away meanwhile
    STUCK = "stuck"  # the kernel has not answered within the deadline


@dataclass(frozen=True)
class Outcome:
    """driver: what holds the device now. proof: what stands in the flavour's proof directory (`vfio0`).

    findings: what the host uses the device for: if it was refused for that, what it was refused for. parked: it was
    kept from its native driver until now.
    """

    request: Request
    kind: Kind
    flavour: str
    driver: str | None = None
    before: str | None = None
    proof: tuple[str, ...] = ()
    candidate: Candidate | None = None
    refusals: tuple[Refusal, ...] = ()
    skips: tuple[Skip, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    code: Code | None = None
    sentence: str = ""
    hint: str = ""
    errno: int | None = None
    parked: bool = False

    def __str__(self) -> str:
        """The whole story in one line: what is now, what each candidate answered, what to do next."""
        parts = [self.headline]
        parts += map(str, self.refusals)
        parts += [str(skip) for skip in self.skips if skip.missed]
        although = "" if self.kind is Kind.REFUSED else "although "
        parts += [f"{although}{finding}" for finding in self.findings]
        parts += self.notes
        if self.hint:
            parts.append(self.hint)
        return "; ".join(parts)

    @property
    def headline(self) -> str:
        """What happened, in one sentence."""
        device = self.request.device
        match self.kind:
            case Kind.SWITCHED:
                before = self.before or ("parked for its flavour" if self.parked else "driverless")
                head = f"{device} is in flavour {self.flavour} now: {self._holder()}, was {before}"
            case Kind.ALREADY:
                head = f"{device} was in flavour {self.flavour} already: {self._holder()}"
            case Kind.REFUSED:
                about = self.sentence if str(device) in self.sentence else f"{device}: {self.sentence}"
                # Of a put-back that was overtaken, or whose device is gone, nothing is half switched any more.
                nothing_left = self.code in (Code.OVERTAKEN, Code.NO_DEVICE)
                half_switched = self.request.origin is Origin.PUT_BACK and not nothing_left
                head = f"{about}; {'it is still half switched' if half_switched else 'nothing was touched'}"
            case Kind.UNDONE:
                now = "is not parked for it any more" if self.parked else "is as it was"
                head = f"{device} did not take flavour {self.flavour} and {now}, {self._holder()}: {self.sentence}"
            case Kind.BROKEN:
                head = (
                    f"{device} took neither flavour {self.flavour} nor its way back: {self._holder()}: {self.sentence}"
                )
            case Kind.LOST:
                head = f"{device} was lost sight of on the way to flavour {self.flavour}: {self.sentence}"
            case Kind.GONE:
                head = f"{device} went away on the way to flavour {self.flavour}"
            case Kind.STUCK:
                head = f"{device} on the way to flavour {self.flavour}: {self.sentence}"
        return f"{head} [{self.code}]" if self.code else head

    def _holder(self) -> str:
        holder = f"driver {self.driver}" if self.driver else "no driver"
        return f"{holder} ({', '.join(self.proof)})" if self.proof else holder


def refused(request: Request, error: FlavourError) -> Outcome:
    """The outcome of a request of which nothing was carried out."""
    return Outcome(
        request,
        Kind.REFUSED,
        request.wanted,
        code=error.code,
        sentence=error.sentence,
        hint=error.hint,
        errno=error.errno,
        findings=error.findings,
    )


def errno_text(number: int) -> str:
    """`EIO (Input/output error)`; EPROBE_DEFER has no name in user space."""
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"
