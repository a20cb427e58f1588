# SPDX-License-Identifier: LGPL-2.1-or-later
"""How flavourctl speaks with the daemon, here and over ssh, and what it says when it cannot."""

import os
import socket
import sys
from pathlib import Path

import pytest

from flavourd.cli.__main__ import main
from flavourd.cli.client import Client
from flavourd.cli.exits import Exit, Failure

from .golden import host
from .golden.daemon import Daemon, Script, error, more, reply

# Does what `ssh -W SOCKET HOST` does, without the way there.
_SSH = f"""#!{sys.executable}
import os, pathlib, socket, sys, threading
pathlib.Path(__file__).with_name("argv").write_text("\\n".join(sys.argv[1:]))
there = socket.socket(socket.AF_UNIX)
there.connect(sys.argv[6])
def back():
    while part := there.recv(9):
        os.write(1, part)
    os._exit(0)
threading.Thread(target=back).start()
while part := os.read(0, 9):
    there.sendall(part)
there.shutdown(socket.SHUT_WR)
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where flavourctl looks for the socket."""
    path = tmp_path / "socket"
    monkeypatch.setenv("FLAVOURD_SOCKET", str(path))
    return path


def program(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this run for ssh."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("FLAVOURD_SSH", str(path))


# --- messages


def test_a_large_answer_comes_whole(path: Path) -> None:
    with Daemon(path, {"List": [reply(devices=["x" * 1_000_000])]}):
        client = Client()
        assert len(client.call("List")["devices"][0]) == 1_000_000
        client.close()


def test_answers_that_come_together_are_told_apart(path: Path) -> None:
    both = b'{"parameters": {"lost": 1}, "continues": true}\0{"parameters": {"lost": 2}}'
    with Daemon(path, {"Monitor": [both], "Status": [reply(version="1")]}):
        client = Client()
        assert list(client.stream("Monitor")) == [{"lost": 1}, {"lost": 2}]
        assert client.call("Status") == {"version": "1"}
        client.close()


def test_after_an_error_one_can_go_on(path: Path) -> None:
    answers: dict[str, Script] = {"Set": [more(step={}), host.NO_DEVICE], "Status": [reply(version="1")]}
    with Daemon(path, answers) as daemon:
        client = Client()
        answered = client.stream("Set", devices=["x"], flavour=None)
        assert next(answered) == {"step": {}}
        with pytest.raises(Failure) as failure:
            next(answered)
        assert (failure.value.exit, failure.value.code) == (Exit.UNKNOWN, "no-device")
        assert client.call("Status") == {"version": "1"}
        client.close()
    assert daemon.calls[0] == {
        "method": "io.flavourd.Manager.Set",
        "parameters": {"devices": ["x"]},
        "more": True,
    }


def test_fields_of_an_error_are_kept(path: Path) -> None:
    with Daemon(path, {"Set": [error("NotDone", code="busy", message="x", hint="y", outcomes=[1])]}):
        client = Client()
        with pytest.raises(Failure) as failure:
            client.call("Set")
        client.close()
    assert failure.value.fields["outcomes"] == [1]
    assert str(failure.value) == "x [busy]\n  y"


# --- what set, reset, explain and history ask for


@pytest.mark.parametrize(
    ("words", "method", "parameters"),
    [
        ("set 06:10.0 6/7 vfio", "Set", {"devices": ["pci/0000:06:10.0", "6/7"], "flavour": "vfio"}),
        (
            "set 6/7 vfio --candidate a --candidate b --force table --dry-run",
            "Set",
            {"devices": ["6/7"], "flavour": "vfio", "candidates": ["a", "b"], "force": ["table"], "dry_run": True},
        ),
        ("reset enp5s2", "Reset", {"devices": ["pci/0000:05:02.0"]}),
        ("reset 6/7 --dry-run", "Reset", {"devices": ["6/7"], "dry_run": True}),
        ("set 6/7 vfio --group", "Set", {"devices": ["6/7"], "flavour": "vfio", "group": True}),
        (
            "reset 6/7 --group --force held --force vfs",
            "Reset",
            {"devices": ["6/7"], "group": True, "force": ["held", "vfs"]},
        ),
        ("cancel 06:10.0 6/7", "Cancel", {"devices": ["pci/0000:06:10.0", "6/7"]}),
        ("explain 6/7", "Explain", {"device": "6/7"}),
        ("explain 6/7 host --force table", "Explain", {"device": "6/7", "flavour": "host", "force": ["table"]}),
        ("history", "History", {}),
        ("history 06:10.0 -n 3", "History", {"device": "pci/0000:06:10.0", "limit": 3}),
    ],
)
def test_what_is_asked_for(words: str, method: str, parameters: dict[str, object], path: Path) -> None:
    with Daemon(path, host.ANSWERS | {method: [reply()]}) as daemon:
        main(words.split())
    assert daemon.asked(method) == [parameters]


# --- no way to the daemon


def test_without_a_socket_one_is_told_to_start_flavourd(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "flavourctl: flavourd does not run on this host\n  systemctl enable --now flavourd\n"
    assert main(["list"]) == Exit.UNREACHABLE
    assert capsys.readouterr().err == told
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    assert main(["list"]) == Exit.UNREACHABLE
    assert capsys.readouterr().err == told


def test_who_may_not_open_the_socket_is_told_who_may(path: Path) -> None:
    user = os.geteuid()
    path.parent.chmod(0)
    if user == 0:
        os.seteuid(65534)  # root may open everything
    try:
        with pytest.raises(Failure) as failure:
            Client().call("List")
    finally:
        os.seteuid(user)
        path.parent.chmod(0o700)
    assert failure.value.exit is Exit.DENIED
    assert "root and the group flavourd" in failure.value.sentence
    assert failure.value.hint.startswith("sudo flavourctl")


def test_a_path_that_cannot_be_a_socket_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLAVOURD_SOCKET", "/x" * 200)
    assert main(["list"]) == Exit.UNREACHABLE
    assert "AF_UNIX path too long" in capsys.readouterr().err


# --- over ssh


def test_another_host_is_asked_over_ssh(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "ssh", _SSH, monkeypatch)
    with Daemon(path, host.ANSWERS) as daemon:
        assert main(["-H", "me@node7", "list", "--json=short", "enp6s0"]) == Exit.OK
        assert '"pci/0000:06:00.0"' in capsys.readouterr().out
        assert daemon.hung_up.wait(60)
    argv = (tmp_path / "argv").read_text(encoding="utf-8").split("\n")
    assert argv == ["-x", "-T", "-e", "none", "-W", str(path), "--", "me@node7"]


def test_an_ssh_that_fails_is_told_with_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "ssh", "#!/bin/sh\necho Permission denied >&2\nexit 255\n", monkeypatch)
    assert main(["-H", "node7", "status"]) == Exit.UNREACHABLE
    first, second, *hints = capfd.readouterr().err.splitlines()
    assert first == "Permission denied"
    assert second == "flavourctl: flavourd on node7 cannot be reached: ssh ended with 255"
    assert "ssh node7" in hints[0]


def test_without_ssh_that_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FLAVOURD_SSH", "/nonexistent/ssh")
    assert main(["-H", "node7", "status"]) == Exit.UNREACHABLE
    assert capsys.readouterr().err == "flavourctl: /nonexistent/ssh cannot be run: No such file or directory\n"


def test_another_host_is_named_where_it_says_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "ssh", _SSH, monkeypatch)
    with Daemon(path, {}):
        assert main(["-H", "node7", "status"]) == Exit.NOT_DONE
    assert "flavourd on node7 does not know io.flavourd.Manager.Status" in capsys.readouterr().err
