"""Command arguments: splits text into words, and converts words to typed, checked values."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from attrs import frozen

from twisted_net.config.record import describe, split_meta
from twisted_net.errors import BadArguments, BadQuotes
from twisted_net.net.characters import SPACES, check_control_characters, split_words


@frozen
class Parameter:
    """
    One parameter of a command.

    :param annotation: its type and bounds, as msgspec reads them.
    :param repeated: whether it takes all remaining arguments.
    """

    name: str
    annotation: Any  # of any form that msgspec takes
    required: bool
    repeated: bool

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
            value: object = msgspec.convert(word, self.annotation, strict=False)
            # JSON has neither NaN nor infinities, and few handlers expect them.
            if isinstance(value, float) and not isfinite(value):
                raise msgspec.ValidationError
            return value
        except msgspec.ValidationError:
            shown = word if len(word) <= 64 else word[:64] + "…"
            raise BadArguments(
                f"argument {position} ({self.name}) must be {describe(self.annotation)}, "
                f"not {shown!r}"
            ) from None

    def convert_all(self, words: list[str], position: int) -> list[object]:
        """
        Convert words to values, many in a twentieth of the time of one by one.

        :param position: of the first word; it counts from 1.
        :raises BadArguments: for the first word of another type or outside the bounds.
        """
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
        if not all(map(isfinite, [value for value in values if type(value) is float])):
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
        if not _is_readable(annotation):
            raise TypeError(
                f"{name}: no argument can have the type of {parameter.name}: {annotation}"
            )
        repeated = parameter.kind is parameter.VAR_POSITIONAL
        required = parameter.default is parameter.empty and not repeated
        found.append(Parameter(parameter.name, annotation, required, repeated))
    return found, wants_request


def split_arguments(text: str) -> list[str]:
    """
    Split arguments that come without the name of their command, as those of a line are split.

    :raises ControlCharacter: for one other than a tab.
    :raises BadQuotes: as :func:`split_quoted` does.
    """
    check_control_characters(text)
    return split_quoted(text) if '"' in text else split_words(text)


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
        return all(part is NoneType or _is_readable(part) for part in parts)
    return base in _TYPES


_WORD = re.compile(
    r"""[ \t]*(?:(?P<plain>[^" \t][^ \t]*)|(?P<open>")(?:(?P<quoted>(?:[^"\\]|\\.)*)")?)""",
    re.DOTALL,
)
_ESCAPE = re.compile(r'\\(["\\])')
_TYPES = (str, int, float, bool)
# No float, which msgspec refuses, and no bool, which it never finds in a word.
_CHOICES = (str, int)
