# SPDX-License-Identifier: LGPL-2.1-or-later
"""flavourd and the kernel module together: `echo vfio > /sys/bus/pci/devices/…/driver_flavour`, and what a writer gets
and reads whatever happens meanwhile.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from .asking import PCI, alive, ask, inject, outcomes, override, proof, untouched, variant, vfio_modules
from .devices import E1000, E1000_TWIN, E1000E, E1000E_TWIN, VIRTIO_NET
from .flavourctl import ctl
from .machine import CommandError, Done, Machine, Running
from .policy import enforce, until_driver
from .test_daemon import daemon, drop_in
from .test_hangs import SLEEPS_IN, no_longer_stuck, short_deadline
from .userspace import hold, let_go

pytestmark = pytest.mark.vm

_NUMBERS = {os.strerror(number): number for number in errno.errorcode}
_WRONG = re.compile(r"WARNING:|BUG:|Oops|possible recursive locking|INFO: task .* blocked")
# As a shell does it; bash, for other shells do not say which error it was.
_WRITE = 'echo "$1" > "$2"'


@pytest.fixture
def quiet(vm: Machine) -> Iterator[Machine]:
    """flavourd, and the kernel module as yet to be loaded; in the end the kernel has nothing to complain of."""
    vm.run("dmesg --clear")
    yield vm
    assert [line for line in vm.run("dmesg").out.splitlines() if _WRONG.search(line)] == []


@pytest.fixture
def loaded(quiet: Machine) -> Machine:
    """Both; the module came after the daemon."""
    quiet.run("modprobe driver_flavour")
    until_listening(quiet)
    return quiet


def until_listening(vm: Machine) -> None:
    vm.wait_for("ls -l /proc/$(systemctl show -P MainPID flavourd)/fd | grep -q ' /dev/driver_flavour$'", timeout=60)


def file(device: str) -> str:
    return f"{device if device.startswith('/') else f'{PCI}/{device}'}/driver_flavour"


def read(vm: Machine, device: str) -> str:
    return vm.run(["cat", file(device)]).out


def start(vm: Machine, device: str, word: str, *program: str) -> Running:
    """A writer, who waits. program: that runs the shell."""
    return vm.start([*program, "bash", "-c", _WRITE, "bash", word, file(device)])


def number(done: Done) -> int:
    """The errno that the shell has told; 0 for success."""
    if done.rc == 0:
        assert done.err == ""
        return 0
    return _NUMBERS[done.err.strip().rpartition(": ")[2]]


def write(vm: Machine, device: str, word: str, timeout: float = 120) -> int:
    return number(start(vm, device, word).wait(timeout))


def until_asleep(vm: Machine, *writers: Running) -> None:
    """They wait in the module."""
    for writer in writers:
        vm.wait_for(f"grep -q '^State:.D' /proc/{writer.pid}/status")


def until_begun(vm: Machine, address: str) -> None:
    vm.wait_for(f"test -e /run/flavourd/begun/pci:{address}")


def until_in_line(vm: Machine, count: int = 1) -> None:
    vm.wait_for(f"flavourctl status --json=short | grep -q '\"waiting\": *{count}\\b'")


def told(
    vm: Machine, device: str, count: int = 1, match: str = "FLAVOURD_ORIGIN=attribute"
) -> list[tuple[str, str | None]]:
    """Kinds and codes of a device's outcomes that a writer has brought about, of which there are just so many."""
    id_ = f"pci/{device}" if not device.startswith("/") else f"platform/{PurePosixPath(device).name}"
    found = outcomes(vm, f"FLAVOURD_DEVICE={id_} {match}", count=count)
    assert len(found) == count
    return [(outcome.kind, outcome.code) for outcome in found]


