# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is told of a device that somebody has changed against the policy."""

from dataclasses import replace
from pathlib import Path

import pytest

from flavourd import logs
from flavourd.device import Sriov
from flavourd.errors import FlavourError
from flavourd.keeper import telling
from flavourd.policy.language import Mode

from .test_verdict import _HELD, _NATIVE, placed, verdict


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def tell(error: FlavourError, _priority: int, _fields: object) -> None:
        found.append(error.sentence)

    monkeypatch.setattr(logs, "tell_trouble", tell)
    return found


def test_it_is_said_what_is_not_as_the_rule_says(tmp_path: Path, told: list[str]) -> None:
    seen = replace(_NATIVE, sriov=Sriov(4))
    telling.drift(tmp_path, seen, verdict(seen, placed("default", vfs=8)), 1, contested=False)
    assert told[0].endswith("driver_override is not set; it has 4 VFs, not 8; it is brought back")
    left = verdict(seen, placed("default", vfs=8, mode=Mode.PREFER), applied=True)
    telling.drift(tmp_path, seen, left, 1, contested=False)
    assert told[1].endswith("; it has 4 VFs, not 8; what others change is left so (mode: prefer)")
    seen = replace(_HELD, override=None)
    telling.drift(tmp_path, seen, verdict(seen), 5, contested=True)
    assert "but its driver_override is not set; that was 5 times" in told[2]
