# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is mounted in all mount namespaces, on trees as the kernel makes them."""

import os
import time

from flavourd.usage.mountinfo import MountLine, MountTable, mounts
from flavourd.usage.procfs import Procfs
from flavourd.use import Process

from .conftest import Tree
from .test_scan import _NOBODY, in_child

_ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
_DATA = "90 27 0:44 /vol /mnt/a\\040b rw master:1 - btrfs /dev/sdb rw,space_cache\n"
_ROOT_LINE = MountLine("254:0", "/", "ext4", "/dev/vda")
_DATA_LINE = MountLine("0:44", "/mnt/a b", "btrfs", "/dev/sdb")
_LATER = time.monotonic() + 10**6


def process(pid: int, space: str, mountinfo: str) -> dict[str, str]:
    return {f"proc/{pid}/ns/mnt": f"-> mnt:[{space}]", f"proc/{pid}/mountinfo": mountinfo, f"proc/{pid}/comm": "x\n"}


def test_every_mount_namespace_is_read_once_the_hosts_own_first(tree: Tree) -> None:
    root = tree(process(1, "1", _ROOT) | process(20, "1", "other") | process(30, "2", _ROOT + _DATA))
    assert mounts(Procfs(root), _LATER) == (
        (MountTable(None, (_ROOT_LINE,)), MountTable(Process(30, "x"), (_ROOT_LINE, _DATA_LINE))),
        "",
    )


def test_a_namespace_is_read_through_another_process_if_the_first_ends(tree: Tree) -> None:
    root = tree(process(1, "1", _ROOT) | {"proc/20/ns/mnt": "-> mnt:[2]"} | process(21, "2", _DATA))
    assert mounts(Procfs(root), _LATER)[0][1] == MountTable(Process(21, "x"), (_DATA_LINE,))


def test_without_the_hosts_own_table_there_is_no_answer(tree: Tree) -> None:
    assert mounts(Procfs(tree({"proc/": ""})), _LATER) == ((), "the host itself")
    assert mounts(Procfs(tree(process(7, "7", _ROOT))), _LATER)[1] == "the host itself"


def test_after_the_end_whoever_was_not_looked_at_is_told(tree: Tree) -> None:
    root = tree(process(1, "1", _ROOT) | process(30, "2", _DATA))
    assert mounts(Procfs(root), 0) == ((), "the host itself")


def test_the_source_of_a_filesystem_without_a_disk_is_what_anybody_says(tree: Tree) -> None:
    """In a user namespace of his own anybody may mount those."""
    lines = "1 2 0:50 / /a rw - tmpfs /dev/vda rw\n1 2 0:51 / /b rw - fuse.x /dev/vda rw,user_id=0\n"
    assert mounts(Procfs(tree(process(1, "1", lines))), _LATER) == ((MountTable(None, ()),), "")


def test_of_the_mounts_of_a_disk_the_first_are_told(tree: Tree) -> None:
    many = "".join(f"1 2 254:0 / /{number} rw - ext4 /dev/vda rw\n" for number in range(1000))
    root = tree(process(1, "1", _ROOT) | process(2, "2", many) | process(3, "3", many + _DATA))
    host, other, last = mounts(Procfs(root), _LATER)[0]
    assert (host.lines, len(other.lines), last.lines) == ((_ROOT_LINE,), 99, (_DATA_LINE,))


def test_a_log_on_another_disk_is_told(tree: Tree) -> None:
    line = "1 2 8:0 / /x rw - xfs /dev/sda rw,attr2,logdev=/dev/sdb,rtdev=/dev/sd\\040c,noquota\n"
    assert mounts(Procfs(tree(process(1, "1", line))), _LATER)[0][0].lines[0].beside == ("/dev/sdb", "/dev/sd c")


def test_lines_that_make_no_sense_are_passed_over(tree: Tree) -> None:
    root = tree(process(1, "1", "x\n1 2 3 - ext4 /dev/a rw\n" + _ROOT + "\n1 2 8:1 / /x rw - y\n"))
    assert mounts(Procfs(root), _LATER)[0][0].lines == (_ROOT_LINE,)


def test_without_permission_for_the_link_equal_tables_are_one_namespace() -> None:
    """Anybody may read the tables themselves (fs/proc_namespace.c:mounts_open_common())."""

    def look() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
        tables, missed = mounts(Procfs(), _LATER)
        assert missed == ""
        assert tables[0].process is None

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(look), 0)[1]) == 0
