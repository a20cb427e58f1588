# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can be told of the kernel module without a kernel: its versions, its size, what is installed."""

import re
from pathlib import Path

from .test_linters import files, read, run


def test_the_module_and_dkms_have_the_version_of_flavourd() -> None:
    (version,) = re.findall(r'__version__ = "(.*)"', read("flavourd/__init__.py"))
    assert re.findall(r'(?m)^PACKAGE_VERSION="(.*)"', read("kernel/dkms.conf")) == [version]
    assert re.findall(r'(?m)^MODULE_VERSION\("(.*)"\);', read("kernel/driver_flavour.c")) == [version]


def test_the_module_stays_small() -> None:
    assert len(read("kernel/driver_flavour.c").splitlines()) < 400


def test_dkms_finds_what_is_installed_and_uninstalling_leaves_no_file_behind(tmp_path: Path) -> None:
    (version,) = re.findall(r'(?m)^PACKAGE_VERSION="(.*)"', read("kernel/dkms.conf"))
    run("make", "install-module", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    sources = {"driver_flavour.c", "Kbuild", "Makefile", "dkms.conf"}
    assert files(tmp_path) == {
        *(f"usr/src/driver-flavour-{version}/{name}" for name in sources),
        "usr/lib/modules-load.d/driver_flavour.conf",
    }
    (module,) = re.findall(r'(?m)^BUILT_MODULE_NAME\[0\]="(.*)"', read("kernel/dkms.conf"))
    assert (tmp_path / "usr/lib/modules-load.d/driver_flavour.conf").read_text() == f"{module}\n"
    run("make", "uninstall-module", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert files(tmp_path) == set()
