"""CoAP endpoint (RFC 7252 §1.2): a message layer on a datagram transport, with its timer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.coap.exchange import Event
from twisted_net.coap.messages import MessageLayer
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryLedger
from twisted_net.net.steady_clock import steady


class CoapEndpoint(DatagramProtocol):
    """
    Feeds a message layer with datagrams and time, and writes what it has to send.

    A datagram that the transport rejects does not hold back those after it, nor the timer.

    One delayed call at most runs, for all peers; it ends with the transport.

    :param first_id: as :class:`~twisted_net.coap.messages.MessageLayer` takes it; so are *memory*,
        *relieved* and *admits*.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        parameters: TransmissionParameters,
        first_id: int,
        memory: MemoryLedger | None = None,
        relieved: Callable[[Source], object] | None = None,
        admits: Callable[[Source, float], bool] | None = None,
    ) -> None:
        self._reactor = steady(reactor)
        self._seconds = reactor.seconds
        self.layer = MessageLayer(parameters, first_id, memory, relieved, admits)
        self._timer: IDelayedCall | None = None
        self._wake = 0.0

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self.receive(datagram, addr)

    @override
    def stopProtocol(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def receive(self, datagram: bytes, source: Source, group: bool = False) -> None:
        """
        Process a datagram; it is ignored while there is no transport.

        :param group: whether it was sent to a multicast address, and received on another socket.
        """
        if self.transport is None:
            return
        now = self._seconds()
        for event in self.layer.receive(datagram, source, now, group):
            self._handle_event(event, now)
        self.flush()

    def flush(self) -> None:
        """Write the datagrams of the outbox, and set the timer."""
        transport = self.transport
        if transport is None:
            return
        for datagram, source in self.layer.messages_to_send():
            try:
                transport.write(datagram, source)
            except MessageLengthError as error:
                self._datagram_too_long(error)
            except OSError as error:
                self._datagram_rejected(source, error)
        due = self.layer.next_timeout()
        # The write may have ended a DTLS session, and with it the transport.
        if due is None or self.transport is None or (self._timer is not None and due >= self._wake):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wake = due
        self._timer = self._reactor.callLater(max(0.0, due - self._seconds()), self._advance)

    def _advance(self) -> None:
        self._timer = None
        now = self._seconds()
        for event in self.layer.advance(now):
            self._handle_event(event, now)
        self.flush()

    @abstractmethod
    def _handle_event(self, event: Event, now: float) -> None:
        """React to an event of the message layer."""

    def _datagram_too_long(self, error: MessageLengthError) -> None:
        """Raise the error of a datagram that the transport cannot carry, unless overridden."""
        raise error

    def _datagram_rejected(self, source: Source, error: OSError) -> None:
        """Treat a datagram that the kernel rejects as lost, unless overridden."""
