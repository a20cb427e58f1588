# SPDX-License-Identifier: LGPL-2.1-or-later
"""flavourd: one word puts a device in another universe of drivers, and one word brings it back."""

__version__ = "0.1.0"
