# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control socket: Varlink interface io.flavourd.Manager."""
