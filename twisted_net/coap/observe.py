"""List of observers (RFC 7641): who observes which resource, and who is to be notified now."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count

from twisted_net.coap.codec import Options
from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger

OBSERVER_BYTES = 1300
"""Bytes of an observer in memory, beside the options of its request."""

OPTION_BYTES = 100
"""Bytes of such an option, beside its value."""


class Observer:
    """
    A client's entry for one resource, identified by its address and token.

    :ivar arguments: the queries of its request.
    :ivar options: those of its request, for which each notification is made.
    :ivar notifying: whether a notification is outstanding.
    :ivar changed: whether the resource has changed since that notification.
    """

    __slots__ = ("arguments", "changed", "notifying", "options", "resource", "source", "token")

    def __init__(
        self,
        resource: str,
        source: Source,
        token: bytes,
        options: Options,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.resource = resource
        self.arguments = arguments
        self.source = source
        self.token = token
        self.options = options
        self.notifying = False
        self.changed = False


class ObserverList:
    """
    Observers of all resources.

    At most one notification to each observer is outstanding; if the resource changes meanwhile,
    one more follows, with the state at that time (RFC 7641 §4.5.2). So each observer sets its own
    pace, and no notifications are queued.

    Their numbers are of one counter: those of a client that registers again with its token go on,
    too (§4.4).

    :param max_observers: entries in all; a further one is not added.
    :param max_per_peer: entries of one peer.
    :param memory: counts what each takes; a ledger of its own if None.
    :param relieve: removes one that gives way, and returns the share of a step that this takes.
    :ivar refused: observers that were not added, because of a limit; that of topics counts, too.
    """

    def __init__(
        self,
        max_observers: int,
        max_per_peer: int,
        memory: MemoryLedger | None = None,
        relieve: Callable[[Observer], float] | None = None,
    ) -> None:
        self._kept: MemoryAccount[Observer] = (memory or MemoryLedger()).account(
            "coap_observers", relieve=relieve
        )
        self._max_observers = max_observers
        self._max_per_peer = max_per_peer
        self._all: dict[tuple[Source, bytes], Observer] = {}
        self._resources: dict[str, OrderedDict[tuple[Source, bytes], Observer]] = {}
        self._with_arguments: dict[
            tuple[str, tuple[str, ...]], OrderedDict[tuple[Source, bytes], Observer]
        ] = {}
        # A set in order, as one peer may have all of them.
        self._per_peer: dict[Source, dict[Observer, None]] = {}
        # When each was told something, the one that has heard nothing for longest first.
        self._told: OrderedDict[Observer, float] = OrderedDict()
        self._numbers: Iterator[int] = count(1)
        self.refused = 0

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, observer: Observer) -> bool:
        return self._all.get((observer.source, observer.token)) is observer

    def register(
        self,
        resource: str,
        source: Source,
        token: bytes,
        options: Options,
        now: float = 0.0,
        arguments: tuple[str, ...] = (),
    ) -> Observer | None:
        """
        Add an observer, in place of the peer's own with the same token.

        :param arguments: those of the resource that it observes.
        :return: None if a limit is reached: the request is then answered once (RFC 7641 §4.1).
        """
        self.deregister(source, token)
        of_peer = self._per_peer.get(source, {})
        if len(self._all) >= self._max_observers or len(of_peer) >= self._max_per_peer:
            self.refused += 1
            return None
        observer = Observer(resource, source, token, options, arguments)
        self._all[source, token] = observer
        self._told[observer] = now
        self._resources.setdefault(resource, OrderedDict())[source, token] = observer
        if arguments:
            with_arguments = self._with_arguments.setdefault((resource, arguments), OrderedDict())
            with_arguments[source, token] = observer
        self._per_peer.setdefault(source, of_peer)[observer] = None
        values = sum(len(value) for _, value in options)
        self._kept.set(observer, OBSERVER_BYTES + OPTION_BYTES * len(options) + values)
        return observer if observer in self else None

    def deregister(self, source: Source, token: bytes) -> None:
        """Remove the observer with this token, if there is one."""
        observer = self._all.get((source, token))
        if observer is not None:
            self.remove(observer)

    def remove(self, observer: Observer) -> None:
        """Remove an observer. Idempotent."""
        if observer not in self:
            return
        key = observer.source, observer.token
        del self._all[key]
        del self._told[observer]
        self._kept.set(observer, 0)
        of_resource = self._resources[observer.resource]
        del of_resource[key]
        if not of_resource:
            del self._resources[observer.resource]
        if observer.arguments:
            call = observer.resource, observer.arguments
            alike = self._with_arguments[call]
            del alike[key]
            if not alike:
                del self._with_arguments[call]
        of_peer = self._per_peer[observer.source]
        del of_peer[observer]
        if not of_peer:
            del self._per_peer[observer.source]

    def clear(self) -> None:
        """Remove all observers."""
        for observer in self._all.values():
            self._kept.set(observer, 0)
        self._all.clear()
        self._told.clear()
        self._resources.clear()
        self._with_arguments.clear()
        self._per_peer.clear()

    def next_number(self) -> int:
        """Return the number of the next notification, for its Observe option (24 bits)."""
        return next(self._numbers) & 0xFFFFFF

    def note_told(self, observer: Observer, now: float) -> None:
        """Note that an observer is told something now."""
        if observer in self:
            self._told[observer] = now
            self._told.move_to_end(observer)

    def quietest(self) -> tuple[Observer, float] | None:
        """Return the observer that was told nothing for longest, and since when; None if empty."""
        return next(iter(self._told.items()), None)

    def of_resource(self, resource: str, arguments: tuple[str, ...] = ()) -> list[Observer]:
        """
        Return the observers of a resource, oldest first.

        :param arguments: return those with these arguments alone; with none, all.
        """
        if arguments:
            return list(self._with_arguments.get((resource, arguments), {}).values())
        return list(self._resources.get(resource, {}).values())

    def is_observed(self, resource: str) -> bool:
        """Return whether a resource has observers."""
        return resource in self._resources

    def has_peer(self, source: Source) -> bool:
        """Return whether a peer observes a resource."""
        return source in self._per_peer

    def of_peer(self, source: Source) -> list[Observer]:
        """Return the observers of a peer, oldest first."""
        return list(self._per_peer.get(source, ()))

    def all(self) -> list[Observer]:
        """Return all observers."""
        return list(self._all.values())

    def begin_notification(self, observer: Observer) -> bool:
        """Record that the resource has changed; return whether a notification is to be sent now."""
        if observer.notifying:
            observer.changed = True
            return False
        observer.notifying = True
        return True

    def end_notification(self, observer: Observer) -> bool:
        """Record an acknowledged notification; return whether another one is to be sent now."""
        observer.notifying = observer.changed and observer in self
        observer.changed = False
        return observer.notifying
