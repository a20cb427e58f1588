# SPDX-License-Identifier: LGPL-2.1-or-later
# Words that only flavourd knows, and what readline makes of them.

# $1: the word so far; the others: which words. %q: an interface may have any name, and nothing of it is to be run.
_flavourctl_live() {
  local given=$1 kind word
  shift
  for kind; do
    # Another host's devices would cost a connection, which may ask for a password.
    [[ $kind != @(codes|guards) && $COMP_LINE == *" -"@(H|-host)* ]] && continue
    while IFS= read -r word; do
      # Who begins with the number of a bus leaves the usual domain away.
      [[ $given == [[:xdigit:]][[:xdigit:]]:* ]] && word=${word#0000:}
      [[ $word == "$given"* ]] && printf '%q\n' "$word"
    done < <(flavourctl complete "$kind" 2>/dev/null)
  done
}

_flavourctl_devices() { _flavourctl_live "$1" devices; }
_flavourctl_flavours() { _flavourctl_live "$1" flavours; }
_flavourctl_codes() { _flavourctl_live "$1" devices codes; }
_flavourctl_guards() { _flavourctl_live "$1" guards; }
_flavourctl_devices_then_flavours() { _flavourctl_live "$1" devices flavours; }

# readline breaks words at `:` and `=` too, and replaces only what stands behind the last break. So the words are put
# together again as they were typed, and what readline keeps is taken off the answers.
_flavourctl() {
  local line=${COMP_LINE:0:COMP_POINT} breaks=${COMP_WORDBREAKS//[^:=]/} option="" kept="" typed word
  local COMP_WORDS=() COMP_CWORD
  read -ra typed <<<"$line"
  [[ $line == *[[:space:]] ]] && typed+=("")
  for word in "${typed[@]}"; do
    case $word in
      --*=*) COMP_WORDS+=("${word%%=*}" "${word#*=}") ;;
      *) COMP_WORDS+=("$word") ;;
    esac
  done
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _shtab_flavourctl "$@"
  [[ $word == --*=* ]] && option=${word%%=*}=
  [[ $breaks ]] && kept=${word%"${word##*[$breaks]}"}
  COMPREPLY=("${COMPREPLY[@]/#/$option}")
  COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}
