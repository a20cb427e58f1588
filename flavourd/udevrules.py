# SPDX-License-Identifier: LGPL-2.1-or-later
"""The udev rules that flavourd makes from the policy, for as long as it runs: in /run, so that they end with the boot.

Two files: one keeps devices from their native drivers and sends their events to us, the other says whose the nodes of
/dev/vfio are. systemd/flavourd-unpark.in takes both away.
"""

import subprocess
from contextlib import suppress
from pathlib import Path

from flavourd.errors import Code, FlavourError

POLICY = "85-flavourd-policy.rules"  # after 80-drivers.rules, whose loading of modules comes after all rules anyway
NODES = "86-flavourd-nodes.rules"
_SECONDS = 30


class UdevRules:
    def __init__(self, root: Path = Path("/")) -> None:
        self._folder = root / "run/udev/rules.d"

    def exist(self) -> bool:
        return any((self._folder / name).exists() for name in (POLICY, NODES))

    def write(self, policy: str, nodes: str) -> list[str]:
        """Have these texts as the two files, each whole or not at all, and no file where the text is empty.

        The names of those that changed, of which udevd has to be told; FlavourError(HOST) if it could not be written.
        """
        try:
            return [name for name, text in ((POLICY, policy), (NODES, nodes)) if _have(self._folder / name, text)]
        except OSError as error:
            sentence = f"udev rules could not be written: {error}"
            raise FlavourError(Code.HOST, sentence, "make room in /run, then systemctl reload flavourd") from error

    def reload(self) -> None:
        """Have udevd read its rules again. It takes a moment: not for the loop."""
        try:
            command = ("udevadm", "control", "--reload")
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
            said = done.stderr.strip() if done.returncode else None
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
        if said is not None:
            sentence = f"udev does not read the new rules: {said}"
            raise FlavourError(Code.HOST, sentence, "look at: systemctl status systemd-udevd")


def _have(file: Path, text: str) -> bool:
    if not text:
        try:
            file.unlink()
        except FileNotFoundError:
            return False
        return True
    with suppress(OSError, UnicodeError):
        if file.read_text(encoding="utf-8") == text:
            return False
    # By whatever umask: who runs `udevadm test` may read them.
    for folder in (file.parent.parent, file.parent):
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o755)
    new = file.with_name(f".{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(file)
    return True
