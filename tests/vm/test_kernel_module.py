# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel module alone, with a listener in flavourd's place: what driver_flavour reads and writes, and that nothing
which happens meanwhile (signals, unplugging, unloading, suspending) hangs, warns or leaks.
"""

import errno
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from .cache import Tell
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN
from .image import newest
from .machine import Machine, Running
from .userspace import program

pytestmark = pytest.mark.vm

PCI = "/sys/bus/pci/devices"
RUN = "/run/listener"
BAD = r"WARNING|BUG:|KASAN|lockdep|possible circular|blocked for more than|Call Trace|refcount_t"
DEBUG = os.environ.get("FLAVOURD_KERNEL") == "debug"
ALL = "find /sys/devices -name driver_flavour"


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """A machine with the module loaded. At its end the kernel has complained of nothing."""
    booted.run("dmesg -C && modprobe driver_flavour")
    yield booted
    if DEBUG:
        assert booted.run("awk '/debug_locks:/ {print $2}' /proc/lockdep_stats").out == "1\n", "it has not given up"
    said = booted.run("dmesg").out
    assert [line for line in said.splitlines() if re.search(BAD, line)] == [], said


def nothing_is_lost(machine: Machine) -> None:
    """The debug kernel finds no memory of the module's that nobody knows of."""
    if DEBUG:
        # Nothing is a leak before it is found so twice.
        machine.run("for i in 1 2; do echo scan > /sys/kernel/debug/kmemleak; done", timeout=300)
        assert "driver_flavour" not in machine.run("cat /sys/kernel/debug/kmemleak").out


def listen(machine: Machine, *options: str) -> int:
    """Start the listener as a service and wait until it has told its table; returns its pid."""
    words = " ".join(program(machine, "listener", *options))
    machine.run(f"rm -rf {RUN}; systemctl reset-failed listener; systemd-run -q --unit=listener {words}")
    return int(json.loads(machine.wait_for(f"grep ready {RUN}/log").out)["ready"])


def told(machine: Machine) -> list[dict[str, Any]]:
    return [json.loads(line) for line in machine.run(f"cat {RUN}/log").out.splitlines()]


def event(machine: Machine, word: str) -> dict[str, str]:
    """The uevent of the only request with this word, once it is there."""
    machine.wait_for(f'grep \'"DRIVER_FLAVOUR": "{word}"\' {RUN}/log')
    (found,) = [each["event"] for each in told(machine) if each.get("event", {}).get("DRIVER_FLAVOUR") == word]
    assert isinstance(found, dict)
    return found


def order(machine: Machine, text: str) -> int:
    """Let the listener write this, and return the errno (0: all was taken)."""
    before = len(told(machine))
    machine.run(["sh", "-c", f'printf "%s\\n" "$1" > {RUN}/in', "sh", json.dumps(text)])
    machine.wait_for(f"[ $(wc -l < {RUN}/log) -gt {before} ]")
    (found,) = [each for each in told(machine)[before:] if each.get("text") == text]
    assert found.get("count", len(text)) == len(text)
    return int(found.get("errno", 0))


def file(address: str) -> str:
    return f"{PCI}/{address}/driver_flavour"


def start(machine: Machine, address: str, word: str) -> Running:
    """One write(2) of a word and a newline, by dd: it tells the errno's text, and what kills kills it."""
    source = f"/run/word-{hashlib.sha256(word.encode()).hexdigest()[:16]}"
    machine.write(source, word + "\n")
    words = ["dd", "bs=4k", "status=none", f"if={source}", f"of={file(address)}", "conv=notrunc"]
    return machine.start(["env", "LC_ALL=C", *words])


def holds(machine: Machine, address: str) -> Running:
    """A program that has the file open, and once /run/go is written to reads and writes it."""
    use = f"exec 3<> {file(address)}; touch /run/open; read -r x < /run/go; LC_ALL=C cat <&3; echo ok >&3"
    machine.run("mkfifo /run/go")
    running = machine.start(use)
    machine.wait_for("test -e /run/open")
    return running


def result(running: Running, timeout: float = 30) -> int:
    """The errno that a writer got, 0 for none."""
    done = running.wait(timeout)
    if done.rc == 0:
        return 0
    (code,) = [code for code in errno.errorcode if done.err.rstrip().endswith(f": {os.strerror(code)}")]
    return code


