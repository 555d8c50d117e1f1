"""
Everything beside its rivals, in one run: ``python -m benchmarks``.

Each server runs as a process of its own, pinned to one processor where there are more, and is
asked by a load generator that compares every answer. The rounds are interleaved: each measures all
contestants before the next one begins. Printed are medians and spreads; processor time is the
server's, from the kernel's accounts, so that the load generator is not what is measured. Rivals
that are not installed are named with what to install.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks.chart import draw
from benchmarks.contestants import CONTESTANTS
from benchmarks.options import bounded_number
from benchmarks.report import Report, facts
from benchmarks.runs import Run
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import core_for_the_server


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what is asked for; give the status of the process."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    if options.list:
        _list()
        return 0
    failed = False
    if options.read is not None:
        report = Report.from_json(options.read.read_text())
    else:
        report = Report(facts(words, options.rounds))
        run = Run(report, options.seconds, core_for_the_server())
        run.rounds(
            options.rounds,
            [CONTESTANTS[name] for name in options.only],
            [SCENARIOS[name] for name in options.scenarios],
        )
        failed = run.failed
    text = report.to_text()
    print(text, end="")
    if options.text is not None:
        options.text.write_text(text)
    if options.json is not None:
        options.json.write_text(report.to_json())
    if options.svg is not None:
        options.svg.write_text(draw(report))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--list", action="store_true", help="show all contestants and scenarios, and end")
    add("--only", type=_among(CONTESTANTS), metavar="A,B", help="measure these contestants")
    add("--scenarios", type=_among(SCENARIOS), metavar="A,B", help="measure these scenarios")
    add("--rounds", type=bounded_number(int, 1, 100), default=3, help="1 to 100 (%(default)s)")
    seconds = "of each load, 0.05 to 60 (%(default)s)"
    add("--seconds", type=bounded_number(float, 0.05, 60), default=0.5, help=seconds)
    add("--svg", type=_new_file, metavar="PATH", help="draw the medians")
    add("--text", type=_new_file, metavar="PATH", help="write what is printed")
    add("--json", type=_new_file, metavar="PATH", help="write the figures of every round")
    add("--read", type=Path, metavar="PATH", help="measure nothing, take the figures from there")
    parser.set_defaults(only=list(CONTESTANTS), scenarios=list(SCENARIOS))
    return parser


def _among(known: Collection[str]) -> Callable[[str], list[str]]:
    """Give what reads some of these names, in their order here."""

    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(
                f"there is no {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return [name for name in known if name in chosen]

    return names


def _new_file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():
        # Told before the measurement, and not after it.
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _list() -> None:
    print("contestants")
    for name, contestant in CONTESTANTS.items():
        print(f"  {name:16}{contestant.title:34}{contestant.missing() or ''}".rstrip())
    print("scenarios")
    for name, scenario in SCENARIOS.items():
        print(f"  {name:16}{scenario.title} ({scenario.unit})")


if __name__ == "__main__":
    sys.exit(main())
