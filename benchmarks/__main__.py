# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure, and write what was measured: `python -m benchmarks run`, `python -m benchmarks report`."""

import argparse
import sys
import time
import traceback
from functools import partial
from pathlib import Path

from benchmarks import records, report
from benchmarks.figures import FIGURES

_HERE = Path(__file__).parent
_README = _HERE.parent / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="measure, keep the numbers in raw/, and write the report")
    run.add_argument("--quick", action="store_true", help="a few rounds, and the tables here; nothing is kept")
    run.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all if none is named")
    verbs.add_parser("report", help="write RESULTS.md, its plots and the README's table anew from raw/")
    options = parser.parse_args()
    if options.verb == "report":
        write()
        return
    if unknown := [name for name in options.figures if name not in list(FIGURES)]:
        parser.error(f"no such figure: {', '.join(unknown)}")
    if options.quick:
        quick(options.figures)
    else:
        measure(options.figures or list(FIGURES))


def quick(names: list[str]) -> None:
    for name, module in FIGURES.items():
        if name in names or (module.QUICK and not names):
            figure = module.figure(module.measure(say, True))
            print(f"\n{figure.title}\n\n{report.table(figure)}", flush=True)
            for remark in figure.remarks:
                print(f"- {remark}")


def measure(names: list[str]) -> None:
    # Only who measures needs the machine.
    from benchmarks import bed

    with bed.machine(say) as vm:
        place = records.Place.of(vm)
    failed = []
    for name in names:
        say(f"{name} begins")
        try:
            records.keep(records.Record.now(name, place, partial(FIGURES[name].measure, say, False)))
        except Exception:  # noqa: BLE001 - hours have gone into the others
            say(f"{name} has failed: {traceback.format_exc()}")
            failed.append(name)
    write()
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def write() -> None:
    # Only who writes the report needs matplotlib; the tests look at the text alone.
    from benchmarks import plots

    every = told()
    folder = _HERE / "plots"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for each in every:
        for name, plot in zip(report.plot_names(each.figure), each.figure.plots, strict=True):
            plots.draw(plot, folder / name)
    (_HERE / "RESULTS.md").write_text(report.results(every), encoding="utf-8")
    readme = report.with_headline(_README.read_text(encoding="utf-8"), [each.figure for each in every])
    _README.write_text(readme, encoding="utf-8")


def told() -> list[report.Told]:
    """What the numbers that are kept say."""
    return [report.Told(FIGURES[each.figure].figure(each.measured), each) for each in records.kept(FIGURES)]


def say(text: str) -> None:
    print(f"{time.monotonic() - _START:6.1f} s  {text}", file=sys.stderr, flush=True)


_START = time.monotonic()

if __name__ == "__main__":
    main()
