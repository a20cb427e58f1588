# SPDX-License-Identifier: LGPL-2.1-or-later
"""unit/ needs nothing but Python and kmod, test_linters.py the developer's tools, vm/ a virtual machine."""
