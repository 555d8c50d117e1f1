"""Sockets of groups: joined on an interface, read as any port of ours, left with the socket."""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from twisted_net.net.addresses import Source, is_numeric
from twisted_net.udp.groups import Group, is_broadcast, is_own_interface
from twisted_net.udp.port import CappedPort
from twisted_net.udp.responder import DatagramCounts

MAX_DELAYED = 1000
"""Answers to groups that wait for their moment, of one server; further ones are not sent."""

# Linux's numbers (ip(7)); Python names neither. Without the second a socket hears every group that
# any program on the machine has joined on any interface.
_IP_MULTICAST_ALL = 49
_MREQN = struct.Struct("4s4si")

ANY = "0.0.0.0"
"""In place of a group: all that is sent to the port, broadcasts too."""

Receive = Callable[[bytes, Source], None]


class GroupProtocol(DatagramProtocol):
    """Hands over the datagrams of a group."""

    noisy = False

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self._receive(datagram, addr)


class DelayedAnswers:
    """
    Answers to a group's questions, each sent at a random moment.

    :param leisure: seconds within which it leaves.
    :param chance: gives a number from 0 to 1, drawn evenly.
    :param counts: where those are counted as dropped that are not sent, as :data:`MAX_DELAYED`
        waited, or as the server stopped.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        leisure: float,
        counts: DatagramCounts,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._leisure = leisure
        self._chance = chance
        self._calls: set[IDelayedCall] = set()
        self._counts = counts

    def __len__(self) -> int:
        return len(self._calls)

    def send(self, write: Callable[[bytes, Source], object], answer: bytes, to: Source) -> None:
        """Have *write* called with the answer later."""
        if len(self._calls) >= MAX_DELAYED:
            self._counts.dropped += 1
            return

        def leave() -> None:
            self._calls.discard(call)
            write(answer, to)

        call = self._reactor.callLater(self._chance() * self._leisure, leave)
        self._calls.add(call)

    def stop(self) -> None:
        """Send nothing more."""
        self._counts.dropped += len(self._calls)
        for call in self._calls:
            call.cancel()
        self._calls.clear()


def join(
    reactor: IReactorFDSet,
    group: Group,
    port: int,
    receive: Receive,
    *,
    max_datagram: int,
    counts: DatagramCounts | None = None,
) -> CappedPort:
    """
    Join a group, and have its datagrams handed over; ``stopListening()`` leaves it.

    Several programs of a machine may join the same group at the same port.

    :param max_datagram: longest datagram that is handed over whole; of a longer one, a byte more.
    :raises CannotListenError: where there is no such interface, or the kernel refuses.
    """
    opened = None
    try:
        opened = _open(group)
        _bind_and_join(opened, group, port)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise CannotListenError(str(group), port, error) from error
    listening = CappedPort(
        port, GroupProtocol(receive), "", max_datagram + 1, reactor, counts=counts, opened=opened
    )
    listening.startListening()
    return listening


def join_all(
    reactor: IReactorFDSet,
    groups: Iterable[Group],
    port: int,
    receive: Receive,
    *,
    max_datagram: int,
    counts: DatagramCounts | None = None,
    own: CappedPort | None = None,
) -> list[CappedPort]:
    """
    Join several groups, or none of them.

    :param own: where this process listens at the same port number already.
    :raises CannotListenError: as :func:`join` does.
    """
    joined: list[CappedPort] = []
    try:
        with _sharing(own):
            for group in groups:
                joined.append(  # noqa: PERF401  # those before a failure are to be left
                    join(reactor, group, port, receive, max_datagram=max_datagram, counts=counts)
                )
    except CannotListenError:
        for listening in joined:
            listening.stopListening()
        raise
    return joined


@contextmanager
def _sharing(own: CappedPort | None) -> Iterator[None]:
    """
    Let others bind the port number of *own*, which may be bound to all addresses, meanwhile.

    Not for longer: with the option set another program could take its datagrams.
    """
    if own is None:
        yield
        return
    own.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        yield
    finally:
        own.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


class Membership:
    """
    The groups that a server has joined, as one port.

    :param ports: of the groups; at least one.
    """

    def __init__(self, ports: list[CappedPort]) -> None:
        self._ports = ports

    def getHost(self) -> IPv4Address | IPv6Address:
        """Give the address of the first group."""
        return self._ports[0].getHost()

    def stopListening(self) -> Deferred[list[None]]:
        """Leave all groups; fires when that is done."""
        return gatherResults([port.stopListening() or succeed(None) for port in self._ports])


def sending_socket(address: str, interface: str | None, hops: int) -> socket.socket:
    """
    Give a socket that sends to a group, or to all hosts of a network.

    This machine's own programs hear what it sends, too.

    :param address: of the group, or a broadcast address of IPv4.
    :param interface: from which it leaves: a name, or an address of IPv4; None: as routed.
    :param hops: routers that a datagram passes and one: 1 stays on the link.
    :raises OSError: where there is no such interface.
    """
    group = Group(address, interface)
    opened = _open(group)
    try:
        if group.version == 6:
            v6 = socket.IPPROTO_IPV6
            opened.setsockopt(v6, socket.IPV6_MULTICAST_HOPS, hops)
            opened.setsockopt(v6, socket.IPV6_MULTICAST_IF, _index(interface))
            opened.bind(("::", 0))
        elif is_broadcast(address):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            opened.bind((interface or "", 0) if interface and is_numeric(interface) else ("", 0))
        else:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
            if interface is not None:
                opened.setsockopt(
                    socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _membership(ANY, interface)
                )
            # Else what stays on the machine would come from an address of another interface.
            own = interface is not None and is_own_interface(interface)
            opened.bind(("127.0.0.1" if own else "", 0))
    except OSError:
        opened.close()
        raise
    return opened


def _open(group: Group) -> socket.socket:
    family = socket.AF_INET6 if group.version == 6 else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.setblocking(False)
    return opened


def _bind_and_join(opened: socket.socket, group: Group, port: int) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if group.address == ANY:
        # For broadcasts, which go to all sockets that are bound so.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.bind((ANY, port))
        return
    # Bound to the group, so that nothing else comes in here: what is sent to the address of the
    # machine is for the server's own port.
    if group.version == 6:
        index = _index(group.interface)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((group.address, port, 0, index))
        packed = socket.inet_pton(socket.AF_INET6, group.address) + struct.pack("@I", index)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed)
        return
    opened.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    opened.bind((group.address, port))
    opened.setsockopt(
        socket.IPPROTO_IP,
        socket.IP_ADD_MEMBERSHIP,
        _membership(group.address, group.interface),
    )


def _membership(address: str, interface: str | None) -> bytes:
    """Pack Linux's ``ip_mreqn``: a group, and an interface by its address or its number."""
    local = interface if interface is not None and is_numeric(interface) else ANY
    index = 0 if local != ANY or interface is None else _index(interface)
    return _MREQN.pack(socket.inet_aton(address), socket.inet_aton(local), index)


def _index(interface: str | None) -> int:
    if interface is None:
        return 0
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise OSError(errno.ENODEV, f"there is no interface {interface}") from None
