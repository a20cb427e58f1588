# SPDX-License-Identifier: LGPL-2.1-or-later
"""Flavours: the shipped file, where it is looked for, and what it may not say."""

import json
from pathlib import Path

import pytest

from flavourd.errors import Code, FlavourError
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.policy.flavours import read_flavours

from .conftest import Tree

_SHIPPED = Path(__file__).parents[2] / "config/flavours.yaml"
_PCI = FlavourOnBus(Universal("vfio_pci", "vfio-pci"), "vfio_pci", needs_iommu_group=True)
_VFIO = Flavour("for virtual machines", "vfio-dev", {"pci": _PCI})


def config_error(root: Path) -> FlavourError:
    with pytest.raises(FlavourError) as caught:
        read_flavours(root)
    assert caught.value.code is Code.CONFIG
    assert caught.value.hint
    return caught.value


def test_the_shipped_file_has_vfio_on_pci_as_the_kernel_names_it(tree: Tree) -> None:
    flavours = read_flavours(tree({"usr/lib/flavourd/flavours.yaml": _SHIPPED.read_text(encoding="utf-8")}))
    assert flavours.names == ("default", "vfio")
    assert flavours.named("vfio").proof == "vfio-dev"
    assert flavours.named("vfio").buses["pci"] == _PCI


def test_the_first_place_that_has_the_file_wins_and_the_admin_comes_first(tree: Tree) -> None:
    places = ["etc", "run", "usr/local/lib", "usr/lib"]
    root = tree(
        {
            f"{place}/flavourd/flavours.yaml": f"flavours: {{place{n}: {{description: x, proof: p}}}}"
            for n, place in enumerate(places)
        }
    )
    for number, place in enumerate(places):
        assert read_flavours(root).names == ("default", f"place{number}")
        (root / place / "flavourd/flavours.yaml").unlink()
    error = config_error(root)
    assert "none of /etc/flavourd, /run/flavourd, /usr/local/lib/flavourd, /usr/lib/flavourd" in error.sentence


def test_a_wrong_file_is_told_and_not_passed_over_for_a_later_place(tree: Tree) -> None:
    root = tree(
        {
            "etc/flavourd/flavours.yaml": "flavour: {}\nmore: 1\n",
            "usr/lib/flavourd/flavours.yaml": "flavours: {}",
        }
    )
    file = root / "etc/flavourd/flavours.yaml"
    assert config_error(root).sentence == (
        f"{file}:1:1: 'flavour' is not known here; did you mean 'flavours'?; "
        f"{file}:2:1: 'more' is not known here; known here: flavours"
    )


def test_a_file_that_is_no_text_is_a_config_error(tree: Tree) -> None:
    root = tree({"etc/flavourd/flavours.yaml": "\udcff"})
    assert str(root / "etc/flavourd/flavours.yaml") in config_error(root).sentence


def test_a_file_that_cannot_be_read_is_a_config_error(tree: Tree) -> None:
    root = tree({"etc/flavourd/flavours.yaml/": "", "usr/lib/flavourd/flavours.yaml": "flavours: {}"})
    assert str(root / "etc/flavourd/flavours.yaml") in config_error(root).sentence


_PLACEABLE = "vfio: {description: x, proof: p, buses: {"


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("default: {description: x, proof: p}", "'default' is reserved for the native drivers"),
        *(
            (f"{json.dumps(name)}: {{description: x, proof: p}}", "is no flavour name")
            for name in ("Vfio", "vfio-2", "2vfio", "", "v f", "vfio_pci", "v" * 33, "vfi\xf6", "vfio\n")
        ),
        ("vfio: {description: x}", "'proof' is missing"),
        *(
            (f"vfio: {{description: x, proof: {json.dumps(name)}}}", "is no directory name")
            for name in ("../etc", "a/b", "", "..", "-x", "p" * 65, "p\n")
        ),
        (_PLACEABLE + "'a/b': {universal: {module: m, driver: d}}}}", "'a/b' is no bus name"),
        (_PLACEABLE + "pci: {universal: {module: -r, driver: d}}}}", "'-r' is no module name"),
        (_PLACEABLE + "pci: {universal: {module: m, driver: ../x}}}}", "'../x' is no driver name"),
        (_PLACEABLE + "pci: {alias_prefix: 'a:b', universal: {module: m, driver: d}}}}", "'a:b' is no alias prefix"),
        (_PLACEABLE + "pci: {}}}", "'universal' is missing"),
    ],
)
def test_names_that_would_become_paths_or_arguments_are_checked(tree: Tree, yaml: str, problem: str) -> None:
    root = tree({"etc/flavourd/flavours.yaml": f"flavours: {{{yaml}}}"})
    sentence = config_error(root).sentence
    assert sentence.startswith(f"{root}/etc/flavourd/flavours.yaml:1:")
    assert problem in sentence
    assert "; " not in sentence  # one mistake is told once


def test_a_flavour_that_is_unknown_is_told_with_those_that_are_known() -> None:
    with pytest.raises(FlavourError) as caught:
        Flavours({"vfio": _VFIO, "other": _VFIO}).named("x" * 1000)
    assert caught.value.code is Code.UNKNOWN_FLAVOUR
    assert caught.value.hint == "known flavours: default, other, vfio"
    assert len(caught.value.sentence) < 100


def test_a_flavour_is_found_by_its_alias_prefix() -> None:
    flavours = Flavours({"plain": Flavour("x", "p", {"pci": FlavourOnBus(Universal("m", "d"))}), "vfio": _VFIO})
    assert flavours.of_alias_prefix("vfio_pci") == "vfio"
    for prefix in ("pci", "", "vfio"):
        with pytest.raises(FlavourError) as caught:
            flavours.of_alias_prefix(prefix)
        assert caught.value.code is Code.UNKNOWN_FLAVOUR
        assert "vfio_pci" in caught.value.hint


def test_all_that_flavours_name_is_collected() -> None:
    other = Flavour("x", "p", {"cdx": FlavourOnBus(Universal("m", "d"))})
    flavours = Flavours({"vfio": _VFIO, "other": other})
    assert flavours.alias_prefixes == {"vfio_pci"}
    assert flavours.universal_modules == {"vfio_pci", "m"}
    assert flavours.proofs == {"vfio-dev", "p"}
