"""Addresses that proved themselves by an Echo option (RFC 9175), and answers to the others."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2s
from hmac import compare_digest

from twisted_net.net.addresses import Source

CHALLENGE_LIFETIME = 60
"""Seconds for which an Echo value may be returned."""


class AddressProofs:
    """
    Knows which addresses are really those of who sends from them.

    A challenge costs no memory: it is the time and a MAC of the time and the address. Only who
    receives at the address can return it. What is remembered are addresses that did.

    :param key: secret, 16 to 32 random bytes, new at each start.
    :param most: addresses remembered; over it, the one silent for longest proves itself anew.
    :param lifetime: seconds after its last request that an address is remembered.
    """

    def __init__(self, key: bytes, most: int, lifetime: float) -> None:
        self._key = key
        self._most = most
        self._lifetime = lifetime
        self._proven: OrderedDict[Source, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._proven)

    def challenge(self, source: Source, now: float) -> bytes:
        """Give the value of an Echo option for this address: 12 bytes."""
        stamp = (int(now) & 0xFFFFFFFF).to_bytes(4, "big")
        return stamp + self._tag(source, stamp)

    def proven(self, source: Source, echo: bytes | None, now: float) -> bool:
        """
        Tell whether an address has proven itself, by this request or an earlier one.

        :param echo: the value of the request's Echo option.
        """
        seen = self._proven.get(source)
        if seen is not None and now - seen < self._lifetime:
            self._proven[source] = now
            self._proven.move_to_end(source)
            return True
        if echo is None or len(echo) != 12:
            return False
        age = (int(now) - int.from_bytes(echo[:4], "big")) & 0xFFFFFFFF
        if age > CHALLENGE_LIFETIME or not compare_digest(echo[4:], self._tag(source, echo[:4])):
            return False
        self._proven[source] = now
        self._proven.move_to_end(source)
        if len(self._proven) > self._most:
            self._proven.popitem(last=False)
        return True

    def _tag(self, source: Source, stamp: bytes) -> bytes:
        address = f"{source[0]} {source[1]}".encode()
        return blake2s(stamp + address, key=self._key, digest_size=8).digest()
