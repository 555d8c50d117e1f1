"""IP addresses: their text form with a port, loopback test, and the network prefix to count by."""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from heapq import heappop, heappush
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

Source: TypeAlias = tuple[str, int]
"""Source of a datagram: a numeric host (with ``%scope`` where IPv6 needs one) and a port."""

UNIX = "unix"
"""
Stands for the host of a client that is connected through a Unix socket, where its user is not
known; see :func:`unix_host`.
"""

_UNIX_USER = "unix:uid="


def format_address(host: str, port: int) -> str:
    """
    Write an address as ``host:port``, an IPv6 host in brackets (RFC 3986 §3.2.2).

    The host of a Unix socket's client, ``unix:uid=1000``, has none.

    An empty host, to which sockets are bound for all IPv4 interfaces, is written ``0.0.0.0``.
    """
    if ":" in host and not host.startswith(_UNIX_USER):
        return f"[{host}]:{port}"
    return f"{host or '0.0.0.0'}:{port}"


class ClientNames:
    """
    Names of clients: their addresses, numbered from 2 where several have the same one.

    So do clients that use the same port to connect to two of ours, all of one user at a Unix
    socket, and those that a proxy announces with one address, as many as it likes. The smallest
    number that is free is found in O(log n).

    :param taken: the names in use; the caller adds and removes them.
    """

    def __init__(self, taken: Container[str]) -> None:
        self._taken = taken
        # For each name that was taken: the next number, and those before it that are free again.
        self._numbers: dict[str, tuple[int, list[int]]] = {}

    def free_name(self, host: str, port: int) -> str:
        """Return a name that is not in use, which the caller puts to use now."""
        name = format_address(host, port)
        if name not in self._taken:
            return name
        number, free = self._numbers.get(name, (2, []))
        if free:
            return f"{name}#{heappop(free)}"
        self._numbers[name] = number + 1, free
        return f"{name}#{number}"

    def release(self, name: str) -> None:
        """Note that a name is no longer in use."""
        if not self._numbers:
            return
        address, _, number = name.rpartition("#")
        if address in self._numbers:
            following, free = self._numbers[address]
            heappush(free, int(number))
            if len(free) == following - 2:
                del self._numbers[address]


@lru_cache(256)
def unix_host(uid: int) -> str:
    """
    Return what stands for the host of a client that is connected through a Unix socket.

    Limits, rates and delays that hold for an address hold for it: one of the users of this machine
    shares none with another.

    :param uid: the user of the client's process.
    """
    return f"{_UNIX_USER}{uid}"


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """
    Parse an IP address, or return None where *text* is not one.

    An IPv4-mapped IPv6 address (``::ffff:192.0.2.1``, RFC 4291 §2.5.5.2) is returned as the IPv4
    address: an IPv6 socket shows its IPv4 clients in this form.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_numeric(host: str) -> bool:
    """Whether a host is written as an IP address, without brackets, and not as a name."""
    return parse_ip(host) is not None


def is_loopback(host: str) -> bool:
    """
    Whether a host is a loopback address: 127.0.0.0/8 (IPv4-mapped too) or ``::1``.

    As a source address it cannot come from another machine.
    """
    # What has neither beginning is the usual client, and needs no parsing.
    return (host.startswith("127.") or ":" in host) and _is_loopback(host)


def is_unix(host: str) -> bool:
    """Whether a host is that of clients of a Unix socket."""
    return host == UNIX or host.startswith(_UNIX_USER)


def is_local(host: str) -> bool:
    """Whether a client is on this machine: its address is loopback, or it uses a Unix socket."""
    return is_unix(host) or is_loopback(host)


def network_of(host: str) -> str:
    """
    Return the network that one owner most likely holds: the /24 of IPv4, the /64 of IPv6.

    An IPv4-mapped IPv6 address counts as IPv4. A host that is not an address, such as
    :data:`UNIX`, is a network of its own.

    :param host: an address as the kernel writes it, or a name that does not end in digits.
    """
    head, dot, last = host.rpartition(".")
    # Dotted IPv4 needs no parsing: a tenth of the price for a source that is not in the cache.
    if dot and ":" not in head and last.isdigit():
        return f"{head}.0/24"
    return _network_of(host)


@lru_cache(4096)
def networks_around(host: str) -> tuple[str, ...]:
    """
    Return the networks that one owner may hold, the smaller first.

    They are the /24 and the /16 of IPv4, the /48 of a site (RFC 6177) and the /32 of a provider of
    IPv6. An IPv4-mapped address is one of IPv4. Other hosts are in no network.
    """
    address = parse_ip(host)
    if address is None:
        return ()
    lengths = (24, 16) if isinstance(address, IPv4Address) else (48, 32)
    networks = []
    for length in lengths:
        below = address.max_prefixlen - length
        networks.append(f"{type(address)(int(address) >> below << below)}/{length}")
    return tuple(networks)


def spellings_of(host: str) -> frozenset[str]:
    """
    Return all ways in which the host of a client may be written that is the same as this one.

    They are the shortest one (RFC 5952) and, for IPv4, those of the IPv4-mapped address, which the
    kernel writes with dots, and :mod:`ipaddress` before Python 3.13 with colons alone. An address
    with a zone is another than that without; what is no address has one way.
    """
    address = parse_ip(host)
    if address is None:
        return frozenset({host})
    if isinstance(address, IPv6Address):
        return frozenset({str(address)})
    number = int(address)
    in_groups = f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}"
    return frozenset({str(address), f"::ffff:{address}", in_groups})


@lru_cache(4096)
def client_prefix(host: str) -> str:
    """
    Return the part of its address that a client cannot choose: all of IPv4, the /64 of IPv6.

    As with :func:`network_of`, IPv4-mapped addresses count as IPv4, and a host that is not an
    address is returned as it is.
    """
    address = parse_ip(host)
    return str(address) if isinstance(address, IPv4Address) else _network_of(host)


@lru_cache(4096)
def _is_loopback(host: str) -> bool:
    address = parse_ip(host)
    return address is not None and address.is_loopback


@lru_cache(4096)
def _network_of(host: str) -> str:
    match parse_ip(host):
        case IPv4Address() as address:
            return str(address).rpartition(".")[0] + ".0/24"
        case IPv6Address() as address:
            return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return host
