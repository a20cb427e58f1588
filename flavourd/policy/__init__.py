# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the admin has written in YAML."""
