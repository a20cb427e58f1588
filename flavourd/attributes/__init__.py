# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files driver_flavour below /run/flavourd/bus: a FUSE file system, in a process of its own that asks flavourd."""