@contextmanager
def busy(vm: Machine, address: str) -> Iterator[None]:
    """Meanwhile no worker gets on with this device: another process holds its lock, as an earlier worker would."""
    vm.run("rm -f /run/let-go /run/busy")
    wait = "touch /run/busy; until [ -e /run/let-go ]; do sleep 0.05; done"
    holder = vm.start(["flock", f"/run/flavourd/locks/pci:{address}", "sh", "-c", wait])
    vm.wait_for("test -e /run/busy")
    yield
    vm.run("touch /run/let-go")
    holder.wait()


# --- there and back


def test_the_word_is_enough_on_a_host_that_has_no_vfio_module_loaded_and_brings_it_back(loaded: Machine) -> None:
    assert vfio_modules(loaded) == []
    assert read(loaded, E1000E) == "[default] vfio\n"
    assert write(loaded, E1000E, "vfio") == 0
    assert (loaded.driver(E1000E), override(loaded, E1000E)) == ("vfio-pci", "vfio-pci")
    assert len(proof(loaded, E1000E)) == 1
    assert read(loaded, E1000E) == "default [vfio]\n"
    assert read(loaded, E1000E_TWIN) == "[default] vfio\n"
    assert write(loaded, E1000E, "default") == 0
    assert (loaded.driver(E1000E), override(loaded, E1000E)) == ("e1000e", None)
    assert read(loaded, E1000E) == "[default] vfio\n"
    assert write(loaded, E1000E, "default") == 0, "where it is already it is put with success"
    assert told(loaded, E1000E, 3) == [("switched", None), ("switched", None), ("already", None)]


def test_the_variant_is_taken(loaded: Machine) -> None:
    assert write(loaded, VIRTIO_NET, "  vfio  ") == 0
    assert loaded.driver(VIRTIO_NET) == "virtio_vfio_pci"
    assert read(loaded, VIRTIO_NET) == "default [vfio]\n"
    (outcome,) = outcomes(loaded, f"FLAVOURD_DEVICE=pci/{VIRTIO_NET}")
    assert (outcome.kind, outcome.candidate, outcome.origin) == ("switched", "virtio_vfio_pci", "attribute")
    assert write(loaded, VIRTIO_NET, "default") == 0
    assert loaded.driver(VIRTIO_NET) == "virtio-pci"


def test_what_is_read_is_what_the_kernel_says_whoever_has_switched_the_device(loaded: Machine) -> None:
    ask(loaded, E1000E, "vfio")
    assert read(loaded, E1000E) == "default [vfio]\n"
    loaded.run(f"echo {E1000E} > {PCI}/{E1000E}/driver/unbind")
    assert read(loaded, E1000E) == "[default] vfio\n"


# --- errors


@pytest.mark.parametrize(
    ("word", "code"),
    [("bogus", "unknown-flavour"), ("VFIO", "unknown-flavour"), ("vfio x", "unknown-flavour"), ("", "empty-flavour")],
)
def test_a_wrong_word_is_refused(loaded: Machine, word: str, code: str) -> None:
    with untouched(loaded, E1000E):
        assert write(loaded, E1000E, word) == errno.EINVAL
    assert told(loaded, E1000E) == [("refused", code)]
    (outcome,) = outcomes(loaded, f"FLAVOURD_DEVICE=pci/{E1000E}")
    assert "default, vfio" in outcome.message


def test_a_guarded_device_is_refused_with_who_needs_it(loaded: Machine) -> None:
    disk = loaded.plug_disk(keeps=True)
    loaded.run("mkfs.ext4 -q /dev/nvme0n1 && mount /dev/nvme0n1 /srv")
    with untouched(loaded, disk):
        assert write(loaded, disk, "vfio") == errno.EBUSY
    (outcome,) = outcomes(loaded, f"FLAVOURD_DEVICE=pci/{disk} FLAVOURD_ORIGIN=attribute")
    assert (outcome.kind, outcome.code, outcome.guards) == ("refused", "in-use", ("mounted",))
    assert "nvme0n1 is mounted at /srv" in outcome.message
    loaded.run("umount /srv; udevadm settle")
    assert write(loaded, disk, "vfio") == 0


