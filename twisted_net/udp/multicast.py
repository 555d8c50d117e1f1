"""Multicast and broadcast sockets: joining groups, sending to them, delayed answers."""

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
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.net.steady_clock import steady
from twisted_net.udp.groups import Group, is_broadcast, is_loopback_interface
from twisted_net.udp.port import CappedPort
from twisted_net.udp.responder import DatagramCounts
from twisted_net.udp.sockets import receive_own_groups

MAX_DELAYED = 1000
"""Delayed answers of one server at a time; further ones are dropped."""

MAX_DELAYED_BYTES = 1_048_576
"""Bytes of these: some 700 of the longest that fit into a packet of an Ethernet."""

# Linux's ip_mreqn (ip(7)), which Python lacks.
_MREQN = struct.Struct("4s4si")

ANY = "0.0.0.0"
"""Instead of a group: everything that is sent to the port, broadcasts included."""

Receive = Callable[[bytes, Source], None]


class GroupProtocol(DatagramProtocol):
    """Passes the datagrams of a group to a function."""

    noisy = False

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self._receive(datagram, addr)


class DelayedAnswers:
    """
    Answers to multicast questions, each sent after a random delay.

    :param leisure: longest delay, in seconds.
    :param chance: returns a number drawn evenly from 0 to 1.
    :param counts: counts as dropped what is over :data:`MAX_DELAYED` or :data:`MAX_DELAYED_BYTES`,
        and what is left at the end.
    :param memory: counts the answers that wait; a ledger of its own if None.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        leisure: float,
        counts: DatagramCounts,
        chance: Callable[[], float] = random.random,
        memory: MemoryLedger | None = None,
    ) -> None:
        self._reactor = steady(reactor)
        self._kept: MemoryAccount[DelayedAnswers] = (memory or MemoryLedger()).account(
            "group_answers", MAX_DELAYED_BYTES
        )
        self._leisure = leisure
        self._chance = chance
        self._calls: set[IDelayedCall] = set()
        self._counts = counts

    def __len__(self) -> int:
        return len(self._calls)

    def send(self, write: Callable[[bytes, Source], object], answer: bytes, to: Source) -> None:
        """Call *write* with the answer after a random delay."""
        size = len(answer)
        if len(self._calls) >= MAX_DELAYED or self._kept.total + size > MAX_DELAYED_BYTES:
            self._counts.dropped += 1
            return

        def leave() -> None:
            self._calls.discard(call)
            self._kept.add(self, -size)
            write(answer, to)

        call = self._reactor.callLater(self._chance() * self._leisure, leave)
        self._calls.add(call)
        self._kept.add(self, size)

    def stop(self) -> None:
        """Drop all delayed answers."""
        self._counts.dropped += len(self._calls)
        for call in self._calls:
            call.cancel()
        self._calls.clear()
        self._kept.set(self, 0)


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
    Join a group and pass its datagrams to *receive*; ``stopListening()`` leaves the group.

    Several programs of a machine may join the same group on the same port.

    :param max_datagram: limit in bytes; a longer datagram is truncated to one byte more.
    :raises CannotListenError: if there is no such interface, or the kernel rejects the group.
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

    :param own: this process's port with the same number, if there is one.
    :raises CannotListenError: as :func:`join` does.
    """
    joined: list[CappedPort] = []
    try:
        with _sharing(own):
            for group in groups:
                joined.append(  # noqa: PERF401  # those before a failure must be left again
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
    Allow other sockets to bind the port number of *own* within this context.

    Not permanently: with SO_REUSEADDR set, another program could receive its datagrams.
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
    The groups that a server has joined, with the interface of one port.

    :param ports: one for each group; at least one. They are an attribute, too.
    """

    def __init__(self, ports: list[CappedPort]) -> None:
        self.ports = ports

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address of the first group."""
        return self.ports[0].getHost()

    def stopListening(self) -> Deferred[list[None]]:
        """Leave all groups; fires when that is done."""
        return gatherResults([port.stopListening() or succeed(None) for port in self.ports])


def sending_socket(address: str, interface: str | None, hops: int) -> socket.socket:
    """
    Return a socket that sends to a multicast group or a broadcast address.

    Programs on this machine receive the datagrams too.

    :param address: the multicast address, or an IPv4 broadcast address.
    :param interface: the outgoing interface, by name or IPv4 address; None: as routed.
    :param hops: time to live: 1 stays on the link.
    :raises OSError: if there is no such interface.
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
            # Else datagrams on loopback would have the source address of another interface.
            loopback = interface is not None and is_loopback_interface(interface)
            opened.bind(("127.0.0.1" if loopback else "", 0))
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
        # Broadcasts are delivered to all sockets with this option and binding.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.bind((ANY, port))
        return
    # Bound to the group, so that nothing else is received here: datagrams to the address of the
    # machine are for the server's own port. Not from other interfaces either.
    receive_own_groups(opened)
    if group.version == 6:
        index = _index(group.interface)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((group.address, port, 0, index))
        packed = socket.inet_pton(socket.AF_INET6, group.address) + struct.pack("@I", index)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed)
        return
    opened.bind((group.address, port))
    opened.setsockopt(
        socket.IPPROTO_IP,
        socket.IP_ADD_MEMBERSHIP,
        _membership(group.address, group.interface),
    )


def _membership(address: str, interface: str | None) -> bytes:
    """Pack Linux's ``ip_mreqn``: a group, and an interface by its address or its index."""
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