def write(machine: Machine, address: str, word: str) -> int:
    return result(start(machine, address, word))


def waits(machine: Machine, address: str, word: str = "silent") -> Running:
    """A writer of a word that nobody answers, when it waits."""
    running = start(machine, address, word)
    event(machine, word)
    machine.wait_for(f"grep -q D /proc/{running.pid}/stat")
    return running


def test_it_compiles_for_the_newest_kernel(tell: Tell) -> None:
    """Without a warning. Debian's backports have it; with the compiler of the release."""
    release = newest(tell)
    print(release)
    assert tuple(map(int, release.split(".")[:2])) > (6, 12)


# --- reading


def test_reading_tells_the_flavours_of_the_bus_and_the_one_the_kernel_says_it_is_in(machine: Machine) -> None:
    said = machine.run(f"cat {file(E1000E)}", check=False)
    assert said.out == ""
    assert said.err.rstrip().endswith(os.strerror(errno.EAGAIN))
    listen(machine)
    assert machine.run(f"cat {file(E1000E)}").out == "[default] vfio other\n"
    platform = machine.run("ls -d /sys/bus/platform/devices/*/driver_flavour | head -n 1").out.strip()
    assert machine.run(f"cat {platform}").out == "[default] vfio\n"
    machine.run(f"modprobe vfio-pci && echo vfio-pci > {PCI}/{E1000E}/driver_override")
    machine.run(f"echo {E1000E} > {PCI}/{E1000E}/driver/unbind; echo {E1000E} > /sys/bus/pci/drivers_probe")
    assert machine.run(f"ls {PCI}/{E1000E}/vfio-dev").out == "vfio0\n"
    assert machine.run(f"cat {file(E1000E)}").out == "default [vfio] other\n"
    machine.run(f"echo {E1000E} > {PCI}/{E1000E}/driver/unbind")
    assert machine.run(f"cat {file(E1000E)}").out == "[default] vfio other\n"
    machine.run("systemctl stop listener")
    assert machine.run(f"cat {file(E1000E)}").out == "[default] vfio other\n", "what was told last"


def test_every_pci_and_platform_device_has_the_file_and_only_root_writes_it(machine: Machine) -> None:
    for bus in ("pci", "platform"):
        missing = f"for d in /sys/bus/{bus}/devices/*; do [ -e $d/driver_flavour ] || echo $d; done"
        assert machine.run(missing).out == ""
        assert int(machine.run(f"ls /sys/bus/{bus}/devices | wc -l").out) > 3
    assert machine.run(f"stat -c %A%U {file(E1000E)}; stat -c %A%U /dev/driver_flavour").out.split() == [
        "-rw-r--r--root",
        "crw-------root",
    ]


# --- the listener's messages


def test_what_the_listener_may_say(machine: Machine) -> None:
    listen(machine)
    bad = ["\n", "begin", "begin x\n", "begin 0\n", "begin -1\n", "begin 1 2\n"]
    bad += ["answer 1\n", "answer 1 -5\n", "answer 1 4096\n", "dismiss", "x" * 4096, "flavours"]
    rows = ["pci vfio\n", "pci a b c d\n", "pci a b c", "pci a b\nc\n", "pci  a b c\n", "pci a b c\n\n"]
    bad += [f"flavours\n{row}" for row in (*rows, f"pci {'a' * 65} b\n")]
    assert [text[:20] for text in bad if order(machine, text) != errno.EINVAL] == []
    assert machine.run(f"cat {file(E1000E)}").out == "[default] vfio other\n", "the former table stays"
    assert order(machine, "begin 1\n") == errno.ENOENT
    assert order(machine, "answer 1 0\n") == errno.ENOENT
    assert order(machine, "flavours\n") == 0
    assert machine.run(f"cat {file(E1000E)}").out == "[default]\n"
    long = " ".join(("pci", "n" * 64, "p" * 64, "q" * 64))
    assert order(machine, f"flavours\n{long}\n") == 0
    assert machine.run(f"cat {file(E1000E)}").out == f"[default] {'n' * 64}\n"
    full = "flavours\n" + "".join(f"pci f{number:03} - x\n" for number in range(313))
    assert order(machine, full) == 0
    assert machine.run(f"cat {file(E1000E)}").out == f"[default] {' '.join(f'f{n:03}' for n in range(313))}\n"


