"""HTTP errors: the ways in which a call of the client fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from twisted_net.errors import FetchError
from twisted_net.net.characters import printable
from twisted_net.net.redaction import redact_url


class UrlNamed:
    """
    An error of one request, whose message begins with the URL once that is known.

    It is for what calls of :class:`~twisted_net.http.client.Client` and requests of
    :class:`~twisted_net.http.agent.HTTPAgent` fail with. No exception by itself: it is beside
    ``FetchError``.
    """

    args: tuple[Any, ...]  # Any: as of exceptions
    _url = ""

    @property
    def url(self) -> str:
        """The URL of the request, after redirects, without secrets; "" if it is not known."""
        return printable(redact_url(self._url))

    @property
    def message(self) -> str:
        """The message without the URL."""
        return str(self.args[0])

    def name_url(self, url: str) -> None:
        """Note the URL of the request; if it is known already, do nothing."""
        # As it is: what many callers fail with is rarely shown, and the rest would be for nothing.
        self._url = self._url or url

    @override
    def __str__(self) -> str:
        return f"{self.url}: {self.message}" if self._url else self.message

    def details(self) -> dict[str, object]:
        """Return the members of an error answer besides ``error`` and ``code``."""
        return {"url": self.url} if self._url else {}


def name_url(error: object, url: str) -> None:
    """Let an error name the URL of its request, if it is of a class that does."""
    if isinstance(error, UrlNamed):
        error.name_url(url)


class InvalidURL(FetchError):
    """The URL cannot be requested: it is malformed, or in a form that is refused."""

    code = "invalid_url"
    unsent = True

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot request {url}: {reason}")
        self.url = url
        self.reason = reason


class AddressRefused(FetchError):
    """
    The egress policy forbids this destination.

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
    """The look-up of the host name found no address, or failed."""

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


class OutOfResources(FetchError):
    """
    This machine lacks what a connection takes: file descriptors, memory or local ports.

    It says nothing of the server, and is not retried: retries would need the same.

    :param reason: as the operating system says it.
    """

    code = "out_of_resources"
    unsent = True

    def __init__(self, reason: str) -> None:
        super().__init__(f"no connection can be made from here: {reason}")


class LookupsBusy(FetchError):
    """
    Too many names wait to be looked up; this one was not.

    It is not retried, which would add to them.

    :param host: whose address is not known.
    """

    code = "lookups_busy"
    unsent = True

    def __init__(self, host: str) -> None:
        super().__init__(f"too many names wait to be looked up before {host}; try again later")
        self.host = host

    def details(self) -> dict[str, object]:
        return {"host": self.host}


class ProxyFailed(FetchError):
    """
    The proxy cannot be reached, or refuses the request.

    Neither the message nor the details name the proxy: clients who see them need not know it.

    :param host: of the URL.
    :param status: of the proxy's response; None if there was no valid response.
    :param unsent: whether the request itself was not sent, but at most one for a tunnel.
    """

    code = "proxy_failed"

    def __init__(
        self, host: str, reason: str, *, status: int | None = None, unsent: bool = True
    ) -> None:
        super().__init__(f"cannot reach {host} through the proxy: {reason}")
        self.host = host
        self.status = status
        self.transient = status in (None, 502, 503, 504)
        self.unsent = unsent

    def details(self) -> dict[str, object]:
        return {"host": self.host, "status": self.status}


class TLSFailed(FetchError):
    """The TLS handshake failed: usually the certificate is not trusted or is for another host."""

    code = "tls_failed"

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"no secure connection to {host}: {reason}")
        self.host = host

    def details(self) -> dict[str, object]:
        return {"host": self.host}


