"""
Prints what each door makes of each of its inputs: ``python -m tests.complexity [door ...]``.

For each input, by its number and the end of what it begins with: calls of functions that 1,000 and
4,000 bytes take, their ratio, the bytes of one unit at its limit, or of one read of many units, the
calls of the longest turn of the reactor that these take, and whether that is a turn's work. The
exit status is 1 if one is not, or if the calls grow faster than the bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.complexity.doors import DOORS, Door, Input
from tests.complexity.test_doors import READ, SMALL, TURN_CALLS, is_linear, work

HEADINGS = (
    f"{'door':32}{'':>3} {'input':34}{'1,000':>8}{'4,000':>9}{'ratio':>7}"
    f"{'bytes':>8}{'turn':>8}  fits a turn"
)


def shown(data: Input) -> str:
    """Return an input in at most 33 characters; an ellipsis stands for what is cut."""
    begin = repr(data.begin[-14:])[2:-1]
    text = begin if len(data.begin) <= 14 else f"\N{HORIZONTAL ELLIPSIS}{begin}"
    text += repr(data.piece[:14])[2:-1]
    return text if len(text) <= 33 else f"{text[:32]}\N{HORIZONTAL ELLIPSIS}"


def row(name: str, number: int, door: Door, data: Input) -> tuple[str, bool]:
    """Return the line of an input, and whether it holds the bounds."""
    small, large = (work(door, data, size).calls for size in (SMALL, 4 * SMALL))
    linear = is_linear(small, large)
    line = f"{name:32}{number:3} {shown(data):34}{small:8}{large:9}{large / max(small, 1):7.1f}"
    if door.by_byte:
        return f"{line}{1:8}{'':8}  {'yes' if linear else 'not linear'}", linear
    size = data.longest or READ
    turn = work(door, data, size).longest_turn
    said = "yes" if turn <= TURN_CALLS else f"no, over {TURN_CALLS}"
    if not linear:
        said += ", not linear"
    return f"{line}{size:8}{turn:8}  {said}", linear and turn <= TURN_CALLS


def main(words: Sequence[str] | None = None) -> None:
    """Print the table; exit with 1 if a bound does not hold, with 2 for an unknown door."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.complexity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    quoted = ", ".join(f'"{name}"' for name in DOORS)
    parser.add_argument("doors", nargs="*", metavar="door", help=f"{quoted}; all by default")
    names = parser.parse_args(words).doors
    unknown = set(names) - set(DOORS)
    if unknown:
        parser.error(f"there is no door {min(unknown)!r}; there are {quoted}")
    print(HEADINGS)  # noqa: T201
    held = True
    for name in names or DOORS:
        door = DOORS[name]
        for number, data in enumerate(door.inputs):
            line, holds = row(name, number, door, data)
            held = held and holds
            print(line, flush=True)  # noqa: T201
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
