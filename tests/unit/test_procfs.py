# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is read of /proc, on trees as the kernel makes them and, for permissions, on the real one."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flavourd.usage.procfs import Descriptor, MountLine, MountTable, Procfs, unescaped
from flavourd.use import Process

from .conftest import Tree

_NOBODY = 65534
_PR_SET_DUMPABLE = 4


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


# --- processes


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("0::/machine.slice/machine-qemu\\x2d1.scope/libvirt/emulator\n", "machine-qemu\\x2d1.scope"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/a.service/sub\n", "a.service"),
        ("1:name=systemd:/system.slice/x.service\n0::/\n", None),
        ("0::/user.slice\n", None),
        ("1:cpu:/a.service\n", None),
        ("", None),
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


def test_open_files_are_those_that_are_wanted_of_all_processes(tree: Tree) -> None:
    root = tree(
        {
            "proc/7/fd/0": "-> /dev/vfio/12",
            "proc/7/fd/1": "-> /tmp/x",
            "proc/81/fd/3": "-> socket:[9]",
            "proc/82/comm": "gone\n",
            "proc/sys/fd/1": "-> /dev/vfio/12",
            "proc/7/fdinfo/0": "pos:\t0\nvfio-device-syspath: /sys/devices/a\n",
        }
    )
    procfs = Procfs(root)
    group, socket = Descriptor(7, "0", "/dev/vfio/12"), Descriptor(81, "3", "socket:[9]")
    assert procfs.descriptors(lambda target: not target.startswith("/tmp")) == ((group, socket), ())
    assert procfs.descriptor_info(group, "vfio-device-syspath") == "/sys/devices/a"
    assert procfs.descriptor_info(group, "vfio") is None
    assert procfs.descriptor_info(socket, "pos") is None


def test_the_node_behind_an_open_file_is_told_by_its_number(tree: Tree) -> None:
    procfs = Procfs(tree({"proc/7/fd/0": "-> /dev/zero", "proc/7/fd/1": "-> /", "proc/7/fd/2": "-> /nowhere"}))
    numbers = [procfs.device_number(Descriptor(7, number, "")) for number in "012"]
    assert numbers == ["c1:5", None, None]


def test_processes_that_may_not_be_looked_at_are_told() -> None:
    """They are not passed over as if they had nothing open."""
    awake, asleep = os.pipe()

    def hidden() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        os.close(asleep)
        os.read(awake, 1)

    other = in_child(hidden)
    os.close(awake)
    try:

        def look() -> None:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            while other not in (refused := Procfs().descriptors(lambda _: True)[1]):
                assert os.getpid() not in refused

        looking = in_child(look)
        assert os.waitstatus_to_exitcode(os.waitpid(looking, 0)[1]) == 0
    finally:
        os.close(asleep)
        os.waitpid(other, 0)


# --- filesystems

_ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
_DATA = "90 27 0:44 /vol /mnt/a\\040b rw master:1 - btrfs /dev/sdb rw,space_cache\n"
_ROOT_LINE = MountLine("254:0", "/", "ext4", "/dev/vda")
_DATA_LINE = MountLine("0:44", "/mnt/a b", "btrfs", "/dev/sdb")


def process(pid: int, space: str, mountinfo: str) -> dict[str, str]:
    return {f"proc/{pid}/ns/mnt": f"-> mnt:[{space}]", f"proc/{pid}/mountinfo": mountinfo}


def test_every_mount_namespace_is_read_once_the_hosts_own_first(tree: Tree) -> None:
    root = tree(process(1, "1", _ROOT) | process(20, "1", "other") | process(30, "2", _ROOT + _DATA))
    assert Procfs(root).mounts() == (
        (MountTable(None, (_ROOT_LINE,)), MountTable(30, (_ROOT_LINE, _DATA_LINE))),
        True,
    )


def test_a_namespace_is_read_through_another_process_if_the_first_ends(tree: Tree) -> None:
    root = tree(process(1, "1", _ROOT) | {"proc/20/ns/mnt": "-> mnt:[2]"} | process(21, "2", _DATA))
    assert Procfs(root).mounts()[0][1] == MountTable(21, (_DATA_LINE,))


def test_no_table_at_all_is_not_an_answer(tree: Tree) -> None:
    assert Procfs(tree({"proc/": ""})).mounts() == ((), False)


def test_lines_that_make_no_sense_are_passed_over(tree: Tree) -> None:
    root = tree(process(1, "1", "x\n1 2 3 - ext4 /dev/a rw\n" + _ROOT + "\n1 2 8:1 / /x rw - y\n"))
    assert Procfs(root).mounts()[0][0].lines == (_ROOT_LINE,)


def test_without_permission_for_the_link_equal_tables_are_one_namespace() -> None:
    """Anybody may read the tables themselves (fs/proc_namespace.c:mounts_open_common())."""

    def look() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        tables, complete = Procfs().mounts()
        assert complete
        own = Path("/proc/self/mountinfo").read_text(encoding="utf-8").count("\n")
        assert own in [len(table.lines) for table in tables]

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(look), 0)[1]) == 0


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
