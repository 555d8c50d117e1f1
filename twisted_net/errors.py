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
    """A command was refused. Handlers raise it, or a leaf of their own, to answer with an error."""

    code = "refused"


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


class InvalidURL(FetchError):
    """The URL cannot be requested: it is malformed, or of a form that is refused."""

    code = "invalid_url"
    unsent = True

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot request {url}: {reason}")
        self.url = url
        self.reason = reason


class AddressRefused(FetchError):
    """
    The reach policy forbids this destination.

    :param host: as the URL names it.
    :param reason: which rule forbids it.
    """

    code = "address_refused"
    unsent = True

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} may not be reached: {reason}")
        self.host = host
        self.reason = reason

    def details(self) -> dict[str, object]:
        return {"host": self.host}


class NameNotFound(FetchError):
    """The host name has no address, or none that could be found out now."""

    code = "name_not_found"
    transient = True
    unsent = True

    def __init__(self, host: str) -> None:
        super().__init__(f"no address found for {host}")
        self.host = host

    def details(self) -> dict[str, object]:
        return {"host": self.host}


class CannotConnect(FetchError):
    """No connection could be made to any address of the host."""

    code = "cannot_connect"
    transient = True
    unsent = True

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot connect to {host} port {port}: {reason}")
        self.host = host
        self.port = port

    def details(self) -> dict[str, object]:
        return {"host": self.host, "port": self.port}


class TLSFailed(FetchError):
    """The TLS handshake failed: most often the certificate is not trusted or not this host's."""

    code = "tls_failed"

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"no secure connection to {host}: {reason}")
        self.host = host

    def details(self) -> dict[str, object]:
        return {"host": self.host}


class FetchTimeout(FetchError):
    """
    The time allowed ran out.

    :param phase: what was waited for: ``queue`` (the turn of a request to a busy origin),
        ``connect``, ``headers``, ``body``, or ``retry`` (the wait between two attempts).
    :param limit: seconds.
    :param total: True where the limit covers the whole call, and not this phase alone.
    """

    code = "fetch_timeout"

    def __init__(self, phase: str, limit: float, *, total: bool = False) -> None:
        covers = "the whole call" if total else "this phase"
        super().__init__(
            f"time ran out while waiting for {phase} (limit for {covers}: {limit:g} s)"
        )
        self.phase = phase
        self.limit = limit
        self.total = total
        # Another place at the end of a queue that was too slow would make it longer.
        self.transient = not total and phase != "queue"
        self.unsent = phase in ("queue", "connect")

    def details(self) -> dict[str, object]:
        return {"phase": self.phase, "limit": self.limit, "total": self.total}


class ConnectionBroken(FetchError):
    """
    The connection ended before the response was whole.

    :param phase: ``headers`` or ``body``: what was being waited for.
    """

    code = "connection_broken"
    transient = True

    def __init__(self, phase: str, reason: str) -> None:
        super().__init__(f"the connection ended while waiting for {phase}: {reason}")
        self.phase = phase

    def details(self) -> dict[str, object]:
        return {"phase": self.phase}


class BadResponse(FetchError):
    """What the server sent is not a response that HTTP allows."""

    code = "bad_response"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the server's response cannot be used: {reason}")


class BodyTooLarge(FetchError):
    """
    The response body passes the limit.

    :param limit: bytes.
    :param decoded: True where it is the decompressed body that passes it.
    """

    code = "body_too_large"

    def __init__(self, limit: int, *, decoded: bool = False) -> None:
        what = "decompressed response body" if decoded else "response body"
        super().__init__(f"the {what} is larger than {limit} bytes")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class BodyMismatch(FetchError):
    """The response body is not JSON, or does not fit the type that was asked for."""

    code = "body_mismatch"


class BadStatus(FetchError):
    """
    The status of the response is not the success that its caller asked for.

    :param status: such as 404.
    :param reason: the reason phrase, which may be empty.
    :param url: without credentials.
    :param headers: the response's header fields.
    :param excerpt: the start of the response body, as text.
    """

    code = "bad_status"

    def __init__(
        self, status: int, reason: str, url: str, headers: Mapping[str, str], excerpt: str
    ) -> None:
        super().__init__(f"{url} answered {status} {reason}".rstrip())
        self.status = status
        self.reason = reason
        self.url = url
        self.headers = headers
        self.excerpt = excerpt

    def details(self) -> dict[str, object]:
        return {"status": self.status, "excerpt": self.excerpt}


