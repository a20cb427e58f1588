# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a test holds in its hand: a running machine, where it can run, read, write, plug and wait."""

import re
import shlex
import time
from pathlib import Path
from typing import Any

from . import devices
from .agent import AgentError
from .program import HANGING, CommandError, Done, Running
from .qemu import Qemu

__all__ = ["CommandError", "Done", "Machine", "Running"]

_SYSFS = "/sys/bus/pci/devices"
# Now and then a processor of QEMU's emulation runs into the breakpoint by which the kernel patches its code at boot,
# after that was taken away again: before any module is loaded that we make or bind, so that we have no part in it.
_EMULATORS_FAULT = re.compile(
    r"Oops: int3: (?:(?!Oops).)*?Modules linked in:(?![^\n]*(?:driver_flavour|vfio))(?:(?!Oops).)*?Kernel panic", re.S
)

# One loop in the guest: asking from outside would cost a round trip each time. `read` needs no process, `date` would.
_WAIT = """
read -r now _ </proc/uptime
end=$((${now%.*} + $2))
until out=$( (eval "$1") 2>&1); do
    read -r now _ </proc/uptime
    [ "${now%.*}" -lt "$end" ] || { printf '%s\\n' "$out"; exit 1; }
    sleep 0.05
done
printf '%s' "$out"
"""


