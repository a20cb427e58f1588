# SPDX-License-Identifier: LGPL-2.1-or-later
"""What machine it is, as QEMU's command line: a saved state is only good for exactly the same."""

import os

from . import devices
from .image import Image

MEMORY = "1024M"
KERNEL_ARGUMENTS = (
    "root=/dev/vda rw console=ttyS0 intel_iommu=on "
    # Boot speed and quiet under emulation; the soft-lockup watchdog takes a busy host for a hung guest.
    "quiet mitigations=off audit=0 nowatchdog "
    # With code at random addresses QEMU translates a program anew at each exec: four times the work.
    "norandmaps "
    # A guest whose agent is gone is asked by a key.
    "sysrq_always_enabled"
)


def accelerator() -> str:
    return "kvm" if os.environ.get("FLAVOURD_ACCEL") == "kvm" else "tcg,thread=multi"


def arguments(image: Image) -> list[str]:
    """Return the part of the command line that is the same for every start; its back ends are named by id only."""
    return [
        *("qemu-system-x86_64", "-name", "flavourd", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-vga", "none"),
        *("-machine", "q35,kernel-irqchip=split,memory-backend=memory", "-accel", accelerator()),
        # With random numbers of its own the kernel need not wait for chance, a second of each boot, and need
        # not patch its code once it has them: see _EMULATORS_FAULT in machine.py.
        *("-cpu", "qemu64,+rdrand"),
        *("-smp", "2", "-m", MEMORY),
        *(
            "-kernel",
            str(image.kernel),
            "-initrd",
            str(image.initrd),
            "-append",
            f"{KERNEL_ARGUMENTS} {image.words}".rstrip(),
        ),
        *("-device", "intel-iommu,intremap=on"),
        *("-device", "virtio-blk-pci,drive=root,bus=pcie.0,addr=1"),
        *("-device", "virtio-serial-pci,bus=pcie.0,addr=2"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        *("-serial", "chardev:console"),
        *devices.arguments(),
    ]
