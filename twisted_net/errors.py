"""The tree of errors: each branch says whose fault it is, each leaf has its wire code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class TwistedNetError(Exception):
    """
    The root of every error that this package raises on purpose.

    ``str(error)`` is the sentence for a person.

    :cvar code: the name of the error on the wire; it never changes.
    """

    code: ClassVar[str] = "error"

    def details(self) -> dict[str, object]:
        """Give the members that an answer carries beside ``error`` and ``code``."""
        return {}


# --- The client asked for something wrong: answered, the connection lives. ---


class CommandError(TwistedNetError):
    """
    A command was refused. Handlers raise it, or a leaf of their own, to answer with an error.

    :ivar counted: whether it was counted and audited where it was raised, with more detail than
        the runner has.
    """

    code = "refused"
    counted = False


class EmptyMessage(CommandError):
    """The line holds no command."""

    code = "empty"

    def __init__(self) -> None:
        super().__init__("empty message")


class UnknownCommand(CommandError):
    """
    No command has this name.

    :param name: as the client spelt it; shown up to 64 characters.
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
    """The line holds a control character (C0 or DEL) other than a tab; NUL and a bare CR are."""

    code = "control_character"

    def __init__(self, position: int, character: str) -> None:
        super().__init__(
            f"the line holds the control character U+{ord(character):04X} at position {position}"
        )
        self.position = position

    def details(self) -> dict[str, object]:
        return {"position": self.position}


class BadQuotes(CommandError):
    """A quoted argument has no end, or is followed by something other than white space."""

    code = "bad_quotes"


class BadArguments(CommandError):
    """The arguments are too few, too many, or of another type than the command declares."""

    code = "bad_arguments"


class LineTooLong(CommandError):
    """A line passed the limit; its bytes were dropped and the lines after it are whole."""

    code = "line_too_long"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the line is longer than {limit} bytes")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class UnterminatedLine(CommandError):
    """The client ended its stream in the middle of a line, which is not run: it may be half."""

    code = "unterminated_line"

    def __init__(self) -> None:
        super().__init__("the last line has no end (LF) and was not run")


class TooManyConnections(CommandError):
    """
    There are as many connections as may be; this one is closed.

    :param scope: whose connections there are as many of: ``server``, ``address``, ``network`` or
        ``user``.
    """

    code = "too_many_connections"

    def __init__(self, limit: int, scope: str = "server") -> None:
        super().__init__(f"too many connections: this {scope} takes {limit}")
        self.limit = limit
        self.scope = scope

    def details(self) -> dict[str, object]:
        scope = {"scope": self.scope} if self.scope != "server" else {}
        return {"limit": self.limit, **scope}


class CommandTimeout(CommandError):
    """A command took longer than it may, and was cancelled."""

    code = "timeout"

    def __init__(self, limit: float) -> None:
        super().__init__(f"the command took longer than {limit:g} seconds")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class TooBusy(CommandError):
    """As many blocking commands wait or run as the server takes; this one did not begin."""

    code = "busy"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} blocking commands are waiting already; try again later")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class AuthRequired(CommandError):
    """The client must log in before it may do this."""

    code = "auth_required"

    def __init__(self) -> None:
        super().__init__("log in first: AUTH <user> <password>, or AUTH <token>")


class AuthFailed(CommandError):
    """No user has this name and password, or this token; which of them is wrong is not told."""

    code = "auth_failed"

    def __init__(self) -> None:
        super().__init__("the user, the password or the token is wrong")


class AuthDelayed(CommandError):
    """
    Attempts to log in failed too often from this address; this one was not looked at.

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

    :param name: of the command or the topic; shown up to 64 characters.
    """

    code = "not_permitted"

    def __init__(self, name: str) -> None:
        super().__init__(f"not permitted: {name if len(name) <= 64 else name[:64] + '…'}")
        self.name = name


