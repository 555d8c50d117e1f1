"""Command arguments: splits text into words, and converts words to typed, checked values."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

import attrs
import msgspec
from attrs import frozen

from twisted_net.config.record import describe, split_meta
from twisted_net.errors import BadArguments, BadQuotes
from twisted_net.net.characters import SPACES, check_control_characters, split_words
from twisted_net.net.untrusted_json import JsonDecoder

MAX_EXPONENT = 308
"""Decimal exponent of the largest and the smallest argument of the type Decimal: that of floats."""


@frozen
class Parameter:
    """
    One parameter of a command.

    :param annotation: its type and bounds, as msgspec reads them.
    :param repeated: whether it takes all remaining arguments.
    :param decode: decodes it, if its words are JSON: those of lists, mappings and structures.
    """

    name: str
    annotation: Any  # of any form that msgspec takes
    required: bool
    repeated: bool
    decode: JsonDecoder[object] | None = None

    @property
    def usage(self) -> str:
        """The parameter as HELP shows it."""
        shown = f"<{self.name}>" if self.required else f"[{self.name}]"
        return f"[{self.name} ...]" if self.repeated else shown

    @property
    def is_text(self) -> bool:
        """Whether any word is a valid value, unconverted."""
        return self.annotation is str

    def convert(self, word: str, position: int) -> object:
        """
        Convert one word to a value; *position* counts from 1.

        :raises BadArguments: if the word is of another type or outside the bounds.
        """
        try:
            if self.decode is not None:
                return self.decode(word.encode())
            value: object = msgspec.convert(word, self.annotation, strict=False)
            # JSON has neither NaN nor infinities, and few handlers expect them.
            if not _is_finite(value):
                raise msgspec.ValidationError
            return value
        except msgspec.DecodeError as error:
            shown = word if len(word) <= 64 else word[:64] + "…"
            wanted = describe(self.annotation)
            if self.decode is not None:
                wanted = f"JSON of {wanted} ({error})"
            raise BadArguments(
                f"argument {position} ({self.name}) must be {wanted}, not {shown!r}"
            ) from None

    def convert_all(self, words: list[str], position: int) -> list[object]:
        """
        Convert words to values, many in a twentieth of the time of one by one.

        :param position: of the first word; it counts from 1.
        :raises BadArguments: for the first word of another type or outside the bounds.
        """
        if self.decode is not None:
            return [self.convert(word, i) for i, word in enumerate(words, position)]
        values = self._converted(words) if len(words) > 1 else None
        if values is not None:
            return values
        # Halves: all together they take as long as the words once more.
        while len(words) > 1:
            half = len(words) // 2
            if self._converted(words[:half]) is None:
                words = words[:half]
            else:
                words, position = words[half:], position + half
        return [self.convert(words[0], position)]

    def _converted(self, words: list[str]) -> list[object] | None:
        """Return the values of the words, or None if one cannot be converted."""
        try:
            values: list[object] = msgspec.convert(words, list[self.annotation], strict=False)  # type: ignore[name-defined]  # an annotation is a value here
        except msgspec.ValidationError:
            return None
        if not all(map(_is_finite, values)):
            return None
        return values


def parameters_of(
    name: str, handler: Callable[..., object], hints: dict[str, Any], request: type
) -> tuple[list[Parameter], bool]:
    """
    Read the parameters of a command from its handler's signature.

    :param name: the command's name, for error messages.
    :param hints: the handler's resolved annotations, by parameter name.
    :param request: the annotation of a first parameter that is no argument.
    :return: the parameters, and whether the first one is the request.
    :raises TypeError: if a line cannot hold an argument of such a type or kind.
    """
    parameters = list(inspect.signature(handler).parameters.values())
    wants_request = (
        bool(parameters)
        and hints.get(parameters[0].name) is request
        and parameters[0].kind
        in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    )
    if parameters and parameters[0].name == "self" and "self" not in hints:
        raise TypeError(f"{name}: declare a method of an instance, as command()(instance.method)")
    found = []
    for parameter in parameters[wants_request:]:
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            raise TypeError(f"{name}: a line has no argument by name, so none for {parameter.name}")
        annotation = hints.get(parameter.name, str)
        if annotation is request or not _is_readable(annotation):
            raise TypeError(
                f"{name}: no argument can have the type of {parameter.name}: {annotation}"
            )
        repeated = parameter.kind is parameter.VAR_POSITIONAL
        required = parameter.default is parameter.empty and not repeated
        decode = JsonDecoder[object](annotation) if _is_json(annotation) else None
        found.append(Parameter(parameter.name, annotation, required, repeated, decode))
    return found, wants_request


def split_arguments(text: str, tail: int = 0) -> list[str]:
    """
    Split arguments that come without the name of their command, as those of a line are split.

    :param tail: where one stands that may be JSON; 0 for none.

    :raises ControlCharacter: for one other than a tab.
    :raises BadQuotes: as :func:`split_quoted` does.
    """
    check_control_characters(text)
    if '"' not in text:
        return split_words(text)
    return split_json_tail(text, tail - 1) if tail else split_quoted(text)


def split_quoted(text: str) -> list[str]:
    r"""
    Split a line at spaces and tabs; quoted arguments stay whole.

    A quote opens an argument only at its start: ``{"a":1}`` is one plain word. Inside quotes
    ``\"`` is a quote and ``\\`` a backslash; any other backslash stands for itself.

    :raises BadQuotes: for a quote without an end, or an end that no space follows.
    """
    words = []
    position = 0
    while match := _WORD.match(text, position):
        position = match.end()
        if match["plain"] is not None:
            words.append(match["plain"])
        elif match["quoted"] is None:
            raise BadQuotes(f"the quote at position {match.start('open')} has no end")
        elif position < len(text) and text[position] not in SPACES:
            raise BadQuotes(f"white space must follow the closing quote at position {position - 1}")
        else:
            words.append(_ESCAPE.sub(r"\1", match["quoted"]))
    return words


def split_json_tail(text: str, before: int) -> list[str]:
    r"""
    Split text at spaces and tabs; what follows so many words stays whole if it may be JSON.

    It may if it begins with ``{`` or ``[``: then its quotes are JSON's.

    :raises BadQuotes: as :func:`split_quoted` does, of any other text.
    """
    words, position = [], 0
    for _ in range(before):
        word = _PLAIN_WORD.match(text, position)
        if word is None:
            return split_quoted(text)
        words.append(word[1])
        position = word.end()
    tail = text[position:].strip(SPACES)
    return [*words, tail] if tail[:1] in ("{", "[") else split_quoted(text)


def _is_readable(annotation: Any) -> bool:  # Any: annotations are of any form
    """Whether msgspec can convert a word to this type."""
    try:
        msgspec.convert("", annotation, strict=False)
    except msgspec.ValidationError:
        pass
    except TypeError:
        return False
    base, _ = split_meta(annotation)
    origin, parts = get_origin(base), get_args(base)
    if origin is Literal:
        return all(type(value) in _CHOICES for value in parts)
    if origin in (Union, UnionType):
        # A word is JSON, or it is not: nobody could say which of them it was to be.
        kinds = {_is_json(part) for part in parts if part is not NoneType}
        return len(kinds) < 2 and all(part is NoneType or _is_readable(part) for part in parts)
    return base in _TYPES or _is_json(base) or (isinstance(base, type) and issubclass(base, Enum))


def _is_json(annotation: Any) -> bool:  # Any: as above
    """Whether the values of a type are written as JSON: lists, mappings, structures."""
    base, _ = split_meta(annotation)
    origin = get_origin(base) or base
    if origin in (Union, UnionType):
        return any(_is_json(part) for part in get_args(base))
    if origin in _CONTAINERS:
        return True
    return isinstance(origin, type) and (
        issubclass(origin, msgspec.Struct) or is_dataclass(origin) or attrs.has(origin)
    )


def _is_finite(value: object) -> bool:
    """Whether a value, if it is a float or a Decimal, is one that can be calculated with."""
    if type(value) is float:
        return isfinite(value)
    if type(value) is Decimal:
        # Of the same size as floats: an exponent of nine digits fills all memory as an integer.
        return value.is_finite() and abs(value.adjusted()) <= MAX_EXPONENT
    return True


_WORD = re.compile(
    r"""[ \t]*(?:(?P<plain>[^" \t][^ \t]*)|(?P<open>")(?:(?P<quoted>(?:[^"\\]|\\.)*)")?)""",
    re.DOTALL,
)
_PLAIN_WORD = re.compile(r"""[ \t]*([^" \t][^ \t]*)""")
_ESCAPE = re.compile(r'\\(["\\])')
_TYPES = (
    *(str, int, float, bool, bytes),
    *(UUID, Decimal, datetime, date, time, timedelta),
)
_CONTAINERS = (list, dict, tuple, set, frozenset)
# No float, which msgspec refuses, and no bool, which it never finds in a word.
_CHOICES = (str, int)