class TooManyRedirects(FetchError):
    """One redirect led to the next, more often than is allowed."""

    code = "too_many_redirects"

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} redirects")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class OriginBusy(FetchError):
    """
    As many requests to this origin run and wait as may; this one was not begun.

    :param host: of the origin.
    :param running: requests that run; :param waiting: that wait.
    """

    code = "origin_busy"
    unsent = True

    def __init__(self, host: str, running: int, waiting: int) -> None:
        super().__init__(
            f"{running} requests to {host} are running and {waiting} are waiting; try again later"
        )
        self.host = host

    def details(self) -> dict[str, object]:
        return {"host": self.host}


class CircuitOpen(FetchError):
    """
    So many requests to this origin failed that it is left alone for a while.

    It is not retried: that is what it is for.

    :param host: of the origin.
    :param seconds: until a request may be tried again.
    """

    code = "circuit_open"
    unsent = True

    def __init__(self, host: str, seconds: float) -> None:
        super().__init__(
            f"{host} has failed too often and is left alone for {seconds:.3g} more seconds"
        )
        self.host = host
        self.seconds = seconds

    def details(self) -> dict[str, object]:
        return {"host": self.host, "retry_in": round(self.seconds, 3)}


class ClientClosed(FetchError):
    """The HTTP client was closed before, or while, this request was made."""

    code = "client_closed"

    def __init__(self) -> None:
        super().__init__("the HTTP client is closed")


# --- A CoAP exchange, its peer, or the way to it. ---


class CoapError(TwistedNetError):
    """A CoAP request got no answer that its caller can use."""

    code = "coap_failed"


class MalformedMessage(CoapError):
    """
    A datagram is not a CoAP message, or an option in it is not as its definition says.

    :ivar rejected: the message ID that a Reset may answer (RFC 7252 §4.2), or None where the
        datagram must be ignored in silence.
    """

    code = "coap_malformed"

    def __init__(self, reason: str, rejected: int | None = None) -> None:
        super().__init__(f"not a CoAP message: {reason}")
        self.rejected = rejected


class InvalidCoapURI(CoapError):
    """The URI cannot be requested over CoAP: another scheme, no host, a part that is too long."""

    code = "coap_invalid_uri"

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"cannot request {uri}: {reason}")
        self.uri = uri


class CoapHostNotFound(CoapError):
    """The host of a coap URI has no address."""

    code = "coap_host_not_found"

    def __init__(self, host: str) -> None:
        super().__init__(f"no address found for {host}")
        self.host = host


class PeerSilent(CoapError):
    """
    The peer did not acknowledge a message, or did not answer a request, within its time.

    :param seconds: how long it was waited for.
    """

    code = "coap_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the peer gave no answer within {seconds:.3g} seconds")
        self.seconds = seconds


class ResetByPeer(CoapError):
    """The peer rejected a message with a Reset: it has no use for it, or has forgotten us."""

    code = "coap_reset"

    def __init__(self) -> None:
        super().__init__("the peer rejected the message (Reset)")


class QueueFull(CoapError):
    """As many messages wait for their turn with this peer, or with all, as may."""

    code = "coap_queue_full"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} messages are waiting already; try again later")
        self.limit = limit


class TransferFailed(CoapError):
    """A block-wise transfer (RFC 7959) broke off, or its body passes the limit."""

    code = "coap_transfer_failed"


class UnexpectedCode(CoapError):
    """
    The code of a response is not the success that its caller asked for.

    :param status: as people write it: ``4.04 Not Found``.
    :param diagnostic: the start of what the server says about it; may be empty.
    """

    code = "coap_unexpected_code"

    def __init__(self, status: str, diagnostic: str) -> None:
        super().__init__(f"the server answered {status} {diagnostic}".rstrip())
        self.status = status
        self.diagnostic = diagnostic


class CoapClientClosed(CoapError):
    """The CoAP client was closed before, or while, this request was made."""

    code = "coap_client_closed"

    def __init__(self) -> None:
        super().__init__("the CoAP client is closed")


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
