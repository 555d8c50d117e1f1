"""Exceptions of the package: the branch says whose fault it is, each class has a wire code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar


class TwistedNetError(Exception):
    """
    Base class of all errors that this package raises.

    ``str(error)`` is the message for people.

    :cvar code: identifies the error in answers; it never changes.
    """

    code: ClassVar[str] = "error"

    def details(self) -> dict[str, object]:
        """Return the members of an error answer besides ``error`` and ``code``."""
        return {}


# --- The client's request is wrong: it is answered, the connection stays open. ---


class CommandError(TwistedNetError):
    """
    A command was refused. Handlers raise it, or a subclass, to answer with an error.

    :ivar counted: whether it was counted and audited where it was raised, with more detail than
        the runner has.
    """

    code = "refused"
    counted = False


class EmptyMessage(CommandError):
    """The line is empty."""

    code = "empty"

    def __init__(self) -> None:
        super().__init__("empty message")


class UnknownCommand(CommandError):
    """
    No command has this name.

    :param name: as the client wrote it; the message has its first 64 characters.
    """

    code = "unknown_command"

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown command: {name if len(name) <= 64 else name[:64] + '…'}")
        self.name = name


class NotUTF8(CommandError):
    """The line is not UTF-8; *position* counts bytes from 0."""

    code = "not_utf8"

    def __init__(self, position: int, byte: int) -> None:
        super().__init__(f"the line is not UTF-8: byte 0x{byte:02x} at position {position}")
        self.position = position

    def details(self) -> dict[str, object]:
        return {"position": self.position}


class ControlCharacter(CommandError):
    """A line or an argument has a control character other than a tab (of C0, C1, or DEL)."""

    code = "control_character"

    def __init__(self, position: int, character: str) -> None:
        super().__init__(
            f"the line has the control character U+{ord(character):04X} at position {position}"
        )
        self.position = position

    def details(self) -> dict[str, object]:
        return {"position": self.position}


class BadQuotes(CommandError):
    """A quoted argument is not closed, or not followed by white space."""

    code = "bad_quotes"


class BadArguments(CommandError):
    """There are too few or too many arguments, or one has the wrong type or value."""

    code = "bad_arguments"


class LineTooLong(CommandError):
    """A line is longer than the limit; it was skipped up to its end."""

    code = "line_too_long"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the line is longer than {limit} bytes")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class UnterminatedLine(CommandError):
    """The client ended its stream within a line, which is not run: it may be incomplete."""

    code = "unterminated_line"

    def __init__(self) -> None:
        super().__init__("the last line does not end with LF and was not run")


class TooManyConnections(CommandError):
    """
    The limit of connections is reached; this one is closed.

    :param scope: what the limit applies to: ``server``, ``address``, ``network`` or ``user``.
    """

    code = "too_many_connections"

    def __init__(self, limit: int, scope: str = "server") -> None:
        super().__init__(f"too many connections: the limit of this {scope} is {limit}")
        self.limit = limit
        self.scope = scope

    def details(self) -> dict[str, object]:
        scope = {"scope": self.scope} if self.scope != "server" else {}
        return {"limit": self.limit, **scope}


class Banned(CommandError):
    """
    An operator keeps this user or address out for a while.

    :param scope: what is banned: ``user`` or ``address``.
    :param left: seconds until the ban ends.
    """

    code = "banned"

    def __init__(self, scope: str, left: float) -> None:
        super().__init__(f"this {scope} is banned for another {math.ceil(left)} s")
        self.scope = scope
        self.left = left

    def details(self) -> dict[str, object]:
        return {"scope": self.scope, "retry_after": math.ceil(self.left)}


class CommandTimeout(CommandError):
    """A command exceeded its time limit and was cancelled."""

    code = "timeout"

    def __init__(self, limit: float) -> None:
        super().__init__(f"the command took longer than {limit:g} seconds")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class TooBusy(CommandError):
    """
    As many commands wait or run as may; this one was not started.

    :param what: of which there are so many.
    :param retry_after: seconds until it is worth another attempt, where that can be told.
    """

    code = "busy"
    retry_after: float | None = None

    def __init__(
        self, limit: int, what: str = "commands", retry_after: float | None = None
    ) -> None:
        when = "later" if retry_after is None else f"in {retry_after:.3g} seconds"
        super().__init__(f"busy: {limit} {what} are pending; try again {when}")
        self.limit = limit
        self.retry_after = retry_after

    def details(self) -> dict[str, object]:
        if self.retry_after is None:
            return {"limit": self.limit}
        return {"limit": self.limit, "retry_after": round(self.retry_after, 3)}


class OutOfThreads(CommandError, RuntimeError):
    """
    The system has no thread to give, in which the command could run; it was not started.

    It is a RuntimeError, as Python's own is.
    """

    code = "out_of_threads"

    def __init__(self) -> None:
        super().__init__("this server has no thread left to run this in; try again later")


class HandlersOverdue(TooBusy):
    """
    The client may not log in while handlers run whose commands were answered ``timeout``.

    :param running: how many run.
    """

    code = "overdue"

    def __init__(self, running: int) -> None:
        CommandError.__init__(
            self, "commands that were answered with timeout still run; connect anew"
        )
        self.limit = running


class AuthRequired(CommandError):
    """
    The client must log in before it may do this.

    :param how: in words.
    """

    code = "auth_required"

    def __init__(self, how: str = "AUTH <user> <password>, or AUTH <token>") -> None:
        super().__init__(f"log in first: {how}")


class AuthFailed(CommandError):
    """The name, the password or the token is wrong; the client does not learn which."""

    code = "auth_failed"

    def __init__(self) -> None:
        super().__init__("wrong user, password or token")


class AuthDelayed(CommandError):
    """
    Too many logins from this address have failed; this one was not checked.

    :param retry_after: seconds to wait before the next attempt.
    """

    code = "auth_delayed"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many failed logins; try again in {retry_after:.3g} seconds")
        self.retry_after = retry_after

    def details(self) -> dict[str, object]:
        return {"retry_after": round(self.retry_after, 3)}


class NotPermitted(CommandError):
    """
    The user may not use this command or this topic.

    :param name: of the command or the topic; the message has its first 64 characters.
    """

    code = "not_permitted"

    def __init__(self, name: str) -> None:
        super().__init__(f"not permitted: {name if len(name) <= 64 else name[:64] + '…'}")
        self.name = name


class RateLimited(CommandError):
    """
    A rate limit is exceeded; the command was not run.

    :param scope: what the limit applies to: ``server``, ``address``, ``network`` or ``user``.
    :param retry_after: seconds until the command would be accepted.
    """

    code = "rate_limited"

    def __init__(self, scope: str, retry_after: float) -> None:
        super().__init__(
            f"too many commands from this {scope}; try again in {retry_after:.3g} seconds"
        )
        self.scope = scope
        self.retry_after = retry_after

    def details(self) -> dict[str, object]:
        return {"scope": self.scope, "retry_after": round(self.retry_after, 3)}


class Protected(CommandError):
    """A server without users accepts clients of its own machine only; this connection is closed."""

    code = "protected"

    def __init__(self) -> None:
        super().__init__(
            "this server has no users and accepts clients of its own machine only; "
            "see auth.users and auth.open"
        )


class BadTopic(CommandError):
    """The topic or the pattern is invalid; the message says why."""

    code = "bad_topic"


class TooManySubscriptions(CommandError):
    """
    The limit of subscriptions is reached; this one was not made.

    :param scope: what the limit applies to: ``client`` or ``server``.
    :param unit: of the limit, as it follows the number; empty for a number of subscriptions.
    """

    code = "subscription_limit"

    def __init__(self, limit: int, scope: str, unit: str = "") -> None:
        super().__init__(f"too many subscriptions: the limit of this {scope} is {limit}{unit}")
        self.limit = limit
        self.scope = scope

    def details(self) -> dict[str, object]:
        return {"limit": self.limit, "scope": self.scope}


class TooManyRetained(CommandError):
    """
    A message cannot be retained: the limit is reached.

    :param limit: the limit.
    :param scope: of what: ``topics`` or ``bytes``.
    """

    code = "retained_limit"

    def __init__(self, limit: int, scope: str) -> None:
        super().__init__(f"the limit of {limit} {scope} of retained messages is reached")
        self.limit = limit
        self.scope = scope

    def details(self) -> dict[str, object]:
        return {"limit": self.limit, "scope": self.scope}


class Internal(CommandError):
    """A handler raised an unexpected exception; the log has the traceback."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("internal error; see the log of the server")


