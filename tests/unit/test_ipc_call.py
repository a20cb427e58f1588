# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who calls."""

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from flavourd.ipc.call import Call, Peer

# Connects to the socket whose number it is given, and waits for the end.
_CALLER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as own:
    own.connect(sys.argv[1])
    own.recv(1)
"""


def test_a_peer_is_told_with_its_own_user_process_and_groups() -> None:
    one, other = socket.socketpair()
    with one, other:
        peer = Peer.of(one)
    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.groups == {os.getegid(), *os.getgroups()}
    assert str(peer) == f"uid {os.geteuid()}, pid {os.getpid()}"


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([], {70_001}),
        ([70_001, 70_002], {70_001, 70_002}),
        (range(80_000, 80_255), None),
        (range(80_000, 80_300), {70_001}),
    ],
    ids=["no others", "a few", "as many as can be asked", "more than can be asked"],
)
def test_a_peer_of_another_user_is_told_with_all_its_groups(others: list[int], told: set[int] | None) -> None:
    """Who has more groups than can be asked for has his own one, and never one that he has not.

    Only root may become others; anybody else is told as himself.
    """
    root = os.geteuid() == 0
    user, group = (70_000, 70_001) if root else (os.getuid(), os.getgid())
    if not root:
        others, told = os.getgroups(), None
    become: dict[str, Any] = {"user": user, "group": group, "extra_groups": others} if root else {}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")  # a name that the kernel chooses, in no file system
        listening.listen()
        name = listening.getsockname()
        assert isinstance(name, bytes)
        code = _CALLER.replace("sys.argv[1]", repr(name))
        with subprocess.Popen([sys.executable, "-c", code], **become) as caller:
            connection, _ = listening.accept()
            with connection:
                peer = Peer.of(connection)
            caller.wait(timeout=60)
    assert (peer.pid, peer.uid) == (caller.pid, user)
    assert peer.groups == (told if told is not None else {group, *others})


@pytest.mark.parametrize("oneway", [False, True])
def test_who_goes_away_is_acted_upon_only_meanwhile_and_only_if_he_was_to_stay(oneway: bool) -> None:
    done: list[str] = []
    call = Call(Peer(1, 2, frozenset()), oneway, more=False)
    with call.if_gone(lambda: done.append("outer")):
        with call.if_gone(lambda: done.append("inner")):
            pass
        call.end()
    call.end()
    assert done == ([] if oneway else ["outer"])
