# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine's software: what it is made of, and the four stages that make it.

root     Debian 13 with what flavourd needs (mmdebstrap)
builder  a chroot with the kernel's headers and, of its source, the real virtio_vfio_pci and checkpatch (mmdebstrap)
modules  that driver, the test variant and our own module, built in it (modules.sh)
image    root + modules + guest/ as a disk, a kernel and an initrd (disk.sh)

And beside them, for our own module alone:

newest   it is built for the newest kernel that Debian has for this release (newest.sh)
debug    a kernel that looks for mistakes, to run the same disk with FLAVOURD_KERNEL=debug (debug.sh, debug-modules.sh)

An image with more packages has its own root and image stages, and the others in common.
Each stage is cached under a key of all its inputs. FLAVOURD_MIRROR may name a Debian mirror.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .cache import Cached, Tell, built, digest, logged

SUITE = "trixie"
HERE = Path(__file__).parent
KERNEL = HERE.parents[1] / "kernel"
MODULE_SOURCES = (HERE.parent / "variant", KERNEL)
"""Directories of kernel modules that are built for the guest, each with a Kbuild Makefile."""

PACKAGES = (
    *("systemd-sysv", "udev", "kmod", "dbus", "linux-image-amd64", "initramfs-tools", "zstd", "qemu-guest-agent"),
    *("python3", "python3-pyudev", "python3-systemd", "python3-yaml", "python3-pyfuse3", "fuse3"),
    # For `flavourctl -H`, and to compare with.
    *("openssh-server", "openssh-client", "driverctl"),
    *("e2fsprogs", "util-linux", "procps", "pciutils", "iproute2", "strace", "less"),
    # What a host stacks on its disks.
    *("fdisk", "lvm2"),
)
BUILDER_PACKAGES = (
    *("make", "gcc", "libc6-dev", "linux-headers-amd64", "linux-source", "xz-utils", "kmod"),
    *("perl", "dkms"),
)
_NEWEST_PACKAGES = ("make", "gcc", "libc6-dev", f"linux-headers-amd64/{SUITE}-backports")
# From where the release itself comes.
_ADD_BACKPORTS = (
    f"""cd "$1/etc/apt" && sed -n "s/ {SUITE} / {SUITE}-backports /p" sources.list > sources.list.d/backports.list"""
)
_DEBUG_PACKAGES = (
    *("make", "gcc", "libc6-dev", "linux-source", "xz-utils", "bc", "bison", "flex", "libelf-dev", "libssl-dev"),
    *("perl", "python3", "kmod"),
)

_OPTIONS = (
    '--aptopt=Apt::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man", "info")),
)
# Of 1.4 GB of kernel source little is wanted.
_TAKE_SOURCE = """chroot "$1" sh -euxc '
mkdir /source /build
tar -xf /usr/src/linux-source-*.tar.xz -C /source --strip-components=1 --wildcards "*/drivers/vfio/pci/virtio" \\
    "*/scripts/checkpatch.pl" "*/scripts/spelling.txt" "*/scripts/const_structs.checkpatch"
mv /source/drivers/vfio/pci/virtio /build/
rm -r /usr/src/linux-source-*'"""


@dataclass(frozen=True)
class Image:
    """The disk, the kernel and the initrd that QEMU starts with.

    other_initrd, other_kernel: to be taken instead of the image's own. other_modules: a tar with that kernel's modules,
    which stand on no disk yet. words: more arguments for the kernel.
    """

    folder: Path
    identity: str
    other_initrd: Path | None = None
    other_kernel: Path | None = None
    other_modules: Path | None = None
    words: str = ""

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        return self.other_kernel or self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.other_initrd or self.folder / "initrd"


@dataclass(frozen=True)
class More:
    """Packages beside PACKAGES, and shell commands that run in the chroot ($1) once all are installed."""

    packages: tuple[str, ...]
    finish: str = ":"


