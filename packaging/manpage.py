# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fill the manual page of flavourctl with what its parser and its exit codes say: manpage.py TEMPLATE PAGE

argparse-manpage, the library for this, shows hidden verbs, no examples of verbs, and the common options with each verb.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from flavourd.cli.exits import Exit
from flavourd.cli.parser import parser


def page(template: str) -> str:
    whole = parser()
    parts = {
        "@OPTIONS@": _options(whole, whole._actions),
        "@VERBS@": _verbs(whole),
        "@EXIT@": _exit_statuses(),
        "@EXAMPLES@": _examples(whole),
    }
    lines = template.splitlines()
    assert parts.keys() <= set(lines)
    return "\n".join(made for line in lines for made in parts.get(line, [line])) + "\n"


def _verbs(whole: argparse.ArgumentParser) -> Iterator[str]:
    everywhere = {name for action in whole._actions for name in action.option_strings}
    (verbs,) = _below(whole)
    return _listed(verbs, everywhere)


def _listed(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", everywhere: set[str]) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for shown in verbs._choices_actions:  # a hidden verb is not among them
        verb: argparse.ArgumentParser = verbs.choices[shown.dest]
        own = [action for action in verb._actions if not everywhere.issuperset(action.option_strings or [""])]
        yield " ".join([f".It Cm {verb.prog.removeprefix('flavourctl ')}", *map(_usage, own)])
        yield _told(verb.description or shown.help or "")
        yield from _options(verb, own)
        yield from _examples(verb)
        for more in _below(verb):
            yield ".Pp"
            yield _told(f"The verb behind it is {more.help}:")
            yield from _listed(more, everywhere)
    yield ".El"


def _below(whole: argparse.ArgumentParser) -> Iterator["argparse._SubParsersAction[argparse.ArgumentParser]"]:
    return (action for action in whole._actions if isinstance(action, argparse._SubParsersAction))


def _options(whole: argparse.ArgumentParser, actions: Iterable[argparse.Action]) -> Iterator[str]:
    """A list of options and words, each with its help."""
    explained = [action for action in actions if action.help and not isinstance(action, argparse._SubParsersAction)]
    if explained:
        yield ".Bl -tag -width Ds"
        for action in explained:
            names = " , ".join(f"Fl {_text(name[1:])}" for name in action.option_strings)
            yield f".It {' '.join(filter(None, (names, _value(action))))}"
            yield _told(whole._get_formatter()._expand_help(action))
        yield ".El"


def _usage(action: argparse.Action) -> str:
    if not action.option_strings:
        return {"*": "Oo {} ... Oc", "+": "{} ...", "?": "Oo {} Oc"}.get(str(action.nargs), "{}").format(_value(action))
    inner = " ".join(filter(None, (f"Fl {_text(action.option_strings[-1][1:])}", _value(action))))
    again = " ..." if isinstance(action, argparse._AppendAction) else ""
    return f"Oo {inner} Oc{again}"


def _value(action: argparse.Action) -> str:
    """What stands behind an option, or in the place of a word."""
    if action.nargs == 0:
        return ""
    if action.choices:
        return f"Cm {' | '.join(map(_text, action.choices))}"
    return " | ".join(f"Ar {_text(word)}" for word in str(action.metavar or action.dest).split("|"))


def _exit_statuses() -> Iterator[str]:
    yield _told(inspect.getdoc(Exit) or "")
    yield ".Bl -tag -width Ds"
    comments = dict(re.findall(r"(?m)^    (\w+) = \d+  # (.*)$", inspect.getsource(Exit)))
    for status in Exit:
        yield f".It {status.value}"
        yield _told("everything is as it was asked for" if status is Exit.OK else comments[status.name])
    yield ".El"


def _examples(of: argparse.ArgumentParser) -> Iterator[str]:
    yield ".Bd -literal -offset indent"
    yield from (_text(line.strip()) for line in (of.epilog or "").splitlines()[1:])
    yield ".Ed"


def _told(text: str) -> str:
    return re.sub(r"\\\(ga(.*?)\\\(ga", r"\\fB\1\\fR", _text(text))  # `code` is bold


def _text(text: str) -> str:
    """Nothing in it is obeyed, and what may be copied stays as it was typed."""
    for char, escape in {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}.items():
        text = text.replace(char, escape)
    return f"\\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    made = page(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(made, encoding="utf-8")
