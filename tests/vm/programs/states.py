# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a device stands: in the kernel, and in what flavourd remembers of it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEVICES = Path("/sys/bus/pci/devices")
RECORDS = Path("/run/flavourd/records")


class Wrong(Exception):
    """What may never be."""


@dataclass(frozen=True)
class State:
    driver: str | None
    override: str | None
    proof: tuple[str, ...]
    record: dict[str, Any] | None

    @classmethod
    def of(cls, address: str) -> "State":
        device = DEVICES / address
        link = device / "driver"
        override = (device / "driver_override").read_text().strip()
        proof = device / "vfio-dev"
        return cls(
            link.readlink().name if link.is_symlink() else None,
            None if override in ("", "(null)") else override,
            tuple(os.listdir(proof)) if proof.is_dir() else (),
            record(address),
        )


def record(address: str) -> dict[str, Any] | None:
    file = RECORDS / f"pci:{address}.json"
    if not file.exists():
        return None
    whole: dict[str, Any] = {}
    for line in file.read_text().splitlines():
        whole |= json.loads(line)
    return whole


def flavour(address: str, device: dict[str, Any]) -> str:
    """In which flavour the device is, wholly; Wrong if it is in neither."""
    state = State.of(address)
    kept = state.record
    if (state.driver, state.override, state.proof, kept) == (device["driver"], device["override"], (), None):
        return "default"
    remembered = kept and [kept[name] for name in ("flavour", "unfinished", "override")]
    original = kept and [kept["original"][name] for name in ("driver", "override")]
    switched = state.driver in device["flavour"] and state.override == state.driver and len(state.proof) == 1
    if switched and remembered == ["vfio", False, state.driver] and original == [device["driver"], device["override"]]:
        return "vfio"
    raise Wrong(f"{address} is neither as it was nor switched: {state}")
