"""Comparisons of Deferreds, which a queue makes that is searched for one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred


@contextmanager
def compared_deferreds() -> Iterator[list[Deferred[Any]]]:  # Any: Deferreds of each kind
    """Give a list of those that are compared with another meanwhile."""
    compared: list[Deferred[Any]] = []  # Any: as above

    def equal(one: Deferred[Any], other: object) -> bool:  # Any: as above
        compared.append(one)
        return one is other

    with patch.object(Deferred, "__eq__", equal):
        yield compared
