"""Endpoints of a CoAP client: one socket per address family, and one per DTLS session."""

from __future__ import annotations

import errno
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorFDSet
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.coap import message_ids
from twisted_net.coap.codec import CoapMessage, encode_message
from twisted_net.coap.endpoint import CoapEndpoint
from twisted_net.coap.errors import (
    CoapHostUnreachable,
    QueueFull,
    SecureSessionFailed,
    TransferFailed,
)
from twisted_net.coap.exchange import (
    Event,
    IncomingMessage,
    MessageFailed,
    OutgoingMessage,
    OutgoingState,
    ResponseReceived,
)
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.coap.uris import CoapURI
from twisted_net.dtls.errors import DtlsError
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source
from twisted_net.net.reactor import DatagramReactor
from twisted_net.udp.client_port import ClientPort

if TYPE_CHECKING:
    # OpenSSL takes 0.1 s to import, and only coaps needs it.
    from OpenSSL import SSL

    from twisted_net.dtls.client import DtlsClient

_MAX_DATAGRAM = 65_535
_MAX_PAYLOAD = 65_507  # without the headers of IPv4 and UDP

# With no more options, of 255 bytes each, and one block, any message fits a datagram without DTLS.
_FEW_OPTIONS = 64

_RECEIVE_BUFFER = 106_496  # as Linux has it by default

# The kernel is short of memory for now: the datagram is lost, and retransmitted.
_TRANSIENT_SEND_ERRORS = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


Finish: TypeAlias = Callable[[CoapMessage | CoapError], None]
"""Ends a call, or is told of an observation: with a response, or with the error in its place."""


class WaitingCalls:
    """
    Functions to call with the responses to the outstanding messages of a client.

    They are kept by server: one that cannot be reached ends its own calls, however many wait for
    others.
    """

    def __init__(self) -> None:
        self._by_server: dict[Source, dict[OutgoingMessage, Finish]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_server.values()))

    def __bool__(self) -> bool:
        return bool(self._by_server)

    def __contains__(self, outgoing: OutgoingMessage) -> bool:
        return self.get(outgoing) is not None

    def add(self, outgoing: OutgoingMessage, finish: Finish) -> None:
        """Add the function for a message."""
        self._by_server.setdefault(outgoing.source, {})[outgoing] = finish

    def get(self, outgoing: OutgoingMessage) -> Finish | None:
        """Return the function of a message, or None if nothing waits for it."""
        of_server = self._by_server.get(outgoing.source)
        return None if of_server is None else of_server.get(outgoing)

    def pop(self, outgoing: OutgoingMessage) -> Finish | None:
        """Remove the function of a message and return it, or None."""
        of_server = self._by_server.get(outgoing.source)
        if of_server is None:
            return None
        finish = of_server.pop(outgoing, None)
        if not of_server:
            del self._by_server[outgoing.source]
        return finish

    def at(self, server: Source) -> list[OutgoingMessage]:
        """Return the messages to one server, oldest first."""
        return list(self._by_server.get(server, ()))

    def pop_all(self) -> list[Finish]:
        """Remove all functions and return them."""
        by_server, self._by_server = self._by_server, {}
        return [finish for of_server in by_server.values() for finish in of_server.values()]


