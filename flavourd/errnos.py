# SPDX-License-Identifier: LGPL-2.1-or-later
"""What write(2) to a driver_flavour file answers, for every way in which a request can end."""

import errno

from flavourd.errors import Code
from flavourd.outcome import Kind

_OF_KIND = {
    Kind.SWITCHED: 0,
    Kind.ALREADY: 0,
    Kind.BROKEN: errno.EIO,
    Kind.LOST: errno.EIO,
    Kind.GONE: errno.ENODEV,
    Kind.STUCK: errno.ETIMEDOUT,
}
_OF_CODE = {
    Code.EMPTY_FLAVOUR: errno.EINVAL,
    Code.UNKNOWN_FLAVOUR: errno.EINVAL,
    Code.FOREIGN_MODALIAS: errno.EINVAL,
    Code.FLAVOUR_NOT_ON_BUS: errno.EINVAL,
    Code.NOT_A_CANDIDATE: errno.EINVAL,
    Code.UNKNOWN_GUARD: errno.EINVAL,
    Code.BAD_NAME: errno.EINVAL,
    Code.NOT_PERMITTED: errno.EACCES,
    Code.WITHDRAWN: errno.ECANCELED,
    Code.OVERTAKEN: errno.ECANCELED,
    Code.TOGETHER: errno.ECANCELED,
    # flavourd cannot answer now
    Code.STOPPING: errno.EAGAIN,
    Code.TOO_MANY: errno.EAGAIN,
    Code.CONFIG: errno.EAGAIN,
    # the device is gone, or nobody claims it
    Code.NO_DEVICE: errno.ENODEV,
    Code.NO_OVERRIDE: errno.ENODEV,
    Code.BRIDGE: errno.ENODEV,
    Code.NO_IOMMU_GROUP: errno.ENODEV,
    Code.NO_CANDIDATE: errno.ENODEV,
    Code.ALL_REFUSED: errno.ENODEV,
    Code.NATIVE_REFUSED: errno.ENODEV,
    # somebody else has it
    Code.IN_USE: errno.EBUSY,
    Code.BUSY: errno.EBUSY,
    Code.RELEASING: errno.EBUSY,
    Code.OTHER_DRIVER: errno.EBUSY,
    Code.KIN_STUCK: errno.EBUSY,
    Code.CONTESTED: errno.EBUSY,
    Code.VFS_IN_USE: errno.EBUSY,
    Code.STUCK: errno.ETIMEDOUT,
}


def errno_of(kind: str | None, code: str | None) -> int:
    """Number of the error, 0 for a success. kind: of the outcome, None of what has none; code: of it or of the error.

    Both may be words that this version does not know: then it is EIO, as for all that is flavourd's or the host's own
    fault.
    """
    if kind in _OF_KIND:
        return _OF_KIND[Kind(kind)]
    return _OF_CODE[Code(code)] if code in _OF_CODE else errno.EIO
