# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host uses a device for, from /sys, /proc and the routing tables."""