def test_if_nobody_claims_it_it_is_as_before_and_each_answer_is_told(loaded: Machine) -> None:
    variant(loaded, answer=-errno.EIO)
    loaded.write("/etc/modprobe.d/no-universal.conf", "install vfio_pci /bin/false\n")
    assert write(loaded, E1000E, "vfio") == errno.ENODEV
    (outcome,) = outcomes(loaded, f"FLAVOURD_DEVICE=pci/{E1000E} FLAVOURD_ORIGIN=attribute")
    assert (outcome.kind, outcome.code, outcome.driver) == ("undone", "all-refused", "e1000e")
    assert "EIO" in outcome.refused[0]
    assert (loaded.driver(E1000E), override(loaded, E1000E)) == ("e1000e", None)
    assert read(loaded, E1000E) == "[default] vfio\n"


def test_a_stuck_unbind_times_out_while_others_are_served_and_it_heals(quiet: Machine) -> None:
    quiet.write("/etc/flavourd/flavourd.yaml", "guards: {held: off}\n")
    short_deadline(quiet, 8)  # enough to come as far as the unbind on a busy machine
    quiet.run("modprobe driver_flavour")
    until_listening(quiet)
    assert write(quiet, E1000E, "vfio") == 0
    hold(quiet, E1000E)
    waiting = start(quiet, E1000E, "default")
    assert write(quiet, VIRTIO_NET, "vfio") == 0
    assert number(waiting.wait()) == errno.ETIMEDOUT
    assert told(quiet, E1000E, 2) == [("switched", None), ("stuck", "stuck")]
    stuck = outcomes(quiet, f"FLAVOURD_DEVICE=pci/{E1000E} FLAVOURD_KIND=stuck")[0]
    assert SLEEPS_IN in stuck.message
    assert "holder.service" in stuck.message
    assert write(quiet, E1000E, "vfio") == errno.ETIMEDOUT, "as long as it is stuck, at once"
    let_go(quiet)
    no_longer_stuck(quiet)
    assert quiet.driver(E1000E) == "e1000e"
    assert write(quiet, E1000E, "vfio") == 0
    assert quiet.run("journalctl -q -u flavourd FLAVOURD_CODE=host").out == "", "nobody misses who was sent away"


def test_a_platform_device_has_no_flavour_and_says_so(loaded: Machine) -> None:
    device = loaded.run("ls -d /sys/bus/platform/devices/*").out.split()[0]
    assert read(loaded, device) == "[default]\n"
    assert write(loaded, device, "vfio") == errno.EINVAL
    assert told(loaded, device) == [("refused", "flavour-not-on-bus")]


def test_the_policy_is_overruled_as_by_any_explicit_request(loaded: Machine) -> None:
    enforce(loaded, f"  - match: {{address: '{E1000E}'}}\n    flavour: vfio\n")
    until_driver(loaded, E1000E, "vfio-pci")
    assert write(loaded, E1000E, "default") == 0
    with untouched(loaded, E1000E):
        ctl(loaded, "reload")
        loaded.run("systemctl restart flavourd", timeout=120)
        assert loaded.driver(E1000E) == "e1000e"


# --- writers who go away


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_who_is_killed_in_line_withdraws_what_he_wanted(loaded: Machine, signal: str) -> None:
    with busy(loaded, E1000E):
        first = start(loaded, E1000E, "vfio")
        until_begun(loaded, E1000E)
        second = start(loaded, E1000E, "default")
        until_in_line(loaded)
        loaded.run(f"kill -{signal} {second.pid}")
        second.wait(10)
        assert first.running
    assert number(first.wait()) == 0
    assert told(loaded, E1000E, 2) == [("switched", None), ("refused", "withdrawn")]
    withdrawn = outcomes(loaded, "FLAVOURD_CODE=withdrawn")[0]
    assert "who asked has gone" in withdrawn.message
    assert loaded.driver(E1000E) == "vfio-pci"


