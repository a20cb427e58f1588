# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is read of /proc, on trees as the kernel makes them."""

import os

import pytest

from flavourd.usage.procfs import Procfs, unescaped
from flavourd.use import Process

from .conftest import Tree

# --- processes


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("0::/machine.slice/machine-qemu\\x2d1.scope/libvirt/emulator\n", "machine-qemu\\x2d1.scope"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/a.service/sub\n", None),
        ("1:name=systemd:/system.slice/x.service\n0::/\n", None),
        ("0::/user.slice\n", None),
        ("1:cpu:/a.service\n", None),
        ("", None),
        ("0::/user.slice/a.service/$(reboot).service\n", "a.service"),
        ("0::/\x1b[2J.service\n", None),
    ],
)
def test_a_process_is_told_with_its_name_and_unit(tree: Tree, cgroup: str, unit: str | None) -> None:
    procfs = Procfs(tree({"proc/7/comm": "sshd\n", "proc/7/cgroup": cgroup}))
    assert procfs.process(7) == Process(7, "sshd", unit)


def test_a_process_that_has_ended_has_no_name_and_one_may_be_called_anything(tree: Tree) -> None:
    procfs = Procfs(tree({"proc/7/comm": "a\x1b[2J\nb\n"}))
    assert procfs.process(7).name == "a?[2J?b"
    assert procfs.process(8) == Process(8, "?")


@pytest.mark.parametrize(
    ("text", "function"), [("vfio_unregister_group_dev", "vfio_unregister_group_dev"), ("0", None), ("", None)]
)
def test_where_a_process_sleeps_is_told_if_it_does(tree: Tree, text: str, function: str | None) -> None:
    procfs = Procfs(tree({"proc/7/wchan": text}))
    assert procfs.wchan(7) == function
    assert procfs.wchan(8) is None


# --- open files


def test_open_files_are_told_with_their_places(tree: Tree) -> None:
    root = tree(
        {
            "proc/7/fd/0": "-> /dev/vfio/12",
            "proc/7/fd/1": "-> /tmp/x",
            "proc/81/fd/3": "-> socket:[9]",
            "proc/7/fdinfo/0": "pos:\t0\nvfio-device-syspath: /sys/devices/a\n",
        }
    )
    procfs = Procfs(root)
    assert sorted(procfs.open_files(7)) == [("7/fd/0", "/dev/vfio/12"), ("7/fd/1", "/tmp/x")]
    assert procfs.descriptor_info("7/fd/0", "vfio-device-syspath") == "/sys/devices/a"
    assert procfs.descriptor_info("7/fd/0", "vfio") is None
    assert procfs.descriptor_info("81/fd/3", "pos") is None
    with pytest.raises(FileNotFoundError):
        list(procfs.open_files(82))


def test_open_files_of_a_process_whose_first_thread_has_ended_are_those_of_another(tree: Tree) -> None:
    threads = {"proc/7/fd/": "", "proc/7/task/7/fd/": "", "proc/7/task/8/fd/5": "-> /dev/sda", "proc/7/task/9/": ""}
    procfs = Procfs(tree(threads | {"proc/8/fd/": "", "proc/8/task/8/fd/": ""}))
    assert list(procfs.open_files(7)) == [("7/task/8/fd/5", "/dev/sda")]
    assert list(procfs.open_files(8)) == []


def test_the_node_behind_an_open_file_is_told_by_its_number(tree: Tree) -> None:
    """None stands for what was closed, "" for what is no node."""
    procfs = Procfs(tree({"proc/7/fd/0": "-> /dev/zero", "proc/7/fd/1": "-> /", "proc/7/fd/2": "-> /nowhere"}))
    assert [procfs.device_number(f"7/fd/{number}") for number in "012"] == ["c1:5", "", None]


def test_how_much_a_process_has_open_is_known_without_looking() -> None:
    with open("/dev/null", "rb"):
        more = Procfs().open_count(os.getpid())
    assert more == 0 or more == Procfs().open_count(os.getpid()) + 1, "0 before Linux 6.2"
    assert Procfs().open_count(2**31) == 0


# --- the host


def test_people_are_counted(tree: Tree) -> None:
    procfs = Procfs(tree({"proc/7/comm": "sshd\n"}))
    assert [procfs.people(pids) for pids in ((), (7,), (7, 8, 9))] == ["", "sshd (pid 7)", "sshd (pid 7) and 2 more"]


def test_swap_partitions_are_told_and_swap_files_are_not(tree: Tree) -> None:
    head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    lines = "/dev/dm-1                               partition\t8388604\t0\t-2\n/swap\\040file file\t1\t0\t-3\n"
    assert Procfs(tree({"proc/swaps": head + lines + "/dev/a\\040b partition 1 0 -4\n"})).swaps() == (
        "/dev/dm-1",
        "/dev/a b",
    )
    assert Procfs(tree({"proc/swaps": ""})).swaps() == ()


def test_escapes_are_undone() -> None:
    assert unescaped("a\\040b\\134040\\011") == "a b\\040\t"
