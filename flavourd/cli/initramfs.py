# SPDX-License-Identifier: LGPL-2.1-or-later
"""`flavourctl initramfs`: the policy in the initramfs, before any native driver is loaded there.

What puts it there are the hooks for initramfs-tools and dracut, which look for the file that is made and removed here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from flavourd.cli import here
from flavourd.cli.exits import Exit, Failure
from flavourd.cli.screen import talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from flavourd.cli.client import Client
    from flavourd.cli.exits import Json
    from flavourd.cli.screen import Screen

_MARK = "etc/flavourd/initramfs"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of every kernel: who boots an older one has fallen back on it.
_TOOLS = (("update-initramfs", "-u", "-k", "all"), ("dracut", "--force", "--regenerate-all"))
_IMAGES = ("boot/initrd.img-{}", "boot/initramfs-{}.img", "boot/initrd-{}")


def run(arguments: Namespace, client: Client, screen: Screen) -> int:
    here.stay(arguments, f"initramfs {arguments.then}")
    mark = here.ROOT / _MARK
    if arguments.then != "status":
        told = _switch(mark, on=arguments.then == "on")
        lines = [told]
        as_json: Json = {"on": mark.exists(), "message": told}
    else:
        image, newer = _image(), [*_newer()]
        lines = [*_lines(screen, mark, image, newer)]
        as_json = {"on": mark.exists(), "image": str(image) if image else None, "newer": [*map(str, newer)]}
    if arguments.json != "off":
        screen.print_json(as_json, arguments.json)
    else:
        screen.print(lines)
    return Exit.OK


def _switch(mark: Path, *, on: bool) -> str:
    command = _tool()
    if on and not here.policy().policy:
        sentence = "there are mistakes in the policy, so nothing was changed"
        raise Failure(Exit.NOT_DONE, sentence, "flavourctl policy check", "policy")
    _set(mark, on=on)
    before = _built()
    _rebuild(command, mark)
    # A tool that knows of no image does nothing, and says that all is well.
    if _built() == before and (on or before is not None):
        state, release = "is there" if on else "is removed", os.uname().release
        sentence = f"{command[0]} has built no initramfs for the running kernel, {release}"
        hint = f"{mark} {state}, so whatever builds it next will heed it, like: update-initramfs -c -k {release}"
        raise Failure(Exit.NOT_DONE, sentence, hint)
    if not on:
        return "the policy is in no initramfs any more"
    left_out = "devices that the host uses now are left out, and told above"
    return f"the policy, as it is now, is in the initramfs; {left_out}"


def _tool() -> list[str]:
    for tool, *words in _TOOLS:
        if path := shutil.which(tool, path=_PATH):
            return [path, *words]
    tools = " nor ".join(tool for tool, *_ in _TOOLS)
    raise Failure(Exit.NOT_DONE, f"neither {tools} is here, so nothing was changed", "apt install initramfs-tools")


def _set(mark: Path, *, on: bool) -> None:
    try:
        if on:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        else:
            mark.unlink(missing_ok=True)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        sentence = f"{mark} cannot be {'made' if on else 'removed'}: {error.strerror}"
        raise Failure(
            Exit.DENIED if denied else Exit.NOT_DONE, sentence, "sudo flavourctl initramfs …" if denied else ""
        ) from error


def _rebuild(command: list[str], mark: Path) -> None:
    talk(f"running {' '.join(command)}")
    status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode
    if status:
        state = "is there" if mark.exists() else "is removed"
        hint = f"{mark} {state}, so the next run that goes well will heed it: {' '.join(command)}"
        raise Failure(Exit.NOT_DONE, f"the initramfs was not rebuilt: {command[0]} ended with {status}", hint)


def _image() -> Path | None:
    """The initramfs of the kernel that runs."""
    release = os.uname().release
    return next((path for name in _IMAGES if (path := here.ROOT / name.format(release)).exists()), None)


def _built() -> int | None:
    """When that was, in nanoseconds; None if there is none."""
    image = _image()
    return image.stat().st_mtime_ns if image else None


def _newer() -> Iterator[Path]:
    """What was changed after the initramfs was built."""
    here.libraries()
    from flavourd.policy.files import PLACES

    if image := _image():
        built = image.stat().st_mtime
        folders = [here.ROOT / place / "policy.d" for place in PLACES]
        files = [file for folder in folders for file in (*sorted(folder.glob("*.yaml")), folder)]
        yield from (file for file in (*files, here.ROOT / _MARK) if file.exists() and file.lstat().st_mtime > built)


def _lines(screen: Screen, mark: Path, image: Path | None, newer: list[Path]) -> Iterator[str]:
    if not mark.exists():
        yield "off: native drivers in the initramfs may take devices of the policy before flavourd does"
        return
    if not image:
        yield f"on, but there is no initramfs of the running kernel, {os.uname().release}, that it could be in"
        yield "  next: flavourctl initramfs on"
        return
    yield f"on: {image} keeps native drivers off the devices of the policy"
    if newer:
        yield f"  {screen.yellow('note:')} changed since it was built: {', '.join(map(str, newer))}"
        yield "  next: flavourctl initramfs on"
