"""Tests for :mod:`twisted_net.coap.echo`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.echo import CHALLENGE_LIFETIME, AddressVerifier

PEER = ("192.0.2.1", 5683)
OTHER = ("192.0.2.2", 5683)


class AddressVerifierTests(SynchronousTestCase):
    """:class:`AddressVerifier` believes who returns what was sent to an address (RFC 9175)."""

    def setUp(self) -> None:
        self.verifier = AddressVerifier(b"k" * 16, 2, 600)

    def test_proof(self) -> None:
        """An address is proven by its own challenge, and for a while after its last request."""
        self.assertFalse(self.verifier.verify(PEER, None, 0))
        echo = self.verifier.challenge(PEER, 0)
        self.assertEqual(len(echo), 12)
        self.assertTrue(self.verifier.verify(PEER, echo, 1))
        self.assertTrue(self.verifier.verify(PEER, None, 600))
        self.assertTrue(self.verifier.verify(PEER, None, 1100))
        self.assertFalse(self.verifier.verify(PEER, None, 1000))
        self.assertFalse(self.verifier.verify(PEER, None, 1700))

    def test_forged(self) -> None:
        """Another's challenge, one that was touched, or is old, proves nothing."""
        echo = self.verifier.challenge(PEER, 1000)
        for source, value, now in (
            (OTHER, echo, 1000),
            (PEER, echo[:-1] + bytes((echo[-1] ^ 1,)), 1000),
            (PEER, b"\0\0\0\0" + echo[4:], 1000),
            (PEER, echo, 1001 + CHALLENGE_LIFETIME),
            (PEER, echo, 990),
            (PEER, echo[:8], 1000),
        ):
            self.assertFalse(self.verifier.verify(source, value, now))

    def test_bounded(self) -> None:
        """Over its limit, the address silent for longest proves itself anew."""
        for number in range(4):
            source = ("192.0.2.9", number)
            self.assertTrue(self.verifier.verify(source, self.verifier.challenge(source, 0), 0))
        self.assertEqual(len(self.verifier), 2)
        self.assertFalse(self.verifier.verify(("192.0.2.9", 0), None, 0))
