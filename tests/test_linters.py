# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tools and comparisons can tell: style, types, spelling, licences, documents that keep step, installation."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flavourd import logs
from flavourd.errors import Code
from flavourd.request import Origin
from flavourd.use import Guard

_ROOT = Path(__file__).parents[1]
_MODULES = {str(path.relative_to(_ROOT)) for path in (_ROOT / "flavourd").rglob("*.py")}
_DATA = {"flavourd/errors.md", "flavourd/ipc/io.flavourd.Manager.varlink"}
_SUFFIXES = {
    *(".py", ".sh", ".bash", ".zsh", ".fish", ".c", ".h", ".in", ".5", ".8", ".yaml", ".toml", ".varlink"),
    *(".rules", ".service", ".socket", ".catalog", ".sysusers"),
}


def read(name: str) -> str:
    return (_ROOT / name).read_text(encoding="utf-8")


def run(*command: str, check: bool = True) -> str:
    """What a command told, all of it; the test fails if the command does."""
    # `make test PREFIX=…` must not reach the `make install` below.
    ours = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "PREFIX", "DESTDIR", "SYSCONFDIR", "PYTHONPATH"}
    env = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        command, cwd=_ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}", pytrace=False)
    return done.stdout


def tracked() -> list[str]:
    """Files that git tracks or would track; those that were deleted and not yet committed are left out."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    return [name for name in listed if name and (_ROOT / name).is_file()]


# --- tools


def test_ruff_finds_nothing() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")


def test_the_code_is_formatted() -> None:
    run(sys.executable, "-m", "ruff", "format", "--check", "--diff", ".")


def test_the_types_fit() -> None:
    run(sys.executable, "-m", "mypy")


def test_the_spelling_is_right() -> None:
    run(sys.executable, "-m", "codespell_lib")


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    units = sorted((_ROOT / "systemd").glob("flavourd*.s[eo][rc][vk]*"))
    assert len(units) == 7
    # Programs of ours are not installed here.
    ours = r"(?m)^(Exec\w+=-?)/usr/(?:s?bin|lib/flavourd)/flavour\S+"
    for unit in units:
        text, count = re.subn(ours, r"\1/bin/true", unit.read_text(encoding="utf-8"))
        assert bool(count) == (unit.suffix == ".service")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    units = [tmp_path / unit.name for unit in units]
    said = run("systemd-analyze", "verify", "--man=no", *map(str, units), check=False)
    # It also warns about this machine's own units.
    assert [line for line in said.splitlines() if "flavourd" in line] == []


def test_systemd_understands_the_group(tmp_path: Path) -> None:
    said = run("systemd-sysusers", "--dry-run", f"--root={tmp_path}", str(_ROOT / "systemd/flavourd.sysusers"))
    assert "Creating group 'flavourd'" in said


def test_journald_understands_the_catalog(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (place / "flavourd.catalog").write_text(read("systemd/flavourd.catalog"), encoding="utf-8")
    run("journalctl", f"--root={tmp_path}", "--update-catalog")
    listed = run("journalctl", f"--root={tmp_path}", "--list-catalog")
    assert {line.split()[0] for line in listed.splitlines()} == message_ids()


# --- licences


def licensed() -> Iterator[tuple[str, str]]:
    """(file, first two lines) of all code and configuration."""
    for name in tracked():
        path = _ROOT / name
        head = "\n".join(path.read_text(encoding="utf-8", errors="replace").split("\n")[:2])
        if (
            path.suffix in _SUFFIXES
            or path.name == "Makefile"
            or path.parent.name == "packaging"
            or head.startswith("#!")
        ):
            yield name, head


def for_the_kernel(name: str) -> bool:
    path = _ROOT / name
    if name.startswith("benchmarks/"):  # what is compiled there is a program like any other
        return False
    return path.suffix in {".c", ".h"} or (path.name == "Makefile" and any(path.parent.glob("*.c")))


def test_every_file_names_its_licence_in_its_first_two_lines() -> None:
    found = dict(licensed())
    assert {"Makefile", "flavourd/plan.py", "tests/variant/Makefile", "tests/variant/test_vfio_pci.c"} <= found.keys()
    wrong = []
    for name, head in found.items():
        licence = "GPL-2.0-only" if for_the_kernel(name) else "LGPL-2.1-or-later"
        if not re.search(rf'(?m)^(#|//|/\*|\.\\") SPDX-License-Identifier: {re.escape(licence)}( \*/)?$', head):
            wrong.append(f"{name} (expected {licence})")
    assert wrong == []


def test_every_licence_that_is_named_is_here() -> None:
    named = {match for _, head in licensed() for match in re.findall(r"SPDX-License-Identifier: (\S+)", head)}
    assert named == {path.stem for path in (_ROOT / "LICENSES").iterdir()}


# --- documents keep step with the code


def test_every_error_code_is_explained_and_no_other() -> None:
    headings = re.findall(r"(?m)^### (.*)$", read("docs/errors.md"))
    assert sorted(headings) == sorted(f"`{code}`" for code in (*Code, *Guard))


def message_ids() -> set[str]:
    return {*logs.MESSAGE_IDS.values(), logs.TROUBLE_ID}


def test_every_message_id_is_explained_in_the_catalog_and_no_other() -> None:
    explained = re.findall(r"(?m)^-- (\S+)$", read("systemd/flavourd.catalog"))
    assert sorted(explained) == sorted(message_ids())
    assert len(message_ids()) == len(logs.MESSAGE_IDS) + 1  # no two are the same
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in message_ids())


def test_the_catalog_uses_fields_that_are_sent() -> None:
    used = set(re.findall(r"@(\w+)@", read("systemd/flavourd.catalog")))
    assert used
    assert used <= set(re.findall(r'"(\w+)":', read("flavourd/logs.py")))


def test_every_origin_that_udev_can_bring_stands_in_the_rules_and_no_other() -> None:
    written = set(re.findall(r'ENV\{\.FLAVOUR_ORIGIN\}="(\w+)"', read("udev/90-flavourd.rules")))
    assert written == set(Origin) - {Origin.POLICY, Origin.VARLINK, Origin.RECOVERY, Origin.PUT_BACK}


@pytest.mark.parametrize("name", [name for name in tracked() if name.endswith(".md")])
def test_links_within_the_repository_lead_to_files(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", read(name))
    relative = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in relative if not ((_ROOT / name).parent / link).exists()] == []


@pytest.mark.parametrize("name", [name for name in tracked() if name.endswith(".md")])
def test_documents_name_only_make_targets_that_exist(name: str) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", read("Makefile")))
    assert {"test", "install", "demo"} <= targets
    named = set(re.findall(r"(?m)(?:^    |`|&& |sudo )make ([a-z][a-z-]*)", read(name)))
    if name == "README.md":
        assert {"demo", "test", "install"} <= named
    assert named <= targets


def test_make_lists_every_target_for_people() -> None:
    listed = set(re.findall(r"(?m)^  make (\S+)", run("make")))
    (phony,) = re.findall(r"(?m)^\.PHONY: (.*)$", read("Makefile"))
    assert listed == set(phony.split()) - {"setup"}


# --- installation


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("prefix", ["/usr/local", "/usr"])
def test_what_is_installed_is_whole_and_uninstalling_leaves_no_file_behind(tmp_path: Path, prefix: str) -> None:
    places = [f"DESTDIR={tmp_path}", f"PREFIX={prefix}"]
    below = tmp_path / prefix.removeprefix("/")
    run("make", "install", *places)
    unit = (below / "lib/systemd/system/flavourd.service").read_text(encoding="utf-8")
    (program,) = re.findall(r"(?m)^ExecStart=(\S+)", unit)
    pages = re.findall(r"man:(\w+)\((\d)\)", unit)
    assert program == f"{prefix}/sbin/flavourd"
    assert os.access(tmp_path / program.removeprefix("/"), os.X_OK)
    assert pages
    installed = files(below / "lib/flavourd/python")
    ours = {name for name in installed if name.startswith("flavourd/")}
    assert ours == _MODULES | _DATA
    assert {name.partition("/")[0] for name in installed - ours} == {"asyncvarlink"}
    for name in (
        *(f"share/man/man{section}/{name}.{section}" for name, section in pages),
        "lib/flavourd/flavours.yaml",
        *(
            f"lib/flavourd/{program}"
            for program in (
                "flavourd-early",
                "flavourd-park",
                "flavourd-settle",
                "flavourd-unpark",
                "flavourd-attributes",
                "pci-serial",
            )
        ),
        *(f"lib/systemd/system/flavourd-{unit}.service" for unit in ("early", "unpark", "attributes")),
        "share/man/man5/flavourd.policy.5",
        "lib/udev/rules.d/90-flavourd.rules",
        "lib/systemd/system/flavourd.socket",
        "lib/systemd/system/flavourd-processes.socket",
        "lib/systemd/system/flavourd-processes.service",
        "lib/systemd/catalog/flavourd.catalog",
        "lib/sysusers.d/flavourd.conf",
    ):
        assert (below / name).is_file(), name
    for program in ("sbin/flavourd", "bin/flavourctl"):
        assert f'"{prefix}/lib/flavourd/python"' in (below / program).read_text(encoding="utf-8")
    run("make", "uninstall", *places)
    assert files(tmp_path) == set()


def test_uninstalling_leaves_what_the_admin_has_written(tmp_path: Path) -> None:
    run("make", "install", f"DESTDIR={tmp_path}")
    places = ("etc/flavourd", "usr/local/lib/flavourd", "usr/local/lib/flavourd/policy.d")
    own = [f"{place}/own.yaml" for place in places]
    for name in own:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    run("make", "uninstall", f"DESTDIR={tmp_path}")
    assert files(tmp_path) == {*own}


def test_the_installed_programs_run(tmp_path: Path) -> None:
    # DESTDIR=/ keeps `make install` from telling this machine's systemd and udev about it.
    run("make", "install", "DESTDIR=/", f"PREFIX={tmp_path}/usr", f"SYSCONFDIR={tmp_path}/etc")
    (version,) = re.findall(r'__version__ = "(.*)"', read("flavourd/__init__.py"))
    assert run(f"{tmp_path}/usr/sbin/flavourd", "--version") == f"{version}\n"
    assert run(f"{tmp_path}/usr/bin/flavourctl", "--version") == f"flavourctl {version}\n"
    assert set(run(f"{tmp_path}/usr/bin/flavourctl", "complete", "codes").split()) == {*Code, *Guard}


def test_the_wheel_holds_every_module_and_nothing_of_the_tests(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == _MODULES | _DATA
    assert {name.rpartition("/")[2] for name in info} >= {"METADATA", "entry_points.txt", "LGPL-2.1-or-later.txt"}
