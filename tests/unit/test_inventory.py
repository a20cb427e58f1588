# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the sight of a device means in terms of flavours."""

from dataclasses import replace

import pytest

from flavourd.device import DeviceId, Glance
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.inventory import blocks_group, flavour_of, proof_of, variants
from flavourd.module_index import Alias, ModuleIndex

_VFIO = FlavourOnBus(Universal("vfio_pci", "vfio-pci"), "vfio_pci", needs_iommu_group=True)
_OTHER = FlavourOnBus(Universal("other", "other"), "other_pci")
_FLAVOURS = Flavours(
    {
        "vfio": Flavour("x", "vfio-dev", {"pci": _VFIO}),
        "other": Flavour("x", "other-dev", {"pci": _OTHER}),
        "elsewhere": Flavour("x", "elsewhere-dev", {"cdx": _OTHER}),
    }
)
_DEVICE = Glance(
    DeviceId("pci", "0000:01:00.0"),
    "e1000e",
    "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
    iommu_group="7",
    proofs=(("vfio-dev", ()), ("other-dev", ())),
)


@pytest.mark.parametrize(
    ("proofs", "flavour", "names"),
    [
        ((), "default", ()),
        ((("vfio-dev", ()), ("other-dev", ())), "default", ()),
        ((("vfio-dev", ("vfio0", "vfio1")), ("other-dev", ())), "vfio", ("vfio0", "vfio1")),
        ((("vfio-dev", ()), ("other-dev", ("o",))), "other", ("o",)),
        ((("no-such-dev", ("x",)),), "default", ("x",)),
    ],
)
def test_a_device_is_in_the_flavour_whose_proof_stands_under_it(
    proofs: tuple[tuple[str, tuple[str, ...]], ...], flavour: str, names: tuple[str, ...]
) -> None:
    seen = replace(_DEVICE, proofs=proofs)
    assert flavour_of(seen, _FLAVOURS) == flavour
    assert proof_of(seen) == names


@pytest.mark.parametrize(
    ("seen", "blocks"),
    [
        (_DEVICE, True),
        (replace(_DEVICE, driver=None), False),
        (replace(_DEVICE, driver="pcieport"), False),
        (replace(_DEVICE, iommu_group=None), False),
        (replace(_DEVICE, driver="vfio-pci", proofs=(("vfio-dev", ("vfio0",)),)), False),
        (replace(_DEVICE, driver="vfio-pci"), True),
    ],
)
def test_a_device_blocks_its_group_while_its_driver_is_no_flavours(seen: Glance, blocks: bool) -> None:
    assert blocks_group(seen) is blocks


def test_variants_of_every_flavour_of_the_bus_are_named_the_closest_first_without_the_universal_driver() -> None:
    index = ModuleIndex(
        (
            Alias("vfio_pci:v*d*sv*sd*bc02sc*i*", "far"),
            Alias("vfio_pci:v00008086d000010D3sv*sd*bc*sc*i*", "near"),
            Alias("vfio_pci:v000015B3d*", "stranger"),
            Alias("other_pci:v00008086d*", "mine"),
        ),
        blacklisted=frozenset({"banned"}),
        soft_pre={"vfio_pci": ("filters", "banned")},
        table_prefixes={"filters": frozenset(), "banned": frozenset()},
    )
    assert variants(_DEVICE, _FLAVOURS, index) == [
        ("vfio", "near"),
        ("vfio", "far"),
        ("vfio", "filters"),
        ("other", "mine"),
    ]
    assert variants(replace(_DEVICE, bridge=True), _FLAVOURS, index) == []
    assert variants(replace(_DEVICE, id=DeviceId("platform", "x")), _FLAVOURS, index) == []
    assert variants(_DEVICE, _FLAVOURS, ModuleIndex()) == []
