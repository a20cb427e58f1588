# SPDX-License-Identifier: LGPL-2.1-or-later
"""What callers are told of the policy, and how an explicit request becomes part of it."""

from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from flavourd.errors import Code, FlavourError
from flavourd.keeper.persisting import _put
from flavourd.sysfs import Sysfs
from flavourd.udevrules import UdevRules
from flavourd.verdict import Means, Verdict
from flavourd.wishes import Wish, Wishes

from .conftest import Tree
from .house import live
from .test_ipc_manager import _GONE, _HELD, _NATIVE, Office, host, office

_FOLDER = "etc/flavourd/policy.d"


@pytest.fixture(autouse=True)
def _udev_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UdevRules, "reload", lambda _self: None)


def write(root: Path, text: str, name: str = "50-a.yaml") -> None:
    file = root / _FOLDER / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    for path in (file, file.parent, file.parent.parent):
        path.chmod(0o755)


def rule(device: object, flavour: str = "vfio", more: str = "") -> str:
    return f'rules:\n  - {{name: mine, flavour: {flavour}, match: {{address: "{device}"}}{more}}}\n'


def keeping(root: Path, test: Callable[[Office], Coroutine[None, None, None]], may_change: bool = True) -> None:
    """In an office that keeps the policy."""

    async def inner(house: object) -> None:
        async with office(root, house, may_change, 60.0) as made:  # type: ignore[arg-type]
            await made.keeper.start()
            await made.keeper.settled()
            await test(made)
            while not made.keeper.idle:
                await made.keeper.settled()
                await made.desk.turns.all_answered()
            made.keeper.stop()

    live(root, inner)


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / _FOLDER).iterdir())


# --- what the policy means


def test_a_device_is_matched_by_the_policy_on_disk_with_the_reason_of_every_rule(tree: Tree) -> None:
    root = host(tree)
    write(root, rule(_NATIVE, more=", mode: observe"))
    write(root, rule(_HELD), "40-b.yaml")

    async def test(office: Office) -> None:
        told = await office.told("MatchPolicy", device=_NATIVE.name)
        verdict = told["verdict"]
        assert (verdict["device"], verdict["means"], verdict["flavour"], verdict["driver"]) == (
            str(_NATIVE),
            "observed",
            "vfio",
            "e1000e",
        )
        place = f"{root}/{_FOLDER}/50-a.yaml:2 (mine)"
        assert verdict["rule"] == {"number": 1, "place": place, "name": "mine", "flavour": "vfio", "mode": "observe"}
        assert [(why["rule"]["number"], why["matches"]) for why in told["rules"]] == [(0, False), (1, True)]
        assert told["loaded"] is True

        write(root, rule(_GONE))
        told = await office.told("MatchPolicy", device=_NATIVE.name)
        assert (told["verdict"]["rule"], told["verdict"]["means"], told["verdict"]["flavour"]) == (
            None,
            "none",
            "default",
        )
        assert told["loaded"] is False
        assert (await office.told("MatchPolicy", device=str(_GONE)))["code"] == "no-device"
        assert (await office.told("MatchPolicy", device="what"))["code"] == "bad-name"

    keeping(root, test)


def test_the_difference_is_told_of_all_devices_that_a_rule_is_for_and_nothing_is_touched(tree: Tree) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        assert await office.told("DiffPolicy") == {"verdicts": [], "unseen": [], "loaded": True}
        write(root, 'rules:\n  - {flavour: vfio, match: {address: "0000:0*"}}\n')
        told = await office.told("DiffPolicy")
        assert [(each["device"], each["means"]) for each in told["verdicts"]] == [
            (str(_NATIVE), "change"),
            (str(_HELD), "change"),  # its driver_override does not say so
        ]
        assert told["loaded"] is False
        assert office.history.last(10, None) == []

    keeping(root, test)


def test_the_difference_has_the_members_that_go_with_a_group(tree: Tree) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        write(root, rule(_NATIVE, more=", group: true"))
        told = await office.told("DiffPolicy")
        assert [each["device"] for each in told["verdicts"]] == [str(_NATIVE), str(_HELD)]

    keeping(root, test)


@pytest.mark.parametrize(("method", "parameters"), [("MatchPolicy", {"device": _NATIVE.name}), ("DiffPolicy", {})])
def test_a_policy_that_cannot_be_read_is_refused_with_its_mistakes(
    tree: Tree, method: str, parameters: dict[str, str]
) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        write(root, "rules:\n  - {flavour: vfoi}\n  - {flavor: vfio}\n")
        told = await office.told(method, **parameters)
        assert (told["error"], told["code"]) == ("Refused", "policy")
        assert "50-a.yaml:2:" in told["message"]
        assert "50-a.yaml:3:" in told["message"]

    keeping(root, test)


# --- what is in force


