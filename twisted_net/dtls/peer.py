"""Peers whose address is proven and whose datagrams are nobody else's."""

from __future__ import annotations

from twisted_net.net.addresses import Source


class SecurePeer(tuple[str, int]):
    """
    The far end of one DTLS session, which serves wherever its address does: host, port.

    Two of them are never equal, though they come from one address. So whatever a server keeps by
    address (answers for repetition, bodies on their way, observers, who is logged in) it keeps
    by session, and the next one from that address sees nothing of it (RFC 7252 §9.1).

    :ivar identity: the user whom its certificate names; None without one.
    """

    identity: str | None

    def __new__(cls, source: Source, identity: str | None = None) -> SecurePeer:
        peer = super().__new__(cls, source)
        peer.identity = identity
        return peer

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self) >> 4


def identity_of(source: Source) -> str | None:
    """Give the user whom a peer's certificate names; None for one without, or without DTLS."""
    return source.identity if isinstance(source, SecurePeer) else None
