# SPDX-License-Identifier: LGPL-2.1-or-later
"""What people read about a request."""

import errno

import pytest

from flavourd.device import DeviceId
from flavourd.errors import Code, FlavourError
from flavourd.outcome import Candidate, Kind, Outcome, Refusal, Skip, Source, errno_text, refused
from flavourd.request import Origin, Request
from flavourd.use import Finding, Guard, Process

_REQUEST = Request(DeviceId("pci", "0000:01:00.0"), "vfio", Origin.UEVENT)
_MOUNTED = Finding(Guard.MOUNTED, "nvme0n1p1 is mounted at /srv", "umount /srv")
_HELD = Finding(Guard.HELD, "it is held through VFIO", "", (Process(42, "qemu", "vm1.scope"), Process(7, "x")))
_VARIANT = Refusal("variant", "refused: EIO (Input/output error)", errno.EIO, ("first line", "second line"))


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (
            Outcome(_REQUEST, Kind.SWITCHED, "vfio", "vfio-pci", before="e1000e", proof=("vfio0",)),
            "pci/0000:01:00.0 is in flavour vfio now: driver vfio-pci (vfio0), was e1000e",
        ),
        (
            Outcome(
                _REQUEST,
                Kind.SWITCHED,
                "vfio",
                "vfio-pci",
                proof=("vfio0",),
                candidate=Candidate("vfio_pci", Source.UNIVERSAL, ""),
                refusals=(_VARIANT,),
                skips=(Skip("x", "is not told in the message"), Skip("y", "is blacklisted", missed=True)),
                notes=("IOMMU group 7 cannot be opened yet",),
            ),
            "pci/0000:01:00.0 is in flavour vfio now: driver vfio-pci (vfio0), was driverless; "
            "variant refused: EIO (Input/output error); kernel: first line | second line; y is blacklisted; "
            "IOMMU group 7 cannot be opened yet",
        ),
        (
            Outcome(
                _REQUEST, Kind.SWITCHED, "vfio", "vfio-pci", before="nvme", findings=(_MOUNTED, _HELD), notes=("n",)
            ),
            "pci/0000:01:00.0 is in flavour vfio now: driver vfio-pci, was nvme; although nvme0n1p1 is mounted at /srv "
            "(umount /srv); although it is held through VFIO, by qemu (pid 42, vm1.scope), x (pid 7); n",
        ),
        (
            Outcome(_REQUEST, Kind.SWITCHED, "vfio", "vfio-pci", parked=True),
            "pci/0000:01:00.0 is in flavour vfio now: driver vfio-pci, was parked for its flavour",
        ),
        (
            Outcome(_REQUEST, Kind.UNDONE, "vfio", "e1000e", code=Code.BUSY, sentence="it is busy", parked=True),
            "pci/0000:01:00.0 did not take flavour vfio and is not parked for it any more, driver e1000e: it is busy "
            "[busy]",
        ),
        (
            Outcome(_REQUEST, Kind.SWITCHED, "default", None, before="vfio-pci"),
            "pci/0000:01:00.0 is in flavour default now: no driver, was vfio-pci",
        ),
        (
            Outcome(_REQUEST, Kind.ALREADY, "vfio", "vfio-pci", proof=("vfio0", "vfio1")),
            "pci/0000:01:00.0 was in flavour vfio already: driver vfio-pci (vfio0, vfio1)",
        ),
        (
            Outcome(_REQUEST, Kind.REFUSED, "vfio", code=Code.BRIDGE, sentence="it is a bridge", hint="ask behind it"),
            "pci/0000:01:00.0: it is a bridge; nothing was touched [bridge]; ask behind it",
        ),
        (
            Outcome(
                _REQUEST,
                Kind.UNDONE,
                "vfio",
                "e1000e",
                refusals=(_VARIANT, Refusal("vfio_pci", "could not be loaded: x")),
                code=Code.ALL_REFUSED,
                sentence="none of 2 candidates took it",
                hint="see journalctl -k",
            ),
            "pci/0000:01:00.0 did not take flavour vfio and is as it was, driver e1000e: none of 2 candidates took it "
            "[all-refused]; variant refused: EIO (Input/output error); kernel: first line | second line; "
            "vfio_pci could not be loaded: x; see journalctl -k",
        ),
        (
            Outcome(_REQUEST, Kind.BROKEN, "vfio", code=Code.BUSY, sentence="it is busy", hint="mend it"),
            "pci/0000:01:00.0 took neither flavour vfio nor its way back: no driver: it is busy [busy]; mend it",
        ),
        (
            Outcome(_REQUEST, Kind.LOST, "vfio", code=Code.INTERNAL, sentence="the worker died", hint="report it"),
            "pci/0000:01:00.0 was lost sight of on the way to flavour vfio: the worker died [internal]; report it",
        ),
        (
            Outcome(_REQUEST, Kind.GONE, "vfio", code=Code.NO_DEVICE),
            "pci/0000:01:00.0 went away on the way to flavour vfio [no-device]",
        ),
        (
            Outcome(_REQUEST, Kind.STUCK, "vfio", code=Code.STUCK, sentence="no answer for 60 s", hint="wait"),
            "pci/0000:01:00.0 on the way to flavour vfio: no answer for 60 s [stuck]; wait",
        ),
    ],
    ids=lambda value: str(value.kind) if isinstance(value, Outcome) else "",
)
def test_an_outcome_tells_its_whole_story_in_one_line(outcome: Outcome, text: str) -> None:
    assert str(outcome) == text


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_its_own_sentence_about_its_device(kind: Kind) -> None:
    sentences = {str(Outcome(_REQUEST, each, "vfio", sentence="x")) for each in Kind}
    assert len(sentences) == len(Kind)
    assert str(Outcome(_REQUEST, kind, "vfio", sentence="x")).startswith("pci/0000:01:00.0")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EIO, "EIO (Input/output error)"),
        (errno.ENODEV, "ENODEV (No such device)"),
        (517, "517 (Unknown error 517)"),  # EPROBE_DEFER
    ],
)
def test_an_errno_is_told_by_name_and_in_words(number: int, text: str) -> None:
    assert errno_text(number) == text


