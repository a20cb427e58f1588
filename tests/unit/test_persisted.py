# SPDX-License-Identifier: LGPL-2.1-or-later
"""Drop-ins of single devices: what they say, and that they are written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.policy.language import Expect, Match, NamedCandidate, Rule
from flavourd.policy.load import read_policy
from flavourd.policy.persisted import file_name, remove, text, write
from flavourd.traits import Traits

from .full import full_at

_GPU = DeviceId("pci", "0000:65:00.0")
_TRAITS = Traits(_GPU, "10de", "2330", "10de", "16c1", driver="nvidia")


@pytest.fixture(autouse=True)
def _umask() -> None:
    os.umask(0o022)


def kept(root: Path, device: DeviceId, whole: str) -> Rule:
    """As it is read back from the host."""
    write(root, device, whole)
    (placed,) = read_policy(root, ["vfio"]).rules
    return placed.rule


def test_a_device_that_is_kept_in_a_flavour_is_kept_by_address_and_ids(tmp_path: Path) -> None:
    rule = kept(tmp_path, _GPU, text(_GPU, "vfio", expect=_TRAITS))
    assert rule == Rule(
        "vfio",
        Match(address="pci/0000:65:00.0"),
        "persisted: pci/0000:65:00.0 vfio",
        Expect("10de", "2330", "10de", "16c1"),
    )


def test_candidates_are_kept_with_what_was_forced(tmp_path: Path) -> None:
    rule = kept(tmp_path, _GPU, text(_GPU, "vfio", ["@alias", "a_vfio_pci", "b*"], {"a_vfio_pci"}))
    assert rule.candidates == ("@alias", NamedCandidate("a_vfio_pci", True), "b*")
    assert rule.expect is None


def test_default_can_be_kept_too(tmp_path: Path) -> None:
    assert kept(tmp_path, _GPU, text(_GPU, "default")).flavour == "default"


def test_a_device_without_ids_has_none_to_expect(tmp_path: Path) -> None:
    device = DeviceId("platform", "fe200000.ethernet")
    assert kept(tmp_path, device, text(device, "vfio", expect=Traits(device))).expect is None


@pytest.mark.parametrize("name", ["a*b", "a[b]?", 'a"b', "a\\b", "a: #b", "\u65e5\u672c", "x" * 190, "!x", "'"])
def test_whatever_a_device_is_called_the_rule_is_for_it_alone(tmp_path: Path, name: str) -> None:
    device = DeviceId("bus", name)
    assert (
        f"bus/{name}".replace("[b]?", "[[]b][?]").replace("a*b", "a[*]b")
        == kept(tmp_path, device, text(device, "vfio")).match.address
    )


@pytest.mark.parametrize(
    ("name", "flavour", "candidates"),
    [
        ("a\u2028rules: []", "vfio", []),
        ("a\rb", "vfio", []),
        ("\udcff", "vfio", []),
        ("a", "vfio\n    group: true", []),
        ("a", "", []),
        ("a", "vfio", ["a b"]),
        ("a", "vfio", ['x"\n      - y']),
    ],
)
def test_what_no_policy_file_can_say_is_an_error(name: str, flavour: str, candidates: list[str]) -> None:
    with pytest.raises(FlavourError, match="cannot be kept") as caught:
        text(DeviceId("bus", name), flavour, candidates)
    assert caught.value.code is Code.POLICY


def test_the_file_says_who_wrote_it_and_how_to_take_it_away() -> None:
    head = text(_GPU, "vfio").splitlines()[0]
    assert (
        head == "# Written by `flavourctl set --persist`; `flavourctl reset --persist pci/0000:65:00.0` takes it away."
    )


def test_it_is_among_the_first_and_readable_by_all(tmp_path: Path) -> None:
    os.umask(0o077)
    file = write(tmp_path, _GPU, text(_GPU, "vfio"))
    assert file == tmp_path / "etc/flavourd/policy.d/10-persist-pci:0000:65:00.0.yaml"
    assert file.name == file_name(_GPU)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (file.parent, file.parent.parent)} == {0o755}
    assert os.listdir(file.parent) == [file.name]


def test_a_second_one_takes_the_place_of_the_first(tmp_path: Path) -> None:
    kept(tmp_path, _GPU, text(_GPU, "vfio", ["a"]))
    assert kept(tmp_path, _GPU, text(_GPU, "default")) == Rule(
        "default", Match(address=str(_GPU)), "persisted: pci/0000:65:00.0 default"
    )


def test_on_a_full_disk_the_old_one_stays(tmp_path: Path) -> None:
    before = kept(tmp_path, _GPU, text(_GPU, "vfio"))
    with (
        full_at(10),
        pytest.raises(FlavourError, match=r"policy\.d/10-persist-.* cannot be written: File too large") as caught,
    ):
        write(tmp_path, _GPU, text(_GPU, "default"))
    assert caught.value.code is Code.POLICY
    (placed,) = read_policy(tmp_path, ["vfio"]).rules
    assert placed.rule == before
    assert os.listdir(tmp_path / "etc/flavourd/policy.d") == [file_name(_GPU)]


def test_what_cannot_be_written_or_taken_away_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/flavourd").write_text("in the way", encoding="utf-8")
    with pytest.raises(FlavourError, match="cannot be written"):
        write(tmp_path, _GPU, text(_GPU, "vfio"))
    with pytest.raises(FlavourError, match="cannot be taken away: Not a directory"):
        remove(tmp_path, _GPU)
    with pytest.raises(FlavourError, match="File name too long"):
        write(tmp_path / "other", DeviceId("bus", "x" * 200 + "y" * 60), "")


def test_it_is_taken_away_once(tmp_path: Path) -> None:
    assert not remove(tmp_path, _GPU)
    write(tmp_path, _GPU, text(_GPU, "vfio"))
    assert remove(tmp_path, _GPU)
    assert not remove(tmp_path, _GPU)
    assert read_policy(tmp_path, ["vfio"]).rules == ()
