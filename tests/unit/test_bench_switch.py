# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the switches' seconds say: a round trip stands beside the floor's of its own round, and `set` beside `set`."""

from benchmarks.figures import switch

_WAYS = ("floor", "fuse", "kernel", "varlink", "uevent", "flavourctl", "driverctl", "driverctl-nosave", "virsh")


def _raw() -> dict[str, object]:
    ways = {way: {"there": [1.0, 2.0], "back": [3.0, 4.0]} for way in (*_WAYS, "dpdk-devbind")}
    ways["fuse"] = {"there": [5.0, 3.0], "back": [3.0, 6.0]}
    ways["flavourctl"] = {"there": [0.5, 1.5], "back": [9.0, 9.0]}
    return {"seconds": {"e1000e": ways}}


def test_a_round_trip_is_beside_the_floor_of_its_own_round() -> None:
    comparisons = {each.what: each for each in switch.figure(_raw()).comparisons}
    assert comparisons["FUSE attribute, e1000e"].ratios == (8 / 4, 9 / 6)
    assert comparisons["FUSE attribute, e1000e"].met is False
    assert comparisons["kernel attribute, e1000e"].met is True


def test_only_the_way_to_the_flavour_is_measured_by_driverctls() -> None:
    comparisons = {each.what: each for each in switch.figure(_raw()).comparisons}
    assert comparisons["flavourctl set, e1000e"].ratios == (0.5, 0.75)
    assert comparisons["flavourctl set, e1000e"].met is True
    assert comparisons["flavourctl reset, e1000e"].met is None
