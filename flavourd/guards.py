# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the use of a device means for taking it away: findings, each with what would free it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from flavourd.device import DeviceId
from flavourd.disk_guards import disk_findings
from flavourd.facts import Unseen, Use
from flavourd.use import Finding, Guard, Process
from flavourd.wording import listed, printable, quoted, verb

K = TypeVar("K")
V = TypeVar("V")

# What an interface is part of; anything else it carries.
_PARTS = {"bond": "bond", "bridge": "bridge", "team": "team", "openvswitch": "Open vSwitch"}
_CARRIES = {"vlan": "VLAN", "macvlan": "macvlan", "macvtap": "macvtap", "ipvlan": "ipvlan"}


def findings(use: Use) -> tuple[Finding, ...]:
    """All but those of Guard.TABLE and Guard.GROUP, which need more than the device's use. The device's own come
    first, then those of its VFs.
    """
    own = map(_plain, _of_one(use))
    return (
        *own,
        *(replace(found, sentence=f"its VF {vf}: {found.sentence}") for vf, of in use.vfs for found in findings(of)),
    )


def _of_one(use: Use) -> Iterator[Finding]:
    yield from disk_findings(use.volumes)
    yield from _open(use)
    yield from _interfaces(use)
    yield from _functions(use)
    if use.console:
        yield Finding(
            Guard.DISPLAY,
            f"the host's console is on it ({use.console})",
            "stop the display manager and `echo 0 > /sys/class/vtconsole/vtconN/bind`, where `name` beside it says"
            " frame buffer; for the firmware's framebuffer boot with video=efifb:off",
        )
    if use.keyboards:
        yield Finding(
            Guard.INPUT,
            f"every keyboard of the host is behind it ({listed(use.keyboards)})",
            "plug a keyboard in elsewhere, or make sure that the host can be reached over the network",
        )
    yield from _held(use)
    yield from map(_unseen, use.unseen)


def _open(use: Use) -> Iterator[Finding]:
    if use.opened:
        nodes = [one.node for one in use.opened]
        processes = tuple(dict.fromkeys(process for one in use.opened for process in one.processes))
        yield Finding(Guard.OPEN, f"{listed(nodes)} {verb(nodes, 'is', 'are')} open", _stop(processes), processes)
    if use.nameless:
        yield Finding(
            Guard.OPEN,
            "it may be open: /proc/driver/nvidia/gpus does not tell its node in /dev",
            "end what uses NVIDIA cards, `systemctl stop nvidia-persistenced` first",
        )


# --- interfaces


def _interfaces(use: Use) -> Iterator[Finding]:
    for way, families in _grouped(((route.interface, route.own), route.family) for route in use.routes):
        yield Finding(
            Guard.ROUTE,
            f"the {listed(families)} default {verb(families, 'route leads', 'routes lead')} through {_over(*way)}",
            "give the host another way first, see `ip route show default`",
        )
    for session in use.sessions:
        connections = f"{session.count} connection{'s' * (session.count > 1)} with {listed(session.peers)}"
        yield Finding(
            Guard.SESSION,
            f"{connections} {verb(range(session.count), 'uses', 'use')} {_over(session.interface, session.own)}",
            "end them, or come in by another way",
            session.processes,
        )
    for interface in use.interfaces:
        for upper in interface.uppers:
            name, kind = interface.name, upper.kind or ""
            if kind in _PARTS:
                shell = quoted(name)
                loose = f"ovs-vsctl del-port {shell}" if kind == "openvswitch" else f"ip link set {shell} nomaster"
                yield Finding(Guard.ENSLAVED, f"{name} is part of {_PARTS[kind]} {upper.name}", loose)
            elif kind in _CARRIES:
                gone = f"ip link delete {quoted(upper.name)}"
                yield Finding(Guard.ENSLAVED, f"{name} carries {_CARRIES[kind]} {upper.name}", gone)
            else:
                what = f"{kind} {upper.name}".strip()
                yield Finding(Guard.ENSLAVED, f"{what} stands on {name}", f"see `ip -d link show {quoted(upper.name)}`")
    if use.away:
        yield Finding(
            Guard.NETNS,
            "its interface is in another network namespace",
            "see `ip netns` and lsns(8); `ip netns exec NAME ip link set INTERFACE netns 1` brings it back",
        )


def _over(interface: str, own: tuple[str, ...]) -> str:
    return interface if own == (interface,) else f"{interface} (on {listed(own)})"


# --- functions and programs


def _functions(use: Use) -> Iterator[Finding]:
    if use.vfs:
        drivers = _grouped((of.driver, vf) for vf, of in use.vfs if of.driver)
        told = listed([f"{len(some)} of them with driver {driver}" for driver, some in drivers])
        count = len(use.vfs)
        yield Finding(
            Guard.VFS,
            f"it is a PF with {count} VF{'s' * (count > 1)} enabled" + (f" ({told})" if told else ""),
            f"when nobody uses them any more, echo 0 > {_sriov(*use.vfs[0])}",
        )


def _sriov(vf: DeviceId, _: Use) -> str:
    return f"/sys/bus/{vf.bus}/devices/{vf.name}/physfn/sriov_numvfs"


def _held(use: Use) -> Iterator[Finding]:
    sure = tuple(holder.process for holder in use.holders if holder.certain)
    perhaps = tuple(holder.process for holder in use.holders if not holder.certain)
    if sure:
        yield Finding(Guard.HELD, "it is held through VFIO", _stop(sure), sure)
    elif perhaps:
        yield Finding(
            Guard.HELD,
            "a device is held through VFIO that may be this one (before Linux 6.18 the kernel does not say which)",
            _stop(perhaps),
            perhaps,
        )
    for domain in use.domains:
        yield Finding(
            Guard.LIBVIRT,
            f"domain {domain} of libvirt has it",
            f"shut it down (`virsh shutdown {quoted(domain)}`) or take the device from it with `virsh detach-device`",
        )


def _unseen(one: Unseen) -> Finding:
    """What cannot be looked at counts as being used."""
    names = listed(one.what)
    words = {
        Guard.OPEN: f"{names} may be open",
        Guard.MOUNTED: f"a filesystem on {names} may be mounted",
        Guard.ROUTE: f"a default route may lead through {names}",
    }
    hint = "see `systemctl status flavourd-processes.socket flavourd-processes.service`"
    if one.guard is Guard.ROUTE:
        hint = "see `ip route show default`, and ask again"
    return Finding(one.guard, f"{words.get(one.guard, 'it may be held through VFIO')}: {one.why}", hint)


def _stop(processes: tuple[Process, ...]) -> str:
    return f"stop {listed([process.unit or f'{process.name} (pid {process.pid})' for process in processes])}"


def _grouped(pairs: Iterable[tuple[K, V]]) -> list[tuple[K, list[V]]]:
    found: dict[K, list[V]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return list(found.items())


def _plain(found: Finding) -> Finding:
    return replace(found, sentence=printable(found.sentence), hint=printable(found.hint))
