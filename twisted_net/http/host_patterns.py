"""Host patterns: lists of host names, domains, addresses and networks, as settings write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from attrs import frozen

from twisted_net.net.addresses import parse_ip
from twisted_net.net.host_names import canonical_host, canonical_network

_DOMAIN = re.compile(r"(?P<below>\*\.|\.)?(?P<name>.+)", re.DOTALL)


@frozen(slots=True)
class NamePattern:
    """
    A host name, or all names below a domain.

    :param name: in canonical form, without a final dot.
    :param below: whether it is the domain.
    """

    name: str
    below: bool


def parse_pattern(text: str) -> NamePattern | IPv4Network | IPv6Network:
    """
    Parse a host name, ``*.`` or a dot and a domain, an address or a network.

    An address may be in any spelling that a URL may have, so that none passes by a pattern.

    :raises ValueError: if it is none of these; its message does not show the text.
    """
    text = text.strip()
    try:
        return canonical_network(text.strip("[]"))
    except ValueError as error:
        if "host bits set" in str(error):
            raise
    match = _DOMAIN.fullmatch(text)
    if match is None or ":" in text:
        raise ValueError("not a host name, an address or a network")
    name = canonical_host(match["name"]).removesuffix(".")
    if parse_ip(name) is None:
        return NamePattern(name, below=match["below"] is not None)
    if match["below"]:
        raise ValueError("an address has no names below it")
    return canonical_network(name)


class HostPatterns:
    """
    A list of host names, domains, addresses and networks.

    ``localhost`` matches this name alone, ``*.example.org`` and ``.example.org`` all names below
    the domain, ``127.0.0.1`` and ``::1`` the address, ``10.0.0.0/8`` all addresses of the network.
    Hosts are compared in canonical form (:mod:`twisted_net.net.host_names`), so that ``127.1`` is
    ``127.0.0.1`` here as in a URL; IPv4-mapped addresses are those of IPv4.

    :raises ValueError: for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._domains: list[str] = []
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            try:
                pattern = parse_pattern(entry)
            except ValueError as error:
                if "host bits set" in str(error):
                    raise
                raise ValueError(f"{entry!r} is not a host name, an address or a network") from None
            if not isinstance(pattern, NamePattern):
                self._networks.append(pattern)
            elif pattern.below:
                self._domains.append(f".{pattern.name}")
            else:
                self._names.add(pattern.name)

    def has_name(self, host: str) -> bool:
        """Whether a host name, in lower case, is listed or is below a domain that is listed."""
        name = host.rstrip(".")
        return name in self._names or any(name.endswith(domain) for domain in self._domains)

    def has_address(self, address: IPv4Address | IPv6Address) -> bool:
        """
        Whether an address is in one of the networks that are listed.

        :param address: not an IPv4-mapped one, but that of IPv4.
        """
        # "in" is False for a network of the other family.
        return any(address in network for network in self._networks)
