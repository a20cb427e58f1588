# SPDX-License-Identifier: LGPL-2.1-or-later
"""Read the flavours from flavours.yaml."""

from pathlib import Path

from flavourd.errors import Code, FlavourError
from flavourd.flavour import Flavours
from flavourd.policy.decode import DecodeError, decode

# As everywhere in systemd's world the first place that has the file wins; the admin's comes first.
PLACES = ("etc/flavourd", "run/flavourd", "usr/local/lib/flavourd", "usr/lib/flavourd")


def read_flavours(root: Path = Path("/")) -> Flavours:
    """Flavours of this host; FlavourError(CONFIG) tells what is wrong in which file."""
    for place in PLACES:
        file = root / place / "flavours.yaml"
        try:
            return decode(file.read_text(encoding="utf-8"), Flavours, str(file))
        except FileNotFoundError:
            continue
        except DecodeError as error:
            problems = "; ".join(map(str, error.problems))
            raise FlavourError(Code.CONFIG, problems, "mend the file, then systemctl reload flavourd") from error
        except (OSError, UnicodeError) as error:
            raise FlavourError(
                Code.CONFIG, f"{file}: {error}", "mend the file, then systemctl reload flavourd"
            ) from error
    raise FlavourError(
        Code.CONFIG,
        "flavours.yaml is in none of " + ", ".join(f"/{p}" for p in PLACES),
        "install flavourd anew (make install)",
    )
