# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write the shells' completions of flavourctl into a directory: completions.py DIRECTORY

shtab makes them from the parser; what is mended here tests/test_packaging.py holds.
"""

import argparse
import re
import sys
from itertools import pairwise
from pathlib import Path

import shtab

from flavourd.cli.parser import parser

_FILES = {"bash": "flavourctl", "zsh": "_flavourctl", "fish": "flavourctl.fish"}


def completion(shell: str) -> str:
    live = Path(__file__).with_name(f"completion.{shell}").read_text(encoding="utf-8")
    made: str = shtab.complete(_as_shells_see(parser()), shell, preamble=live)
    match shell:
        case "bash":
            made += "\n# The last one counts.\ncomplete -F _flavourctl flavourctl"
        case "zsh":
            # shtab takes a list of words for one word, and allows no `=` between an option and its value.
            made = re.sub(r'(?m)^  "\(\*\)::?', '  "*:', made)
            made = re.sub(r'(?m)^(  (?:"\*?|\{-\w,)--[\w-]+)(?=(?:\}")?\[.*\]:)', r"\1=", made)
    return f"{made.rstrip()}\n"


def _as_shells_see(whole: argparse.ArgumentParser) -> argparse.ArgumentParser:
    for verbs in (action for action in whole._actions if isinstance(action, argparse._SubParsersAction)):
        for verb in verbs.choices.values():
            _as_shells_see(verb)
    for words, last in pairwise(whole._get_positional_actions()):
        if words.nargs == "+":  # no shell knows which word will be the last
            function = _bash(words) + "_then" + _bash(last).removeprefix("_flavourctl")
            vars(words).update(complete=dict.fromkeys(_FILES, function))
            whole._actions.remove(last)
    for action in whole._actions:
        if (called := vars(action).get("complete")) and called["fish"] == called["bash"]:
            called["fish"] = f"({called['bash']})"
    return whole


def _bash(action: argparse.Action) -> str:
    return str(vars(action)["complete"]["bash"])


if __name__ == "__main__":
    texts = {file: completion(shell) for shell, file in _FILES.items()}
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True)
    for file, text in texts.items():
        (directory / file).write_text(text, encoding="utf-8")
