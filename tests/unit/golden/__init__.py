# SPDX-License-Identifier: LGPL-2.1-or-later
"""Texts of flavourctl as people see them (*.txt), and what a daemon must answer for them."""
