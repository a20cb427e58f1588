# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests without a machine: snapshots and temporary trees are fed to the real code."""
