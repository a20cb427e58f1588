# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a switch is about to do, told as it happens. If the kernel does not come back, the last step says from where."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    WAITING = "waiting"  # for its turn
    BEGUN = "begun"
    LOADING = "loading"
    UNBINDING = "unbinding"
    BINDING = "binding"
    REFUSED = "refused"  # by one candidate; the next one is asked
    RESTORING = "restoring"


@dataclass(frozen=True)
class Step:
    """text: what, in words: `binding to vfio-pci`. pid: the process that is waited for, if it is another one's."""

    what: What
    text: str
    pid: int = 0


Tell = Callable[[Step], None]


def tell_nobody(_step: Step) -> None:
    """For who has nobody to tell."""
