"""Tells whether private parts of Twisted that we lean on are still as we know them."""

from __future__ import annotations

from collections.abc import Iterable


def changed(known: Iterable[tuple[type, str, str]]) -> list[str]:
    """
    Name the methods that are gone, or that touch other names than we know them to.

    A method that has learnt a new state, or lost one, touches another set of attributes and
    globals. To compare these is cheap, and the same on every version of Python.

    :param known: a class, the name of a method, and the names which that method's code touches,
        with white space between them.
    :return: such as ``FileDescriptor.write``, in the order given; empty where all is well.
    """
    return [
        f"{owner.__name__}.{method}"
        for owner, method, names in known
        if names_touched(owner, method) != set(names.split())
    ]


def names_touched(owner: type, method: str) -> set[str] | None:
    """Give the attributes and globals that a method's code names, or None if there is none."""
    code = getattr(getattr(owner, method, None), "__code__", None)
    return None if code is None else set(code.co_names)
