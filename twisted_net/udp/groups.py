"""Multicast groups and broadcast addresses: checks, and the interfaces on which to join."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address

from attrs import frozen

from twisted_net.net.addresses import is_loopback, is_numeric

ALL_COAP_NODES = ("224.0.1.187", "ff02::fd", "ff05::fd")
"""All CoAP nodes: the IPv4 group, the IPv6 link-local and site-local ones (RFC 7252 §12.8)."""

MAX_GROUPS = 20
"""Groups per server: Linux lets a socket join 20 IPv4 groups (igmp_max_memberships)."""


@frozen
class Group:
    """
    A multicast group on one interface.

    :param address: the multicast address.
    :param interface: name or IPv4 address of the interface; None: as routed.
    """

    address: str
    interface: str | None = None

    @property
    def version(self) -> int:
        """IP version: 4 or 6."""
        return ip_address(self.address).version

    def __str__(self) -> str:
        return self.address if self.interface is None else f"{self.address} on {self.interface}"


def groups_on(addresses: Iterable[str], interfaces: Iterable[str]) -> list[Group]:
    """
    Return every group on every interface where it can be joined.

    An interface that is named by its IPv4 address can join IPv4 groups only.
    """
    joined_on = tuple(interfaces)
    if not joined_on:
        return [Group(address) for address in addresses]
    return [
        Group(address, interface)
        for address in addresses
        for interface in joined_on
        if ip_address(address).version == 4 or not is_numeric(interface)
    ]


def check_groups(groups: tuple[str, ...], interfaces: tuple[str, ...]) -> None:
    """
    Check that the groups can be joined on the interfaces.

    :raises ValueError: naming the first mistake, and what is allowed.
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
                f"groups: {group!r} is not a multicast address: use 224.0.0.0 to "
                "239.255.255.255, or an IPv6 address that begins with ff"
            )
    for interface in interfaces:
        if is_numeric(interface) and ip_address(interface).version == 6:
            raise ValueError(
                f"interfaces: {interface}: name an IPv6 interface by its name, not its address"
            )
    if interfaces and len(groups_on(groups, interfaces)) < len(groups):
        raise ValueError("interfaces: an IPv6 group needs an interface name")


def check_family(groups: Iterable[str], interface: str) -> None:
    """
    Check that a server's port can answer the members of its groups.

    :param interface: the interface of the server's own port.
    :raises ValueError: for a group of the other IP version.
    """
    version = 6 if ":" in interface else 4
    for group in groups:
        if ip_address(group).version != version:
            raise ValueError(
                f"multicast.groups: {group} is not an IPv{version} group, which interface"
                f" {interface!r} needs"
            )


def is_loopback_interface(interface: str) -> bool:
    """Whether datagrams sent on an interface stay on this machine."""
    return interface == "lo" or is_loopback(interface)


def is_broadcast(text: str) -> bool:
    """Whether an IPv4 address looks like a network's broadcast address: it ends in ``.255``."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return isinstance(address, IPv4Address) and not address.is_multicast and text.endswith(".255")
