#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Compiles the loop for the guest, by the guest's own compiler (see tests/vm/chroot.sh).
set -eux
gcc -std=c11 -O2 -Wall -Wextra -Werror -o /out/loop /build/loop.c
