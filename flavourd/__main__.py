# SPDX-License-Identifier: LGPL-2.1-or-later
"""Start the daemon."""

import argparse
import gc
import os
import sys
from pathlib import Path

from flavourd import __version__
from flavourd.errors import FlavourError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="flavourd",
        description="Put devices into driver flavours on request: the best VFIO driver, or back to the native one.",
        epilog="Requests come as uevents, see README.md; outcomes go to the journal: journalctl -u flavourd",
    )
    parser.add_argument(
        "--deadline",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="answer a request after this time even if the kernel has not (60)",
    )
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root may bind drivers; run it as root, best by: systemctl start flavourd")
    # What needs the system's libraries is imported only now, so that --help and --version answer everywhere. None of it
    # is ever garbage: it need not be searched for any, neither now nor later, and workers share its memory for longer.
    gc.disable()
    import asyncio

    from flavourd import logs
    from flavourd.ipc.door import turn_all_away
    from flavourd.service import Service, control_socket

    gc.freeze()
    gc.enable()
    try:
        ended_well = asyncio.run(_serve(Service, arguments.deadline))
    except FlavourError as error:
        logs.tell_trouble(error)
        if sock := control_socket():  # else systemd would start us for them again and again
            turn_all_away(sock, error)
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    return 0 if ended_well else 1


async def _serve(service: type, deadline: float) -> bool:
    return bool(await service(Path("/"), deadline).run())


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86400:
        raise argparse.ArgumentTypeError("a number of seconds between 0 and a day")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
