# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine's software: what it is made of, and the four stages that make it.

root     Debian 13 with what flavourd needs (mmdebstrap)
builder  a chroot with the kernel's headers and the source of the real virtio_vfio_pci (mmdebstrap)
modules  that driver and the test variant, built in it (modules.sh)
image    root + modules + guest/ as a disk, a kernel and an initrd (disk.sh)

Each stage is cached under a key of all its inputs. FLAVOURD_MIRROR may name a Debian mirror.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .cache import Cached, Tell, built, digest, logged

SUITE = "trixie"
HERE = Path(__file__).parent
MODULE_SOURCES = (HERE.parent / "variant",)
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
BUILDER_PACKAGES = ("make", "gcc", "libc6-dev", "linux-headers-amd64", "linux-source", "xz-utils", "kmod")

_OPTIONS = (
    '--aptopt=Apt::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man", "info")),
)
# Of 1.4 GB of kernel source one directory is wanted.
_TAKE_SOURCE = """chroot "$1" sh -euxc '
mkdir /build
tar -xf /usr/src/linux-source-*.tar.xz -C /build --strip-components=4 --wildcards "*/drivers/vfio/pci/virtio"
rm -r /usr/src/linux-source-*'"""


@dataclass(frozen=True)
class Image:
    """The disk, the kernel and the initrd that QEMU starts with.

    other_initrd: to be taken instead of the image's own. words: more arguments for the kernel.
    """

    folder: Path
    identity: str
    other_initrd: Path | None = None
    words: str = ""

    @property
    def disk(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.other_initrd or self.folder / "initrd"


def image(tell: Tell) -> Image:
    """Return the image, building what is missing (some two minutes from nothing)."""
    with ThreadPoolExecutor() as pool:
        root_stage = pool.submit(_debian, "root", ["--variant=minbase", f"--include={','.join(PACKAGES)}"], tell)
        chroot = ["--variant=apt", f"--include={','.join(BUILDER_PACKAGES)}", f"--customize-hook={_TAKE_SOURCE}"]
        builder = pool.submit(_debian, "builder", chroot, tell).result()
        modules = _modules(builder, tell)
        done = _disk(root_stage.result(), modules, tell)
    return Image(done.folder, done.identity)


def _debian(name: str, options: list[str], tell: Tell) -> Cached:
    def build(folder: Path) -> None:
        mirror = [os.environ["FLAVOURD_MIRROR"]] if os.environ.get("FLAVOURD_MIRROR") else []
        logged(["mmdebstrap", *_OPTIONS, *options, SUITE, str(folder / "files.tar"), *mirror], folder / "log")

    return built(name, digest([SUITE, *_OPTIONS, *options]), build, tell)


def _modules(builder: Cached, tell: Tell) -> Cached:
    script = HERE / "modules.sh"

    def build(folder: Path) -> None:
        words = [str(script), str(builder.folder / "files.tar"), str(folder / "files.tar"), *map(str, MODULE_SOURCES)]
        logged([*_namespace(), *words], folder / "log")

    return built("modules", digest([builder.identity], [script, *MODULE_SOURCES]), build, tell)


def _disk(root_stage: Cached, modules: Cached, tell: Tell) -> Cached:
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

    return built("image", digest([root_stage.identity, modules.identity], [script, guest]), build, tell)


def _namespace() -> list[str]:
    """Return the words that give a script root over its own files and mounts, whoever runs it."""
    mapped = [] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]
    return ["unshare", "--mount", *mapped]
