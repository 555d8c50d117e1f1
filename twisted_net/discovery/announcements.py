"""Announcements: their JSON format, and the table of servers that were announced."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import Annotated

import msgspec
from attrs import frozen
from msgspec import Meta

from twisted_net.discovery.errors import BadAnnouncement
from twisted_net.net.addresses import Source, client_prefix
from twisted_net.net.untrusted_json import JsonDecoder

MAX_ANNOUNCEMENT = 1200
"""Longest announcement in bytes: with headers it fits IPv6's minimum MTU (RFC 8200 §5)."""

MAX_INSTANCES = 1000
"""Instances in the table; a further one takes the place of that announced longest ago."""

MAX_PER_SOURCE = 16
"""
Instances per source (an IPv4 or link-local address, else a /64), so that one source with many
names cannot fill the table.
"""

MAX_TTL = 86_400.0
"""Longest validity of an announcement, in seconds."""

VERSION = 1
"""Version of the format; announcements of other versions count as malformed."""

# Of no control character, line separator or sign that turns the direction of a text (Unicode's
# Bidi_Control), as a name is shown to people. Not $, which a line feed may follow.
_UNPRINTED = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
PRINTED = rf"\A[^{_UNPRINTED}]*\Z"
"""Pattern of names and versions."""

_Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=PRINTED)]
_Port = Annotated[int, Meta(ge=1, le=65_535)]


class Announcement(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=False):
    """
    An announcement of a server.

    :ivar twisted_net: version of the format, :data:`VERSION`.
    :ivar name: display name.
    :ivar version: of the software.
    :ivar instance: unique ID of the server; a new one after each start.
    :ivar services: ports by service, ``{"tcp": 8888, "udp": 9999}``, at the source address of the
        announcement.
    :ivar ttl: validity in seconds; 0: the server stops.
    """

    twisted_net: int
    name: _Name
    version: Annotated[str, Meta(max_length=64, pattern=PRINTED)]
    instance: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    services: Annotated[dict[_Name, _Port], Meta(max_length=32)]
    ttl: Annotated[float, Meta(ge=0, le=MAX_TTL)]


class Query(msgspec.Struct, frozen=True):
    """A query to all servers of a group: they answer with an announcement."""

    twisted_net: int
    query: bool


class ChangeKind(Enum):
    """How an instance changed."""

    FOUND = "found"
    CHANGED = "changed"
    LOST = "lost"


@frozen
class Instance:
    """
    A server that was announced.

    :param host: source address of its announcement; it may be forged.
    :param expires: when it is lost unless it is announced again, by the clock of *now*.
    """

    name: str
    version: str
    instance: str
    host: str
    services: Mapping[str, int]
    expires: float


@frozen
class InstanceChange:
    """An instance that was found, changed or lost."""

    kind: ChangeKind
    instance: Instance


