# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast flavourd is, beside what else can be done: `make bench`."""
