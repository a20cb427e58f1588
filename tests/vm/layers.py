# SPDX-License-Identifier: LGPL-2.1-or-later
"""The saved states that tests start from: `booted`, a Debian that is up, and `installed`, with flavourd active."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from .cache import Tell, built, digest
from .hardware import arguments
from .image import More, image, named
from .machine import Machine
from .qemu import Qemu, State

REPOSITORY = Path(__file__).parents[2]
_MTIME = 1_700_000_000  # any fixed time: the same files must make the same tar
# What is written now is not written again after each restore.
_QUIET = "udevadm settle && sync"
# `enable` reloads systemd too: a daemon-reload of its own would cost 3 s more.
# What comes beside flavourd is waited for, too: it would take seconds of each test.
_INSTALL = (
    "systemd-sysusers && udevadm control --reload && systemctl enable --now flavourd && "
    "systemctl start -- flavourd $(systemctl show -P Wants flavourd)"
)


_PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "unshare": "util-linux",
}


def booted(tell: Tell, more: More | None = None) -> State:
    """Return the machine just after boot, with nothing of flavourd on it. more: what its image has beside the usual."""
    if missing := [package for program, package in _PROGRAMS.items() if not shutil.which(program)]:
        raise RuntimeError(f"the test bed needs more programs: apt install {' '.join(missing)}")
    made = image(tell, more)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True).stdout

    def build(folder: Path) -> None:
        with Qemu(made, made.disk, keep_memory=folder / "memory") as qemu:
            machine = Machine(qemu, timeout=900)  # the debug kernel takes five times as long as the other
            if made.other_modules:
                machine.write("/run/modules.tar", made.other_modules.read_bytes())
                machine.run(
                    "tar -xf /run/modules.tar -C / --keep-directory-symlink ./usr && rm /run/modules.tar && depmod"
                )
            up = machine.run("systemctl is-system-running --wait", check=False, timeout=900)
            if up.out.strip() != "running":
                failed = machine.run("systemctl --failed --no-legend; journalctl -b -p err -o cat").out
                raise RuntimeError(f"the guest says {up.out.strip()} after boot:\n{failed}")
            machine.run(_QUIET)
            qemu.save(folder)

    key = digest([made.identity, version, *arguments(made)])
    return State(made, built(named("booted", more), key, build, tell).folder)


def installed(tell: Tell, more: More | None = None) -> State:
    """Return the machine with the repository's flavourd installed and active."""
    with tempfile.TemporaryDirectory() as name:
        tar = Path(name) / "flavourd.tar"
        tar.write_bytes(install_tar())
        return installed_layer(tar, tell, more)


def installed_layer(tar_path: Path, tell: Tell, more: More | None = None) -> State:
    """Return the machine with the files of a tar unpacked at its root and their flavourd.service active."""
    below = booted(tell, more)
    tar = tar_path.read_bytes()
    identity = (below.folder / "identity").read_text()

    def build(folder: Path) -> None:
        subprocess.run(["cp", "--sparse=always", str(below.memory), str(folder / "memory")], check=True)
        with Qemu(below.image, below.disk, below, keep_memory=folder / "memory") as qemu:
            machine = Machine(qemu)
            machine.write("/run/flavourd.tar", tar)
            machine.run(
                "tar -xf /run/flavourd.tar -C / --no-same-owner --keep-directory-symlink && rm /run/flavourd.tar"
            )
            # Else every test would compile anew what the daemon itself did not import.
            if sources := _python_folders(tar):
                machine.run(["python3", "-m", "compileall", "-q", "-l", *sources], timeout=300)
            started = machine.run(_INSTALL, check=False, timeout=120)
            if started.rc or machine.run("systemctl is-active flavourd", check=False).rc:
                words = machine.run("systemctl status flavourd; journalctl -b -u flavourd -o cat", check=False).out
                raise RuntimeError(f"flavourd did not start in the guest: {started.err}\n{words}")
            machine.run(_QUIET)
            qemu.save(folder)

    key = digest([identity, hashlib.sha256(tar).hexdigest(), _INSTALL])
    return State(below.image, built(named("installed", more), key, build, tell, keep=4).folder)


def install_tar(prefix: str = "/usr") -> bytes:
    """Return what `make install` puts out, as a tar that is the same whenever the files are."""
    with tempfile.TemporaryDirectory() as name:
        command = ["make", "-s", "install", f"DESTDIR={name}", f"PREFIX={prefix}"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return deterministic_tar(Path(name))


def deterministic_tar(folder: Path) -> bytes:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "__pycache__" in member.name:
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = _MTIME
        return member

    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)
    return output.getvalue()


def _python_folders(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as members:
        return sorted({f"/{Path(name).parent}" for name in members.getnames() if name.endswith(".py")})
