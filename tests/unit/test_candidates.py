# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which modules are tried, in which order, and why others are not."""

from itertools import permutations

import pytest

from flavourd.candidates import Choice, candidates, check_named, chosen, specificity
from flavourd.flavour import FlavourOnBus, Universal
from flavourd.module_index import Alias, ModuleIndex
from flavourd.outcome import Candidate, Skip, Source

_PCI = FlavourOnBus(Universal("vfio_pci", "vfio-pci"), "vfio_pci", needs_iommu_group=True)
_MODALIAS = "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00"
_ANY = "vfio_pci:v*d*sv*sd*bc*sc*i*"
_UNIVERSAL = Candidate("vfio_pci", Source.UNIVERSAL, "universal driver vfio-pci")
_NOT_LISTED = "has a table that does not list this device"
_BLACKLISTED = "is blacklisted in modprobe.d or on the kernel's command line"
# The closest first.
_BY_CLOSENESS = [
    "vfio_pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00",
    "vfio_pci:v00008086d000010D3sv00008086sd0000A01Fbc*sc*i*",
    "vfio_pci:v00008086d000010D3sv00008086sd*bc*sc*i*",
    "vfio_pci:v00008086d000010D3sv*sd*bc02sc00i00",
    "vfio_pci:v00008086d000010D3sv*sd*bc*sc*i*",
    "vfio_pci:v00008086d*sv*sd*bc02sc00i00",
    "vfio_pci:v00008086d*sv*sd*bc02sc*i*",
    "vfio_pci:v00008086d*sv*sd*bc*sc*i*",
    "vfio_pci:v*d*sv*sd*bc02sc00i*",
    "vfio_pci:v*d*sv*sd*bc02sc*i*",
]


def index(*aliases: tuple[str, str], **more: object) -> ModuleIndex:
    """Aliases as (pattern, module); the universal module's own is always there."""
    return ModuleIndex(tuple(Alias(*alias) for alias in (*aliases, (_ANY, "vfio_pci"))), **more)  # type: ignore[arg-type]


def softdep(table: dict[str, frozenset[str]], *aliases: tuple[str, str], **more: object) -> ModuleIndex:
    return index(*aliases, soft_pre={"vfio_pci": tuple(table)}, table_prefixes=table, **more)


def tried(modules: ModuleIndex, modalias: str | None = _MODALIAS) -> list[str]:
    found, _ = candidates(modalias, "pci", _PCI, modules)
    return [candidate.module for candidate in found]


def skipped(modules: ModuleIndex) -> tuple[Skip, ...]:
    return candidates(_MODALIAS, "pci", _PCI, modules)[1]


def test_with_nothing_but_the_universal_driver_that_one_is_tried() -> None:
    assert candidates(_MODALIAS, "pci", _PCI, index()) == ((_UNIVERSAL,), ())
    assert candidates(_MODALIAS, "pci", _PCI, ModuleIndex()) == ((_UNIVERSAL,), ())


def test_a_variant_that_lists_the_device_comes_before_the_universal_driver() -> None:
    pattern = "vfio_pci:v00008086d000010D3sv*sd*bc*sc*i*"
    found, skips = candidates(_MODALIAS, "pci", _PCI, index((pattern, "variant")))
    assert found == (Candidate("variant", Source.ALIAS, pattern), _UNIVERSAL)
    assert skips == ()


def test_the_closest_table_comes_first_and_vendor_and_device_weigh_more_than_class() -> None:
    patterns = [(pattern, f"module{number}") for number, pattern in enumerate(_BY_CLOSENESS)]
    expected = [module for _, module in patterns] + ["vfio_pci"]
    assert tried(index(*patterns)) == expected
    assert tried(index(*reversed(patterns))) == expected


@pytest.mark.parametrize("order", list(permutations(("a", "b", "c"))))
def test_equally_close_tables_keep_the_order_of_the_file(order: tuple[str, ...]) -> None:
    assert tried(index(*((_BY_CLOSENESS[4], module) for module in order))) == [*order, "vfio_pci"]


def test_a_module_counts_with_its_closest_pattern_and_only_once() -> None:
    near, far, middle = _BY_CLOSENESS[0], _BY_CLOSENESS[7], _BY_CLOSENESS[4]
    found, skips = candidates(_MODALIAS, "pci", _PCI, index((far, "twice"), (middle, "once"), (near, "twice")))
    assert found[:2] == (Candidate("twice", Source.ALIAS, near), Candidate("once", Source.ALIAS, middle))
    assert len(found) == 3
    assert skips == ()