# --- Errors of the client of a command server. ---


class CallError(TwistedNetError):
    """A call to a command server failed."""

    code = "call_failed"


class NotConnected(CallError):
    """There is no connection; nothing of the call was sent."""

    code = "not_connected"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not connected: {reason}")
        self.reason = reason


class AnswerLost(CallError):
    """
    The connection was lost after the call was sent and before it was answered.

    It is unknown whether the server has run the command. The client does not retry; a caller whose
    command is idempotent can.

    :param command: its name.
    """

    code = "answer_lost"

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(f"the connection was lost before {command} was answered: {reason}")
        self.command = command
        self.reason = reason


class CallTimeout(CallError):
    """A call was not answered in time; a later answer is dropped."""

    code = "call_timeout"

    def __init__(self, command: str, limit: float) -> None:
        super().__init__(f"{command} was not answered within {limit:g} seconds")
        self.command = command
        self.limit = limit


class TooManyCalls(CallError):
    """The limit of unanswered calls is reached; this one was not sent."""

    code = "too_many_calls"

    def __init__(self, limit: int) -> None:
        super().__init__(f"too many calls: {limit} are unanswered")
        self.limit = limit


class BadAnswer(CallError):
    """The server sent something that is not an answer; the connection is closed."""

    code = "bad_answer"


