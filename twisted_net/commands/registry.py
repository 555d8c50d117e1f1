"""Command registry: declares commands, finds them by name, and encodes their answers."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import Any, TypeVar, get_type_hints, overload

import msgspec
from attrs import frozen

from twisted_net.commands.arguments import parameters_of, split_quoted
from twisted_net.commands.command_rate import CommandRate
from twisted_net.config.callbacks import check_callback
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import BadArguments, BadQuotes, CommandError, FetchError, TwistedNetError
from twisted_net.net.characters import SPACES, partition_word, split_words
from twisted_net.net.redaction import LOOKED_AT, cut, shown_arguments, shown_unknown
from twisted_net.sessions.session import Session

ANSWERED = (CommandError, FetchError)
"""The errors that a handler may raise to refuse a command; any other is a bug in the handler."""

MAX_NAME = 64
"""Characters of the longest name, and those that are shown of one that is no command's."""

_RESULT = b'{"command":'
_encode = msgspec.json.Encoder().encode
Proceed = Callable[[], Awaitable[object]]
"""Runs the handler of a command, and what else is around it, and returns its value."""

Around = Callable[["Request", "Command", Proceed], Awaitable[object]]
"""A function that is called around commands, see :meth:`Commands.around`."""

_AroundT = TypeVar("_AroundT", bound=Around)
_Handler = TypeVar("_Handler", bound=Callable[..., object])


class Kind(Enum):
    """How a handler runs."""

    PLAIN = "plain"
    ASYNC = "async"
    BLOCKING = "blocking"


class Fields(dict[str, object]):
    """
    An answer of several members, which stand beside ``command`` instead of one ``result``.

    :raises ValueError: for a member whose name the protocol reserves.
    """

    def __init__(self, **members: object) -> None:
        taken = members.keys() & {"command", "error", "code", "event"}
        if taken:
            raise ValueError(f"an answer may not have a member {min(taken)!r} of its own")
        super().__init__(members)


@frozen
class Request:
    """
    What a handler may know about the command that it runs.

    A handler gets it by declaring a first parameter of this type.

    :param session: the client that sent the command.
    :param commands: the registry that the command was found in.
    """

    session: Session
    commands: Commands

    def may_run(self, command: Command) -> bool:
        """Whether the client may run a command of the registry."""
        served = not command.connected or self.session.has_connection
        return served and self.session.may_run(command.name, command.admin)