class Machine:
    """A running machine, reached through its agent and its monitor."""

    def __init__(self, qemu: Qemu, timeout: float = 60) -> None:
        """Wait up to `timeout` seconds until the guest answers."""
        self.qemu = qemu
        self._seen_of_console = 0
        self._wait_for_agent(timeout)
        self._plugged: dict[str, str] = {}

    def run(
        self, command: str | list[str], *, check: bool = True, timeout: float = 60, input: bytes | str | None = None
    ) -> Done:
        """Run a program (a str goes to sh -c) and return what it left; with `check`, CommandError unless rc is 0."""
        done = self.start(command, input=input).wait(timeout)
        if check and done.rc:
            raise CommandError(f"rc {done.rc}: {_text(command)}\n--- out\n{done.out}\n--- err\n{done.err}")
        return done

    def start(self, command: str | list[str], *, input: bytes | str | None = None) -> Running:
        """Start a program and leave it running."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        stdin = input.encode() if isinstance(input, str) else input
        return Running(self.qemu.agent, _text(command), self.qemu.agent.execute(words, stdin))

    def read(self, path: str) -> bytes:
        return self.qemu.agent.read(path)

    def write(self, path: str, data: bytes | str, mode: int | None = None) -> None:
        self.qemu.agent.write(path, data.encode() if isinstance(data, str) else data)
        if mode is not None:
            self.run(["chmod", f"{mode:o}", path])

    def wait_for(self, command: str, timeout: float = 30) -> Done:
        """Repeat a shell condition in the guest until it is true; its last output is in the result or the error."""
        done = self.start(["/bin/sh", "-c", _WAIT, "sh", command, f"{timeout:.0f}"]).wait(timeout + 30)
        if done.rc:
            raise CommandError(f"not true within {timeout:g} s: {command}\n--- last output\n{done.out}{done.err}")
        return done

    def qmp(self, command: str, **arguments: Any) -> Any:
        return self.qemu.qmp(command, **arguments)

    def plug(self, driver: str, *, bus: str | None = None, id: str | None = None, **properties: Any) -> str:
        """Plug a device in a free port (the first, or `bus`), wait until the kernel shows it, return its address.

        Its id is `id`, or the port's name with "-device". A property that QEMU spells with a dash goes as
        **{"disable-legacy": "on"}.
        """
        taken = set(self._plugged.values())
        port = bus or next(name for name, address in devices.FREE_PORTS.items() if address not in taken)
        identity = id or f"{port}-device"
        self.qmp("device_add", driver=driver, bus=port, id=identity, **properties)
        self._plugged[identity] = address = devices.FREE_PORTS[port]
        self.wait_for(f"test -e {_SYSFS}/{address}")
        return address

    def unplug(self, id: str) -> None:
        """Take out a device and wait until QEMU and the kernel have lost it."""
        self.qmp("device_del", id=id)
        self.qemu.wait_event("DEVICE_DELETED", device=id)
        self.wait_for(f"! test -e {_SYSFS}/{self._plugged.pop(id)}")

    def plug_disk(self, *, keeps: bool = False) -> str:
        """Plug an NVMe controller with a disk, nvme0n1, and return its address.

        The disk has 1 MiB that holds nothing, or with `keeps` 64 MiB that hold what is written to them.
        """
        if keeps:
            image = self.qemu.folder / "kept.raw"
            with image.open("xb") as file:
                file.truncate(64 << 20)
            disk: dict[str, Any] = {"driver": "raw", "file": {"driver": "file", "filename": str(image)}}
        else:
            disk = {"driver": "null-co", "size": 1 << 20, "read-zeroes": True}
        self.qmp("blockdev-add", **{"node-name": "disk", **disk})
        address = self.plug("nvme", serial="disk", drive="disk")
        self.wait_for("test -e /sys/class/block/nvme0n1")
        return address

    def plug_nic(self) -> tuple[str, str]:
        """Plug an e1000e with a network behind it and bring it up; return its address and its interface's name.

        It has 10.0.2.15/24 and no route beyond. On 10.0.2.100, TCP port 7 echoes.
        """
        self.qmp("netdev_add", type="user", id="network", ipv6=False, guestfwd=[{"str": "tcp:10.0.2.100:7-cmd:cat"}])
        address = self.plug("e1000e", netdev="network", romfile="")
        interface = self.wait_for(f"ls {_SYSFS}/{address}/net").out.strip()
        self.run("udevadm settle")  # which renames it
        interface = self.run(f"ls {_SYSFS}/{address}/net").out.strip()
        self.run(f"ip address add 10.0.2.15/24 dev {interface} && ip link set {interface} up")
        self.wait_for(f"ip link show {interface} | grep -q LOWER_UP")
        return address, interface

    def plug_in_group(self) -> str:
        """Plug an e1000e beside E1000 and E1000_TWIN, into their IOMMU group, and return its address."""
        self.qmp("device_add", driver="e1000e", bus=devices.PCI_BUS, addr="3", id="third", romfile="")
        self._plugged["third"] = address = devices.THIRD_IN_GROUP
        self.wait_for(f"readlink {_SYSFS}/{address}/driver | grep -qx '.*/e1000e'")
        return address

    def plug_display(self) -> str:
        """Plug a display, which becomes the kernel's console, and return its address."""
        address = self.plug("bochs-display", bus="free3", vgamem=4 << 20)
        self.wait_for("grep -qx 1 /sys/class/vtconsole/vtcon1/bind")
        return address

    def plug_keyboard(self) -> str:
        """Plug a USB controller with a keyboard, and return the controller's address."""
        address = self.plug("qemu-xhci", id="xhci")
        self.qmp("device_add", driver="usb-kbd", bus="xhci.0")
        self.wait_for(f"ls -d {_SYSFS}/{address}/usb*/*/*/*/input/input*/event*")
        return address

    def plug_nvme(self, vfs: int = 0) -> str:
        """Plug an SR-IOV NVMe controller, make so many of its 8 VFs once nvme has it, and return its address."""
        address = self.plug(
            "nvme",
            serial="flavourd",
            subsys=devices.NVME_SUBSYSTEM,
            sriov_max_vfs=8,
            sriov_vq_flexible=16,
            sriov_vi_flexible=8,
        )
        self.wait_for(f"readlink {_SYSFS}/{address}/driver | grep -qx '.*/nvme'")
        if vfs:
            self.run(f"echo {vfs} > {_SYSFS}/{address}/sriov_numvfs")
            self.wait_for(f"test -e {_SYSFS}/{address}/virtfn{vfs - 1}")
        return address

    def virtual_functions(self, address: str) -> list[str]:
        """Return the addresses of a device's VFs, in their order."""
        links = self.run(f"for n in $(seq 0 255); do readlink {_SYSFS}/{address}/virtfn$n || break; done").out
        return [Path(link).name for link in links.split()]

    def driver(self, address: str) -> str | None:
        """Return the name of the driver that has the device, or None."""
        link = self.run(f"readlink {_SYSFS}/{address}/driver", check=False).out.strip()
        return Path(link).name if link else None

    def reboot(self, timeout: float = 600) -> None:
        """Reboot the guest and wait until it is up again."""
        boot = self.run("cat /proc/sys/kernel/random/boot_id").out
        self.start("systemctl reboot")
        deadline = time.monotonic() + timeout
        seen, silence = "nothing", ""
        while time.monotonic() < deadline:
            try:
                self._wait_for_agent(30)
                if self.run("cat /proc/sys/kernel/random/boot_id").out != boot:
                    seen = "that it is up"
                    self.run("systemctl is-system-running --wait", check=False, timeout=deadline - time.monotonic())
                    return
                seen = "that it goes down"
            except (AgentError, CommandError) as error:  # it went away between two words
                silence = f", then: {error}"
        raise CommandError(f"the guest did not come back within {timeout:g} s; last seen: {seen}{silence}")

    def _wait_for_agent(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.qemu.agent.sync(min(timeout, 30))
            except AgentError:
                console = self.qemu.console_log.read_text(errors="replace")
                if _EMULATORS_FAULT.search(console, self._seen_of_console):
                    self._seen_of_console = len(console)
                    self.qmp("system_reset")
                elif time.monotonic() >= deadline:
                    raise

    def evidence(self, folder: Path) -> None:
        """Put the machine's own account of what happened in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.qemu.agent.sync(10)
        except (AgentError, OSError):
            self._ask_the_kernel()
        (folder / "console.log").write_bytes(self.qemu.console_log.read_bytes())
        for name, command in {
            "journal.txt": "journalctl -o short-monotonic -b --no-pager",
            "dmesg.txt": "dmesg",
            "processes.txt": HANGING,
            "jobs.txt": "systemctl list-jobs; systemctl --failed --no-pager",
        }.items():
            try:
                self.qemu.agent.sync(10)  # an answer that came too late may still be in the channel
                text = self.run(command, check=False, timeout=20).out
            except (AgentError, CommandError, OSError) as error:  # what it told before is kept
                text = f"not to be had: {error}\n"
            (folder / name).write_text(text)

    def _ask_the_kernel(self) -> None:
        """Who has no agent left has Alt+SysRq: what the processors do and which tasks are blocked, on the console."""
        for key, answer in {"9": "Changing Loglevel", "l": "Show backtrace", "w": "Show Blocked State"}.items():
            self.qmp("human-monitor-command", **{"command-line": f"sendkey alt-sysrq-{key}"})
            deadline = time.monotonic() + 10
            while answer not in self.qemu.console_log.read_text(errors="replace") and time.monotonic() < deadline:
                time.sleep(0.1)


def _text(command: str | list[str]) -> str:
    return command if isinstance(command, str) else shlex.join(command)
