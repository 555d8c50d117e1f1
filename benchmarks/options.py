"""Options of the benchmarks: numbers within bounds."""

from __future__ import annotations

import argparse
from collections.abc import Callable

_KINDS = {int: "an integer", float: "a number"}


def bounded_number(kind: type[int | float], least: float, most: float) -> Callable[[str], float]:
    """
    Return what reads an option: a number from *least* to *most*.

    A benchmark that takes 0 or less measures nothing, and says so after a minute or by a traceback.
    """

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"must be {_KINDS[kind]} from {least:g} to {most:g}, not {text!r}"
            )
        return value

    return read