class ClientEndpoint(CoapEndpoint):
    """
    A socket of a CoAP client.

    :ivar waiting: the calls that wait for responses.
    :ivar last_received: when a datagram arrived last.
    """

    def __init__(self, reactor: DatagramReactor, parameters: TransmissionParameters) -> None:
        first_id = secrets.randbelow(message_ids.COUNT)
        # Whoever sends to a client takes no room: only requests of ours make a peer of a server.
        super().__init__(reactor, parameters, first_id, admits=lambda source, now: False)
        self.waiting = WaitingCalls()
        self.port: IListeningPort | None = None
        self.last_received = float("-inf")
        self._rejection: tuple[Source, CoapHostUnreachable] | None = None

    @property
    def max_payload(self) -> int:
        """Bytes of the longest message that can be sent."""
        return _MAX_PAYLOAD

    def check_size(self, message: CoapMessage, source: Source) -> None:
        """
        Check that a datagram holds a request.

        :raises TransferFailed: if it is too long: the transport would refuse it at each
            retransmission, too.
        """
        if self.max_payload == _MAX_PAYLOAD and len(message.options) <= _FEW_OPTIONS:
            return
        size = len(encode_message(message))
        if size > self.max_payload:
            raise TransferFailed(
                f"the message has {size} bytes; a datagram to {source[0]} holds {self.max_payload}"
            )

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self.last_received = self._seconds()
        # Twisted's IPv6 addresses have two more members.
        self.receive(datagram, (addr[0], addr[1]))

    def report(self, message: CoapMessage, source: Source) -> None:
        """
        Send a non-confirmable request that nothing answers.

        :raises CoapHostUnreachable: if the kernel cannot send it.
        :raises QueueFull: if so many were sent of late that no message ID is free.
        """
        if not self.layer.send_untracked(message, source, self._seconds()):
            raise QueueFull(message_ids.COUNT)
        self._take_rejection()
        self.flush()
        rejection = self._take_rejection()
        # Sending it may have told of another port of the same host, too.
        if rejection is not None and rejection[0] == source:
            raise rejection[1]

    def _take_rejection(self) -> tuple[Source, CoapHostUnreachable] | None:
        """Return the last error of the kernel and the address that it is of, once."""
        rejection, self._rejection = self._rejection, None
        return rejection

    def silent_since(self, outgoing: OutgoingMessage) -> bool:
        """Whether a message was retransmitted, and no datagram has arrived since it was sent."""
        return outgoing.retransmissions > 0 and self.last_received <= outgoing.sent_at

    def fail(self, error: CoapError) -> None:
        """End the wait for all outstanding responses with an error."""
        for finish in self.waiting.pop_all():
            finish(error)

    def close(self) -> Deferred[object]:
        """Close the socket."""
        assert self.port is not None
        return maybeDeferred(self.port.stopListening)

    @override
    def _handle_event(self, event: Event, now: float) -> None:
        if isinstance(event, ResponseReceived):
            outgoing = event.outgoing
            if outgoing.observing:
                finish = self.waiting.get(outgoing)
            else:
                finish = self.waiting.pop(outgoing)
            if finish is not None:
                finish(event.message)
        elif isinstance(event, MessageFailed):
            finish = self.waiting.pop(event.outgoing)
            if finish is not None:
                finish(event.error)
        elif isinstance(event, IncomingMessage):
            # A client has no resources. Left unanswered, requests would be kept without a limit.
            self.layer.reject(event)

    def refused(self, source: Source) -> None:
        """Fail the requests to an address and port at which nobody listens, as ICMP says."""
        self._datagram_rejected(
            source, OSError(errno.ECONNREFUSED, f"nobody listens at port {source[1]}")
        )

    @override
    def _datagram_rejected(self, source: Source, error: OSError) -> None:
        if error.errno in _TRANSIENT_SEND_ERRORS:
            return
        failure = CoapHostUnreachable(source[0], error.strerror or str(error))
        self._rejection = source, failure
        now = self._seconds()
        # Last first: queued messages are not sent when the one before them ends.
        for outgoing in reversed(self.waiting.at(source)):
            # An observation that was accepted outlives a network that is away for a while.
            if outgoing.state < OutgoingState.DONE:
                finish = self.waiting.pop(outgoing)
                self.layer.cancel(outgoing, now)
                if finish is not None:
                    finish(failure)


class DtlsEndpoint(ClientEndpoint):
    """
    A DTLS session of a CoAP client.

    :ivar dtls: the layer below, which is the transport once the server is authenticated.
    """

    dtls: DtlsClient

    @property
    @override
    def max_payload(self) -> int:
        return self.dtls.max_payload

    @override
    def close(self) -> Deferred[object]:
        self.dtls.close()
        return super().close()


_Key = tuple[str, str, int]


