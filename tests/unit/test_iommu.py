# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who keeps an IOMMU group from being given away."""

import pytest

from flavourd.device import Binding, Device, DeviceId, GroupMember
from flavourd.iommu import blockers, findings, keeps_closed, viability_note
from flavourd.use import Guard


def member(driver: str | None, *, claimed: bool = False, name: str = "0000:01:00.1") -> GroupMember:
    return GroupMember(DeviceId("pci", name), driver, claimed)


def device(*members: GroupMember) -> Device:
    return Device(DeviceId("pci", "0000:01:00.0"), Binding("vfio-pci"), iommu_group="7", group_members=members)


@pytest.mark.parametrize(
    ("other", "blocks"),
    [
        (member("e1000e"), True),
        (member(None), False),
        (member("vfio-pci", claimed=True), False),
        (member("vfio-pci", claimed=False), True),
        (member("mlx5_vfio_pci", claimed=True), False),
        (member("pci-stub"), False),
        (member("pcieport"), False),
        (member("pci_stub"), True),
    ],
)
def test_a_member_blocks_its_group_if_its_driver_does_dma_of_its_own(other: GroupMember, blocks: bool) -> None:
    assert blockers(device(other)) == ((other,) if blocks else ())


def test_a_device_alone_or_among_claimed_ones_has_nothing_to_note() -> None:
    assert viability_note(device()) is None
    assert viability_note(device(member("vfio-pci", claimed=True), member("pcieport"))) is None


def test_the_note_names_every_blocker_and_none_else() -> None:
    note = viability_note(device(member("e1000e"), member(None), member("nvme", name="0000:01:00.2")))
    assert note == (
        "IOMMU group 7 cannot be opened yet: it also holds pci/0000:01:00.1 (e1000e), pci/0000:01:00.2 (nvme); "
        "put them into the flavour too"
    )


def test_who_is_on_his_way_into_the_flavour_too_stands_in_nobodys_way() -> None:
    coming, staying = member("e1000e"), member("nvme", name="0000:01:00.2")
    group = device(coming, staying)
    assert blockers(group, {coming.id}) == (staying,)
    note = viability_note(group, {coming.id})
    assert note
    assert str(coming.id) not in note
    assert viability_note(group, {coming.id, staying.id}) is None
    assert findings(group, {coming.id, staying.id}) == ()


def test_a_group_that_could_not_be_opened_is_one_finding_that_names_who_keeps_it_closed() -> None:
    (finding,) = findings(device(member("e1000e"), member(None), member("nvme", name="0000:01:00.2")))
    assert finding.sentence == (
        "IOMMU group 7 could not be opened, for it also holds pci/0000:01:00.1 (e1000e), pci/0000:01:00.2 (nvme)"
    )
    assert finding.guard is Guard.GROUP
    assert "--group" in finding.hint
    assert findings(device()) == ()
    assert findings(device(member("vfio-pci", claimed=True), member(None))) == ()


def test_without_a_driver_or_with_one_of_a_flavour_a_device_keeps_nothing_closed() -> None:
    assert keeps_closed("e1000e", claimed=False)
    assert not keeps_closed("vfio-pci", claimed=True)
    assert not keeps_closed(None, claimed=False)
    assert not keeps_closed("pcieport", claimed=False)
