# SPDX-License-Identifier: LGPL-2.1-or-later
"""flavourctl, the people's command line: a thin Varlink client of flavourd, one file a verb.

All knowledge comes from the daemon's answers, so that `-H HOST` just works. Starting must cost little more than Python
itself does: what is slow to import (asyncio, dataclasses, typing, subprocess …) is not used, or only where it must.
"""