class EndpointPool:
    """
    Endpoints of a client by the addresses that they reach; opens them when needed.

    A DTLS session serves all requests to one name, address and port. Over ``max_sessions`` the
    least recently used one is closed, once its outstanding requests have ended.

    :param tls: certificates and their verification for ``coaps``; without them, those of the
        system.
    :raises ConfigError: if files of *tls* cannot be used.
    """

    def __init__(
        self,
        reactor: DatagramReactor,
        parameters: TransmissionParameters,
        tls: DtlsClientSettings | None,
    ) -> None:
        self._reactor = reactor
        self._parameters = parameters
        self._tls = tls
        self._context = None if tls is None else _new_context(tls)
        self._plain: dict[bool, ClientEndpoint] = {}
        self._secure: OrderedDict[_Key, DtlsEndpoint] = OrderedDict()
        self._retired: set[DtlsEndpoint] = set()

    def __iter__(self) -> Iterator[ClientEndpoint]:
        """Iterate over all endpoints; opening and closing some meanwhile is safe."""
        return iter([*self._plain.values(), *self._secure.values(), *self._retired])

    async def reach(self, uri: CoapURI, address: str) -> ClientEndpoint:
        """
        Return the endpoint for a URI; with DTLS, once its handshake is complete.

        :param address: IP address of the URI's host.
        :raises SecureSessionFailed: if no DTLS session can be established.
        """
        if not uri.secure:
            return self._plain_endpoint(isIPv6Address(address))
        key = uri.host, address, uri.port
        endpoint = self._secure.get(key)
        if endpoint is None:
            endpoint = self._connect(key, uri.numeric)
        self._secure.move_to_end(key)
        try:
            await endpoint.dtls.connected()
        except DtlsError as error:
            self._close(endpoint)
            raise SecureSessionFailed(error) from error
        return endpoint

    def retire(self, endpoint: ClientEndpoint) -> None:
        """
        Use a DTLS session for no further request: the next one opens a new session.

        Outstanding requests in it continue.
        """
        for key, known in self._secure.items():
            if known is endpoint:
                del self._secure[key]
                self._retired.add(known)
                break
        self._close_retired()

    async def close(self) -> None:
        """Close all endpoints."""
        endpoints = list(self)
        self._plain.clear()
        self._secure.clear()
        self._retired.clear()
        for endpoint in endpoints:
            await endpoint.close()

    def _plain_endpoint(self, ipv6: bool) -> ClientEndpoint:
        endpoint = self._plain.get(ipv6)
        if endpoint is None:
            endpoint = self._plain[ipv6] = ClientEndpoint(self._reactor, self._parameters)
            self._listen(endpoint, endpoint, ipv6)
        return endpoint

    def _connect(self, key: _Key, numeric: bool) -> DtlsEndpoint:
        # Not at the top, because of OpenSSL.
        from twisted_net.dtls.client import DtlsClient

        tls = self._tls or DtlsClientSettings()
        if self._context is None:
            self._context = _new_context(tls)
        if len(self._secure) >= tls.max_sessions:
            self.retire(next(iter(self._secure.values())))
        self._close_retired()
        name, address, port = key
        endpoint = DtlsEndpoint(self._reactor, self._parameters)

        def lost(error: DtlsError) -> None:
            self._close(endpoint)
            endpoint.fail(SecureSessionFailed(error))

        endpoint.dtls = DtlsClient(
            self._reactor,
            endpoint,
            self._context,
            tls,
            (address, port),
            name,
            numeric,
            lost,
        )
        self._listen(endpoint, endpoint.dtls, isIPv6Address(address))
        self._secure[key] = endpoint
        return endpoint

    def _listen(self, endpoint: ClientEndpoint, protocol: DatagramProtocol, ipv6: bool) -> None:
        reactor, interface = self._reactor, "::" if ipv6 else "0.0.0.0"
        if not IReactorFDSet.providedBy(reactor):
            endpoint.port = reactor.listenUDP(0, protocol, interface, _MAX_DATAGRAM)
            return
        # Twisted's own port reads 256 KiB in a turn, and empty datagrams without an end.
        port = ClientPort(
            0, protocol, interface, _MAX_DATAGRAM, reactor, receive_buffer=_RECEIVE_BUFFER
        )
        if protocol is endpoint:
            # One of DTLS is connected, and hears it without.
            port.refused = endpoint.refused
        port.startListening()
        endpoint.port = port

    def _close_retired(self) -> None:
        for endpoint in [endpoint for endpoint in self._retired if not endpoint.waiting]:
            self._close(endpoint)

    def _close(self, endpoint: DtlsEndpoint) -> None:
        """Close a session and its socket, if it is still open; the server is notified."""
        keys = [key for key, known in self._secure.items() if known is endpoint]
        for key in keys:
            del self._secure[key]
        if keys or endpoint in self._retired:
            self._retired.discard(endpoint)
            endpoint.close()


def _new_context(tls: DtlsClientSettings) -> SSL.Context:
    # Not at the top, because of OpenSSL.
    from twisted_net.dtls.session import client_context

    return client_context(tls)
