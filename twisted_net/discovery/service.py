"""Discovery without a server: announcements to a group, and a listener that collects them."""

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

from twisted_net.discovery.announcements import (
    MAX_ANNOUNCEMENT,
    VERSION,
    Announcement,
    Change,
    Collector,
    Instance,
    Query,
    encode_announcement,
    is_query,
)
from twisted_net.discovery.settings import DiscoveryPlace, DiscoverySettings
from twisted_net.net.addresses import Source
from twisted_net.udp.groups import Group, is_broadcast
from twisted_net.udp.multicast import ANY, join, sending_socket
from twisted_net.udp.port import CappedPort

JITTER = 0.1
"""Share of the interval by which announcements come earlier or later: servers fall out of step."""

QUERY_LEISURE = 0.5
"""Seconds within which a question is answered, at a random moment."""

BETWEEN_ANSWERS = 1.0
"""Seconds between two announcements at the least, however many ask."""


class GroupSockets:
    """
    The sockets with which a program speaks to a group and hears it, one each for an interface.

    :param receive: called with each datagram, and its source.
    :raises CannotListenError: where the group cannot be joined, or not be sent to; then nothing is
        open.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        place: DiscoveryPlace,
        receive: Callable[[bytes, Source], None],
    ) -> None:
        self._target = (place.group, place.port)
        self._ports: list[CappedPort] = []
        self._senders: list[CappedPort] = []
        try:
            for group in place.places:
                self._ports.append(_listen(reactor, group, place.port, receive))
                self._senders.append(_sender(reactor, group, place.hops))
        except CannotListenError:
            self.close()
            raise

    def send(self, datagram: bytes) -> None:
        """Send to the group, on each interface; what the kernel does not take is lost."""
        for sender in self._senders:
            sender.write(datagram, self._target)

    def getHost(self) -> IPv4Address | IPv6Address:
        """Give the address at which the group is heard."""
        return self._ports[0].getHost()

    def close(self) -> None:
        """Leave the group."""
        for port in (*self._ports, *self._senders):
            port.stopListening()
        self._ports, self._senders = [], []


class Announcer(Service):
    """
    Announces a server to a group while it runs, and says goodbye when it stops.

    It is announced at its start, then at an interval, and soon after somebody asks.

    :param services: gives the ports by service, when they are to be announced.
    :param version: of the software.
    :param chance: gives a number from 0 to 1, drawn evenly.
    :ivar sockets: those of the group, while it runs.
    :ivar sent: announcements that were sent.
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
        self._clock = clock
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
        self.sockets = GroupSockets(self._reactor, self._settings, self._heard)
        self._instance = secrets.token_hex(16)
        # In the next turn, when all that is to be announced listens.
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

    def _heard(self, datagram: bytes, source: Source) -> None:
        if self._call is None or not is_query(datagram):
            return
        now = self._clock.seconds()
        soon = max(now + self._chance() * QUERY_LEISURE, self._last + BETWEEN_ANSWERS)
        if self._call.getTime() > soon:
            self._call.reset(soon - now)


class DiscoveryListener(Service):
    """
    Collects the servers of a group while it runs.

    Announcements are not authenticated: what is found is a hint where to look, and whoever is
    looked for proves who it is by TLS.

    :param changed: called with each change.
    :ivar collector: has the instances, and counts what was no announcement.
    :raises CannotListenError: at the start, where the group cannot be joined.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        clock: IReactorTime,
        place: DiscoveryPlace | None = None,
        changed: Callable[[Change], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._place = place or DiscoveryPlace()
        self._changed = changed
        self._sockets: GroupSockets | None = None
        self._expiring: IDelayedCall | None = None
        self.collector = Collector()

    @property
    def instances(self) -> list[Instance]:
        """The servers that are known now."""
        return self.collector.instances

    @override
    def startService(self) -> None:
        Service.startService(self)
        self._sockets = GroupSockets(self._reactor, self._place, self._heard)
        self.ask()

    @override
    def stopService(self) -> None:
        Service.stopService(self)
        if self._expiring is not None:
            self._expiring.cancel()
            self._expiring = None
        sockets, self._sockets = self._sockets, None
        if sockets is not None:
            sockets.close()

    def ask(self) -> None:
        """Ask all servers to announce themselves, which they do within about a second."""
        if self._sockets is not None:
            self._sockets.send(encode_announcement(Query(VERSION, True)))

    def _heard(self, datagram: bytes, source: Source) -> None:
        change = self.collector.receive(datagram, source, self._clock.seconds())
        # One that was heard again is looked at when it would have been lost.
        if change is not None:
            self._tell(change)
            self._wait()

    def _expire(self) -> None:
        self._expiring = None
        for change in self.collector.expire(self._clock.seconds()):
            self._tell(change)
        self._wait()

    def _tell(self, change: Change) -> None:
        if self._changed is not None:
            self._changed(change)

    def _wait(self) -> None:
        """Be called when the next instance is lost; one timer serves all."""
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
    # What comes to it, an ICMP message or a stray answer, is read and dropped.
    sender = CappedPort(0, DatagramProtocol(), "", 1, reactor, opened=opened)
    sender.startListening()
    return sender


def _listen(
    reactor: IReactorFDSet, group: Group, port: int, receive: Callable[[bytes, Source], None]
) -> CappedPort:
    # A broadcast is heard at the address of all hosts, whatever network it is of.
    heard = Group(ANY) if is_broadcast(group.address) else group
    return join(reactor, heard, port, receive, max_datagram=MAX_ANNOUNCEMENT)
