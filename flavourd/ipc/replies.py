# SPDX-License-Identifier: LGPL-2.1-or-later
"""The errors of io.flavourd.Manager and its replies of more than one field; the interface file documents them."""

from typing import TypedDict

from asyncvarlink import TypedVarlinkErrorReply

from flavourd.errors import FlavourError
from flavourd.ipc import wire

INTERFACE = "io.flavourd.Manager"


class Refused(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        code: str
        message: str
        hint: str


def refusal(error: FlavourError) -> Refused:
    return Refused(code=error.code, message=error.sentence, hint=error.hint)


class NotDone(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        code: str
        message: str
        hint: str
        outcomes: list[wire.Outcome]


class NotPermitted(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        code: str
        message: str
        hint: str


class Description(TypedDict):
    device: wire.Device
    complete: bool
    modalias: str | None
    module: str | None
    override: str | None
    members: list[str]
    record: wire.Record | None
    last: wire.Outcome | None


class Progress(TypedDict):
    step: wire.Step | None
    outcomes: list[wire.Outcome] | None
    plans: list[wire.Plan] | None


class News(TypedDict):
    step: wire.Step | None
    outcome: wire.Outcome | None
    lost: int | None


class Standing(TypedDict):
    version: str
    since: str
    ready: bool
    deadline_seconds: float
    open: int
    waiting: int
    stuck: list[wire.Stuck]
    counts: dict[str, int]
    clients: int
    flavours: list[wire.Flavour]
    warnings: list[str]
    policy: wire.PolicyStanding


class Matched(TypedDict):
    verdict: wire.Verdict
    rules: list[wire.Why]
    loaded: bool


class Diff(TypedDict):
    verdicts: list[wire.Verdict]
    unseen: list[str]
    loaded: bool
