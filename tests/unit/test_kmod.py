# SPDX-License-Identifier: LGPL-2.1-or-later
"""Module tables and modprobe.d, read from temporary trees with the real modprobe.

modprobe also reads this machine's kernel command line: blacklists are asked for single modules, never as a whole.
"""

import os
from pathlib import Path

import pytest

from flavourd.kmod import Kmod
from flavourd.module_index import Alias, ModuleIndex, module_name

from .conftest import Tree

_RELEASE = "6.12.0-test"
_LIB = f"lib/modules/{_RELEASE}"
_PREFIXES = frozenset({"vfio_pci"})
_UNIVERSALS = frozenset({"vfio_pci"})
_TABLE = """\
# Aliases extracted from modules themselves.
alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e
alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci
alias vfio_pci:v00008086d000010D3sv*sd*bc*sc*i* test-vfio-pci
alias vfio_pciexpress:v* wrong_prefix
alias xvfio_pci:v* wrong_prefix
alias symbol:vfio_pci_core_enable vfio_pci_core
"""
_BUILTIN = (
    "ext4.license=GPL\0"
    "hidden.alias=pci:v00001AF4d*sv*sd*bc*sc*i*\0"
    "built_in.alias=vfio_pci:v00001AF4d00001041sv*sd*bc*sc*i*\0"
    "built_in.alias=vfio_pci:v00001AF4d00001042sv*sd*bc*sc*i*\0"
    "built_in.description=says .alias=vfio_pci:x\0"
)
_FILES = {
    f"{_LIB}/modules.alias": _TABLE,
    f"{_LIB}/modules.builtin.modinfo": _BUILTIN,
    f"{_LIB}/modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/drivers/built-in.ko\nkernel/drivers/hidden.ko\n",
    f"{_LIB}/modules.dep": (
        "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/pci/vfio-pci-core.ko.xz kernel/vfio/vfio.ko.xz\n"
        "kernel/drivers/vfio/pci/vfio-pci-core.ko.xz: kernel/vfio/vfio.ko.xz\n"
        "kernel/vfio/vfio.ko.xz:\n"
        "updates/x-vfio-pci.ko: kernel/drivers/vfio/pci/vfio-pci.ko.xz\n"
        "tableless.ko.zst:\n"
    ),
}


def read(root: Path) -> ModuleIndex:
    return Kmod(root, _RELEASE).index(_PREFIXES, _UNIVERSALS)


def with_config(tree: Tree, text: str) -> ModuleIndex:
    return read(tree(_FILES | {"etc/modprobe.d/test.conf": text}))


def test_aliases_come_from_modprobe_d_then_modules_alias_then_built_in_modules(tree: Tree) -> None:
    index = with_config(tree, "alias vfio_pci:v00001111* mine\nalias pci:v00001111* native\nalias short mine\n")
    assert index.aliases == (
        Alias("vfio_pci:v00001111*", "mine"),
        Alias("vfio_pci:v*d*sv*sd*bc*sc*i*", "vfio_pci"),
        Alias("vfio_pci:v00008086d000010D3sv*sd*bc*sc*i*", "test_vfio_pci"),
        Alias("vfio_pci:v00001AF4d00001041sv*sd*bc*sc*i*", "built_in"),
        Alias("vfio_pci:v00001AF4d00001042sv*sd*bc*sc*i*", "built_in"),
    )
    assert index.warnings == ()


def test_without_prefixes_there_are_no_aliases(tree: Tree) -> None:
    assert Kmod(tree(_FILES), _RELEASE).index(frozenset(), _UNIVERSALS).aliases == ()


@pytest.mark.parametrize(
    "place", ["etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d"]
)
def test_every_directory_of_modprobe_d_is_read(tree: Tree, place: str) -> None:
    assert "banned" in read(tree(_FILES | {f"{place}/x.conf": "blacklist banned\n"})).blacklisted


def test_a_file_in_etc_masks_its_namesake_as_kmod_has_it(tree: Tree) -> None:
    root = tree(_FILES | {"etc/modprobe.d/x.conf": "", "lib/modprobe.d/x.conf": "blacklist banned\n"})
    assert "banned" not in read(root).blacklisted


def test_a_blacklisted_module_is_known_by_either_spelling(tree: Tree) -> None:
    index = with_config(tree, "blacklist one-two\nblacklist three_four\n")
    assert {"one_two", "three_four"} <= index.blacklisted


@pytest.mark.parametrize(
    ("config", "modules"),
    [
        ("softdep vfio_pci pre: a b", ("a", "b")),
        ("softdep vfio-pci pre: one-two", ("one_two",)),
        ("softdep vfio_pci pre: a b post: c d", ("a", "b")),
        ("softdep vfio_pci post: c d pre: a b", ("a", "b")),
        ("softdep vfio_pci post: c d", ()),
        ("softdep vfio_pci pre: a\nsoftdep vfio_pci pre: b post: c", ("a", "b")),
        ("softdep vfio_pci_core pre: a", ()),
        ("softdep other pre: a", ()),
    ],
)
def test_softdeps_of_the_universal_module_are_its_pre_modules_only(
    tree: Tree, config: str, modules: tuple[str, ...]
) -> None:
    # kmod 30 prints `pre: a bpost: c`: without the space that others put there.
    assert with_config(tree, config + "\n").soft_pre == {"vfio_pci": modules}


