"""Secure peers: the far end of a DTLS session, in place of a datagram's source address."""

from __future__ import annotations

from twisted_net.net.addresses import Source


class SecurePeer(tuple[str, int]):
    """
    The far end of one DTLS session, usable wherever a source (host, port) is.

    Two peers are never equal, even with the same address. So a server that keeps state by source
    (cached answers, uploads, subscriptions, logins) keeps it by session, and the next session
    from that address has no access to it.

    :ivar identity: the user that its certificate names, empty if it names none, or that its
        pre-shared key is of; None without either.
    :ivar credential: what proved the identity, in words: ``certificate`` or ``pre-shared key``.
    """

    identity: str | None
    credential: str

    def __new__(
        cls, source: Source, identity: str | None = None, credential: str = "certificate"
    ) -> SecurePeer:
        peer = super().__new__(cls, source)
        peer.identity = identity
        peer.credential = credential
        return peer

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self) >> 4


def identity_of(source: Source) -> str | None:
    """Return the identity of a secure peer; None without certificate, pre-shared key or DTLS."""
    return source.identity if isinstance(source, SecurePeer) else None


def credential_of(source: Source) -> str:
    """Return what proved the identity of a secure peer, in words."""
    return source.credential if isinstance(source, SecurePeer) else "certificate"