@check_arguments
class Command:
    """
    One command: its name, its parameters with types and bounds, its line of help, its handler.

    Made by :meth:`Commands.command` from the handler's signature.

    :ivar wants_request: whether the handler's first parameter is the :class:`Request`.
    :ivar admin: whether it is administrative: ``@admin`` in the patterns of users, and audited.
    :ivar alone: whether later lines of the same client wait until it is answered.
    :ivar needs_request: whether the runner is to make a request, for the handler or what surrounds
        it.
    :ivar connected: whether only a client with a connection of its own may run it, so that it is
        not served over CoAP; one that runs alone is such a command.
    :ivar calls: how often it was called, on any door; calls with wrong arguments are included.
    :ivar secret: whether its arguments are hidden from audit, SLOWLOG and MONITOR.
    :ivar tail: the place of an argument that may be JSON, and is all that follows then; 0: none.
    :ivar observable: whether CoAP clients may observe it.
    :ivar rate: how often each user, or address without one, may call it; None for no limit.
    :ivar safe: whether it changes nothing, so that it may be repeated at will.
    :ivar min_arguments: fewest words after the name.
    :ivar max_arguments: most words after the name.
    :ivar direct: whether the runner may call the handler with the words as they are: it is plain,
        takes only text and no request, and is not administrative.
    :ivar takes_any: whether it is direct and takes any number of words.
    :ivar result_prefix: start of an answer with one result.
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
        connected: bool = False,
        secret: bool = False,
        json_tail: bool = False,
        observable: bool = False,
        rate: CommandRate | None = None,
    ) -> None:
        # No longer than what is shown of a name that is none, or its length would tell them apart.
        if not re.fullmatch(r"[A-Z][A-Z0-9_.-]*", name) or len(name) > MAX_NAME:
            raise ValueError(
                f"{name!r} is no name for a command: it is A-Z, then A-Z 0-9 _ . -, "
                f"{MAX_NAME} characters at most"
            )
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError(f"{name}: a handler returns its answer, it cannot yield several")
        is_async = inspect.iscoroutinefunction(handler)
        if blocking and is_async:
            raise TypeError(f"{name}: an async handler cannot be blocking")
        self.name = name
        self.handler = handler
        self.help = help
        self.safe = safe
        self.admin = admin
        self.alone = alone
        self.connected = connected or alone
        self.secret = secret
        self.observable = observable
        self.calls = 0
        self.rate = rate
        self.kind = Kind.BLOCKING if blocking else Kind.ASYNC if is_async else Kind.PLAIN
        hints = get_type_hints(handler, include_extras=True)
        self.parameters, self.wants_request = parameters_of(name, handler, hints, Request)
        last = self.parameters[-1] if self.parameters else None
        ends_in_json = last is not None and last.decode is not None and not last.repeated
        self.tail = 2 if json_tail else len(self.parameters) if ends_in_json else 0
        self.min_arguments = sum(parameter.required for parameter in self.parameters)
        # One that is repeated is the last.
        self._single = sum(not parameter.repeated for parameter in self.parameters)
        unlimited = self._single < len(self.parameters)
        self.max_arguments = sys.maxsize if unlimited else len(self.parameters)
        self._all_text = all(parameter.is_text for parameter in self.parameters)
        self._plain = self.kind is Kind.PLAIN
        # Notifications know no rate.
        if observable and not (safe and self._plain and rate is None):
            raise TypeError(f"{name}: what can be observed is safe, plain, and has no rate")
        self.needs_request = self.wants_request or rate is not None
        self.direct = self._plain and self._all_text and not (self.needs_request or admin)
        # One question for a line instead of three.
        self.takes_any = self.direct and unlimited and not self.min_arguments
        self._around: tuple[Around, ...] = ()
        self._prefix = _RESULT + _encode(name)
        self.result_prefix = self._prefix + b',"result":'

    @property
    def usage(self) -> str:
        """The command and its parameters, as HELP shows them."""
        return " ".join([self.name, *(parameter.usage for parameter in self.parameters)])

    def run(self, words: list[str], request: Request | None) -> bytes | Waiting:
        """
        Run the handler on the words after the name.

        :param request: for a command that needs it.
        :return: the answer as a line, or what will have it later.
        :raises BadArguments: for the wrong number or type of arguments.
        :raises RateLimited: if the caller has used up its :attr:`rate`.
        """
        if self.rate is not None and request is not None:
            self.rate.charge(request.session)
        if not self.min_arguments <= len(words) <= self.max_arguments:
            raise BadArguments(f"wrong number of arguments ({len(words)}); usage: {self.usage}")
        values: list[Any] = words if self._all_text else self._convert(words)
        if self.wants_request:
            values = [request, *values]
        if self._plain and not self._around:
            return self.answer(self.handler(*values))
        blocking = self.kind is Kind.BLOCKING
        waiting = Waiting(
            self.name, lambda: self.handler(*values), self.answer, blocking, self.alone
        )
        if self._around and request is not None:
            waiting.around = partial(self._surrounded, request)
        return waiting

    def surround(self, function: Around) -> None:
        """Call a function around the handler, outside of those added before. Idempotent."""
        if function in self._around:
            return
        self._around = (function, *self._around)
        self.direct = self.takes_any = False
        self.needs_request = True

    def _surrounded(self, request: Request, handler: Callable[[], object]) -> Awaitable[object]:
        """Call the handler within all functions around it; the outermost is called first."""

        async def innermost() -> object:
            value = handler()
            return await value if isinstance(value, Awaitable) else value

        proceed: Callable[[], Awaitable[object]] = innermost
        for function in reversed(self._around):
            proceed = partial(function, request, self, proceed)
        return proceed()

    def answer(self, value: object) -> bytes | Waiting:
        """
        Encode the handler's value as the answer, or wait for it if it is an awaitable.

        :raises TypeError: for a value that JSON cannot represent.
        """
        if type(value) is Fields:
            members = _encode(value)
            return self._prefix + (b"," + members[1:] if value else b"}") + b"\n"
        try:
            return self.result_prefix + _encode(value) + b"}\n"
        except TypeError:
            # A plain function may return a Deferred; checking only now keeps the others fast.
            if isinstance(value, Awaitable):
                return Waiting(self.name, lambda: value, self.answer, alone=self.alone, begun=True)
            raise

    def _convert(self, words: list[str]) -> list[object]:
        single = self._single
        values: list[object] = []
        for i, word in enumerate(words):
            if i == single:
                return values + self.parameters[i].convert_all(words[i:], i + 1)
            values.append(self.parameters[i].convert(word, i + 1))
        return values


class Waiting:
    """
    An answer that is still to come: a runner starts the handler and awaits its value.

    :param name: the command, or None for the fallback.
    :param start: calls the handler; returns its value or an awaitable of it.
    :param encode: makes the answer of the value.
    :param blocking: whether *start* must run in a thread, since it may block.
    :param alone: whether later lines of the same client must not run before it is answered.
    :param begun: whether the handler was called already, and *start* returns its awaitable.
    :ivar around: called with what calls the handler, if there are functions around it.
    """

    __slots__ = ("_encode", "alone", "around", "begun", "blocking", "name", "start")

    def __init__(
        self,
        name: str | None,
        start: Callable[[], object],
        encode: Callable[[object], bytes | Waiting],
        blocking: bool = False,
        alone: bool = False,
        begun: bool = False,
    ) -> None:
        self.name = name
        self.start = start
        self.blocking = blocking
        self.alone = alone
        self.begun = begun
        self.around: Callable[[Callable[[], object]], Awaitable[object]] | None = None
        self._encode = encode

    def answer(self, value: object) -> bytes:
        """
        Encode the handler's final value.

        :raises TypeError: for a value that JSON cannot represent.
        """
        line = self._encode(value)
        if isinstance(line, Waiting):
            raise TypeError(f"{self.name} returned an awaitable of an awaitable")
        return line

    def refuse(self, error: TwistedNetError) -> bytes:
        """Encode the error with which the handler ended."""
        return encode_error(error, self.name)


@check_arguments
class Commands:
    """
    The commands of a server, by name.

    :param fallback: answers lines whose first word is no command. It is called with the
        :class:`Request` and the text of the line, and returns the whole answer as a mapping,
        or an awaitable of it. Without one, such lines are refused.
    :raises TypeError: for a fallback that does not take these two arguments.
    :ivar by_name: the commands by their names in capitals; the registry alone changes it.
    """

    def __init__(self, fallback: Callable[[Request, str], object] | None = None) -> None:
        if fallback is not None:
            check_callback("the fallback", fallback, "request", "text")
        self.fallback = fallback
        self.by_name: dict[str, Command] = {}
        self._around: list[Around] = []
        # Also where there is no AUTH: a client may take this server for one that has it.
        self._secret = {"AUTH"}

    def __iter__(self) -> Iterator[Command]:
        """Iterate over the commands in the order of their names."""
        return iter(sorted(self.by_name.values(), key=lambda command: command.name))

    def __len__(self) -> int:
        return len(self.by_name)

    def get(self, name: str) -> Command | None:
        """Return the command of this name, in any case, or None."""
        # Of ASCII alone: a long s (U+017F) is no S here.
        return self.by_name.get(name.upper()) if name.isascii() else None

    @overload
    def command(self, name: _Handler, /) -> _Handler: ...

    @overload
    def command(
        self,
        name: str | None = None,
        *,
        help: str | None = None,  # the field's word
        admin: bool = False,
        alone: bool = False,
        blocking: bool = False,
        connected: bool = False,
        json_tail: bool = False,
        observable: bool = False,
        per_second: float | None = None,
        burst: int | None = None,
        safe: bool = False,
        secret: bool = False,
    ) -> Callable[[_Handler], _Handler]: ...

    @check_arguments
    def command(
        self,
        name: str | Callable[..., object] | None = None,
        *,
        help: str | None = None,  # noqa: A002  # the field's word
        admin: bool = False,
        alone: bool = False,
        blocking: bool = False,
        connected: bool = False,
        json_tail: bool = False,
        observable: bool = False,
        per_second: float | None = None,
        burst: int | None = None,
        safe: bool = False,
        secret: bool = False,
    ) -> Callable[..., object]:
        """
        Declare the decorated function as a command, with or without parentheses.

        Its parameters are the command's arguments: their annotations (``str``, ``int``,
        ``float``, ``bool``, ``bytes`` in base64, ``Decimal``, ``UUID``, dates and times in ISO
        8601, an ``Enum``, a ``Literal`` of texts and integers, or a union of these, each with or
        without msgspec's ``Meta`` bounds) say what is allowed. Lists, mappings, structures of
        msgspec, dataclasses and attrs classes are one argument in JSON; as the last one it is not
        quoted. A default makes one optional, ``*words`` takes all that are left. A first parameter
        annotated :class:`Request` is no argument. The return value becomes the ``result``, or the
        members of :class:`Fields`; to refuse, raise :class:`~twisted_net.errors.CommandError`.

        :param name: the function's own name, in capitals, if None.
        :param help: one line; the first line of the docstring if None.
        :param admin: whether it is administrative: users may use it only if their patterns
            name it, ``@admin`` or all, and each use is audited.
        :param alone: whether later lines of the same client wait until it is answered; for a
            command that waits and changes what they may do.
        :param blocking: whether the function may block: it runs in a thread.
        :param connected: whether it sends events to the client alone, or needs a connection for
            something else: then it is not served over CoAP, nor is one that runs *alone*.
        :param json_tail: whether what follows its first argument may be a JSON object or array,
            quotes and spaces included: ``PUBLISH topic {"t": "21 C"}``. It is passed as one text.
        :param observable: whether CoAP clients may observe what it returns for their arguments: for
            one that is *safe*, with a plain function. ``CoapServer.notify`` tells them.
        :param per_second: how often each user may call it, on all doors together, and each address
            without a login; further calls are refused with ``rate_limited``. None for no limit.
        :param burst: calls at once after a pause; the calls of a second if None, one at least.
        :param safe: whether it only reads and changes nothing: CoAP then serves it to GET too.
        :param secret: whether its arguments are hidden everywhere, as those of AUTH are.
        :raises ValueError: for a name that is taken or is no name, or a rate that is not positive.
        :raises TypeError: for parameters that cannot be read from a line.
        """

        if callable(name):
            return self.command()(name)

        def declare(handler: _Handler) -> _Handler:
            own = getattr(handler, "__name__", "").strip("_").upper()
            lines = (inspect.getdoc(handler) or "").splitlines() or [""]
            rate = None if per_second is None else CommandRate(per_second, burst)
            command = Command(
                name or own,
                handler,
                help or lines[0],
                blocking,
                safe,
                admin=admin,
                alone=alone,
                connected=connected,
                secret=secret,
                json_tail=json_tail,
                observable=observable,
                rate=rate,
            )
            self._check_free(command.name)
            for function in self._around:
                command.surround(function)
            self.by_name[command.name] = command
            if secret:
                self._secret.add(command.name)
            return handler

        return declare

    def around(self, function: _AroundT) -> _AroundT:
        """
        Call an ``async`` function around each command of this registry, a decorator.

        Commands that are declared later are among them, and those that :meth:`update` adds.
        Idempotent. The function gets the :class:`Request`, the :class:`Command`, and
        ``proceed``, which it awaits to run the handler::

            @commands.around
            async def timed(request: Request, command: Command, proceed: Proceed) -> object:
                began = clock.seconds()
                try:
                    return await proceed()
                finally:
                    note(command.name, clock.seconds() - began)

        It may refuse the command by a :class:`~twisted_net.errors.CommandError`, return another
        value, and do without the handler. It runs within the time limit of the command, and after
        its permissions were checked. Of several the one that was added last is the outermost.
        A command with one cannot be observed over CoAP.

        :raises TypeError: for a function that is not ``async``, or does not take these arguments.
        """
        check_callback("a function around commands", function, "request", "command", "proceed")
        is_async: bool = inspect.iscoroutinefunction(function)
        if not is_async:
            raise TypeError("a function around commands is async: it awaits proceed()")
        for command in self.by_name.values():
            command.surround(function)
        if function not in self._around:
            self._around.append(function)
        return function

    @check_arguments
    def update(self, other: Commands) -> None:
        """
        Add all commands of another registry, and take its fallback if it has one.

        :raises ValueError: for a name that is taken; then nothing is added.
        """
        for command in other:
            self._check_free(command.name)
        self.by_name |= other.by_name
        for function in self._around:
            for command in other:
                command.surround(function)
        self._secret |= other._secret
        self.fallback = other.fallback or self.fallback

    def runs_alone(self, line: bytes | None, session: Session) -> bool:
        """
        Whether a line calls a command that must run alone, and that the client may run.

        :param line: None for one that was too long.
        """
        words = line.decode(errors="replace").split(None, 1) if line else ()
        command = self.get(words[0]) if words else None
        if command is None or not command.alone:
            return False
        return session.may_run(command.name, command.admin)

    def name_of(self, line: bytes) -> str | None:
        """
        Return the name of the command that a line calls, or None if it calls none.

        One that there is not is named too, as :func:`shown_name` does: the answer to a client
        that may not run it must not say which exist.
        """
        word, _ = partition_word(line.decode(errors="replace"))
        command = self.get(word)
        return command.name if command else shown_name(word) if word else None

    def shown(self, line: bytes) -> str:
        """
        Return a line as audit, SLOWLOG and MONITOR show it.

        :return: at most 200 characters without secrets, see :mod:`twisted_net.net.redaction`. Of a
            word that is no command, which may be AUTH, mistyped, no arguments are shown.
        """
        text = line[: 8 * LOOKED_AT].decode(errors="replace").strip(SPACES)
        name, _ = partition_word(text)
        command = self.get(name)
        if command is None:
            return shown_unknown(text)
        arguments = text[len(name) :]
        try:
            surplus = len(split_quoted(arguments)) > command.max_arguments
        except BadQuotes:
            surplus = len(split_words(arguments)) > command.max_arguments
        return self._shown(command, name, arguments, surplus)

    def shown_call(self, command: Command, words: Sequence[str]) -> str:
        """Return a command with its arguments, words, as :meth:`shown` does a line."""
        arguments = "".join([f" {word}" for word in words])
        return self._shown(command, command.name, arguments, len(words) > command.max_arguments)

    def shown_text(self, text: str) -> str:
        """Return a text that may repeat arguments of commands as these are shown."""
        return shown_arguments(text, self._secret)

    def _shown(self, command: Command, name: str, arguments: str, surplus: bool) -> str:
        """Return a command as it may be shown; not even its own if it has too many arguments."""
        if not arguments:
            return name
        if command.secret or surplus:
            return f"{name} …"
        return cut(name + self.shown_text(arguments))

    def _check_free(self, name: str) -> None:
        if name in self.by_name:
            raise ValueError(f"there is a command {name} already")


def encode_error(error: TwistedNetError, command: str | None = None) -> bytes:
    """Encode an error as an answer; *command* names the command that refused, if one did."""
    members: dict[str, object] = {"error": str(error), "code": error.code, **error.details()}
    if command is not None:
        members["command"] = command
    return _encode(members) + b"\n"


def is_result(answer: bytes) -> bool:
    """Return whether an answer is that of a command which succeeded: no error, no fallback's."""
    return answer.startswith(_RESULT)


def encode_whole(value: object) -> bytes | Waiting:
    """
    Encode the answer of a fallback, which is the whole line, or wait for it.

    :raises TypeError: for a value that JSON cannot represent.
    """
    if isinstance(value, Awaitable):
        return Waiting(None, lambda: value, encode_whole, begun=True)
    line = _encode(value) + b"\n"
    # The space tells it from the result of a command, see is_result.
    return b"{ " + line[1:] if line.startswith(_RESULT) else line


def shown_name(word: str) -> str:
    """Return the name of a command that there is not as that of one: its first 64 characters."""
    return word.upper()[:MAX_NAME]
