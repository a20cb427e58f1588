# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of devices."""

import pytest

from flavourd.device import Binding, Device, DeviceId


@pytest.mark.parametrize(
    ("text", "bus", "name"),
    [
        ("0000:65:00.0", "pci", "0000:65:00.0"),
        ("65:00.0", "pci", "0000:65:00.0"),
        ("AF:1F.7", "pci", "0000:af:1f.7"),
        ("ABCD:65:00.1", "pci", "abcd:65:00.1"),
        ("10000:e1:00.0", "pci", "10000:e1:00.0"),  # behind Intel VMD a domain has five digits
        ("pci/0000:65:00.0", "pci", "0000:65:00.0"),
        ("platform/fff51000.ethernet", "platform", "fff51000.ethernet"),
        ("usb/1-1:1.0", "usb", "1-1:1.0"),
        ("platform/Fixed MDIO bus.0", "platform", "Fixed MDIO bus.0"),
    ],
)
def test_what_people_write_for_a_device_is_understood(text: str, bus: str, name: str) -> None:
    assert DeviceId.parse(text) == DeviceId(bus, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pci",
        "65:00",
        "65:00.8",
        "65:0.0",
        "065:00.0",
        "000:65:00.0",
        "123456789:65:00.0",
        "0000:65:00.0 ",
        "65:00.0\n",
        "g5:00.0",
        "\N{ARABIC-INDIC DIGIT SIX}5:00.0",
        "/0000:65:00.0",
        "pci/",
        "/",
        "pci/a/b",
        "pci//a",
        "pci/..",
        "pci/.",
        "../devices",
        "./devices",
        "pci/../../etc/passwd",
        "pci/a\0b",
    ],
)
def test_a_near_miss_of_a_device_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a device name"):
        DeviceId.parse(text)


def test_a_device_name_is_printed_as_it_is_read() -> None:
    device = DeviceId("pci", "0000:65:00.0")
    assert str(device) == "pci/0000:65:00.0"
    assert DeviceId.parse(str(device)) == device


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        (Binding(), "no driver"),
        (Binding("e1000e", "e1000e"), "driver e1000e"),
        (Binding("vfio-pci", None, "vfio-pci"), "driver vfio-pci, override vfio-pci"),
        (Binding(override="none"), "no driver, override none"),
    ],
)
def test_a_binding_tells_driver_and_override(binding: Binding, text: str) -> None:
    assert str(binding) == text


def test_a_proof_that_was_not_looked_for_counts_as_absent() -> None:
    device = Device(DeviceId("pci", "0000:65:00.0"), Binding(), proofs=(("vfio-dev", ("vfio0",)),))
    assert device.proof("vfio-dev") == ("vfio0",)
    assert device.proof("other") == ()


@pytest.mark.parametrize("text", ["pci/" + "x" * 201, "x" * 201 + "/a", "pci/a\nb", "a\nb/x", "\0/a"])
def test_a_name_that_could_be_no_file_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a device name"):
        DeviceId.parse(text)
