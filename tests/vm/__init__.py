# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real machine for the tests: QEMU, Debian's kernel, systemd, udev and vfio (start with machine.py)."""