def test_a_second_listener_is_refused_and_who_only_looks(machine: Machine) -> None:
    looking = machine.run("LC_ALL=C head -c 1 /dev/driver_flavour", check=False)
    assert os.strerror(errno.EINVAL) in looking.err
    listen(machine)
    second = machine.run("python3 -c 'import os; os.open(\"/dev/driver_flavour\", os.O_WRONLY)'", check=False)
    assert os.strerror(errno.EBUSY) in second.err
    machine.run("systemctl stop listener")
    listen(machine)


# --- writing


def test_a_write_is_told_with_all_that_udev_needs_and_gets_its_answer(machine: Machine) -> None:
    listen(machine)
    before = machine.run("awk '{printf \"%d\", $1 * 1000000000}' /proc/uptime").out
    assert write(machine, E1000E, "ok") == 0
    found = event(machine, "ok")
    modalias = machine.run(f"cat {PCI}/{E1000E}/modalias").out.strip()
    path = machine.run(f"readlink -f {PCI}/{E1000E}").out.strip().removeprefix("/sys")
    assert (found["ACTION"], found["SUBSYSTEM"], found["DEVPATH"]) == ("change", "pci", path)
    assert (found["MODALIAS"], found["DRIVER"]) == (modalias, "e1000e")
    assert "FLAVOUR_MODALIAS" not in found, "no flavour"
    first = int(found["DRIVER_FLAVOUR_SEQ"])
    assert first > int(before) // 2
    start(machine, E1000E, "  vfio\t ")
    found = event(machine, "vfio")
    assert found["FLAVOUR_MODALIAS"] == "vfio_" + modalias
    assert int(found["DRIVER_FLAVOUR_SEQ"]) > first
    waiting = start(machine, E1000E, "other")
    found = event(machine, "other")
    assert "FLAVOUR_MODALIAS" not in found, "a flavour without a prefix"
    assert order(machine, f"begin {found['DRIVER_FLAVOUR_SEQ']}\n") == 0
    assert waiting.running
    assert order(machine, f"answer {found['DRIVER_FLAVOUR_SEQ']} 0\n") == 0
    assert result(waiting) == 0
    assert order(machine, f"answer {found['DRIVER_FLAVOUR_SEQ']} 0\n") == errno.ENOENT


def test_numbers_go_on_after_a_reload(machine: Machine) -> None:
    listen(machine)
    assert write(machine, E1000E, "errno-5") == errno.EIO
    first = int(event(machine, "errno-5")["DRIVER_FLAVOUR_SEQ"])
    machine.run("systemctl stop listener && rmmod driver_flavour && modprobe driver_flavour")
    listen(machine)
    assert write(machine, E1000E, "ok") == 0
    assert int(event(machine, "ok")["DRIVER_FLAVOUR_SEQ"]) > first


def test_the_answers_errno_is_the_writes(machine: Machine) -> None:
    listen(machine)
    for code in (errno.EINVAL, errno.EBUSY, errno.ENODEV, errno.EIO, errno.EACCES, errno.EAGAIN, errno.ETIMEDOUT):
        assert write(machine, E1000E, f"errno-{code}") == code


def test_words_that_no_flavour_can_be_are_refused_and_others_go_out_as_they_are(machine: Machine) -> None:
    listen(machine)
    for word in ("a\nb", "a\0b", "a\x01", "a\x7fb", "x" * 512):
        machine.write("/run/odd", word)
        done = machine.run(f"LC_ALL=C dd bs=4k status=none if=/run/odd of={file(E1000E)} conv=notrunc", check=False)
        assert done.err.rstrip().endswith(os.strerror(errno.EINVAL)), word[:5]
    long = "y" * 511
    waits(machine, E1000E, long)
    waits(machine, E1000E, "größe a=b")
    waits(machine, E1000E_TWIN, "")


def test_without_a_listener_a_write_fails_at_once(machine: Machine) -> None:
    assert write(machine, E1000E, "vfio") == errno.EAGAIN
    listen(machine)
    assert write(machine, E1000E, "ok") == 0
    machine.run("systemctl stop listener")
    assert write(machine, E1000E, "ok") == errno.EAGAIN


