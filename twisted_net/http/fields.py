"""Header fields: ordered name and value pairs, with look-up by name in any case."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn

from twisted_net.http.calls.synonyms import FIELDS_SYNONYMS, unknown_attribute

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
"""A character of a token (RFC 9110 §5.6.2), as those of a field name."""

MAX_CONNECTION_OPTIONS = 64
"""Options of ``Connection`` that are read."""

_NAME = re.compile(rf"{TOKEN}++")


class HeaderFields(Mapping[str, str]):
    """
    The header fields of a message, immutable.

    As a mapping, names are in lower case, and the values of a field with several lines are joined
    by ``", "`` (RFC 9110 §5.2). :attr:`pairs` has the lines unchanged.

    :param pairs: name and value of each line, in order. Bytes are decoded as Latin-1, which loses
        none (RFC 9110 §5.5).
    """

    __slots__ = ("_index", "pairs")

    def __init__(self, pairs: Iterable[tuple[str | bytes, str | bytes]] = ()) -> None:
        self.pairs: tuple[tuple[str, str], ...] = tuple(
            (_text(name), _text(value)) for name, value in pairs
        )
        index: dict[str, list[str]] = {}
        for name, value in self.pairs:
            index.setdefault(name.lower(), []).append(value)
        self._index = index

    if not TYPE_CHECKING:
        # Type checkers know what there is.
        def __getattr__(self, name: str) -> NoReturn:
            """Raise an error with what others call so."""
            raise unknown_attribute(self, name, FIELDS_SYNONYMS)

    @classmethod
    def of_text(cls, pairs: Iterable[tuple[str, str]]) -> HeaderFields:
        """Return the fields of lines that are text already: at half the cost."""
        made = object.__new__(cls)
        made.pairs = tuple(pairs)
        index: dict[str, list[str]] = {}
        for name, value in made.pairs:
            name = name.lower()
            if name in index:
                index[name].append(value)
            else:
                index[name] = [value]
        made._index = index
        return made

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._index[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._index

    def __repr__(self) -> str:
        return f"HeaderFields({list(self.pairs)!r})"

    def has_none(self, names: Collection[str]) -> bool:
        """Return whether none of *names*, in lower case, is present."""
        index = self._index
        # A loop, since the set methods in C all build a set first.
        for name in names:  # noqa: SIM110 - any() costs a generator on the path of every cache hit
            if name in index:
                return False
        return True

    def joined(self, name: str) -> str | None:
        """Return a field's value, its lines joined, or None; *name* is in lower case."""
        values = self._index.get(name)
        return None if values is None else values[0] if len(values) == 1 else ", ".join(values)

    def get_all(self, name: str) -> list[str]:
        """Return the value of each line of this name, in order, as ``Set-Cookie`` needs it."""
        return list(self._index.get(name.lower(), ()))

    def first(self, name: str) -> str | None:
        """Return the value of the first line of this name, or None."""
        values = self._index.get(name.lower())
        return values[0] if values else None

    def replaced(self, changes: Iterable[tuple[str, str]]) -> HeaderFields:
        """Return these fields, with the lines of every name in *changes* replaced by those."""
        new = tuple(changes)
        names = {name.lower() for name, _ in new}
        made = object.__new__(HeaderFields)
        made.pairs = (*(pair for pair in self.pairs if pair[0].lower() not in names), *new)
        # The lists of the remaining lines are shared: they are never changed.
        made._index = {name: self._index[name] for name in self._index if name not in names}
        for name, value in new:
            made._index.setdefault(name.lower(), []).append(value)
        return made

    def without(self, names: Iterable[str]) -> HeaderFields:
        """Return these fields without those of *names*."""
        dropped = {name.lower() for name in names}
        made = object.__new__(HeaderFields)
        made.pairs = tuple([pair for pair in self.pairs if pair[0].lower() not in dropped])
        # The lists of the remaining lines are shared: they are never changed.
        made._index = {name: self._index[name] for name in self._index if name not in dropped}
        return made


def connection_options(connection: str) -> frozenset[str]:
    """
    Return the options in a value of ``Connection``, in lower case (RFC 9110 §7.6.1).

    They are names of fields, ``close`` and ``keep-alive``. The first
    :data:`MAX_CONNECTION_OPTIONS` count. What is no token is neither, and left out.
    """
    listed = connection.split(",", MAX_CONNECTION_OPTIONS)[:MAX_CONNECTION_OPTIONS]
    names = [name.strip(" \t").lower() for name in listed]
    return frozenset([name for name in names if _NAME.fullmatch(name) is not None])


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
