# SPDX-License-Identifier: LGPL-2.1-or-later
"""The counts of tests/vm/test_counts.py: what strace says is read right, and what is not as written down is told."""

import json
from pathlib import Path

import pytest

from tests.vm import counts
from tests.vm.strace import Call, calls

_TOLD = """\
newfstatat(AT_FDCWD</>, "/sys/bus/pci/devices", {st_mode=S_IFDIR|0755, st_size=0, ...}, 0) = 0
readlink("/sys/class/net/lo", "../../devices/virtual/net/lo", 4096) = 28
openat(AT_FDCWD</>, "/sys/nothing", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
openat(5</sys/bus/pci>, "devices/../drivers", O_RDONLY|O_CLOEXEC|O_DIRECTORY) = 6</sys/bus/pci/drivers>
openat(AT_FDCWD</>, "/sys/bus/pci/drivers_probe", O_WRONLY|O_CLOEXEC) = 6</sys/bus/pci/drivers_probe>
write(6</sys/bus/pci/drivers_probe>, "/sys/) = 7", 10) = -1 EINVAL (Invalid argument)
openat(AT_FDCWD</>, "/run/flavourd/begun/.x.new", O_WRONLY|O_CREAT, 0600) = 7</run/flavourd/begun/.x.new>
fsync(7</run/flavourd/begun/.x.new>)    = 0
rename("/run/flavourd/begun/.x.new", "/run/flavourd/begun/x") = 0
clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f42b6196310) = 17454
wait4(17454, [{WIFEXITED(s) && WEXITSTATUS(s) == 0}], 0, NULL) = 17454
--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=17454, si_uid=0, si_status=0, si_utime=0, si_stime=0} ---
sendmsg(4<socket:[1]>, {msg_name={sa_family=AF_UNIX, sun_path="/run/systemd/journal/socket"}, msg_namelen=30}, 0) = 9
sendmsg(4<socket:[2]>, {msg_name={sa_family=AF_UNIX, sun_path="/run/systemd/notify"}, msg_namelen=22, \
msg_iov=[{iov_base="STATUS=0 in work", iov_len=44}], msg_iovlen=1}, MSG_NOSIGNAL) = 44
sendmsg(4<socket:[3]>, {msg_name={sa_family=AF_UNIX, sun_path="/run/systemd/notify"}, msg_namelen=22, \
msg_iov=[{iov_base="WATCHDOG=1", iov_len=10}], msg_iovlen=1}, MSG_NOSIGNAL) = 10
sendmsg(8<socket:[4]>, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base="{}", iov_len=2}], msg_iovlen=1}, 0) = 2
connect(4<socket:[5]>, {sa_family=AF_UNIX, sun_path="/run/flavourd/processes"}, 26) = -1 ENOENT (No such file or ...)
wait4(17455, 0x7ffd, 0, NULL)           = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
exit_group(0)                           = ?
+++ exited with 0 +++
"""


def test_a_call_is_read_with_its_name_its_file_and_what_came_back() -> None:
    (renamed,) = calls('rename("/run/a", "/run/b") = 0\n')
    assert renamed == Call("rename", '"/run/a", "/run/b"', 0)
    assert (renamed.file, renamed.descriptor, renamed.address) == ("/run/a", "", "")


def test_a_switch_is_counted() -> None:
    assert counts.of_switch(calls(_TOLD)) == {
        "processes and threads begun": 1,
        "programs executed": 0,
        "opened to read in /sys": 2,
        "looked at otherwise in /sys": 2,
        "written in /sys": ["/sys/bus/pci/drivers_probe"],
        "opened in /run/flavourd": 1,
        "files renamed": 1,
        "files synced": 1,
        "connections": 1,
        "messages to journald": 1,
        "messages to systemd": 1,
    }


def test_who_is_woken_by_the_clock_or_by_strace_is_not_woken_by_an_event() -> None:
    told = """\
epoll_wait(3<anon_inode:[eventpoll]>, 0x7ffd, 6, 29000) = -1 EINTR (Interrupted system call)
epoll_wait(3<anon_inode:[eventpoll]>, [], 6, 28000) = 0
epoll_wait(3<anon_inode:[eventpoll]>, [{events=EPOLLIN, data={u32=9, u64=9}}], 6, 29999) = 1
"""
    assert counts.wake_ups(calls(told)) == 1


def test_modules_are_named_with_their_packages() -> None:
    told = """\
import time: self [us] | cumulative | imported package
import time:       116 |        116 |   _io
Listening.
import time:       349 |        464 |     flavourd.cli
"""
    assert counts.modules(told) == {"_io", "flavourd.cli"}


@pytest.mark.parametrize(
    ("known", "found", "told"),
    [
        ({"forks": 1}, {"forks": 1}, []),
        ({"forks": 1}, {"forks": 2}, ["forks: 2, and was 1; that is not what is written down"]),
        ({"forks": 2}, {"forks": 1}, ["forks: 1, and was 2; fewer are good: write that down, FLAVOURD_REGENERATE=1"]),
        ({"modules, at most": 2}, {"modules, at most": 1}, []),
        ({"modules, at most": 1}, {"modules, at most": 2}, ["modules, at most: 2, and was 1; that is not what is"]),
        ({"written": ["a", "b"]}, {"written": ["b", "a"]}, ["written: ['b', 'a'], and was ['a', 'b']; that is not"]),
        ({}, {"forks": 1}, ["forks: 1, and was None"]),
        ({"forks": 1}, {}, ["forks: None, and was 1"]),
    ],
)
def test_what_is_not_as_written_down_is_told(known: counts.Counts, found: counts.Counts, told: list[str]) -> None:
    said = counts.differences(known, found)
    assert len(said) == len(told)
    assert all(sentence.startswith(begin) for sentence, begin in zip(said, told, strict=True))


def test_counts_are_written_anew_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "counts.json"
    file.write_text('{"a switch": {"forks": 2}, "a start": {}}', encoding="utf-8")
    monkeypatch.setattr(counts, "_FILE", file)
    with pytest.raises(AssertionError, match="forks: 1, and was 2"):
        counts.compare("a switch", {"forks": 1})
    monkeypatch.setenv("FLAVOURD_REGENERATE", "1")
    counts.compare("a switch", {"forks": 1})
    assert json.loads(file.read_text(encoding="utf-8")) == {"a switch": {"forks": 1}, "a start": {}}
