# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is looked at for callers; runs in workers."""

from contextlib import suppress

from flavourd.device import DeviceId
from flavourd.errors import FlavourError
from flavourd.flavour import Flavours
from flavourd.host import Host
from flavourd.ipc import wire
from flavourd.ipc.asked import no_device
from flavourd.ipc.replies import Description
from flavourd.module_index import ModuleIndex
from flavourd.survey import Survey


def all_devices(host: Host, survey: Survey, flavours: Flavours, index: ModuleIndex) -> list[wire.Device]:
    buses = {bus for flavour in flavours.flavours.values() for bus in flavour.buses}
    kept = {
        record.device: record
        for record in host.journal.records()
        if record.instance == host.sysfs.instance(record.device)
    }
    return [
        wire.Device.of(glance, flavours, index, kept.get(glance.id))
        for glance in survey.glances(buses, flavours.proofs)
    ]


def description(
    id_: DeviceId, host: Host, survey: Survey, flavours: Flavours, index: ModuleIndex, *, complete: bool
) -> Description:
    """Without `last`. complete: also what takes the device's lock in the kernel."""
    glance = survey.glance(id_, flavours.proofs)
    if glance is None:
        raise no_device(id_)
    binding = host.sysfs.binding(id_) if complete else None
    record = None
    with suppress(FlavourError):  # it cannot be read: the device counts as never touched
        found = host.journal.record(id_, set_aside=False)
        record = found if found and found.instance == host.sysfs.instance(id_) else None
    group = survey.group(glance.iommu_group, flavours.proofs) if glance.iommu_group else ()
    return Description(
        device=wire.Device.of(glance, flavours, index, record),
        complete=complete,
        modalias=glance.modalias,
        module=binding.module if binding else None,
        override=binding.override if binding else None,
        members=[str(member.id) for member in group],
        record=wire.Record.of(record) if record else None,
        last=None,
    )
