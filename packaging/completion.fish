# SPDX-License-Identifier: LGPL-2.1-or-later
# Words that only flavourd knows, each with what it is.

function _flavourctl_live
  for kind in $argv
    # Another host's devices would cost a connection, which may ask for a password.
    if not contains $kind codes guards; and string match -qr -- ' -(H|-host)' (commandline -pc)
      continue
    end
    flavourctl complete $kind 2>/dev/null | string replace -r '$' \t(string trim -rc s $kind)
  end
end

function _flavourctl_devices; _flavourctl_live devices; end
function _flavourctl_flavours; _flavourctl_live flavours; end
function _flavourctl_codes; _flavourctl_live devices codes; end
function _flavourctl_guards; _flavourctl_live guards; end
function _flavourctl_devices_then_flavours; _flavourctl_live devices flavours; end
