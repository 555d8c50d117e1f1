"""
Coverage-guided fuzzing of the reader: ``python -m tests.http.h1.fuzz [-max_total_time=300]``.

It needs atheris (``pip install atheris``), and takes the options of libFuzzer. The first bytes of
an input say what the request was and where the stream is cut; the reader must make of the rest what
the slow, obvious one of ``model.py`` makes of it, and the same of it in pieces. The responses of
``hostile.py`` are what it begins with.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.http.h1.hostile import ROWS
from tests.http.h1.model import Model, Request
from tests.http.h1.test_model import ModelTests

METHODS = ("GET", "HEAD", "POST", "CONNECT")
HEAD_LIMITS = (80, 200, 2**16)
BODY_LIMITS = (None, 0, 4, 5, 2**20)

MAX_INPUT = 2048
"""Bytes: the slow reader takes quadratic time."""


def check(data: bytes) -> None:
    """Read one input in both ways; raise if they differ."""
    if len(data) < 4:
        return
    kind, first, second, stream = data[0], data[1], data[2], data[3:MAX_INPUT]
    request = Request(
        METHODS[kind % 4],
        HEAD_LIMITS[kind // 4 % 3],
        BODY_LIMITS[kind // 12 % 5],
        bool(kind // 60 % 2),
    )
    case = ModelTests("test_agrees")
    whole = case.read(stream, [], request)
    case.check(whole, Model(stream, request))
    marks = [first, second, first * second]
    case.assertEqual(case.read(stream, marks, request), whole)


def seeds(folder: Path) -> None:
    """Write the inputs that fuzzing begins with."""
    for number, row in enumerate(ROWS):
        if len(row.stream) < MAX_INPUT:
            (folder / str(number)).write_bytes(b"\x08\x20\x40" + row.stream)


def main() -> None:
    """Fuzz until the options say so, or until something is found."""
    atheris: Any = import_module("atheris")  # Any: it need not be installed
    with tempfile.TemporaryDirectory() as name:
        seeds(Path(name))
        # Here, as what was imported by now runs without it.
        for module in ("messages", "heads", "chunked"):
            instrument(atheris, import_module(f"twisted_net.http.h1.{module}"))
        atheris.Setup([sys.argv[0], *sys.argv[1:], name], check)
        atheris.Fuzz()


def instrument(atheris: Any, module: Any) -> None:  # Any: as above, and a module
    """Let all functions of a module report what they cover."""
    owners = [module, *(each for each in vars(module).values() if isinstance(each, type))]
    for owner in owners:
        for function in vars(owner).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                atheris.instrument_func(function)


if __name__ == "__main__":
    main()
