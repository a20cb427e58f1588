# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tell outcomes to the journal, with fields that programs can match, and to the terminal when there is one.

Fields: FLAVOURD_DEVICE, _FLAVOUR, _ORIGIN, _KIND, _CODE, _DRIVER, _CANDIDATE, _UUID (that marks the request), _ASKER
(who it was, on the control socket), _RULE (of the policy: the one that asked), ERRNO; once for each candidate that
refused or was not tried FLAVOURD_REFUSED or FLAVOURD_SKIPPED, and once for each guard that found something
FLAVOURD_GUARD. Every kind of outcome has a MESSAGE_ID, which systemd/flavourd.catalog explains (`journalctl -x`).
"""

import sys
from collections.abc import Mapping

from systemd import journal

from flavourd.errors import FlavourError
from flavourd.outcome import Kind, Outcome

MESSAGE_IDS = {
    Kind.SWITCHED: "7539f84e3f0b42c284b98996f2e42407",
    Kind.ALREADY: "7ea2950df5d743bfb27f97eac78533ba",
    Kind.REFUSED: "f4cc5cfb95fb42bbbd8a57ea543fcff0",
    Kind.UNDONE: "0c11269f95084b898d15dff11e5dfde5",
    Kind.BROKEN: "330c6d0169a6476f9cbfed21a791e937",
    Kind.LOST: "681291cf3da6463aa56ddc3d25f17743",
    Kind.GONE: "4535ae8778f04690bb2ca0aa2dd1491e",
    Kind.STUCK: "3b4f603d88c848e78a86496b00014d4c",
}
TROUBLE_ID = (
    "f2d4d6a284bb4d14bd187f8c15dc8efa"  # not about one request: configuration, policy, sources of knowledge, the daemon
)

_PRIORITIES = {
    Kind.SWITCHED: journal.LOG_NOTICE,
    Kind.ALREADY: journal.LOG_INFO,
    Kind.REFUSED: journal.LOG_WARNING,
    Kind.UNDONE: journal.LOG_WARNING,
    Kind.BROKEN: journal.LOG_CRIT,
    Kind.LOST: journal.LOG_CRIT,
    Kind.GONE: journal.LOG_WARNING,
    Kind.STUCK: journal.LOG_ERR,
}


ERROR: int = journal.LOG_ERR
WARNING: int = journal.LOG_WARNING
NOTICE: int = journal.LOG_NOTICE
INFO: int = journal.LOG_INFO


def tell(outcome: Outcome) -> None:
    request = outcome.request
    fields = {
        "FLAVOURD_DEVICE": str(request.device),
        "FLAVOURD_FLAVOUR": outcome.flavour,
        "FLAVOURD_ORIGIN": request.origin,
        "FLAVOURD_KIND": outcome.kind,
        "FLAVOURD_CODE": outcome.code,
        "FLAVOURD_DRIVER": outcome.driver,
        "FLAVOURD_CANDIDATE": outcome.candidate.module if outcome.candidate else None,
        "FLAVOURD_UUID": request.uuid,
        "FLAVOURD_ASKER": request.asker,
        "FLAVOURD_RULE": request.rule,
        "ERRNO": outcome.errno,
    }
    more = [f"FLAVOURD_REFUSED={refusal}" for refusal in outcome.refusals]
    more += [f"FLAVOURD_SKIPPED={skip}" for skip in outcome.skips]
    more += [f"FLAVOURD_GUARD={guard}" for guard in dict.fromkeys(finding.guard for finding in outcome.findings)]
    _send(str(outcome), MESSAGE_IDS[outcome.kind], _PRIORITIES[outcome.kind], fields, more)


def tell_trouble(error: FlavourError, priority: int = ERROR, fields: Mapping[str, object] | None = None) -> None:
    """fields: further ones that programs may look for."""
    about = {"FLAVOURD_CODE": error.code, "ERRNO": error.errno}
    _send(str(error), TROUBLE_ID, priority, about | dict(fields or {}))


def tell_of(message: str, priority: int, fields: Mapping[str, object]) -> None:
    """What is neither an outcome nor trouble."""
    _send(message, TROUBLE_ID, priority, fields)


def _send(
    message: str, message_id: str, priority: int, fields: Mapping[str, object], more: list[str] | None = None
) -> None:
    lines = [f"MESSAGE={message}", f"MESSAGE_ID={message_id}", f"PRIORITY={priority}", "SYSLOG_IDENTIFIER=flavourd"]
    lines += [f"{key}={value}" for key, value in fields.items() if value is not None]
    try:
        journal.sendv(*(_bytes(line) for line in lines + (more or [])))
        told = not sys.stderr.isatty()
    except OSError:  # no journal, or it is being restarted
        told = False
    if not told:
        print(message, file=sys.stderr)


def _bytes(text: str) -> bytes:
    """Bytes of the host's that are no UTF-8 as they were; what only JSON can say, half a surrogate pair, escaped."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace")
