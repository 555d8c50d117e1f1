"""Which destinations an HTTP request may reach: the guard against server-side request forgery."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Annotated, Literal

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.http.errors import AddressRefused
from twisted_net.net.addresses import parse_ip

_NAME = re.compile(r"(?:\*\.|\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?")


class EgressPolicy(Record, frozen=True):
    """
    Where requests may go.

    The defaults suit URLs that strangers hand in: public addresses at the ports of the web, and
    nothing else. What ``allow`` lists is reached besides, at any port: these are destinations
    that the operator trusts. ``deny`` wins over ``allow``. An entry of either is a host name
    (``localhost``), a domain with all names below it (``*.example.org``), an address
    (``127.0.0.1``, ``::1``) or a network (``10.0.0.0/8``).

    A name that is allowed may have any address but a denied one. Of any other name **every**
    address must be allowed: one bad among them refuses it.
    """

    schemes: Annotated[
        tuple[Literal["http", "https"], ...], Meta(description="URL schemes that may be requested")
    ] = ("http", "https")
    ports: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=65_535)], ...],
        Meta(description="ports that may be reached; empty for all"),
    ] = (80, 443)
    public: Annotated[bool, Meta(description="whether public addresses may be reached")] = True
    allow: Annotated[
        tuple[str, ...],
        Meta(description="names, addresses and networks reached besides, at any port"),
    ] = ()
    deny: Annotated[
        tuple[str, ...], Meta(description="names, addresses and networks never reached")
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("allow", "deny"):
            for entry in getattr(self, name):
                try:
                    _Entries((entry,))
                except ValueError as error:
                    raise ValueError(f"{type(self).__name__}.{name}: {error}") from None


class SsrfGuard:
    """Applies a :class:`EgressPolicy`: first to the URL, then to the addresses of its host."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._allow = _Entries(policy.allow)
        self._deny = _Entries(policy.deny)

    def check_url(self, scheme: str, host: str, port: int) -> None:
        """
        Refuse what can be refused before the name is looked up.

        :param host: in lower case; an IPv6 address without brackets.
        :raises AddressRefused: naming the rule.
        """
        if scheme not in self._policy.schemes:
            allowed = " and ".join(self._policy.schemes) or "nothing"
            raise AddressRefused(host, f"the scheme {scheme} is not allowed, only {allowed}")
        if self._deny.has_name(host):
            raise AddressRefused(host, "the name is denied")

    def check_addresses(self, host: str, port: int, addresses: Iterable[str]) -> None:
        """
        Refuse a host if one of its addresses may not be reached.

        :param addresses: all that were found for it; for an address in the URL, itself alone.
        :raises AddressRefused: naming the address and the rule.
        """
        trusted_name = self._allow.has_name(host)
        for text in addresses:
            address = parse_ip(text)
            if address is None:
                raise AddressRefused(host, f"{text} is not an address that can be judged")
            forms = unwrap(address)
            shown = "its address" if text == host else f"its address {text}"
            if any(self._deny.has_address(form) for form in forms):
                raise AddressRefused(host, f"{shown} is denied")
            if trusted_name or any(self._allow.has_address(form) for form in forms[:1]):
                continue
            if not self._policy.public:
                raise AddressRefused(host, f"{shown} is not in the allow list")
            if not is_public(address):
                raise AddressRefused(host, f"{shown} is not a public one")
            if self._policy.ports and port not in self._policy.ports:
                allowed = ", ".join(map(str, self._policy.ports))
                raise AddressRefused(host, f"port {port} is not allowed, only {allowed}")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """
    Say whether an address belongs to the public internet, in each of its forms.

    Stricter than :attr:`ipaddress.IPv6Address.is_global`, which says True for multicast and for
    most IPv4 addresses that are wrapped in IPv6 ones.
    """
    return all(_plainly_public(form) for form in unwrap(address))


def unwrap(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """
    Give every address that packets to *address* may in the end reach.

    The first is the address itself, but for an IPv4-mapped one (``::ffff:a.b.c.d``), which is
    only another way to write the IPv4 address. Then come the IPv4 addresses inside it: by NAT64
    (RFC 6052), SIIT (RFC 2765), 6to4 (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214) and in the
    IPv4-compatible form (RFC 4291 §2.5.5.1).
    """
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    forms: list[IPv4Address | IPv6Address] = [address]
    number = int(address)
    if any(address in network for network in _IPV4_AT_THE_END):
        forms.append(IPv4Address(number & 0xFFFF_FFFF))
    if address.sixtofour is not None:
        forms.append(address.sixtofour)
    if address.teredo is not None:
        forms.extend(address.teredo)
    if (number >> 32) & 0xFDFF_FFFF == 0x0000_5EFE:
        forms.append(IPv4Address(number & 0xFFFF_FFFF))
    return forms


_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_AT_THE_END = (_NAT64, IPv6Network("::ffff:0:0:0/96"), IPv6Network("::/96"))
_UNICAST_6 = IPv6Network("2000::/3")  # all that IANA has given out as global unicast

# Said to be global by the ipaddress module of some Python that we run on, and yet no place for
# a request: 6to4 relays (RFC 7526), AS112 and AMT anycast, documentation (RFC 9637), Teredo.
_NOT_PUBLIC_4 = tuple(
    map(IPv4Network, ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"))
)
_NOT_PUBLIC_6 = tuple(map(IPv6Network, ("2001::/23", "3fff::/20", "2620:4f:8000::/48")))


def _plainly_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return (
            address.is_global
            and not address.is_multicast
            and not address.is_reserved
            and not any(address in network for network in _NOT_PUBLIC_4)
        )
    # NAT64's own prefix is the way of an IPv6-only network to every IPv4 address: what is inside
    # decides. 6to4 lies in 2000::/3, and there too what is inside is judged besides.
    if address in _NAT64:
        return True
    if address.sixtofour is not None:
        return True
    return (
        address in _UNICAST_6
        and address.is_global
        and address.scope_id is None
        and not any(address in network for network in _NOT_PUBLIC_6)
    )


class _Entries:
    """
    The names and networks of one list.

    :raises ValueError: for an entry that is neither.
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
            if _NAME.fullmatch(text) is None:
                raise ValueError(f"{entry!r} is not a host name, an address or a network")
            if text[0] in "*.":
                self._domains.append(text.lstrip("*"))
            else:
                self._names.add(text)

    def has_name(self, host: str) -> bool:
        name = host.rstrip(".")
        return name in self._names or any(name.endswith(domain) for domain in self._domains)

    def has_address(self, address: IPv4Address | IPv6Address) -> bool:
        # An address of the other family is in no network, which is what "in" says too.
        return any(address in network for network in self._networks)
