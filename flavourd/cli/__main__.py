# SPDX-License-Identifier: LGPL-2.1-or-later
"""Start: understand the words, run the verb, and turn whatever goes wrong into a sentence and an exit code."""

from __future__ import annotations

import io
import sys
from importlib import import_module

from flavourd.cli.client import Client
from flavourd.cli.exits import Exit, Failure
from flavourd.cli.parser import parse
from flavourd.cli.screen import Screen, talk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a locale cannot write is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    arguments = parse(argv)
    client = Client(arguments.host, raw=arguments.json != "off")
    try:
        verb = import_module(f"flavourd.cli.{arguments.file}")
        return int(verb.run(arguments, client, Screen()))
    except Failure as failure:
        talk(f"flavourctl: {failure}" if arguments.json == "off" else failure.to_json())
        return failure.exit
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return _end_as_pipes_do()
    except OSError as error:  # a full disk behind stdout
        talk(f"flavourctl: {error}")
        return Exit.NOT_DONE
    finally:
        client.close()


def _end_as_pipes_do() -> int:
    """`flavourctl list | head`: nobody reads any more, which is no error and nothing to talk about."""
    import os
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    return Exit.NOT_DONE  # where the signal is blocked


if __name__ == "__main__":
    sys.exit(main())
