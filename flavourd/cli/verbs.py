# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each verb of flavourctl understands, with examples."""

from __future__ import annotations

from flavourd.cli import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from flavourd.cli.adding import Verbs


def _list(verbs: Verbs) -> None:
    parser = verbs.add(
        "list",
        "tell which devices there are, and which flavour and driver hold them",
        "flavourctl list",
        "flavourctl list --class ethernet",
        "flavourctl list --flavour vfio --json=short",
        "flavourctl list '65:*' eth0",
    )
    parser.add_argument("--class", dest="of_class", metavar="TEXT", help="hex digits (02, 0200) or words (ethernet)")
    options.flavour(parser, "--flavour", metavar="NAME", help="only devices that this flavour holds")
    parser.add_argument("--driver", metavar="NAME", help="only devices of this driver; `-`: without a driver")
    parser.add_argument("--group", metavar="N", help="only members of this IOMMU group")
    options.devices(parser, "*", "only these")


def _tree(verbs: Verbs) -> None:
    parser = verbs.add(
        "tree",
        "draw the IOMMU groups: who is in them, and who keeps them from being opened",
        "flavourctl tree",
        "flavourctl tree 65:00.0",
        "flavourctl tree --all",
    )
    parser.add_argument("--all", action="store_true", help="also groups of nothing but bridges")
    options.devices(parser, "*", "only the groups of these")


def _show(verbs: Verbs) -> None:
    parser = verbs.add(
        "show",
        "tell all that is known of a device",
        "flavourctl show 65:00.0",
        "flavourctl show eth0 nvme1n1",
        "flavourctl show --json=pretty pci/0000:65:00.0",
    )
    options.devices(parser, "+", "JSON of several is one document after the other")


def _set(verbs: Verbs) -> None:
    parser = verbs.add(
        "set",
        "put devices into a flavour, or tell why they did not take it",
        "flavourctl set 65:00.0 vfio",
        "flavourctl set '65:*' nvme1n1 vfio",
        "flavourctl set 65:00.1 vfio --candidate mlx5_vfio_pci",
        "flavourctl set 65:00.0 vfio --group --persist",
    )
    options.devices(parser, "+")
    options.flavour(parser, "into", metavar="FLAVOUR", help="`default` is that of the native drivers")
    options.candidates(parser)
    options.force(parser)
    options.group(parser)
    options.persist(parser, "also at each boot from now on: write a policy file for each device")
    options.dry_run(parser)


def _reset(verbs: Verbs) -> None:
    parser = verbs.add(
        "reset",
        "give devices back to the drivers that they had",
        "flavourctl reset 65:00.0",
        "flavourctl reset '65:*' --dry-run",
        "flavourctl reset 65:00.0 --group --force held",
        "flavourctl reset 65:00.0 --persist",
        file="set",
    )
    options.devices(parser, "+")
    options.force(parser)
    options.group(parser)
    text = "also at each boot from now on: take the policy file of `set --persist` away, and keep other rules off"
    options.persist(parser, text)
    options.dry_run(parser)
    parser.set_defaults(into="default")


def _cancel(verbs: Verbs) -> None:
    parser = verbs.add(
        "cancel",
        "withdraw requests whose turn has not come, whoever made them; what has begun is not touched",
        "flavourctl cancel 65:00.0",
        "flavourctl cancel '65:*'",
    )
    options.devices(parser, "+")


def _explain(verbs: Verbs) -> None:
    parser = verbs.add(
        "explain",
        "tell what setting a flavour would do, and why; or what a code or a guard means",
        "flavourctl explain 65:00.0 vfio",
        "flavourctl explain eth0",
        "flavourctl explain all-refused",
        "flavourctl explain mounted",
    )
    subject = options.devices(parser, 1, "or a code or a guard that a message has in brackets")
    subject.metavar = "DEV|CODE|GUARD"
    options.completed(subject, "_flavourctl_codes")
    options.flavour(parser, "into", nargs="?", metavar="FLAVOUR", help="without: a plan for each that it can have")
    options.candidates(parser)
    options.force(parser)


def _monitor(verbs: Verbs) -> None:
    verbs.add(
        "monitor",
        "follow what flavourd does, step by step, until interrupted",
        "flavourctl monitor",
        "flavourctl monitor --json=short",
    )


def _history(verbs: Verbs) -> None:
    parser = verbs.add(
        "history",
        "tell what became of the last requests since boot",
        "flavourctl history",
        "flavourctl history -n 5 --full",
        "flavourctl history 65:00.0",
    )
    parser.add_argument("-n", "--lines", type=options.count, metavar="N", help="so many at most (100; 500 are kept)")
    parser.add_argument("--full", action="store_true", help="the whole story of each")
    options.devices(parser, "?", "only of this one")


def _status(verbs: Verbs) -> None:
    verbs.add(
        "status",
        "tell how flavourd itself is doing",
        "flavourctl status",
        "flavourctl -H node7 status --json=pretty",
    )


def _policy(verbs: Verbs) -> None:
    from flavourd.cli.policy_verbs import VERBS  # seven parsers, which no other verb has to wait for

    parser = verbs.add(
        "policy",
        "look at the rules that say which devices live in which flavour, and change them",
        "flavourctl policy check",
        "flavourctl policy edit",
        "flavourctl policy match 65:00.0",
        "flavourctl policy diff",
    )
    known = verbs.below(parser, "policy")
    for add in VERBS:
        add(known)


def _reload(verbs: Verbs) -> None:
    verbs.add(
        "reload",
        "have flavourd read its configuration and the policy anew",
        "flavourctl reload",
        "flavourctl -H node7 reload",
    )


def _initramfs(verbs: Verbs) -> None:
    parser = verbs.add(
        "initramfs",
        "have the initramfs keep native drivers off the devices that the policy puts into a flavour",
        "flavourctl initramfs on",
        "flavourctl initramfs status",
    )
    known = verbs.below(parser, "initramfs")
    text = (
        "put the devices of the policy, as it is now, into the initramfs of every kernel, but for those that the host"
        " uses; to be said again when the policy has changed"
    )
    known.add("on", text, "flavourctl initramfs on", file="initramfs")
    known.add("off", "take it out again", "flavourctl initramfs off", file="initramfs")
    text = "tell whether it is in there, and whether the policy has changed since"
    known.add("status", text, "flavourctl initramfs status", file="initramfs")


def _complete(verbs: Verbs) -> None:
    parser = verbs.add("complete", None, "flavourctl complete devices")  # for the shell
    parser.add_argument("what", choices=("devices", "flavours", "codes", "guards"))


# In the order of the help
VERBS: dict[str, Callable[[Verbs], None]] = {
    "list": _list,
    "tree": _tree,
    "show": _show,
    "set": _set,
    "reset": _reset,
    "cancel": _cancel,
    "explain": _explain,
    "monitor": _monitor,
    "history": _history,
    "status": _status,
    "policy": _policy,
    "reload": _reload,
    "initramfs": _initramfs,
    "complete": _complete,
}