def test_the_status_says_what_is_in_force_and_why_it_is_not_what_stands_on_disk(tree: Tree) -> None:
    root = host(tree)
    write(root, rule(_NATIVE, more=", mode: observe"))

    async def test(office: Office) -> None:
        standing = (await office.told("Status"))["policy"]
        assert (standing["rules"], standing["files"], standing["error"]) == (1, [f"{root}/{_FOLDER}/50-a.yaml"], None)
        since = standing["since"]
        assert since
        write(root, "rules:\n  - {flavour: vfoi}\n")
        told = await office.told("Reload")
        assert (told["error"], told["code"]) == ("Refused", "policy")
        standing = (await office.told("Status"))["policy"]
        assert (standing["rules"], standing["since"]) == (1, since)
        assert "vfoi" in standing["error"]
        write(root, "")
        assert await office.told("Reload") == {}
        assert (await office.told("Status"))["policy"]["rules"] == 0

    keeping(root, test)


def test_a_device_that_is_contested_is_listed_so(tree: Tree) -> None:
    async def test(office: Office) -> None:
        office.keeper.memories.verdicts[_NATIVE] = Verdict(_NATIVE, None, Means.CONTESTED, "")
        listed = (await office.told("List"))["devices"]
        assert [(one["id"], one["state"]) for one in listed] == [(str(_NATIVE), "contested"), (str(_HELD), None)]
        assert (await office.told("Status"))["policy"]["contested"] == [str(_NATIVE)]

    keeping(host(tree), test)


# --- persist


def test_what_was_set_to_persist_has_a_file_and_no_wish(tree: Tree) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", persist=True)
        (outcome,) = told["outcomes"]
        assert files(root) == [f"10-persist-pci:{_HELD.name}.yaml"]
        assert any(f"10-persist-pci:{_HELD.name}.yaml keeps it so" in note for note in outcome["notes"])
        assert list(Wishes(root).devices()) == []
        assert (await office.told("Status"))["policy"]["rules"] == 1

        told = await office.told("Reset", devices=[str(_NATIVE)], persist=True)
        assert told["outcomes"][0]["notes"][-1] == "no policy file was for it"
        assert list(Wishes(root).devices()) == []

    keeping(root, test)


def test_a_reset_that_is_to_persist_takes_the_file_away(tree: Tree) -> None:
    root = host(tree)
    write(root, rule(_NATIVE, more=", mode: observe"), f"10-persist-pci:{_NATIVE.name}.yaml")

    async def test(office: Office) -> None:
        told = await office.told("Reset", devices=[str(_NATIVE)], persist=True)
        assert told["outcomes"][0]["notes"][-1] == f"10-persist-pci:{_NATIVE.name}.yaml is gone"
        assert files(root) == []
        assert (await office.told("Status"))["policy"]["rules"] == 0

    keeping(root, test)


def test_and_puts_one_for_default_there_if_another_rule_would_have_the_device(tree: Tree) -> None:
    root = host(tree)
    write(root, rule(_NATIVE, more=", mode: observe"))

    async def test(office: Office) -> None:
        told = await office.told("Reset", devices=[str(_NATIVE)], persist=True)
        assert "would put it into flavour vfio" in told["outcomes"][0]["notes"][-1]
        assert files(root) == [f"10-persist-pci:{_NATIVE.name}.yaml", "50-a.yaml"]
        verdict = (await office.told("MatchPolicy", device=str(_NATIVE)))["verdict"]
        assert (verdict["means"], verdict["flavour"]) == ("satisfied", "default")

    keeping(root, test)


def test_a_rule_that_comes_first_is_told(tree: Tree) -> None:
    root = host(tree)
    write(root, rule(_HELD, "default", ", mode: observe"), "05-first.yaml")

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", persist=True)
        assert "05-first.yaml:2 (mine) comes first" in told["outcomes"][0]["notes"][-1]

    keeping(root, test)


def test_what_is_not_done_is_not_written_down_and_neither_is_a_dry_run(tree: Tree) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        assert "plans" in await office.told("Set", devices=[str(_HELD)], flavour="vfio", persist=True, dry_run=True)
        told = await office.told("Set", devices=[str(_HELD), str(_NATIVE)], flavour="vfoi", persist=True)
        assert told["error"] == "NotDone"
        assert not (root / _FOLDER).exists()

    keeping(root, test)


def test_into_a_policy_that_cannot_be_read_nothing_is_written_and_nothing_is_switched(tree: Tree) -> None:
    root = host(tree)
    write(root, "rules: {}")

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", persist=True)
        assert (told["error"], told["code"]) == ("Refused", "policy")
        assert office.history.last(10, None) == []

    keeping(root, test)