def test_those_who_wait_when_the_listener_dies_are_told(machine: Machine) -> None:
    pid = listen(machine)
    waiting = [waits(machine, E1000E, "one"), waits(machine, E1000E, "two"), waits(machine, E1000, "three")]
    machine.run(f"kill -KILL {pid}")
    assert [result(each, 10) for each in waiting] == [errno.EAGAIN] * 3
    listen(machine)
    assert write(machine, E1000E, "ok") == 0


def test_dismissed_is_who_has_not_begun(machine: Machine) -> None:
    listen(machine)
    begun, waiting = waits(machine, E1000E, "begun"), [waits(machine, E1000E, "one"), waits(machine, E1000, "two")]
    number = event(machine, "begun")["DRIVER_FLAVOUR_SEQ"]
    assert order(machine, f"begin {number}\n") == 0
    assert order(machine, "dismiss\n") == 0
    assert [result(each, 10) for each in waiting] == [errno.EAGAIN] * 2
    assert begun.running
    assert order(machine, "dismiss\n") == 0, "nobody is left"
    assert order(machine, f"answer {number} 0\n") == 0
    assert result(begun) == 0
    assert write(machine, E1000E, "ok") == 0, "the listener is the same"


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_writer_that_is_killed_is_gone_at_once_and_nobody_begins_its_request(machine: Machine, signal: str) -> None:
    listen(machine)
    waiting = waits(machine, E1000E)
    number = event(machine, "silent")["DRIVER_FLAVOUR_SEQ"]
    assert order(machine, f"begin {number}\n") == 0
    machine.run(f"kill -{signal} {waiting.pid}")
    waiting.wait(5)
    assert order(machine, f"begin {number}\n") == errno.ENOENT
    assert order(machine, f"answer {number} 0\n") == errno.ENOENT


def test_a_signal_that_does_not_kill_changes_nothing(machine: Machine) -> None:
    listen(machine)
    waiting = machine.start(["sh", "-c", f"trap : USR1; echo silent > {file(E1000E)}"])
    number = event(machine, "silent")["DRIVER_FLAVOUR_SEQ"]
    machine.run(f"kill -USR1 {waiting.pid}")
    assert order(machine, f"begin {number}\n") == 0
    assert waiting.running
    assert order(machine, f"answer {number} 0\n") == 0
    assert waiting.wait(10).rc == 0
    assert len([each for each in told(machine) if "event" in each]) == 1, "it went out once"


def test_two_writers_at_one_device_get_each_its_own_answer(machine: Machine) -> None:
    listen(machine)
    first, second = waits(machine, E1000E, "first"), waits(machine, E1000E, "second")
    numbers = [event(machine, word)["DRIVER_FLAVOUR_SEQ"] for word in ("first", "second")]
    assert order(machine, f"answer {numbers[1]} {errno.EBUSY}\n") == 0
    assert result(second) == errno.EBUSY
    assert first.running
    assert order(machine, f"answer {numbers[0]} 0\n") == 0
    assert result(first) == 0


def test_nobody_waits_longer_than_the_time_out(machine: Machine) -> None:
    listen(machine)
    machine.run("echo 1 > /sys/module/driver_flavour/parameters/timeout")
    assert write(machine, E1000E, "silent") == errno.ETIMEDOUT
    number = event(machine, "silent")["DRIVER_FLAVOUR_SEQ"]
    assert order(machine, f"begin {number}\n") == errno.ENOENT
    for limit in ("0", "4294967295"):
        machine.run(f"echo {limit} > /sys/module/driver_flavour/parameters/timeout")
        assert write(machine, E1000E, "ok") in (0, errno.ETIMEDOUT)


# --- the device goes