def test_what_had_begun_when_its_writer_was_killed_is_finished_and_told(loaded: Machine) -> None:
    with busy(loaded, E1000E):
        writer = start(loaded, E1000E, "vfio")
        until_begun(loaded, E1000E)
        loaded.run(f"kill -KILL {writer.pid}")
        writer.wait(10)
    assert told(loaded, E1000E) == [("switched", None)]
    assert read(loaded, E1000E) == "default [vfio]\n"
    assert loaded.run("journalctl -q -u flavourd FLAVOURD_CODE=host").out == ""


def test_a_device_that_is_unplugged_takes_its_writers_with_it(loaded: Machine) -> None:
    address = loaded.plug("e1000e", romfile="", id="card")
    until_driver(loaded, address, "e1000e")
    with busy(loaded, address):
        first = start(loaded, address, "vfio")
        until_begun(loaded, address)
        second = start(loaded, address, "default")
        until_in_line(loaded)
        loaded.unplug("card")
        assert [number(writer.wait(10)) for writer in (first, second)] == [errno.ENODEV] * 2
    assert told(loaded, address, 2) == [("refused", "no-device"), ("refused", "withdrawn")]
    assert loaded.run("ls /run/flavourd/begun /run/flavourd/records -A | grep pci", check=False).out == ""
    assert loaded.plug("e1000e", romfile="", id="again") == address
    assert write(loaded, address, "vfio") == 0


# --- the daemon goes away


def test_a_killed_daemon_sends_all_writers_away_and_what_had_not_begun_is_never_done(loaded: Machine) -> None:
    """A worker lives on in the middle of its switch: it does not have the node."""
    before = daemon(loaded)
    with busy(loaded, E1000E):
        begun = start(loaded, E1000E, "vfio")
        until_begun(loaded, E1000E)
        waiting = start(loaded, E1000E, "default")
        until_in_line(loaded)
        (worker,) = loaded.wait_for(f"pgrep -P {before}").out.split()
        loaded.run("systemctl kill -s KILL --kill-whom=main flavourd")
        assert [number(writer.wait(10)) for writer in (begun, waiting)] == [errno.EAGAIN] * 2
        assert loaded.run(f"cat /proc/{worker}/comm").out == "flavourd\n", "it has outlived its daemon"
        loaded.wait_for(f"pid=$(systemctl show -P MainPID flavourd); [ $pid -gt 0 ] && [ $pid != {before} ]")
    loaded.wait_for("systemctl is-active flavourd", timeout=60)
    assert told(loaded, E1000E) == [("refused", "withdrawn")]
    (recovered,) = told(loaded, E1000E, match="FLAVOURD_ORIGIN=recovery")
    assert recovered[0] in ("switched", "already")
    assert read(loaded, E1000E) == "default [vfio]\n"
    assert write(loaded, E1000E, "default") == 0
    loaded.run("systemctl restart flavourd")
    assert loaded.driver(E1000E) == "e1000e"
    assert len(outcomes(loaded, f"FLAVOURD_DEVICE=pci/{E1000E}")) == 3


def test_a_daemon_that_is_stopped_finishes_what_it_has_begun_and_tells_the_others(loaded: Machine) -> None:
    with busy(loaded, E1000E):
        begun = start(loaded, E1000E, "vfio")
        until_begun(loaded, E1000E)
        waiting = start(loaded, E1000E, "default")
        until_in_line(loaded)
        stopping = loaded.start("systemctl stop flavourd.socket flavourd.service")
        assert number(waiting.wait(10)) == errno.EAGAIN
        assert write(loaded, E1000E_TWIN, "vfio", timeout=10) == errno.EAGAIN, "who comes while it waits, too"
        assert begun.running
    assert number(begun.wait()) == 0
    assert stopping.wait().rc == 0
    assert told(loaded, E1000E, 2) == [("refused", "stopping"), ("switched", None)]
    assert write(loaded, E1000E, "default", timeout=10) == errno.EAGAIN
    assert read(loaded, E1000E) == "default [vfio]\n", "what it last told stays"
    assert told(loaded, E1000E_TWIN) == [("refused", "stopping")]
    loaded.run("systemctl start flavourd")
    assert (loaded.driver(E1000E), loaded.driver(E1000E_TWIN)) == ("vfio-pci", "e1000e")
    assert len(outcomes(loaded, f"FLAVOURD_DEVICE=pci/{E1000E}", count=2)) == 2
    assert write(loaded, E1000E, "default") == 0


