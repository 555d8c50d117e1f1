"""The sockets of a CoAP client: one for each family of addresses, and one for each DTLS session."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.coap.codec import CoapMessage
from twisted_net.coap.exchange import Event, MessageFailed, OutgoingMessage, ResponseReceived
from twisted_net.coap.messages import MessageLayer
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.coap.uris import Target
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source

if TYPE_CHECKING:
    # OpenSSL takes a tenth of a second to import, and is needed for coaps alone.
    from OpenSSL import SSL

    from twisted_net.dtls.client import DtlsClient

_LONGEST_DATAGRAM = 65_535


class Endpoint(DatagramProtocol):
    """
    One socket, with its message layer.

    :ivar waiting: for each message of ours under way, who is told of its answer or its failure.
    :ivar heard: when a datagram came last.
    """

    noisy = False

    def __init__(
        self, reactor: Any, settings: TransmissionParameters
    ) -> None:  # Any: it is many interfaces
        self._reactor = reactor
        self.layer = MessageLayer(settings, secrets.randbelow(65_536))
        self.waiting: dict[OutgoingMessage, Callable[[CoapMessage | CoapError], None]] = {}
        self.port: Any = None  # Any: IListeningPort leaves its host untyped
        self.heard = float("-inf")
        self._timer: IDelayedCall | None = None
        self._wake = 0.0

    @property
    def max_payload(self) -> int:
        """Bytes of the longest message that can be sent."""
        return _LONGEST_DATAGRAM

    @override
    def datagramReceived(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        source: Source = addr[0], addr[1]
        self.heard = self._reactor.seconds()
        self._tell(self.layer.receive(datagram, source, self.heard))
        self.flush()

    @override
    def stopProtocol(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def flush(self) -> None:
        """Write what is due, and set the timer."""
        transport = self.transport
        if transport is None:
            return
        for datagram, source in self.layer.messages_to_send():
            transport.write(datagram, source)
        due = self.layer.next_timeout()
        # A write may have been the end of a DTLS session, and so of the transport.
        if due is None or self.transport is None or (self._timer is not None and due >= self._wake):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wake = due
        delay = max(0.0, due - self._reactor.seconds())
        self._timer = self._reactor.callLater(delay, self._advance)

    def silent_since(self, outgoing: OutgoingMessage) -> bool:
        """Tell whether a message was sent more than once, and nothing at all has come since."""
        return outgoing.retransmissions > 0 and self.heard < outgoing.sent_at

    def fail(self, error: CoapError) -> None:
        """Tell all that wait that nothing will come."""
        waiting, self.waiting = self.waiting, {}
        for tell in waiting.values():
            tell(error)

    def close(self) -> Deferred[None]:
        """Close the socket."""
        return maybeDeferred(self.port.stopListening)

    def _advance(self) -> None:
        self._timer = None
        self._tell(self.layer.advance(self._reactor.seconds()))
        self.flush()

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ResponseReceived | MessageFailed):
                outgoing = event.outgoing
                kept = outgoing.observing and isinstance(event, ResponseReceived)
                tell = self.waiting.get(outgoing) if kept else self.waiting.pop(outgoing, None)
                if tell is not None:
                    tell(event.message if isinstance(event, ResponseReceived) else event.error)


class SecureEndpoint(Endpoint):
    """
    One DTLS session, with its message layer.

    :ivar dtls: the layer below; it becomes the transport once the server is the right one.
    """

    dtls: DtlsClient

    @property
    @override
    def max_payload(self) -> int:
        return self.dtls.max_payload

    @override
    def close(self) -> Deferred[None]:
        self.dtls.close()
        return super().close()


_Key = tuple[str, str, int]


class Endpoints:
    """
    Finds or makes the socket by which a target is reached.

    A DTLS session serves all requests to one name, address and port. Over ``max_sessions`` the one
    not used for longest is ended, once what is under way in it has ended.

    :param reactor: one that has UDP and time.
    :param tls: whom to believe, for ``coaps``; the system's authorities where None is given.
    :raises ConfigError: for files of *tls* that cannot be used.
    """

    def __init__(
        self,
        reactor: Any,  # Any: as above
        settings: TransmissionParameters,
        tls: DtlsClientSettings | None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._tls = tls
        self._context = None if tls is None else _new_context(tls)
        self._plain: dict[bool, Endpoint] = {}
        self._secure: OrderedDict[_Key, SecureEndpoint] = OrderedDict()
        self._retired: set[SecureEndpoint] = set()

    def __iter__(self) -> Iterator[Endpoint]:
        """Go through all that there are."""
        return iter([*self._plain.values(), *self._secure.values(), *self._retired])

    async def reach(self, target: Target, address: str) -> Endpoint:
        """
        Give the socket for a target, with DTLS once its handshake is over.

        :param address: of the target's host, numeric.
        :raises DtlsFailed: where there is no session with it.
        """
        if not target.secure:
            return self._plain_endpoint(isIPv6Address(address))
        key = target.host, address, target.port
        endpoint = self._secure.get(key)
        if endpoint is None:
            endpoint = self._connect(key, target.numeric)
        self._secure.move_to_end(key)
        try:
            await endpoint.dtls.connected()
        except CoapError:
            self._forget(endpoint)
            raise
        return endpoint

    def retire(self, endpoint: Endpoint) -> None:
        """
        Use a DTLS session no more: the next request to its server begins another.

        What is under way in it goes on.
        """
        for key, known in self._secure.items():
            if known is endpoint:
                del self._secure[key]
                self._retired.add(known)
                break
        self._end_retired()

    async def close(self) -> None:
        """Close all."""
        endpoints = list(self)
        self._plain.clear()
        self._secure.clear()
        self._retired.clear()
        for endpoint in endpoints:
            await endpoint.close()

    def _plain_endpoint(self, six: bool) -> Endpoint:
        endpoint = self._plain.get(six)
        if endpoint is None:
            endpoint = self._plain[six] = Endpoint(self._reactor, self._settings)
            self._listen(endpoint, endpoint, six)
        return endpoint

    def _connect(self, key: _Key, numeric: bool) -> SecureEndpoint:
        # Not at the top: as above.
        from twisted_net.dtls.client import DtlsClient

        tls = self._tls or DtlsClientSettings()
        if self._context is None:
            self._context = _new_context(tls)
        if len(self._secure) >= tls.max_sessions:
            self.retire(next(iter(self._secure.values())))
        self._end_retired()
        name, address, port = key
        endpoint = SecureEndpoint(self._reactor, self._settings)

        def lost(error: CoapError) -> None:
            self._forget(endpoint)
            endpoint.fail(error)

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

    def _listen(self, endpoint: Endpoint, protocol: DatagramProtocol, six: bool) -> None:
        endpoint.port = self._reactor.listenUDP(
            0, protocol, "::" if six else "0.0.0.0", _LONGEST_DATAGRAM
        )

    def _end_retired(self) -> None:
        for endpoint in [endpoint for endpoint in self._retired if not endpoint.waiting]:
            self._forget(endpoint)

    def _forget(self, endpoint: SecureEndpoint) -> None:
        """Close the socket of a session; its server is told, if it can be."""
        held = [key for key, known in self._secure.items() if known is endpoint]
        for key in held:
            del self._secure[key]
        if held or endpoint in self._retired:
            self._retired.discard(endpoint)
            endpoint.close()


def _new_context(tls: DtlsClientSettings) -> SSL.Context:
    # Not at the top: as above.
    from twisted_net.dtls.session import client_context

    return client_context(tls)
