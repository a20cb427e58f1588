# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that run inside the guest, without libraries: a round trip from outside would drown what is measured."""