class FetchTimeout(UrlNamed, FetchError):
    """
    A time limit was exceeded.

    :param phase: what the call waited for: ``queue`` (a slot for a request to a busy origin),
        ``connect``, ``headers``, ``body``, ``retry`` (the wait between two attempts), or ``hook``
        (a function of the user).
    :param limit: seconds.
    :param total: whether the limit is that of the whole call, and not of this phase alone.
    :param waited: for how many seconds of it the server alone was waited for; by default all.
    """

    code = "fetch_timeout"

    def __init__(
        self, phase: str, limit: float, *, total: bool = False, waited: float | None = None
    ) -> None:
        covers = "the whole call" if total else "this phase"
        super().__init__(
            f"time ran out while waiting for {phase} (limit for {covers}: {limit:g} s)"
        )
        self.phase = phase
        self.limit = limit
        self.total = total
        self.waited = limit if waited is None else waited
        # A retry would join the end of a queue that is too slow already, and make it longer.
        self.transient = not total and phase != "queue"
        self.unsent = phase in ("queue", "connect")

    def details(self) -> dict[str, object]:
        return {
            **super().details(),
            "phase": self.phase,
            "limit": self.limit,
            "total": self.total,
        }


class ConnectionBroken(UrlNamed, FetchError):
    """
    The connection ended before the response was complete.

    :param phase: what the call waited for: ``headers`` or ``body``.
    """

    code = "connection_broken"
    transient = True

    def __init__(self, phase: str, reason: str) -> None:
        super().__init__(f"the connection ended while waiting for {phase}: {reason}")
        self.phase = phase

    def details(self) -> dict[str, object]:
        return {**super().details(), "phase": self.phase}


class BadResponse(UrlNamed, FetchError):
    """The server's response violates HTTP."""

    code = "bad_response"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the server's response cannot be used: {reason}")


class BodyTooLarge(UrlNamed, FetchError):
    """
    The response body exceeds the limit.

    :param limit: bytes.
    :param decoded: whether it is the decompressed body that exceeds it.
    """

    code = "body_too_large"

    def __init__(self, limit: int, *, decoded: bool = False) -> None:
        what = "decompressed response body" if decoded else "response body"
        super().__init__(f"the {what} is larger than {limit} bytes")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {**super().details(), "limit": self.limit}


class BodyItemTooLong(FetchError):
    """
    A line or an event of a streamed response exceeds the limit.

    :param item: ``line`` or ``event``.
    :param limit: characters of a line, or bytes of an event.
    """

    code = "body_item_too_long"

    def __init__(self, item: str, limit: int) -> None:
        units = "characters" if item == "line" else "bytes"
        article = "a" if item == "line" else "an"
        super().__init__(f"the response has {article} {item} of more than {limit} {units}")
        self.item = item
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"item": self.item, "limit": self.limit}


class BodyMismatch(FetchError):
    """The response body is not JSON, or does not fit the requested type."""

    code = "body_mismatch"


class BadStatus(FetchError):
    """
    The status of the response is not one of success, which its caller requires.

    :param status: such as 404.
    :param reason: the reason phrase, which may be empty.
    :param url: without credentials.
    :param headers: the response's header fields.
    :param excerpt: the beginning of the response body, as text.
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


class TooManyRedirects(UrlNamed, FetchError):
    """A chain of redirects exceeds the limit."""

    code = "too_many_redirects"

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} redirects")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {**super().details(), "limit": self.limit}


class OriginBusy(FetchError):
    """
    The limits of running and waiting requests to this origin are reached; this one was not sent.

    :param host: of the origin.
    :param running: requests that run.
    :param waiting: requests that wait.
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
    The circuit breaker of this origin is open: too many requests to it have failed.

    It is not retried, which is the purpose of the breaker.

    :param host: of the origin.
    :param seconds: until the next request is allowed.
    """

    code = "circuit_open"
    unsent = True

    def __init__(self, host: str, seconds: float) -> None:
        super().__init__(
            f"{host} has failed too often; no request is sent to it for {seconds:.3g} more seconds"
        )
        self.host = host
        self.seconds = seconds

    def details(self) -> dict[str, object]:
        return {"host": self.host, "retry_in": round(self.seconds, 3)}


class ClientClosed(FetchError):
    """The HTTP client was closed before or during this request."""

    code = "client_closed"

    def __init__(self) -> None:
        super().__init__("the HTTP client is closed")