def test_softdeps_are_found_under_either_spelling_of_the_universal_module(tree: Tree) -> None:
    root = tree(_FILES | {"etc/modprobe.d/test.conf": "softdep vfio_pci pre: a\nsoftdep vfio-pci pre: b\n"})
    universals = frozenset({"vfio-pci"})
    assert Kmod(root, _RELEASE).index(_PREFIXES, universals).soft_pre == {"vfio-pci": ("a", "b")}


def test_softdeps_that_modules_themselves_declare_are_read(tree: Tree) -> None:
    root = tree(_FILES | {f"{_LIB}/modules.softdep": "softdep vfio_pci pre: declared\n"})
    kmod = Kmod(root, _RELEASE)
    assert kmod.index(_PREFIXES, _UNIVERSALS).soft_pre == {"vfio_pci": ("declared",)}


def test_table_prefixes_tell_of_every_module_there_is_which_tables_it_has(tree: Tree) -> None:
    tables = {
        "e1000e": {"pci"},
        "test_vfio_pci": {"vfio_pci"},
        "vfio_pci": {"vfio_pci"},
        "vfio_pci_core": {"symbol"},
        "wrong_prefix": {"vfio_pciexpress", "xvfio_pci"},
        "built_in": {"vfio_pci"},
        "hidden": {"pci"},
    }
    assert read(tree(_FILES)).table_prefixes == tables | dict.fromkeys(
        ("ext4", "vfio", "x_vfio_pci", "tableless"), frozenset()
    )


def test_of_a_long_table_every_prefix_counts_and_modules_alike_in_name_are_told_apart(tree: Tree) -> None:
    lines = [("pci:a", "one"), ("pci:b", "one"), ("pci:c", "one_more"), ("pci:d", "one"), ("of:N*T*Cx", "one")]
    text = "".join(f"alias {pattern} {module}\n" for pattern, module in lines) + "alias fs-one one\n"
    root = tree(_FILES)
    (root / _LIB / "modules.alias").write_text(text)
    prefixes = read(root).table_prefixes
    assert prefixes["one"] == {"pci", "of"}
    assert prefixes["one_more"] == {"pci"}


def test_built_in_modules_are_known(tree: Tree) -> None:
    assert read(tree(_FILES)).builtin == {"ext4", "built_in", "hidden"}


@pytest.mark.parametrize("spelling", ["vfio_pci", "vfio-pci"])
def test_what_the_universal_module_is_made_of_is_known(tree: Tree, spelling: str) -> None:
    index = Kmod(tree(_FILES), _RELEASE).index(_PREFIXES, frozenset({spelling, "none"}))
    assert index.libraries == {spelling: {"vfio_pci_core", "vfio"}, "none": frozenset()}


@pytest.mark.parametrize(
    ("options", "noiommu"),
    [
        *((f"options vfio enable_unsafe_noiommu_mode{value}", True) for value in ("=1", "=y", "=Y", "=on", "=t", "")),
        ("options vfio enable_unsafe_noiommu_mode=true", True),
        *(
            (f"options vfio enable_unsafe_noiommu_mode={value}", False)
            for value in ("0", "n", "N", "off", "f", "false")
        ),
        ("options vfio other=1 enable_unsafe_noiommu_mode=1", True),
        ("options vfio other=1", False),
        ("options vfio x_enable_unsafe_noiommu_mode=1", False),
        ("options vfio_pci enable_unsafe_noiommu_mode=1", False),
        ("options vfio enable_unsafe_noiommu_mode=1 enable_unsafe_noiommu_mode=0", False),
        ("options vfio enable_unsafe_noiommu_mode=0\noptions vfio enable_unsafe_noiommu_mode=1", True),
        ("options vfio enable_unsafe_noiommu_mode=1\noptions vfio enable_unsafe_noiommu_mode=0", False),
        ("", False),
    ],
)
def test_the_unsafe_mode_is_on_as_the_kernel_reads_the_option_and_the_last_word_wins(
    tree: Tree, options: str, noiommu: bool
) -> None:
    assert with_config(tree, options + "\n").noiommu is noiommu


def test_a_missing_modules_alias_is_a_warning_and_the_rest_still_works(tree: Tree) -> None:
    root = tree(_FILES | {"etc/modprobe.d/x.conf": "blacklist banned\nsoftdep vfio_pci pre: a\n"})
    (root / _LIB / "modules.alias").unlink()
    index = read(root)
    assert index.warnings == (f"{root}/{_LIB}/modules.alias cannot be read (No such file or directory)",)
    assert [alias.module for alias in index.aliases] == ["built_in", "built_in"]
    assert "banned" in index.blacklisted
    assert index.soft_pre == {"vfio_pci": ("a",)}


