"""Groups of receivers: what may be joined, where, and what is asked of the kernel for it."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from typing import Annotated

from attrs import frozen
from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.net.addresses import is_loopback, is_numeric

ALL_COAP_NODES = ("224.0.1.187", "ff02::fd", "ff05::fd")
"""The groups of all CoAP nodes: of IPv4, of an IPv6 link, of an IPv6 site (RFC 7252 §12.8)."""

MAX_GROUPS = 20
"""Groups of one server; Linux lets a socket join as many of IPv4 (igmp_max_memberships)."""


class GroupSettings(Record, frozen=True):
    """
    Which groups a server listens to, beside its own address.

    Answers leave from the server's own port, each at a random moment of the *leisure* of the
    protocol, so that many servers do not answer at once (RFC 7252 §8.2).

    :raises ValueError: for what is no group.
    """

    groups: Annotated[
        tuple[str, ...],
        Meta(description="multicast addresses to listen to, such as 224.0.1.187 or ff02::fd"),
    ] = ()
    interfaces: Annotated[
        tuple[str, ...],
        Meta(description="where they are joined: names, or addresses of IPv4; none: as routed"),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_groups(self.groups, self.interfaces)


@frozen
class Group:
    """
    A group on one network.

    :param address: of many receivers.
    :param interface: its name or its IPv4 address, or None for the one that the routes lead to.
    """

    address: str
    interface: str | None = None

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_address(self.address).version

    def __str__(self) -> str:
        return self.address if self.interface is None else f"{self.address} on {self.interface}"


def groups_on(addresses: Iterable[str], interfaces: Iterable[str]) -> list[Group]:
    """Give each group on each interface on which it can be; an address is one of IPv4 alone."""
    places = tuple(interfaces)
    if not places:
        return [Group(address) for address in addresses]
    return [
        Group(address, place)
        for address in addresses
        for place in places
        if ip_address(address).version == 4 or not is_numeric(place)
    ]


def check_groups(groups: tuple[str, ...], interfaces: tuple[str, ...]) -> None:
    """
    Refuse what cannot be joined.

    :raises ValueError: saying what, and what is allowed.
    """
    if len(groups) > MAX_GROUPS:
        raise ValueError(f"groups: at most {MAX_GROUPS} groups, not {len(groups)}")
    for group in groups:
        try:
            known = ip_address(group)
        except ValueError:
            known = None
        if known is None or not known.is_multicast:
            raise ValueError(
                f"groups: {group!r} is no multicast address; those of IPv4 are 224.0.0.0 to "
                "239.255.255.255, those of IPv6 begin with ff"
            )
    for interface in interfaces:
        if is_numeric(interface) and ip_address(interface).version == 6:
            raise ValueError(f"interfaces: {interface}: an interface of IPv6 is given by its name")
    if interfaces and len(groups_on(groups, interfaces)) < len(groups):
        raise ValueError("interfaces: a group of IPv6 needs the name of an interface")


def check_family(groups: Iterable[str], interface: str) -> None:
    """
    Refuse groups that the port of a server cannot answer.

    :param interface: that of the server's own port.
    :raises ValueError: for a group of the other version of IP.
    """
    version = 6 if ":" in interface else 4
    for group in groups:
        if ip_address(group).version != version:
            raise ValueError(
                f"multicast.groups: {group} is none of IPv{version}, as interface {interface!r} is"
            )


def is_own_interface(interface: str) -> bool:
    """Whether what is sent there stays on this machine."""
    return interface == "lo" or is_loopback(interface)


def is_broadcast(text: str) -> bool:
    """Whether an address of IPv4 may be that of all hosts of a network, as far as it shows."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return isinstance(address, IPv4Address) and not address.is_multicast and text.endswith(".255")
