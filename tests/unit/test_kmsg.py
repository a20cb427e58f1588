# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's words about a device, from records as /dev/kmsg gives them."""

from pathlib import Path

import pytest

from flavourd.device import DeviceId
from flavourd.kmsg import Kmsg, message

_KEY = "DEVICE=+pci:0000:01:00.0"


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (
            "4,853,10203040,-;vfio-pci 0000:01:00.0: probe with driver vfio-pci failed with error -22\n"
            " SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n",
            "vfio-pci 0000:01:00.0: probe with driver vfio-pci failed with error -22",
        ),
        ("6,1,2,-,caller=T1;a; b; c\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n", "a; b; c"),
        ("6,1,2,-;\n DEVICE=+pci:0000:01:00.0\n", ""),
        ("6,1,2,-;another device\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.1\n", None),
        ("6,1,2,-;a longer name\n SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.00\n", None),
        ("6,1,2,-;another bus\n SUBSYSTEM=platform\n DEVICE=+platform:0000:01:00.0\n", None),
        ("6,1,2,-;pci 0000:01:00.0: no dictionary\n", None),
        ("6,1,2,-;somebody writes DEVICE=+pci:0000:01:00.0\n", None),
        ("6,1,2,-; DEVICE=+pci:0000:01:00.0\n", None),
        ("12,1,2,-;a line\nDEVICE=+pci:0000:01:00.0\n", None),
        ("", None),
    ],
)
def test_a_record_counts_if_its_dictionary_names_the_device(record: str, text: str | None) -> None:
    assert message(record, _KEY) == text


def test_without_a_kernel_log_there_are_no_lines(tmp_path: Path) -> None:
    assert Kmsg(DeviceId("pci", "0000:01:00.0"), tmp_path / "kmsg").lines() == ()
