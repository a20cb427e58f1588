#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests and the demo need, on a Debian machine that has nothing but git, make and python3. Run by `make`; safe to run again.
set -eu

packages="python3-venv python3-pyudev python3-systemd python3-yaml kmod udev systemd qemu-system-x86 qemu-utils mmdebstrap debian-archive-keyring e2fsprogs socat uidmap mandoc man-db zsh fish"

missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root=sudo
    echo "installing:$missing"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing >/dev/null
fi

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv --system-site-packages "$VENV"
# Debian 12's pip knows no dependency groups yet.
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "pip>=25.1"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --group dev
