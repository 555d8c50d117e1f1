"""Notifications of a CoAP server to its observers (RFC 7641 §4)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_uint
from twisted_net.coap.exchange import IncomingMessage, OutgoingMessage
from twisted_net.coap.messages import MessageLayer
from twisted_net.coap.observe import Observer, ObserverList
from twisted_net.coap.resources import RETRY_AFTER
from twisted_net.coap.responses import insert_option
from twisted_net.coap.settings import CoapLimits
from twisted_net.errors import CoapError
from twisted_net.net.addresses import Source
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import WRITE, in_steps

NOTIFIED_AT_ONCE = 8
"""
Observers that are notified in one turn of the reactor.

Each state is found and encoded for one observer, whose request may differ from others': 8 take 1
ms. A thousand at once kept all others waiting for 0.13 s.
"""


PROBED_AT_ONCE = 64
"""Observers that are found to have heard nothing for long in one turn of the reactor."""


class Notifier:
    """
    Sends confirmable notifications, one at a time to each observer.

    Of many observers :data:`NOTIFIED_AT_ONCE` are notified in each turn of the reactor, each of the
    state at its turn.

    The resources that change without a call of :meth:`notify` are notified every
    ``refresh_interval`` while there are observers. An observer that was told nothing for
    ``probe_interval`` is notified, so that it is found to be lost if it is (RFC 7641 §4.5).

    An observation ends by a Reset, a timeout, an error, a deregistration or the end of the server.
    One that has to give way ends with such an error, too: 5.03 Service Unavailable.

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
        self._probe_interval = limits.probe_interval
        self._layer = layer
        self._represent = represent
        self._flush = flush
        self._refreshed = tuple(refreshed)
        self._chance = chance
        self.observers = ObserverList(
            limits.max_observers, limits.max_observers_per_peer, layer.memory, self._relieve
        )
        self._outstanding: dict[OutgoingMessage, Observer] = {}
        # The notification that is outstanding to each, with its number in the order of all.
        self._sent: dict[Observer, tuple[int, OutgoingMessage]] = {}
        self._count = 0
        # Those that are to be notified, oldest first.
        self._due: OrderedDict[Observer, None] = OrderedDict()
        self._steps = StepScheduler(reactor)
        self._running = False
        self._timer: IDelayedCall | None = None
        self._prober: IDelayedCall | None = None

    def register(
        self,
        path: str,
        incoming: IncomingMessage,
        options: Iterable[tuple[int, bytes]],
        arguments: tuple[str, ...] = (),
    ) -> Observer | None:
        """
        Add the sender of a request to the observers of a resource.

        :param options: those of the request.
        :param arguments: its queries.
        :return: None if a limit is reached.
        """
        repeated = [pair for pair in options if pair[0] not in _NOT_REPEATED]
        source, token, now = incoming.source, incoming.token, self._reactor.seconds()
        observer = self.observers.register(path, source, token, repeated, now, arguments)
        if observer is None:
            return None
        if self._timer is None and self._interval:
            self._timer = self._reactor.callLater(self._interval, self._refresh)
        if self._prober is None:
            self._prober = self._reactor.callLater(self._probe_interval, self._probe)
        return observer

    def add_observe_option(self, message: CoapMessage) -> None:
        """Add the Observe option with the next number, and remove Max-Age."""
        # The Max-Age of 0 that the response to a GET has would make the notification stale at once.
        options = [pair for pair in message.options if pair[0] != Option.MAX_AGE]
        insert_option(options, Option.OBSERVE, encode_uint(self.observers.next_number()))
        message.options = options

    def notify(self, path: str, arguments: tuple[str, ...] = ()) -> None:
        """
        Notify the observers of a resource that it has changed.

        :param arguments: notify those with these arguments alone; with none, all.
        """
        self._notify(self.observers.of_resource(path, arguments))

    def notify_command(self, path: str, arguments: tuple[str, ...] = ()) -> None:
        """
        Notify the observers of a command, named in any case as its resource is.

        :param arguments: as of :meth:`notify`.
        :raises ValueError: if it is not observable, so that it never has observers.
        """
        name = path.lower()
        if name not in self._refreshed:
            allowed = ", ".join(self._refreshed) or "none"
            raise ValueError(f"notify: {path} is not observable; observable commands: {allowed}")
        self.notify(name, arguments)

    def notify_peer(self, source: Source, path: str) -> bool:
        """Notify the observers of a resource at one peer; return whether it has any."""
        observers = [each for each in self.observers.of_peer(source) if each.resource == path]
        self._notify(observers)
        return bool(observers)

    def renew_peer(self, source: Source) -> None:
        """
        Notify all observers of a peer: what it may no longer observe ends with an error.

        It does not wait for the notifications before it, which are sent no more: they were made
        when more was permitted.
        """
        observers = self.observers.of_peer(source)
        self._cancel(observers, self._reactor.seconds())
        self._notify(observers)

    def acknowledged(self, outgoing: OutgoingMessage, now: float) -> None:
        """Process the acknowledgement of a notification: the next one may be due."""
        observer = self._settle(outgoing)
        if observer is not None and self.observers.end_notification(observer):
            self._send_state(observer, now)

    def failed(self, outgoing: OutgoingMessage) -> None:
        """Remove the observer of a notification that was reset or timed out (RFC 7641 §4.5)."""
        observer = self._settle(outgoing)
        if observer is not None:
            self.observers.remove(observer)

    def remove_peer(self, source: Source) -> None:
        """Remove all observers of a peer, without a message to it."""
        for observer in self.observers.of_peer(source):
            self.observers.remove(observer)

    def dismiss_peer(self, source: Source) -> None:
        """
        Remove all observers of a peer that has to give way, and tell each: 5.03.

        No more of the notifications that are outstanding or queued is sent.
        """
        observers = self.observers.of_peer(source)
        if observers:
            now = self._reactor.seconds()
            self._cancel(observers, now)
            for observer in observers:
                self._dismiss(observer, now, RETRY_AFTER)
            self._flush()

    def _relieve(self, observer: Observer) -> float:
        """Remove an observer, as all clients hold too much; return the share of a step."""
        now = self._reactor.seconds()
        self._cancel([observer], now)
        self._dismiss(observer, now, RETRY_AFTER)
        self._flush()
        return WRITE

    def _dismiss(self, observer: Observer, now: float, retry_after: int | None = None) -> None:
        """Remove an observer with a last notification."""
        self.observers.remove(observer)
        options = () if retry_after is None else [(int(Option.MAX_AGE), encode_uint(retry_after))]
        last = CoapMessage(
            Type.NON, Code.SERVICE_UNAVAILABLE, token=observer.token, options=options
        )
        self._layer.send_untracked(last, observer.source, now)

    async def terminate(self) -> None:
        """
        Remove all observers, each with a last notification: 5.03 Service Unavailable.

        It does not wait for those before it, which are sent no more. Many are removed over turns of
        the reactor. There must be no new ones meanwhile.
        """
        self._due.clear()
        await self._steps(in_steps(self._farewells()))

    def _farewells(self) -> Iterator[float]:
        for observer in self.observers.all():
            if observer in self.observers:
                now = self._reactor.seconds()
                if observer in self._sent:
                    # All of its peer, as the next one would be sent in place of this one.
                    self._cancel(self.observers.of_peer(observer.source), now)
                self._dismiss(observer, now)
                self._flush()
            yield WRITE

    def close(self) -> None:
        """Stop the timers, and remove all observers without a message to them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._prober is not None:
            self._prober.cancel()
            self._prober = None
        self._due.clear()
        self._steps.stop()
        self._running = False
        self._outstanding.clear()
        self._sent.clear()
        self.observers.clear()

    def _notify(self, observers: Iterable[Observer]) -> None:
        """Notify observers, some of them now, and the others in their turn."""
        for observer in observers:
            # One whose turn is to come will be notified of this change, too.
            if observer not in self._due and self.observers.begin_notification(observer):
                self._due[observer] = None
        if self._due and not self._running:
            self._running = True
            self._steps(self._notifications())

    def _notifications(self) -> Iterator[int]:
        """Notify those that are due, :data:`NOTIFIED_AT_ONCE` in each step."""
        due = self._due
        try:
            while due:
                now, count = self._reactor.seconds(), 0
                while due and count < NOTIFIED_AT_ONCE:
                    observer, _ = due.popitem(last=False)
                    if observer in self.observers:
                        self._send_state(observer, now)
                        count += 1
                self._flush()
                yield count
        finally:
            self._running = False

    def _settle(self, outgoing: OutgoingMessage) -> Observer | None:
        """Remove a notification that is not outstanding any more; return its observer."""
        observer = self._outstanding.pop(outgoing, None)
        if observer is not None:
            self._sent.pop(observer, None)
        return observer

    def _cancel(self, observers: Iterable[Observer], now: float) -> None:
        """Send no more of the notifications that are outstanding or queued for these observers."""
        sent = [(*self._sent.pop(each), each) for each in observers if each in self._sent]
        # Last first: queued ones are not sent when the one before them is cancelled.
        for _, outgoing, observer in sorted(sent, key=itemgetter(0), reverse=True):
            self._layer.cancel(outgoing, now)
            del self._outstanding[outgoing]
            observer.notifying = observer.changed = False

    def _refresh(self) -> None:
        self._timer = None
        if len(self.observers):
            self._timer = self._reactor.callLater(self._interval, self._refresh)
        for path in self._refreshed:
            self.notify(path)

    def _probe(self) -> None:
        """Notify those that were told nothing for long; the next ones when they are due."""
        self._prober = None
        now = self._reactor.seconds()
        quiet: list[Observer] = []
        while (oldest := self.observers.quietest()) is not None:
            observer, told = oldest
            due = told + self._probe_interval
            if due > now or len(quiet) == PROBED_AT_ONCE:
                self._prober = self._reactor.callLater(max(0.0, due - now), self._probe)
                break
            self.observers.note_told(observer, now)
            quiet.append(observer)
        self._notify(quiet)

    def _send_state(self, observer: Observer, now: float) -> None:
        message = self._represent(observer, now)
        message.type = Type.CON
        message.token = observer.token
        self.observers.note_told(observer, now)
        if message.code < 128:
            self.add_observe_option(message)
        else:
            # An error ends the observation (RFC 7641 §4.2).
            self.observers.remove(observer)
        outgoing = self._send(message, observer.source, now)
        if outgoing is None:
            self._dismiss(observer, now, RETRY_AFTER)
        else:
            self._outstanding[outgoing] = observer
            self._count += 1
            self._sent[observer] = self._count, outgoing

    def _send(self, message: CoapMessage, source: Source, now: float) -> OutgoingMessage | None:
        try:
            return self._layer.send_request(message, source, now, self._chance())
        except CoapError:
            return None


_NOT_REPEATED = (Option.OBSERVE, Option.ECHO, Option.ETAG)
"""Options of the request that do not apply to its notifications."""
