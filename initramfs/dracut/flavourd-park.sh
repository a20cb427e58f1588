#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
[ ! -x /usr/lib/flavourd/flavourd-park ] || /usr/lib/flavourd/flavourd-park
