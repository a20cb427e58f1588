# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the sight of a device means in terms of flavours; pure."""

from flavourd.candidates import candidates
from flavourd.device import Glance
from flavourd.flavour import DEFAULT, Flavours
from flavourd.iommu import keeps_closed
from flavourd.module_index import ModuleIndex
from flavourd.outcome import Source


def flavour_of(glance: Glance, flavours: Flavours) -> str:
    """The flavour whose proof stands under the device."""
    proofs = dict(glance.proofs)
    held = (name for name, flavour in flavours.flavours.items() if proofs.get(flavour.proof))
    return next(held, DEFAULT)


def proof_of(glance: Glance) -> tuple[str, ...]:
    return tuple(name for _, names in glance.proofs for name in names)


def blocks_group(glance: Glance) -> bool:
    return glance.iommu_group is not None and keeps_closed(glance.driver, claimed=bool(proof_of(glance)))


def variants(glance: Glance, flavours: Flavours, index: ModuleIndex) -> list[tuple[str, str]]:
    """(flavour, module) of what would be tried before the universal driver, for each flavour the closest first."""
    found = []
    for name, flavour in flavours.flavours.items():
        on_bus = flavour.buses.get(glance.id.bus)
        if on_bus and not glance.bridge:
            tried, _ = candidates(glance.modalias, glance.id.bus, on_bus, index)
            found += [(name, c.module) for c in tried if c.source is not Source.UNIVERSAL]
    return found
