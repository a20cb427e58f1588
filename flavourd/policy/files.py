# SPDX-License-Identifier: LGPL-2.1-or-later
"""Find a configuration file and decode it."""

from pathlib import Path
from typing import TypeVar

from flavourd.errors import Code, FlavourError
from flavourd.policy.decode import DecodeError, decode

T = TypeVar("T")

# As everywhere in systemd's world the first place that has the file wins; the admin's comes first.
PLACES = ("etc/flavourd", "run/flavourd", "usr/local/lib/flavourd", "usr/lib/flavourd")
_HINT = "mend the file, then systemctl reload flavourd"


def read_file(name: str, wanted: type[T], root: Path, empty: T | None = None) -> T | None:
    """The file of this name, decoded; None if no place has it. FlavourError(CONFIG) tells what is wrong in which
    file. empty: as for `decode`.
    """
    for place in PLACES:
        file = root / place / name
        try:
            return decode(file.read_text(encoding="utf-8"), wanted, str(file), empty)
        except FileNotFoundError:
            continue
        except DecodeError as error:
            raise FlavourError(Code.CONFIG, "; ".join(map(str, error.problems)), _HINT) from error
        except (OSError, UnicodeError) as error:
            raise FlavourError(Code.CONFIG, f"{file}: {error}", _HINT) from error
    return None
