# SPDX-License-Identifier: LGPL-2.1-or-later
"""Start the file system, mount it, and serve until SIGTERM."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

from flavourd.errors import FlavourError
from flavourd.flavour import Flavours
from flavourd.policy.attributes import Attributes, FileAccess
from flavourd.policy.flavours import read_flavours
from flavourd.policy.settings import read_settings

_MOUNTED_AT = Path("/run/flavourd/bus")
_SOCKET = Path("/run/flavourd/io.flavourd")
# fsname: by it flavourd-attributes.service knows what a former process has left mounted.
_OPTIONS = {"fsname=flavourd", "allow_other", "default_permissions", "nosuid", "nodev", "noexec"}
_HANDLERS = 512  # at a time: more than may wait


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="flavourd-attributes",
        description=f"Give every device a file driver_flavour, below {_MOUNTED_AT}. systemd starts this.",
    )
    parser.add_argument("--check", action="store_true", help="only see whether this host can do it, or say why not")
    if parser.parse_args().check:
        return _check()
    asyncio.run(_serve(Path("/")))
    return 0


def _check() -> int:
    """1 if something is missing: then systemd leaves it at that (ExecCondition=)."""
    nothing = f"there are no files driver_flavour below {_MOUNTED_AT}"
    if not all(map(find_spec, ("pyfuse3", "trio"))):  # it imports that, too
        print(f"{nothing}: they need pyfuse3; apt install python3-pyfuse3, then systemctl start flavourd-attributes")
        return 1
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        print(f"{nothing}: /dev/fuse: {error.strerror}; the kernel needs FUSE (modprobe fuse)")
        return 1
    return 0


async def _serve(root: Path) -> None:
    await _Server(root).run()


class _Server:
    """root: of the host."""

    def __init__(self, root: Path) -> None:
        # What the host may lack, or --check need not wait for, is imported only now.
        from flavourd.attributes.calls import Flavourd
        from flavourd.attributes.files import Files
        from flavourd.attributes.operations import Operations

        self._root = root
        self._files = Files(root, Flavourd(_SOCKET), self._flavours(Flavours()))
        self._operations = Operations(self._files, self._access(Attributes().access()))
        self._stop = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False

    async def run(self) -> None:
        """Returns when it was told to stop, or somebody else has unmounted it."""
        import pyfuse3

        from flavourd.attributes.loop import enable
        from flavourd.supervisor import notify, watchdog

        enable()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        _MOUNTED_AT.mkdir(parents=True, exist_ok=True)
        pyfuse3.init(self._operations, str(_MOUNTED_AT), _OPTIONS)
        try:
            serving = asyncio.create_task(pyfuse3.main(min_tasks=_HANDLERS, max_tasks=_HANDLERS))
            others = [asyncio.create_task(self._stop.wait()), asyncio.create_task(watchdog())]
            gc.freeze()  # what is there stays; without it the collector lets megabytes gather before it looks
            notify("READY=1")
            await asyncio.wait((serving, others[0]), return_when=asyncio.FIRST_COMPLETED)
            notify("STOPPING=1")
            self._files.stop()
            pyfuse3.terminate()
            await serving
            for task in others:
                task.cancel()
        finally:
            pyfuse3.close(unmount=True)

    def _flavours(self, former: Flavours) -> Flavours:
        try:
            return read_flavours(self._root)
        except FlavourError as error:
            self._tell(error)
            return former

    def _access(self, former: FileAccess) -> FileAccess:
        try:
            return read_settings(self._root).attributes.access()
        except FlavourError as error:
            self._tell(error)
            return former

    def _tell(self, error: FlavourError) -> None:
        """What holds goes on to hold."""
        from flavourd import logs

        logs.tell_trouble(error)

    def _reload(self) -> None:
        self._reload_again = True
        if not self._reloading or self._reloading.done():
            self._reloading = asyncio.create_task(self._read_anew())

    async def _read_anew(self) -> None:
        """One after the other: what was read last holds."""
        from flavourd.supervisor import notify

        while self._reload_again:
            self._reload_again = False
            notify("RELOADING=1")
            self._files.flavours = self._flavours(self._files.flavours)
            # A directory service may take its time to tell a group's number.
            self._operations.access = await asyncio.to_thread(self._access, self._operations.access)
            notify("READY=1")


if __name__ == "__main__":
    sys.exit(main())
