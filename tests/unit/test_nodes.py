# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose the nodes of VFIO become, as rules for udev."""

import pytest

from flavourd.device import DeviceId
from flavourd.policy.language import DeviceNode
from flavourd.policy.nodes import node_rules

_NIC, _DISK = DeviceId("pci", "0000:01:00.0"), DeviceId("pci", "0000:00:02.0")


def test_the_nodes_of_a_group_and_of_a_device_get_owner_group_and_mode() -> None:
    node = DeviceNode(owner="qemu", group="kvm", mode="0660")
    keys = 'OWNER="qemu", GROUP="kvm", MODE="0660"'
    place = "devices/0000:01:00.0"
    assert node_rules({_NIC: node}).splitlines()[1:] == [
        f'SUBSYSTEM=="vfio", TEST=="/sys/kernel/iommu_groups/%k/{place}", {keys}',
        f'KERNEL=="noiommu-*", SUBSYSTEM=="vfio", TEST=="/sys/kernel/iommu_groups/%n/{place}", {keys}',
        f'SUBSYSTEM=="vfio-dev", KERNELS=="0000:01:00.0", SUBSYSTEMS=="pci", {keys}',
    ]


def test_what_is_not_said_is_left() -> None:
    text = node_rules({_NIC: DeviceNode(group="36")})
    assert text.count('GROUP="36"') == 3
    assert "OWNER" not in text
    assert "MODE" not in text


@pytest.mark.parametrize("nodes", [{}, {_NIC: DeviceNode()}, {DeviceId("x", 'a"b'): DeviceNode(owner="a")}])
def test_nothing_is_said_of_nothing(nodes: dict[DeviceId, DeviceNode]) -> None:
    assert node_rules(nodes) == ""


def test_the_text_does_not_depend_on_the_order_in_which_devices_were_found() -> None:
    nodes = {_NIC: DeviceNode(owner="a"), _DISK: DeviceNode(owner="b")}
    assert node_rules(nodes) == node_rules(dict(reversed(nodes.items())))
    assert node_rules(nodes).index(_DISK.name) < node_rules(nodes).index(_NIC.name)


def test_a_machines_account_is_not_taken_for_a_substitution() -> None:
    assert 'OWNER="vm$$"' in node_rules({_NIC: DeviceNode(owner="vm$")})