def test_a_device_is_removed_within_a_second_under_its_writers_and_comes_back_with_its_file(machine: Machine) -> None:
    listen(machine)
    waiting = [waits(machine, E1000, "one"), waits(machine, E1000, "two")]
    other = waits(machine, E1000_TWIN, "three")
    timed = f"read -r a _ </proc/uptime; echo 1 > {PCI}/{E1000}/remove; read -r b _ </proc/uptime; echo $a $b"
    began, ended = map(float, machine.run(timed).out.split())
    print(f"removed within {ended - began:.2f} s")
    assert ended - began < (10 if DEBUG else 1), "far less than any writer waits"
    assert [result(each, 5) for each in waiting] == [errno.ENODEV] * 2
    assert other.running
    machine.run("echo 1 > /sys/bus/pci/rescan")
    assert write(machine, E1000, "ok") == 0


def test_a_device_is_unplugged_under_its_writer_and_under_who_has_the_file_open(machine: Machine) -> None:
    address = machine.plug("e1000e", id="card", romfile="")
    listen(machine)
    holder = holds(machine, address)
    waiting = waits(machine, address)
    machine.unplug("card")
    assert result(waiting, 5) == errno.ENODEV
    machine.run("echo > /run/go")
    assert os.strerror(errno.ENODEV) in holder.wait(10).err
    address = machine.plug("e1000e", id="card", romfile="")
    assert write(machine, address, "ok") == 0


# --- the module goes


def test_the_module_stays_while_somebody_listens_or_waits(machine: Machine) -> None:
    in_use = "rmmod: ERROR: Module driver_flavour is in use\n"
    listen(machine)
    assert machine.run("rmmod driver_flavour", check=False).err == in_use
    waiting = waits(machine, E1000E)
    assert machine.run("rmmod driver_flavour", check=False).err == in_use
    number = event(machine, "silent")["DRIVER_FLAVOUR_SEQ"]
    assert order(machine, f"answer {number} 0\n") == 0
    assert result(waiting) == 0
    machine.run("systemctl stop listener && rmmod driver_flavour")


def test_files_come_and_go_with_the_module(machine: Machine) -> None:
    count = int(machine.run(f"{ALL} | wc -l").out)
    holder = holds(machine, E1000E)
    machine.run("rmmod driver_flavour")
    assert machine.run(ALL).out == ""
    assert machine.run("test -e /dev/driver_flavour", check=False).rc == 1
    machine.run("echo > /run/go")
    assert os.strerror(errno.ENODEV) in holder.wait(10).err
    machine.run("modprobe driver_flavour")
    assert int(machine.run(f"{ALL} | wc -l").out) == count


def test_devices_come_and_go_while_the_module_does_and_while_files_are_read_and_written(machine: Machine) -> None:
    """In each second round somebody listens, and a writer waits for him, until the module shall go."""
    rounds = 4 if DEBUG else 20
    loop = 'i=0; while [ $i -lt "$1" ]; do i=$((i + 1)); eval "$2" || exit 1; done'
    listens = (
        "exec 4> /dev/driver_flavour && printf 'flavours\\npci vfio - vfio-dev\\n' >&4 && "
        "until [ $(cat /sys/module/driver_flavour/refcnt) -gt 1 ]; do :; done; exec 4>&-"
    )
    unload = "until rmmod driver_flavour 2> /dev/null; do :; done"
    busy = [f"modprobe driver_flavour && if [ $((i % 2)) = 1 ]; then {listens}; fi && {unload}"]
    busy += [f"echo 1 > {PCI}/{E1000}/remove && echo 1 > /sys/bus/pci/rescan && [ -e {PCI}/{E1000} ]"]
    if not DEBUG:  # which has no module that makes a platform device
        made = "[ -e /sys/devices/platform/snd_dummy.0 ]"
        busy += [f"modprobe snd-dummy && {made} && until modprobe -r snd-dummy 2> /dev/null; do :; done"]
    use = "for f in /sys/bus/*/devices/*/driver_flavour; do cat $f && n=$((n + 1)); done"
    reader = f"n=0; until [ -e /run/enough ]; do {use}; done > /dev/null 2>&1; echo $n"
    writer = f"until [ -e /run/enough ]; do echo ok > {file(E1000)}; done 2> /run/said"

    machine.run("rmmod driver_flavour")
    reading = machine.start(reader)
    writing = machine.start(["env", "LC_ALL=C", "bash", "-c", writer])
    running = [machine.start(["sh", "-c", loop, "sh", str(rounds), words]) for words in busy]
    ended = [each.wait(500) for each in running]
    machine.run("touch /run/enough")
    assert [(each.rc, each.err) for each in ended] == [(0, "")] * len(busy)
    assert int(reading.wait(60).out) > 0
    writing.wait(60)
    said = [line.rpartition(": ")[2] for line in machine.run("grep 'write error' /run/said").out.splitlines()]
    print(Counter(said))
    assert os.strerror(errno.EAGAIN) in said
    machine.run("modprobe driver_flavour")
    test_every_pci_and_platform_device_has_the_file_and_only_root_writes_it(machine)
    nothing_is_lost(machine)


