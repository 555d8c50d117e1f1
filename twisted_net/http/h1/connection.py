"""One HTTP connection: sends a request, reads the response in the turns of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from typing_extensions import override

from twisted_net.errors import FetchError
from twisted_net.http.agent_layer import AgentRequest
from twisted_net.http.bodies import BodyWatchdog, BufferedResponse
from twisted_net.http.errors import BadResponse
from twisted_net.http.per_origin import Origin
from twisted_net.http.proxies import Proxy
from twisted_net.http.response_parser import HeadLimit, parse_complete_response
from twisted_net.http.urls import HttpTarget
from twisted_net.turns.paced_reads import LineCutter, PacedReads, PacedTransport
from twisted_net.twisted_internals import ClientRequest, HTTP11ClientProtocol, http_client_changes

if TYPE_CHECKING:
    from twisted_net.http.connector import ConnectionPool

# As Headers.getAllRawHeaders() spells them.
_FRAMING = (b"Content-Length", b"Transfer-Encoding")

_PARSER_IS_KNOWN = not http_client_changes()


class HttpConnection(HTTP11ClientProtocol):
    """
    One connection to a server. It reports to its pool when it is idle and when it is lost.

    A response that is not complete in one read is parsed piece by piece, in turn with all others
    (:mod:`twisted_net.turns.paced_reads`).

    :ivar holds_slot: whether it holds the slot of a request, which the pool releases when the
        connection is idle or lost.
    :ivar abort_reason: why it was dropped, if it was for what the server sent.
    :ivar watchdog: enforces the limits of the response that is being received.
    :ivar proxy: the proxy that gets whole requests; None where they are sent to the server itself,
        directly or in a tunnel.
    """

    def __init__(
        self, pool: ConnectionPool, origin: Origin, max_head: int, proxy: Proxy | None = None
    ) -> None:
        HTTP11ClientProtocol.__init__(self, self._became_idle)
        self._pool = pool
        self._max_head = max_head
        self._head: HeadLimit | None = None
        # The request that waits for the first bytes of its response, which Twisted's parser does
        # not know of yet; and what the parser does for it afterwards.
        self._waiting: Deferred[IResponse] | None = None
        self._parsing: Deferred[IResponse] | None = None
        self._sent: tuple[bytes, bytes, Headers] | None = None
        self.origin = origin
        self.proxy = proxy
        self.holds_slot = False
        self.abort_reason: FetchError | None = None
        self.watchdog: BodyWatchdog | None = None

    @override
    def makeConnection(self, transport: ITransport) -> None:
        pace, cutter = self._pool.pace, LineCutter()
        self._reads = PacedReads(pace, cast(Any, transport), cutter, self._parse, self._lost)
        paced = cast(ITransport, PacedTransport(transport, self._reads))
        Protocol.makeConnection(self, paced)

    @override
    def connectionMade(self) -> None:
        super().connectionMade()
        self._pool.add(self)

    def send_request(self, request: AgentRequest, target: HttpTarget) -> Deferred[IResponse]:
        """
        Send a request to *target*; the result is that of :meth:`request`.

        A missing ``Host`` is added, and framing fields are replaced by those of the body.
        The response to a GET that arrives complete in one read is a
        :class:`~twisted_net.http.bodies.BufferedResponse`, without the work of Twisted's parser.
        """
        method, headers = request.method, request.headers
        proxy = self.proxy
        path = (target.path if proxy is None else target.url).encode()
        if proxy is not None and proxy.authorization is not None:
            headers = headers.copy()
            headers.setRawHeaders(b"proxy-authorization", [proxy.authorization.encode()])
        if request.producer is not None or method != b"GET" or not _PARSER_IS_KNOWN:
            framed = _framed(headers, target)
            return self.request(
                ClientRequest(method, path, framed, request.producer, persistent=True)
            )
        lines = [b"GET ", path, b" HTTP/1.1\r\n"]
        if not headers.hasHeader(b"host"):
            lines += (b"Host: ", target.authority.encode(), b"\r\n")
        for name, values in headers.getAllRawHeaders():
            if name not in _FRAMING:
                for value in values:
                    lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        self._sent = (method, path, headers)
        self._parsing = None
        waiting: Deferred[IResponse] = Deferred(self._cancel_request)
        self._waiting = waiting
        cast(ITransport, self.transport).write(b"".join(lines))
        return waiting

    def _cancel_request(self, _: Deferred[IResponse]) -> None:
        if self._parsing is not None:
            self._parsing.cancel()
        else:
            self._waiting = None
            self.abort_connection()

    def _parse_at_once(self, data: bytes) -> bool:
        """Take a response that arrives complete; return whether it does."""
        parsed = parse_complete_response(data, self._max_head)
        if parsed is None:
            return False
        response, waiting = BufferedResponse(parsed), self._waiting
        assert waiting is not None
        self._waiting = self._sent = None
        self._became_idle(self)
        waiting.callback(response)
        return True

    def _begin_to_parse(self) -> None:
        """Let Twisted's parser know the request whose response has begun to arrive."""
        waiting, sent = self._waiting, self._sent
        assert waiting is not None
        assert sent is not None
        self._waiting = self._sent = None
        method, path, headers = sent
        # Any: Twisted's Request has no types.
        request: ClientRequest = cast(Any, _SentRequest)(
            method, path, headers, None, persistent=True
        )
        self._parsing = self.request(request)
        self._parsing.chainDeferred(waiting)

    @override
    def request(self, request: ClientRequest) -> Deferred[IResponse]:
        head = self._head = HeadLimit(self._max_head)
        receiving = super().request(request)
        parser: Any = self._parser  # Any: it has no types

        def head_received(result: IResponse | Failure) -> IResponse | Failure:
            if self._head is head:
                self._head = None
            lines = [] if parser is None else parser.connHeaders.getRawHeaders(b"connection", [])
            if lines and not isinstance(result, Failure):
                # Twisted's parser keeps it to itself. A cache has to know which fields it lists.
                result.headers.setRawHeaders(b"connection", lines)
            return result

        return cast("Deferred[IResponse]", receiving.addBoth(head_received))

    @override
    def dataReceived(self, data: bytes) -> None:
        pace = self._pool.pace
        if self._waiting is not None and not (pace.turns.busy or self._reads.pending):
            began = pace.seconds()
            complete = self._parse_at_once(data)
            pace.turns.spend(began, pace.seconds())
            if complete:
                return
        self._reads.received(data)

    def _parse(self, data: bytes) -> None:
        """Parse a piece of what has been received."""
        if self._waiting is not None:
            if not self._reads.pending and self._parse_at_once(data):
                return
            self._begin_to_parse()
        if self.state == "QUIESCENT":
            # No request was sent: an error page before the server closes, or an attack.
            self._pool.drop(self)
            return
        head, rest = self._head, b""
        if head is not None:
            data, rest = head.cut(data)
        HTTP11ClientProtocol.dataReceived(self, data)
        if head is not None and self._head is head:
            # The parser limits a line, but neither the lines of a header nor interim responses.
            try:
                head.check(rest)
            except BadResponse as error:
                self.abort_reason = error
                self.abort_connection()
        elif rest and self._head is None and self.state in ("WAITING", "TRANSMITTING"):
            HTTP11ClientProtocol.dataReceived(self, rest)
        elif rest:
            # The response has ended: these bytes must not be the answer to the next request.
            self._pool.drop(self)
        if self.watchdog is not None:
            self.watchdog.framed(len(data))

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._reads.end(reason)

    def _lost(self, reason: Failure) -> None:
        """The connection is lost, and all that it has received is parsed."""
        # First: a caller that hears of the loss may make its next request at once.
        self._pool.release_slot_of(self)
        HTTP11ClientProtocol.connectionLost(self, reason)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.errback(Failure(ResponseNeverReceived([reason])))
        self._stop_watchdog()
        self._pool.remove(self)

    def start_watchdog(self, watchdog: BodyWatchdog) -> None:
        """Start to enforce the limits of a body, unless it has been received already."""
        if self.state in ("WAITING", "TRANSMITTING"):
            self.watchdog = watchdog
            watchdog.start()

    def abort_response(self, watchdog: BodyWatchdog) -> None:
        """Drop the connection, unless the response of *watchdog* has been received."""
        if self.watchdog is watchdog:
            self.abort_connection()

    def abort_connection(self) -> None:
        """Drop the connection at once: a silent server might never answer a TLS close."""
        cast(Any, self.transport).abortConnection()  # Any: of TCP and TLS, in no common interface

    def _became_idle(self, _: HTTP11ClientProtocol) -> None:
        self._stop_watchdog()
        if self._reads.pending:
            # What follows the response must not be the answer to the next request.
            self._pool.drop(self)
        else:
            self._pool.put_idle(self)

    def _stop_watchdog(self) -> None:
        if self.watchdog is not None:
            self.watchdog.source_done()
            self.watchdog = None


class _SentRequest(ClientRequest):
    """A request that has been sent, for the parser to know which response to expect."""

    @override
    def writeTo(self, transport: ITransport) -> Deferred[None]:
        return succeed(None)


def _framed(headers: Headers, target: HttpTarget) -> Headers:
    """Return a header with ``Host`` and without framing fields, which the body adds itself."""
    framed = headers.copy()
    for name in _FRAMING:
        framed.removeHeader(name)
    if not framed.hasHeader(b"host"):
        framed.setRawHeaders(b"host", [target.authority.encode()])
    return framed
