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
    """The server holds as many connections as it may; this one is closed."""

    code = "too_many_connections"

    def __init__(self, limit: int) -> None:
        super().__init__(f"too many connections: this server takes {limit}")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


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


class Internal(CommandError):
    """A handler failed in a way that it did not foresee; the log has the traceback."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("internal error; the server's log tells more")


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

    :param phase: what was waited for: ``connect``, ``headers``, ``body``, or ``retry`` (the wait
        between two attempts).
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
        self.transient = not total
        self.unsent = phase == "connect"

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


class ClientClosed(FetchError):
    """The HTTP client was closed before, or while, this request was made."""

    code = "client_closed"

    def __init__(self) -> None:
        super().__init__("the HTTP client is closed")


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