@pytest.mark.parametrize("name", ["modules.builtin.modinfo", "modules.builtin", "modules.dep"])
def test_another_missing_table_is_a_warning_too(tree: Tree, name: str) -> None:
    root = tree(_FILES)
    (root / _LIB / name).unlink()
    index = read(root)
    assert index.warnings == (f"{root}/{_LIB}/{name} cannot be read (No such file or directory)",)
    assert [alias.module for alias in index.aliases][:2] == ["vfio_pci", "test_vfio_pci"]


def test_bytes_that_are_no_text_spoil_their_own_line_only(tree: Tree) -> None:
    root = tree(_FILES)
    with (root / _LIB / "modules.alias").open("ab") as table:
        table.write(b"alias \xff\xfe junk\nalias vfio_pci:last last\n")
    assert "last" in [alias.module for alias in read(root).aliases]


def test_without_a_modprobe_program_the_tables_are_read_all_the_same(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(_FILES | {"empty/": ""})
    monkeypatch.setenv("PATH", str(root / "empty"))
    index = read(root)
    assert len(index.warnings) == 1
    assert index.warnings[0].startswith("modprobe could not be run: ")
    assert len(index.aliases) == 4
    said = Kmod(root, _RELEASE).load("any")
    assert said is not None
    assert said.startswith("modprobe could not be run: ")


@pytest.fixture
def kept(tree: Tree) -> tuple[Path, Kmod, ModuleIndex]:
    root = tree(
        _FILES
        | {
            f"{_LIB}/modules.softdep": "",
            "etc/modprobe.d/x.conf": "blacklist banned\n",
            "lib/modprobe.d/y.conf": "",
            "run/modprobe.d/z.conf": "",
        }
    )
    kmod = Kmod(root, _RELEASE)
    return root, kmod, kmod.index(_PREFIXES, _UNIVERSALS)


def test_the_index_is_kept_while_nothing_changes(kept: tuple[Path, Kmod, ModuleIndex]) -> None:
    _, kmod, index = kept
    assert kmod.index(frozenset({"vfio_pci"}), frozenset({"vfio_pci"})) is index


@pytest.mark.parametrize(
    "file",
    [
        f"{_LIB}/modules.alias",
        f"{_LIB}/modules.builtin.modinfo",
        f"{_LIB}/modules.builtin",
        f"{_LIB}/modules.dep",
        f"{_LIB}/modules.softdep",
        "etc/modprobe.d/x.conf",
        "lib/modprobe.d/y.conf",
        "run/modprobe.d/z.conf",
    ],
)
def test_the_index_is_read_anew_when_a_file_changes_or_goes(kept: tuple[Path, Kmod, ModuleIndex], file: str) -> None:
    root, kmod, index = kept
    os.utime(root / file, ns=(0, 0))
    changed = kmod.index(_PREFIXES, _UNIVERSALS)
    assert changed is not index
    (root / file).unlink()
    assert kmod.index(_PREFIXES, _UNIVERSALS) is not changed


@pytest.mark.parametrize("place", ["etc/modprobe.d", "usr/local/lib/modprobe.d"])
def test_the_index_is_read_anew_when_a_file_comes(kept: tuple[Path, Kmod, ModuleIndex], tree: Tree, place: str) -> None:
    _, kmod, index = kept
    tree({f"{place}/new.conf": "blacklist new\n"})
    changed = kmod.index(_PREFIXES, _UNIVERSALS)
    assert "new" not in index.blacklisted
    assert {"new", "banned"} <= changed.blacklisted


def test_the_index_is_read_anew_for_other_flavours(kept: tuple[Path, Kmod, ModuleIndex]) -> None:
    _, kmod, index = kept
    assert kmod.index(frozenset({"pci"}), _UNIVERSALS).aliases[0].module == "e1000e"
    assert kmod.index(_PREFIXES, frozenset({"other"})).soft_pre == {"other": ()}
    assert kmod.index(_PREFIXES, _UNIVERSALS) == index


def test_a_module_that_is_not_there_is_not_loaded_and_modprobe_says_why(tree: Tree) -> None:
    root = tree(_FILES)
    said = Kmod(root, _RELEASE).load("no_such_module")
    assert said == f"modprobe: FATAL: Module no_such_module not found in directory {root}/{_LIB}"


def test_a_module_name_that_looks_like_an_option_is_a_name(tree: Tree) -> None:
    said = Kmod(tree(_FILES), _RELEASE).load("--version")
    assert said is not None
    assert "not found" in said


def test_dash_and_underscore_are_the_same_in_a_module_name() -> None:
    assert module_name("a-b_c") == module_name("a_b-c") == "a_b_c"
