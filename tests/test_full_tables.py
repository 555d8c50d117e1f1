"""
Tables that strangers fill: a further entry costs a large one no more than a small one.

The oldest key of a plain dictionary takes ever longer to find, the more keys were removed in front
of it; and a limit is no limit where it takes a walk over all entries to keep it.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import Driver, Pairs
from tests.table_cost import FACTOR, Add, cost_ratio
from twisted_net.auth.users import AuthSettings
from twisted_net.coap.blockwise import TransferTable
from twisted_net.coap.codec import Code, Option, Type
from twisted_net.coap.echo import AddressVerifier
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.standard import standard_commands
from twisted_net.discovery.announcements import (
    MAX_INSTANCES,
    Announcement,
    Collector,
    encode_announcement,
)
from twisted_net.http.cache.collapse import UnstorableKeys
from twisted_net.http.origins import OriginTable
from twisted_net.http.settings import HttpSettings
from twisted_net.net.addresses import Source
from twisted_net.net.rate_limit import FailureDelays, RateLimiter
from twisted_net.net.recent_use import RecentUse
from twisted_net.sessions import Sessions
from twisted_net.tcp.admission import Access, Admission
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.limits import Limits
from twisted_net.udp.amplification_guard import AmplificationGuard
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.responder import DatagramResponder


class Connection:
    """A connection that is lost as soon as it is aborted."""

    def __init__(self, handshakes: Handshakes) -> None:
        self.handshakes = handshakes

    def abort(self) -> None:
        """Be lost."""
        self.handshakes.lost(self)


STEP = 2.0**-10
"""Seconds between two handshakes, a number that floats hold exactly."""


def source(number: int) -> Source:
    """Return an address in a network of its own."""
    return f"{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}.1", 5000


def rates(limit: int) -> Add:
    """Return what charges a new key."""
    table = RateLimiter(1.0, 1.0, limit)
    return lambda number: table.take(str(number), 0.0)


def delays(limit: int) -> Add:
    """Return what begins the first attempt of a source."""
    table = FailureDelays(max_keys=limit)
    return lambda number: table.attempt(str(number), 0.0)


def recent_use(limit: int) -> Add:
    """Return what charges a new key."""
    table = RecentUse(60.0, limit)
    return lambda number: table.charge(str(number), 0.0)


def handshakes(limit: int) -> Add:
    """Return what begins a handshake."""
    table = Handshakes(Clock(), 10.0, limit, lambda end: None)
    return lambda number: table.began(Connection(table))


def logins(limit: int) -> Add:
    """Return what adds a connection that does not log in, and ends the one that gives way."""
    settings = AuthSettings(users="x", max_anonymous=limit)
    admission: Admission[int] = Admission(Limits(), Access(settings, lambda name: None))

    def enter(number: int) -> None:
        admission.enter(number, "192.0.2.1", 0.0)
        crowded_out = admission.evict_anonymous(lambda connection: False)
        if crowded_out is not None:
            admission.leave(crowded_out, "192.0.2.1", None)

    return enter


def unstorable_keys(limit: int) -> Add:
    """Return what remembers a key."""
    table = UnstorableKeys(limit)
    return lambda number: table.add(number, 0.0)


def origins(limit: int) -> Add:
    """Return what uses an origin for the first time."""
    table = OriginTable(Clock(), HttpSettings(max_origins=limit))
    return lambda number: table.get(("http", str(number), 80))


def verified_addresses(limit: int) -> Add:
    """Return what verifies an address."""
    table = AddressVerifier(b"k" * 16, limit, 60.0)

    def verify(number: int) -> None:
        address = source(number)
        table.verify(address, table.challenge(address, 0.0), 0.0)

    return verify


def datagrams(limit: int) -> Add:
    """Return what answers a datagram from a new network."""
    limits = DatagramLimits(max_clients=limit)
    guard = AmplificationGuard(DatagramResponder(limits), limits)
    return lambda number: guard.answer(b"PING", source(number), 0.0, lambda: 0.0)


def bodies(limit: int) -> Add:
    """Return what stores a body for a new peer."""
    table: TransferTable[bytes] = TransferTable(limit, 1 << 30, 60.0)
    return lambda number: table.put(source(number), 0, b"x", 0.0)


def bodies_of_one_peer(limit: int) -> Add:
    """Return what stores a body for one peer, beside as many of others."""
    table: TransferTable[bytes] = TransferTable(limit, 1 << 30, 60.0)
    return lambda number: table.put(source(min(number, limit // 2)), number, b"x", 0.0)


def sessions(limit: int) -> Add:
    """Return what opens a session whose client has the same address as all others."""
    table = Sessions(lambda: 0.0)
    return lambda number: table.open("192.0.2.1", 5000, lambda line: None)


def ends_of_handshakes(limit: int) -> Add:
    """Return what begins a handshake at first, and then lets the time of one after another end."""
    clock = Clock()
    table = Handshakes(clock, limit * STEP, limit, lambda end: None)

    def begin_or_end(number: int) -> None:
        if number < limit:
            table.began(Connection(table))
        clock.advance(STEP)

    return begin_or_end


def announcements(limit: int) -> Add:
    """Return what announces servers, and then each of them again with another name."""
    table = Collector()

    def announce(number: int) -> None:
        place = number % limit
        name = f"name {number // limit}"
        announced = Announcement(1, name, "1", f"{place:032x}", {}, 60.0 + place)
        table.receive(encode_announcement(announced), source(place), 0.0)
        table.next_expiry()

    return announce


def coap_peers(limit: int, kind: Type, path: str, options: Pairs) -> Add:
    """Return what asks for a resource as a new peer."""
    limits = CoapLimits(max_peers=limit, max_transfers=limit, max_exchanges=limit)
    driver = Driver(standard_commands(), limits)

    def ask(number: int) -> None:
        driver.send(Code.GET, path, b"", options, kind=kind, source=source(number))
        driver.transport.written.clear()

    return ask


class FullTableTests(SynchronousTestCase):
    """What a stranger costs a full table, as a multiple of what it costs a small one."""

    def test_tables(self) -> None:
        """Ever new addresses, connections and names cost the same."""
        for make in (
            rates,
            delays,
            recent_use,
            handshakes,
            logins,
            unstorable_keys,
            origins,
            verified_addresses,
            datagrams,
            bodies,
            bodies_of_one_peer,
        ):
            self.assertLess(cost_ratio(make), FACTOR, make.__name__)

    def test_coap_peers(self) -> None:
        """Ever new CoAP peers cost the same, whatever they ask for."""
        for kind, path, options in (
            (Type.NON, "ping", []),
            (Type.CON, "events", [(int(Option.OBSERVE), b"")]),
            (Type.NON, ".well-known/core", [(int(Option.BLOCK2), b"\x00")]),
        ):
            make = partial(coap_peers, kind=kind, path=path, options=options)
            self.assertLess(cost_ratio(make, 50, 2000, 2000), FACTOR, path)

    def test_crowds(self) -> None:
        """So do sessions of one address, as behind a proxy, and time limits that end in turn."""
        for make in (sessions, ends_of_handshakes):
            self.assertLess(cost_ratio(make, 100, 4000, 100), FACTOR, make.__name__)

    def test_announcements(self) -> None:
        """So do servers that are announced again."""
        self.assertLess(cost_ratio(announcements, 16, MAX_INSTANCES, 4000), FACTOR)
