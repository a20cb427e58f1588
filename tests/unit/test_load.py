# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which files are a host's policy, in which order, and whose files are not believed."""

import os
import stat
from pathlib import Path

import pytest

from flavourd.errors import Code, FlavourError
from flavourd.policy.language import Match, Policy
from flavourd.policy.load import Loaded, check, check_texts, load, read_policy
from flavourd.policy.problem import Severity
from flavourd.policy.trust import distrusted

from .conftest import Tree

_ETC, _RUN, _LOCAL, _USR = (f"{place}/flavourd/policy.d" for place in ("etc", "run", "usr/local/lib", "usr/lib"))
_EXAMPLES = sorted((Path(__file__).parents[2] / "config/policy.d").glob("*.yaml"))


def rule(vendor: str) -> str:
    return f'rules: [{{match: {{vendor: "{vendor}"}}, flavour: vfio}}]'


def loaded(root: Path) -> Loaded:
    return load(root, ["vfio"])


def vendors(root: Path) -> list[str]:
    policy = loaded(root).policy
    assert policy is not None, loaded(root).problems
    return [str(placed.rule.match.vendor) for placed in policy.rules]


def told(root: Path) -> list[str]:
    """All problems, with the root taken away."""
    return [str(problem).replace(f"{root}/", "/") for problem in loaded(root).problems]


def sources(root: Path) -> list[tuple[str, str | None, bool]]:
    return [
        (each.path.removeprefix(str(root)), each.masked_by and each.masked_by.removeprefix(str(root)), each.masks)
        for each in loaded(root).sources
    ]


def test_without_any_file_there_is_a_policy_of_no_rules(tree: Tree) -> None:
    assert loaded(tree({})) == Loaded(Policy())
    assert read_policy(tree({f"{_ETC}/": "", f"{_USR}/README": "x"}), ["vfio"]) == Policy()


def test_files_are_read_by_name_whatever_their_place(tree: Tree) -> None:
    root = tree(
        {
            f"{_USR}/10-a.yaml": rule("1"),
            f"{_ETC}/20-b.yaml": rule("2"),
            f"{_RUN}/15.yaml": rule("3"),
            f"{_LOCAL}/9.yaml": rule("4"),
        }
    )
    assert vendors(root) == ["1", "3", "2", "4"]
    policy = read_policy(root, ["vfio"])
    assert policy.files == tuple(
        str(root / path) for path in (f"{_USR}/10-a.yaml", f"{_RUN}/15.yaml", f"{_ETC}/20-b.yaml", f"{_LOCAL}/9.yaml")
    )
    assert [placed.number for placed in policy.rules] == [0, 1, 2, 3]
    assert str(policy.rules[1]) == f"{root / _RUN}/15.yaml:1"


def test_a_rule_knows_the_line_of_its_first_key(tree: Tree) -> None:
    text = "rules:\n- flavour: vfio\n  match: {vendor: '1'}\n\n-   # late\n    name: the second\n    flavour: vfio\n"
    policy = read_policy(tree({f"{_ETC}/x.yaml": text}), ["vfio"])
    assert [placed.line for placed in policy.rules] == [2, 6]
    assert str(policy.rules[1]).endswith("x.yaml:6 (the second)")


def test_of_files_of_one_name_the_first_place_wins(tree: Tree) -> None:
    root = tree({f"{place}/x.yaml": rule(f"{number}") for number, place in enumerate((_USR, _LOCAL, _RUN, _ETC))})
    assert vendors(root) == ["3"]
    assert sources(root) == [
        (f"/{_ETC}/x.yaml", None, False),
        *((f"/{place}/x.yaml", f"/{_ETC}/x.yaml", False) for place in (_RUN, _LOCAL, _USR)),
    ]
    (root / _ETC / "x.yaml").unlink()
    assert vendors(root) == ["2"]


@pytest.mark.parametrize("mask", ["", "-> /dev/null"])
def test_an_empty_file_or_a_link_to_dev_null_hides_others(tree: Tree, mask: str) -> None:
    root = tree({f"{_USR}/x.yaml": "rubbish: [", f"{_USR}/y.yaml": rule("1"), f"{_ETC}/x.yaml": mask})
    assert vendors(root) == ["1"]
    assert sources(root)[:2] == [(f"/{_ETC}/x.yaml", None, True), (f"/{_USR}/x.yaml", f"/{_ETC}/x.yaml", False)]


def test_a_file_of_comments_alone_is_a_file_without_rules(tree: Tree) -> None:
    root = tree({f"{_ETC}/x.yaml": "# nothing yet\n"})
    assert loaded(root).policy == Policy((), (str(root / _ETC / "x.yaml"),))


