"""What servers tell of themselves to a group, and what is known of those that were heard."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated

import msgspec
from attrs import frozen
from msgspec import Meta

from twisted_net.discovery.errors import BadAnnouncement
from twisted_net.net.addresses import Source, client_prefix

MAX_ANNOUNCEMENT = 1200
"""Bytes of an announcement: with its headers it fits what every path of IPv6 carries (RFC 8200)."""

MAX_INSTANCES = 1000
"""Instances that are remembered; one more is not, until one of them is lost."""

MAX_PER_SOURCE = 16
"""
Instances of one source (an address of IPv4 or of a link, else a /64): whoever forges names fills
no more.
"""

MAX_TTL = 86_400.0
"""Seconds for which an announcement may hold at most."""

VERSION = 1
"""Of the form of announcements; others are passed over, as malformed."""

_Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Port = Annotated[int, Meta(ge=1, le=65_535)]


class Announcement(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=False):
    """
    What a server tells of itself.

    :ivar twisted_net: the form of the announcement, :data:`VERSION`.
    :ivar name: for people.
    :ivar version: of the software.
    :ivar instance: tells servers apart; another one after each start.
    :ivar services: ports by service, ``{"tcp": 8888, "udp": 9999}``, at the address that it came
        from.
    :ivar ttl: seconds for which it holds; 0: the server goes.
    """

    twisted_net: int
    name: _Name
    version: Annotated[str, Meta(max_length=64)]
    instance: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    services: Annotated[dict[_Name, _Port], Meta(max_length=32)]
    ttl: Annotated[float, Meta(ge=0, le=MAX_TTL)]


class Query(msgspec.Struct, frozen=True):
    """A question to all servers of a group: they announce themselves soon."""

    twisted_net: int
    query: bool


class Happened(Enum):
    """What became of an instance."""

    FOUND = "found"
    CHANGED = "changed"
    LOST = "lost"


@frozen
class Instance:
    """
    A server that was heard.

    :param host: the address that its announcement came from; it may be forged.
    :param expires: when it is lost unless it is heard again, by the clock of *now*.
    """

    name: str
    version: str
    instance: str
    host: str
    services: Mapping[str, int]
    expires: float


@frozen
class Change:
    """Something that became of an instance."""

    happened: Happened
    instance: Instance


class Collector:
    """
    The servers of a group, by what they announce.

    Nobody proves who it is: whoever can send to the group can announce anything, in bounds.

    :ivar malformed: datagrams that were no announcements.
    :ivar refused: announcements for which there was no room.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Instance] = {}
        self._per_source: dict[str, int] = {}
        self.malformed = 0
        self.refused = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def instances(self) -> list[Instance]:
        """Those that are known now, in the order in which they were found."""
        return list(self._known.values())

    def receive(self, datagram: bytes, source: Source, now: float) -> Change | None:
        """Take in a datagram; say what it changed, if anything."""
        try:
            announced = parse_announcement(datagram)
        except BadAnnouncement:
            self.malformed += 1
            return None
        if announced is None:
            return None
        host = source[0]
        # By its host too: nobody can take another one's instance away from elsewhere.
        key = (host, announced.instance)
        before = self._known.get(key)
        if announced.ttl == 0:
            return None if before is None else self._lose(key)
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
            if len(self._known) >= MAX_INSTANCES or held >= MAX_PER_SOURCE:
                self.refused += 1
                return None
            self._per_source[owner] = held + 1
            self._known[key] = instance
            return Change(Happened.FOUND, instance)
        self._known[key] = instance
        same = (before.name, before.version, before.services) == (
            instance.name,
            instance.version,
            instance.services,
        )
        return None if same else Change(Happened.CHANGED, instance)

    def expire(self, now: float) -> list[Change]:
        """Lose those that were not heard again in their time."""
        late = [key for key, instance in self._known.items() if instance.expires <= now]
        return [self._lose(key) for key in late]

    def next_expiry(self) -> float | None:
        """When the next one is lost, or None where nobody is known."""
        return min((instance.expires for instance in self._known.values()), default=None)

    def _lose(self, key: tuple[str, str]) -> Change:
        instance = self._known.pop(key)
        owner = _owner(instance.host)
        left = self._per_source[owner] - 1
        if left:
            self._per_source[owner] = left
        else:
            del self._per_source[owner]
        return Change(Happened.LOST, instance)


def _owner(host: str) -> str:
    """Give whose an address is: all of a link share the /64 of their link-local ones."""
    return host if host.startswith("fe80:") else client_prefix(host)


def encode_announcement(announcement: Announcement | Query) -> bytes:
    """
    Encode what is sent to a group.

    :raises ValueError: where it is longer than :data:`MAX_ANNOUNCEMENT`.
    """
    datagram = msgspec.json.encode(announcement)
    if len(datagram) > MAX_ANNOUNCEMENT:
        raise ValueError(f"an announcement has at most {MAX_ANNOUNCEMENT} bytes: use a short name")
    return datagram


def is_query(datagram: bytes) -> bool:
    """Whether a datagram asks who is there."""
    if len(datagram) > MAX_ANNOUNCEMENT:
        return False
    try:
        asked = msgspec.json.decode(datagram, type=Query)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return asked.twisted_net == VERSION and asked.query


def parse_announcement(datagram: bytes) -> Announcement | None:
    """
    Read an announcement; None for a question, which is none.

    :raises BadAnnouncement: for anything else.
    """
    if len(datagram) > MAX_ANNOUNCEMENT:
        raise BadAnnouncement(f"it is longer than {MAX_ANNOUNCEMENT} bytes")
    try:
        announced = msgspec.json.decode(datagram, type=Announcement)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if is_query(datagram):
            return None
        raise BadAnnouncement(str(error)) from None
    if announced.twisted_net != VERSION:
        raise BadAnnouncement(f"its form is {announced.twisted_net}, not {VERSION}")
    return announced
