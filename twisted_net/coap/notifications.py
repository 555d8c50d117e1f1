"""Notifications of a CoAP server to its observers (RFC 7641 §4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_uint
from twisted_net.coap.exchange import IncomingMessage, OutgoingMessage
from twisted_net.coap.messages import MessageLayer
from twisted_net.coap.observe import Observer, ObserverList
from twisted_net.coap.responses import insert_option
from twisted_net.coap.settings import CoapLimits
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source


class Notifier:
    """
    Sends confirmable notifications, one at a time to each observer.

    The resources that change without a call of :meth:`notify` are notified every
    ``refresh_interval`` while there are observers.

    :param represent: returns the notification of an observer: its resource's current state, as a
        response to its request.
    :param flush: sends what is in the outbox of *layer*.
    :param refreshed: paths of the resources to notify at intervals.
    :param chance: returns a number drawn evenly from 0 to 1.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        limits: CoapLimits,
        layer: MessageLayer,
        represent: Callable[[Observer, float], CoapMessage],
        flush: Callable[[], None],
        refreshed: Iterable[str],
        chance: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._interval = limits.refresh_interval
        self._layer = layer
        self._represent = represent
        self._flush = flush
        self._refreshed = tuple(refreshed)
        self._chance = chance
        self.observers = ObserverList(limits.max_observers, limits.max_observers_per_peer)
        self._outstanding: dict[OutgoingMessage, Observer] = {}
        self._timer: IDelayedCall | None = None

    def register(
        self, path: str, incoming: IncomingMessage, options: Iterable[tuple[int, bytes]]
    ) -> Observer | None:
        """
        Add the sender of a request to the observers of a resource.

        :param options: those of the request.
        :return: None if a limit is reached.
        """
        repeated = [pair for pair in options if pair[0] not in _NOT_REPEATED]
        observer = self.observers.register(path, incoming.source, incoming.token, repeated)
        if observer is not None and self._timer is None and self._interval:
            self._timer = self._reactor.callLater(self._interval, self._refresh)
        return observer

    def notify(self, path: str) -> None:
        """Notify the observers of a resource that it has changed."""
        now = self._reactor.seconds()
        for observer in self.observers.of_resource(path):
            if self.observers.begin_notification(observer):
                self._send_state(observer, now)
        self._flush()

    def notify_peer(self, source: Source, path: str) -> bool:
        """Notify the observers of a resource at one peer; return whether it has any."""
        now = self._reactor.seconds()
        observers = [each for each in self.observers.of_peer(source) if each.resource == path]
        for observer in observers:
            if self.observers.begin_notification(observer):
                self._send_state(observer, now)
        self._flush()
        return bool(observers)

    def renew_peer(self, source: Source) -> None:
        """
        Notify all observers of a peer: what it may no longer observe ends with an error.

        It does not wait for the notifications before it, which are sent no more: they were made
        when more was permitted.
        """
        now = self._reactor.seconds()
        observers = self.observers.of_peer(source)
        self._cancel([observer for observer in observers if observer.notifying], now)
        for observer in observers:
            if self.observers.begin_notification(observer):
                self._send_state(observer, now)
        self._flush()

    def acknowledged(self, outgoing: OutgoingMessage, now: float) -> None:
        """Process the acknowledgement of a notification: the next one may be due."""
        observer = self._outstanding.pop(outgoing, None)
        if observer is not None and self.observers.end_notification(observer):
            self._send_state(observer, now)

    def failed(self, outgoing: OutgoingMessage) -> None:
        """Remove the observer of a notification that was reset or timed out (RFC 7641 §4.5)."""
        observer = self._outstanding.pop(outgoing, None)
        if observer is not None:
            self.observers.remove(observer)

    def remove_peer(self, source: Source) -> None:
        """Remove all observers of a peer, without a message to it."""
        for observer in self.observers.of_peer(source):
            self.observers.remove(observer)

    def terminate(self) -> None:
        """
        Remove all observers, each with a last notification: 5.03 Service Unavailable.

        It does not wait for those before it, which are sent no more.
        """
        now = self._reactor.seconds()
        self._cancel(self._outstanding.values(), now)
        for observer in self.observers.all():
            self.observers.remove(observer)
            last = CoapMessage(Type.NON, Code.SERVICE_UNAVAILABLE, token=observer.token)
            self._layer.send_untracked(last, observer.source, now)
        self._flush()

    def close(self) -> None:
        """Stop the timer, and remove all observers without a message to them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for observer in self.observers.all():
            self.observers.remove(observer)

    def _cancel(self, observers: Iterable[Observer], now: float) -> None:
        """Send no more of the notifications that are outstanding or queued for these observers."""
        chosen = set(observers)
        # Last first: queued ones are not sent when the one before them is cancelled.
        for outgoing, observer in reversed(list(self._outstanding.items()) if chosen else []):
            if observer in chosen:
                self._layer.cancel(outgoing, now)
                del self._outstanding[outgoing]
                observer.notifying = observer.changed = False

    def _refresh(self) -> None:
        self._timer = None
        if len(self.observers):
            self._timer = self._reactor.callLater(self._interval, self._refresh)
        for path in self._refreshed:
            self.notify(path)

    def _send_state(self, observer: Observer, now: float) -> None:
        message = self._represent(observer, now)
        message.type = Type.CON
        message.token = observer.token
        if message.code < 128:
            add_observe_option(message, observer)
        else:
            # An error ends the observation (RFC 7641 §4.2).
            self.observers.remove(observer)
        outgoing = self._send(message, observer.source, now)
        if outgoing is None:
            self.observers.remove(observer)
        else:
            self._outstanding[outgoing] = observer

    def _send(self, message: CoapMessage, source: Source, now: float) -> OutgoingMessage | None:
        try:
            return self._layer.send_request(message, source, now, self._chance())
        except CoapError:
            return None


def add_observe_option(message: CoapMessage, observer: Observer) -> None:
    """Add the Observe option with the observer's next number, and remove Max-Age."""
    # The Max-Age of 0 that the response to a GET has would make the notification stale at once.
    options = [pair for pair in message.options if pair[0] != Option.MAX_AGE]
    insert_option(options, Option.OBSERVE, encode_uint(observer.next_sequence()))
    message.options = options


_NOT_REPEATED = (Option.OBSERVE, Option.ECHO, Option.ETAG)
"""Options of the request that do not apply to its notifications."""
