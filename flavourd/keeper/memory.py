# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is remembered of one device under policy, and what follows: when it may be tried again, and when enough is
enough.

Times are those of the event loop, in seconds.
"""

from dataclasses import dataclass, field

from flavourd.policy.language import Rule

# Who changes a device so often in so short a time will do so again.
_DRIFTS, _WITHIN_SECONDS = 5, 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 3600.0
# What was tried and undone took the device from its driver for a while, which should not happen often.
_PAUSE_AFTER_UNDONE = 300.0
# Events that come so soon after an attempt are its own.
_ECHO_SECONDS = 2.0


@dataclass
class Memory:
    """instance: of the device (see Device). present: it was there when flavourd started. applied: the rule that it has
    once followed. followed: it still did when it was last looked at. drifting: it is to be mended, but not at once.
    not_before: when it may be tried next. told: what was said last of it, so that it is not said again. noted: the
    rule that stands on disk as applied.
    """

    instance: int
    present: bool
    applied: Rule | None = None
    followed: bool = False
    drifting: bool = False
    contested: bool = False
    not_before: float = 0.0
    told: str | None = None
    noted: Rule | None = None
    _drifts: list[float] = field(default_factory=list)
    _pause: float = 0.0
    _echo_until: float = 0.0
    _half_way: bool = False

    def follows(self, rule: Rule) -> None:
        """It is as the rule says."""
        self._half_way = True
        self.done(rule)
        self.told = None

    def done(self, rule: Rule) -> None:
        """A request for the rule went well; if the next look finds otherwise, somebody has been there.

        A PF may need two: it has its native driver before it can have VFs.
        """
        self._half_way = not (rule.vfs is None or self._half_way)
        if not self._half_way:
            self.applied, self.followed = rule, True
        self.drifting, self.not_before, self._pause = False, 0.0, 0.0

    def drifted(self, now: float) -> int:
        """Somebody has changed it: the number of times within the last minutes. Each time it is mended later."""
        self._drifts = [each for each in self._drifts if each > now - _WITHIN_SECONDS] + [now]
        count = len(self._drifts)
        self.followed, self.drifting = False, True
        self.contested = count >= _DRIFTS
        self.not_before = now + _FIRST_PAUSE * 2 ** (count - 1)
        return count

    def failed(self, now: float, *, touched: bool) -> None:
        """An attempt of ours did. touched: the device was taken from its driver meanwhile."""
        first = _PAUSE_AFTER_UNDONE if touched else _FIRST_PAUSE
        self._pause = min(max(2 * self._pause, first), _LONGEST_PAUSE)
        self.not_before = now + self._pause
        self._echo_until = now + _ECHO_SECONDS
        self.followed = self.drifting = False

    def begin_anew(self) -> None:
        """An explicit request, or a policy that was read anew: what has been does not count any more."""
        self.drifting = self.contested = False
        self.not_before = self._pause = 0.0
        self._drifts.clear()
        self.told = None

    def echoes(self, now: float) -> bool:
        """Whether an event that comes now is of our own making."""
        return now < self._echo_until
