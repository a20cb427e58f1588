# SPDX-License-Identifier: LGPL-2.1-or-later
"""PCI classes as a policy may write them."""

import re

import pytest

from flavourd.policy.classes import CLASSES, class_of


@pytest.mark.parametrize(
    ("text", "code", "mask"),
    [
        ("01", 0x010000, 0xFF0000),
        ("0108", 0x010800, 0xFFFF00),
        ("010802", 0x010802, 0xFFFFFF),
        ("0x010802", 0x010802, 0xFFFFFF),
        ("0X0C03", 0x0C0300, 0xFFFF00),
        ("030000/ff0000", 0x030000, 0xFF0000),
        ("0x030200/0xff0000", 0x030000, 0xFF0000),
        ("03/ff", 0x030000, 0xFF0000),
        ("0302/f", 0x000000, 0xF00000),
        ("nvme", 0x010802, 0xFFFFFF),
        ("3d", 0x030200, 0xFFFF00),
    ],
)
def test_a_code_stands_for_all_below_it(text: str, code: int, mask: int) -> None:
    assert class_of(text) == (code, mask)


@pytest.mark.parametrize("text", ["", "1", "010", "nosuch", "01080", "0108/", "0108/xx", "NVMe", "01 08"])
def test_what_is_no_class_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no PCI class"):
        class_of(text)


def test_the_names_can_be_written_in_a_policy_and_are_true_to_their_masks() -> None:
    for name, (code, mask) in CLASSES.items():
        assert re.fullmatch(r"[a-z][a-z0-9-]{1,31}|3d", name)
        assert code & mask == code, name
        assert mask in (0xFF0000, 0xFFFF00, 0xFFFFFF), name
        # None reads as a code of its own: `3d` does, and no such class was ever given out.
        assert name == "3d" or not re.fullmatch(r"([0-9a-f]{2}){1,3}", name), name
