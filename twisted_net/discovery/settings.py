"""What can be set for discovery: where servers announce themselves, how often, under which name."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.net.addresses import is_loopback, is_numeric
from twisted_net.udp.groups import (
    Group,
    check_groups,
    groups_on,
    is_broadcast,
    is_loopback_interface,
)

DEFAULT_GROUP = "239.255.93.71"
"""Of IPv4's local scope (239.255.0.0/16, RFC 2365), which no router lets out of a site."""

DEFAULT_PORT = 9997
"""Two below that of ``[udp]``."""


class DiscoveryPlace(Record, frozen=True):
    """
    The group in which servers find each other.

    :raises ValueError: for what is neither a group nor a broadcast address.
    """

    group: Annotated[
        str, Meta(description="multicast address, or one of IPv4 that ends with .255: broadcast")
    ] = DEFAULT_GROUP
    port: Annotated[int, Meta(ge=1, le=65_535, description="port of the group")] = DEFAULT_PORT
    interfaces: Annotated[
        tuple[str, ...],
        Meta(description="where it is used: names, or addresses of IPv4; none: as routed"),
    ] = ()
    hops: Annotated[
        int, Meta(ge=0, le=255, description="routers that are passed, and one; 1: the own link")
    ] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            if not is_broadcast(self.group):
                check_groups((self.group,), self.interfaces)
            elif not all(map(is_numeric, self.interfaces)):
                raise ValueError("interfaces: a broadcast leaves from addresses, not from names")
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None

    @property
    def local(self) -> bool:
        """Whether only programs of this machine can hear what is sent."""
        if is_broadcast(self.group):
            return is_loopback(self.group)
        return bool(self.interfaces) and all(map(is_loopback_interface, self.interfaces))

    @property
    def places(self) -> list[Group]:
        """The group on each interface."""
        return groups_on((self.group,), self.interfaces)


class DiscoverySettings(DiscoveryPlace, frozen=True):
    """
    Announcements of this server, ``[discovery]``.

    Nobody who upgrades is announced; who wants it enables it. An announcement holds for three
    intervals, so that two of them may be lost.
    """

    enabled: Annotated[
        bool, Meta(description="whether this server announces itself to a group")
    ] = False
    name: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=r"^[^\x00-\x1f\x7f]*$",
            description='its name for people; "": that of the machine',
        ),
    ] = ""
    interval: Annotated[
        float, Meta(ge=1, le=28_800, description="seconds between two announcements")
    ] = 10.0
