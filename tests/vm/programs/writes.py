# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write some words to a file, so many times one after the other, and print as JSON how often each errno came.

usage: writes FILE TIMES WORD... The errno 0 stands for success.
"""

import json
import os
import sys
from collections import Counter

path, count, *words = sys.argv[1:]
told: Counter[int] = Counter()
file = os.open(path, os.O_WRONLY)
for word in words * int(count):
    try:
        os.write(file, word.encode())
    except OSError as error:
        told[error.errno or 0] += 1
    else:
        told[0] += 1
print(json.dumps(told))