def test_other_names_are_not_read_and_one_that_looks_like_it_is_told(tree: Tree) -> None:
    names = ("x.yml", "x.yaml~", "x.yaml.dpkg-old", ".x.yaml", ".x.yaml.new", "README")
    root = tree({f"{_ETC}/{name}": "rubbish: [" for name in names} | {f"{_ETC}/y.yaml": rule("1")})
    assert vendors(root) == ["1"]
    assert told(root) == [f"/{_ETC}/x.yml: warning: it is not read, for its name does not end in .yaml; rename it"]


def test_one_broken_file_leaves_no_policy_and_all_is_told(tree: Tree) -> None:
    root = tree({f"{_ETC}/a.yaml": "rules: [{}]\nmore: 1\n", f"{_ETC}/b.yaml": rule("1"), f"{_RUN}/c.yaml": "rules: x"})
    assert loaded(root).policy is None
    assert told(root) == [
        f"/{_ETC}/a.yaml:1:9: 'flavour' is missing",
        f"/{_ETC}/a.yaml:2:1: 'more' is not known here; known here: rules",
        f"/{_RUN}/c.yaml:1:8: a list is expected here",
    ]
    with pytest.raises(FlavourError) as caught:
        read_policy(root, ["vfio"])
    assert caught.value.code is Code.POLICY
    assert all(str(problem) in caught.value.sentence for problem in loaded(root).problems)
    assert "flavourctl policy check" in caught.value.hint


def test_an_error_in_one_sentence_does_not_grow_without_end(tree: Tree) -> None:
    root = tree({f"{_ETC}/{number:03}.yaml": "x: 1" for number in range(100)})
    with pytest.raises(FlavourError, match=r"\| and 92 more"):
        read_policy(root, ["vfio"])


def test_a_warning_alone_takes_no_policy_away(tree: Tree) -> None:
    root = tree({f"{_ETC}/a.yaml": "rules: [{flavour: vfio}]", f"{_ETC}/b.yaml": rule("1")})
    (problem,) = loaded(root).problems
    assert problem.severity is Severity.WARNING
    assert str(problem).endswith(
        f"b.yaml:1:9: warning: this is never reached: the rule in {root / _ETC}/a.yaml:1 matches every device"
    )
    assert len(read_policy(root, ["vfio"]).rules) == 2


def test_flavours_are_those_of_the_host(tree: Tree) -> None:
    root = tree({f"{_ETC}/a.yaml": rule("1")})
    assert load(root, ["default", "vfio"]).policy
    assert [problem.message for problem in load(root, ["other"]).problems] == ["there is no flavour 'vfio'"]


# --- files that are not believed, or not there


def test_what_others_may_write_is_refused_with_the_command_that_mends_it(tree: Tree) -> None:
    root = tree({f"{_ETC}/{name}.yaml": rule("1") for name in "abc"})
    file = root / _ETC / "a.yaml"
    file.chmod(0o646)
    assert told(root) == [f"/{_ETC}/a.yaml: everybody may write to it (-rw-r--rw-); chmod o-w /{_ETC}/a.yaml"]
    file.chmod(0o644)
    (root / _ETC).chmod(0o777)
    assert told(root) == [f"/{_ETC}: everybody may write to it (drwxrwxrwx); chmod o-w /{_ETC}"]
    (root / _ETC).chmod(0o755)
    (root / "etc/flavourd").chmod(0o757)
    assert told(root) == ["/etc/flavourd: everybody may write to it (drwxr-xrwx); chmod o-w /etc/flavourd"]


def test_what_belongs_to_others_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("", encoding="utf-8")
    there = file.stat()

    def said(user: int, group: int, mode: int) -> str | None:
        """Of a file like that one, but for this."""
        status = os.stat_result([*there[:4], user, group, *there[6:]])
        found = distrusted(file, os.stat_result([stat.S_IFREG | mode, *status[1:]]))
        return str(found).removeprefix(f"{file}: ") if found else None

    another = os.geteuid() + 4242
    theirs = f"it belongs to user {another}, and only root may say what becomes of devices; chown root {file}"
    assert said(another, 0, 0o644) == theirs
    assert said(0, 5, 0o664) == f"group 5 may write to it (-rw-rw-r--); chmod g-w {file}"
    # An access control list may stand behind it.
    assert said(0, 0, 0o664) == f"group 0 may write to it (-rw-rw-r--); chmod g-w {file}"
    assert said(0, 0, 0o644) is None