def test_before_a_daemon_was_ever_there_nothing_can_be_read_or_written(quiet: Machine) -> None:
    quiet.run("systemctl stop flavourd.socket flavourd.service")
    quiet.run("modprobe driver_flavour")
    assert "Resource temporarily unavailable" in quiet.run(["cat", file(E1000E)], check=False).err
    assert write(quiet, E1000E, "vfio", timeout=10) == errno.EAGAIN
    quiet.run("udevadm settle; systemctl start flavourd")
    until_listening(quiet)
    assert quiet.driver(E1000E) == "e1000e", "what was refused is forgotten"
    assert read(quiet, E1000E) == "[default] vfio\n"
    assert write(quiet, E1000E, "vfio") == 0
    assert told(quiet, E1000E) == [("switched", None)]


def test_the_module_stays_as_long_as_flavourd_listens_and_comes_again(loaded: Machine) -> None:
    assert "in use" in loaded.run("rmmod driver_flavour", check=False).err
    loaded.run("systemctl stop flavourd.socket flavourd.service; rmmod driver_flavour")
    assert loaded.run(f"test -e {file(E1000E)}", check=False).rc
    loaded.run("systemctl start flavourd")
    assert ask(loaded, E1000E_TWIN, "vfio").kind == "switched", "it does without"
    loaded.run("modprobe driver_flavour")
    until_listening(loaded)
    assert read(loaded, E1000E_TWIN) == "default [vfio]\n"
    assert write(loaded, E1000E, "vfio") == 0


def test_what_waited_in_udevs_database_for_a_daemon_and_its_module_is_not_carried_out(loaded: Machine) -> None:
    """The daemon dies before it hears of the request, and the module goes, too."""
    drop_in(loaded, "Restart=no\n")
    until_listening(loaded)
    loaded.run("systemctl kill -s STOP --kill-whom=main flavourd")
    writer = start(loaded, E1000E, "vfio")
    until_asleep(loaded, writer)
    loaded.run("udevadm settle; systemctl kill -s KILL --kill-whom=main flavourd")
    assert number(writer.wait(10)) == errno.EAGAIN
    loaded.wait_for("systemctl is-failed flavourd")
    loaded.run("rmmod driver_flavour")
    with untouched(loaded, E1000E):
        loaded.run("systemctl start flavourd")
        assert told(loaded, E1000E) == [("refused", "withdrawn")]


def test_somebody_else_at_the_node_is_told_and_his_writers_are_his(loaded: Machine) -> None:
    loaded.run("systemctl stop flavourd.socket flavourd.service")
    other = loaded.start("exec 3> /dev/driver_flavour; touch /run/open; until [ -e /run/let-go ]; do sleep 0.05; done")
    loaded.wait_for("test -e /run/open")
    loaded.run("systemctl start flavourd")
    loaded.wait_for("journalctl -q -o cat -u flavourd FLAVOURD_CODE=host | grep 'somebody else answers'")
    with untouched(loaded, E1000E):
        writer = start(loaded, E1000E, "vfio")
        assert told(loaded, E1000E) == [("refused", "withdrawn")]
        assert writer.running
    loaded.run("touch /run/let-go")
    other.wait()
    assert number(writer.wait()) == errno.EAGAIN
    until_listening(loaded)
    assert write(loaded, E1000E, "vfio") == 0
    assert len(loaded.run("journalctl -q -o cat -u flavourd FLAVOURD_CODE=host").out.splitlines()) == 1