class CallRefused(CallError):
    """
    The server answered with an error.

    :param answer: the whole answer.
    :ivar reason: its ``code``.
    """

    code = "call_refused"

    def __init__(self, answer: Mapping[str, object]) -> None:
        super().__init__(str(answer.get("error")))
        self.answer = answer
        self.reason = str(answer.get("code"))


# --- Errors of HTTP requests: the server, or the connection to it. ---


class FetchError(TwistedNetError):
    """
    An HTTP request failed.

    Messages and attributes of its subclasses never contain credentials of the URL.

    :ivar transient: True if the same request may succeed when it is retried.
    :ivar unsent: True if certainly no byte of the request was sent.
    """

    code = "fetch_failed"
    transient = False
    unsent = False


# --- Errors of CoAP requests. ---


class CoapError(TwistedNetError):
    """A CoAP request failed."""

    code = "coap_failed"


# --- The byte stream is invalid: the connection is closed. ---


class ProtocolError(TwistedNetError):
    """The peer violated the protocol; the rest of its stream cannot be parsed."""

    code = "protocol_error"


class BadProxyHeader(ProtocolError):
    """A connection does not begin with a valid header of the PROXY protocol."""

    code = "bad_proxy_header"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a PROXY header: {reason}")
        self.reason = reason


class BadHandshake(ProtocolError):
    """
    A connection does not begin with a valid request for a WebSocket, or with one that is refused.

    :param status: of HTTP, to answer with.
    """

    code = "bad_handshake"

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


# --- The operator's mistakes. ---


class ConfigError(TwistedNetError):
    """
    The configuration cannot be used.

    :param mistakes: one line each, in the order found; at least one.
    """

    code = "bad_configuration"

    def __init__(self, mistakes: list[str]) -> None:
        # They may repeat what is written in files, and are shown on terminals.
        self.mistakes = [
            "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
            for line in mistakes
        ]
        super().__init__("\n".join(self.mistakes))


class CannotListen(ConfigError):
    """
    An address cannot be bound: it is in use, not of this machine, or not permitted.

    :param address: ``host:port``, or the path of a Unix socket.
    :param transport: such as ``tcp``, ``tcp+tls``, ``udp`` or ``unix``.
    :param reason: that of the operating system.
    """

    code = "cannot_listen"

    def __init__(self, address: str, transport: str, reason: str) -> None:
        super().__init__([f"cannot listen on {address} ({transport}): {reason}"])
        self.address = address
        self.transport = transport
        self.reason = reason


class ApplicationFailed(ConfigError):
    """
    An application could not start, and so neither could the service.

    :param application: its name.
    :param reason: what it raised, and where.
    """

    code = "application_failed"

    def __init__(self, application: str, reason: str) -> None:
        super().__init__([f"application {application} cannot start: {reason}"])
        self.application = application
        self.reason = reason


class CannotStart(SystemExit, Exception):
    """
    The process cannot start: it exits with status 1 and the message on standard error.

    Launchers let a :exc:`SystemExit` pass without a traceback. twistd handles every
    :exc:`Exception`: it removes its pid file, and a daemon reports to its parent.
    """
