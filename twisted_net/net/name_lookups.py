"""Name look-ups: by the system's resolver, in threads of their own, in turns between clients."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, Protocol, cast

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.fair_calls import FairCalls
from twisted_net.net.worker_threads import Threads, WorkerThreads

LOOKUP_THREADS = 16
"""
Threads by default. At a name server that does not answer, each look-up takes 10 s or more of its
thread, and cannot be stopped.
"""

MAX_LOOKUPS = 256
"""Names that are looked up, or wait for it, by default."""

MAX_ANSWERS = 256
"""Addresses that are taken from a look-up, and checked; a hostile name server sends thousands."""

Found = Sequence[tuple[Any, ...]]
"""What ``socket.getaddrinfo`` returns. Any: the elements differ by family."""

_FAMILIES = {
    frozenset({IPv4Address}): socket.AF_INET,
    frozenset({IPv6Address}): socket.AF_INET6,
}
_TYPES = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}

log = Logger()


class FailingReceiver(Protocol):
    """A receiver of addresses that wants to know why there are none."""

    def resolution_failed(self, error: BaseException) -> None:
        """Take the error, such as :class:`~twisted_net.errors.TooBusy`, in place of the end."""


@implementer(IResolutionReceiver)
class AddressCollector:
    """
    Collects the addresses of a name; drops those that come after the look-up was cancelled.

    :ivar found: fires with them.
    """

    def __init__(self) -> None:
        self.found: Deferred[list[str]] = Deferred(lambda _: self._cancel())
        self._addresses: dict[str, None] = {}
        self._resolution: IHostResolution | None = None

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        self._resolution = resolution

    def addressResolved(self, address: IAddress) -> None:
        host = cast(Any, address).host  # Any: IPv4Address and IPv6Address share no interface
        if len(self._addresses) < MAX_ANSWERS:
            self._addresses[host] = None

    def resolutionComplete(self) -> None:
        if not self.found.called:
            self.found.callback(list(self._addresses))

    def resolution_failed(self, error: BaseException) -> None:
        """Take the error of a :class:`~twisted_net.net.name_lookups.NameLookups`."""
        if not self.found.called:
            self.found.errback(error)

    def _cancel(self) -> None:
        if self._resolution is not None:
            # Twisted's own cannot be cancelled.
            with suppress(NotImplementedError):
                self._resolution.cancel()


@frozen
class _Question:
    host: str
    family: int
    kind: int


@check_arguments
@implementer(IHostnameResolver)
class NameLookups:
    """
    A resolver of names whose look-ups keep nobody else's functions waiting, nor each other.

    The resolver of Twisted's reactors uses their one pool of threads, so that ten look-ups at a
    name server that does not answer stop everything that needs a thread. Here, look-ups have
    threads of their own, clients take turns, and none gets a further thread while it has as many as
    are free (:class:`~twisted_net.net.fair_calls.FairCalls`). Those who ask for the same name at
    the same time share one look-up, which begins at the first turn that one of them has. A client
    that has cancelled all gives up its turn; a look-up that has begun goes on, and keeps its
    thread, and others who ask for that name then share it.

    It can be installed (``reactor.installNameResolver``), or passed as ``resolver`` to
    :class:`~twisted_net.http.client.Client`.

    :param owner: returns whom a look-up counts for that begins now.
    :param threads: those that look up; of its own if None.
    :param limit: names that are looked up or wait for it.
    :param getaddrinfo: looks up, as ``socket.getaddrinfo`` does.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        owner: Callable[[], str] = str,
        *,
        threads: Threads | None = None,
        limit: int = MAX_LOOKUPS,
        getaddrinfo: Callable[..., Found] | None = None,
    ) -> None:
        self._owner = owner
        if threads is None:
            threads = WorkerThreads(reactor, "look-up", LOOKUP_THREADS, awaited=False)
        self._threads = threads
        self._calls = FairCalls(threads, limit)
        self._getaddrinfo = getaddrinfo or socket.getaddrinfo
        self._lookups: dict[_Question, _Lookup] = {}

    @property
    def pending(self) -> int:
        """How many names are looked up or wait for it."""
        return len(self._lookups)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        family = _FAMILIES.get(frozenset(addressTypes or ()), socket.AF_UNSPEC)
        question = _Question(hostName.lower(), family, _TYPES[transportSemantics])
        lookup = self._lookups.get(question)
        if lookup is None:
            lookup = self._lookups[question] = _Lookup(question, self._getaddrinfo)
        owner = self._owner()
        asker = lookup.askers.setdefault(owner, _Asker())
        leave = partial(self._leave, lookup, owner)
        resolution = _Resolution(hostName, leave, resolutionReceiver, portNumber)
        asker.resolutions[resolution] = None
        resolutionReceiver.resolutionBegan(resolution)
        if asker.turn is None and lookup.runs_for is None and asker.resolutions:
            begun = partial(self._begun, lookup, owner)
            asker.turn = self._calls.call(lookup.run, owner, check=begun)
            asker.turn.addBoth(partial(self._done, lookup, owner))
        return resolution

    def start(self) -> None:
        """Keep idle threads again, after :meth:`stop`."""
        self._threads.start()

    def stop(self) -> None:
        """End the threads that are idle; the others end when their look-ups do."""
        self._threads.stop()

    def _begun(self, lookup: _Lookup, owner: str) -> None:
        lookup.runs_for = owner
        for other, asker in lookup.askers.items():
            if other != owner and asker.turn is not None:
                asker.turn.cancel()

    def _done(self, lookup: _Lookup, owner: str, outcome: Found | Failure) -> None:
        if lookup.runs_for is None:
            # Refused, or cancelled by this client; the others wait for their turns.
            askers = [lookup.askers.pop(owner)]
        elif lookup.runs_for == owner:
            askers = list(lookup.askers.values())
            lookup.askers.clear()
        else:
            return  # it needs no turn of its own any more
        self._forget(lookup)
        for resolution in [found for asker in askers for found in asker.resolutions]:
            try:
                resolution.end(outcome)
            except Exception:
                log.failure("the receiver of the addresses of {name} failed", name=resolution.name)

    def _leave(self, lookup: _Lookup, owner: str, resolution: _Resolution) -> None:
        """Forget one that was cancelled; a client without any gives up its turn."""
        asker = lookup.askers.get(owner)
        if asker is None:
            return
        asker.resolutions.pop(resolution, None)
        if asker.resolutions or lookup.runs_for is not None:
            return
        if asker.turn is not None:
            asker.turn.cancel()
        else:
            del lookup.askers[owner]
            self._forget(lookup)

    def _forget(self, lookup: _Lookup) -> None:
        """Forget a look-up that nobody waits for."""
        if not lookup.askers:
            del self._lookups[lookup.question]


