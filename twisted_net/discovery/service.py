"""Discovery services: the announcer of a server, and the listener that collects announcements."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.discovery.announcements import (
    MAX_ANNOUNCEMENT,
    VERSION,
    Announcement,
    Collector,
    Instance,
    InstanceChange,
    Query,
    encode_announcement,
    is_query,
)
from twisted_net.discovery.settings import DiscoveryGroup, DiscoverySettings
from twisted_net.net.addresses import Source
from twisted_net.net.steady_clock import steady
from twisted_net.udp.groups import Group, is_broadcast
from twisted_net.udp.multicast import ANY, join, sending_socket
from twisted_net.udp.port import CappedPort

JITTER = 0.1
"""Random variation of the interval, as a share of it, so that servers do not announce in step."""

QUERY_LEISURE = 0.5
"""Longest random delay of the answer to a query, in seconds."""

MIN_INTERVAL = 1.0
"""Shortest interval between two announcements, in seconds, however many queries come."""


class GroupSockets:
    """
    Sockets to send to a group and to receive from it, one of each per interface.

    :param receive: called with each datagram and its source.
    :raises CannotListenError: if the group cannot be joined or sent to; no socket is left open.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        settings: DiscoveryGroup,
        receive: Callable[[bytes, Source], None],
    ) -> None:
        self._target = (settings.group, settings.port)
        self._ports: list[CappedPort] = []
        self._senders: list[CappedPort] = []
        try:
            for group in settings.groups:
                self._ports.append(_listen(reactor, group, settings.port, receive))
                self._senders.append(_sender(reactor, group, settings.hops))
        except CannotListenError:
            self.close()
            raise

    def send(self, datagram: bytes) -> None:
        """Send to the group on each interface; a datagram that the kernel rejects is lost."""
        for sender in self._senders:
            sender.write(datagram, self._target)

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address on which the group is received."""
        return self._ports[0].getHost()

    def close(self) -> None:
        """Leave the group."""
        for port in (*self._ports, *self._senders):
            port.stopListening()
        self._ports, self._senders = [], []


@check_arguments
class Announcer(Service):
    """
    Announces a server to a group while it runs, and withdraws it when it stops.

    The server is announced at the start, then at an interval, and after each query.

    :param services: returns the ports by service; called for each announcement.
    :param version: of the software.
    :param chance: returns a number drawn evenly from 0 to 1.
    :ivar sockets: the sockets of the group, while it runs.
    :ivar sent: number of announcements sent.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorFDSet,
        clock: IReactorTime,
        settings: DiscoverySettings,
        name: str,
        version: str,
        services: Callable[[], Mapping[str, int]],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._clock = steady(clock)
        self._settings = settings
        self._name = name
        self._version = version
        self._services = services
        self._chance = chance
        self._instance = ""
        self.sockets: GroupSockets | None = None
        self._call: IDelayedCall | None = None
        self._last = float("-inf")
        self.sent = 0

    @override
    def startService(self) -> None:
        Service.startService(self)
        self.sockets = GroupSockets(self._reactor, self._settings, self._received)
        self._instance = secrets.token_hex(16)
        # In the next turn, when all services to be announced listen.
        self._call = self._clock.callLater(0, self._announce)

    @override
    def stopService(self) -> None:
        Service.stopService(self)
        if self._call is not None:
            self._call.cancel()
            self._call = None
        sockets, self.sockets = self.sockets, None
        if sockets is not None:
            sockets.send(self._announcement(0.0))
            sockets.close()

    def _announce(self) -> None:
        settings = self._settings
        assert self.sockets is not None
        self.sockets.send(self._announcement(3 * settings.interval))
        self.sent += 1
        self._last = self._clock.seconds()
        jitter = 1 + JITTER * (2 * self._chance() - 1)
        self._call = self._clock.callLater(settings.interval * jitter, self._announce)

    def _announcement(self, ttl: float) -> bytes:
        return encode_announcement(
            Announcement(
                VERSION, self._name, self._version, self._instance, dict(self._services()), ttl
            )
        )

    def _received(self, datagram: bytes, source: Source) -> None:
        if self._call is None or not is_query(datagram):
            return
        now = self._clock.seconds()
        soon = max(now + self._chance() * QUERY_LEISURE, self._last + MIN_INTERVAL)
        if self._call.getTime() > soon:
            self._call.reset(soon - now)


@check_arguments
class DiscoveryListener(Service):
    """
    Collects the servers of a group while it runs.

    Announcements are not authenticated: they are hints where a server may be, which must
    authenticate itself by TLS.

    :param changed: called with each change; what it raises is logged.
    :ivar collector: the table of instances, with counts of rejected datagrams.
    :raises CannotListenError: at the start, if the group cannot be joined.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorFDSet,
        clock: IReactorTime,
        group: DiscoveryGroup | None = None,
        changed: Callable[[InstanceChange], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._clock = steady(clock)
        self._group = group or DiscoveryGroup()
        self._changed = changed
        self._sockets: GroupSockets | None = None
        self._expiring: IDelayedCall | None = None
        self.collector = Collector()

    @property
    def instances(self) -> list[Instance]:
        """The current servers."""
        return self.collector.instances

    @override
    def startService(self) -> None:
        Service.startService(self)
        self._sockets = GroupSockets(self._reactor, self._group, self._received)
        self.query()

    @override
    def stopService(self) -> None:
        Service.stopService(self)
        if self._expiring is not None:
            self._expiring.cancel()
            self._expiring = None
        sockets, self._sockets = self._sockets, None
        if sockets is not None:
            sockets.close()

    def query(self) -> None:
        """Query all servers of the group; they answer within about a second."""
        if self._sockets is not None:
            self._sockets.send(encode_announcement(Query(VERSION, True)))

    def _received(self, datagram: bytes, source: Source) -> None:
        changes = self.collector.receive(datagram, source, self._clock.seconds())
        for change in changes:
            self._report(change)
        # After a repeated announcement the timer stays, and is set again when it fires.
        if changes:
            self._set_timer()

    def _expire(self) -> None:
        self._expiring = None
        for change in self.collector.expire(self._clock.seconds()):
            self._report(change)
        self._set_timer()

    def _report(self, change: InstanceChange) -> None:
        if self._changed is None:
            return
        try:
            self._changed(change)
        except Exception:
            # The changes that follow, and the timer of those to come, do not depend on it.
            self.log.failure("the callback for changes of servers failed")

    def _set_timer(self) -> None:
        """Call :meth:`_expire` when the next instance expires; one timer serves all."""
        expiry = self.collector.next_expiry()
        call, self._expiring = self._expiring, None
        if call is not None:
            call.cancel()
        if expiry is not None and self._sockets is not None:
            wait = max(expiry - self._clock.seconds(), 0.0)
            self._expiring = self._clock.callLater(wait, self._expire)


def _sender(reactor: IReactorFDSet, group: Group, hops: int) -> CappedPort:
    try:
        opened = sending_socket(group.address, group.interface, hops)
    except OSError as error:
        raise CannotListenError(str(group), 0, error) from error
    # Received datagrams and errors are read and dropped.
    sender = CappedPort(0, DatagramProtocol(), "", 1, reactor, opened=opened)
    sender.startListening()
    return sender


def _listen(
    reactor: IReactorFDSet, group: Group, port: int, receive: Callable[[bytes, Source], None]
) -> CappedPort:
    # Broadcasts of any network are received on the wildcard address.
    heard = Group(ANY) if is_broadcast(group.address) else group
    return join(reactor, heard, port, receive, max_datagram=MAX_ANNOUNCEMENT)
