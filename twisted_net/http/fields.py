"""Header fields: ordered name and value pairs, with look-up by name in any case."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar, overload

from typing_extensions import override

from twisted_net.http.calls.synonyms import FIELDS_SYNONYMS, with_synonyms

_T = TypeVar("_T")

TCHAR = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
"""A character of a token (RFC 9110 §5.6.2)."""

TOKEN = re.compile(rf"{TCHAR}++")
"""A token, as names of fields and methods are."""

MAX_CONNECTION_OPTIONS = 64
"""Options of ``Connection`` that are read."""

_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


class EncodedFields(NamedTuple):
    """
    Fields as they are sent.

    :param lines: those that are sent, name and value.
    :param names: theirs, in lower case.
    :param octets: the lines as bytes.
    :param closes: whether they say that the connection is closed after the response.
    """

    lines: list[tuple[str, str]]
    names: frozenset[str]
    octets: bytes
    closes: bool


@with_synonyms(FIELDS_SYNONYMS)
class HeaderFields(Mapping[str, str]):
    """
    The header fields of a message, immutable.

    As a mapping, names are in lower case, and the values of a field with several lines are joined
    by ``", "`` (RFC 9110 §5.2). :attr:`pairs` has the lines unchanged.

    :param pairs: name and value of each line, in order. Bytes are decoded as Latin-1, which loses
        none (RFC 9110 §5.5).
    :ivar encoded: what :class:`~twisted_net.http.h1.requests.RequestEncoder` has made of them;
        None before that.
    """

    __slots__ = ("_index", "encoded", "pairs")

    def __init__(self, pairs: Iterable[tuple[str | bytes, str | bytes]] = ()) -> None:
        self.pairs: tuple[tuple[str, str], ...] = tuple(
            (_text(name), _text(value)) for name, value in pairs
        )
        index: dict[str, list[str]] = {}
        for name, value in self.pairs:
            index.setdefault(name.lower(), []).append(value)
        self._index = index
        self.encoded: EncodedFields | None = None

    @classmethod
    def of_text(cls, pairs: Iterable[tuple[str, str]]) -> HeaderFields:
        """Return the fields of lines that are text already: at half the cost."""
        made = object.__new__(cls)
        made.pairs = tuple(pairs)
        index = {name.lower(): [value] for name, value in made.pairs}
        if len(index) < len(made.pairs):
            # Some have several lines.
            index.clear()
            for name, value in made.pairs:
                index.setdefault(name.lower(), []).append(value)
        made._index = index
        made.encoded = None
        return made

    @classmethod
    def of_parts(
        cls, pairs: tuple[tuple[str, str], ...], index: dict[str, list[str]]
    ) -> HeaderFields:
        """
        Return the fields of lines that were taken apart.

        :param index: the values of each name in lower case. The lists are not changed.
        """
        made = object.__new__(cls)
        made.pairs = pairs
        made._index = index
        made.encoded = None
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

    @overload
    def get(self, name: str, /) -> str | None: ...

    @overload
    def get(self, name: str, /, default: str | _T) -> str | _T: ...

    @override
    def get(self, name: str, /, default: object = None) -> object:
        """Return a field's value, its lines joined, or *default*: not by an exception, as usual."""
        values = self._index.get(name.lower())
        if values is None:
            return default
        return values[0] if len(values) == 1 else ", ".join(values)

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
        made.encoded = None
        return made

    def added(self, name: str, value: str) -> HeaderFields:
        """Return these fields with one more line, after all others."""
        made = object.__new__(HeaderFields)
        made.pairs = (*self.pairs, (name, value))
        # The lists of the other lines are shared: they are never changed.
        index = made._index = self._index.copy()
        name = name.lower()
        index[name] = [*index[name], value] if name in index else [value]
        made.encoded = None
        return made

    def without(self, names: Iterable[str]) -> HeaderFields:
        """Return these fields without those of *names*."""
        dropped = {name.lower() for name in names}
        made = object.__new__(HeaderFields)
        made.pairs = tuple([pair for pair in self.pairs if pair[0].lower() not in dropped])
        # The lists of the remaining lines are shared: they are never changed.
        made._index = {name: self._index[name] for name in self._index if name not in dropped}
        made.encoded = None
        return made


NO_FIELDS = HeaderFields()
"""Those of a message, or of a part of it, that has none."""


def unescape(quoted: str) -> str:
    """Return the text of a quoted string, from what stands between its quotes (RFC 9110 §5.6.4)."""
    return _QUOTED_PAIR.sub(r"\1", quoted)


def connection_options(connection: str) -> frozenset[str]:
    """
    Return the options in a value of ``Connection``, in lower case (RFC 9110 §7.6.1).

    They are names of fields, ``close`` and ``keep-alive``. The first
    :data:`MAX_CONNECTION_OPTIONS` count. What is no token is neither, and left out.
    """
    listed = connection.split(",", MAX_CONNECTION_OPTIONS)[:MAX_CONNECTION_OPTIONS]
    names = [name.strip(" \t").lower() for name in listed]
    return frozenset([name for name in names if TOKEN.fullmatch(name) is not None])


def expects_continue(expect: str) -> bool:
    """Return whether a value of ``Expect`` asks for a 100 before the body (RFC 9110 §10.1.1)."""
    return any(member.strip(" \t").lower() == "100-continue" for member in expect.split(","))


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