@pytest.mark.parametrize(
    "short",
    [
        "vfio_pci:v00008086d000010D3*",
        "vfio_pci:v00008086d000010D3sv*",
        "vfio_pci:v00008086d000010D3sv*sd*",
    ],
)
def test_what_a_short_pattern_leaves_out_counts_as_a_wildcard(short: str) -> None:
    """modprobe.d may hold such aliases; they are as close as the fields that they do name."""
    closer, farther = "vfio_pci:v00008086d000010D3sv*sd*bc02sc*i*", "vfio_pci:v00008086d*sv*sd*bc02sc00i00"
    assert tried(index((short, "short"), (closer, "closer"))) == ["closer", "short", "vfio_pci"]
    assert tried(index((farther, "farther"), (short, "short"))) == ["short", "farther", "vfio_pci"]


def test_a_pattern_of_everything_is_as_open_as_can_be() -> None:
    assert specificity("vfio_pci:*") == specificity(_ANY)
    assert tried(index(("vfio_pci:*", "any"), (_BY_CLOSENESS[-1], "class"))) == ["class", "any", "vfio_pci"]


def test_a_bracket_or_question_mark_in_a_field_is_a_wildcard() -> None:
    aliases = [
        ("vfio_pci:v00008086d000010D[0-9]sv*sd*bc*sc*i*", "bracket"),
        ("vfio_pci:v00008086d000010D?sv*sd*bc*sc*i*", "question"),
        ("vfio_pci:v00008086d000010D3sv*sd*bc*sc*i*", "exact"),
    ]
    assert tried(index(*aliases)) == ["exact", "bracket", "question", "vfio_pci"]


@pytest.mark.parametrize(
    "pattern",
    [
        "vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*",
        "vfio_pci:v00008086d000010D4sv*sd*bc*sc*i*",
        "vfio_pci:v00008086d000010d3sv*sd*bc*sc*i*",  # modalias digits are upper case; fnmatch(3) tells them apart
    ],
)
def test_a_table_that_does_not_list_the_device_is_never_a_candidate(pattern: str) -> None:
    modules = index((pattern, "other"))
    assert tried(modules) == ["vfio_pci"]
    assert skipped(modules) == (Skip("other", _NOT_LISTED),)


def test_a_table_that_does_not_list_the_device_is_not_tried_for_a_softdep_either() -> None:
    other = "vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*"
    modules = softdep({"other": frozenset({"vfio_pci"})}, (other, "other"))
    assert tried(modules) == ["vfio_pci"]
    assert skipped(modules) == (Skip("other", _NOT_LISTED),)
    # Nor when the index knows only of the table, not its lines.
    for prefixes in ({"vfio_pci"}, {"vfio_pci", "pci"}):
        assert skipped(softdep({"other": frozenset(prefixes)})) == (Skip("other", _NOT_LISTED),)


def test_a_table_of_another_flavour_or_bus_says_nothing() -> None:
    modules = index(("pci:v00008086d*", "native"), ("vfio_pcix:v00008086d*", "x"), ("vfio_cdx:v00008086d*", "cdx"))
    assert candidates(_MODALIAS, "pci", _PCI, modules) == ((_UNIVERSAL,), ())


def test_a_softdep_without_a_table_is_tried_between_the_variants_and_the_universal_driver() -> None:
    modules = softdep({"filters": frozenset(), "second": frozenset({"acpi"})}, (_BY_CLOSENESS[-1], "variant"))
    found, skips = candidates(_MODALIAS, "pci", _PCI, modules)
    assert found == (
        Candidate("variant", Source.ALIAS, _BY_CLOSENESS[-1]),
        Candidate("filters", Source.SOFTDEP, "softdep vfio_pci pre: filters"),
        Candidate("second", Source.SOFTDEP, "softdep vfio_pci pre: second"),
        _UNIVERSAL,
    )
    assert skips == ()


def test_a_softdep_that_is_a_native_driver_is_skipped() -> None:
    modules = softdep({"e1000e": frozenset({"pci"})})
    assert tried(modules) == ["vfio_pci"]
    assert skipped(modules) == (Skip("e1000e", "is a native driver, named by a softdep only to be loaded earlier"),)


def test_a_softdep_that_is_built_in_is_tried_only_if_its_tables_are_known() -> None:
    unknown = softdep({"filters": frozenset()}, builtin=frozenset({"filters"}))
    assert tried(unknown) == ["vfio_pci"]
    assert skipped(unknown) == (
        Skip("filters", "is built into the kernel, which does not tell whether it has a table"),
    )
    assert tried(softdep({"filters": frozenset({"acpi"})}, builtin=frozenset({"filters"}))) == ["filters", "vfio_pci"]


