# SPDX-License-Identifier: LGPL-2.1-or-later
"""From what people type to the ids of devices."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flavourd.cli.client import Client
from flavourd.cli.exits import Exit, Failure
from flavourd.cli.names import Names

from .golden import host
from .golden.daemon import Daemon


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("FLAVOURD_SOCKET", str(tmp_path / "socket"))
    with Daemon(tmp_path / "socket", host.ANSWERS) as daemon:
        yield daemon


@pytest.fixture
def names(daemon: Daemon) -> Iterator[Names]:
    client = Client()
    yield Names(client)
    client.close()


@pytest.mark.parametrize(
    ("word", "device"),
    [
        ("65:00.0", "pci/0000:65:00.0"),
        ("AF:00.7", "pci/0000:af:00.7"),
        ("0000:65:00.0", "pci/0000:65:00.0"),
        ("10000:E1:00.0", "pci/10000:e1:00.0"),
        ("PCI/0000:65:00.0", "pci/0000:65:00.0"),
        ("pci/65:00.0", "pci/0000:65:00.0"),
        ("platform/Some.Device", "platform/Some.Device"),
        ("x/y/z", "x/y/z"),  # flavourd says what is wrong with it
    ],
)
def test_an_address_is_taken_as_it_is_and_nobody_is_asked(word: str, device: str, names: Names, daemon: Daemon) -> None:
    assert names.ids([word]) == [device]
    assert daemon.calls == []


@pytest.mark.parametrize(
    ("word", "devices"),
    [
        ("enp5s2", [host.BLOCKER]),
        ("enp1s0", [host.CLAIMED]),  # as it was called before the flavour took it
        ("nvme0n2", [host.DISK]),
        ("fe200000.ethernet", [host.MAC]),
        ("06:*", [host.PF, host.VF]),
        ("0000:06:*", [host.PF, host.VF]),
        ("pci/0000:06:1?.0", [host.VF]),
        ("0001:*", [host.FAR]),
        ("02:*", []),  # only domain 0000 may be left out
        ("enp[56]s*", [host.BLOCKER, host.PF]),
        ("ENP6*", [host.PF]),
        ("nvme0n*", [host.DISK]),
        ("platform/*", [host.TWINS[0], host.MAC]),
        ("00:*", []),  # a bridge
        ("*:00.0", [host.CLAIMED, host.PF, host.DISK, host.STUCK, host.FAR]),
    ],
)
def test_all_else_is_looked_up(word: str, devices: list[dict[str, str]], names: Names) -> None:
    if devices:
        assert names.ids([word]) == [device["id"] for device in devices]
    else:
        with pytest.raises(Failure) as failure:
            names.ids([word])
        assert failure.value.exit is Exit.UNKNOWN


def test_a_bridge_is_meant_by_its_name_alone(names: Names) -> None:
    assert [device["id"] for device in names.chosen(["00:1c.0"])] == [host.BRIDGE["id"]]


def test_several_words_for_one_device_count_once_and_in_order(names: Names, daemon: Daemon) -> None:
    assert names.ids(["06:10.0", "06:*", "enp5s2", "enp6s0", "5/x"]) == [
        "pci/0000:06:10.0",
        "pci/0000:06:00.0",
        "pci/0000:05:02.0",
        "5/x",
    ]
    assert len(daemon.asked("List")) == 1


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("06:1.0", "06:10.0"),
        ("enp5s02", "enp5s2 (pci/0000:05:02.0)"),
        ("nvmeon1", "nvme0n1 (pci/0000:07:00.0)"),
        ("fe200000.ethernt", "fe200000.ethernet"),
    ],
)
def test_an_unknown_word_is_answered_with_what_is_nearly_so(word: str, meant: str, names: Names) -> None:
    with pytest.raises(Failure) as failure:
        names.ids([word])
    assert failure.value.exit is Exit.UNKNOWN
    assert failure.value.hint.startswith(f"did you mean {meant}")


def test_a_device_is_suggested_once_though_several_of_its_names_are_near(names: Names) -> None:
    with pytest.raises(Failure) as failure:
        names.chosen(["pci/0000:06:10.1"])
    assert failure.value.hint.count("06:10.0") == 1
