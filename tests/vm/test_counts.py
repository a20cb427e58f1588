# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flavourd does for a switch, for events that are none of its business, and at its start, in counts that no other
load on the host changes: beside those of counts.json.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from . import counts
from .asking import PCI, ask
from .devices import E1000E, E1000E_TWIN
from .machine import Machine
from .strace import Call, calls
from .test_daemon import drop_in
from .varlink import call

pytestmark = pytest.mark.vm

_EVENTS = 200
_EPOLL_WAIT = 232  # its number on x86-64
_READ = 0
_PYTHON = "/usr/lib/flavourd/python/flavourd"


@contextmanager
def traced(vm: Machine, unit: str, kinds: Iterable[str]) -> Iterator[list[Call]]:
    """Meanwhile strace follows a service and its children. In the end, when it has nothing left to do, the list has
    its calls of these kinds.
    """
    found: list[Call] = []
    pid = int(vm.run(f"systemctl show -P MainPID {unit}").out)
    folder = f"/run/strace/{unit}"
    vm.run(f"rm -rf {folder}; mkdir -p {folder}")
    # The shell makes room for strace itself, so that it is told apart by its number.
    # A worker that waits for a job is a child already.
    everyone = [pid, *map(int, vm.run(f"pgrep -P {pid} || true").out.split())]
    processes = " ".join(f"-p {each}" for each in everyone)
    strace = vm.start(f"exec strace -ff -y -e trace={','.join(kinds)} -o {folder}/calls {processes} 2> {folder}/told")
    vm.wait_for(f"test $(grep -c ' attached' {folder}/told) = {len(everyone)}", timeout=120)
    yield found
    at_work = f"for each in $(pgrep -P {pid}); do grep -v '^{_READ} ' /proc/$each/syscall; done | grep ."
    vm.wait_for(f"! ({at_work}) && grep '^{_EPOLL_WAIT} ' /proc/{pid}/syscall", timeout=120)
    vm.run(["kill", str(strace.pid)])
    strace.wait()
    found += calls(vm.run(f"cat {folder}/calls.*").out)


def stop_the_clocks(vm: Machine) -> None:
    """Guards look a second time if the first look was half a second ago, and what strace follows is often that slow.
    Workers that wait for a job end after a while.
    """
    for file, constant in (("answer", "_FRESH_SECONDS"), ("crew", "_IDLE_SECONDS")):
        vm.run(f"sed -i 's/^{constant} = .*/{constant} = 3600.0/w /dev/stdout' {_PYTHON}/{file}.py | grep .")
    vm.run("systemctl restart flavourd")


def switch(vm: Machine, flavour: str) -> None:
    reply = call(vm, "Set", devices=[f"pci/{E1000E}"], flavour=flavour)
    assert reply.error is None, reply
    vm.run("udevadm settle")  # which renames its interface


def test_switches(vm: Machine) -> None:
    stop_the_clocks(vm)
    for flavour in ("vfio", "default"):  # from now on modules are loaded, and known
        switch(vm, flavour)
    for flavour in ("vfio", "default"):
        with traced(vm, "flavourd", counts.SWITCH_CALLS) as done:
            switch(vm, flavour)
        print(f"--- to {flavour}", *(f"{each.name}({each.arguments}) = {each.value}" for each in done), sep="\n")
        counts.compare(f"a switch to {flavour}", counts.of_switch(done))


def test_unrelated_events(vm: Machine) -> None:
    def sent() -> int:
        return int(vm.run("cat /sys/kernel/uevent_seqnum").out)

    stop_the_clocks(vm)
    ask(vm, E1000E, "vfio")
    vm.run("udevadm settle")  # from now on its events do wake the daemon
    before = sent()
    with (
        traced(vm, "flavourd", counts.WAKE_UP_CALLS) as daemon,
        traced(vm, "flavourd-attributes", counts.WAKE_UP_CALLS) as attributes,
    ):
        both = f"/sys/class/mem/null {PCI}/{E1000E_TWIN}"
        vm.run(f"for i in $(seq {_EVENTS // 2}); do for device in {both}; do echo change > $device/uevent; done; done")
        vm.run("udevadm settle", timeout=300)
    assert sent() >= before + _EVENTS
    found = {"flavourd": counts.wake_ups(daemon), "flavourd-attributes": counts.wake_ups(attributes)}
    counts.compare(f"wake-ups by {_EVENTS} unrelated events", found)
    with traced(vm, "flavourd", counts.WAKE_UP_CALLS) as daemon:
        call(vm, "Status")
    assert counts.wake_ups(daemon), "who is woken is seen"


def test_modules_imported_at_start(vm: Machine) -> None:
    # As it is started, and nothing but the interpreter itself, both with what their first lines say.
    python = "/usr/bin/python3 -X importtime"
    drop_in(vm, f"ExecStart=\nExecStart={python} -I /usr/sbin/flavourd\nStandardError=file:/run/imports\n")
    told = {
        "flavourd": ("cat /run/imports", f"{python} -I -c pass 2>&1"),
        "flavourctl list": (f"{python} -IS /usr/bin/flavourctl list 2>&1 >/dev/null", f"{python} -IS -c pass 2>&1"),
    }
    for what, (program, bare) in told.items():
        names = counts.modules(vm.run(program).out) - counts.modules(vm.run(bare).out)
        own = {name for name in names if name.partition(".")[0] == "flavourd"}
        print(f"--- {what}", *sorted(names), sep="\n")
        found = {"flavourd's own": len(own), "of others, at most": len(names - own)}
        counts.compare(f"modules imported at the start of {what}", found)