def test_what_cannot_be_written_down_is_told_with_what_was_done(tree: Tree) -> None:
    root = host(tree)
    write(root, "")
    (root / _FOLDER / f".10-persist-pci:{_HELD.name}.yaml.new").mkdir()

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", persist=True)
        assert (told["error"], told["code"]) == ("NotDone", "policy")
        assert "could not be written down" in told["message"]
        assert [outcome["kind"] for outcome in told["outcomes"]] == ["already"]
        assert list(Wishes(root).devices()) == [_HELD], "so it holds until the next boot"

    keeping(root, test)


def test_a_rule_that_says_more_and_keeps_the_device_there_is_not_put_out_of_force(tree: Tree) -> None:
    root = host(tree)
    write(root, rule(_HELD, more=', device-node: {group: "36"}'))

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", persist=True)
        assert told["outcomes"][0]["notes"][-1] == f"{root}/{_FOLDER}/50-a.yaml:2 (mine) keeps it so"
        assert files(root) == ["50-a.yaml"]
        assert list(Wishes(root).devices()) == []

    keeping(root, test)


@pytest.mark.parametrize("more", [", mode: prefer", ", present: keep", ', expect: {vendor: "10de"}'])
def test_one_that_does_not_always_keep_it_is_and_that_is_told(tree: Tree, more: str) -> None:
    root = host(tree)
    write(root, rule(_HELD, more=more))

    async def test(office: Office) -> None:
        told = await office.told("Set", devices=[str(_HELD)], flavour="vfio", persist=True)
        assert "50-a.yaml:2 (mine) is not asked for it any more" in told["outcomes"][0]["notes"][-1]
        assert files(root) == [f"10-persist-pci:{_HELD.name}.yaml", "50-a.yaml"]

    keeping(root, test)


@pytest.mark.parametrize("method", ["Set", "Reset"])
def test_what_a_rule_that_comes_first_would_undo_holds_until_the_next_boot(tree: Tree, method: str) -> None:
    root = host(tree)
    device, first, asked = (_HELD, "default", {"flavour": "vfio"}) if method == "Set" else (_NATIVE, "vfio", {})
    write(root, rule(device, first), "05-first.yaml")
    Wishes(root).save(Wish(device, Sysfs(root).instance(device), asked.get("flavour", "default"), "", "varlink"))

    async def test(office: Office) -> None:
        told = await office.told(method, devices=[str(device)], persist=True, **asked)
        assert "05-first.yaml:2 (mine) comes first" in told["outcomes"][0]["notes"][-1]
        assert list(Wishes(root).devices()) == [device]
        assert office.keeper.memories.verdicts[device].means is Means.LEFT

    keeping(root, test)


def test_no_file_is_written_that_the_policy_could_not_be_read_with(tree: Tree) -> None:
    root = host(tree)

    async def test(office: Office) -> None:
        names = ["vfio_pci", "vfio_pci*", "@softdep"]
        told = await office.told(
            "Set", devices=[str(_HELD)], flavour="vfio", candidates=names, force=["table"], persist=True
        )
        text = (root / _FOLDER / files(root)[0]).read_text(encoding="utf-8")
        assert text.count("force: true") == 1, told
        assert (await office.told("Status"))["policy"]["rules"] == 1
        with pytest.raises(FlavourError, match="vfoi"):
            _put(root, _HELD, "rules: [{flavour: vfoi}]\n", office.desk.flavours)
        assert (root / _FOLDER / files(root)[0]).read_text(encoding="utf-8") == text

    keeping(root, test)


def test_an_explicit_request_is_forgotten_only_when_the_new_policy_is_in_force(tree: Tree) -> None:
    """Else the old one would take the device back meanwhile."""
    root = host(tree)
    write(root, rule(_NATIVE), f"10-persist-pci:{_NATIVE.name}.yaml")
    Wishes(root).save(Wish(_NATIVE, Sysfs(root).instance(_NATIVE), "default", "", "varlink"))

    async def test(office: Office) -> None:
        force = office.keeper.force
        read = force.read

        async def slow() -> None:
            office.keeper.look([_NATIVE])
            await office.keeper.settled()
            assert office.keeper.memories.verdicts[_NATIVE].means is Means.LEFT
            await read()

        force.read = slow  # type: ignore[method-assign]
        told = await office.told("Reset", devices=[str(_NATIVE)], persist=True)
        assert [outcome["kind"] for outcome in told["outcomes"]] == ["already"]
        assert list(Wishes(root).devices()) == []

        async def broken() -> None:
            raise FlavourError(Code.STUCK, "it took too long")

        write(root, rule(_NATIVE, more=", mode: observe"))
        force.read = broken  # type: ignore[method-assign]
        told = await office.told("Reset", devices=[str(_NATIVE)], persist=True)
        assert (told["error"], told["code"]) == ("NotDone", "stuck")
        assert "could not be read anew" in told["message"]
        assert f"10-persist-pci:{_NATIVE.name}.yaml keeps it so" in told["message"]
        assert list(Wishes(root).devices()) == [_NATIVE]

    keeping(root, test)
