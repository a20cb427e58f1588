# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is written to the kernel module's node, to a pipe in its place, and what is told when it cannot be. What the
module answers is tested in the virtual machine.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flavourd.errors import Code, FlavourError
from flavourd.flavour import Flavour, FlavourOnBus, Flavours, Universal
from flavourd.waiters import Waiters

from .conftest import Tree

_FLAVOURS = Flavours(
    {
        "vfio": Flavour(
            "for machines",
            "vfio-dev",
            {
                "pci": FlavourOnBus(Universal("vfio_pci", "vfio-pci"), "vfio_pci"),
                "platform": FlavourOnBus(Universal("vfio_platform", "vfio-platform")),
            },
        ),
        "a": Flavour("comes later in the file", "proof", {"pci": FlavourOnBus(Universal("m", "d"))}),
    }
)
_TABLE = "flavours\npci vfio vfio_pci vfio-dev\nplatform vfio - vfio-dev\npci a - proof\n"


class Told:
    """Waiters, and what they had to tell."""

    def __init__(self, root: Path) -> None:
        self.troubles: list[FlavourError] = []
        self.waiters = Waiters(root, self.troubles.append)


@contextmanager
def node(root: Path) -> Iterator[int]:
    """The end from which is read what the module would get."""
    os.mkfifo(root / "dev/driver_flavour")
    end = os.open(root / "dev/driver_flavour", os.O_RDONLY | os.O_NONBLOCK)
    yield end
    os.close(end)


def heard(end: int) -> str:
    return os.read(end, 1 << 16).decode()


def test_each_message_is_one_write_in_the_modules_own_words(tree: Tree) -> None:
    root = tree({"dev/": ""})
    with node(root) as end:
        told = Told(root)
        told.waiters.listen()
        assert told.waiters.heard
        told.waiters.tell(_FLAVOURS)
        assert heard(end) == _TABLE
        assert told.waiters.begin(2**64 - 1)
        assert heard(end) == f"begin {2**64 - 1}\n"
        told.waiters.answer(7, errno.EBUSY)
        assert heard(end) == f"answer 7 {errno.EBUSY}\n"
        told.waiters.answer(8, 0)
        assert heard(end) == "answer 8 0\n"
        told.waiters.tell(Flavours())
        assert heard(end) == "flavours\n"
        told.waiters.dismiss()
        assert heard(end) == "dismiss\n"
        assert told.troubles == []


def test_the_node_is_opened_once_and_closed_so_that_all_who_wait_are_sent_away(tree: Tree) -> None:
    root = tree({"dev/": ""})
    with node(root) as end:
        told = Told(root)
        for _ in range(3):
            told.waiters.listen()
        told.waiters.answer(1, 0)
        told.waiters.close()
        assert heard(end) == "answer 1 0\n"
        assert heard(end) == "", "nobody has the other end open any more"
        assert not told.waiters.heard
        told.waiters.close()
        told.waiters.answer(2, 0)
        told.waiters.listen()
        told.waiters.answer(3, 0)
        assert heard(end) == "answer 3 0\n"
        told.waiters.close()


def test_the_node_does_not_outlive_an_exec(tree: Tree) -> None:
    root = tree({"dev/": ""})
    with node(root):
        told = Told(root)
        told.waiters.listen()
        assert told.waiters._fd is not None
        assert not os.get_inheritable(told.waiters._fd)
        told.waiters.close()


def test_without_the_module_nothing_is_told_and_requests_are_carried_out(tree: Tree) -> None:
    told = Told(tree({"dev/": ""}))
    told.waiters.listen()
    told.waiters.tell(_FLAVOURS)
    told.waiters.answer(1, 0)
    assert told.waiters.begin(1)
    assert not told.waiters.heard
    assert told.troubles == []


def test_a_node_that_a_module_has_left_behind_is_no_module(tree: Tree) -> None:
    root = tree({"dev/": ""})
    (root / "dev/driver_flavour").symlink_to("/dev/flavourd-none")
    told = Told(root)
    told.waiters.listen()
    assert told.troubles == []
    assert told.waiters.begin(1)


def test_why_the_node_cannot_be_opened_is_told_once_until_it_is_another_reason(tree: Tree) -> None:
    root = tree({"dev/driver_flavour/": ""})
    told = Told(root)
    for _ in range(3):
        told.waiters.listen()
        assert not told.waiters.heard
    (trouble,) = told.troubles
    assert (trouble.code, trouble.errno) == (Code.HOST, errno.EISDIR)
    (root / "dev/driver_flavour").rmdir()
    told.waiters.listen()
    (root / "dev/driver_flavour").mkdir()
    told.waiters.listen()
    assert [each.errno for each in told.troubles] == [errno.EISDIR, errno.EISDIR], "it had gone meanwhile"
    assert told.waiters.kept_out
    assert not told.waiters.begin(1), "writers are sent away, whatever the reason"


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EPERM])
def test_what_keeps_us_out_is_told_with_what_to_do(number: int) -> None:
    from flavourd.waiters import _no_entry

    trouble = _no_entry(number, OSError(number, os.strerror(number)))
    assert (trouble.code, trouble.errno) == (Code.HOST, number)
    assert ("fuser" in trouble.hint) is (number == errno.EBUSY)
    assert trouble.hint


def test_a_message_that_is_not_taken_is_told_and_ends_nothing(tree: Tree) -> None:
    root = tree({"dev/": ""})
    (root / "dev/driver_flavour").symlink_to("/dev/full")
    told = Told(root)
    told.waiters.listen()
    told.waiters.tell(_FLAVOURS)
    assert told.waiters.begin(5), "whether somebody waits is not known, so it is carried out"
    told.waiters.answer(5, 0)
    assert [each.errno for each in told.troubles] == [errno.ENOSPC] * 3
    sentences = [each.sentence for each in told.troubles]
    assert all(
        word in sentence for word, sentence in zip(("`flavours`", "`begin 5`", "`answer 5 0`"), sentences, strict=True)
    )
    told.waiters.close()