class Collector:
    """
    Table of the servers of a group, built from their announcements.

    Announcements are not authenticated: any host that can send to the group can announce
    anything, within the limits. An instance that gave way is found again with its next
    announcement.

    :ivar malformed: datagrams that were not valid announcements.
    :ivar refused: announcements rejected because their source has as many instances as it may.
    :ivar evicted: instances that gave way to newer ones.
    """

    def __init__(self) -> None:
        # Announced longest ago first.
        self._known: OrderedDict[tuple[str, str], Instance] = OrderedDict()
        self._per_source: dict[str, int] = {}
        # A heap of when each expires, with entries that a later announcement has made stale.
        self._expiries: list[tuple[float, tuple[str, str]]] = []
        self.malformed = 0
        self.refused = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def instances(self) -> list[Instance]:
        """The current instances, in the order in which they were last announced."""
        return list(self._known.values())

    def receive(self, datagram: bytes, source: Source, now: float) -> list[InstanceChange]:
        """Process a datagram; return the changes that it made, in order."""
        try:
            announced = parse_announcement(datagram)
        except BadAnnouncement:
            self.malformed += 1
            return []
        if announced is None:
            return []
        host = source[0]
        # By host too, so that no other host can withdraw or replace an instance.
        key = (host, announced.instance)
        before = self._known.get(key)
        if announced.ttl == 0:
            return [] if before is None else [self._lose(key)]
        instance = Instance(
            announced.name,
            announced.version,
            announced.instance,
            host,
            announced.services,
            now + announced.ttl,
        )
        if before is None:
            owner = _owner(host)
            held = self._per_source.get(owner, 0)
            if held >= MAX_PER_SOURCE:
                self.refused += 1
                return []
            changes = []
            if len(self._known) >= MAX_INSTANCES:
                self.evicted += 1
                changes.append(self._lose(next(iter(self._known))))
                held = self._per_source.get(owner, 0)
            self._per_source[owner] = held + 1
            self._keep(key, instance)
            return [*changes, InstanceChange(ChangeKind.FOUND, instance)]
        self._keep(key, instance)
        same = (before.name, before.version, before.services) == (
            instance.name,
            instance.version,
            instance.services,
        )
        return [] if same else [InstanceChange(ChangeKind.CHANGED, instance)]

    def expire(self, now: float) -> list[InstanceChange]:
        """Remove the instances whose validity has ended, and return these changes."""
        changes = []
        while (expiry := self.next_expiry()) is not None and expiry <= now:
            changes.append(self._lose(self._expiries[0][1]))
        return changes

    def next_expiry(self) -> float | None:
        """When the next instance expires, or None if there are none."""
        expiries = self._expiries
        while expiries:
            expires, key = expiries[0]
            known = self._known.get(key)
            if known is not None and known.expires == expires:
                return expires
            heappop(expiries)
        return None

    def _keep(self, key: tuple[str, str], instance: Instance) -> None:
        self._known[key] = instance
        self._known.move_to_end(key)
        heappush(self._expiries, (instance.expires, key))
        # Half of them are stale, at least: what this takes is paid by as many announcements.
        if len(self._expiries) > 2 * len(self._known) + 16:
            self._expiries = [(known.expires, key) for key, known in self._known.items()]
            heapify(self._expiries)

    def _lose(self, key: tuple[str, str]) -> InstanceChange:
        instance = self._known.pop(key)
        owner = _owner(instance.host)
        left = self._per_source[owner] - 1
        if left:
            self._per_source[owner] = left
        else:
            del self._per_source[owner]
        return InstanceChange(ChangeKind.LOST, instance)


def _owner(host: str) -> str:
    """Return the source to count by; all hosts of a link share the /64 of link-local addresses."""
    return host if host.startswith("fe80:") else client_prefix(host)


def encode_announcement(announcement: Announcement | Query) -> bytes:
    """
    Encode a message to a group.

    :raises ValueError: if it is longer than :data:`MAX_ANNOUNCEMENT`.
    """
    datagram = msgspec.json.encode(announcement)
    if len(datagram) > MAX_ANNOUNCEMENT:
        raise ValueError(f"an announcement has at most {MAX_ANNOUNCEMENT} bytes: shorten the name")
    return datagram


def is_query(datagram: bytes) -> bool:
    """Whether a datagram is a query."""
    if len(datagram) > MAX_ANNOUNCEMENT:
        return False
    try:
        asked = _decode_query(datagram)
    except ValueError:
        return False
    return asked.twisted_net == VERSION and asked.query


def parse_announcement(datagram: bytes) -> Announcement | None:
    """
    Parse an announcement; return None for a query.

    :raises BadAnnouncement: for anything else.
    """
    if len(datagram) > MAX_ANNOUNCEMENT:
        raise BadAnnouncement(f"it is longer than {MAX_ANNOUNCEMENT} bytes")
    try:
        announced = _decode_announcement(datagram)
    except ValueError as error:
        if is_query(datagram):
            return None
        raise BadAnnouncement(str(error)) from None
    if announced.twisted_net != VERSION:
        raise BadAnnouncement(f"its version is {announced.twisted_net}, not {VERSION}")
    return announced


_decode_query: JsonDecoder[Query] = JsonDecoder(Query)
_decode_announcement: JsonDecoder[Announcement] = JsonDecoder(Announcement)