def test_a_device_is_removed_under_its_writers_while_the_module_is_asked_to_go(machine: Machine) -> None:
    """Who has lost his device holds the module, and nothing else does, until he is out of it."""
    for _ in range(5):
        pid = listen(machine)
        waiting = [start(machine, E1000, f"w{number}") for number in range(5)]
        machine.wait_for(f'[ $(grep -c \'"DRIVER_FLAVOUR": "w\' {RUN}/log) = 5 ]')
        going = machine.start("until rmmod driver_flavour; do :; done 2> /dev/null")
        machine.run(f"echo 1 > {PCI}/{E1000}/remove; kill -KILL {pid}")
        going.wait(30)
        assert {result(each, 10) for each in waiting} == {errno.ENODEV}
        machine.run("echo 1 > /sys/bus/pci/rescan; modprobe driver_flavour")
    nothing_is_lost(machine)


# --- much, and long


def test_twenty_thousand_writes_leak_nothing(machine: Machine) -> None:
    # udev would handle each event; here the kernel's memory is weighed alone.
    machine.run("systemctl stop systemd-udevd systemd-udevd-control.socket systemd-udevd-kernel.socket")
    listen(machine, "--quiet")

    def writes(count: int) -> None:
        """So many of each kind: answered well and badly, refused, and then timed out."""
        words = program(machine, "writes", file(E1000E), str(count), "ok", "errno-16", "x" * 512)
        told = json.loads(machine.run(words, timeout=500).out)
        assert told == {"0": count, str(errno.EBUSY): count, str(errno.EINVAL): count}
        machine.run("echo 0 > /sys/module/driver_flavour/parameters/timeout")
        words = program(machine, "writes", file(E1000E), str(count), "silent")
        assert json.loads(machine.run(words, timeout=500).out) == {str(errno.ETIMEDOUT): count}
        machine.run("echo 300 > /sys/module/driver_flavour/parameters/timeout")

    def figures() -> tuple[int, dict[str, int]]:
        # The listener hears of those who are not answered, too, and may be thousands of events behind.
        machine.wait_for("! awk 'NR > 1 && $5 > 0' /proc/net/netlink | grep .", 60)
        # shrink: else objects that are free in a CPU's own slab would count as used.
        machine.run("echo 3 > /proc/sys/vm/drop_caches; for s in /sys/kernel/slab/*/shrink; do echo 1 > $s; done")
        slab = int(machine.run("awk '/^SUnreclaim/ {print $2}' /proc/meminfo").out)
        rows = machine.run("awk '/^(kmalloc|kernfs|task_struct|skbuff)/ {print $1, $2}' /proc/slabinfo").out
        return slab, {name: int(active) for name, active in (row.split() for row in rows.splitlines())}

    writes(500)
    slab, rows = figures()
    writes(5000)
    slab_after, rows_after = figures()
    grown = {name: rows_after[name] - count for name, count in rows.items() if rows_after[name] != count}
    print(f"SUnreclaim {slab} -> {slab_after} kB; active objects of slabs that changed: {grown}")
    assert max(grown.values(), default=0) < 1000
    assert slab_after - slab < 1024
    nothing_is_lost(machine)


def test_a_writer_that_waits_does_not_keep_the_machine_from_sleeping(machine: Machine) -> None:
    listen(machine)
    waiting = waits(machine, E1000E)
    machine.run("echo freezer > /sys/power/pm_test")
    machine.run("echo mem > /sys/power/state", timeout=120)
    said = machine.run("dmesg").out
    assert "Freezing user space processes completed" in said
    number = event(machine, "silent")["DRIVER_FLAVOUR_SEQ"]
    assert order(machine, f"answer {number} 0\n") == 0
    assert result(waiting) == 0
