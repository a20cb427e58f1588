# SPDX-License-Identifier: LGPL-2.1-or-later
"""Read the flavours from flavours.yaml."""

from pathlib import Path

from flavourd.errors import Code, FlavourError
from flavourd.flavour import Flavours
from flavourd.policy.files import PLACES, read_file


def read_flavours(root: Path = Path("/")) -> Flavours:
    """Flavours of this host; FlavourError(CONFIG) tells what is wrong in which file."""
    flavours = read_file("flavours.yaml", Flavours, root)
    if flavours is None:
        sentence = "flavours.yaml is in none of " + ", ".join(f"/{p}" for p in PLACES)
        raise FlavourError(Code.CONFIG, sentence, "install flavourd anew (make install)")
    return flavours
