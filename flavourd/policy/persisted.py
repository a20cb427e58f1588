# SPDX-License-Identifier: LGPL-2.1-or-later
"""The drop-ins that `flavourctl set --persist` writes and `flavourctl reset --persist` takes away, one a device."""

import glob
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.policy.decode import DecodeError, decode
from flavourd.policy.files import PLACES
from flavourd.policy.language import PolicyFile
from flavourd.policy.load import FOLDER
from flavourd.traits import Traits

_HEAD = """\
# Written by `flavourctl set --persist`; `flavourctl reset --persist {name}` takes it away.
# See flavourd.policy(5).
"""
_KEYS = ("vendor", "device", "subsystem_vendor", "subsystem_device")


def file_name(device: DeviceId) -> str:
    """Early among the others, for of all rules that match the first one holds."""
    return f"10-persist-{device.bus}:{device.name}.yaml"


def text(
    device: DeviceId,
    flavour: str,
    candidates: Sequence[str] = (),
    forced: Collection[str] = (),
    expect: Traits | None = None,
) -> str:
    """A policy file of one rule. expect: the ids that the device has now, so that nothing else that is put into its
    slot one day is taken for it. FlavourError(POLICY) if the device has a name that no policy file can hold.
    """
    ids = [(key.replace("_", "-"), value) for key in _KEYS if (value := getattr(expect, key, None))]
    lines = [
        "rules:",
        f"  - name: {_quoted(f'persisted: {device} {flavour}'[:100])}",
        f"    match: {{address: {_quoted(glob.escape(str(device)))}}}",
        *([f"    expect: {{{', '.join(f'{key}: {_quoted(value)}' for key, value in ids)}}}"] if ids else []),
        f"    flavour: {flavour}",
        *(["    candidates:"] if candidates else []),
        *(f"      - {_candidate(module, module in forced)}" for module in candidates),
    ]
    whole = _HEAD.format(name=device) + "\n".join(lines) + "\n"
    # A name may hold what ends a line for YAML, and then it could say anything.
    try:
        if not str(device).isprintable():
            raise ValueError("its name is not printable")
        (rule,) = decode(whole, PolicyFile, file_name(device)).rules
        if rule.flavour != flavour:
            raise ValueError("this is no flavour")
    except (DecodeError, ValueError) as error:
        told = error.problems[0].message if isinstance(error, DecodeError) else error
        sentence = f"{str(device)!r} cannot be kept in {flavour!r} by a policy file: {told}"
        raise FlavourError(Code.POLICY, sentence) from error
    return whole


def write(root: Path, device: DeviceId, whole: str) -> Path:
    """Put the drop-in in place, whole or not at all; FlavourError(POLICY) if that fails. Returns where it is."""
    file = _file(root, device)
    new = file.with_name(f".{file.name}.new")
    try:
        for folder in (file.parent.parent, file.parent):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(0o755)  # whatever the umask
        with open(new, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(whole)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
        _sync(file.parent)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise _failed(f"{file} cannot be written", error) from error
    return file


def is_kept(root: Path, device: DeviceId) -> bool:
    """Whether it has a drop-in."""
    return _file(root, device).exists()


def remove(root: Path, device: DeviceId) -> bool:
    """Whether there was one; FlavourError(POLICY) if it cannot be taken away."""
    file = _file(root, device)
    try:
        file.unlink()
        _sync(file.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failed(f"{file} cannot be taken away", error) from error
    return True


def _file(root: Path, device: DeviceId) -> Path:
    return root / PLACES[0] / FOLDER / file_name(device)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _failed(what: str, error: OSError) -> FlavourError:
    return FlavourError(Code.POLICY, f"{what}: {error.strerror or error}", errno=error.errno)


def _candidate(module: str, forced: bool) -> str:
    return f"{{module: {_quoted(module)}, force: true}}" if forced else _quoted(module)


def _quoted(word: str) -> str:
    """As a double-quoted text of YAML; what is not printable makes the whole no YAML, and is refused as such."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
