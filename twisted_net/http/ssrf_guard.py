"""SSRF guard: checks the destinations of requests against an egress policy."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from twisted_net.http.errors import AddressRefused
from twisted_net.http.host_patterns import HostPatterns
from twisted_net.http.settings import EgressPolicy
from twisted_net.net.addresses import parse_ip


class SsrfGuard:
    """
    Prevents server-side request forgery: applies an egress policy to the destinations of requests.

    The URL is checked first, then all addresses of its host.
    """

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._allow = HostPatterns(policy.allow)
        self._deny = HostPatterns(policy.deny)

    def check_url(self, scheme: str, host: str, port: int) -> None:
        """
        Check the parts of a URL, before its name is looked up.

        :param host: in lower case; an IPv6 address without brackets.
        :raises AddressRefused: if they are not allowed; its message names the rule.
        """
        if scheme not in self._policy.schemes:
            allowed = " and ".join(self._policy.schemes) or "nothing"
            raise AddressRefused(host, f"the scheme {scheme} is not allowed, only {allowed}")
        if self._deny.has_name(host):
            raise AddressRefused(host, "the name is denied")

    def check_addresses(self, host: str, port: int, addresses: Iterable[str]) -> None:
        """
        Check all addresses of a host.

        :param addresses: all that the look-up found; for an address in the URL, that one.
        :raises AddressRefused: if one is not allowed; its message names the address and the rule.
        """
        trusted_name = self._allow.has_name(host)
        for text in addresses:
            address = parse_ip(text)
            if address is None:
                raise AddressRefused(host, f"{text} is not an address that can be checked")
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
    Return whether an address belongs to the public internet, and all addresses inside it do.

    Stricter than :attr:`ipaddress.IPv6Address.is_global`, which is True for multicast and for most
    IPv4 addresses inside IPv6 ones.
    """
    return all(_is_public_itself(form) for form in unwrap(address))


def unwrap(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """
    Return every address that packets to *address* may finally reach.

    The first is the address itself; an IPv4-mapped one (``::ffff:a.b.c.d``) is returned as the
    IPv4 address that it stands for. The IPv4 addresses inside it follow: those of NAT64 (RFC 6052),
    SIIT (RFC 2765), 6to4 (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214) and the IPv4-compatible
    form (RFC 4291 §2.5.5.1).
    """
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    forms: list[IPv4Address | IPv6Address] = [address]
    number = int(address)
    if any(address in network for network in _IPV4_IN_LAST_32_BITS):
        forms.append(IPv4Address(number & 0xFFFF_FFFF))
    if address.sixtofour is not None:
        forms.append(address.sixtofour)
    if address.teredo is not None:
        forms.extend(address.teredo)
    if (number >> 32) & 0xFDFF_FFFF == 0x0000_5EFE:
        forms.append(IPv4Address(number & 0xFFFF_FFFF))
    return forms


_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_IN_LAST_32_BITS = (_NAT64, IPv6Network("::ffff:0:0:0/96"), IPv6Network("::/96"))
_UNICAST_6 = IPv6Network("2000::/3")  # all that IANA has assigned as global unicast

# Global according to the ipaddress module of some supported version of Python, but no destination
# for a request: 6to4 relays (RFC 7526), AS112 and AMT anycast, documentation (RFC 9637), Teredo.
_NOT_PUBLIC_4 = tuple(
    map(IPv4Network, ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"))
)
_NOT_PUBLIC_6 = tuple(map(IPv6Network, ("2001::/23", "3fff::/20", "2620:4f:8000::/48")))


def _is_public_itself(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return (
            address.is_global
            and not address.is_multicast
            and not address.is_reserved
            and not any(address in network for network in _NOT_PUBLIC_4)
        )
    # An IPv6-only network reaches every IPv4 address by NAT64's own prefix, so the address inside
    # decides. 6to4 is in 2000::/3, and there the address inside is checked as well.
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