def test_a_link_is_as_good_as_what_it_leads_to(tree: Tree) -> None:
    root = tree({"srv/site": rule("1"), f"{_ETC}/a.yaml": "-> ../../../srv/site"})
    assert vendors(root) == ["1"]
    (root / "srv/site").chmod(0o666)
    assert len(told(root)) == 1
    (root / "srv/site").chmod(0o644)
    (root / "srv").chmod(0o777)  # anybody may put another file in its place
    assert told(root) == [
        f"/{_ETC}/a.yaml: it is a link into /srv: everybody may write to it (drwxrwxrwx); chmod o-w /srv"
    ]
    (root / "srv").chmod(0o1777)
    assert told(root) == []


def test_what_is_no_plain_file_is_told_and_never_opened(tree: Tree) -> None:
    root = tree(
        {
            f"{_ETC}/a.yaml/": "",
            f"{_ETC}/c.yaml": "-> /dev/zero",
            f"{_ETC}/d.yaml": "-> nowhere",
            f"{_ETC}/e.yaml": "-> e.yaml",
        }
    )
    os.mkfifo(root / _ETC / "b.yaml")
    hint = "a policy file is a plain file, or a link to one or to /dev/null"
    assert told(root) == [
        f"/{_ETC}/a.yaml: it is a directory; {hint}",
        f"/{_ETC}/b.yaml: it is no plain file; {hint}",
        f"/{_ETC}/c.yaml: it is no plain file; {hint}",
        f"/{_ETC}/d.yaml: it cannot be read: No such file or directory; it is a link to nowhere, which is not there",
        f"/{_ETC}/e.yaml: it cannot be read: Too many levels of symbolic links",
    ]


def test_what_is_no_text_or_too_long_is_told(tree: Tree) -> None:
    root = tree(
        {
            f"{_ETC}/a.yaml": "rules:\n# \udcff",
            f"{_ETC}/b.yaml": "#" * ((1 << 20) + 1),
            f"{_ETC}/c.yaml": "#" * (1 << 20),
        }
    )
    assert told(root) == [
        f"/{_ETC}/a.yaml: it cannot be read: byte 9 (line 2) is not UTF-8; save it as UTF-8",
        f"/{_ETC}/b.yaml: it is longer than 1 MiB; several files are read as one",
    ]


def test_a_place_that_is_no_directory_or_a_name_that_nobody_can_read_is_told(tree: Tree) -> None:
    root = tree({_ETC: "x", f"{_RUN}/a\x1bb.yaml": "x"})
    assert told(root) == [
        f"/{_ETC}: it cannot be looked into: Not a directory",
        f"/{_RUN}: a file's name is not printable: 'a\\x1bb.yaml'; rename it",
    ]


# --- files that somebody names, and drafts


def test_a_named_file_is_read_whoever_it_belongs_to(tmp_path: Path) -> None:
    one, other = tmp_path / "b.yaml", tmp_path / "a"
    one.write_text(rule("1"), encoding="utf-8")
    other.write_text(rule("2"), encoding="utf-8")
    one.chmod(0o666)
    policy = check([one, other], ["vfio"]).policy
    assert policy is not None
    assert [placed.rule.match for placed in policy.rules] == [Match(vendor="1"), Match(vendor="2")]


def test_a_named_file_must_be_there_and_may_be_empty(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert check([empty], []).policy == Policy((), (str(empty),))
    (problem,) = check([tmp_path / "none"], []).problems
    assert str(problem) == f"{tmp_path}/none: it cannot be read: No such file or directory"


def test_texts_are_checked_as_files_are() -> None:
    assert check_texts([("<stdin>", rule("1"))], ["vfio"]).policy
    (problem,) = check_texts([("<stdin>", "x")], ["vfio"]).problems
    assert str(problem) == "<stdin>:1:1: a mapping (key: value) is expected here"


@pytest.mark.parametrize("there", [True, False])
def test_a_draft_is_read_in_place_of_what_is_there(tree: Tree, there: bool) -> None:
    root = tree(
        {f"{_ETC}/a.yaml": rule("1"), f"{_USR}/b.yaml": rule("2"), **({f"{_ETC}/b.yaml": "x"} if there else {})}
    )
    policy = load(root, ["vfio"], (root / _ETC / "b.yaml", rule("3"))).policy
    assert policy is not None
    assert [placed.rule.match.vendor for placed in policy.rules] == ["1", "3"]
    (problem,) = load(root, ["vfio"], (root / _ETC / "b.yaml", "rules: 1")).problems
    assert problem.file == str(root / _ETC / "b.yaml")


# --- what is shipped


@pytest.mark.parametrize("file", _EXAMPLES, ids=lambda file: file.stem)
def test_an_example_holds(file: Path) -> None:
    found = check([file], ["vfio"])
    assert [problem for problem in found.problems if "this host has no" not in problem.message] == []
    assert found.policy
    assert found.policy.rules


def test_there_are_examples() -> None:
    assert len(_EXAMPLES) >= 6
