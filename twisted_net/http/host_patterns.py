"""Host patterns: lists of host names, domains, addresses and networks, as settings write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

NAME = re.compile(r"(?:\*\.|\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?")
"""A host name, or a domain that begins with ``*.`` or a dot; in lower case."""


class HostPatterns:
    """
    A list of host names, domains, addresses and networks.

    ``localhost`` matches this name alone, ``*.example.org`` and ``.example.org`` all names below
    the domain, ``127.0.0.1`` and ``::1`` the address, ``10.0.0.0/8`` all addresses of the network.

    :raises ValueError: for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._domains: list[str] = []
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            text = entry.strip().lower().rstrip(".").strip("[]")
            try:
                self._networks.append(ip_network(text))
                continue
            except ValueError as error:
                if "host bits set" in str(error):
                    raise
            if NAME.fullmatch(text) is None:
                raise ValueError(f"{entry!r} is not a host name, an address or a network")
            if text[0] in "*.":
                self._domains.append(text.lstrip("*"))
            else:
                self._names.add(text)

    def has_name(self, host: str) -> bool:
        """Whether a host name, in lower case, is listed or is below a domain that is listed."""
        name = host.rstrip(".")
        return name in self._names or any(name.endswith(domain) for domain in self._domains)

    def has_address(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether an address is in one of the networks that are listed."""
        # "in" is False for a network of the other family.
        return any(address in network for network in self._networks)
