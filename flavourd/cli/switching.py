# SPDX-License-Identifier: LGPL-2.1-or-later
"""One call of Set or Reset: what has been told so far of each device, and what to say if the rest is not told."""

from __future__ import annotations

from flavourd.cli import texts
from flavourd.cli.exits import Exit, Failure, of_answer, worst
from flavourd.cli.progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen


class Switching:
    """devices: those that were asked for; with them others of their groups may go, which are told of, too. together:
    none of them goes alone.

    show: the command that tells how a device is. screen: where outcomes are told as they come; None if they are to
    be kept for the end.
    """

    def __init__(self, devices: Sequence[str], show: str, screen: Screen | None, *, together: bool = False) -> None:
        self._devices, self._show, self._screen, self._together = [*devices], show, screen, together
        self._outcomes: dict[str, Json] = {}
        self._begun: set[str] = set()
        self._requests: dict[str, str] = {}
        self._progress = Progress()

    @property
    def outcomes(self) -> list[Json]:
        return [*self._outcomes.values()]

    def hear(self, told: Json) -> None:
        """One answer. The last one repeats what those before it have told."""
        if step := told.get("step"):
            device = self._meet(step)
            self._requests[device] = str(step.get("uuid"))
            if step.get("what") != "waiting":
                self._begun.add(device)
            done = f"[{len(self._outcomes)}/{len(self._devices)}] " if len(self._devices) > 1 else ""
            self._progress.show(f"{done}{device}: {step.get('text')}")
        for outcome in told.get("outcomes") or []:
            device = self._meet(outcome)
            before = self._outcomes.get(device)
            if before != outcome:  # one that was stuck may have another in the end
                self._outcomes[device] = outcome
                self.be_quiet()
                if self._screen:
                    self._screen.print(self._told(self._screen, before, outcome))

    def be_quiet(self) -> None:
        self._progress.clear()

    def failure(self) -> Failure | None:
        """What to end with, after the last answer; None if all is well."""
        bad = [outcome for outcome in self.outcomes if of_answer(outcome) is not Exit.OK]
        untold = self._open()
        if not bad and not untold:
            return None
        count, total = len(bad) + len(untold), len(self._devices)
        who = f"{count} of {total} devices were" if total > 1 else f"{self._devices[0]} was"
        codes = list(dict.fromkeys(str(outcome["code"]) for outcome in bad if outcome.get("code")))
        hints = [f"{device}: flavourd told nothing about it" for device in untold]
        hints += [f"flavourctl explain {code}" for code in codes]
        exit = max(worst(bad), Exit.NOT_DONE)
        code = codes[0] if len(codes) == 1 else None
        return Failure(exit, f"{who} not switched as asked", "\n".join(hints), code)

    def interrupted(self, history: Sequence[Json] | None) -> Failure:
        """What to end with after hanging up. history: outcomes since then; None if flavourd could not be asked."""
        if history is not None:
            ended = {str(outcome.get("uuid")): outcome for outcome in history}
            for device in self._open():
                if outcome := ended.get(self._requests.get(device, "")):
                    self.hear({"outcomes": [outcome]})
            # What flavourd has taken on and not begun it has withdrawn by now, and told there.
            self._begun.update(device for device in self._open() if device in self._requests)
        goes_on = "the switch goes on; flavourd finishes or undoes it"
        return Failure(Exit.INTERRUPTED, "interrupted", "\n".join(self._rest(goes_on)))

    def lost(self, failure: Failure) -> Failure:
        """What to end with when the connection was lost in the middle."""
        if self._begun or self._outcomes:
            goes_on = "the connection was lost; flavourd finishes or undoes this, at its next start if it has ended"
            failure.hint = "\n".join((*self._rest(goes_on), failure.hint))
        return failure

    def _told(self, screen: Screen, before: Json | None, outcome: Json) -> Iterator[str]:
        """Of an outcome that was told before only the notes that have come since: where it was written down."""
        if before is None or {**before, "notes": None} != {**outcome, "notes": None}:
            yield from texts.outcome(screen, outcome)
            return
        if len(self._devices) > 1:
            yield f"{outcome.get('device')}:"
        known = before.get("notes") or []
        yield from texts.notes(screen, {"notes": [note for note in outcome.get("notes") or [] if note not in known]})

    def _meet(self, told: Json) -> str:
        device = str(told.get("device"))
        if device not in self._devices and told.get("device"):
            self._devices.append(device)
        return device

    def _open(self) -> list[str]:
        return [device for device in self._devices if device not in self._outcomes]

    def _rest(self, begun: str) -> list[str]:
        """A line for each device whose end is not known."""
        waiting = "not begun when it was last heard of, and not wanted any more"
        if self._together and (self._begun or self._outcomes):
            waiting = begun
        return [f"{each}: {begun if each in self._begun else waiting}: {self._show} {each}" for each in self._open()]
