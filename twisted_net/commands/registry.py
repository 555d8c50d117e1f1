"""The hall: what a command is, who knows them all, and how a line becomes an answer."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from attrs import frozen

from twisted_net.auth.users import Permissions
from twisted_net.config.record import describe, split_meta
from twisted_net.errors import (
    BadArguments,
    BadQuotes,
    CommandError,
    ControlCharacter,
    EmptyMessage,
    FetchError,
    NotPermitted,
    NotUTF8,
    TwistedNetError,
    UnknownCommand,
)
from twisted_net.reasons import MAX_SHOWN, Refusal
from twisted_net.sessions import Session

ANSWERED = (CommandError, FetchError)
"""The errors that a handler may raise to answer with them; any other is a bug in the handler."""

_encode = msgspec.json.Encoder().encode
_Handler = TypeVar("_Handler", bound=Callable[..., object])


class Kind(Enum):
    """How a handler runs."""

    PLAIN = "plain"
    ASYNC = "async"
    BLOCKING = "blocking"


class Fields(dict[str, object]):
    """
    An answer of several members, which stand beside ``command`` instead of one ``result``.

    :raises ValueError: for a member whose name the protocol needs for itself.
    """

    def __init__(self, **members: object) -> None:
        taken = members.keys() & {"command", "error", "code", "event"}
        if taken:
            raise ValueError(f"an answer may not have a member {min(taken)!r} of its own")
        super().__init__(members)


@frozen
class Request:
    """
    What a handler may know about the line that it answers.

    A handler gets it by declaring a first parameter of this type.

    :param session: the client that asks.
    :param commands: the registry that the command was found in.
    """

    session: Session
    commands: Commands


@frozen
class Parameter:
    """
    One argument of a command.

    :param annotation: its type and bounds, as msgspec reads them.
    :param repeated: whether it takes all the arguments that are left.
    """

    name: str
    annotation: Any  # of any form that msgspec takes
    required: bool
    repeated: bool

    @property
    def usage(self) -> str:
        """The argument as HELP shows it."""
        shown = f"<{self.name}>" if self.required else f"[{self.name}]"
        return f"[{self.name} ...]" if self.repeated else shown

    @property
    def is_text(self) -> bool:
        """Whether any word will do, as it stands."""
        return self.annotation is str

    def convert(self, word: str, position: int) -> object:
        """
        Make the value of one word; *position* counts from 1.

        :raises BadArguments: for a word of another type or outside the bounds.
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