def test_a_unit_that_does_not_let_it_have_the_node_is_told_and_nobody_is_kept_waiting(quiet: Machine) -> None:
    """As by a file of the admin's own from before the module was known."""
    drop_in(quiet, "DeviceAllow=\nDeviceAllow=/dev/kmsg r\n")
    quiet.run("modprobe driver_flavour")
    trouble = quiet.wait_for("journalctl -q -o cat -u flavourd FLAVOURD_CODE=host | grep 'cannot be answered'").out
    assert "Operation not permitted" in trouble
    assert "DeviceAllow=" in trouble
    assert write(quiet, E1000E, "vfio", timeout=10) == errno.EAGAIN
    assert ask(quiet, E1000E, "vfio").kind == "switched"


# --- events


def test_a_request_for_which_nobody_waits_is_not_carried_out(loaded: Machine) -> None:
    """So it is with a number that somebody has made up, or one from before the module was loaded anew."""
    with untouched(loaded, E1000E):
        inject(loaded, E1000E, DRIVER_FLAVOUR="vfio", DRIVER_FLAVOUR_SEQ="1")
        assert told(loaded, E1000E) == [("refused", "withdrawn")]
    assert ask(loaded, E1000E, "vfio").kind == "switched", "a request by other means has no ticket"
    assert write(loaded, E1000E, "default") == 0


def test_if_events_were_lost_whoever_waits_is_sent_away_and_not_left_waiting(loaded: Machine) -> None:
    ask(loaded, E1000_TWIN, "vfio")  # from now on all its events come to the daemon
    loaded.run("systemctl kill -s STOP --kill-whom=main flavourd")
    storm = f"for i in $(seq 1000); do echo change > {PCI}/{E1000_TWIN}/uevent; done; udevadm settle"
    loaded.run(storm, timeout=300)
    with untouched(loaded, E1000E):
        writer = start(loaded, E1000E, "vfio")
        until_asleep(loaded, writer)
        loaded.run("udevadm settle; systemctl kill -s CONT flavourd")
        loaded.wait_for("journalctl -q -u flavourd FLAVOURD_CODE=uevents-lost | grep -q .", timeout=120)
        assert number(writer.wait(30)) == errno.EAGAIN
        assert told(loaded, E1000E) == [("refused", "withdrawn")]
    assert write(loaded, E1000E, "vfio") == 0


def test_a_reload_changes_what_is_read(loaded: Machine) -> None:
    shipped = loaded.run("cat /usr/lib/flavourd/flavours.yaml").out.rstrip("\n")
    more = "{}:\n    description: another\n    proof: {}\n    buses: {{pci: {{universal: {{module: m, driver: d}}}}}}\n"
    loaded.write("/etc/flavourd/flavours.yaml", f"{shipped}\n  {more.format('z', 'net')}  {more.format('a', 'none')}")
    ctl(loaded, "reload")
    assert read(loaded, E1000E) == "default vfio [z] a\n", "in the order of the file, and by each one's own proof"
    loaded.run("rm /etc/flavourd/flavours.yaml; systemctl reload flavourd")
    assert read(loaded, E1000E) == "[default] vfio\n"


# --- many


def test_two_writers_of_one_device_have_each_their_own_answer(loaded: Machine) -> None:
    with busy(loaded, E1000E):
        first = start(loaded, E1000E, "vfio")
        until_begun(loaded, E1000E)
        second = start(loaded, E1000E, "bogus")
        until_in_line(loaded)
    assert (number(first.wait()), number(second.wait())) == (0, errno.EINVAL)
    assert told(loaded, E1000E, 2) == [("switched", None), ("refused", "unknown-flavour")]