def image(tell: Tell, more: More | None = None) -> Image:
    """Return the image, building what is missing (some two minutes from nothing; with the debug kernel twenty)."""
    packages = ["--variant=minbase", f"--include={','.join([*PACKAGES, *(more.packages if more else ())])}"]
    if more:
        packages.append(f"--customize-hook={more.finish}")
    with ThreadPoolExecutor() as pool:
        root_stage = pool.submit(_debian, named("root", more), packages, tell)
        builder = pool.submit(_builder, tell).result()
        modules = _compiled(HERE / "modules.sh", builder, MODULE_SOURCES, tell)
        done = _disk(named("image", more), root_stage.result(), modules, tell)
    if os.environ.get("FLAVOURD_KERNEL") != "debug":
        return Image(done.folder, done.identity)
    kernel, modules = _debug(tell)
    return Image(
        done.folder,
        done.identity + kernel.identity + modules.identity,
        other_kernel=kernel.folder / "vmlinuz",
        other_modules=modules.folder / "files.tar",
    )


def named(name: str, more: More | None) -> str:
    """Return the name in the cache: of each only a few are kept, and one kind must not push out the other."""
    return f"{name}-more" if more else name


def compiled(script: Path, sources: Iterable[Path], tell: Tell, *apart: str) -> Cached:
    """Return what a script makes of sources by the guest's own compiler and C library (see chroot.sh)."""
    return _compiled(script, _builder(tell), sources, tell, *apart)


def newest(tell: Tell) -> str:
    """Return the release of the newest kernel, for which our own module has been built, now or before."""
    packages = f"--include={','.join(_NEWEST_PACKAGES)}"
    builder = _debian("newest-builder", ["--variant=apt", packages, f"--setup-hook={_ADD_BACKPORTS}"], tell)
    return (_compiled(HERE / "newest.sh", builder, [KERNEL], tell, "kernel").folder / "kernel").read_text().strip()


def _debug(tell: Tell) -> tuple[Cached, Cached]:
    """Return the kernel (the module alone is built in seconds), and our own module for it."""
    builder = _debian("debug-builder", ["--variant=apt", f"--include={','.join(_DEBUG_PACKAGES)}"], tell)
    kernel = _compiled(HERE / "debug.sh", builder, [HERE / "debug.config"], tell, "vmlinuz")
    return kernel, _compiled(HERE / "debug-modules.sh", builder, [KERNEL, kernel.folder / "files.tar"], tell)


def _builder(tell: Tell) -> Cached:
    chroot = ["--variant=apt", f"--include={','.join(BUILDER_PACKAGES)}", f"--customize-hook={_TAKE_SOURCE}"]
    return _debian("builder", chroot, tell)


def _debian(name: str, options: list[str], tell: Tell) -> Cached:
    def build(folder: Path) -> None:
        mirror = [os.environ["FLAVOURD_MIRROR"]] if os.environ.get("FLAVOURD_MIRROR") else []
        logged(["mmdebstrap", *_OPTIONS, *options, SUITE, str(folder / "files.tar"), *mirror], folder / "log")

    return built(name, digest([SUITE, *_OPTIONS, *options]), build, tell)


def _compiled(script: Path, builder: Cached, sources: Iterable[Path], tell: Tell, *apart: str) -> Cached:
    """Run NAME.sh over these sources in the builder. What it makes is in a tar; some files (apart) also beside it."""
    outer, sources = HERE / "chroot.sh", list(sources)

    def build(folder: Path) -> None:
        files = (outer, builder.folder / "files.tar", folder / "files.tar", script, *sources)
        logged([*_namespace(), *map(str, files)], folder / "log")
        for file in apart:
            logged(["tar", "-xf", str(folder / "files.tar"), "-C", str(folder), f"./{file}"], folder / "log")

    return built(script.stem, digest([builder.identity], [outer, script, *sources]), build, tell)


def _disk(name: str, root_stage: Cached, modules: Cached, tell: Tell) -> Cached:
    script, guest = HERE / "disk.sh", HERE / "guest"

    def build(folder: Path) -> None:
        words = [
            str(script),
            str(root_stage.folder / "files.tar"),
            str(modules.folder / "files.tar"),
            str(guest),
            str(folder),
        ]
        logged([*_namespace(), *words], folder / "log")

    return built(name, digest([root_stage.identity, modules.identity], [script, guest]), build, tell)


def _namespace() -> list[str]:
    """Return the words that give a script root over its own files and mounts, whoever runs it."""
    mapped = [] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]
    return ["unshare", "--mount", *mapped]
