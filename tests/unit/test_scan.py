# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who has wanted files open, on trees as the kernel makes them and, for permissions, on the real one."""

import ctypes
import os
import time
from collections.abc import Callable

import pytest

from flavourd.usage.procfs import Procfs
from flavourd.usage.scan import VFIO_DEVICE, Wanted, files

from .conftest import Tree

_NOBODY = 65534
_PR_SET_DUMPABLE = 4
_INIT = {"proc/1/fd/": "", "proc/1/task/1/": ""}
_LATER = time.monotonic() + 10**6


def of(pid: int, *targets: str) -> dict[str, str]:
    return {f"proc/{pid}/comm": f"p{pid}\n"} | {
        f"proc/{pid}/fd/{number}": f"-> {target}" for number, target in enumerate(targets)
    }


def look(procfs: Procfs, wanted: Wanted, end: float = _LATER) -> tuple[list[tuple[int, str]], str]:
    (found,), missed = files(procfs, [wanted], end)
    return sorted((one.process.pid, one.node or one.target) for one in found), missed


def test_only_what_is_wanted_is_told_and_each_once_for_a_process(tree: Tree) -> None:
    procfs = Procfs(tree(_INIT | of(7, "/dev/sda", "/dev/sda", "/dev/sdb", "socket:[5]", "socket:[6]", "/tmp/dev")))
    assert look(procfs, Wanted({"/dev/sda": "b8:0"}, ["5"])) == ([(7, "/dev/sda"), (7, "socket:[5]")], "")
    assert look(procfs, Wanted()) == ([], "")


def test_the_number_of_a_node_counts_and_not_what_it_is_called(tree: Tree) -> None:
    """Anybody may have files of any name in a mount namespace of his own, and a container other names for nodes."""
    fake = {"dev/sda": "no node at all"}
    root = tree(_INIT | fake | of(8, "/dev/full") | of(9, "/dev/random"))
    tree(of(7, f"{root}/dev/sda"))
    node = {"/dev/sda": "c1:7"}
    assert look(Procfs(root), Wanted(node)) == ([(8, "c1:7")], "")
    assert look(Procfs(root), Wanted({"/dev/full": "b8:0"})) == ([], ""), "a name that is another node's there"


def test_common_nodes_are_not_looked_at(tree: Tree) -> None:
    procfs = Procfs(tree(_INIT | of(7, "/dev/zero", "/dev/null")))
    assert look(procfs, Wanted({"/dev/x": "c1:5", "/dev/y": "c1:3"})) == ([], "")


def test_however_many_have_it_open_some_are_told(tree: Tree) -> None:
    root = tree(_INIT)
    for pid in range(1000, 1150):
        tree(of(pid, "/dev/sda"))
    assert len(look(Procfs(root), Wanted({"/dev/sda": None}))[0]) == 100


def test_everybody_gets_what_he_asked_for(tree: Tree) -> None:
    procfs = Procfs(tree(_INIT | of(7, "/dev/sda", "/dev/sdb")))
    found, _ = files(procfs, [Wanted({"/dev/sda": None}), Wanted({"/dev/sdb": None}), Wanted()], _LATER)
    assert [[one.target for one in some] for some in found] == [["/dev/sda"], ["/dev/sdb"], []]


@pytest.mark.parametrize(
    ("beside", "told"),
    [((), True), (("/dev/vfio/vfio",), True), (("/dev/vfio/3",), False), (("/dev/vfio/devices/vfio1",), False)],
)
def test_a_nameless_device_is_told_of_who_has_no_group_or_node_open_beside_it(
    tree: Tree, beside: tuple[str, ...], told: bool
) -> None:
    procfs = Procfs(tree(_INIT | of(7, VFIO_DEVICE, *beside)))
    assert look(procfs, Wanted(vfio=["/sys/devices/x"])) == ([(7, VFIO_DEVICE)] if told else [], "")
    assert look(procfs, Wanted({"/dev/sda": None})) == ([], "")


def test_after_the_end_whoever_was_not_looked_at_is_told(tree: Tree) -> None:
    procfs = Procfs(tree(_INIT | of(7, "/dev/sda") | of(9, "/dev/sda")))
    assert look(procfs, Wanted({"/dev/sda": None}), end=0) == ([], "p7 (pid 7) and 1 more")


def test_what_a_chrooted_process_has_open_is_told(tree: Tree) -> None:
    root = tree(_INIT)
    (root / "jail/dev").mkdir(parents=True)
    (root / "jail/dev/full").symlink_to("/dev/full")
    tree(of(7, f"{root}/jail/dev/full", f"{root}/jail/dev/other"))
    assert look(Procfs(root), Wanted({"/dev/full": "c1:7"})) == ([(7, "c1:7")], "")


def test_who_cannot_see_process_1_has_not_seen_everybody(tree: Tree) -> None:
    """proc(5), hidepid: others are not there at all."""
    assert look(Procfs(tree(of(7, "/dev/sda"))), Wanted({"/dev/x": None})) == ([], "other users' processes")


def in_child(do: Callable[[], None]) -> int:
    """Its pid; it exits with 0 if that did not raise."""
    pid = os.fork()
    if pid == 0:
        try:
            do()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the exit code tells
            os._exit(1)
    return pid


def test_processes_that_may_not_be_looked_at_are_told() -> None:
    """They are not passed over as if they had nothing open."""
    awake, asleep = os.pipe()
    about, name = os.pipe()

    def hidden() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        os.write(name, b"x")
        os.close(asleep)
        os.read(awake, 1)

    other = in_child(hidden)
    os.close(awake)
    os.read(about, 1)
    try:

        def ask() -> None:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            with pytest.raises(PermissionError):
                list(Procfs().open_files(other))
            assert look(Procfs(), Wanted({"/dev/x": None}))[1]

        looking = in_child(ask)
        assert os.waitstatus_to_exitcode(os.waitpid(looking, 0)[1]) == 0
    finally:
        os.close(asleep)
        os.waitpid(other, 0)
