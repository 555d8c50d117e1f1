"""Settings of discovery: the group, and what a server announces how often."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.discovery.announcements import PRINTED
from twisted_net.net.addresses import is_loopback, is_numeric
from twisted_net.udp.groups import (
    Group,
    check_groups,
    groups_on,
    is_broadcast,
    is_loopback_interface,
)

DEFAULT_GROUP = "239.255.93.71"
"""In IPv4's local scope (239.255.0.0/16, RFC 2365), which routers keep within a site."""

DEFAULT_PORT = 9997
"""The default UDP port less two."""


class DiscoveryGroup(Record, frozen=True):
    """
    The multicast group, or broadcast address, on which servers announce themselves.

    :raises ValueError: for an address of another kind.
    """

    group: Annotated[
        str, Meta(description="multicast address, or IPv4 broadcast address that ends with .255")
    ] = DEFAULT_GROUP
    port: Annotated[int, Meta(ge=1, le=65_535, description="port of the group")] = DEFAULT_PORT
    interfaces: Annotated[
        tuple[str, ...],
        Meta(description="interfaces to use, by name or IPv4 address; none: as routed"),
    ] = ()
    hops: Annotated[
        int, Meta(ge=0, le=255, description="time to live of announcements; 1: this link only")
    ] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            if not is_broadcast(self.group):
                check_groups((self.group,), self.interfaces)
            elif not all(map(is_numeric, self.interfaces)):
                raise ValueError("interfaces: for broadcasts name interfaces by IPv4 address")
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None

    @property
    def local(self) -> bool:
        """Whether announcements reach only programs on this machine."""
        if is_broadcast(self.group):
            return is_loopback(self.group)
        return bool(self.interfaces) and all(map(is_loopback_interface, self.interfaces))

    @property
    def groups(self) -> list[Group]:
        """The group on each interface."""
        return groups_on((self.group,), self.interfaces)


class DiscoverySettings(DiscoveryGroup, frozen=True):
    """
    Announcements of this server, ``[discovery]``.

    Off by default, so that an upgrade announces nothing. An announcement is valid for three
    intervals, so that two may be lost.
    """

    enabled: Annotated[bool, Meta(description="announce this server to a group")] = False
    name: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=PRINTED,
            description='display name; "": the host name',
        ),
    ] = ""
    interval: Annotated[
        float, Meta(ge=1, le=28_800, description="seconds between two announcements")
    ] = 10.0
