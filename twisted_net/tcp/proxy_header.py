"""
PROXY protocol header: parses versions 1 and 2 from the first bytes of a connection.

The rules are those of HAProxy's specification of 2020, "The PROXY protocol, versions 1 & 2":
https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network

from attrs import frozen

from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import BadProxyHeader
from twisted_net.net.addresses import UNIX, parse_ip

V1_MAX = 107
"""Bytes of the longest header of version 1, its CRLF included (§2.1)."""

V2_MAX = 4096
"""
Bytes of the longest header of version 2 that is read; the format itself allows 65 551.

The addresses take 232 bytes at most. Further fields are skipped; a host name, a token and the name
of a certificate are common.
"""

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED = 16
_V1_PORT = re.compile(r"0|[1-9]\d{0,4}", re.ASCII)
_V1_FAMILIES: dict[str, type[IPv4Address | IPv6Address]] = {
    "TCP4": IPv4Address,
    "TCP6": IPv6Address,
}
_LOCAL, _PROXIED = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_V2_FAMILIES: dict[int, tuple[type[IPv4Address | IPv6Address], int]] = {
    _TCP4: (IPv4Address, 4),
    _TCP6: (IPv6Address, 16),
}


@frozen
class ProxyHeader:
    """
    The addresses that a proxy announces for the connection that it forwards.

    :param length: bytes of the header; the client's own bytes follow.
    :param source: address and port of the client; None if the connection is the proxy's own, such
        as a health check, or if the proxy does not know.
    :param destination: address and port that the client connected to; None if *source* is.
    """

    length: int
    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None


def parse_header(data: bytes) -> ProxyHeader | None:
    """
    Parse a header.

    :param data: all bytes received on the connection so far.
    :return: None if more bytes are needed.
    :raises BadProxyHeader: as soon as no continuation can make a valid header.
    """
    if data.startswith(_V2):
        return _parse_v2(data)
    if data.startswith(_V1):
        return _parse_v1(data)
    if _V2.startswith(data) or _V1.startswith(data):
        return None
    raise BadProxyHeader("it does not begin with the signature of version 1 or 2")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, V1_MAX)
    if end < 0:
        if len(data) >= V1_MAX:
            raise BadProxyHeader(f"its line does not end within {V1_MAX} bytes")
        return None
    length = end + 2
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise BadProxyHeader("its line is not ASCII") from None
    # What follows UNKNOWN is to be ignored.
    if words[1] == "UNKNOWN":
        return ProxyHeader(length)
    address_type = _V1_FAMILIES.get(words[1])
    if address_type is None or len(words) != 6:
        raise BadProxyHeader("its line is not TCP4 or TCP6, two addresses and two ports")
    # A zone may be any text, control characters too, and has no meaning on another machine.
    if "%" in words[2] + words[3]:
        raise BadProxyHeader("an address in it has a zone")
    try:
        source, destination = (str(address_type(word)) for word in words[2:4])
    except AddressValueError:
        raise BadProxyHeader(f"an address in it is not of {words[1]}") from None
    source_port, destination_port = map(_v1_port, words[4:])
    return ProxyHeader(length, (source, source_port), (destination, destination_port))


def _v1_port(word: str) -> int:
    if not _V1_PORT.fullmatch(word) or int(word) > 65_535:
        raise BadProxyHeader("a port in it is not a number from 0 to 65535")
    return int(word)


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED:
        return None
    command, family = data[12], data[13]
    length = _V2_FIXED + int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXIED):
        raise BadProxyHeader(f"0x{command:02x} is not a valid version and command")
    if length > V2_MAX:
        raise BadProxyHeader(f"it is {length} bytes long, and no more than {V2_MAX} are read")
    if command == _PROXIED and family in _V2_FAMILIES:
        address_type, size = _V2_FAMILIES[family]
        if length < _V2_FIXED + 2 * size + 4:
            raise BadProxyHeader("it is too short for its addresses")
    elif command == _PROXIED and family not in (_UNSPECIFIED, _UNIX_STREAM):
        raise BadProxyHeader(f"0x{family:02x} is not a family of stream addresses")
    else:
        address_type, size = None, 0
    if len(data) < length:
        return None
    if address_type is None:
        return ProxyHeader(length)
    first, second, third = _V2_FIXED, _V2_FIXED + size, _V2_FIXED + 2 * size
    return ProxyHeader(
        length,
        (str(address_type(data[first:second])), int.from_bytes(data[third : third + 2])),
        (str(address_type(data[second:third])), int.from_bytes(data[third + 2 : third + 4])),
    )


@check_arguments
class TrustedProxies:
    """
    The peers whose PROXY headers are accepted.

    :param words: addresses and networks, such as ``10.0.0.0/8``, and ``unix`` for the peers of a
        Unix socket.
    :raises ValueError: for a word that is none of these.
    """

    def __init__(self, words: Iterable[str]) -> None:
        words = tuple(words)
        self._unix = UNIX in words
        self._networks = [ip_network(word) for word in words if word != UNIX]

    def trusts(self, host: str | None) -> bool:
        """
        Return whether a peer is one of them.

        :param host: its address; None for the peer of a Unix socket.
        """
        if host is None:
            return self._unix
        address = parse_ip(host)
        return address is not None and any(address in network for network in self._networks)
