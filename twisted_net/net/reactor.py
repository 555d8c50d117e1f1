"""
Reactor types: what this package needs of a reactor, as protocols for type checkers.

Twisted has an interface for each ability of a reactor and no type for one with several of them.
Every reactor of Twisted's satisfies these protocols, and each can be passed where one of the
interfaces is expected. Nothing is checked while the program runs.
"""

# ruff: noqa: A002 - the names of arguments are those of Twisted's interfaces

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Protocol, TypeAlias, Union, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IListeningPort,
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Factory, ServerFactory
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

# Any, in the signatures below: as Twisted's interfaces have them.


@implementer(IReactorTime, IReactorTCP, IReactorUNIX, IReactorFDSet, IReactorPluggableNameResolver)
class Reactor(Protocol):
    """
    Time, stream connections, file descriptors, name look-ups and the process's lifecycle.

    ``twisted.internet.testing.MemoryReactorClock`` satisfies it too.
    """

    @property
    def nameResolver(self) -> IHostnameResolver: ...

    def seconds(self) -> float: ...

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall: ...

    def getDelayedCalls(self) -> Sequence[IDelayedCall]: ...

    def callWhenRunning(
        self, callable: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any | None: ...

    def addSystemEventTrigger(
        self, phase: str, eventType: str, callable: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any: ...

    def stop(self) -> None: ...

    def resolve(self, name: str, timeout: Sequence[int] = (1, 3, 11, 45)) -> Deferred[str]: ...

    def installNameResolver(self, resolver: IHostnameResolver, /) -> IHostnameResolver: ...

    def addReader(self, reader: IReadDescriptor, /) -> None: ...

    def addWriter(self, writer: IWriteDescriptor, /) -> None: ...

    def removeReader(self, reader: IReadDescriptor, /) -> None: ...

    def removeWriter(self, writer: IWriteDescriptor, /) -> None: ...

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]: ...

    def getReaders(self) -> list[IReadDescriptor]: ...

    def getWriters(self) -> list[IWriteDescriptor]: ...

    def listenTCP(
        self, port: int, factory: ServerFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort: ...

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector: ...

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort: ...

    def connectUNIX(
        self,
        address: str,
        factory: ClientFactory[Any],
        timeout: float = 30,
        checkPID: bool = False,
    ) -> IConnector: ...


@implementer(IReactorUDP)
class DatagramReactor(Reactor, Protocol):
    """A reactor with UDP sockets of its own."""

    def listenUDP(
        self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int = 8192
    ) -> IListeningPort: ...


class ThreadedReactor(Reactor, Protocol):
    """A reactor with threads beside it."""

    def callFromThread(
        self, callable: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> None: ...

    def callInThread(self, callable: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None: ...

    def getThreadPool(self) -> ThreadPool: ...

    def suggestThreadPoolSize(self, size: int) -> None: ...


class ServiceReactor(DatagramReactor, ThreadedReactor, Protocol):
    """All of these abilities, for a whole service."""


class ProcessReactor(ServiceReactor, Protocol):
    """What Twisted's reactors also have, in no interface: a thread pool and signal handlers."""

    threadpool: ThreadPool | None

    def sigInt(self, number: int, frame: FrameType | None = None) -> None: ...

    def sigTerm(self, number: int, frame: FrameType | None = None) -> None: ...


AnyReactor: TypeAlias = Union[Reactor, IReactorCore]  # noqa: UP007  # an interface has no "|"
"""
What public constructors take: any reactor of Twisted's.

``twisted.internet.reactor`` is declared to have a few abilities, and no UDP, Unix sockets, threads
or name look-ups, whichever reactor is installed. So type checkers do not take it for a
:class:`Reactor`, though it is one.
"""


def full_reactor(reactor: AnyReactor) -> ServiceReactor:
    """Return a reactor as one with all abilities; nothing is checked while the program runs."""
    return cast(ServiceReactor, reactor)
