# SPDX-License-Identifier: LGPL-2.1-or-later
"""The policy is kept: what stands in its files is made true, and stays true."""
