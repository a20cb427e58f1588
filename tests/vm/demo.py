# SPDX-License-Identifier: LGPL-2.1-or-later
"""Show flavourd at work in a fresh machine: the commands that a user types, and what they and flavourd say."""

import sys

from .asking import PCI, answer, send, variant
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN, ROOT_PORT, VIRTIO_NET
from .machine import Machine
from .policy import until_driver

_FILES = "/run/flavourd/bus/pci/devices"


def demo(vm: Machine) -> None:
    stage = _Stage(vm)
    stage.title("A Debian 13 machine with its stock kernel. No vfio module is loaded, nobody has a list of drivers.")
    stage.type("uname -r")
    stage.type("grep vfio /proc/modules || echo none")
    stage.type("flavourctl list --class ethernet")

    stage.title(
        "The dream of 2021: a file of each device, here by a small kernel module. One word finds, loads and binds."
    )
    stage.type("modprobe driver_flavour")
    stage.type(f"cat {PCI}/{E1000E}/driver_flavour")
    stage.type(f"echo vfio > {PCI}/{E1000E}/driver_flavour && cat {PCI}/{E1000E}/driver_flavour")
    stage.type(f"ls {PCI}/{E1000E}/vfio-dev /dev/vfio; grep vfio /proc/modules | cut -d' ' -f1 | xargs")
    stage.type(f"echo default > {PCI}/{E1000E}/driver_flavour && readlink {PCI}/{E1000E}/driver")

    stage.title("Without a kernel module the same files stand below /run, with two more that tell why.")
    stage.type(f"cd {_FILES}/{ROOT_PORT} && grep . *; echo vfio > driver_flavour; cat driver_flavour_error")

    stage.title("A virtio network card: the kernel has a variant driver for it. flavourctl tells the whole story.")
    stage.type(f"flavourctl explain {VIRTIO_NET[5:]} vfio")
    stage.type(f"flavourctl set {VIRTIO_NET[5:]} vfio")
    stage.type(f"lspci -ks {VIRTIO_NET[5:]}; ls {PCI}/{VIRTIO_NET}/vfio-dev /dev/vfio")

    stage.title(
        "An Intel e1000e with a variant whose probe answers EIO (a test module): the universal driver takes it."
    )
    variant(vm, answer=-5)
    stage.type("grep vfio_pci: /lib/modules/$(uname -r)/modules.alias")
    stage.type(f"flavourctl set {E1000E[5:]} vfio")
    stage.type(f"flavourctl show {E1000E[5:]}")

    stage.title("Two cards in one IOMMU group: it is told who keeps the group from being opened.")
    stage.type(f"flavourctl set {E1000[5:]} vfio")
    stage.type(f"flavourctl tree {E1000[5:]}")
    stage.type(f"flavourctl set {E1000_TWIN[5:]} vfio; flavourctl tree {E1000[5:]}")

    stage.title("And back: driver and override are what they were.")
    stage.type("flavourctl reset $(flavourctl list --no-legend --flavour vfio | cut -d' ' -f1)")
    stage.type("flavourctl list --class ethernet")

    stage.title(
        "A policy makes it last, over boots and hot plug: one of two twins, and never other hardware at its place."
    )
    stage.write("/etc/flavourd/policy.d/50-card.yaml", _POLICY)
    stage.type("flavourctl policy check")
    stage.type(f"flavourctl policy match {E1000E_TWIN[5:]}")
    stage.type("flavourctl policy diff; flavourctl reload")
    until_driver(vm, E1000E_TWIN, "vfio-pci")
    stage.type("flavourctl list --class ethernet")
    stage.type(f"flavourctl reset {E1000E_TWIN[5:]}; flavourctl policy diff --all")

    stage.title("What cannot be done is told, and nothing is touched.")
    stage.type("flavourctl set 00:10.0 vfio")
    stage.type(f"flavourctl set {E1000E[5:]} vfoi")

    stage.title("Without flavourctl, as udev rules and scripts may do it: by a uevent of the device.")
    stage.ask(E1000E, "vfio")
    stage.title("`make vm` gives you a shell in this machine; README.md tells how to install flavourd on a real host.")


_POLICY = f"""\
rules:
  - name: the card for virtual machines
    match: {{address: "{E1000E_TWIN}"}}
    expect: {{vendor: "8086", device: "10d3"}}
    flavour: vfio
"""


class _Stage:
    def __init__(self, vm: Machine) -> None:
        self._vm = vm
        self._colour = sys.stdout.isatty()

    def title(self, text: str) -> None:
        self._print(f"\n{text}\n", "1")

    def type(self, command: str) -> None:
        self._print(f"# {command}", "32")
        print(self._vm.run(["bash", "-c", f"{{ {command}; }} 2>&1"], check=False).out, end="", flush=True)

    def write(self, file: str, text: str) -> None:
        self._print(f"# cat > {file}", "32")
        print(text, end="", flush=True)
        self._vm.run(f"mkdir -p {file.rpartition('/')[0]}")
        self._vm.write(file, text, mode=0o644)

    def ask(self, address: str, flavour: str) -> None:
        request = f"change $(cat /proc/sys/kernel/random/uuid) FLAVOUR={flavour}"
        self._print(f'# echo "{request}" > {PCI}/{address}/uevent; journalctl -fu flavourd', "32")
        print(f"flavourd: {answer(self._vm, send(self._vm, address, flavour))[-1].message}", flush=True)

    def _print(self, text: str, colour: str) -> None:
        print(f"\033[{colour}m{text}\033[0m" if self._colour else text, flush=True)
