# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who waits in the kernel: writers of `driver_flavour` in sysfs, and the device node through which they are answered.

The kernel module (kernel/driver_flavour.c) brings each write as a uevent with a number, the request's ticket, and keeps
the writer until we answer it here. As long as nobody has the node open, a write is refused at once; when who had it
open closes it, or dies, all who wait are sent away (EAGAIN).
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from flavourd.errors import Code, FlavourError
from flavourd.flavour import Flavours

# No node, or one that was left behind by a module that is not loaded any more.
_NO_MODULE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)


class Waiters:
    """root: of the host. trouble: hears what keeps us from answering them; nothing here is worth ending for."""

    def __init__(self, root: Path, trouble: Callable[[FlavourError], None]) -> None:
        self._node = root / "dev/driver_flavour"
        self._trouble = trouble
        self._fd: int | None = None
        self._why_not = 0  # the error that was told of, until we are in

    @property
    def heard(self) -> bool:
        """Whether those who wait are ours to answer."""
        return self._fd is not None

    @property
    def kept_out(self) -> bool:
        """Whether the module is there, but the answers are not ours to give, or not yet."""
        return self._why_not != 0

    def listen(self) -> None:
        """Answer for the module from now on, if it is loaded."""
        if self.heard:
            return
        try:
            self._fd = os.open(self._node, os.O_WRONLY | os.O_CLOEXEC)
            self._why_not = 0
        except OSError as error:
            number = 0 if error.errno in _NO_MODULE else error.errno or errno.EIO
            if number not in (0, self._why_not):
                self._trouble(_no_entry(number, error))
            self._why_not = number

    def tell(self, flavours: Flavours) -> None:
        """What a read of `driver_flavour` lists, and by which proof it sees where a device is."""
        lines = [
            f"{bus} {name} {on_bus.alias_prefix or '-'} {flavour.proof}\n"
            for name, flavour in flavours.flavours.items()
            for bus, on_bus in flavour.buses.items()
        ]
        self._write("flavours\n" + "".join(lines))

    def begin(self, ticket: int) -> bool:
        """Whether the request is to be carried out: False if who made it does not wait any more. Without the module
        nobody can tell.
        """
        return self._write(f"begin {ticket}\n") if self.heard else not self.kept_out

    def answer(self, ticket: int, number: int) -> None:
        """number: of the error that the writer gets, 0 for success. Whether he still waits is his own affair."""
        self._write(f"answer {ticket} {number}\n")

    def dismiss(self) -> None:
        """Send all away, to ask again, but those for whose request `begin` was true."""
        self._write("dismiss\n")

    def close(self) -> None:
        """Whoever still waits is sent away."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _write(self, message: str) -> bool:
        """One message; False if nobody waits for it."""
        if self._fd is None:
            return True
        try:
            os.write(self._fd, message.encode())
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            sentence = f"the kernel module driver_flavour did not take `{message.splitlines()[0]}`: {error}"
            hint = "is it of the same version as flavourd? else it may be too much: a page is the most that it takes"
            self._trouble(FlavourError(Code.HOST, sentence, hint, error.errno))
        return True


def _no_entry(number: int, error: OSError) -> FlavourError:
    if number == errno.EBUSY:
        sentence = "somebody else answers for the kernel module driver_flavour, so what is written to it is not for us"
        return FlavourError(
            Code.HOST, sentence, "see fuser /dev/driver_flavour; it is tried again all the time", number
        )
    sentence = f"the kernel module driver_flavour is there, but its writers cannot be answered: {error}"
    hint = "they get EAGAIN, and it is tried again all the time; see DeviceAllow= in flavourd.service"
    return FlavourError(Code.HOST, sentence, hint, number)