def test_a_softdep_that_lists_the_device_is_tried_once_as_the_variant_that_it_is() -> None:
    modules = softdep({"variant": frozenset({"vfio_pci"})}, (_BY_CLOSENESS[4], "variant"))
    found, skips = candidates(_MODALIAS, "pci", _PCI, modules)
    assert found == (Candidate("variant", Source.ALIAS, _BY_CLOSENESS[4]), _UNIVERSAL)
    assert skips == ()


def test_a_softdep_that_is_named_twice_is_tried_once() -> None:
    modules = index(soft_pre={"vfio_pci": ("a", "b", "a")}, table_prefixes={"a": frozenset(), "b": frozenset()})
    assert tried(modules) == ["a", "b", "vfio_pci"]


def test_the_universal_driver_is_last_and_only_once_even_if_its_own_softdep_names_it() -> None:
    modules = softdep(
        {"vfio_pci": frozenset(), "a": frozenset()},
        ("vfio_pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00", "vfio_pci"),
        (_BY_CLOSENESS[-1], "variant"),
    )
    assert tried(modules) == ["variant", "a", "vfio_pci"]
    assert skipped(modules) == ()


@pytest.mark.parametrize(
    ("banned", "left"),
    [
        ("variant", ["filters", "vfio_pci"]),
        ("filters", ["variant", "vfio_pci"]),
        ("vfio_pci", ["variant", "filters"]),
    ],
)
def test_a_blacklisted_module_is_skipped_with_that_reason(banned: str, left: list[str]) -> None:
    modules = softdep({"filters": frozenset()}, (_BY_CLOSENESS[4], "variant"), blacklisted=frozenset({banned, "x"}))
    assert tried(modules) == left
    assert skipped(modules) == (Skip(banned, _BLACKLISTED, missed=True),)


def test_dash_and_underscore_are_the_same_in_aliases_and_modules() -> None:
    on_bus = FlavourOnBus(Universal("my-universal", "my-universal"), "my_bus")
    modules = ModuleIndex(
        (Alias("my_bus:Na-b_c*", "dashed"), Alias("my_bus:Na[-]b-c", "bracket"), Alias("my_bus:N*", "my_universal")),
        blacklisted=frozenset(),
    )
    found, skips = candidates("my:Na_b-c", "my", on_bus, modules)
    assert [candidate.module for candidate in found] == ["dashed", "my_universal"]
    assert skips == (Skip("bracket", _NOT_LISTED),)  # inside brackets a dash is a dash, as kmod has it
    banned = ModuleIndex(blacklisted=frozenset({"my_universal"}))
    assert candidates("my:N", "my", on_bus, banned) == ((), (Skip("my_universal", _BLACKLISTED, missed=True),))


@pytest.mark.parametrize("prefix", [None, "vfio_pci"])
def test_without_a_modalias_or_a_prefix_only_softdeps_and_the_universal_driver_are_left(prefix: str | None) -> None:
    on_bus = FlavourOnBus(Universal("vfio_pci", "vfio-pci"), prefix)
    modules = softdep({"filters": frozenset()}, (_BY_CLOSENESS[4], "variant"))
    found, skips = candidates(None if prefix else _MODALIAS, "pci", on_bus, modules)
    assert [candidate.module for candidate in found] == ["filters", "vfio_pci"]
    assert skips == ()


# --- only what somebody has named


_OTHER = "vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*"
_TABLES = softdep(
    {"filters": frozenset(), "native": frozenset({"pci"})}, (_BY_CLOSENESS[0], "variant"), (_OTHER, "other")
)


def named(
    *names: str, force: bool = False, modules: ModuleIndex = _TABLES
) -> tuple[tuple[Candidate, ...], tuple[Skip, ...]]:
    return choose(Choice(names, all_forced=force), modules)


def choose(choice: Choice, modules: ModuleIndex = _TABLES) -> tuple[tuple[Candidate, ...], tuple[Skip, ...]]:
    return chosen(choice, "pci", _PCI, modules, *candidates(_MODALIAS, "pci", _PCI, modules))


