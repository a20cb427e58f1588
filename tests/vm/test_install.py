# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `make install` puts in place works on a host: at once, and after each boot."""

import json

import pytest

from .asking import ask, outcomes
from .devices import E1000E, VIRTIO_NET
from .layers import install_tar
from .machine import Machine

pytestmark = pytest.mark.vm


def test_installed_below_usr_local_it_works_after_systemctl_enable_now(booted: Machine) -> None:
    booted.write("/run/flavourd.tar", install_tar("/usr/local"))
    booted.run("tar -xf /run/flavourd.tar -C / --no-same-owner --keep-directory-symlink")
    booted.run("systemd-sysusers flavourd.conf")  # as `make install` does on a host
    booted.run("systemctl enable --now flavourd", timeout=120)
    assert ask(booted, VIRTIO_NET, "vfio").driver == "virtio_vfio_pci"
    assert f"{VIRTIO_NET} vfio" in booted.run("flavourctl list").out
    assert booted.run("systemd-analyze verify --man=no /usr/local/lib/systemd/system/flavourd.service 2>&1").out == ""


def test_a_wish_in_a_udev_rule_is_true_after_a_reboot_when_the_service_is_ready(vm: Machine) -> None:
    ask(vm, VIRTIO_NET, "vfio")  # ends with this kernel, for nobody wrote it down
    vm.write("/etc/udev/rules.d/80-local.rules", f'ACTION=="add", KERNEL=="{E1000E}", ENV{{FLAVOUR}}="vfio"\n')
    vm.reboot()
    assert vm.driver(E1000E) == "vfio-pci"
    assert vm.driver(VIRTIO_NET) == "virtio-pci"
    this_boot = "_BOOT_ID=$(tr -d - < /proc/sys/kernel/random/boot_id)"
    assert [told.kind for told in outcomes(vm, this_boot)] == ["switched"]
    told_at = vm.run(
        f"journalctl -q -o json --output-fields=__MONOTONIC_TIMESTAMP FLAVOURD_KIND=switched {this_boot}"
    ).out
    ready_at = vm.run("systemctl show -P ActiveEnterTimestampMonotonic flavourd").out
    assert int(json.loads(told_at)["__MONOTONIC_TIMESTAMP"]) < int(ready_at)
    assert ask(vm, E1000E, "default").driver == "e1000e"
