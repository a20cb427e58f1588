# SPDX-License-Identifier: LGPL-2.1-or-later
# Words that only flavourd knows. compadd and not _describe, which takes a colon for the end of the word.

# $1: which words; the others: for compadd
_flavourctl_live() {
  local kind
  local -a found
  for kind in ${=1}; do
    # Another host's devices would cost a connection, which may ask for a password.
    [[ $kind != (codes|guards) && $BUFFER == *' -'(H|-host)* ]] && continue
    found+=(${(f)"$(flavourctl complete $kind 2>/dev/null)"})
  done
  # Who begins with the number of a bus leaves the usual domain away.
  [[ $PREFIX == [[:xdigit:]][[:xdigit:]]:* ]] && found=(${found#0000:})
  shift
  compadd "$@" -a found
}

_flavourctl_devices() { _flavourctl_live devices "$@" }
_flavourctl_flavours() { _flavourctl_live flavours "$@" }
_flavourctl_codes() { _flavourctl_live 'devices codes' "$@" }
_flavourctl_guards() { _flavourctl_live guards "$@" }
_flavourctl_devices_then_flavours() { _flavourctl_live 'devices flavours' "$@" }