class Command:
    """
    One command: its name, its arguments with their types and bounds, a line of help, a handler.

    Made by :meth:`Commands.command` from the handler's signature.

    :ivar wants_request: whether the handler's first parameter is the :class:`Request`.
    :ivar admin: whether it is administrative: ``@admin`` in the patterns of users, and audited.
    :ivar alone: whether lines after it wait until it is answered.
    :ivar calls: how often it was run, or refused for its arguments.
    :ivar secret: whether its arguments are shown to nobody.
    :ivar safe: whether the command changes nothing, so that it may be asked again at will.
    :raises TypeError: for a handler whose parameters cannot be read from a line.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[..., object],
        help: str,  # noqa: A002  # the field's word
        blocking: bool,
        safe: bool = False,
        *,
        admin: bool = False,
        alone: bool = False,
        secret: bool = False,
    ) -> None:
        if not re.fullmatch(r"[A-Z][A-Z0-9_.-]*", name):
            raise ValueError(f"{name!r} is no name for a command: it is A-Z, then A-Z 0-9 _ . -")
        awaited = inspect.iscoroutinefunction(handler)
        if blocking and awaited:
            raise TypeError(f"{name}: an async handler cannot be blocking")
        self.name = name
        self.handler = handler
        self.help = help
        self.safe = safe
        self.admin = admin
        self.alone = alone
        self.secret = secret
        self.calls = 0
        self.kind = Kind.BLOCKING if blocking else Kind.ASYNC if awaited else Kind.PLAIN
        self.parameters, self.wants_request = _parameters(name, handler)
        self._least = sum(parameter.required for parameter in self.parameters)
        endless = any(parameter.repeated for parameter in self.parameters)
        self._most = sys.maxsize if endless else len(self.parameters)
        self._all_text = all(parameter.is_text for parameter in self.parameters)
        self._plain = self.kind is Kind.PLAIN
        self._direct = self._plain and self._all_text and not (self.wants_request or admin)
        # Whatever comes fits: that is one question for a line where it is three otherwise.
        self._takes_all = self._direct and endless and not self._least
        self._prefix = b'{"command":' + _encode(name)
        self._result_prefix = self._prefix + b',"result":'

    @property
    def usage(self) -> str:
        """The command and its arguments, as HELP shows them."""
        return " ".join([self.name, *(parameter.usage for parameter in self.parameters)])

    def run(self, words: list[str], request: Request | None) -> bytes | Waiting:
        """
        Run the handler on the words after the name.

        :param request: for a handler that wants it.
        :return: the answer as a line, or what gives it later.
        :raises BadArguments: for the wrong number or type of arguments.
        """
        if not self._least <= len(words) <= self._most:
            raise BadArguments(f"wrong number of arguments ({len(words)}); usage: {self.usage}")
        values: list[Any] = words if self._all_text else self._convert(words)
        if request is not None:
            values = [request, *values]
        if self._plain:
            return self.answer(self.handler(*values))
        blocking = self.kind is Kind.BLOCKING
        return Waiting(self.name, lambda: self.handler(*values), self.answer, blocking, self.alone)

    def answer(self, value: object) -> bytes | Waiting:
        """
        Encode what the handler gave, or wait for it where it is an awaitable.

        :raises TypeError: for a value that JSON does not have.
        """
        if type(value) is Fields:
            members = _encode(value)
            return self._prefix + (b"," + members[1:] if value else b"}") + b"\n"
        try:
            return self._result_prefix + _encode(value) + b"}\n"
        except TypeError:
            # A plain function may give a Deferred; to look only now keeps the others fast.
            if isinstance(value, Awaitable):
                return Waiting(self.name, lambda: value, self.answer)
            raise

    def _convert(self, words: list[str]) -> list[object]:
        values = []
        for i, word in enumerate(words):
            parameter = self.parameters[min(i, len(self.parameters) - 1)]
            values.append(parameter.convert(word, i + 1))
        return values


class Waiting:
    """
    An answer that is still to come: the transport starts the handler and awaits it.

    :param name: the command, or None for the fallback.
    :param start: calls the handler, and gives its value, or an awaitable of it.
    :param encode: makes the answer of the value.
    :param blocking: whether *start* must be called in a thread, since it may take its time.
    :param alone: whether the lines after it must not run before it is answered.
    """

    __slots__ = ("_encode", "alone", "blocking", "name", "start")

    def __init__(
        self,
        name: str | None,
        start: Callable[[], object],
        encode: Callable[[object], bytes | Waiting],
        blocking: bool = False,
        alone: bool = False,
    ) -> None:
        self.name = name
        self.start = start
        self.blocking = blocking
        self.alone = alone
        self._encode = encode

    def answer(self, value: object) -> bytes:
        """
        Encode what the handler gave in the end.

        :raises TypeError: for a value that JSON does not have.
        """
        line = self._encode(value)
        if isinstance(line, Waiting):
            raise TypeError(f"{self.name} gave an awaitable of an awaitable")
        return line

    def refuse(self, error: TwistedNetError) -> bytes:
        """Encode the error with which the handler ended."""
        return encode_error(error, self.name)


class Commands:
    """
    The commands of a server, by name.

    :param fallback: answers lines of which the first word is no command. It is called with the
        :class:`Request` and the text of the line, and gives the whole answer as a mapping,
        or an awaitable of it. Without one, such lines are refused.
    """

    def __init__(self, fallback: Callable[[Request, str], object] | None = None) -> None:
        self.fallback = fallback
        self._table: dict[str, Command] = {}

    def __iter__(self) -> Iterator[Command]:
        """Go through the commands by name."""
        return iter(sorted(self._table.values(), key=lambda command: command.name))

    def __len__(self) -> int:
        return len(self._table)

    def get(self, name: str) -> Command | None:
        """Give the command of this name, in any case."""
        # Of ASCII alone: a long s (U+017F) is no S here.
        return self._table.get(name.upper()) if name.isascii() else None

    def command(
        self,
        name: str | None = None,
        *,
        help: str | None = None,  # noqa: A002  # the field's word
        admin: bool = False,
        alone: bool = False,
        blocking: bool = False,
        safe: bool = False,
        secret: bool = False,
    ) -> Callable[[_Handler], _Handler]:
        """
        Declare the function below as a command.

        Its parameters are the command's arguments: their annotations (``str``, ``int``,
        ``float``, ``bool``, a ``Literal`` of texts and integers, or a union of these, each
        with or without msgspec's ``Meta`` bounds) say what is allowed, a default makes one
        optional, ``*words`` takes all that are left. A first parameter annotated
        :class:`Request` is no argument. What it returns becomes the ``result``, or the members
        of :class:`Fields`; it refuses by raising :class:`~twisted_net.errors.CommandError`.

        :param name: the function's own name, in capitals, where none is given.
        :param help: one line; the first of the docstring where none is given.
        :param admin: whether it is administrative: users may use it only where their patterns
            name it, ``@admin`` or all, and each use is audited.
        :param alone: whether the lines of a client that come after it wait until it is answered;
            for one that waits and changes what they may do.
        :param blocking: whether the function may take its time: it runs in a thread.
        :param safe: whether it only tells and changes nothing: CoAP then serves it to GET too.
        :param secret: whether its arguments are shown to nobody, as those of AUTH are not.
        :raises ValueError: for a name that is taken or is no name.
        :raises TypeError: for parameters that cannot be read from a line.
        """

        def declare(handler: _Handler) -> _Handler:
            own = getattr(handler, "__name__", "").strip("_").upper()
            lines = (inspect.getdoc(handler) or "").splitlines() or [""]
            command = Command(
                name or own,
                handler,
                help or lines[0],
                blocking,
                safe,
                admin=admin,
                alone=alone,
                secret=secret,
            )
            self._check_free(command.name)
            self._table[command.name] = command
            return handler

        return declare

    def update(self, other: Commands) -> None:
        """
        Take over all commands of another registry, and its fallback where it has one.

        :raises ValueError: for a name that is taken; then nothing is taken over.
        """
        for command in other:
            self._check_free(command.name)
        self._table |= other._table
        self.fallback = other.fallback or self.fallback

    def answer(self, line: bytes, session: Session) -> bytes | Waiting:
        """
        Answer one line of a client, and count it.

        :param line: without its end.
        :return: a line of JSON with its LF, or what gives it later.
        :raises Exception: whatever a handler raises beyond :data:`ANSWERED`.
        """
        session.messages += 1
        command = None
        try:
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise NotUTF8(error.start, line[error.start]) from None
            # One call finds nearly every harmless line; the search for the others is slower.
            if not text.isprintable():
                _refuse_control_characters(text)
            words = text.split()
            if not words:
                raise EmptyMessage
            name = words[0]
            command = self._table.get(name) or self.get(name)
            if session.permissions is not None:
                _check(session.permissions, command, name)
            if command is None:
                if self.fallback is None:
                    raise UnknownCommand(name)
                return _encode_whole(self.fallback(Request(session, self), text.strip()))
            command.calls += 1
            if '"' in text:
                words = split_quoted(text)
            del words[0]
            if command._takes_all or (
                command._direct and command._least <= len(words) <= command._most
            ):
                # What run would do, a call and four questions cheaper: most lines come here.
                value = command.handler(*words)
                if type(value) is str:
                    return _join((command._result_prefix, _encode(value), b"}\n"))
                return command.answer(value)
            if command.admin:
                if session.permissions is None and not session.administrative:
                    raise NotPermitted(command.name)
                session.sessions.audit("command", session, self.shown(line))
            return command.run(words, Request(session, self) if command.wants_request else None)
        except ANSWERED as error:
            refusal = _REFUSALS.get(error.code)
            if refusal is not None:
                session.sessions.refuse_line(session, refusal, command.name if command else name)
            return encode_error(error, command.name if command else None)

    def name_of(self, line: bytes) -> str | None:
        """Give the name of the command that a line asks for, where there is one."""
        words = line.decode(errors="replace").split(None, 1)
        command = self.get(words[0]) if words else None
        return command.name if command else None

    def shown(self, line: bytes) -> str:
        """
        Give a line as others may see it, in :data:`MAX_SHOWN` characters at most.

        Arguments of a secret command are left out, and those of a word that is no command: it may
        be AUTH, mistyped.
        """
        text = line[: 4 * MAX_SHOWN].decode(errors="replace").strip()
        words = text.split(None, 1)
        command = self.get(words[0]) if words else None
        if words and (command is None or command.secret):
            text = words[0] if len(words) == 1 else f"{words[0]} …"
        return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"

    def _check_free(self, name: str) -> None:
        if name in self._table:
            raise ValueError(f"there is a command {name} already")


def encode_error(error: TwistedNetError, command: str | None = None) -> bytes:
    """Encode an error as an answer; *command* names the command that refused, if one did."""
    members: dict[str, object] = {"error": str(error), "code": error.code, **error.details()}
    if command is not None:
        members["command"] = command
    return _encode(members) + b"\n"


def split_arguments(text: str) -> list[str]:
    """
    Split arguments that come without the name of their command, as those of a line are split.

    :raises ControlCharacter: for one other than a tab.
    :raises BadQuotes: as :func:`split_quoted` does.
    """
    if not text.isprintable():
        _refuse_control_characters(text)
    return split_quoted(text) if '"' in text else text.split()


def split_quoted(text: str) -> list[str]:
    r"""
    Split a line at white space, quoted arguments kept whole.

    A quote opens an argument only at its start: ``{"a":1}`` is one plain word. Inside quotes
    ``\"`` is a quote and ``\\`` a backslash; any other backslash stands for itself.

    :raises BadQuotes: for a quote without an end, or an end that no white space follows.
    """
    words = []
    position = 0
    while match := _WORD.match(text, position):
        position = match.end()
        if match["plain"] is not None:
            words.append(match["plain"])
        elif match["quoted"] is None:
            raise BadQuotes(f"the quote at position {match.start('open')} has no end")
        elif position < len(text) and not text[position].isspace():
            raise BadQuotes(f"white space must follow the closing quote at position {position - 1}")
        else:
            words.append(_ESCAPE.sub(r"\1", match["quoted"]))
    return words


_join = b"".join
_REFUSALS = {refusal.value: refusal for refusal in Refusal}
_WORD = re.compile(
    r"""\s*(?:(?P<plain>[^"\s]\S*)|(?P<open>")(?:(?P<quoted>(?:[^"\\]|\\.)*)")?)""", re.DOTALL
)
_ESCAPE = re.compile(r'\\(["\\])')
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TYPES = (str, int, float, bool)
# No float, which msgspec refuses, and no bool, which it never finds in a word.
_CHOICES = (str, int)


def _check(permissions: Permissions, command: Command | None, word: str) -> None:
    # A name that there is not is refused as one that is not permitted: it tells nothing of both.
    if command is None:
        permissions.check_command(word.upper(), admin=False, known=False)
    else:
        permissions.check_command(command.name, command.admin)


def _refuse_control_characters(text: str) -> None:
    match = _CONTROL.search(text)
    if match is not None:
        raise ControlCharacter(match.start(), match[0])


def _encode_whole(value: object) -> bytes | Waiting:
    """Encode the answer of a fallback, which is the whole line."""
    if isinstance(value, Awaitable):
        return Waiting(None, lambda: value, _encode_whole)
    return _encode(value) + b"\n"


def _parameters(name: str, handler: Callable[..., object]) -> tuple[list[Parameter], bool]:
    """Read a handler's parameters, and whether the first one is the request."""
    hints = get_type_hints(handler, include_extras=True)
    parameters = list(inspect.signature(handler).parameters.values())
    wants_request = (
        bool(parameters)
        and hints.get(parameters[0].name) is Request
        and parameters[0].kind
        in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    )
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


def _is_readable(annotation: Any) -> bool:  # Any: annotations are of any form
    """Whether msgspec can make a value of this type from a word."""
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
