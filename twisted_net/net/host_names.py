"""Hosts of URLs: names, IPv4 addresses in every spelling, IPv6 addresses; each in one form."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

MAX_NAME = 253
"""Characters of a name without its final dot: 255 octets on the wire (RFC 1035 §2.3.4)."""

MAX_LABEL = 63
"""Characters of one label (RFC 1035 §2.3.4)."""

_LABEL = re.compile(r"[a-z0-9_-]+")
_HEX = re.compile(r"0x[0-9a-f]*")
_OCTAL = re.compile(r"0[0-7]*")
_BRACKETS = re.compile(r"\[[0-9A-Fa-f:.]+\]")


def canonical_host(text: str) -> str:
    """
    Return a host as the one of its spellings by which it is compared.

    A name is in lower case, by IDNA where it is not ASCII (RFC 5891, after the mapping of UTS 46);
    a final dot is kept. A host whose last label is a number is an IPv4 address, as the URL
    standard of WHATWG reads it: parts may be octal or hexadecimal, and the last of fewer than four
    fills the rest (``0x7f.1`` is ``127.0.0.1``, as for the system's resolver). An IPv6 address is
    without its brackets, in the form of RFC 5952 with an embedded IPv4 address in groups.

    Percent-encoded names and IPv6 zones are refused, since URL parsers differ about them.

    :param text: as in a URL, an IPv6 address in brackets.
    :raises ValueError: if it is no host; the message is a reason, such as ``its host is empty``.
    """
    if text.startswith("["):
        return _ipv6(text)
    name = (text if text.isascii() else _by_idna(text)).lower()
    bare = name.removesuffix(".")
    if not bare:
        raise ValueError("its host is empty")
    if len(bare) > MAX_NAME:
        raise ValueError(f"its host is longer than {MAX_NAME} characters")
    labels = bare.split(".")
    for label in labels:
        if not label:
            raise ValueError("its host has an empty label")
        if len(label) > MAX_LABEL:
            raise ValueError(f"its host has a label longer than {MAX_LABEL} characters")
        if _LABEL.fullmatch(label) is None:
            raise ValueError("its host is malformed")
    if name[0] == "-":
        # Programs that such a host is passed to take it for an option.
        raise ValueError("its host begins with a hyphen")
    if labels[-1].isdigit() or _HEX.fullmatch(labels[-1]):
        return _ipv4(labels)
    return name


def canonical_network(text: str) -> IPv4Network | IPv6Network:
    """
    Return a network or an address; one of IPv4-mapped addresses as that of IPv4.

    Addresses are compared as :func:`~twisted_net.net.addresses.parse_ip` returns them.

    :raises ValueError: if it is none, or has bits set beyond its prefix.
    """
    network = ip_network(text)
    mapped = network.network_address
    if isinstance(mapped, IPv6Address) and mapped.ipv4_mapped and network.prefixlen >= 96:
        return IPv4Network((mapped.ipv4_mapped, network.prefixlen - 96))
    return network


def _ipv4(labels: list[str]) -> str:
    """Return the address whose parts are *labels*, by the IPv4 parser of WHATWG's URL standard."""
    try:
        numbers = [_number(label) for label in labels]
        *high, low = numbers
        if len(high) > 3 or any(number > 255 for number in high):
            raise ValueError
        address = low
        if low >= 256 ** (4 - len(high)):
            raise ValueError
        for i, number in enumerate(high):
            address += number * 256 ** (3 - i)
        return str(IPv4Address(address))
    except ValueError:
        raise ValueError("its host ends in a number, but is not an IPv4 address") from None


def _number(label: str) -> int:
    if _HEX.fullmatch(label):
        return int(label[2:] or "0", 16)
    if _OCTAL.fullmatch(label):
        return int(label, 8)
    if label[0] == "0" or not label.isdigit():
        raise ValueError
    return int(label)


def _ipv6(text: str) -> str:
    try:
        if _BRACKETS.fullmatch(text) is None:
            raise ValueError
        address = IPv6Address(text[1:-1])
    except ValueError:
        raise ValueError("its IPv6 address is malformed") from None
    if address.ipv4_mapped is None:
        return str(address)
    # Python 3.13 writes it with dots.
    number = int(address.ipv4_mapped)
    return f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}"


def _by_idna(text: str) -> str:
    """Return a name in ASCII: mapped (UTS 46), its labels encoded by IDNA (RFC 5891 §4)."""
    if len(text) > MAX_NAME:
        # Each character takes one at least; and the time to encode them is bounded so.
        raise ValueError(f"its host is longer than {MAX_NAME} characters")
    # Imported only here: its tables take 1 MB.
    import idna

    try:
        labels = idna.uts46_remap(text, std3_rules=False, transitional=False).split(".")
        # Labels in ASCII are not checked by IDNA, which refuses an underscore.
        return ".".join(
            label if label.isascii() else idna.alabel(label).decode() for label in labels
        )
    except idna.IDNAError as error:
        raise ValueError(f"its host is not a name by IDNA: {error}") from None
