#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
[ ! -x /usr/lib/flavourd/flavourd-leave ] || /usr/lib/flavourd/flavourd-leave "${NEWROOT:?}"
