# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that run in the guest, each with nothing but Python's standard library (see userspace.py)."""