def test_an_error_tells_sentence_code_and_hint() -> None:
    assert str(FlavourError(Code.BUSY, "it is busy", "mend it")) == "it is busy [busy]; mend it"
    assert str(FlavourError(Code.BUSY, "it is busy")) == "it is busy [busy]"


def test_a_request_tells_device_flavour_and_origin() -> None:
    assert str(_REQUEST) == "pci/0000:01:00.0 -> vfio (uevent)"


def test_the_headline_is_the_story_without_what_each_one_answered() -> None:
    told = Outcome(
        _REQUEST,
        Kind.UNDONE,
        "vfio",
        "e1000e",
        refusals=(_VARIANT,),
        notes=("a note",),
        code=Code.ALL_REFUSED,
        sentence="none took it",
        hint="look",
    )
    assert told.headline == (
        "pci/0000:01:00.0 did not take flavour vfio and is as it was, driver e1000e: none took it [all-refused]"
    )
    assert str(told).startswith(f"{told.headline}; variant refused")


def test_a_refusal_tells_what_it_was_for_each_with_what_would_free_it() -> None:
    error = FlavourError(Code.IN_USE, "pci/0000:01:00.0 is in use (mounted)", "free it", findings=(_MOUNTED, _HELD))
    told = refused(_REQUEST, error)
    assert (told.kind, told.code, told.findings) == (Kind.REFUSED, Code.IN_USE, (_MOUNTED, _HELD))
    assert str(told) == (
        "pci/0000:01:00.0 is in use (mounted); nothing was touched [in-use]; nvme0n1p1 is mounted at /srv "
        "(umount /srv); it is held through VFIO, by qemu (pid 42, vm1.scope), x (pid 7); free it"
    )


def test_what_is_refused_tells_all_that_the_error_says() -> None:
    told = refused(_REQUEST, FlavourError(Code.BUSY, "it is busy", "mend it", errno.EBUSY))
    assert told == Outcome(
        _REQUEST, Kind.REFUSED, "vfio", code=Code.BUSY, sentence="it is busy", hint="mend it", errno=errno.EBUSY
    )


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (Code.IN_USE, "it is still half switched"),
        (Code.RELEASING, "it is still half switched"),
        (Code.OVERTAKEN, "nothing was touched"),
        (Code.NO_DEVICE, "nothing was touched"),
    ],
)
def test_what_could_not_be_put_back_is_told_as_half_switched_unless_there_was_nothing_to_put_back(
    code: Code, end: str
) -> None:
    request = Request(_REQUEST.device, "default", Origin.PUT_BACK)
    assert refused(request, FlavourError(code, "x")).headline == f"pci/0000:01:00.0: x; {end} [{code}]"
    assert "nothing was touched" in refused(_REQUEST, FlavourError(code, "x")).headline
