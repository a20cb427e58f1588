# SPDX-License-Identifier: LGPL-2.1-or-later
"""The last outcomes, kept under /run/flavourd over restarts of the daemon. The journal has all of them for longer."""

import json
from collections import deque
from contextlib import suppress
from pathlib import Path

from asyncvarlink.conversion import ConversionError, VarlinkType

from flavourd.ipc.wire import Outcome

_KEPT = 500
_FULL = 2 * _KEPT
_TYPE = VarlinkType.from_type_annotation(Outcome)


class History:
    """One JSON object a line, oldest first; kept as text, for most are never asked for."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._file = root / "run/flavourd/history"
        self._lines: deque[tuple[str, str]] = deque(maxlen=_KEPT)
        self._added: list[Outcome] = []
        self._in_file = _FULL  # the first one to be added writes it anew: its last line may be cut
        with suppress(FileNotFoundError):
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
                if outcome := _outcome(line):
                    self._lines.append((outcome.device, line))

    def add(self, outcome: Outcome) -> None:
        """It is written down by `write`: who waits for the outcome need not wait for that."""
        self._added.append(outcome)

    def write(self) -> None:
        """OSError if what was added could not be written down; it is kept in memory all the same."""
        if not self._added:
            return
        new = [(outcome.device, json.dumps(_TYPE.tojson(outcome))) for outcome in self._added]
        self._added.clear()
        self._lines.extend(new)
        count, self._in_file = self._in_file, _FULL  # should this fail, the file is written anew next time
        if count < _FULL:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write("".join(f"{line}\n" for _, line in new))
            self._in_file = count + len(new)
        else:
            anew = self._file.with_name(".history.new")
            anew.write_text("".join(f"{line}\n" for _, line in self._lines), encoding="utf-8")
            anew.replace(self._file)
            self._in_file = len(self._lines)

    def last(self, limit: int, device: str | None = None) -> list[Outcome]:
        """At most so many, of one device or of all; oldest first."""
        lines = [line for of, line in self._lines if device in (None, of)]
        found = [outcome for line in lines[max(0, len(lines) - limit) :] if (outcome := _outcome(line))]
        found += [outcome for outcome in self._added if device in (None, outcome.device)]
        return found[max(0, len(found) - limit) :]


def _outcome(line: str) -> Outcome | None:
    try:
        outcome: Outcome = _TYPE.fromjson(json.loads(line))
    except (ValueError, RecursionError, ConversionError):
        return None
    return outcome