def test_named_candidates_are_tried_in_the_order_in_which_they_were_named_and_no_other() -> None:
    found, skips = named("vfio_pci", "variant")
    assert found == (
        Candidate("vfio_pci", Source.NAMED, "universal driver vfio-pci"),
        Candidate("variant", Source.NAMED, _BY_CLOSENESS[0]),
    )
    assert skips == (Skip("filters", "was not named"),)


def test_a_module_may_be_named_with_dashes_and_twice_and_is_tried_once() -> None:
    found, _ = named("vfio-pci", "vfio_pci", "filters", "vfio-pci")
    assert [candidate.module for candidate in found] == ["vfio_pci", "filters"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("other", f"other {_NOT_LISTED}"),
        ("native", "native is a native driver"),
        ("no_such_module", "no_such_module has no table that lists this device"),
        ("", " has no table"),
    ],
)
def test_a_name_that_is_no_candidate_is_refused_with_its_reason_unless_the_table_is_passed_over(
    name: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        named("variant", name)
    found, skips = named(name, "variant", force=True)
    assert [candidate.module for candidate in found] == [name, "variant"]
    assert found[0].source is Source.NAMED
    assert found[0].detail.startswith("taken by force: it ")
    assert [skip.module for skip in skips] == ["filters", "vfio_pci"]


@pytest.mark.parametrize("force", [False, True])
def test_a_blacklist_holds_whoever_names_the_module(force: bool) -> None:
    modules = index((_BY_CLOSENESS[0], "variant"), blacklisted=frozenset({"variant"}))
    with pytest.raises(ValueError, match="variant is blacklisted"):
        named("variant", force=force, modules=modules)
    assert [candidate.module for candidate in named("vfio_pci", force=force, modules=modules)[0]] == ["vfio_pci"]


# --- patterns, sources, force and denial


_WILD = index(
    (_BY_CLOSENESS[0], "variant"),
    (_OTHER, "other_vfio_pci"),
    soft_pre={"vfio_pci": ("soft",)},
    table_prefixes={
        "vfio_pci": frozenset({"vfio_pci"}),
        "variant": frozenset({"vfio_pci"}),
        "other_vfio_pci": frozenset({"vfio_pci"}),
        "vfio_pci_core": frozenset({"symbol"}),
        "z_vfio_pci": frozenset(),
        "a_vfio_pci": frozenset({"acpi"}),
        "native_vfio_pci": frozenset({"pci"}),
        "builtin_vfio_pci": frozenset(),
        "soft": frozenset(),
    },
    builtin=frozenset({"builtin_vfio_pci"}),
    libraries={"vfio_pci": frozenset({"vfio_pci_core"})},
)


def names(found: tuple[Candidate, ...]) -> list[str]:
    return [candidate.module for candidate in found]


def test_a_pattern_takes_the_candidates_that_fit_and_before_the_universal_one_what_has_no_table_at_all() -> None:
    """What is native, built in without a readable table, or a library that the universal driver needs stays out."""
    found, _ = choose(Choice(("*vfio_pci*",)), _WILD)
    assert found == (
        Candidate("a_vfio_pci", Source.WILDCARD, "fits *vfio_pci*"),
        Candidate("z_vfio_pci", Source.WILDCARD, "fits *vfio_pci*"),
        _UNIVERSAL,
    )
    assert names(choose(Choice(("*v*",)), _WILD)[0]) == ["variant", "a_vfio_pci", "z_vfio_pci", "vfio_pci"]


def test_in_a_pattern_dash_and_underscore_are_the_same_but_not_in_brackets() -> None:
    assert names(choose(Choice(("[a-c]-vfio-pc?",)), _WILD)[0]) == ["a_vfio_pci"]


def test_a_pattern_tells_of_what_fits_and_is_not_tried() -> None:
    found, skips = choose(Choice(("o*", "vfio_pci"), tolerant=True), _WILD)
    assert names(found) == ["vfio_pci"]
    assert Skip("other_vfio_pci", _NOT_LISTED) in skips
    assert Skip("variant", "was not named") in skips
    banned = index(table_prefixes={"x_vfio": frozenset()}, blacklisted=frozenset({"x_vfio"}))
    found, skips = choose(Choice(("x*", "@universal"), tolerant=True), banned)
    assert (names(found), skips[0]) == (["vfio_pci"], Skip("x_vfio", _BLACKLISTED))


def test_a_pattern_that_fits_nothing_is_an_error_unless_it_was_said_for_many_devices() -> None:
    with pytest.raises(ValueError, match=r"nothing\* fits no module"):
        choose(Choice(("nothing*", "vfio_pci")), _WILD)
    found, skips = choose(Choice(("nothing*", "vfio_pci"), tolerant=True), _WILD)
    assert names(found) == ["vfio_pci"]
    assert skips[0] == Skip("nothing*", "fits no module that could be tried for this device")


def test_a_pattern_that_fits_half_the_kernel_is_a_mistake_and_no_module_is_loaded_for_it() -> None:
    many = index(table_prefixes={f"module{number}": frozenset() for number in range(33)})
    found, skips = choose(Choice(("*",), tolerant=True), many)
    assert names(found) == ["vfio_pci"]
    assert skips == (Skip("*", "fits 33 modules without a table, too many to try them all"),)


def test_the_words_stand_for_all_that_a_source_gives_in_the_order_in_which_they_are_said() -> None:
    assert names(choose(Choice(("@universal", "@softdep", "@alias")), _WILD)[0]) == ["vfio_pci", "soft", "variant"]
    found, skips = choose(Choice(("@alias",)), _WILD)
    assert found == (Candidate("variant", Source.ALIAS, _BY_CLOSENESS[0]),)
    assert {Skip("soft", "was not named"), Skip("vfio_pci", "was not named")} < set(skips)


def test_both_schemes_of_2021_can_be_written_and_what_comes_twice_is_tried_once_at_its_first_place() -> None:
    gunthorpe = choose(Choice(("@alias", "@universal")), _WILD)[0]
    williamson = choose(Choice(("@softdep", "*_vfio_pci", "vfio-pci*")), _WILD)[0]
    assert names(gunthorpe) == ["variant", "vfio_pci"]
    assert names(williamson) == ["soft", "a_vfio_pci", "z_vfio_pci", "vfio_pci"]
    assert names(choose(Choice(("soft", "@softdep", "*o*t", "soft")), _WILD)[0]) == ["soft"]


def test_a_word_without_any_candidate_is_no_error() -> None:
    assert choose(Choice(("@softdep",)), index()) == ((), (Skip("vfio_pci", "was not named"),))


def test_of_many_devices_a_name_that_is_no_candidate_for_one_is_passed_over_and_told() -> None:
    found, skips = choose(Choice(("other", "no_such_module", "variant"), tolerant=True))
    assert names(found) == ["variant"]
    assert skips[:2] == (
        Skip("other", _NOT_LISTED),
        Skip("no_such_module", "has no table that lists this device"),
    )


def test_only_the_names_that_are_forced_are_tried_whatever_their_tables_say() -> None:
    found, skips = choose(Choice(("other", "native", "variant"), forced=frozenset({"other"}), tolerant=True))
    assert names(found) == ["other", "variant"]
    assert found[0].detail == f"taken by force: it {_NOT_LISTED}"
    assert skips[0].module == "native"
    # A pattern is no name: by force it would take any driver there is.
    assert choose(Choice(("oth*",), forced=frozenset({"oth*"}), tolerant=True))[0] == ()


@pytest.mark.parametrize(
    "named", [(), ("variant", "vfio_pci", "filters"), ("*",), ("@alias", "@softdep", "@universal")]
)
def test_what_is_denied_is_never_tried_however_it_is_named(named: tuple[str, ...]) -> None:
    choice = Choice(named, denied=("vari*", "filters"), forced=frozenset({"variant"}), all_forced=True, tolerant=True)
    found, skips = choose(choice)
    assert names(found) == ["vfio_pci"]
    assert {Skip("variant", "is denied by the policy"), Skip("filters", "is denied by the policy")} <= set(skips)


def test_what_a_pattern_adds_can_be_denied_and_the_universal_driver_too() -> None:
    found, skips = choose(Choice(("*vfio_pci",), denied=("a-vfio-pci", "vfio_pci")), _WILD)
    assert names(found) == ["z_vfio_pci"]
    assert {skip.module for skip in skips if "denied" in skip.reason} == {"a_vfio_pci", "vfio_pci"}
    assert choose(Choice(denied=("*",)), index()) == ((), (Skip("vfio_pci", "is denied by the policy"),))


@pytest.mark.parametrize("item", ["vfio_pci", "vfio-pci*", "?lx5", "[a-m]*", "@alias", "@softdep", "@universal"])
def test_names_patterns_and_words_can_be_said(item: str) -> None:
    check_named(item)


@pytest.mark.parametrize("item", ["", "@", "@native", "@alias*", "a/*", "*\n", "-*", "a b*", "@" * 500, "*" * 500])
def test_nothing_else_can_be_said(item: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check_named(item)
    assert len(str(caught.value)) < 200
