"""Stack place: names what a thread does, in words for a developer, by a look at its stack."""

from __future__ import annotations

import sys
from collections.abc import Collection
from types import CodeType, FrameType

from attrs import frozen

from twisted_net.net.characters import printable

MAX_FRAMES = 1000
"""Frames that are looked at, the innermost ones: as many as Python allows by itself; 0.2 ms."""

MAX_FUNCTION = 120
"""Longest name of a function with its module, in characters; of a longer one the end is shown."""

MAX_FILE = 40
"""Longest name of a file, in characters."""

PACKAGE = "twisted_net"

MACHINERY = frozenset({"twisted", "zope", "uvloop"}) | sys.stdlib_module_names
"""Packages that call what others give them. The main module is not among those of the library."""

LOOP = f"{PACKAGE}.quiet_reactor"
"""The one module of this package that is machinery in this sense."""

_Step = tuple[str, CodeType, int]
"""A frame without the frame, which would keep its variables: module, code, line."""


@frozen
class Place:
    """
    What a thread did when it was looked at.

    :ivar function: the function of *callback*, without the line.
    :ivar callback: the outermost function of the application; of this package, if there is none;
        of Twisted or Python, if there is none of this package: such as
        ``shop.orders.Report.make (orders.py:12)``.
    :ivar where: the innermost function that is neither Twisted's nor Python's; "" if it is the
        callback itself.
    """

    function: str
    callback: str
    where: str


def place_of(frame: FrameType, loops: Collection[CodeType]) -> Place:
    """
    Return what a thread does, by its innermost frame.

    :param loops: the functions that run the reactor. What has called the innermost of these is
        not looked at.
    """
    innermost = _step(frame)
    own: _Step | None = None
    package: _Step | None = None
    application: _Step | None = None
    outer: FrameType | None = frame
    for _ in range(MAX_FRAMES):
        if outer is None or outer.f_code in loops:
            break
        step = _step(outer)
        root = step[0].partition(".")[0]
        if root not in MACHINERY and step[0] != LOOP:
            own = own or step
            if root == PACKAGE:
                package = step
            else:
                application = step
        outer = outer.f_back
    outermost = application or package or innermost
    where = own or innermost
    return Place(
        _function(outermost),
        _label(outermost),
        "" if where[1] is outermost[1] else _label(where),
    )


def _step(frame: FrameType) -> _Step:
    # dict's own method: the globals may be of a class that overrides it.
    module = dict.get(frame.f_globals, "__name__")
    return module if type(module) is str else "?", frame.f_code, frame.f_lineno or 0


def _function(step: _Step) -> str:
    module, code, _ = step
    name = printable(f"{module}.{code.co_qualname}")
    return name if len(name) <= MAX_FUNCTION else f"…{name[1 - MAX_FUNCTION :]}"


def _label(step: _Step) -> str:
    _, code, line = step
    file = code.co_filename.replace("\\", "/").rpartition("/")[2]
    return f"{_function(step)} ({printable(file)[-MAX_FILE:]}:{line})"
