# SPDX-License-Identifier: LGPL-2.1-or-later
"""Listen at /dev/driver_flavour in flavourd's place, and answer each request as its word says.

`ok` gets 0, `errno-16` gets 16, anything else nothing. Each line that comes through RUN/in is a JSON text to write
there. What happens stands in RUN/log, a JSON object a line.
"""

import json
import os
import selectors
import socket
import sys
from pathlib import Path
from typing import Any

DEVICE = "/dev/driver_flavour"
RUN = Path("/run/listener")
NETLINK_KOBJECT_UEVENT = 15
SO_RCVBUFFORCE = 33
TABLE = "flavours\npci vfio vfio_pci vfio-dev\npci other - driver\nplatform vfio - vfio-dev\n"


def main() -> None:
    RUN.mkdir(exist_ok=True)
    (RUN / "log").unlink(missing_ok=True)
    (RUN / "in").unlink(missing_ok=True)
    os.mkfifo(RUN / "in")
    quiet = "--quiet" in sys.argv
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT) as events,
        (RUN / "log").open("w", buffering=1, encoding="utf-8") as log,
        selectors.DefaultSelector() as ready,
    ):
        events.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        events.bind((0, 1))
        device = os.open(DEVICE, os.O_WRONLY | os.O_CLOEXEC)
        # For both directions: a FIFO without a writer would always be readable.
        orders = os.open(RUN / "in", os.O_RDWR)
        ready.register(events, selectors.EVENT_READ)
        ready.register(orders, selectors.EVENT_READ)

        def tell(**what: Any) -> None:
            if not quiet:
                print(json.dumps(what, ensure_ascii=False), file=log)

        def write(text: str) -> None:
            try:
                done = os.write(device, text.encode())
            except OSError as error:
                tell(text=text, errno=error.errno)
            else:
                tell(text=text, count=done)

        write(TABLE)
        print(json.dumps({"ready": os.getpid()}), file=log)
        while True:
            for key, _ in ready.select():
                if key.fd == orders:
                    for line in os.read(orders, 1 << 16).decode().splitlines():
                        write(json.loads(line))
                else:
                    heard(events.recv(1 << 13), tell, write)


def heard(message: bytes, tell: Any, write: Any) -> None:
    _, *fields = message.decode(errors="replace").rstrip("\0").split("\0")
    event = dict(field.partition("=")[::2] for field in fields)
    if "DRIVER_FLAVOUR_SEQ" not in event:
        return
    tell(event=event, keys=[field.partition("=")[0] for field in fields])
    word, number = event["DRIVER_FLAVOUR"], event["DRIVER_FLAVOUR_SEQ"]
    if word == "ok" or word.startswith("errno-"):
        write(f"begin {number}\n")
        write(f"answer {number} {word.removeprefix('errno-').replace('ok', '0')}\n")


main()