class RateLimited(CommandError):
    """
    More commands came than this connection, address, network or user may send.

    :param scope: which of these has no more.
    :param retry_after: seconds after which the command would be run.
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
    """A server without users serves its own machine only; this connection is closed."""

    code = "protected"

    def __init__(self) -> None:
        super().__init__(
            "this server has no users, and so serves its own machine only; "
            "see auth.users, auth.open"
        )


class BadTopic(CommandError):
    """What was given is no topic, or no pattern of topics; the message says why."""

    code = "bad_topic"


class TooManySubscriptions(CommandError):
    """
    There are as many subscriptions as may be; this one was not made.

    :param scope: whose subscriptions there are as many of: ``client`` or ``server``.
    """

    code = "subscription_limit"

    def __init__(self, limit: int, scope: str) -> None:
        super().__init__(f"too many subscriptions: this {scope} takes {limit}")
        self.limit = limit
        self.scope = scope

    def details(self) -> dict[str, object]:
        return {"limit": self.limit, "scope": self.scope}


class Internal(CommandError):
    """A handler failed in a way that it did not foresee; the log has the traceback."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("internal error; the server's log tells more")


# --- A command server that we are a client of, or the way to it. ---


class CallError(TwistedNetError):
    """A call to a command server got no answer that its caller can use."""

    code = "call_failed"


class NotConnected(CallError):
    """There was no connection; certainly not a byte of the call was sent, nor will be."""

    code = "not_connected"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not connected: {reason}")
        self.reason = reason


class AnswerLost(CallError):
    """
    The connection was lost after the call was sent and before its answer came.

    Whether the server has run it is not known. The client does not send it again: whoever
    knows that it may run twice can.

    :param command: its name.
    """

    code = "answer_lost"

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(f"the connection was lost before {command} was answered: {reason}")
        self.command = command
        self.reason = reason


class CallTimeout(CallError):
    """A call that was sent was not answered in time; an answer that comes later is dropped."""

    code = "call_timeout"

    def __init__(self, command: str, limit: float) -> None:
        super().__init__(f"{command} was not answered within {limit:g} seconds")
        self.command = command
        self.limit = limit


class TooManyCalls(CallError):
    """As many calls wait for their answers as may; this one was not sent."""

    code = "too_many_calls"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} calls wait for their answers already")
        self.limit = limit


class BadAnswer(CallError):
    """What the server sent cannot be an answer; the connection is of no use any more."""

    code = "bad_answer"


class CallRefused(CallError):
    """
    The server answered with an error.

    :param answer: whole.
    :ivar reason: the code of the server's error.
    """

    code = "call_refused"

    def __init__(self, answer: Mapping[str, object]) -> None:
        super().__init__(str(answer.get("error")))
        self.answer = answer
        self.reason = str(answer.get("code"))


# --- The far HTTP server, or the way to it. ---


class FetchError(TwistedNetError):
    """
    An HTTP request got no answer that its caller can use.

    No message and no attribute of this branch holds a credential of the URL.

    :ivar transient: True where the same request may well succeed a moment later.
    :ivar unsent: True where certainly not a byte of the request left this machine.
    """

    code = "fetch_failed"
    transient = False
    unsent = False


# --- A CoAP exchange, its peer, or the way to it. ---


class CoapError(TwistedNetError):
    """A CoAP request got no answer that its caller can use."""

    code = "coap_failed"


# --- The wire is broken: the connection is closed. ---


class ProtocolError(TwistedNetError):
    """What came is not of the protocol; nothing that follows it can be understood."""

    code = "protocol_error"


class BadProxyHeader(ProtocolError):
    """A connection does not begin with a header of the PROXY protocol that can be used."""

    code = "bad_proxy_header"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a PROXY header: {reason}")
        self.reason = reason


# --- The operator. ---


class ConfigError(TwistedNetError):
    """
    The configuration cannot be used.

    :param mistakes: one line each, in the order found; never empty.
    """

    code = "bad_configuration"

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class CannotListen(ConfigError):
    """
    An address is taken, is not of this machine, or may not be used.

    :param address: host and port, as they are written together.
    :param transport: ``tcp`` or ``udp``.
    :param reason: the operating system's.
    """

    code = "cannot_listen"

    def __init__(self, address: str, transport: str, reason: str) -> None:
        super().__init__([f"cannot listen on {address} ({transport}): {reason}"])
        self.address = address
        self.transport = transport
        self.reason = reason


class CannotStart(SystemExit, Exception):
    """
    Ends a start: the mistakes on standard error, a line each, and status 1.

    As a :exc:`SystemExit` it passes every launcher without a traceback. As an :exc:`Exception`
    it is what twistd waits for to remove its pid file and to tell the parent of a daemon.
    """