class _Asker:
    """One client that asks for a name: what it asked, and its turn for a thread."""

    def __init__(self) -> None:
        self.resolutions: dict[_Resolution, None] = {}
        self.turn: Deferred[Found] | None = None  # None, too, if another's look-up ran already


class _Lookup:
    """
    The look-up of one name, for all who asked for it.

    :ivar askers: these, by owner.
    :ivar runs_for: the owner whose turn it has; None as long as it waits.
    """

    def __init__(self, question: _Question, getaddrinfo: Callable[..., Found]) -> None:
        self.question = question
        self.askers: dict[str, _Asker] = {}
        self.runs_for: str | None = None
        self._getaddrinfo = getaddrinfo

    def run(self) -> Found:
        """Look up, in a thread; a name that is none has no address."""
        try:
            return self._getaddrinfo(
                self.question.host, 0, self.question.family, self.question.kind
            )
        # ValueError: a label is empty or too long.
        except (OSError, ValueError):
            return ()


@implementer(IHostResolution)
class _Resolution:
    """What one asked; equal to itself alone."""

    def __init__(
        self,
        name: str,
        leave: Callable[[_Resolution], None],
        receiver: IResolutionReceiver,
        port: int,
    ) -> None:
        self.name = name
        self._leave = leave
        self._receiver = receiver
        self._port = port

    def cancel(self) -> None:
        """Want no addresses any more; the receiver hears nothing further."""
        self._leave(self)

    def end(self, outcome: Found | Failure) -> None:
        """Pass the outcome to the receiver."""
        receiver: Any = self._receiver  # Any: it may be a FailingReceiver, too
        if isinstance(outcome, Failure):
            if hasattr(receiver, "resolution_failed"):
                receiver.resolution_failed(outcome.value)
                return
            outcome = ()
        semantics: Literal["TCP", "UDP"]
        for family, kind, _, _, address in outcome:
            semantics = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
            if family == socket.AF_INET:
                receiver.addressResolved(IPv4Address(semantics, address[0], self._port))
            elif family == socket.AF_INET6:
                host, _, flow, scope = address
                receiver.addressResolved(IPv6Address(semantics, host, self._port, flow, scope))
        receiver.resolutionComplete()