def test_forty_writers_of_one_device_are_all_answered_however_their_events_come(loaded: Machine) -> None:
    """They run on two CPUs, and so do the processes of udev."""
    loop = f'for i in $(seq 20); do echo "$1" > {file(E1000E)} || exit 1; done'
    both = [loaded.start(["bash", "-c", loop, "bash", word]) for word in ("vfio", "default")]
    assert [one.wait(300).rc for one in both] == [0, 0]
    writers = [start(loaded, E1000E, word) for word in ("bogus", "vfio") * 20]
    answers = [number(writer.wait(300)) for writer in writers]
    assert answers == [errno.EINVAL, 0] * 20
    assert read(loaded, E1000E) == "default [vfio]\n"
    assert loaded.run("journalctl -q -u flavourd FLAVOURD_CODE=host").out == ""


def test_forty_writers_at_once_are_all_answered_and_what_is_read_then_is_true(loaded: Machine) -> None:
    devices = (E1000E, E1000E_TWIN, VIRTIO_NET, E1000, E1000_TWIN)
    words = ("vfio", "default", "bogus", "vfio")
    writers = [(words[n // 5 % 4], start(loaded, devices[n % 5], words[n // 5 % 4])) for n in range(40)]
    for word, writer in writers:
        assert number(writer.wait(300)) == (errno.EINVAL if word == "bogus" else 0)
    for device in devices:
        told(loaded, device, 8)
        held = bool(proof(loaded, device))
        assert read(loaded, device) == ("default [vfio]\n" if held else "[default] vfio\n")
        assert (override(loaded, device) is not None) is held
    assert alive(loaded)
    assert "0 in work, 0 stuck" in loaded.run("systemctl show -P StatusText flavourd").out


# --- who may


def test_rules_of_the_admins_let_a_group_flavour_its_device(quiet: Machine) -> None:
    """Those in README.md: one for when the module comes, one for when the device comes."""
    user = "somebody"
    quiet.run(f"groupadd gpu; useradd -G gpu {user}; useradd stranger")
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rules = re.findall('(?m)^    (ACTION=="add", SUBSYSTEM==.*driver_flavour.*)$', readme)
    assert len(rules) == 2
    plugged = quiet.plug("e1000e", romfile="", id="card")
    for address in (E1000E, plugged):
        text = "".join(f"{rule}\n" for rule in rules).replace("0000:65:00.0", address)
        quiet.write(f"/etc/udev/rules.d/80-{address}.rules", text)
    quiet.run("udevadm control --reload")
    quiet.run("modprobe driver_flavour")
    until_listening(quiet)
    quiet.run("udevadm settle")

    def as_user(name: str, device: str) -> int:
        words = ("setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups")
        return number(start(quiet, device, "vfio", *words).wait())

    assert as_user("stranger", E1000E) == errno.EACCES
    assert as_user(user, E1000E_TWIN) == errno.EACCES
    assert as_user(user, E1000E) == 0
    assert read(quiet, E1000E) == "default [vfio]\n"
    quiet.unplug("card")
    assert quiet.plug("e1000e", romfile="", id="again") == plugged
    quiet.run("udevadm settle")
    assert as_user("stranger", plugged) == errno.EACCES
    assert as_user(user, plugged) == 0
    with pytest.raises(CommandError, match="Permission denied"):
        quiet.run(["setpriv", f"--reuid={user}", "--clear-groups", "sh", "-c", "exec 3> /dev/driver_flavour"])


def test_only_the_daemon_itself_has_the_node(loaded: Machine) -> None:
    with busy(loaded, E1000E):
        writer = start(loaded, E1000E, "vfio")
        until_begun(loaded, E1000E)
        loaded.wait_for(f"pgrep -P {daemon(loaded)}")  # a worker is there, forked without exec
        # It closes what it does not need as the first thing that it does.
        holders = (
            "ls -l /proc/[0-9]*/fd/* 2>/dev/null | sed -n 's,.*/proc/\\([0-9]*\\)/.* -> /dev/driver_flavour$,\\1,p'"
        )
        loaded.wait_for(f'test "$({holders})" = {daemon(loaded)}')
    assert number(writer.wait()) == 0
